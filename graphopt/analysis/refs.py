"""Refs in a graph."""

from __future__ import annotations

from graphopt.ir.aval import State, aval_of
from graphopt.ir.graph import Graph, nested_graphs
from graphopt.ir.op import STATE


def uses_refs(graph: Graph) -> bool:
    """Whether a Ref is read or written in `graph` or in a graph below it.

    JAX compiles a loop or a branch that does so only if its body holds no constant arrays.
    """
    state = aval_of(State())
    return any(n.op is STATE and n.aval is state for inner in nested_graphs(graph) for n in inner.nodes)
