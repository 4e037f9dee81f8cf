"""Access maps with loaded values: where an element is read depends on integers that operands hold.

Dynamic slices and their updates, and gathers. The integers are looked up, which gives variables of index expressions
with known bounds; the rest is as for operations that move data (`graphopt.analysis.access`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol

import numpy as np
from jax.extend.core import primitives as p
from jax.lax import GatherScatterMode

from graphopt.analysis.access import Given, Indices, Read
from graphopt.ir.index import Index
from graphopt.ir.node import Node
from graphopt.ir.op import Op, op_of

GATHER = op_of(p.gather_p)

MODES = (GatherScatterMode.CLIP, GatherScatterMode.FILL_OR_DROP, GatherScatterMode.PROMISE_IN_BOUNDS)


class Lookup(Protocol):
    """Looks up integers."""

    def index(self, operand: Node, at: Indices, dtype: Any, high: int | None = None) -> Index:
        """The element of `operand` at `at`, converted to an integer dtype, and clamped to 0 and `high` where given."""


IndexedAccess = Callable[[Node, Indices, Lookup], Iterator[Read | Given]]


def _starts(operands: tuple[Node, ...], highs: tuple[int, ...], lookup: Lookup) -> Indices:
    return tuple(lookup.index(n, (), n.aval.dtype, high) for n, high in zip(operands, highs, strict=True))


def _dynamic_slice(node: Node, at: Indices, lookup: Lookup) -> Iterator[Read]:
    highs = tuple(d - s for d, s in zip(node.inputs[0].aval.shape, node.aval.shape, strict=True))
    yield Read(0, tuple(i + s for i, s in zip(at, _starts(node.inputs[1:], highs, lookup), strict=True)))


def starts_of_update(node: Node, lookup: Lookup) -> Indices:
    """Where in the result of a dynamic_update_slice the update begins."""
    highs = tuple(d - s for d, s in zip(node.aval.shape, node.inputs[1].aval.shape, strict=True))
    return _starts(node.inputs[2:], highs, lookup)


def _dynamic_update_slice(node: Node, at: Indices, lookup: Lookup) -> Iterator[Read]:
    sizes = node.inputs[1].aval.shape
    places = tuple(i - s for i, s in zip(at, starts_of_update(node, lookup), strict=True))
    yield Read(1, places, tuple((place, 0, size) for place, size in zip(places, sizes, strict=True)))
    yield Read(0, at)


def _gather(node: Node, at: Indices, lookup: Lookup) -> Iterator[Read | Given]:
    operand, indices = node.inputs
    numbers, sizes = node.attrs["dimension_numbers"], node.attrs["slice_sizes"]
    batch = tuple(index for axis, index in enumerate(at) if axis not in numbers.offset_dims)
    drops = node.attrs["mode"] == GatherScatterMode.FILL_OR_DROP
    dtype = index_dtype(operand.aval.shape) if drops else indices.aval.dtype
    inside, place = [], [Index()] * len(sizes)
    for axis, by in zip(numbers.operand_batching_dims, numbers.start_indices_batching_dims, strict=True):
        place[axis] = batch[by]
    for number, axis in enumerate(numbers.start_index_map):
        high = operand.aval.shape[axis] - sizes[axis]
        where = (*batch, Index() + number)
        place[axis] = lookup.index(indices, where, dtype, high)
        if drops:
            inside.append((lookup.index(indices, where, dtype), 0, high + 1))
    taken = {*numbers.collapsed_slice_dims, *numbers.operand_batching_dims}
    window = (axis for axis in range(len(sizes)) if axis not in taken)
    for axis, offset in zip(window, numbers.offset_dims, strict=True):
        place[axis] = place[axis] + at[offset]
    yield Read(0, tuple(place), tuple(inside), anywhere=True)
    if drops:
        yield Given(np.asarray(node.attrs["fill_value"]).astype(node.aval.dtype)[()])


def index_dtype(shape: tuple[int, ...]) -> Any:
    """What JAX converts the indices into an array of this shape to, before it sees which are out of bounds."""
    return np.dtype(np.int32 if max(shape, default=0) <= np.iinfo(np.int32).max else np.int64)


INDEXED: Mapping[Op, IndexedAccess] = {
    op_of(p.dynamic_slice_p): _dynamic_slice,
    op_of(p.dynamic_update_slice_p): _dynamic_update_slice,
    GATHER: _gather,
}
"""The operations that move data from where their operands say, and their maps."""


def declined(node: Node) -> str | None:
    """Why one of these operations cannot be part of a kernel; None where it can."""
    if node.op is GATHER and node.attrs["mode"] not in MODES:
        return f"a gather of the mode {node.attrs['mode']}"
    return None
