"""What reductions and cumulative operations combine with, from which start, along which axes."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jax.extend.core import primitives as p

from graphopt.ir.aval import is_floating
from graphopt.ir.graph import Graph
from graphopt.ir.node import Node
from graphopt.ir.op import Op, op_of

ADD, MUL, MAX, MIN, AND, OR, XOR = (
    op_of(primitive) for primitive in (p.add_p, p.mul_p, p.max_p, p.min_p, p.and_p, p.or_p, p.xor_p)
)
REDUCE = op_of(p.reduce_p)
"""A reduction of any number of operands by a graph of its own."""
ARGMAX, ARGMIN = op_of(p.argmax_p), op_of(p.argmin_p)


def least(dtype: Any) -> Any:
    """The least value of a dtype."""
    if is_floating(dtype):
        return -np.inf
    return False if dtype.kind == "b" else np.iinfo(dtype).min


def greatest(dtype: Any) -> Any:
    """The greatest value of a dtype."""
    if is_floating(dtype):
        return np.inf
    return True if dtype.kind == "b" else np.iinfo(dtype).max


def _all_ones(dtype: Any) -> Any:
    return True if dtype.kind == "b" else np.array(-1).astype(dtype)[()]


@dataclass(frozen=True, slots=True)
class Reduction:
    """combine: an associative operation on two values. neutral: what it starts from, for a dtype."""

    combine: Op
    neutral: Callable[[Any], Any]

    def start(self, dtype: Any) -> Any:
        """The start as a NumPy scalar of the dtype."""
        return np.asarray(self.neutral(np.dtype(dtype))).astype(dtype)[()]


_SUM, _PRODUCT = Reduction(ADD, lambda dtype: 0), Reduction(MUL, lambda dtype: 1)
_MAX, _MIN = Reduction(MAX, least), Reduction(MIN, greatest)

REDUCTIONS: Mapping[Op, Reduction] = {
    op_of(p.reduce_sum_p): _SUM,
    op_of(p.reduce_prod_p): _PRODUCT,
    op_of(p.reduce_max_p): _MAX,
    op_of(p.reduce_min_p): _MIN,
    op_of(p.reduce_and_p): Reduction(AND, _all_ones),
    op_of(p.reduce_or_p): Reduction(OR, lambda dtype: 0),
    op_of(p.reduce_xor_p): Reduction(XOR, lambda dtype: 0),
    ARGMAX: _MAX,
    ARGMIN: _MIN,
}
"""Reductions over axes; argmax and argmin by what their operand is reduced with."""

CUMULATIVE: Mapping[Op, Reduction] = {
    op_of(p.cumsum_p): _SUM,
    op_of(p.cumprod_p): _PRODUCT,
    op_of(p.cummax_p): _MAX,
    op_of(p.cummin_p): _MIN,
}
"""Cumulative operations: each element combines those up to its place."""

CUMLOGSUMEXP = op_of(p.cumlogsumexp_p)
"""One that keeps two values of those up to a place (`graphopt.analysis.running`)."""


def accumulated_as(dtype: Any) -> np.dtype[Any]:
    """The dtype in which values of a dtype are combined: of those of 16 bits float32, rounded at the end."""
    return np.dtype(np.float32 if is_floating(dtype) and dtype.itemsize == 2 else dtype)


def axes_of(node: Node) -> tuple[int, ...]:
    """The axes that a reduction goes over."""
    return tuple(node.attrs["dimensions" if node.op is REDUCE else "axes"])


def is_arg(node: Node) -> bool:
    """Whether a reduction gives the place of what it finds, and not its value."""
    return node.op in (ARGMAX, ARGMIN)


def elements_reduced(
    body: Graph, begins: Callable[[Node], bool], passes_on: Callable[[Node], bool], ops: Collection[Op] = REDUCTIONS
) -> int:
    """How many elements a body reduces by `ops`, of nodes that `begins` holds of, or that are computed of these.

    passes_on: of which nodes this is so, where one of their operands is such a node.
    """
    found: set[Node] = set()
    total = 0
    for node in body.nodes:
        if node.op in REDUCTIONS:
            total += node.inputs[0].aval.size if node.inputs[0] in found and node.op in ops else 0
        elif begins(node) or (passes_on(node) and not found.isdisjoint(node.inputs)):
            found.add(node)
    return total
