"""Reading a graph's text back to the same object.

References `<&k …>` are looked up in the living graph that prints this very text, or in `like`.
"""

from __future__ import annotations

import ast
import enum
import re
from collections.abc import Callable
from typing import Any, NoReturn, TypeVar

import jax
import numpy as np

from graphopt.errors import ParseError
from graphopt.ir.attrs import EMPTY, Attrs, SubGraph
from graphopt.ir.aval import DTYPES, Aval, State, array_aval, aval_of, dtype_name
from graphopt.ir.graph import Graph, live_graphs, make_graph
from graphopt.ir.node import NO_EFFECTS, Constant, Node, make_node
from graphopt.ir.op import CONSTANT, PARAM, PROJECT, STATE, Op, op_named
from graphopt.ir.text import objects_of

T = TypeVar("T")

_TOKEN = re.compile(
    r"""\s*(?:
      (?P<reference><&\d+[^<>]*>)
    | (?P<string>'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")
    | (?P<bits>0x[0-9a-f]+)
    | (?P<number>[-+]?(?:(?:inf|nan)(?=j?\b)|(?:\d+\.\d*|\.\d+|\d+)(?:[eE][-+]?\d+)?))
    | (?P<node>%\d+) | (?P<graph>@\w+)
    | (?P<name>[A-Za-z_]\w*)
    | (?P<mark>[\[\](){}=,:.~+])
    )""",
    re.VERBOSE,
)
_WHOLE = re.compile(r"[-+]?\d{1,4000}")


def parse(text: str, like: Graph | None = None) -> Graph:
    """The graph that `text` describes; `parse(str(graph)) is graph`.

    like: a graph whose objects the references `<&k …>` mean. Not needed for text without references, nor as long as the
    graph that was printed is alive and no other living graph prints the same text.
    Raises ParseError, with line and column, if the text is malformed or it is not known what a reference means.
    """
    parser = _Parser(text, like)
    try:
        return parser.parse()
    except RecursionError:
        parser.fail("values are nested too deeply")


class _Parser:
    def __init__(self, text: str, like: Graph | None) -> None:
        self.text = text
        self.at = 0
        self.ahead: tuple[int, str, str, int] = (-1, "", "", 0)
        self.like = like
        self._objects: tuple[Any, ...] | None = None
        self.graphs: dict[str, Graph] = {}

    # Graphs and nodes

    def parse(self) -> Graph:
        graph: Graph | None = None
        while self.text[self.at :].strip():
            start = self.at
            name, graph = self.graph()
            if name in self.graphs:
                self.fail(f"graph {name} is defined twice", start)
            self.graphs[name] = graph
        if graph is None:
            self.fail("expected `graph @main(...) {`, found nothing")
        return graph

    def graph(self) -> tuple[str, Graph]:
        self.expect("graph")
        name = self.take("graph", "a graph's name such as @main")
        nodes: dict[str, Node] = {}
        params: list[Node] = []
        for start, label, aval in self.sequence("(", ")", self.parameter):
            params.append(make_node(PARAM, (), Attrs({"index": len(params)}), (aval,)))
            self.define(nodes, label, params[-1], start)
        self.expect("{")
        while not self.peek("return"):
            start = self.at
            label = self.take("node", "a node such as %0, or `return`")
            self.expect(":")
            self.define(nodes, label, self.node(nodes), start)
        self.expect("return")
        outputs = []
        while not self.peek("}"):
            outputs.append(self.operand(nodes))
            if not self.peek("}"):
                self.expect(",")
        self.expect("}")
        return name, make_graph(params, outputs)

    def define(self, nodes: dict[str, Node], label: str, node: Node, start: int) -> None:
        if label in nodes:
            self.fail(f"{label} is defined twice", start)
        nodes[label] = node

    def parameter(self) -> tuple[int, str, Aval]:
        start = self.at
        label = self.take("node", "a parameter such as %0")
        self.expect(":")
        return start, label, self.aval()

    def node(self, nodes: dict[str, Node]) -> Node:
        avals = self.sequence("(", ")", self.aval) if self.peek("(") else [self.aval()]
        self.expect("=")
        start = self.at
        op = self.op()
        if op in (CONSTANT, PROJECT, STATE) and len(avals) != 1:
            self.fail(f"{op.name} has one result", start)
        if op is CONSTANT:
            return make_node(op, (), Attrs({"value": self.constant(avals[0])}), tuple(avals))
        attrs = self.entries("[", "]", self.attribute) if self.peek("[") else {}
        inputs = tuple(self.sequence("(", ")", lambda: self.operand(nodes)))
        self.check_own(op, attrs, inputs, avals, start)
        context = self.reference() if self.accept("context") else None
        effects = []
        if self.accept("effects"):
            effects.append(self.reference())
            while self.accept(","):
                effects.append(self.reference())
        return make_node(
            op, inputs, Attrs(attrs) if attrs else EMPTY, tuple(avals), context, frozenset(effects) or NO_EFFECTS
        )

    def check_own(self, op: Op, attrs: dict[str, Any], inputs: tuple[Node, ...], avals: list[Aval], start: int) -> None:
        """The graph's own operations are not typed by JAX."""
        if op is PARAM:
            self.fail("inputs stand in the parentheses after the graph's name", start)
        if op is PROJECT and (len(inputs) != 1 or type(attrs.get("index")) is not int):
            self.fail("write project[index=0](%1): one operand, and the number of its result", start)
        if op is STATE and (len(inputs) > 1 or not avals[0].is_state):
            self.fail("write `state = state(%0)` for a Ref, `<&1 …> = state()` for an effect", start)

    def op(self) -> Op:
        start = self.at
        kind, name = self.next()
        if kind == "reference":
            op = self.object(name, start)
            if not isinstance(op, Op):
                self.fail("the reference is not an operation", start)
            return op
        if kind == "string":
            name = self.unquote(name, start)
        elif kind != "name":
            self.fail(f"expected an operation, found {name!r}", start)
        op = op_named(name)
        if op is None:
            self.fail(
                f"unknown operation {name!r}: it is no primitive of this JAX, nor one seen in this process", start
            )
        return op

    def operand(self, nodes: dict[str, Node]) -> Node:
        start = self.at
        label = self.take("node", "an operand such as %0")
        if label not in nodes:
            self.fail(f"{label} is used before it is defined", start)
        return nodes[label]

    def attribute(self) -> tuple[str, Any]:
        name = self.take("name", "an attribute's name")
        self.expect("=")
        return name, self.value()

    # Types and values

    def aval(self) -> Aval:
        start = self.at
        kind, word = self.next()
        if kind == "reference":
            type = self.object(word, start)
            if not isinstance(type, State | jax.core.AbstractValue):
                self.fail("the reference is not a type", start)
            return aval_of(type)
        if word == "state":
            return aval_of(State())
        if word not in DTYPES:
            self.fail(f"expected a type such as f32[8], found {word!r}", start)
        shape = self.sequence("[", "]", self.dimension)
        return array_aval(tuple(shape), DTYPES[word], weak_type=self.accept("~"))

    def dimension(self) -> int:
        start = self.at
        number = self.take("number", "a dimension")
        if not re.fullmatch(r"\d{1,18}", number):
            self.fail(f"expected a dimension, found {number!r}", start)
        return int(number)

    def value(self) -> Any:
        start = self.at
        kind, word = self.next()
        if kind == "reference":
            return self.object(word, start)
        if kind == "string":
            return self.unquote(word, start)
        if kind == "number":
            return int(word) if _WHOLE.fullmatch(word) else float(word)
        if kind == "graph":
            return self.subgraph(word, start)
        if word == "(":
            self.at = start
            return tuple(self.sequence("(", ")", self.value))
        if word == "{":
            self.at = start
            return self.entries("{", "}", self.entry)
        if word in ("None", "True", "False"):
            return {"None": None, "True": True, "False": False}[word]
        if word == "dtype":
            self.expect("(")
            name = self.take("name", "a dtype such as f32")
            if name not in DTYPES:
                self.fail(f"unknown dtype {name!r}", start)
            self.expect(")")
            return DTYPES[name]
        if kind == "name":
            return self.lax_value(word, start)
        self.fail(f"expected a value, found {word!r}", start)

    def entry(self) -> tuple[str, Any]:
        start = self.at
        key = self.unquote(self.take("string", "a key in quotes"), start)
        self.expect(":")
        return key, self.value()

    def entries(self, opening: str, closing: str, item: Callable[[], tuple[str, Any]]) -> dict[str, Any]:
        start = self.at
        items = self.sequence(opening, closing, item)
        entries = dict(items)
        if len(entries) != len(items):
            self.fail("a name is given twice", start)
        return entries

    def unquote(self, text: str, start: int) -> str:
        try:
            return str(ast.literal_eval(text))
        except (SyntaxError, ValueError) as error:
            self.fail(f"{text} is not a string: {error.args[0]}", start)

    def subgraph(self, name: str, start: int) -> SubGraph:
        if name not in self.graphs:
            self.fail(f"graph {name} is used before it is defined", start)
        if not self.accept(":"):
            return SubGraph(self.graphs[name])
        mode = self.take("name", "open0, open1, …")
        if not re.fullmatch(r"open\d{1,9}", mode) or int(mode[4:]) > len(self.graphs[name].params):
            self.fail(f"expected open0, open1, … (how many inputs are constants), found {mode!r}", start)
        return SubGraph(self.graphs[name], closed=False, constvars=int(mode[4:]))

    def lax_value(self, name: str, start: int) -> Any:
        """A member of an enumeration or a named tuple of `jax.lax`."""
        kind = getattr(jax.lax, name, None)
        if isinstance(kind, type) and issubclass(kind, enum.Enum):
            self.expect(".")
            member = self.take("name", f"a member of {name}")
            if member not in kind.__members__:
                self.fail(f"{name} has no member {member!r}; it has {', '.join(kind.__members__)}", start)
            return kind[member]
        if isinstance(kind, type) and issubclass(kind, tuple) and hasattr(kind, "_fields"):
            fields = self.entries("(", ")", self.attribute)
            if set(fields) != set(kind._fields):
                self.fail(f"{name} has the fields {', '.join(kind._fields)}", start)
            return kind(**fields)
        self.fail(f"expected a value, found {name!r}", start)

    def constant(self, aval: Aval) -> Constant:
        start = self.at
        self.expect("(")
        if self.token()[0] == "reference":
            value = self.reference()
            self.expect(")")
            if not isinstance(value, Constant):
                self.fail("the reference in a constant is not an array", start)
            return value
        if not (aval.is_array and isinstance(aval.dtype, np.dtype) and aval.is_static):
            self.fail(f"a constant of type {aval.type} cannot be written as elements", start)
        self.at = start
        elements = self.sequence("(", ")", lambda: self.element(aval.dtype))
        if len(elements) != aval.size:
            self.fail(
                f"{dtype_name(aval.dtype)}{list(aval.shape)} has {aval.size} elements, not {len(elements)}", start
            )
        return Constant(np.ndarray(aval.shape, aval.dtype, b"".join(elements)))

    def element(self, dtype: np.dtype[Any]) -> bytes:
        """The bytes of one element."""
        start = self.at
        kind, word = self.next()
        if dtype.kind == "c":
            self.at = start
            part = np.dtype(np.float32 if dtype.itemsize == 8 else np.float64)
            real = self.element(part)
            self.expect("+")
            imaginary = self.element(part)
            self.expect("j")
            return real + imaginary
        if dtype in (np.bool_, jax.dtypes.float0):
            if word not in ("true", "false")[dtype != np.bool_ :]:
                self.fail(f"expected true or false, found {word!r}", start)
            return np.asarray(word == "true").tobytes() if dtype == np.bool_ else b""
        if kind == "bits" and len(word) == 2 + 2 * dtype.itemsize:
            return bytes.fromhex(word[2:])[::-1]
        if kind != "number":
            self.fail(f"expected an element of {dtype_name(dtype)}, found {word!r}", start)
        if not jax.dtypes.issubdtype(dtype, np.integer):
            return np.asarray(float(word)).astype(dtype).tobytes()
        number = int(word) if re.fullmatch(r"[-+]?\d{1,20}", word) else 1 << 64
        if not -(1 << 63) <= number < 1 << 64 or int(np.asarray(number).astype(dtype)) != number:
            self.fail(f"{word} is not an element of {dtype_name(dtype)}", start)
        return np.asarray(number).astype(dtype).tobytes()

    def reference(self) -> Any:
        start = self.at
        return self.object(self.take("reference", "a reference such as <&1 …>"), start)

    def object(self, reference: str, start: int) -> Any:
        if self._objects is None:
            sources = self.printers() if self.like is None else [self.like]
            if len(sources) != 1:
                found = f"{len(sources)} living graphs print it" if sources else "no living graph prints it"
                self.fail(
                    f"this text refers to objects that text cannot say, and {found}; pass the graph that it comes "
                    "from: parse(text, like=graph)",
                    start,
                )
            self._objects = objects_of(sources[0])
        number = int(re.findall(r"\d+", reference)[0][:18])
        if not 1 <= number <= len(self._objects):
            self.fail(f"there is no object {number}; the graph has {len(self._objects)}", start)
        return self._objects[number - 1]

    def printers(self) -> list[Graph]:
        """The living graphs that print this text."""
        text = self.text.strip()
        lines = text[text.rfind("graph @main") :].count("\n") + 1
        alike = (graph for graph in live_graphs() if len(graph.nodes) - len(graph.params) + 3 == lines)
        return [graph for graph in alike if str(graph) == text]

    # Tokens

    def token(self) -> tuple[str, str, int]:
        """The next token: its kind, its text and where it ends; empty where there is none."""
        if self.ahead[0] != self.at:
            match = _TOKEN.match(self.text, self.at)
            kind = "" if match is None else str(match.lastgroup)
            self.ahead = (
                self.at,
                kind,
                "" if match is None else match[kind],
                self.at if match is None else match.end(),
            )
        return self.ahead[1:]

    def next(self) -> tuple[str, str]:
        kind, word, end = self.token()
        if not kind:
            self.fail("unexpected end of text" if not self.text[self.at :].strip() else "unexpected character")
        self.at = end
        return kind, word

    def peek(self, word: str) -> bool:
        return self.token()[1] == word

    def accept(self, word: str) -> bool:
        _, found, end = self.token()
        if found == word:
            self.at = end
        return found == word

    def expect(self, word: str) -> None:
        if not self.accept(word):
            found = self.token()[1]
            self.fail(f"expected {word!r}, found {found!r}" if found else f"expected {word!r}")

    def take(self, kind: str, wanted: str) -> str:
        start = self.at
        found, word = self.next()
        if found != kind:
            self.fail(f"expected {wanted}, found {word!r}", start)
        return word

    def sequence(self, opening: str, closing: str, item: Callable[[], T]) -> list[T]:
        self.expect(opening)
        items: list[T] = []
        while not self.peek(closing):
            items.append(item())
            if not self.peek(closing):
                self.expect(",")
        self.expect(closing)
        return items

    def fail(self, reason: str, at: int | None = None) -> NoReturn:
        at = self.at if at is None else at
        at += len(self.text[at:]) - len(self.text[at:].lstrip())
        line = self.text.count("\n", 0, at) + 1
        column = at - (self.text.rfind("\n", 0, at) + 1) + 1
        shown = self.text.split("\n")[line - 1]
        pointer = " " * (column - 1) + "^"
        raise ParseError(f"graph text, line {line}, column {column}: {reason}\n  {shown}\n  {pointer}", line, column)
