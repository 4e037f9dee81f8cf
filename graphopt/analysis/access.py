"""Access maps: which elements of its operands one element of a result is made of.

For the operations that move data (and for the elementwise ones, where it is the same place) a map gives, for symbolic
indices of the result, the indices of the operand that it is read from and the conditions under which: quasi-affine
expressions with known bounds (`graphopt.ir.index`). Loop programs are derived from these maps alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from jax.extend.core import primitives as p

from graphopt.ir.index import Index, delinear, linear
from graphopt.ir.node import Node
from graphopt.ir.op import Op, op_of

Indices = tuple[Index, ...]
Within = tuple[tuple[Index, int, int], ...]
"""Conditions `low <= index < high`, all of which hold."""


@dataclass(frozen=True, slots=True)
class Read:
    """The result's element is element `at` of operand number `operand`, where `within` holds.

    Of several reads the first whose conditions hold counts. anywhere: whether `at` is in the operand whatever holds.
    """

    operand: int
    at: Indices
    within: Within = ()
    anywhere: bool = False


@dataclass(frozen=True, slots=True)
class Given:
    """The result's element is a number, a NumPy scalar, where no read before this counts."""

    value: Any


Access = Callable[[Node, Indices], Iterator[Read]]


def elementwise(node: Node, at: Indices) -> Iterator[Read]:
    """Each operand at the same place; what has no dimensions, or an axis of size one, is spread."""
    for number, operand in enumerate(node.inputs):
        shape = operand.aval.shape
        yield Read(number, tuple(i if size != 1 else Index() for i, size in zip(at, shape, strict=False)))


def _broadcast(node: Node, at: Indices) -> Iterator[Read]:
    shape, axes = node.inputs[0].aval.shape, node.attrs["broadcast_dimensions"]
    yield Read(0, tuple(at[axis] if size != 1 else Index() for axis, size in zip(axes, shape, strict=True)))


def _reshape(node: Node, at: Indices) -> Iterator[Read]:
    yield Read(0, delinear(linear(at, node.aval.shape), node.inputs[0].aval.shape))


def _transpose(node: Node, at: Indices) -> Iterator[Read]:
    source: list[Index] = [Index()] * len(at)
    for index, axis in zip(at, node.attrs["permutation"], strict=True):
        source[axis] = index
    yield Read(0, tuple(source))


def _slice(node: Node, at: Indices) -> Iterator[Read]:
    strides = node.attrs["strides"] or (1,) * len(at)
    yield Read(0, tuple(i * s + b for i, s, b in zip(at, strides, node.attrs["start_indices"], strict=True)))


def _reverse(node: Node, at: Indices) -> Iterator[Read]:
    axes, shape = node.attrs["dimensions"], node.aval.shape
    yield Read(0, tuple(i * -1 + (shape[k] - 1) if k in axes else i for k, i in enumerate(at)))


def _same(node: Node, at: Indices) -> Iterator[Read]:
    yield Read(0, at)


def _concatenate(node: Node, at: Indices) -> Iterator[Read]:
    axis, start = node.attrs["dimension"], 0
    for number, operand in enumerate(node.inputs):
        size = operand.aval.shape[axis]
        if size:
            place = at[axis] - start
            yield Read(number, (*at[:axis], place, *at[axis + 1 :]), ((place, 0, size),))
        start += size


def _pad(node: Node, at: Indices) -> Iterator[Read]:
    source, within = [], []
    for index, size, (low, high, interior) in zip(
        at, node.inputs[0].aval.shape, node.attrs["padding_config"], strict=True
    ):
        place = index - low
        if interior:
            within.append((place % (interior + 1), 0, 1))
            place = place // (interior + 1)
        if low > 0 or high > 0:
            within.append((place, 0, size))
        source.append(place)
    if all(node.inputs[0].aval.shape):
        yield Read(0, tuple(source), tuple(within))
    yield Read(1, ())


MOVES: Mapping[Op, Access] = {
    op_of(p.broadcast_in_dim_p): _broadcast,
    op_of(p.reshape_p): _reshape,
    op_of(p.squeeze_p): _reshape,
    op_of(p.transpose_p): _transpose,
    op_of(p.slice_p): _slice,
    op_of(p.rev_p): _reverse,
    op_of(p.copy_p): _same,
    op_of(p.concatenate_p): _concatenate,
    op_of(p.pad_p): _pad,
}
"""The operations that move data, and their maps. A reshape with `dimensions` is not one of them."""


def always(within: Within) -> bool | None:
    """Whether conditions hold for all values of the variables (True), for none (False), or that is not known (None)."""
    if any(index.high < low or index.low >= high for index, low, high in within):
        return False
    return True if all(low <= index.low and index.high < high for index, low, high in within) else None
