"""Captured arrays whose elements follow from their places: those that count, and masks cut along a diagonal."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
import numpy.typing as npt

LARGEST_LOOKED_AT = 1 << 24
"""Elements up to which an array is compared with one that its places make."""


@dataclass(frozen=True, slots=True)
class Sequence:
    """Integers that count along one axis, `start + step * k`, and are the same along all others."""

    axis: int
    start: int
    step: int


@dataclass(frozen=True, slots=True)
class Triangle:
    """What is not zero where column <= row + shift, or with `above` where column >= row + shift, and zero elsewhere.

    axes: of the array, those of rows and columns; all others are of size one.
    """

    axes: tuple[int, int]
    shift: int
    above: bool


def is_at_hand(array: Any) -> bool:
    """Whether the elements of a constant can be looked at without moving them from a device."""
    if isinstance(array, jax.core.Tracer) or not isinstance(array, jax.Array):
        return isinstance(array, np.ndarray)
    if jax.dtypes.issubdtype(array.dtype, jax.dtypes.extended) or array.is_deleted() or not array.is_fully_addressable:
        return False
    return len(found := array.devices()) == 1 and {d.platform for d in found} == {"cpu"}


def sequence_of(array: Any) -> Sequence | None:
    """How an array of integers counts; None for others, and where the count itself would not fit into its dtype."""
    value = _looked_at(array)
    if value is None or value.dtype.kind not in "iu":
        return None
    first, last = value.reshape(-1)[[0, -1]]
    axis = next((k for k, n in enumerate(value.shape) if n > 1 and value.take(1, k).reshape(-1)[0] != first), None)
    if axis is None:
        return None
    size = value.shape[axis]
    start, step = int(first), int(value.take(1, axis).reshape(-1)[0]) - int(first)
    if int(last) != start + step * (size - 1) or max(abs(step), 1) * (size - 1) > np.iinfo(value.dtype).max:
        return None
    counted = np.arange(size, dtype=np.int64) * step + start
    along = counted.astype(value.dtype).reshape([size if k == axis else 1 for k in range(value.ndim)])
    return Sequence(axis, start, step) if bool(np.all(value == along)) else None


def triangle_of(array: Any) -> Triangle | None:
    """Along which diagonal a mask, or a matrix of ones and zeros, is cut; None for others."""
    value = _looked_at(array)
    axes = [] if value is None else [k for k, n in enumerate(value.shape) if n > 1]
    if value is None or value.dtype.kind not in "biufc" or len(axes) != 2:
        return None
    value = value.reshape([value.shape[k] for k in axes])
    rows, columns = value.shape
    if not np.isin(value[[0, 0, -1, -1], [0, -1, 0, -1]], (0, 1)).all():
        return None
    ones = np.count_nonzero(value, axis=1)
    cut = np.flatnonzero((ones > 0) & (ones < columns))  # the rows in which the diagonal lies
    row = int(cut[0]) if cut.size else 0
    above = bool(cut.size) and not value[row, 0]
    if cut.size:
        shift = columns - int(ones[row]) - row if above else int(ones[row]) - 1 - row
    else:
        shift = columns - 1 if ones[0] else -rows
    places = np.arange(columns)
    for i in range(rows):
        if not np.array_equal(value[i], places >= i + shift if above else places <= i + shift):
            return None
    return Triangle((axes[0], axes[1]), shift, above)


def is_identity(array: Any) -> bool:
    """Whether a square matrix has ones on its diagonal and zeros elsewhere."""
    value = _looked_at(array)
    if value is None or value.ndim != 2 or value.shape[0] != value.shape[1] or value.dtype.kind not in "biufc":
        return False
    return bool(value[0, 0] == 1 and np.all(value.diagonal() == 1)) and int(np.count_nonzero(value)) == len(value)


def _looked_at(array: Any) -> npt.NDArray[Any] | None:
    """The elements of an array that is at hand and neither empty, nor a number, nor too large."""
    if not is_at_hand(array) or not array.shape or not 0 < array.size <= LARGEST_LOOKED_AT:
        return None
    return np.asarray(array)
