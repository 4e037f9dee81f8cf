"""Products of arrays (dot_general) as sums of products of elements, from which loop programs are derived.

Before:
    %2: f32[8] = dot_general[dimension_numbers=(((1,), (0,)), ((), ()))](%0, %1)
After, where %0 is f32[8,100]:
    %3: f32[8,100] = mul(%0, %1 broadcast)
    %4: f32[8] = reduce_sum[axes=(1,)](%3)
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from jax import lax
from jax.extend.core import primitives as p

from graphopt.analysis.reductions import accumulated_as
from graphopt.ir.graph import Graph, make_graph
from graphopt.ir.node import Node
from graphopt.ir.op import op_of
from graphopt.ops.make import BROADCAST, CONVERT, make

DOT, MUL, SUM, TRANSPOSE = (op_of(primitive) for primitive in (p.dot_general_p, p.mul_p, p.reduce_sum_p, p.transpose_p))

THIN = 4
"""Rows or columns of one factor up to which the other is read about as often as it must be, in loops without blocks."""

SMALL = 16
"""Elements along each axis up to which matrices are small."""

SHORT = 8
"""Elements that are multiplied and summed for one of the result up to which its memory takes the time."""


@dataclass(frozen=True, slots=True)
class Axes:
    """The axes of both factors: of matrices side by side, those that the result has, and those that are summed over."""

    batch: tuple[tuple[int, ...], tuple[int, ...]]
    free: tuple[tuple[int, ...], tuple[int, ...]]
    summed: tuple[tuple[int, ...], tuple[int, ...]]


def axes_of(node: Node) -> Axes:
    """The axes of a dot_general."""
    summed, batch = node.attrs["dimension_numbers"]
    free = [
        tuple(k for k in range(len(n.aval.shape)) if k not in (*s, *b))
        for n, s, b in zip(node.inputs, summed, batch, strict=True)
    ]
    return Axes((tuple(batch[0]), tuple(batch[1])), (free[0], free[1]), (tuple(summed[0]), tuple(summed[1])))


def sizes_of(node: Node) -> tuple[int, int, int]:
    """Rows and columns of the result, for each matrix, and what is summed for an element of it."""
    axes, shapes = axes_of(node), [n.aval.shape for n in node.inputs]
    rows, columns = (math.prod(shape[k] for k in free) for shape, free in zip(shapes, axes.free, strict=True))
    return rows, columns, math.prod(shapes[0][k] for k in axes.summed[0])


def declined(node: Node) -> str | None:
    """Why a product is not for loops around elements; None where it is."""
    reason = declined_anyhow(node)
    if reason is None and not is_for_loops(node):
        return "a product of matrices that are neither thin nor small, which XLA multiplies in blocks"
    return reason


def is_for_loops(node: Node) -> bool:
    """Whether matrices are so thin or small that loops without blocks multiply them."""
    rows, columns, length = sizes_of(node)
    return min(rows, columns) <= THIN or length <= SHORT or max(rows, columns, length) <= SMALL


def declined_anyhow(node: Node) -> str | None:
    """Why a product is not for a kernel, whatever its size; None where it may be."""
    dtypes = [n.aval.dtype for n in (*node.inputs, node)]
    if any(dtype.kind in "cb" for dtype in dtypes):
        return f"dot_general of {', '.join(map(str, dtypes[:2]))}"
    if len({dtype.kind for dtype in dtypes[:2]}) > 1 and dtypes[2].kind in "iu":
        return "dot_general of signed and unsigned numbers"
    if not _is_plain(node.attrs["precision"]):
        return "dot_general by an algorithm that is prescribed"
    return None


def is_crossed(node: Node) -> bool:
    """Whether a product is a sum of products of the factors' elements, one factor with its last axis elsewhere: each
    of the result, and of either factor, is needed once. So is the trace of a product."""
    axes, (left, right) = axes_of(node), (n.aval.shape for n in node.inputs)
    if any(axes.free) or not left:
        return False
    last = dict(zip((*axes.batch[0], *axes.summed[0]), (*axes.batch[1], *axes.summed[1]), strict=True))[len(left) - 1]
    return last != len(right) - 1 and min(left[-1], right[-1]) > 1


def _is_plain(precision: object) -> bool:
    parts = precision if isinstance(precision, tuple) else (precision,)
    return all(part is None or isinstance(part, lax.Precision) for part in parts)


def expanded(body: Graph) -> tuple[Graph, dict[Node, Node]]:
    """A graph without the products that loops around elements are for, and what became of its nodes."""
    mapping: dict[Node, Node] = {}
    small = {node for node in body.nodes if node.op is DOT and declined(node) is None}
    if not small:
        return body, mapping
    for node in body.nodes:
        inputs = tuple([mapping[n] for n in node.inputs])
        mapping[node] = sum_of_products(node, inputs) if node in small else node.with_inputs(inputs)
    return make_graph(body.params, [mapping[n] for n in body.outputs]), mapping


def sum_of_products(node: Node, inputs: tuple[Node, ...]) -> Node:
    """A product by broadcasts, mul and reduce_sum.

    Its axes are those of the result, with the summed ones before the innermost if that is the innermost of a factor
    too, else last: so that loops go through memory in order.
    """
    axes, shapes = axes_of(node), [n.aval.shape for n in inputs]
    kept = len(axes.batch[0]) + len(axes.free[0]) + len(axes.free[1])
    is_right = bool(axes.free[1])
    last = axes.free[is_right]
    before = bool(last) and last[-1] == len(shapes[is_right]) - 1 and shapes[is_right][-1] > 1
    start = kept - len(last) if before else kept  # where the summed axes are
    count = len(axes.summed[0])
    places = [k if k < start else k + count for k in range(kept)]
    batch, free = places[: len(axes.batch[0])], places[len(axes.batch[0]) :]
    of_factor = (free[: len(axes.free[0])], free[len(axes.free[0]) :])
    shape = [0] * (kept + count)
    for side in (0, 1):
        for axis, place in _places(axes, side, batch, of_factor[side], start).items():
            shape[place] = shapes[side][axis]
    dtype = accumulated_as(node.aval.dtype)
    factors = []
    for side, factor in enumerate(inputs):
        where = _places(axes, side, batch, of_factor[side], start)
        wide = make(CONVERT, factor, new_dtype=np.dtype(dtype)) if factor.aval.dtype != dtype else factor
        dimensions = tuple(where[axis] for axis in range(len(where)))
        if dimensions != tuple(sorted(dimensions)):
            order = tuple(sorted(range(len(dimensions)), key=lambda axis: dimensions[axis]))
            wide, dimensions = make(TRANSPOSE, wide, permutation=order), tuple(sorted(dimensions))
        factors.append(make(BROADCAST, wide, shape=tuple(shape), broadcast_dimensions=dimensions))
    product = make(MUL, *factors)
    total = make(SUM, product, axes=tuple(range(start, start + count))) if count else product
    return total if total.aval.dtype == node.aval.dtype else make(CONVERT, total, new_dtype=node.aval.dtype)


def _places(axes: Axes, side: int, batch: list[int], free: list[int], start: int) -> dict[int, int]:
    """Where the axes of a factor are in the product of both."""
    return {
        **dict(zip(axes.batch[side], batch, strict=True)),
        **dict(zip(axes.free[side], free, strict=True)),
        **{axis: start + k for k, axis in enumerate(axes.summed[side])},
    }
