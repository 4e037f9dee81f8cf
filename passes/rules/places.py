"""Rules for the places of elements, as iota counts them, and for what is taken from them or put there.

`x[jnp.arange(n)]` asks of each index whether it is negative; `x.at[jnp.arange(n), jnp.arange(n)]` is a diagonal. Of a
product of which only a diagonal is read, `contract` computes no more than that; here other diagonals become main ones.
"""

from __future__ import annotations

import numpy as np
from jax.extend.core import primitives as p

from graphopt.analysis.diagonals import diagonal_axes, diagonal_of, diagonal_starts, from_the_start, identity_axes
from graphopt.analysis.intervals import bounds_of_all
from graphopt.ir.node import Node
from graphopt.ir.op import op_of
from graphopt.ops.contract import DOT_GENERAL
from graphopt.ops.make import BROADCAST, full, make
from graphopt.passes.rules.constants import with_constant
from graphopt.passes.rules.moving import (
    IOTA,
    RESHAPE,
    Uses,
    applied,
    broadcast,
    sliced,
    transposed,
    uniform,
    without_axis,
)
from graphopt.rewrite.pattern import splat
from graphopt.rewrite.rule import AnyRule, rewrites
from graphopt.rewrite.safety import kind_of

ADD, MUL, EQ, SELECT = map(op_of, (p.add_p, p.mul_p, p.eq_p, p.select_n_p))
SCATTER, SCATTER_ADD = map(op_of, (p.scatter_p, p.scatter_add_p))

REORDERED = {"biu": "exact", "fc": "reassociate"}

LARGEST_TERM = 6
"""Operations one after the other, between what repeats along an axis and the trace, that are looked at."""

DEEPEST = 6
"""Operations that a comparison may be away from an iota."""


@rewrites(*(p.eq_p, p.ne_p, p.lt_p, p.le_p, p.gt_p, p.ge_p), safety={"iu": "exact"}, law="absorption")
def comparison_of_places(node: Node) -> Node | None:
    """iota < 0 → False, and the like: where all places compare alike"""
    if kind_of(node.inputs[0].aval.dtype) not in "iu" or not node.aval.is_static:
        return None
    ends = bounds_of_all(node, DEEPEST)
    return full(bool(ends[0]), node.aval) if ends is not None and ends[0] == ends[1] else None


@rewrites(p.scatter_p, p.scatter_add_p, safety="exact", law="reduction")
def scatter_along_a_diagonal(node: Node) -> Node | None:
    """scatter(full(c), (i, i), v) → where(eye, v, c) for all places i; scatter_add → where(eye, c + v, c)"""
    x, indices, update = node.inputs
    shape, numbers = x.aval.shape, node.attrs["dimension_numbers"]
    if uniform(x) is None or len(shape) != 2 or shape[0] != shape[1] or update.aval.shape != shape[:1]:
        return None
    if numbers.update_window_dims or numbers.operand_batching_dims or diagonal_starts(indices) != (0, 0):
        return None
    if sorted(numbers.scatter_dims_to_operand_dims) != [0, 1]:
        return None
    return _diagonal(node, update, shape[0])


@rewrites(p.reshape_p, safety="exact", law="reduction", an_operand=[SCATTER, SCATTER_ADD])
def scatter_in_steps_of_a_diagonal(node: Node) -> Node | None:
    """reshape(scatter(full(c), i * (n + 1), v), (n, n)) → where(eye, v, c)"""
    inner, shape = node.inputs[0], node.aval.shape
    if inner.op not in (SCATTER, SCATTER_ADD) or len(shape) != 2 or shape[0] != shape[1] or node.attrs["dimensions"]:
        return None
    x, indices, update = inner.inputs
    count = shape[0]
    if uniform(x) is None or len(x.aval.shape) != 1 or update.aval.shape != (count,) or count < 2:
        return None
    if inner.attrs["dimension_numbers"].update_window_dims or indices.op not in (BROADCAST, RESHAPE):
        return None
    steps = from_the_start(indices.inputs[0])
    if indices.aval.shape != (count, 1) or steps.op is not MUL or steps.aval.shape != (count,):
        return None
    found = with_constant(steps)
    if found is None or found[0].op is not IOTA or found[0].inputs or int(found[1]) != count + 1:
        return None
    return _diagonal(inner, update, count) if bounds_of_all(steps, DEEPEST) is not None else None


@rewrites(p.gather_p, safety=REORDERED, law="movement", an_operand=[DOT_GENERAL])
def diagonal_of_a_part(node: Node, uses: Uses) -> Node | None:
    """gather(dot(x, y), (i + a, i + b)) → gather(slice(dot(x, y)), (i, i))"""
    product, found = node.inputs[0], diagonal_of(node)
    if found is None or found.is_main or not found.count or product.op is not DOT_GENERAL or uses(product) > 1:
        return None
    shape = list(product.aval.shape)
    starts, counts = [0] * len(shape), shape
    for axis, start in zip(found.axes, found.starts, strict=True):
        starts[axis], counts[axis] = start, found.count
    places = make(IOTA, dtype=np.dtype(np.int32), shape=(found.count,), dimension=0)
    sizes = tuple([1 if axis in found.axes else count for axis, count in enumerate(counts)])
    part = sliced(product, starts, counts, [1] * len(shape))
    attrs = node.attrs.replace(slice_sizes=sizes)
    return applied(node.op, attrs, part, broadcast(places, (found.count, 2), (0,)))


def _chosen(node: Node, uses: Uses) -> tuple[Node, Node] | None:
    """The mask and the values of a sum of what a mask of the same shape leaves, where nothing else reads that."""
    chosen = node.inputs[0]
    if chosen.op is not SELECT or len(chosen.inputs) != 3 or uses(chosen) > 1 or chosen.context is not None:
        return None
    mask, other, x = chosen.inputs
    return (mask, x) if mask.aval.shape == chosen.aval.shape and splat(other) == 0 else None


@rewrites(p.reduce_sum_p, safety=REORDERED, law="movement", an_operand=[SELECT])
def trace_of_a_part(node: Node, uses: Uses) -> Node | None:
    """sum(where(i + a = j, dot(x, y), 0)) → sum(where(i = j, slice(dot(x, y)), 0))"""
    chosen = _chosen(node, uses)
    if chosen is None:
        return None
    mask, product = chosen
    found = diagonal_axes(mask)
    if found is None or identity_axes(mask) is not None or product.op is not DOT_GENERAL or uses(product) > 1:
        return None
    first, second, offset = found
    starts, counts = [0] * len(mask.aval.shape), list(mask.aval.shape)
    starts[first], starts[second] = max(-offset, 0), max(offset, 0)
    count = min(counts[axis] - starts[axis] for axis in (first, second))
    if count < 1 or not {first, second} <= set(node.attrs["axes"]):
        return None
    counts[first] = counts[second] = count
    part = sliced(product, starts, counts, [1] * len(counts))
    rows, columns = (make(IOTA, dtype=np.dtype(np.int32), shape=tuple(counts), dimension=a) for a in (first, second))
    return applied(node.op, node.attrs, make(SELECT, make(EQ, rows, columns), full(0, part.aval), part))


@rewrites(p.reduce_sum_p, safety=REORDERED, law="reduction", an_operand=[SELECT])
def trace_of_broadcasts(node: Node, uses: Uses) -> Node | None:
    """sum(where(i = j, f(x[:, None], y), 0)) → sum(f(x, y)): the trace of what is elementwise in rows and columns"""
    chosen = _chosen(node, uses)
    if chosen is None:
        return None
    mask, x = chosen
    axes = identity_axes(mask)
    if axes is None or not set(axes) <= set(node.attrs["axes"]):
        return None
    first, second = sorted(axes)
    core = _on_diagonal(x, first, second, x.aval.shape, LARGEST_TERM)
    if core is None:
        return None
    return applied(
        node.op, node.attrs.replace(axes=tuple([k - (k > second) for k in node.attrs["axes"] if k != second])), core
    )


def _on_diagonal(x: Node, first: int, second: int, shape: tuple[int, ...], deepest: int) -> Node | None:
    """The diagonal along two axes, as the first of them, of what is elementwise in arrays that repeat along either."""
    if not x.aval.shape or splat(x) is not None:
        return without_axis(x, second, shape)
    for axis in (second, first):
        if (core := without_axis(x, axis, shape)) is not None:
            order = [k for k in range(len(core.aval.shape)) if k != second - 1]
            order.insert(first, second - 1)
            return core if axis == second else transposed(core, order)
    if not x.op.elementwise or x.context is not None or x.aval.shape != shape or not deepest:
        return None
    operands = [_on_diagonal(n, first, second, shape, deepest - 1) for n in x.inputs]
    known = [n for n in operands if n is not None]
    return applied(x.op, x.attrs, *known) if len(known) == len(operands) else None


def _diagonal(node: Node, update: Node, count: int) -> Node:
    """What a scatter to a uniform array puts on the diagonal of a square one of so many rows."""
    start = uniform(node.inputs[0])
    assert start is not None
    shape = (count, count)
    rows, columns = (make(IOTA, dtype=np.dtype(np.int32), shape=shape, dimension=axis) for axis in (0, 1))
    around = broadcast(start, shape, ())
    value = broadcast(update, shape, (0,))
    if node.op is SCATTER_ADD:
        value = make(ADD, around, value)
    return make(SELECT, make(EQ, rows, columns), around, value)


RULES: tuple[AnyRule, ...] = (
    comparison_of_places,
    scatter_along_a_diagonal,
    scatter_in_steps_of_a_diagonal,
    diagonal_of_a_part,
    trace_of_a_part,
    trace_of_broadcasts,
)
