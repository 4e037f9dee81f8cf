"""What becomes of expressions that people write, by all rules together."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from graphopt.ir.node import Node
from graphopt.ir.op import CONSTANT, PARAM
from graphopt.ir.sources import Sources
from graphopt.passes.rules import RULES
from graphopt.rewrite.driver import Rewriter, RuleSet
from graphopt.rewrite.safety import ADMITTED
from graphopt.trace.jaxpr import trace_function

RULE_SET = RuleSet(RULES)

F, N, U, P, C = "float32", "int32", "uint32", "bool", "complex64"


def expression(node: Node) -> str:
    """A node as an expression of a, b, c, … (the inputs) and numbers."""
    if node.op is PARAM:
        return "abcd"[node.attrs["index"]]
    if node.op is CONSTANT:
        return str(node.value.item())
    if node.op.name == "broadcast_in_dim" and not node.inputs[0].aval.shape:
        return expression(node.inputs[0])
    return f"{node.op.name}({', '.join(map(expression, node.inputs))})"


def full(value: Any) -> Any:
    return lax.full((3,), value)


CASES: dict[str, tuple[Any, str, str, str]] = {
    # name: function, dtypes of its arguments, numerics, the result
    "neutral elements": (lambda a: (0 + a * 1 - 0) / 1, F, "standard", "a"),
    "neutral elements keep denormals": (lambda a: a * 1, F, "exact", "mul(a, 1.0)"),
    "zero": (lambda a: a * 0 + a, N, "exact", "a"),
    "difference with itself": (lambda a: a - a, N, "exact", "0"),
    "negated difference": (lambda a, b: -(a - b), F + " " + F, "standard", "sub(b, a)"),
    "negations cancel": (lambda a, b: -((-a) * b) - (-a), F + " " + F, "exact", "add(mul(a, b), a)"),
    "a negative factor in a sum": (lambda a, b, c: c + (-a) * b, f"{F} {F} {F}", "exact", "sub(c, mul(a, b))"),
    "factoring": (lambda a, b, c: a * b + c * a, f"{N} {N} {N}", "exact", "mul(a, add(b, c))"),
    "constants of a sum": (lambda a: 5 - (a + 2 + 1), N, "exact", "sub(2, a)"),
    "constants of a product": (lambda a: a * 2 * 3 / 0.5, F, "standard", "mul(a, 12.0)"),
    "constants that pull apart": (lambda a: a * 3 * 0.25, F, "standard", "mul(mul(a, 3.0), 0.25)"),
    "constants that pull apart, fast": (lambda a: a * 3 * 0.25, F, "fast", "mul(a, 0.75)"),
    "magic rounding": (lambda a: (a + 12582912.0) - 12582912.0, F, "standard", "sub(add(a, 12582912.0), 12582912.0)"),
    "normalization": (lambda a, b: a / jnp.sqrt(b + 1), f"{F} {F}", "standard", "mul(a, rsqrt(add(b, 1.0)))"),
    "sigmoid": (lambda a: 1 / (1 + jnp.exp(-a)), F, "standard", "logistic(a)"),
    "swish": (lambda a: a / (1 + jnp.exp(-a)), F, "fast", "mul(a, logistic(a))"),
    "relu of relu": (lambda a: lax.max(lax.max(a, 0.0), 0.0), F, "standard", "max(a, 0.0)"),
    "nested limits": (
        lambda a: lax.min(lax.max(lax.min(lax.max(a, -1.0), 6.0), 0.0), 9.0),
        F,
        "standard",
        "clamp(0.0, a, 6.0)",
    ),
    "powers": (lambda a: (-a) ** 2 + lax.pow(a, np.float32(0.5)) ** 2, F, "fast", "add(square(a), a)"),
    "logarithms": (lambda a: jnp.log(jnp.exp(a)), F, "fast", "a"),
    "exponentials": (lambda a, b: jnp.exp(a) * jnp.exp(b), f"{F} {F}", "fast", "exp(add(a, b))"),
    "rounding twice": (lambda a: lax.floor(lax.round(a)), F, "exact", "round(a)"),
    "complex parts": (lambda a, b: lax.real(lax.conj(a) + b), f"{C} {C}", "exact", "add(real(a), real(b))"),
    "complex magnitude": (lambda a: lax.abs(a) ** 2, C, "fast", "add(square(real(a)), square(imag(a)))"),
    "De Morgan": (lambda a, b: ~(~a & ~b), f"{P} {P}", "exact", "or(a, b)"),
    "exclusive or": (lambda a, b: (a & ~b) | (~a & b), f"{N} {N}", "exact", "xor(a, b)"),
    "masks": (lambda a: ((a | 3) & 12) & 6, N, "exact", "and(a, 4)"),
    "shifts": (lambda a: lax.shift_right_logical((a << 3) << 5, np.int32(8)), N, "exact", "and(a, 16777215)"),
    "not less": (lambda a, b: ~(a < b), f"{N} {N}", "exact", "ge(a, b)"),
    "not less, with NaN": (lambda a, b: ~(a < b), f"{F} {F}", "standard", "not(lt(a, b))"),
    "the test for NaN": (lambda a: a != a, F, "fast", "ne(a, a)"),
    "an unsigned limit": (lambda a: a >= np.uint32(0), U, "exact", "True"),
    "choice of a flag": (lambda a: lax.select(a, full(True), full(False)), P, "exact", "a"),
    "choice of the other flag": (lambda a: lax.select(a, full(False), full(True)), P, "exact", "not(a)"),
    "choice in a choice": (
        lambda a, b, c, d: lax.select(a, lax.select(b, c, d), d),
        f"{P} {P} {F} {F}",
        "exact",
        "select_n(and(a, b), d, c)",
    ),
    "choice before the operation": (
        lambda a, b, c: lax.select(a, jnp.exp(b), jnp.exp(c)),
        f"{P} {F} {F}",
        "exact",
        "exp(select_n(a, c, b))",
    ),
    "relu as a choice": (lambda a: lax.select(a > 0, a, full(0.0)), F, "fast", "max(a, 0.0)"),
    "a mask as a factor": (lambda a, b: a * b.astype(F), f"{F} {P}", "fast", "select_n(b, 0.0, a)"),
}


@pytest.mark.parametrize("name", CASES)
def test_simplified(name: str) -> None:
    function, dtypes, numerics, expected = CASES[name]
    graph, _ = trace_function(function, *[jax.ShapeDtypeStruct((3,), dtype) for dtype in dtypes.split()])
    rewriter = Rewriter(RULE_SET, Sources(), ADMITTED[numerics])
    simplified = rewriter.graph(graph)
    assert [expression(node) for node in simplified.outputs] == [expected]
    assert not rewriter.log.endless
