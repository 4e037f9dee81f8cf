"""Reading a graph's text back to the same object.

References `<&k …>` are looked up in a graph that prints this very text (while one lives), or in `like`.
"""

from __future__ import annotations

import ast
import enum
import re
from collections.abc import Callable
from typing import Any, NoReturn, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from graphopt.errors import ParseError
from graphopt.ir.attrs import EMPTY, Attrs, SubGraph
from graphopt.ir.aval import Aval, State, array_aval, aval_of, dtype_name
from graphopt.ir.graph import Graph, live_graphs, make_graph
from graphopt.ir.node import NO_EFFECTS, Constant, Node, make_node
from graphopt.ir.op import CONSTANT, PARAM, STATE, Op, op_named
from graphopt.ir.text import objects_of

T = TypeVar("T")

_TOKEN = re.compile(
    r"""\s*(?:
      (?P<reference><&(?P<number>\d+)[^<>]*>)
    | (?P<string>'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")
    | (?P<bits>0x[0-9a-f]+)
    | (?P<number_>[-+]?(?:inf|nan)\b|[-+]?(?:\d+\.\d*|\.\d+|\d+)(?:[eE][-+]?\d+)?)
    | (?P<node>%\d+) | (?P<graph>@\w+)
    | (?P<name>[A-Za-z_][\w]*)
    | (?P<mark>[\[\](){}=,:.~+])
    )""",
    re.VERBOSE,
)

_DTYPES = {
    dtype_name(np.dtype(getattr(jnp, name))): np.dtype(getattr(jnp, name))
    for name in (
        *("bool_", "int2", "int4", "int8", "int16", "int32", "int64", "uint2", "uint4", "uint8", "uint16", "uint32"),
        *("uint64", "float16", "bfloat16", "float32", "float64", "complex64", "complex128", "float8_e4m3fn"),
        *("float8_e5m2", "float8_e4m3b11fnuz", "float8_e4m3fnuz", "float8_e5m2fnuz", "float8_e3m4", "float8_e4m3"),
        *("float8_e8m0fnu", "float4_e2m1fn"),
    )
    if hasattr(jnp, name)
} | {"float0": np.dtype(jax.dtypes.float0)}


def parse(text: str, like: Graph | None = None) -> Graph:
    """The graph that `text` describes; `parse(str(graph)) is graph`.

    like: a graph whose objects the references `<&k …>` mean. Not needed for text without references, nor as long as the
    graph that was printed is alive.
    Raises ParseError, with line and column, if the text is malformed or a reference cannot be found.
    """
    return _Parser(text, like).parse()


class _Parser:
    def __init__(self, text: str, like: Graph | None) -> None:
        self.text = text
        self.at = 0
        self.like = like
        self._objects: tuple[Any, ...] | None = None
        self.graphs: dict[str, Graph] = {}

    # Graphs and nodes

    def parse(self) -> Graph:
        graph: Graph | None = None
        while self.text[self.at :].strip():
            name, graph = self.graph()
            if name in self.graphs:
                self.fail(f"graph {name} is defined twice")
            self.graphs[name] = graph
        if graph is None:
            self.fail("expected `graph @main(...) {`, found nothing")
        return graph

    def graph(self) -> tuple[str, Graph]:
        self.expect("graph")
        name = self.take("graph", "a graph's name such as @main")
        nodes: dict[str, Node] = {}
        params: list[Node] = []
        for label, aval in self.sequence("(", ")", self.parameter):
            node = make_node(PARAM, (), Attrs({"index": len(params)}), (aval,))
            self.define(nodes, label, node)
            params.append(node)
        self.expect("{")
        while not self.peek("return"):
            label = self.take("node", "a node such as %0, or `return`")
            self.expect(":")
            self.define(nodes, label, self.node(nodes))
        self.expect("return")
        outputs = []
        while not self.peek("}"):
            outputs.append(self.operand(nodes))
            if not self.peek("}"):
                self.expect(",")
        self.expect("}")
        return name, make_graph(params, outputs)

    def define(self, nodes: dict[str, Node], label: str, node: Node) -> None:
        if label in nodes:
            self.fail(f"{label} is defined twice")
        nodes[label] = node

    def parameter(self) -> tuple[str, Aval]:
        label = self.take("node", "a parameter such as %0")
        self.expect(":")
        return label, self.aval()

    def node(self, nodes: dict[str, Node]) -> Node:
        avals = self.sequence("(", ")", self.aval) if self.peek("(") else [self.aval()]
        self.expect("=")
        op = self.op()
        if op is CONSTANT:
            return make_node(op, (), Attrs({"value": self.constant(avals[0])}), tuple(avals))
        attrs = dict(self.sequence("[", "]", self.attribute)) if self.peek("[") else {}
        inputs = tuple(self.sequence("(", ")", lambda: self.operand(nodes)))
        context = self.reference() if self.accept("context") else None
        effects = []
        if self.accept("effects"):
            effects.append(self.reference())
            while self.accept(","):
                effects.append(self.reference())
        if op is STATE and inputs and avals[0].type != State():
            self.fail("the state of a Ref has the type `state`")
        return make_node(
            op, inputs, Attrs(attrs) if attrs else EMPTY, tuple(avals), context, frozenset(effects) or NO_EFFECTS
        )

    def op(self) -> Op:
        start = self.at
        kind, name = self.next()
        if kind == "string":
            name = ast.literal_eval(name)
        elif kind != "name":
            self.fail(f"expected an operation, found {name!r}", start)
        op = op_named(name)
        if op is None:
            self.fail(f"unknown operation {name!r}: it is no primitive of this JAX, nor one seen in this process", start)
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
            return aval_of(self.object(word, start))
        if word == "state":
            return aval_of(State())
        if word not in _DTYPES:
            self.fail(f"expected a type such as f32[8], found {word!r}", start)
        shape = self.sequence("[", "]", self.integer)
        return array_aval(tuple(shape), _DTYPES[word], weak_type=self.accept("~"))

    def integer(self) -> int:
        start = self.at
        number = self.take("number_", "a whole number")
        if not number.lstrip("+-").isdigit():
            self.fail(f"expected a whole number, found {number!r}", start)
        return int(number)

    def value(self) -> Any:
        start = self.at
        kind, word = self.next()
        if kind == "reference":
            return self.object(word, start)
        if kind == "string":
            return ast.literal_eval(word)
        if kind == "number_":
            return int(word) if word.lstrip("+-").isdigit() else float(word)
        if kind == "graph":
            return self.subgraph(word, start)
        if word == "(":
            self.at = start
            return tuple(self.sequence("(", ")", self.value))
        if word == "{":
            self.at = start
            return dict(self.sequence("{", "}", self.entry))
        if word in ("None", "True", "False"):
            return {"None": None, "True": True, "False": False}[word]
        if word == "dtype":
            self.expect("(")
            name = self.take("name", "a dtype such as f32")
            if name not in _DTYPES:
                self.fail(f"unknown dtype {name!r}", start)
            self.expect(")")
            return _DTYPES[name]
        if kind == "name":
            return self.lax_value(word, start)
        self.fail(f"expected a value, found {word!r}", start)

    def entry(self) -> tuple[str, Any]:
        key = self.take("string", "a key in quotes")
        self.expect(":")
        return ast.literal_eval(key), self.value()

    def subgraph(self, name: str, start: int) -> SubGraph:
        if name not in self.graphs:
            self.fail(f"graph {name} is used before it is defined", start)
        if not self.accept(":"):
            return SubGraph(self.graphs[name])
        mode = self.take("name", "open0, open1, …")
        if not re.fullmatch(r"open\d+", mode):
            self.fail(f"expected open0, open1, …, found {mode!r}", start)
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
            fields = dict(self.sequence("(", ")", self.attribute))
            if set(fields) != set(kind._fields):
                self.fail(f"{name} has the fields {', '.join(kind._fields)}", start)
            return kind(**fields)
        self.fail(f"expected a value, found {name!r}", start)

    def constant(self, aval: Aval) -> Constant:
        self.expect("(")
        if self.peek_kind() == "reference":
            value = self.reference()
            self.expect(")")
            if not isinstance(value, Constant):
                self.fail("the reference in a constant is not an array")
            return value
        start = self.at
        elements = []
        while not self.peek(")"):
            elements.append(self.element(aval.dtype))
            if not self.peek(")"):
                self.expect(",")
        self.expect(")")
        if len(elements) != aval.size:
            self.fail(f"{dtype_name(aval.dtype)}{list(aval.shape)} has {aval.size} elements, not {len(elements)}", start)
        return Constant(np.array(elements, dtype=aval.dtype).reshape(aval.shape))

    def element(self, dtype: Any) -> Any:
        start = self.at
        kind, word = self.next()
        if word in ("true", "false"):
            return np.asarray(word == "true").astype(dtype)
        if dtype.kind == "c":
            self.at = start
            part = np.dtype(np.float32 if dtype.itemsize == 8 else np.float64)
            real = self.element(part)
            self.expect("+")
            imaginary = self.element(part)
            self.expect("j")
            return np.array([real, imaginary], part).view(dtype)[0]
        if kind == "bits":
            return np.frombuffer(bytes.fromhex(word[2:])[::-1], dtype)[0]
        if kind != "number_":
            self.fail(f"expected an element, found {word!r}", start)
        return np.asarray(int(word) if dtype.kind in "iu" else float(word)).astype(dtype)

    def reference(self) -> Any:
        start = self.at
        return self.object(self.take("reference", "a reference such as <&1 …>"), start)

    def object(self, reference: str, start: int) -> Any:
        if self._objects is None:
            source = self.like or next((g for g in live_graphs() if str(g).strip() == self.text.strip()), None)
            if source is None:
                self.fail(
                    "this text refers to objects that text cannot say, and no living graph prints it; pass the graph "
                    "that it comes from: parse(text, like=graph)",
                    start,
                )
            self._objects = objects_of(source)
        number = int(re.findall(r"\d+", reference)[0])
        if not 1 <= number <= len(self._objects):
            self.fail(f"there is no object {number}; the graph has {len(self._objects)}", start)
        return self._objects[number - 1]

    # Tokens

    def next(self) -> tuple[str, str]:
        match = _TOKEN.match(self.text, self.at)
        if match is None:
            self.fail("unexpected end of text" if not self.text[self.at :].strip() else "unexpected character")
        self.at = match.end()
        kind = "reference" if match["reference"] else str(match.lastgroup)
        return kind, match[0].strip()

    def peek_kind(self) -> str:
        match = _TOKEN.match(self.text, self.at)
        return "" if match is None else "reference" if match["reference"] else str(match.lastgroup)

    def peek(self, word: str) -> bool:
        match = _TOKEN.match(self.text, self.at)
        return match is not None and match[0].strip() == word

    def accept(self, word: str) -> bool:
        if not self.peek(word):
            return False
        self.next()
        return True

    def expect(self, word: str) -> None:
        start = self.at
        if not self.accept(word):
            found = _TOKEN.match(self.text, start)
            self.fail(f"expected {word!r}, found {found[0].strip()!r}" if found else f"expected {word!r}", start)

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
        shown = (self.text.splitlines() or [""])[min(line, len(self.text.splitlines() or [""])) - 1]
        pointer = " " * (column - 1) + "^"
        raise ParseError(f"graph text, line {line}, column {column}: {reason}\n  {shown}\n  {pointer}", line, column)


