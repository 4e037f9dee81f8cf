"""Intervals: between which values the elements of an array lie, from place to place along two of its axes.

Masks are mostly made of the places themselves: `row >= column`, `row - column < 128`, `row // 64 == column // 64`.
Interval arithmetic on blocks of places tells, without computing any of them, which are true in a whole block, or false.

R. E. Moore, "Interval analysis", 1966.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from jax.extend.core import primitives as p

from graphopt.analysis.axes import IOTA, along
from graphopt.ir.aval import is_floating
from graphopt.ir.node import Node, is_comparable
from graphopt.ir.op import CONSTANT, PARAM, Op, op_of
from graphopt.ops.make import BROADCAST, CONVERT

Array = npt.NDArray[np.floating[Any]]
Bounds = tuple[Array, Array]
"""The least and the greatest value, for each block of rows and each block of columns; NaN where nothing is known."""

DEEPEST = 64

EXACT = 2.0**53
"""Integers up to here are exact as floats of 64 bits."""

UNKNOWN = (np.full((1, 1), np.nan), np.full((1, 1), np.nan))

MOVES = (BROADCAST, *map(op_of, (p.reshape_p, p.squeeze_p, p.transpose_p, p.copy_p)))
SELECT = op_of(p.select_n_p)


class Intervals:
    """What is known of arrays in blocks of places.

    rows, columns: the places at which the blocks along the one and the other axis begin, and behind the last one.
    deepest: how many operations an array may be away from what is known of it.
    """

    def __init__(self, rows: Sequence[int], columns: Sequence[int], deepest: int = DEEPEST) -> None:
        self.deepest = deepest
        edges = np.asarray(rows, np.float64)[:, None], np.asarray(columns, np.float64)[None]
        self.rows = (edges[0][:-1], edges[0][1:] - 1)
        self.columns = (edges[1][:, :-1], edges[1][:, 1:] - 1)
        self.known: dict[tuple[Node, int | None, int | None], Bounds] = {}

    def of(self, node: Node, row: int | None, column: int | None, depth: int = 0) -> Bounds:
        """The bounds of a node's elements. row, column: its axes along which the blocks lie; None where it has not."""
        key = (node, row, column)
        if key not in self.known:
            with np.errstate(all="ignore"):
                self.known[key] = self._of(node, row, column, depth)
        return self.known[key]

    def _of(self, node: Node, row: int | None, column: int | None, depth: int) -> Bounds:
        if len(node.avals) != 1 or not node.aval.is_plain or depth > self.deepest:
            return UNKNOWN
        if not is_real(node.aval.dtype) and node.aval.dtype != np.bool_:
            return UNKNOWN
        if node.op is CONSTANT:
            return self._of_constant(node, row, column)
        if node.op is IOTA and not node.inputs:
            dimension = node.attrs["dimension"]
            here = self.rows if dimension == row else self.columns if dimension == column else None
            return _rounded(node, here or (np.zeros((1, 1)), np.full((1, 1), node.aval.shape[dimension] - 1.0)))
        rule = _RULES.get(node.op)
        if rule is None and node.op not in MOVES:
            return UNKNOWN
        row_axes, column_axes = (
            (None,) * len(node.inputs) if axis is None else along(node, axis) for axis in (row, column)
        )
        if row_axes is None or column_axes is None:
            return UNKNOWN
        operands = [
            self.of(operand, r, c, depth + 1) for operand, r, c in zip(node.inputs, row_axes, column_axes, strict=True)
        ]
        if rule is None:
            return operands[0]
        found = rule(node, *operands)
        return _boolean(found) if node.aval.dtype == np.bool_ else _rounded(node, found)

    def _of_constant(self, node: Node, row: int | None, column: int | None) -> Bounds:
        dtype = node.aval.dtype
        if not is_comparable(node.value) or not node.aval.size or not (is_real(dtype) or dtype == np.bool_):
            return UNKNOWN
        value = np.asarray(node.value).astype(np.float64)
        others = tuple(axis for axis in range(value.ndim) if axis not in (row, column))
        least, greatest = value.min(others, keepdims=True), value.max(others, keepdims=True)
        for axis, (starts, stops) in ((row, self.rows), (column, self.columns)):
            if axis is not None:
                begin, end = int(starts.flat[0]), int(stops.flat[-1]) + 1
                places = starts.ravel().astype(np.int64) - begin
                least = np.minimum.reduceat(np.take(least, range(begin, end), axis), places, axis)
                greatest = np.maximum.reduceat(np.take(greatest, range(begin, end), axis), places, axis)
        least, greatest = least.squeeze(others), greatest.squeeze(others)
        if row is None:
            least, greatest = least[None], greatest[None]
        if column is None:
            least, greatest = least[..., None], greatest[..., None]
        elif row is not None and row > column:
            least, greatest = least.T, greatest.T
        return _rounded(node, (least, greatest))


def bounds_of_all(node: Node, deepest: int) -> tuple[float, float] | None:
    """Between which values all elements of an array lie; None where that is not known, or integers may wrap around."""
    least, greatest = Intervals((0, 1), (0, 1), deepest).of(node, None, None)
    return None if np.isnan(least).any() else (float(least.min()), float(greatest.max()))


def is_real(dtype: Any) -> bool:
    """Whether values of a dtype are integers or real numbers."""
    return is_floating(dtype) or bool(np.issubdtype(dtype, np.integer))


def _boolean(bounds: Bounds) -> Bounds:
    """Of booleans something is always known."""
    return np.where(np.isnan(bounds[0]), 0.0, bounds[0]), np.where(np.isnan(bounds[1]), 1.0, bounds[1])


def _rounded(node: Node, bounds: Bounds) -> Bounds:
    """The bounds as values of the node's dtype; unknown where it does not have them."""
    dtype = node.aval.dtype
    least, greatest = bounds
    if is_floating(dtype):
        least, greatest = (bound.astype(dtype).astype(np.float64) for bound in bounds)
        known = ~(np.isnan(least) | np.isnan(greatest))
    else:
        info = np.iinfo(dtype) if np.issubdtype(dtype, np.integer) else None
        low, high = (0, 1) if info is None else (max(info.min, -EXACT), min(info.max, EXACT))
        known = (least >= low) & (greatest <= high)
    return np.where(known, least, np.nan), np.where(known, greatest, np.nan)


def _of_finite(rule: Callable[[Bounds, Bounds], Bounds]) -> Callable[..., Bounds]:
    """A rule of arithmetic: between infinities there is NaN, too."""

    def bounds(node: Node, a: Bounds, b: Bounds) -> Bounds:
        finite = np.isfinite(a[0]) & np.isfinite(a[1]) & np.isfinite(b[0]) & np.isfinite(b[1])
        least, greatest = rule(a, b)
        return np.where(finite, least, np.nan), np.where(finite, greatest, np.nan)

    return bounds


def _product(a: Bounds, b: Bounds) -> Bounds:
    found = [x * y for x in a for y in b]
    return np.minimum.reduce(np.broadcast_arrays(*found)), np.maximum.reduce(np.broadcast_arrays(*found))


def _converted(node: Node, a: Bounds) -> Bounds:
    if node.aval.dtype == np.bool_:
        return _not_equal(node, a, (np.zeros((1, 1)), np.zeros((1, 1))))
    whole = not is_floating(node.aval.dtype)
    return (np.trunc(a[0]), np.trunc(a[1])) if whole else a


def _quotient(node: Node, a: Bounds, b: Bounds) -> Bounds:
    """Of what is not negative by what is positive."""
    known = (a[0] >= 0) & (b[0] > 0) & np.isfinite(a[1]) & np.isfinite(b[1])
    least, greatest = a[0] / b[1], a[1] / b[0]
    if not is_floating(node.aval.dtype):
        least, greatest = np.floor(least), np.floor(greatest)
    return np.where(known, least, np.nan), np.where(known, greatest, np.nan)


def _remainder(node: Node, a: Bounds, b: Bounds) -> Bounds:
    """Of what is not negative by what is positive, both whole."""
    known = (a[0] >= 0) & (b[0] >= 1) & (not is_floating(node.aval.dtype))
    itself = a[1] < b[0]
    least, greatest = np.where(itself, a[0], 0.0), np.where(itself, a[1], np.minimum(a[1], b[1] - 1))
    return np.where(known, least, np.nan), np.where(known, greatest, np.nan)


def _magnitude(node: Node, a: Bounds) -> Bounds:
    least, greatest = np.maximum(np.maximum(a[0], -a[1]), 0 * a[0]), np.maximum(-a[0], a[1])
    return least, greatest


def _at_least(node: Node, a: Bounds, b: Bounds) -> Bounds:
    return (a[0] >= b[1]) * 1.0, 1.0 - (a[1] < b[0])


def _greater(node: Node, a: Bounds, b: Bounds) -> Bounds:
    return (a[0] > b[1]) * 1.0, 1.0 - (a[1] <= b[0])


def _equal(node: Node, a: Bounds, b: Bounds) -> Bounds:
    least, greatest = _not_equal(node, a, b)
    return 1.0 - greatest, 1.0 - least


def _not_equal(node: Node, a: Bounds, b: Bounds) -> Bounds:
    same = (a[0] == a[1]) & (b[0] == b[1]) & (a[0] == b[0])
    return ((a[0] > b[1]) | (a[1] < b[0])) * 1.0, 1.0 - same


def _both(node: Node, a: Bounds, b: Bounds) -> Bounds:
    return (np.minimum(a[0], b[0]), np.minimum(a[1], b[1])) if node.aval.dtype == np.bool_ else UNKNOWN


def _either(node: Node, a: Bounds, b: Bounds) -> Bounds:
    return (np.maximum(a[0], b[0]), np.maximum(a[1], b[1])) if node.aval.dtype == np.bool_ else UNKNOWN


def _not(node: Node, a: Bounds) -> Bounds:
    return (1.0 - a[1], 1.0 - a[0]) if node.aval.dtype == np.bool_ else UNKNOWN


def _selected(node: Node, which: Bounds, *cases: Bounds) -> Bounds:
    if len(cases) != 2 or node.inputs[0].aval.dtype != np.bool_:
        return UNKNOWN
    no, yes = which[1] == 0, which[0] == 1
    return tuple(  # type: ignore[return-value]
        np.where(no, first, np.where(yes, second, either(first, second)))
        for first, second, either in zip(*cases, (np.minimum, np.maximum), strict=True)
    )


def _clamped(node: Node, low: Bounds, a: Bounds, high: Bounds) -> Bounds:
    """Of integers that are not known at all the limits are; a NaN stays one."""
    if not is_floating(node.aval.dtype):
        a = np.where(np.isnan(a[0]), -np.inf, a[0]), np.where(np.isnan(a[1]), np.inf, a[1])
    least, greatest = (np.minimum(np.maximum(a[side], low[side]), high[side]) for side in (0, 1))
    return least, greatest


_RULES: Mapping[Op, Callable[..., Bounds]] = {
    op_of(p.add_p): _of_finite(lambda a, b: (a[0] + b[0], a[1] + b[1])),
    op_of(p.sub_p): _of_finite(lambda a, b: (a[0] - b[1], a[1] - b[0])),
    op_of(p.mul_p): _of_finite(_product),
    op_of(p.neg_p): lambda node, a: (-a[1], -a[0]),
    op_of(p.abs_p): _magnitude,
    op_of(p.sign_p): lambda node, a: (np.sign(a[0]), np.sign(a[1])),
    op_of(p.max_p): lambda node, a, b: (np.maximum(a[0], b[0]), np.maximum(a[1], b[1])),
    op_of(p.min_p): lambda node, a, b: (np.minimum(a[0], b[0]), np.minimum(a[1], b[1])),
    op_of(p.clamp_p): _clamped,
    op_of(p.div_p): _quotient,
    op_of(p.rem_p): _remainder,
    CONVERT: _converted,
    op_of(p.ge_p): _at_least,
    op_of(p.gt_p): _greater,
    op_of(p.le_p): lambda node, a, b: _at_least(node, b, a),
    op_of(p.lt_p): lambda node, a, b: _greater(node, b, a),
    op_of(p.eq_p): _equal,
    op_of(p.ne_p): _not_equal,
    op_of(p.and_p): _both,
    op_of(p.or_p): _either,
    op_of(p.not_p): _not,
    SELECT: _selected,
}

KNOWN = frozenset((*_RULES, *MOVES))
"""Operations of which bounds are known from those of their operands. None takes long."""


def varies(node: Node, axis: int) -> bool:
    """Whether elements of an array may differ from place to place along an axis; what is not known may."""
    seen = {(node, axis)}
    stack = [(node, axis)]
    while stack:
        node, axis = stack.pop()
        if len(node.avals) != 1 or node.op is PARAM:
            return True
        if node.op is CONSTANT or node.op is IOTA:
            if node.inputs or (node.aval.shape[axis] > 1 and node.attrs.get("dimension", axis) == axis):
                return True
            continue
        axes = along(node, axis) if node.op.elementwise or node.op in MOVES else None
        if axes is None:
            return True
        more = {(operand, a) for operand, a in zip(node.inputs, axes, strict=True) if a is not None} - seen
        seen |= more
        stack += more
    return False
