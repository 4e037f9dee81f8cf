"""Malformed text: a ParseError with the line, the column, what was found and a pointer to it."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from graphopt.errors import GraphoptError, ParseError
from graphopt.ir.parse import parse
from graphopt.trace.jaxpr import trace_function

CASES = {
    "nothing": ("", 1, 1, "expected `graph @main(...) {`, found nothing"),
    "no graph": ("node @main() {\n}", 1, 1, "expected 'graph', found 'node'"),
    "no name": ("graph main() {", 1, 7, "expected a graph's name such as @main, found 'main'"),
    "no type of a parameter": ("graph @main(%0) {", 1, 15, "expected ':', found ')'"),
    "no parameter": ("graph @main(x: f32[]) {", 1, 13, "expected a parameter such as %0, found 'x'"),
    "unknown type": ("graph @main(%0: float[2]) {", 1, 17, "expected a type such as f32[8], found 'float'"),
    "a dimension below zero": ("graph @main(%0: f32[-2]) {", 1, 21, "expected a dimension, found '-2'"),
    "half a dimension": ("graph @main(%0: f32[2.5]) {", 1, 21, "expected a dimension, found '2.5'"),
    "no dimension": ("graph @main(%0: f32[x]) {", 1, 21, "expected a dimension, found 'x'"),
    "the end in a type": ("graph @main(%0: f32[2", 1, 22, "expected ','"),
    "a parameter twice": ("graph @main(%0: f32[], %0: f32[]) {", 1, 24, "%0 is defined twice"),
    "no brace": ("graph @main() return", 1, 15, "expected '{', found 'return'"),
    "the end in a graph": ("graph @main() {\n", 2, 1, "unexpected end of text"),
    "neither node nor return": (
        "graph @main() {\n  add\n}",
        2,
        3,
        "expected a node such as %0, or `return`, found 'add'",
    ),
    "no type of a node": ("graph @main() {\n  %0 = add()\n}", 2, 6, "expected ':', found '='"),
    "no operation": ("graph @main() {\n  %0: f32[] = 3()\n}", 2, 15, "expected an operation, found '3'"),
    "unknown operation": ("graph @main() {\n  %0: f32[] = adds()\n}", 2, 15, "unknown operation 'adds': it is no"),
    "no operands": ("graph @main() {\n  %0: f32[] = add\n}", 3, 1, "expected '(', found '}'"),
    "an operand of no node": ("graph @main() {\n  %1: f32[] = sin(%0)\n}", 2, 19, "%0 is used before it is defined"),
    "an operand that is none": ("graph @main() {\n  %1: f32[] = sin(x)\n}", 2, 19, "expected an operand such as %0"),
    "a node twice": (
        "graph @main(%0: f32[]) {\n  %0: f32[] = sin(%0)\n  return\n}",
        2,
        3,
        "%0 is defined twice",
    ),
    "an output of no node": ("graph @main() {\n  return %3\n}", 2, 10, "%3 is used before it is defined"),
    "two outputs without a comma": ("graph @main(%0: f32[]) {\n  return %0 %0\n}", 2, 13, "expected ',', found '%0'"),
    "a graph twice": (
        "graph @main() {\n  return\n}\ngraph @main() {\n  return\n}",
        4,
        1,
        "graph @main is defined twice",
    ),
    "an unknown character": ("graph @main() {\n  %0: f32[] = sin[a=$]()\n}", 2, 21, "unexpected character"),
    "no name of an attribute": (
        "graph @main() {\n  %0: f32[] = sin[3=3]()",
        2,
        19,
        "expected an attribute's name, found '3'",
    ),
    "no value": ("graph @main() {\n  %0: f32[] = sin[a=]()", 2, 21, "expected a value, found ']'"),
    "an unknown value": ("graph @main() {\n  %0: f32[] = sin[a=word]()", 2, 21, "expected a value, found 'word'"),
    "an attribute twice": ("graph @main() {\n  %0: f32[] = sin[a=1, a=2]()", 2, 18, "a name is given twice"),
    "an unknown dtype": ("graph @main() {\n  %0: f32[] = sin[a=dtype(f33)]()", 2, 21, "unknown dtype 'f33'"),
    "an unknown graph": ("graph @main() {\n  %0: f32[] = jit[a=@1]()", 2, 21, "graph @1 is used before it is defined"),
    "a graph in itself": (
        "graph @main() {\n  %0: f32[] = jit[a=@main]()",
        2,
        21,
        "graph @main is used before it is defined",
    ),
    "an unknown mode of a graph": (
        "graph @1() {\n return\n}\ngraph @main() {\n  %0: f32[] = jit[a=@1:shut]()",
        5,
        21,
        "expected open0, open1, … (how many inputs are constants), found 'shut'",
    ),
    "more constants than inputs": (
        "graph @1() {\n return\n}\ngraph @main() {\n  %0: f32[] = jit[a=@1:open1]()",
        5,
        21,
        "expected open0",
    ),
    "an unknown member": (
        "graph @main() {\n  %0: f32[] = sin[a=Precision.BEST]()",
        2,
        21,
        "Precision has no member 'BEST'; it has DEFAULT, HIGH, HIGHEST",
    ),
    "missing fields": (
        "graph @main() {\n  %0: f32[] = sin[a=ConvDimensionNumbers(lhs_spec=1)]()",
        2,
        21,
        "ConvDimensionNumbers has the fields lhs_spec, rhs_spec, out_spec",
    ),
    "a key without quotes": (
        "graph @main() {\n  %0: f32[] = sin[a={b: 1}]()",
        2,
        22,
        "expected a key in quotes, found 'b'",
    ),
    "an impossible string": ("graph @main() {\n  %0: f32[] = sin[a='\\x']()", 2, 21, "is not a string"),
    "deep values": ("graph @main() {\n  %0: f32[] = sin[a=" + "(" * 100_000, 2, None, "values are nested too deeply"),
    "too few elements": ("graph @main() {\n  %0: f32[2] = constant(1.0)", 2, 24, "f32[2] has 2 elements, not 1"),
    "too many elements": ("graph @main() {\n  %0: i8[] = constant(1, 2)", 2, 22, "i8[] has 1 elements, not 2"),
    "an element that is too large": (
        "graph @main() {\n  %0: i8[] = constant(128)",
        2,
        23,
        "128 is not an element of i8",
    ),
    "an element below zero": ("graph @main() {\n  %0: u4[] = constant(-1)", 2, 23, "-1 is not an element of u4"),
    "a huge element": (
        "graph @main() {\n  %0: u64[] = constant(" + "9" * 5000 + ")",
        2,
        24,
        "is not an element of u64",
    ),
    "half an element": ("graph @main() {\n  %0: i32[] = constant(1.5)", 2, 24, "1.5 is not an element of i32"),
    "a number for a boolean": (
        "graph @main() {\n  %0: bool[] = constant(1)",
        2,
        25,
        "expected true or false, found '1'",
    ),
    "true for a number": (
        "graph @main() {\n  %0: f32[] = constant(true)",
        2,
        24,
        "expected an element of f32, found 'true'",
    ),
    "too few bits": (
        "graph @main() {\n  %0: f32[] = constant(0x7fc0)",
        2,
        24,
        "expected an element of f32, found '0x7fc0'",
    ),
    "half a complex number": ("graph @main() {\n  %0: c64[] = constant(1.0)", 2, 27, "expected '+', found ')'"),
    "no i": ("graph @main() {\n  %0: c64[] = constant(1.0 + 2.0i)", 2, 33, "expected 'j', found 'i'"),
    "a constant with two results": (
        "graph @main() {\n  %0: (f32[], f32[]) = constant(1.0)",
        2,
        24,
        "constant has one result",
    ),
    "a constant state": ("graph @main() {\n  %0: state = constant(1.0)", 2, 23, "cannot be written as elements"),
    "an input in the body": (
        "graph @main() {\n  %0: f32[] = param[index=0]()",
        2,
        15,
        "inputs stand in the parentheses",
    ),
    "a result of nothing": ("graph @main() {\n  %0: f32[] = project[index=0]()", 2, 15, "write project[index=0](%1)"),
    "a result without number": (
        "graph @main(%0: f32[]) {\n  %1: f32[] = project(%0)",
        2,
        15,
        "write project[index=0](%1): one operand, and the number of its result",
    ),
    "a state that is an array": (
        "graph @main(%0: f32[]) {\n  %1: f32[] = state(%0)",
        2,
        15,
        "write `state = state(%0)`",
    ),
    "a reference to nothing": ("graph @main(%0: <&1 Ref>) {\n  return\n}", 1, 17, "no living graph prints it"),
}


@pytest.mark.parametrize(("text", "line", "column", "message"), CASES.values(), ids=CASES.keys())
def test_what_is_wrong_and_where(text: str, line: int, column: int | None, message: str) -> None:
    with pytest.raises(ParseError) as caught:
        parse(text)
    error = caught.value
    assert isinstance(error, GraphoptError | ValueError)
    first, shown, pointer, place = str(error).split("\n")
    assert f"at {__file__}:" in place
    assert message in first
    assert first.startswith(f"graph text, line {error.line}, column {error.column}: ")
    assert (error.line, error.column) == (line, column or error.column)
    assert shown[2:] == (text.split("\n")[line - 1] if text else "")
    assert pointer == " " * (error.column + 1) + "^"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("<&1 array", "<&9 array", "there is no object 9; the graph has "),
        ("<&1 array", "<&0 array", "there is no object 0; the graph has "),
        ("constant(<&1", "constant(<&2", "the reference in a constant is not an array"),
        ("main(%0: f32[5000]", "main(%0: <&2 key>", "the reference is not a type"),
        ("= sin[", "= <&2 Op(add)>[", "the reference is not an operation"),
    ],
)
def test_references_to_the_wrong_thing(old: str, new: str, message: str) -> None:
    large = np.arange(5000.0, dtype=np.float32)
    graph, _ = trace_function(lambda x: jax.pure_callback(np.sin, x, jnp.sin(x) + large), large)
    text = re.sub(r"<&[2-9] \w[^>]*>", "<&2 any>", str(graph))
    assert text.count(old) == 1, text
    with pytest.raises(ParseError, match=message):
        parse(text.replace(old, new), like=graph)
