"""Axes: which axes of its operands an axis of an operation's result goes along.

A result is cut into blocks along one axis. Where each block is computed from blocks of the operands at the same places
along one axis of each (and from all of the others), the operation can be done block by block, with nothing computed
twice. Where an axis of operands is summed over instead, results of blocks are combined.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from jax.extend.core import primitives as p

from graphopt.analysis.access import MOVES
from graphopt.analysis.reductions import CUMLOGSUMEXP, CUMULATIVE, REDUCTIONS, Reduction, axes_of, is_arg
from graphopt.ir.index import variable
from graphopt.ir.node import Node
from graphopt.ir.op import Op, op_of
from graphopt.ops.contract import CONVOLUTION, DOT_GENERAL

IOTA, RESHAPE, SORT = (op_of(primitive) for primitive in (p.iota_p, p.reshape_p, p.sort_p))

Along = tuple[int | None, ...]
"""For each operand the axis that is cut, or None where all of it is needed for each block."""


@dataclass(frozen=True, slots=True)
class Partial:
    """A reduction over axes that are cut: its operation combines the results of blocks. along: the operands' axes."""

    reduction: Reduction
    along: Along


def along(node: Node, axis: int) -> Along | None:
    """The operands' axes that blocks of the result along `axis` go along; None where that is not known, or where a
    block needs other parts of its operands, too."""
    if len(node.avals) != 1 or node.effects or (node.subgraphs and node.op not in _COMBINES):
        return None
    if node.op in MOVES:
        return None if node.op is RESHAPE and node.attrs["dimensions"] is not None else _by_access(node, axis)
    if node.op.elementwise:
        return _of_elements(node, axis)
    known = _KNOWN.get(node.op)
    return None if known is None else known(node, axis)


def partial(node: Node, operand: int, axis: int) -> Partial | None:
    """How `node` combines blocks of its operand number `operand` along `axis`; None where it does not just that."""
    if len(node.avals) != 1 or node.effects or node.subgraphs:
        return None
    if node.op in REDUCTIONS and not is_arg(node) and axis in axes_of(node):
        return Partial(REDUCTIONS[node.op], (axis,))
    if node.op is DOT_GENERAL:
        contracted = node.attrs["dimension_numbers"][0]
        if axis in contracted[operand]:
            number = list(contracted[operand]).index(axis)
            return Partial(REDUCTIONS[op_of(p.reduce_sum_p)], (int(contracted[0][number]), int(contracted[1][number])))
    return None


def _of_elements(node: Node, axis: int) -> Along | None:
    size = node.aval.shape[axis]
    found: list[int | None] = []
    for operand in node.inputs:
        shape = operand.aval.shape
        if shape and len(shape) != len(node.aval.shape):
            return None
        found.append(axis if shape and shape[axis] == size else None)
    return tuple(found)


def _by_access(node: Node, axis: int) -> Along | None:
    """From the operation's access map: operands are read at the block's own places along one axis, or at no place that
    depends on it."""
    places = tuple(variable(f"i{k}", 0, size - 1) for k, size in enumerate(node.aval.shape))
    own = places[axis]
    name = f"i{axis}"
    found: list[int | None] = [None] * len(node.inputs)
    for read in MOVES[node.op](node, places):
        if any(name in index.variables() for index, _, _ in read.within):
            return None
        for operand_axis, index in enumerate(read.at):
            if name not in index.variables():
                continue
            shape = node.inputs[read.operand].aval.shape
            if index != own or shape[operand_axis] != node.aval.shape[axis] or found[read.operand] is not None:
                return None
            found[read.operand] = operand_axis
    return tuple(found)


def _of_product(node: Node, axis: int) -> Along | None:
    (lhs_contracted, rhs_contracted), (lhs_batch, rhs_batch) = node.attrs["dimension_numbers"]
    if axis < len(lhs_batch):
        return int(lhs_batch[axis]), int(rhs_batch[axis])
    lhs, rhs = (len(n.aval.shape) for n in node.inputs)
    lhs_free = [k for k in range(lhs) if k not in lhs_contracted and k not in lhs_batch]
    rhs_free = [k for k in range(rhs) if k not in rhs_contracted and k not in rhs_batch]
    axis -= len(lhs_batch)
    return (lhs_free[axis], None) if axis < len(lhs_free) else (None, rhs_free[axis - len(lhs_free)])


def _of_convolution(node: Node, axis: int) -> Along | None:
    numbers = node.attrs["dimension_numbers"]
    if axis != numbers.out_spec[0] or node.attrs["batch_group_count"] != 1:
        return None
    return int(numbers.lhs_spec[0]), None


def _of_reduction(node: Node, axis: int) -> Along | None:
    kept = [k for k in range(len(node.inputs[0].aval.shape)) if k not in axes_of(node)]
    return (kept[axis],)


def _of_cumulative(node: Node, axis: int) -> Along | None:
    return None if axis == node.attrs["axis"] else (axis,)


def _of_iota(node: Node, axis: int) -> Along | None:
    return () if not node.inputs else None


def _of_sort(node: Node, axis: int) -> Along | None:
    return None if axis == node.attrs["dimension"] else (axis,)


def _of_gather(node: Node, axis: int) -> Along | None:
    """Along a batching axis of operand and indices, or one of the indices alone."""
    numbers, indices = node.attrs["dimension_numbers"], node.inputs[1].aval.shape
    if axis in numbers.offset_dims:
        return None
    place = [k for k in range(len(node.aval.shape)) if k not in numbers.offset_dims].index(axis)
    batching = list(numbers.start_indices_batching_dims)
    operand = int(numbers.operand_batching_dims[batching.index(place)]) if place in batching else None
    return (operand, place) if place < len(indices) - 1 else None


def _of_scatter(node: Node, axis: int) -> Along | None:
    """Along a batching axis of operand, indices and updates."""
    numbers, updates = node.attrs["dimension_numbers"], node.inputs[2].aval.shape
    batching = list(numbers.operand_batching_dims)
    if axis not in batching:
        return None
    place = int(numbers.scatter_indices_batching_dims[batching.index(axis)])
    kept = [k for k in range(len(updates)) if k not in numbers.update_window_dims]
    return axis, place, kept[place]


_COMBINES = (op_of(p.scatter_add_p),)
"""Operations whose sub-graph says how two elements are combined."""

_KNOWN: Mapping[Op, Callable[[Node, int], Along | None]] = {
    DOT_GENERAL: _of_product,
    CONVOLUTION: _of_convolution,
    **dict.fromkeys(REDUCTIONS, _of_reduction),
    **dict.fromkeys((*CUMULATIVE, CUMLOGSUMEXP), _of_cumulative),
    IOTA: _of_iota,
    SORT: _of_sort,
    op_of(p.gather_p): _of_gather,
    op_of(p.scatter_add_p): _of_scatter,
}
