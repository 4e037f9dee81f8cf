"""Blocks: the operations of a region, made anew for one block of its elements."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import jax.numpy as jnp
import numpy as np
from jax.extend.core import primitives as p

from graphopt.analysis.axes import IOTA, RESHAPE
from graphopt.analysis.chunking import Region
from graphopt.errors import GraphError
from graphopt.ir.aval import Aval, array_aval
from graphopt.ir.node import Node, make_node
from graphopt.ir.op import op_of
from graphopt.ops.make import BROADCAST, CONVERT, full, make, scalar, with_parameters

ADD, SLICE = op_of(p.add_p), op_of(p.slice_p)
DYNAMIC_SLICE, DYNAMIC_UPDATE_SLICE = op_of(p.dynamic_slice_p), op_of(p.dynamic_update_slice_p)

_EXTENTS = {BROADCAST: "shape", IOTA: "shape", RESHAPE: "new_sizes", SLICE: "limit_indices"}
"""Which parameter of an operation states the extents of its result (of a slice along an axis that it keeps whole)."""


def block_of(
    region: Region, order: Sequence[Node], count: int, start: Node, outside: Callable[[Node, int | None], Node]
) -> dict[Node, Node]:
    """The members of a region for `count` elements from `start` on.

    order: the graph's nodes. start: an int32 without dimensions. outside: gives what is read from outside, the block of
    it along an axis. Raises GraphError where an operation cannot be made for a block.
    """
    made: dict[Node, Node] = {}
    for node in order:
        if node not in region:
            continue
        inputs = tuple(
            made[operand] if region.has(operand, axis) else outside(operand, axis)
            for operand, axis in zip(node.inputs, region.along(node), strict=True)
        )
        if node in region.sums:
            made[node] = same(node, inputs, node.aval)
        else:
            made[node] = resized(node, inputs, {region.axes[node]: (count, start)})
    return made


def resized(node: Node, inputs: tuple[Node, ...], parts: Mapping[int, tuple[int, Node | None]]) -> Node:
    """The operation on parts of its operands: for axes of the result how many elements of it there are, from which on.

    Raises GraphError where it cannot be made for these."""
    aval = node.aval
    for axis, (count, _) in parts.items():
        aval = with_extent(aval, axis, count)
    name = _EXTENTS.get(node.op)
    if name is not None:
        sizes = list(node.attrs[name])
        for axis, (count, _) in parts.items():
            sizes[axis] = count
        node = make_node(node.op, node.inputs, node.attrs.replace(**{name: tuple(sizes)}), node.avals, node.context)
    new = same(node, inputs, aval)
    _, start = parts.get(node.attrs["dimension"], (0, None)) if node.op is IOTA else (0, None)
    if start is None:
        return new
    if not jnp.issubdtype(aval.dtype, np.integer):
        raise GraphError(f"an iota of {aval.dtype} may round otherwise in blocks")
    first = make(CONVERT, start, new_dtype=aval.dtype)
    return make(ADD, new, make(BROADCAST, first, shape=aval.shape, broadcast_dimensions=()))


def same(node: Node, inputs: tuple[Node, ...], aval: Aval) -> Node:
    """The operation on other operands, with a result of the type `aval`."""
    new = with_parameters(node.op, inputs, node.attrs)
    if new.avals != (aval,):
        raise GraphError(f"a block of {node!r} has the type {new.avals[0].type}, not {aval.type}")
    return new if node.context is None else make_node(node.op, inputs, node.attrs, new.avals, node.context)


def with_extent(aval: Aval, axis: int, count: int) -> Aval:
    """The type of a block of `count` elements along an axis."""
    return array_aval((*aval.shape[:axis], count, *aval.shape[axis + 1 :]), aval.dtype, aval.weak_type)


def read_block(node: Node, axis: int, start: Node, count: int) -> Node:
    """`count` elements of an array from `start` on, along an axis."""
    shape = node.aval.shape
    if shape[axis] == count:
        return node
    sizes = (*shape[:axis], count, *shape[axis + 1 :])
    return make(DYNAMIC_SLICE, node, *_starts(len(shape), axis, start), slice_sizes=sizes)


def write_block(node: Node, block: Node, axis: int, start: Node) -> Node:
    """An array with a block of it replaced, from `start` on along an axis."""
    return make(DYNAMIC_UPDATE_SLICE, node, block, *_starts(len(node.aval.shape), axis, start))


def _starts(rank: int, axis: int, start: Node) -> list[Node]:
    return [start if k == axis else scalar(0, np.int32) for k in range(rank)]


def before_all(region: Region, node: Node) -> Node:
    """What a sum over the axis begins with."""
    return full(region.sums[node].reduction.start(node.aval.dtype), node.aval)


def combined(region: Region, node: Node, first: Node, second: Node) -> Node:
    """Two sums over parts of the axis as one."""
    return _same_type(make(region.sums[node].reduction.combine, first, second), node.aval)


def _same_type(node: Node, aval: Aval) -> Node:
    if node.aval is not aval:
        raise GraphError(f"a sum of blocks has the type {node.aval.type}, not {aval.type}")
    return node
