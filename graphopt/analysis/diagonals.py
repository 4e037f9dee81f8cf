"""Diagonals: masks of identity matrices, vectors on a diagonal, and where a diagonal is taken."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
from jax.extend.core import primitives as p

from graphopt.ir.node import Node, is_comparable
from graphopt.ir.op import CONSTANT, op_of
from graphopt.ops.control import COND, Cond
from graphopt.ops.make import BROADCAST, CONVERT
from graphopt.rewrite.pattern import splat
from graphopt.rewrite.safety import kind_of

MUL, SUM, SELECT, EQ, LT = map(op_of, (p.mul_p, p.reduce_sum_p, p.select_n_p, p.eq_p, p.lt_p))
IOTA, GATHER, CONCATENATE, ADD = map(op_of, (p.iota_p, p.gather_p, p.concatenate_p, p.add_p))

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Diagonal:
    """A diagonal that is taken of an array, for each of the elements along its other axes.

    axes: those that become one. starts: where the diagonal begins along each of the two. at: which axis of the result
    it is. count: its elements.
    """

    array: Node
    axes: tuple[int, int]
    starts: tuple[int, int]
    at: int
    count: int

    @property
    def is_main(self) -> bool:
        """Whether it is the diagonal of square matrices, from their first to their last element."""
        return self.starts == (0, 0) and all(self.array.aval.shape[axis] == self.count for axis in self.axes)

    def labels(self, labels: tuple[T, ...]) -> tuple[T, ...]:
        """For each axis of the array what its axis of the result has."""
        others = iter((*labels[: self.at], *labels[self.at + 1 :]))
        return tuple([labels[self.at] if k in self.axes else next(others) for k in range(len(self.array.aval.shape))])


def identity_axes(mask: Node) -> tuple[int, int] | None:
    """The two axes of equal size whose indices are equal where `mask` is true; None where it is not such a mask."""
    found = diagonal_axes(mask)
    if found is None or found[2] or mask.aval.shape[found[0]] != mask.aval.shape[found[1]]:
        return None
    return found[:2]


def diagonal_axes(mask: Node) -> tuple[int, int, int] | None:
    """Two axes, and how much greater the index along the second is than that along the first where `mask` is true;
    None where it is not such a mask."""
    places = list(range(len(mask.avals[0].shape)))  # where each axis of what is looked at lies in `mask`
    while mask.op is BROADCAST and len(mask.inputs) == 1 and mask.inputs[0].aval.shape:
        inner = mask.inputs[0].aval.shape
        dimensions = mask.attrs["broadcast_dimensions"]
        if any(size != mask.aval.shape[axis] for axis, size in zip(dimensions, inner, strict=True)):
            return None
        places, mask = [places[axis] for axis in dimensions], mask.inputs[0]
    if mask.op is not EQ:
        return None
    one, other = map(_places, mask.inputs)
    if one is None or other is None or one[0] == other[0]:
        return None
    return places[one[0]], places[other[0]], one[1] - other[1]


def _places(index: Node) -> tuple[int, int] | None:
    """The axis along which an array counts places, and what is added to each; None for others."""
    added = 0
    if index.op is ADD:
        numbers = [n for n in index.inputs if n.op is CONSTANT]
        value = splat(numbers[0]) if len(numbers) == 1 else None
        if value is None:
            return None
        added = int(value)
        (index,) = [n for n in index.inputs if n is not numbers[0]]
    if index.op is not IOTA or index.inputs or kind_of(index.aval.dtype) not in "iu":
        return None
    axis: int = index.attrs["dimension"]
    # Places that a dtype cannot count would come round.
    first, last = added, added + index.aval.shape[axis] - 1
    bounds = np.iinfo(index.aval.dtype)
    return (axis, added) if bounds.min <= first and last <= bounds.max else None


def spread_diagonal(node: Node) -> tuple[Node, Node] | None:
    """The identity's mask and what is repeated to be on the diagonal, as `diag` and `eye(n) * d` write it."""
    if node.op is SELECT and len(node.inputs) == 3 and splat(node.inputs[1]) == 0:
        mask, _, values = node.inputs
        found = mask.aval.shape == node.aval.shape and values.op is BROADCAST and len(values.inputs) == 1
        return (mask, values) if found and values.inputs[0].aval.size < node.aval.size else None
    if node.op is MUL and all(n.aval.dtype == node.aval.dtype for n in node.inputs):
        for number, values in (node.inputs, node.inputs[::-1]):
            masked = number.op is CONVERT and number.aval.shape == node.aval.shape
            if not masked or kind_of(number.inputs[0].aval.dtype) != "b" or values.op is not BROADCAST:
                continue
            if values.inputs[0].aval.size < node.aval.size:
                return number.inputs[0], values
    return None


def diagonal_of(node: Node) -> Diagonal | None:
    """The diagonal that a node takes: by a gather at all places (i, i), or (i, i + 2), or as `jnp.diagonal` writes it,
    by a sum on one platform, by a gather on all others. None for any other node."""
    if node.op is GATHER:
        return _gathered(node)
    if (
        node.op is not COND
        or len(node.inputs) != 3
        or len(node.avals) != 1
        or node.attrs.get("branches_platforms") is None
    ):
        return None
    _, mask, array = node.inputs
    if mask.op is not CONVERT or identity_axes(mask.inputs[0]) is None or len(mask.aval.shape) != 2:
        return None
    if array.aval.shape[-2:] != mask.aval.shape or len(Cond.of(node).branches) != 2:
        return None
    first, second = (branch.params for branch in Cond.of(node).branches)
    total, taken = (branch.outputs[0] for branch in Cond.of(node).branches)
    if total.op is not SUM or total.inputs[0].op is not MUL:
        return None
    if {n.inputs[0] if n.op is BROADCAST else n for n in total.inputs[0].inputs} != set(first):
        return None
    found = _gathered(taken) if taken.op is GATHER else None
    if found is None or found.array is not second[1]:
        return None
    return Diagonal(array, found.axes, found.starts, found.at, found.count)


def _gathered(node: Node) -> Diagonal | None:
    """The diagonal that a gather takes."""
    array, indices = node.inputs
    shape, numbers = array.aval.shape, node.attrs["dimension_numbers"]
    axes = tuple(numbers.start_index_map)
    if len(axes) != 2 or sorted(axes) != sorted(numbers.collapsed_slice_dims) or numbers.operand_batching_dims:
        return None
    if tuple(node.attrs["slice_sizes"]) != tuple([1 if k in axes else n for k, n in enumerate(shape)]):
        return None
    starts = diagonal_starts(indices)
    if starts is None or len(node.aval.shape) != len(shape) - 1:
        return None
    count = indices.aval.shape[0]
    if any(start + count > shape[axis] for start, axis in zip(starts, axes, strict=True)):
        return None
    (at,) = set(range(len(shape) - 1)) - set(numbers.offset_dims)
    return Diagonal(array, axes, starts, at, count)


def diagonal_starts(indices: Node) -> tuple[int, int] | None:
    """Row i of indices is (i + a, i + b): a and b, which are not negative; None for others."""
    shape = indices.aval.shape
    if len(shape) != 2 or shape[1] != 2:
        return None
    if indices.op is CONSTANT:
        places = np.asarray(indices.value) if is_comparable(indices.value) else np.zeros((0, 2), np.int32)
        row, column = (_counted(places[:, k]) for k in (0, 1))
        return None if row is None or column is None else (row, column)
    joined = indices.op is CONCATENATE and len(indices.inputs) == 2
    row, column = [_start(n, shape[0]) for n in (indices.inputs if joined else (indices, indices))]
    return None if row is None or column is None else (row, column)


def _start(column: Node, count: int) -> int | None:
    """The first of the places one after the other that a column has, or all of several columns; None for others."""
    if column.op is not BROADCAST or column.inputs[0].aval.shape != (count,):
        return None
    if tuple(column.attrs["broadcast_dimensions"]) != (0,):
        return None
    index = from_the_start(column.inputs[0])
    if index.op is CONSTANT:
        return _counted(np.asarray(index.value)) if is_comparable(index.value) else None
    found = _places(index)
    return found[1] if found is not None and found[1] >= 0 else None


def _counted(places: npt.NDArray[Any]) -> int | None:
    """The first of places one after the other, from one that is not negative; None for others, and for none."""
    if not places.size or places[0] < 0:
        return None
    first = int(places[0])
    return first if np.array_equal(places, np.arange(first, first + len(places))) else None


def from_the_start(index: Node) -> Node:
    """Indices as they are before negative ones count from the end, where there are none: of places."""
    if index.op is SELECT and index.inputs[0].op is LT:
        compared, zero = index.inputs[0].inputs
        known = compared is index.inputs[1] and zero.op is CONSTANT and splat(zero) == 0
        return index.inputs[1] if known else index
    return index
