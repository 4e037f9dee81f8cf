"""Where nodes come from: a side table, because equal nodes of two programs are one object.

Keyed by graph and node: the user's source lines and named scopes of each node, and for each graph the jaxpr that it was
read from, which lets an unchanged sub-graph be lowered as the very jaxpr that it came from.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from graphopt.ir.attrs import SubGraph
from graphopt.ir.graph import Graph
from graphopt.ir.node import Node


@dataclass(slots=True)
class Sources:
    """The source table of one traced program; passes extend it with the graphs that they make.

    infos: for each graph, JAX's source information of its nodes; the first of a node is the one it is lowered with.
    jaxprs: for each sub-graph the jaxpr that it was read from, or written to. debug: for each graph the names of its
    arguments.
    """

    infos: dict[Graph, dict[Node, tuple[Any, ...]]] = field(default_factory=dict)
    jaxprs: dict[SubGraph, Any] = field(default_factory=dict)
    debug: dict[Graph, Any] = field(default_factory=dict)

    def of(self, graph: Graph, node: Node) -> tuple[Any, ...]:
        """JAX's source information of a node: of the equation it was read from and of all that it replaced."""
        return self.infos.get(graph, {}).get(node, ())

    def record(self, graph: Graph, infos: Mapping[Node, tuple[Any, ...]]) -> None:
        """Adds source information of nodes of `graph`."""
        table = self.infos.setdefault(graph, {})
        for node, found in infos.items():
            table[node] = merge(table.get(node, ()), found)

    def inherit(self, old: Graph, new: Graph, replaced_by: Mapping[Node, Node]) -> None:
        """Gives each node of `new` what the nodes of `old` had that it replaces."""
        if old is new:
            return
        before = self.infos.get(old, {})
        table = self.infos.setdefault(new, {})
        for node, found in before.items():
            target = replaced_by.get(node, node)
            table[target] = merge(table[target], found) if target in table else found
        if old in self.debug:
            self.debug.setdefault(new, self.debug[old])


KEPT = 8
"""How many sources a node keeps: one that ten thousand equations share needs no ten thousand lines."""


def merge(first: tuple[Any, ...], second: tuple[Any, ...]) -> tuple[Any, ...]:
    """Both, without repetition, in order; no more than are kept."""
    if first == second or len(first) >= KEPT:
        return first
    return (*first, *[info for info in second if info not in first])
