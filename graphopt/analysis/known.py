"""What of a graph is known before its arguments are."""

from __future__ import annotations

from graphopt.ir.graph import Graph
from graphopt.ir.node import Node
from graphopt.ir.op import CONSTANT, OCCURRENCE, PARAM, PROJECT


def known_nodes(graph: Graph) -> set[Node]:
    """The nodes that depend on constants alone, constants included: plain values without effects or a context."""
    known: set[Node] = set()
    for node in graph.nodes:
        if node.op is CONSTANT:
            is_known = node.aval.is_plain
        elif node.op is PARAM or (node.op.primitive is None and node.op is not PROJECT):
            is_known = False
        else:
            pure = not node.effects and node.context is None and OCCURRENCE not in node.attrs
            is_known = pure and all(n in known for n in node.inputs) and all(a.is_plain for a in node.avals)
        if is_known:
            known.add(node)
    return known
