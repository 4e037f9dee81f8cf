"""Rules for sorts: the ends of a sorted array are selected, and a permutation is inverted without sorting."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from jax.extend.core import primitives as p
from jax.lax import GatherScatterMode, ScatterDimensionNumbers

from graphopt.ir.attrs import Attrs
from graphopt.ir.node import Node, project
from graphopt.ir.op import PROJECT, op_of
from graphopt.ops.make import BROADCAST, CONVERT, full, make, scalar
from graphopt.passes.rules.moving import (
    IOTA,
    OF_EACH_ROW,
    REV,
    Uses,
    applied,
    bounds,
    reshaped,
    reversed_along,
    sliced,
    transposed,
)
from graphopt.rewrite.rule import AnyRule, rewrites
from graphopt.rewrite.safety import kind_of

SORT, TOP_K, GATHER, SCATTER = map(op_of, (p.sort_p, p.top_k_p, p.gather_p, p.scatter_p))
BITCAST, SELECT = op_of(p.bitcast_convert_type_p), op_of(p.select_n_p)
EQ, NE, XOR, AND, SHIFT = map(op_of, (p.eq_p, p.ne_p, p.xor_p, p.and_p, p.shift_right_arithmetic_p))
ADD, SUB, MUL = map(op_of, (p.add_p, p.sub_p, p.mul_p))

LEAST = 128
"""Elements of a row below which sorting it is cheap."""


def _pays(count: int, size: int) -> bool:
    """Whether the `count` first of `size` elements are selected in less time than all of them are sorted by radix,
    about 6 ns an element: a heap of the best so far is entered by count * ln(size / count) of them."""
    entered = count * (1 + math.log(size / count))
    return size >= LEAST and 10 * entered * math.log2(2 * count) <= 5 * size


def _sorted_by_one_key(node: Node) -> bool:
    """Whether a sort has one plain key of up to 32 bits, and is stable or sorts nothing else."""
    key = node.inputs[0].aval.dtype
    if node.op is not SORT or node.attrs["num_keys"] != 1 or node.context is not None:
        return False
    if not (node.attrs["is_stable"] or len(node.inputs) == 1):
        return False
    return kind_of(key) in "iuf" and key.itemsize <= 4


@rewrites(p.slice_p, safety={"biufc": "exact"}, law="reduction", an_operand=[SORT, PROJECT], keeps_derivatives=False)
def end_of_a_sort(node: Node, uses: Uses) -> Node | None:
    """slice(sort(x)) → x at top_k(x) where few elements are taken from one end; so for argsort"""
    found = node.inputs[0]
    sort, number = (found.inputs[0], found.attrs["index"]) if found.op is PROJECT else (found, 0)
    if sort.op is not SORT or not _sorted_by_one_key(sort) or uses(found) > 1 or uses(sort) > 1:
        return None
    axis, (starts, counts, strides) = sort.attrs["dimension"], bounds(node)
    size, start = found.aval.shape[axis], starts[axis]
    if not node.aval.size or not found.aval.size:
        return None
    stop = start + (counts[axis] - 1) * strides[axis] + 1
    from_above = size - start < stop
    count = size - start if from_above else stop
    if not _pays(count, size):
        return None
    places = _first_places(_as_rows(sort.inputs[0], axis), count, from_above)
    taken = _at_places(sort.inputs[number], axis, places)
    if from_above:  # what comes last in the order was found first
        taken, start = reversed_along(taken, (1,)), 0
    others = [n for k, n in enumerate(found.aval.shape) if k != axis]
    whole = reshaped(taken, [*others, count])
    order = list(range(len(others)))
    order.insert(axis, len(others))
    first = [start if k == axis else s for k, s in enumerate(starts)]
    return sliced(transposed(whole, order), first, counts, strides)


@rewrites(p.slice_p, safety={"biufc": "exact"}, law="reduction", an_operand=[PROJECT], keeps_derivatives=False)
def end_of_a_sort_with_places(node: Node, uses: Uses) -> Node | None:
    """slice(sort(x)) → x at slice(argsort(x)) where the places are read too, as the derivative does"""
    found = node.inputs[0]
    if found.op is not PROJECT or found.attrs["index"] != 0 or found.inputs[0].op is not SORT:
        return None
    sort = found.inputs[0]
    axis, (starts, counts, strides) = sort.attrs["dimension"], bounds(node)
    if len(sort.inputs) != 2 or not _sorted_by_one_key(sort) or uses(found) > 1 or uses(sort) != 2:
        return None
    size, start = found.aval.shape[axis], starts[axis]
    count = min(start + (counts[axis] - 1) * strides[axis] + 1, size - start) if node.aval.size else 0
    whole = all(n == m for k, (n, m) in enumerate(zip(counts, found.aval.shape, strict=True)) if k != axis)
    if not count or not whole or not _counts_along(sort.inputs[1], axis) or not _pays(count, size):
        return None
    places = _as_rows(sliced(project(sort, 1), starts, counts, strides), axis)
    places = make(CONVERT, places, new_dtype=np.dtype(np.int32), weak_type=False)
    taken = _at_places(sort.inputs[0], axis, places)
    others = [n for k, n in enumerate(found.aval.shape) if k != axis]
    order = list(range(len(others)))
    order.insert(axis, len(others))
    return transposed(reshaped(taken, [*others, counts[axis]]), order)


def _as_rows(x: Node, axis: int) -> Node:
    """`x` as a matrix with `axis` along its rows."""
    rank = len(x.aval.shape)
    last = transposed(x, [*[k for k in range(rank) if k != axis], axis])
    size = x.aval.shape[axis]
    return reshaped(last, (x.aval.size // size, size))


def _first_places(rows: Node, count: int, from_above: bool) -> Node:
    """Where in each row the elements are that a stable sort puts first, in its order; from above, the last ones, in the
    reverse order."""
    if from_above:
        size = rows.aval.shape[1]
        found = project(make(TOP_K, _selected(reversed_along(rows, (1,)), False), k=count), 1)
        return make(SUB, _spread(scalar(size - 1, found.aval.dtype), found.aval.shape), found)
    return project(make(TOP_K, _selected(rows, True), k=count), 1)


def _selected(x: Node, smallest: bool) -> Node:
    """Float32 numbers whose total order, bit by bit, is the order in which `sort` puts `x`, or the reverse of it.

    `top_k` goes by the total order, `sort` takes all NaN for equal and the greatest, and zeros for equal. Of other
    dtypes XLA's `top_k` for CPUs sorts; so integers become the floats that are in their places in the total order.
    """
    dtype, shape = x.aval.dtype, x.aval.shape
    sign, rest = scalar(-(1 << 31), np.int32), scalar((1 << 31) - 1, np.int32)
    if kind_of(dtype) == "f":
        x = make(SELECT, make(EQ, x, full(0, x.aval)), x, full(0, x.aval))
        x = make(SELECT, make(NE, x, x), x, full(math.nan, x.aval))
        if dtype != np.float32:
            x = make(CONVERT, x, new_dtype=np.dtype(np.float32), weak_type=False)
        if not smallest:
            return x
        bits = make(BITCAST, x, new_dtype=np.dtype(np.int32))
    else:
        if dtype == np.uint32:
            bits = make(XOR, make(BITCAST, x, new_dtype=np.dtype(np.int32)), _spread(sign, shape))
        else:
            bits = make(CONVERT, x, new_dtype=np.dtype(np.int32), weak_type=False)
        negative = make(SHIFT, bits, _spread(scalar(31, np.int32), shape))
        bits = make(XOR, bits, make(AND, negative, _spread(rest, shape)))
    if smallest:
        bits = make(XOR, bits, _spread(sign, shape))
    return make(BITCAST, bits, new_dtype=np.dtype(np.float32))


def _spread(number: Node, shape: tuple[int, ...]) -> Node:
    return make(BROADCAST, number, shape=shape, broadcast_dimensions=())


def _at_places(x: Node, axis: int, places: Node) -> Node:
    """The elements of `x` at the places in each row: the places themselves where it counts from zero."""
    backwards = x.op is REV and x.attrs["dimensions"] == (axis,)
    if _counts_along(x.inputs[0] if backwards else x, axis):
        last = scalar(x.aval.shape[axis] - 1, places.aval.dtype)
        found = make(SUB, _spread(last, places.aval.shape), places) if backwards else places
        return make(CONVERT, found, new_dtype=x.aval.dtype, weak_type=x.aval.weak_type)
    rows = _as_rows(x, axis)
    attrs = Attrs(
        {
            "dimension_numbers": OF_EACH_ROW,
            "slice_sizes": (1, 1),
            "indices_are_sorted": False,
            "unique_indices": True,
            "mode": GatherScatterMode.PROMISE_IN_BOUNDS,
            "fill_value": None,
        }
    )
    return applied(GATHER, attrs, rows, reshaped(places, (*places.aval.shape, 1)))


def _counts_along(x: Node, axis: int) -> bool:
    """Whether `x` is 0, 1, 2 and so on along an axis, the same along all others."""
    while x.op is BROADCAST and len(x.inputs) == 1:
        dimensions = x.attrs["broadcast_dimensions"]
        if axis not in dimensions:
            return False
        inner = dimensions.index(axis)
        if x.inputs[0].aval.shape[inner] != x.aval.shape[axis]:
            return False
        x, axis = x.inputs[0], inner
    return x.op is IOTA and not x.inputs and x.attrs["dimension"] == axis


@rewrites(PROJECT, safety={"biufc": "exact"}, law="inverse", an_operand=[SORT], keeps_derivatives=False)
def sort_by_a_permutation(node: Node) -> Node | None:
    """argsort(argsort(x)) → scatter(iota at argsort(x)), the rank of each element; so for what else is sorted by it"""
    sort, number = node.inputs[0], node.attrs["index"]
    axis = sort.attrs["dimension"]
    if sort.attrs["num_keys"] != 1 or sort.context is not None or not _is_permutation(sort.inputs[0], axis):
        return None
    rows = _as_rows(sort.inputs[number], axis)
    count, size = rows.aval.shape
    if not rows.aval.size or count * size > np.iinfo(np.int32).max:
        return None
    places = _as_rows(sort.inputs[0], axis)
    if number == 0:
        flat = _counted((count * size,), 0, places.aval.dtype) if count == 1 else None
        if flat is None:
            return None
    else:
        flat = _written(rows, places)
    others = [n for k, n in enumerate(node.aval.shape) if k != axis]
    order = list(range(len(others)))
    order.insert(axis, len(others))
    return transposed(reshaped(flat, [*others, size]), order)


def _is_permutation(x: Node, axis: int) -> bool:
    """Whether each row of `x` along an axis holds 0, 1, 2 and so on in some order: what a sort made of these."""
    while x.op is REV:
        x = x.inputs[0]
    if x.op is not PROJECT or x.inputs[0].op is not SORT or x.inputs[0].attrs["dimension"] != axis:
        return False
    if x.aval.shape[axis] - 1 > np.iinfo(x.aval.dtype).max if kind_of(x.aval.dtype) in "iu" else True:
        return False
    before = x.inputs[0].inputs[x.attrs["index"]]
    while before.op is REV:
        before = before.inputs[0]
    return _counts_along(before, axis)


def _written(rows: Node, places: Node) -> Node:
    """One array of all rows, the elements of each at the places of the same row, which are different ones."""
    count, size = rows.aval.shape
    places = make(CONVERT, places, new_dtype=np.dtype(np.int32), weak_type=False)
    if count > 1:
        start = make(MUL, _counted((count, size), 0, np.dtype(np.int32)), full(size, places.aval))
        places = make(ADD, places, start)
    total = count * size
    numbers = ScatterDimensionNumbers((), (0,), (0,))
    attrs = {
        "dimension_numbers": numbers,
        "indices_are_sorted": False,
        "unique_indices": True,
        "mode": GatherScatterMode.PROMISE_IN_BOUNDS,
        "update_jaxpr": None,
        "update_consts": (),
    }
    flat = reshaped(rows, (total,))
    return applied(SCATTER, Attrs(attrs), full(0, flat.aval), reshaped(places, (total, 1)), flat)


def _counted(shape: tuple[int, ...], axis: int, dtype: Any) -> Node:
    """0, 1, 2 and so on along an axis."""
    return make(IOTA, dtype=np.dtype(dtype), shape=shape, dimension=axis)


RULES: tuple[AnyRule, ...] = (end_of_a_sort, end_of_a_sort_with_places, sort_by_a_permutation)

DECLINED: dict[str, str] = {
    "sort": "sort(sort(x)) → sort(x) and sort(rev(x)) → sort(x) are not written; elements of 64 bits are sorted, for "
    "top_k of XLA is fast on float32 alone.",
}
