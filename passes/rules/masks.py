"""Rules for products and sums with masks that positions make: one element of each row chosen, or those before or after
one. Instead of multiplying by zeros, elements are gathered, or summed as they go.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from jax.extend.core import primitives as p
from jax.lax import GatherDimensionNumbers, GatherScatterMode

from graphopt.analysis.diagonals import identity_axes
from graphopt.analysis.regular import Triangle, is_identity, triangle_of
from graphopt.ir.attrs import Attrs
from graphopt.ir.node import Node
from graphopt.ir.op import CONSTANT, Op, op_of
from graphopt.ops.make import BROADCAST, CONVERT, full, make, scalar
from graphopt.passes.rules.contraction import axes_of
from graphopt.passes.rules.moving import (
    IOTA,
    OF_EACH_ROW,
    RESHAPE,
    Uses,
    applied,
    axes_kept,
    broadcast,
    concatenated,
    reshaped,
    sliced,
    transposed,
    without_axis,
)
from graphopt.rewrite.pattern import splat
from graphopt.rewrite.rule import AnyRule, rewrites
from graphopt.rewrite.safety import kind_of

GATHER, SELECT, CUMSUM = map(op_of, (p.gather_p, p.select_n_p, p.cumsum_p))
MIN, MAX = op_of(p.min_p), op_of(p.max_p)
EQ, LT, LE, GT, GE = map(op_of, (p.eq_p, p.lt_p, p.le_p, p.gt_p, p.ge_p))
ADD, SUB = op_of(p.add_p), op_of(p.sub_p)
MIRRORED = {EQ: EQ, LT: GT, GT: LT, LE: GE, GE: LE}
OPPOSITE = {LT: GE, GE: LT, LE: GT, GT: LE}

LEAST_CHOSEN = 16
"""Elements along an axis below which multiplying by a mask costs no more than reading at indices."""

LEAST_SUMMED = 32
"""Elements along an axis below which multiplying by a mask costs no more than a cumulative sum."""


@dataclass(frozen=True, slots=True)
class _Count:
    """What counts along one axis of an array, from `start` on, and is the same along all others."""

    axis: int
    start: int


@dataclass(frozen=True, slots=True)
class _Mask:
    """An array that is true where `count` compares so with `other`, which is the same along the axis of `count`.

    other: an array of integers, of which axis k is axis axes[k] of the mask; or another count.
    """

    compare: Op
    count: _Count
    other: Node | _Count
    axes: tuple[int, ...] = ()


def count_of(x: Node) -> _Count | None:
    """Along which axis, and from where, an array counts; None where it does not, or may wrap around."""
    places = list(range(len(x.aval.shape)))  # where each axis of what is looked at lies in `x`
    start = 0
    dtype = x.aval.dtype
    while x.op is not IOTA:
        if x.op is BROADCAST and len(x.inputs) == 1:
            dimensions = x.attrs["broadcast_dimensions"]
            places = [places[d] for d in dimensions]
            stretched = [a for a, d in enumerate(dimensions) if x.inputs[0].aval.shape[a] != x.aval.shape[d]]
            places = [-1 if a in stretched else place for a, place in enumerate(places)]
        elif x.op is RESHAPE and len(x.inputs) == 1 and x.attrs["dimensions"] is None:
            kept = axes_kept(x.inputs[0].aval.shape, x.aval.shape)
            if kept is None:
                return None
            places = [places[kept[a]] if a in kept else -1 for a in range(len(x.inputs[0].aval.shape))]
        elif x.op is CONVERT and kind_of(x.inputs[0].aval.dtype) in "iu":
            pass
        elif x.op in (ADD, SUB) and (value := splat(x.inputs[1])) is not None and kind_of(value.dtype) == "i":
            start += int(value) if x.op is ADD else -int(value)
        else:
            return None
        x = x.inputs[0]
        if kind_of(x.aval.dtype) != "i" and not (kind_of(x.aval.dtype) == "u" and start == 0):
            return None
    axis = x.attrs["dimension"]
    size = x.aval.shape[axis]
    limit = np.iinfo(dtype).max if kind_of(dtype) in "iu" else 0
    if x.inputs or places[axis] < 0 or abs(start) + size > min(limit, np.iinfo(x.aval.dtype).max):
        return None
    return _Count(places[axis], start)


def mask_of(x: Node) -> _Mask | None:
    """How a boolean array comes from positions; None where it does not."""
    outer = list(range(len(x.aval.shape)))
    while x.op is BROADCAST and len(x.inputs) == 1 and x.inputs[0].aval.shape:
        dimensions = x.attrs["broadcast_dimensions"]
        if any(x.inputs[0].aval.shape[a] != x.aval.shape[d] for a, d in enumerate(dimensions)):
            return None
        outer, x = [outer[d] for d in dimensions], x.inputs[0]
    if x.op is CONSTANT and (triangle := triangle_of(x.value)) is not None:
        return _of_triangle(triangle, outer)
    if x.op not in MIRRORED or x.context is not None or any(kind_of(n.aval.dtype) not in "iu" for n in x.inputs):
        return None
    left, right = x.inputs
    first, second = _count_in(left, x), _count_in(right, x)
    if first is not None and second is not None and first.axis != second.axis:
        return _Mask(x.op, _Count(outer[first.axis], first.start), _Count(outer[second.axis], second.start))
    for count, other, compare in ((first, right, x.op), (second, left, MIRRORED[x.op])):
        if count is not None and count.start == 0:
            found = without_axis(other, count.axis, x.aval.shape)
            if found is not None:
                axes = tuple(axis for k, axis in enumerate(outer) if k != count.axis)
                return _Mask(compare, _Count(outer[count.axis], 0), found, axes)
    return None


def _count_in(x: Node, comparison: Node) -> _Count | None:
    """The axis of a comparison along which one of its operands counts, if it counts along the whole of it."""
    if len(x.aval.shape) != len(comparison.aval.shape):
        return None
    count = count_of(x)
    return count if count and x.aval.shape[count.axis] == comparison.aval.shape[count.axis] else None


def _weights(x: Node) -> _Mask | None:
    """The mask of an array that is one where the mask is true, and zero elsewhere."""
    if x.op is CONVERT and x.inputs[0].aval.dtype == np.bool_:
        return mask_of(x.inputs[0])
    if x.op is SELECT and len(x.inputs) == 3 and x.inputs[0].aval.shape == x.aval.shape:
        mask, zero, one = x.inputs
        if splat(zero) == 0 and splat(one) == 1:
            return mask_of(mask)
        if splat(zero) == 1 and splat(one) == 0:
            return _complement(mask_of(mask))
    triangle = triangle_of(x.value) if x.op is CONSTANT else None
    return None if triangle is None else _of_triangle(triangle, range(len(x.aval.shape)))


def _of_triangle(found: Triangle, outer: Sequence[int]) -> _Mask:
    """The mask of a triangle of ones. outer: the axis of the mask that each axis of the triangle is."""
    row, column = (outer[axis] for axis in found.axes)
    return _Mask(GE if found.above else LE, _Count(column, 0), _Count(row, found.shift))


def _complement(mask: _Mask | None) -> _Mask | None:
    """The mask that is true where this one is false; None where it compares for equality."""
    return None if mask is None or mask.compare is EQ else replace(mask, compare=OPPOSITE[mask.compare])


def _kept_by_mask(x: Node) -> tuple[_Mask, Node] | None:
    """The mask and the array, if `x` is the array where the mask is true, and zero elsewhere."""
    if x.op is not SELECT or len(x.inputs) != 3 or x.inputs[0].aval.dtype != np.bool_:
        return None
    chooser, first, second = x.inputs
    if chooser.aval.shape != x.aval.shape or (splat(first) != 0 and splat(second) != 0):
        return None
    mask = mask_of(chooser) if splat(first) == 0 else _complement(mask_of(chooser))
    return None if mask is None else (mask, second if splat(first) == 0 else first)


# ---- one element of each row


@rewrites(p.dot_general_p, safety={"iu": "exact", "fc": "nonfinite"}, law="reduction", an_operand=[CONVERT, SELECT])
def product_with_one_hot_rows(node: Node) -> Node | None:
    """dot(one_hot(i), x) → x[i], and zeros where i is out of range"""
    contracted, batch, free = axes_of(node)
    if len(contracted[0]) != 1 or batch[0] or len({n.aval.dtype for n in (*node.inputs, node)}) > 1:
        return None
    for side in (0, 1):
        x, (axis,) = node.inputs[1 - side], contracted[1 - side]
        mask = _weights(node.inputs[side])
        if mask is None or mask.compare is not EQ or isinstance(mask.other, _Count):
            continue
        if mask.count.axis != contracted[side][0] or x.aval.shape[axis] < LEAST_CHOSEN:
            continue
        if mask.axes != tuple(free[side]):
            continue
        rank = len(mask.other.aval.shape)
        first = 0 if side else rank
        numbers = GatherDimensionNumbers(
            offset_dims=tuple(range(first, first + len(free[1 - side]))),
            collapsed_slice_dims=(axis,),
            start_index_map=(axis,),
        )
        sizes = tuple(1 if k == axis else n for k, n in enumerate(x.aval.shape))
        return _gathered(x, mask.other, numbers, sizes)
    return None


@rewrites(p.reduce_sum_p, safety={"iu": "exact", "fc": "reassociate"}, law="reduction", an_operand=[SELECT])
def sum_of_one_chosen(node: Node, uses: Uses) -> Node | None:
    """sum(where(i == iota, x, 0)) → x[i] along the axis that is summed, and zero where i is out of range"""
    found = _kept_by_mask(node.inputs[0])
    if found is None or uses(node.inputs[0]) > 1:
        return None
    mask, x = found
    axis, shape = mask.count.axis, node.inputs[0].aval.shape
    if mask.compare is not EQ or isinstance(mask.other, _Count) or node.attrs["axes"] != (axis,):
        return None
    left = [k for k in range(len(shape)) if k != axis]
    if x.aval.shape != shape or shape[axis] < LEAST_CHOSEN:
        return None
    if list(mask.axes) != left:
        return _slices_chosen(x, mask.other, axis, mask.axes)
    rows = reshaped(transposed(x, [*left, axis]), (node.aval.size, shape[axis]))
    places = reshaped(mask.other, (node.aval.size,))
    return reshaped(_gathered(rows, places, OF_EACH_ROW, (1, 1)), node.aval.shape)


def _slices_chosen(x: Node, places: Node, axis: int, chosen: tuple[int, ...]) -> Node | None:
    """x[i] along an axis, for each i in `places`, whose axes are those `chosen`, along which `x` stays the same."""
    shape = x.aval.shape
    core: Node | None = x
    for gone in sorted(chosen, reverse=True):
        core = None if core is None else without_axis(core, gone, core.aval.shape)
    if core is None or list(chosen) != sorted(chosen):
        return None
    kept = [k for k in range(len(shape)) if k not in chosen]
    where = kept.index(axis)
    left = [k for k in range(len(shape)) if k != axis]
    numbers = GatherDimensionNumbers(
        offset_dims=tuple([left.index(k) for k in kept if k != axis]),
        collapsed_slice_dims=(where,),
        start_index_map=(where,),
    )
    sizes = tuple([1 if k == where else n for k, n in enumerate(core.aval.shape)])
    return _gathered(core, places, numbers, sizes)


@rewrites(p.gather_p, safety="exact", law="reduction", an_operand=[CONVERT, CONSTANT])
def rows_of_an_identity_matrix(node: Node) -> Node | None:
    """gather(eye(n), i) → one_hot(i): rows or columns at indices, which are brought into range"""
    matrix, indices = node.inputs
    numbers, shape = node.attrs["dimension_numbers"], matrix.aval.shape
    if len(shape) != 2 or shape[0] != shape[1] or not _is_identity(matrix) or kind_of(indices.aval.dtype) != "i":
        return None
    taken, dtype = tuple(numbers.start_index_map), np.dtype(np.int32)
    if len(taken) != 1 or tuple(numbers.collapsed_slice_dims) != taken or numbers.operand_batching_dims:
        return None
    if tuple(node.attrs["slice_sizes"])[1 - taken[0]] != shape[0] or shape[0] > np.iinfo(dtype).max:
        return None
    if node.attrs["mode"] is GatherScatterMode.FILL_OR_DROP:
        return None  # rows of the number that fills, which may be NaN
    size, places = shape[0], reshaped(indices, indices.aval.shape[:-1])
    if places.aval.dtype.itemsize < dtype.itemsize:
        places = make(CONVERT, places, new_dtype=dtype, weak_type=False)
    low, high = (scalar(number, places.aval.dtype) for number in (0, size - 1))
    places = make(MIN, make(MAX, places, broadcast(low, places.aval.shape, ())), broadcast(high, places.aval.shape, ()))
    (along,) = numbers.offset_dims
    batch = [k for k in range(len(node.aval.shape)) if k != along]
    count = make(IOTA, dtype=places.aval.dtype, shape=node.aval.shape, dimension=along)
    chosen = make(EQ, broadcast(places, node.aval.shape, batch), count)
    return make(CONVERT, chosen, new_dtype=node.aval.dtype, weak_type=False)


def _is_identity(x: Node) -> bool:
    """Whether a square matrix has ones on its diagonal and zeros elsewhere."""
    if x.op is CONVERT:
        return x.inputs[0].aval.dtype == np.bool_ and identity_axes(x.inputs[0]) is not None
    return x.op is CONSTANT and x.aval.shape[0] >= LEAST_CHOSEN and is_identity(x.value)


def _gathered(x: Node, places: Node, numbers: GatherDimensionNumbers, sizes: tuple[int, ...]) -> Node:
    """Slices of `x` at places, and zeros where a place is out of range."""
    if places.aval.dtype.itemsize < 4 or kind_of(places.aval.dtype) == "u":
        wide = np.dtype(np.int64 if places.aval.dtype.itemsize == 8 else np.int32)
        places = make(CONVERT, places, new_dtype=wide, weak_type=False)
    attrs = {
        "dimension_numbers": numbers,
        "slice_sizes": sizes,
        "indices_are_sorted": False,
        "unique_indices": False,
        "mode": GatherScatterMode.FILL_OR_DROP,
        "fill_value": 0,
    }
    return applied(GATHER, Attrs(attrs), x, reshaped(places, (*places.aval.shape, 1)))


# ---- all elements before or after one


@dataclass(frozen=True, slots=True)
class _Reach:
    """Result i is the sum of the elements up to i + shift; with `after`, of those from there on."""

    shift: int
    after: bool


def _reach(mask: _Mask, free: int, summed: int) -> _Reach | None:
    """What a mask over these two axes sums."""
    if not isinstance(mask.other, _Count) or {mask.count.axis, mask.other.axis} != {free, summed}:
        return None
    if mask.count.axis == summed:
        compare, shift = mask.compare, mask.other.start - mask.count.start
    else:
        compare, shift = MIRRORED[mask.compare], mask.count.start - mask.other.start
    if compare is LE or compare is LT:
        return _Reach(shift - (compare is LT), after=False)
    return _Reach(shift + (compare is GT), after=True) if compare is GE or compare is GT else None


def _cumulated(x: Node, axis: int, reach: _Reach, count: int) -> Node:
    """So many partial sums of `x` along an axis."""
    shape = x.aval.shape
    size = shape[axis]
    sums = make(CUMSUM, x, axis=axis, reverse=reach.after)

    def part(start: int, stop: int) -> Node:
        starts, counts = [0] * len(shape), list(shape)
        starts[axis], counts[axis] = start, stop - start
        return sliced(sums, starts, counts, [1] * len(shape))

    def repeated(node: Node, times: int) -> Node:
        return broadcast(node, [times if k == axis else n for k, n in enumerate(shape)], range(len(shape)))

    before = min(max(-reach.shift, 0), count)
    after = min(max(reach.shift + count - size, 0), count - before)
    nothing = full(0, part(0, 1).aval)
    low, high = (part(0, 1), nothing) if reach.after else (nothing, part(size - 1, size))
    parts = []
    if before:
        parts.append(repeated(low, before))
    if before + after < count:
        start = max(reach.shift, 0)
        parts.append(part(start, start + count - before - after))
    if after:
        parts.append(repeated(high, after))
    return concatenated(parts, axis)


def _is_summed_alike(node: Node) -> bool:
    """Whether a cumulative sum adds in the dtype in which a sum or a product adds."""
    return kind_of(node.aval.dtype) in "iufc" and (kind_of(node.aval.dtype) != "f" or node.aval.dtype.itemsize >= 4)


@rewrites(
    p.dot_general_p, safety={"iu": "exact", "fc": "nonfinite"}, law="reduction", an_operand=[CONVERT, SELECT, CONSTANT]
)
def product_with_a_triangle_of_ones(node: Node) -> Node | None:
    """dot(tril(1), x) → cumsum(x), also with other diagonals, and from the other end"""
    contracted, batch, free = axes_of(node)
    if len(contracted[0]) != 1 or batch[0] or len({n.aval.dtype for n in (*node.inputs, node)}) > 1:
        return None
    for side in (0, 1):
        x, (axis,) = node.inputs[1 - side], contracted[1 - side]
        mask = _weights(node.inputs[side]) if len(free[side]) == 1 else None
        reach = None if mask is None else _reach(mask, free[side][0], contracted[side][0])
        count = node.inputs[side].aval.shape[free[side][0]] if reach else 0
        if reach is None or min(x.aval.shape[axis], count) < LEAST_SUMMED or not _is_summed_alike(node):
            continue
        sums = _cumulated(x, axis, reach, count)
        others = free[1 - side]
        return transposed(sums, [*others, axis] if side else [axis, *others])
    return None


@rewrites(p.reduce_sum_p, safety={"iu": "exact", "fc": "reassociate"}, law="reduction", an_operand=[SELECT])
def sum_within_a_triangle(node: Node, uses: Uses) -> Node | None:
    """sum(where(j <= i, x, 0)) over j → cumsum(x), also with other diagonals, and from the other end"""
    found = _kept_by_mask(node.inputs[0])
    if found is None or uses(node.inputs[0]) > 1 or len(node.attrs["axes"]) != 1 or not _is_summed_alike(node):
        return None
    mask, x = found
    (axis,), shape = node.attrs["axes"], node.inputs[0].aval.shape
    if not isinstance(mask.other, _Count) or axis not in (mask.count.axis, mask.other.axis):
        return None
    free = mask.other.axis if mask.count.axis == axis else mask.count.axis
    reach = _reach(mask, free, axis)
    core = None if reach is None else without_axis(x, free, shape)
    if reach is None or core is None or min(shape[axis], shape[free]) < LEAST_SUMMED:
        return None
    place = axis - (axis > free)
    sums = _cumulated(core, place, reach, shape[free])  # its axis `place` is `free` in the result
    order = [k for k in range(len(sums.aval.shape)) if k != place]
    order.insert(free - (free > axis), place)
    return transposed(sums, order)


RULES: tuple[AnyRule, ...] = (
    rows_of_an_identity_matrix,
    product_with_one_hot_rows,
    sum_of_one_chosen,
    product_with_a_triangle_of_ones,
    sum_within_a_triangle,
)

DECLINED: dict[str, str] = {}
