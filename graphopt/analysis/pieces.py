"""Pieces: large values that take little to compute anew from small operands.

The differences of all pairs of points are such, and what is made of them element by element; masks; what was broadcast.
Each kernel that needs a piece computes it for itself: to write it to memory and to read it there takes as long, and
takes the memory. What only gives an array another shape is one too, however small.
"""

from __future__ import annotations

from collections.abc import Callable

from jax.extend.core import primitives as p

from graphopt.analysis.products import DOT
from graphopt.ir.graph import Graph
from graphopt.ir.node import Node
from graphopt.ir.op import CONSTANT, op_of

SHAPES = {op_of(primitive) for primitive in (p.reshape_p, p.squeeze_p, p.broadcast_in_dim_p)}

LARGE = 1 << 20
"""Bytes of a piece at least: what is smaller is soon written and read."""

SMALLER = 16
"""How many times smaller than a piece its operands are."""

AFFORDABLE = 2.0
"""Nanoseconds for an element of a piece at most."""

OPERATIONS = 32
"""What a piece is made of at most."""


def pieces_of(graph: Graph, takes: Callable[[Node], bool], cost: Callable[[Node], float]) -> set[Node]:
    """The pieces in a graph. takes: whether a node can be in a kernel; cost: nanoseconds of an element of it."""
    made_of: dict[Node, frozenset[Node]] = {}
    shaped: set[Node] = set()
    for node in graph.nodes:
        if node.op.primitive is None or len(node.avals) != 1 or not takes(node):
            continue
        if node.op in SHAPES and node.aval.size <= node.inputs[0].aval.size:
            shaped.add(node)
        if (
            node.op is DOT
            or node.aval.nbytes < LARGE
            or not all(_is_small(n, node) or n in made_of for n in node.inputs)
        ):
            continue
        parts = frozenset({node}).union(*(made_of[n] for n in node.inputs if n in made_of))
        time = sum(cost(part) * max(part.aval.size, *(n.aval.size for n in part.inputs), 0) for part in parts)
        if len(parts) <= OPERATIONS and time <= AFFORDABLE * node.aval.size:
            made_of[node] = parts
    return shaped.union(made_of)


def _is_small(operand: Node, node: Node) -> bool:
    is_number = operand.op is CONSTANT and operand.attrs["value"].element is not None
    return is_number or operand.aval.nbytes * SMALLER <= node.aval.nbytes
