"""The text of a graph: deterministic, one line a node, sub-graphs first.

    graph @1(%0: f32[8], %1: f32[8]) {
      %2: f32[8] = mul(%0, %1)
      %3: f32[] = constant(2.0)
      return %2, %3
    }

A node is `%name: type = op[attribute=value, ...](operands)`; one with several results has a tuple type, and its
results are `project[index=i](%node)`. Sub-graphs are named `@1`, `@2`, … and stand before the graph that holds them;
the last one is the graph itself, `@main`. What text cannot say (functions, shardings, large arrays) is
`<&1 description>`: a reference to an object, numbered in the order of appearance; `graphopt.ir.parse.parse` finds the
object in the graph that was printed.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Hashable, Iterator
from typing import Any

import jax
import numpy as np

from graphopt.ir.attrs import Attrs, SubGraph, freeze
from graphopt.ir.aval import DTYPES, Aval, State, dtype_name
from graphopt.ir.node import Constant, Node
from graphopt.ir.op import CONSTANT, Op, op_named

PRINTED_ELEMENTS = 16
"""Constants of more elements are printed as references."""


def format_graph(graph: Any) -> str:
    """The text of a graph and of the sub-graphs that it holds."""
    return "\n".join(Printer().lines(graph))


def objects_of(graph: Any) -> tuple[Any, ...]:
    """The objects that `<&k …>` stand for in the graph's text, in order."""
    printer = Printer()
    for _ in printer.lines(graph):
        pass
    return tuple(printer.objects)


class Printer:
    """Prints one graph; `objects` then holds what its references stand for."""

    def __init__(self) -> None:
        self.objects: list[Any] = []
        self._numbers: dict[Hashable, int] = {}
        self._graphs: dict[Any, str] = {}
        # Many nodes share these.
        self._ops: dict[Op, str] = {}
        self._types: dict[tuple[Aval, ...], str] = {}
        self._attrs: dict[Attrs, str] = {}

    def lines(self, graph: Any) -> Iterator[str]:
        """The lines of `graph`, those of its sub-graphs first."""
        stack = [(graph, False)]
        order = []
        seen = set()
        while stack:
            current, entered = stack.pop()
            if entered:
                order.append(current)
            elif current not in seen:
                seen.add(current)
                stack.append((current, True))
                stack.extend((s.graph, False) for s in reversed(list(current.subgraphs)) if s.graph not in seen)
        for current in order:
            name = "@main" if current is graph else f"@{len(self._graphs) + 1}"
            self._graphs[current] = name
            yield from self._graph_lines(current, name)

    def _graph_lines(self, graph: Any, name: str) -> Iterator[str]:
        names: dict[Node, str] = {node: f"%{i}" for i, node in enumerate(graph.nodes)}
        params = ", ".join(f"{names[p]}: {self.aval(p.aval)}" for p in graph.params)
        yield f"graph {name}({params}) {{"
        for node in graph.nodes[len(graph.params) :]:
            yield "  " + self.node(node, names)
        yield f"  return {', '.join(names[n] for n in graph.outputs)}".rstrip()
        yield "}"

    def node(self, node: Node, names: dict[Node, str]) -> str:
        """The line of one node, its operands called by `names`."""
        types = self._types.get(node.avals)
        if types is None:
            types = self._types[node.avals] = self.types(node.avals)
        op = self._ops.get(node.op)
        if op is None:
            op = self._ops[node.op] = self.op(node.op)
        if node.op is CONSTANT:
            return f"{names[node]}: {types} = {op}({self.constant(node)})"
        attrs = self._attrs.get(node.attrs)
        if attrs is None:
            attrs = self._attrs[node.attrs] = self.attrs(node.attrs)
        line = f"{names[node]}: {types} = {op}{attrs}({', '.join([names[n] for n in node.inputs])})"
        if node.context is not None:
            line += f" context {self.reference(node.context)}"
        if node.effects:
            listed = sorted(node.effects, key=lambda e: (type(e).__name__, getattr(e, "input", -1), str(e)))
            line += f" effects {', '.join(map(self.reference, listed))}"
        return line

    def op(self, op: Op) -> str:
        """The operation's name, in quotes where it is no identifier; a reference where it means another operation."""
        if op_named(op.name) is not op:
            return self.reference(op)
        return op.name if op.name.isidentifier() else repr(op.name)

    def types(self, avals: tuple[Aval, ...]) -> str:
        """The types of a node's results."""
        return self.aval(avals[0]) if len(avals) == 1 else f"({', '.join(map(self.aval, avals))})"

    def attrs(self, attrs: Attrs) -> str:
        """`[name=value, …]`, or nothing."""
        return f"[{', '.join(f'{name}={self.value(value)}' for name, value in attrs.items())}]" if attrs else ""

    def aval(self, aval: Aval) -> str:
        """A type: `f32[8,3]`, `f32[]~` (weak), or a reference."""
        if aval.is_plain and is_named(aval.dtype):
            return f"{dtype_name(aval.dtype)}[{','.join(map(str, aval.shape))}]{'~' if aval.weak_type else ''}"
        if isinstance(aval.type, State) and aval.type.effect is None:
            return "state"
        return self.reference(aval.type)

    def constant(self, node: Node) -> str:
        """The elements of a small constant in C order, or a reference to the array."""
        value: Constant = node.attrs["value"]
        array, aval = value.array, node.aval
        if not (isinstance(array, np.ndarray) and array.size <= PRINTED_ELEMENTS and is_named(array.dtype)):
            return self.reference(value)
        if array.dtype != aval.dtype or array.shape != aval.shape:
            return self.reference(value)
        return ", ".join(element(x) for x in array.reshape(-1))

    def value(self, value: Any) -> str:
        """One attribute."""
        if value is None or (isinstance(value, bool | int) and type(value) in (bool, int)):
            return str(value)
        if type(value) is str or (type(value) is float and freeze(float(repr(value))) == freeze(value)):
            return repr(value)
        if isinstance(value, SubGraph):
            return self._graphs[value.graph] + ("" if value.closed else f":open{value.constvars}")
        if isinstance(value, np.dtype) and is_named(value):
            return f"dtype({dtype_name(value)})"
        if type(value) is tuple:
            return f"({', '.join(map(self.value, value))}{',' if len(value) == 1 else ''})"
        if type(value) is dict and all(type(k) is str for k in value):
            return f"{{{', '.join(f'{k!r}: {self.value(v)}' for k, v in value.items())}}}"
        public = getattr(jax.lax, type(value).__name__, None) is type(value)
        if public and isinstance(value, enum.Enum):
            return f"{type(value).__name__}.{value.name}"
        if public and isinstance(value, tuple):
            fields = zip(value._fields, value, strict=True)  # type: ignore[attr-defined]
            return f"{type(value).__name__}({', '.join(f'{k}={self.value(v)}' for k, v in fields)})"
        return self.reference(value)

    def reference(self, value: Any) -> str:
        """`<&k description>`: the same number for the same object."""
        key = freeze(value)
        if key not in self._numbers:
            self.objects.append(value)
            self._numbers[key] = len(self.objects)
        return f"<&{self._numbers[key]} {describe(value)}>"


def is_named(dtype: Any) -> bool:
    """Whether the short name of a dtype means this dtype."""
    return isinstance(dtype, np.dtype) and DTYPES.get(dtype_name(dtype)) == dtype


def element(x: Any) -> str:
    """One array element as text from which its exact bits can be had again."""
    if x.dtype == np.bool_:
        return "true" if x else "false"
    if x.dtype == jax.dtypes.float0:
        return "false"  # as JAX writes its only value
    if jax.dtypes.issubdtype(x.dtype, np.integer):
        return str(int(x))
    if x.dtype.kind == "c":
        return f"{element(x.real)} + {element(x.imag)}j"
    text = str(x)
    if text.lstrip("-").isdigit():
        text += ".0"
    again = np.asarray(float(text)).astype(x.dtype)
    return text if again.tobytes() == x.tobytes() else f"0x{x.tobytes()[::-1].hex()}"


def describe(value: Any) -> str:
    """A short description without addresses, for a reader; it says nothing to the parser."""
    if isinstance(value, Constant):
        text = f"array {value.array.dtype}{list(value.array.shape)}"
    elif isinstance(value, State):
        text = f"state of {describe(value.effect)}"
    elif callable(value) and getattr(value, "__name__", None):
        text = f"function {value.__name__}"
    elif isinstance(value, frozenset | set):
        text = f"{{{', '.join(sorted(map(describe, value)))}}}"  # sets have no order that two processes share
    else:
        text = str(value)
    text = re.sub(r"( at )?0x[0-9a-f]{6,}|id=\d+", "", " ".join(text.split()))
    text = text if len(text) <= 60 else f"{text[:57]}..."
    return text.replace("<", "(").replace(">", ")") or type(value).__name__
