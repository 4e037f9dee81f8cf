"""Blocks of a region without the columns that a mask leaves nothing of, which are accounted for in sums all the same.

In an area that is left out an array is known in one of two ways: by its one column, where all are the same, or by the
sum of its columns. Sums over the columns, and products with matrices along them, follow from these and are added to
those of the columns that are there, whatever the mask puts in and whatever the matrices hold, NaN included: the result
is that of all columns, its sums in another order.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from jax.extend.core import primitives as p

from graphopt.analysis.axes import along, partial
from graphopt.analysis.blocks import resized, same
from graphopt.analysis.chunking import Region
from graphopt.analysis.intervals import MOVES, SELECT, is_real, varies
from graphopt.analysis.masks import Masked, Piece
from graphopt.analysis.reductions import ADD, MUL, REDUCTIONS, accumulated_as
from graphopt.errors import GraphError
from graphopt.ir.aval import Aval, array_aval, is_floating
from graphopt.ir.node import Node
from graphopt.ir.op import op_of
from graphopt.ops.contract import DOT_GENERAL
from graphopt.ops.make import CONVERT, full, make, scalar

SUB, DIV, NEG, REDUCE_SUM = map(op_of, (p.sub_p, p.div_p, p.neg_p, p.reduce_sum_p))

Area = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Outside:
    """How a block gets what it reads from outside.

    part: a node, for an axis along which it is cut by rows, and one along which it has the columns of the piece.
    column: a node without variation along the columns, the one column of it. total: a node, its axis along the columns,
    and an area: the sum over that, the axis kept.
    """

    part: Callable[[Node, int | None, int | None], Node]
    column: Callable[[Node, int | None, int], Node]
    total: Callable[[Node, int, Area], Node]


@dataclass(slots=True)
class _Known:
    """What is known of an array in an area: its column, and the sum of its columns, each an array of one column."""

    column: Node | None = None
    total: Node | None = None


class MaskedBlock:
    """The members of a region for `count` rows from `start` on, an int32 without dimensions, of a piece.

    made: each for the columns of the piece; sums over the rows for these columns, too, where they have columns.
    beside: of these the one column that each area adds to.
    """

    def __init__(
        self,
        region: Region,
        masked: Masked,
        piece: Piece,
        count: int,
        start: Node,
        outside: Outside,
    ) -> None:
        self.region = region
        self.masked = masked
        self.piece = piece
        self.count = count
        self.start = start
        self.outside = outside
        self.made: dict[Node, Node] = {}
        self.beside: dict[tuple[Node, Area], Node] = {}
        self.known: dict[tuple[Node, Area], _Known] = {}

    def make(self, order: Sequence[Node]) -> None:
        """Makes all members. order: the graph's nodes. Raises GraphError where that cannot be."""
        for node in order:
            if node in self.region:
                if node in self.masked.columns:
                    self._with_columns(node)
                else:
                    self._without_columns(node)

    def _axes(self, node: Node) -> list[tuple[int | None, int | None]]:
        """For each operand of a member the axes of rows and of columns."""
        rows = self.region.along(node)
        axis = self.masked.columns.get(node)
        columns = None if axis is None else along(node, axis)
        if columns is None:
            columns = self._summed(node)
        return list(zip(rows, columns, strict=True))

    def _summed(self, node: Node) -> tuple[int | None, ...]:
        """The axes of columns of the operands of a member that has none."""
        for number, operand in enumerate(node.inputs):
            if operand in self.masked.columns and self.region.has(operand, self.region.along(node)[number]):
                found = partial(node, number, self.masked.columns[operand])
                if found is None:
                    raise GraphError(f"{node!r} does not only sum over columns")
                return found.along
        return (None,) * len(node.inputs)

    def _inputs(self, node: Node) -> tuple[Node, ...]:
        return tuple(
            self.made[operand] if self._has(operand, row, column) else self.outside.part(operand, row, column)
            for operand, (row, column) in zip(node.inputs, self._axes(node), strict=True)
        )

    def _with_columns(self, node: Node) -> None:
        piece, axis = self.piece, self.masked.columns[node]
        first = scalar(piece.first, np.int32) if piece.first else None
        columns = {axis: (piece.last - piece.first, first)}
        self.made[node] = resized(node, self._inputs(node), self._rows(node) | columns)
        for area in self.masked.areas(piece):
            found = self._in_area(node, area)
            self.known[node, area] = found
            if node in self.region.sums:
                if found.column is None or self.region.sums[node].reduction.combine is not ADD:
                    raise GraphError(f"{node!r} is not known where a mask leaves nothing")
                self.beside[node, area] = found.column

    def _has(self, operand: Node, row: int | None, column: int | None) -> bool:
        """Whether what is read along these axes is a member."""
        return self.region.has(operand, row) and self.masked.columns.get(operand) == column

    def _rows(self, node: Node) -> dict[int, tuple[int, Node | None]]:
        axis = self.region.axes.get(node)
        return {} if axis is None else {axis: (self.count, self.start)}

    def _in_area(self, node: Node, area: Area) -> _Known:
        """What is known of a member that has columns."""
        if node.op is SELECT and node not in self.region.sums:
            taken = self.masked.taken(node, self.region.axes[node], self.piece, area)
            if taken is not None:
                place = [n is taken for n in node.inputs].index(True, 1)
                return self._of_operand(node, place, area)
        operands = [self._of_operand(node, number, area) for number in range(len(node.inputs))]
        columns = [operand.column for operand in operands]
        if all(column is not None for column in columns):
            if not _makes_columns_differ(node, self.masked.columns[node]):
                column = self._of_one_column(node, [c for c in columns if c is not None])
                return _Known(column, self._times(column, area))
            return _Known()
        return _Known(None, self._total(node, operands, area))

    def _of_one_column(self, node: Node, inputs: Sequence[Node]) -> Node:
        return resized(node, tuple(inputs), self._rows(node) | {self.masked.columns[node]: (1, None)})

    def _times(self, column: Node, area: Area) -> Node | None:
        """The sum of as many columns as an area has, which are all this one."""
        aval, count = column.aval, area[1] - area[0]
        if not is_real(aval.dtype):
            return None
        wide = array_aval(aval.shape, accumulated_as(aval.dtype), aval.weak_type)
        try:
            return converted(make(MUL, converted(column, wide), full(count, wide)), aval)
        except GraphError:
            return None

    def _of_operand(self, node: Node, number: int, area: Area) -> _Known:
        operand = node.inputs[number]
        row, column = self._axes(node)[number]
        if self._has(operand, row, column):
            return _Known(self.made[operand]) if column is None else self.known[operand, area]
        if column is None:
            return _Known(self.outside.part(operand, row, None))
        if not varies(operand, column):
            one = self.outside.column(operand, row, column)
            return _Known(one, self._times(one, area))
        if row is None and is_floating(operand.aval.dtype):
            return _Known(None, self.outside.total(operand, column, area))
        return _Known()

    def _total(self, node: Node, operands: Sequence[_Known], area: Area) -> Node | None:
        """The sum of a member's columns, where it is linear in what varies."""
        varying = [number for number, operand in enumerate(operands) if operand.column is None]
        linear = (
            node.op in (ADD, SUB)
            or (node.op in (NEG, REDUCE_SUM, CONVERT, DOT_GENERAL, MUL, *MOVES) and len(varying) == 1)
            or (node.op is DIV and varying == [0])
        )
        if not linear or not is_floating(node.aval.dtype):
            return None
        summed = node.op in (ADD, SUB)
        inputs = []
        for number, operand in enumerate(operands):
            found = operand.column
            if summed or number in varying:
                found = operand.total or (None if found is None else self._times(found, area))
            if found is None or not is_floating(found.aval.dtype) or _is_narrower(found, node):
                return None
            inputs.append(found)
        return self._of_one_column(node, inputs)

    def _without_columns(self, node: Node) -> None:
        inputs = self._inputs(node)
        made = self._one_block(node, inputs)
        if any(operand in self.masked.columns for operand in node.inputs):
            for area in self.masked.areas(self.piece):
                made = self._with_area(node, made, area)
        self.made[node] = made

    def _one_block(self, node: Node, inputs: tuple[Node, ...]) -> Node:
        return same(node, inputs, node.aval) if node in self.region.sums else resized(node, inputs, self._rows(node))

    def _with_area(self, node: Node, made: Node, area: Area) -> Node:
        """A sum over the columns, with those of an area."""
        operands = [self._of_operand(node, number, area) for number in range(len(node.inputs))]
        inputs = _of_sum(node, operands)
        if inputs is None:
            raise GraphError(f"{node!r} is not known where a mask leaves nothing")
        combine = ADD if node.op is DOT_GENERAL else REDUCTIONS[node.op].combine
        return make(combine, made, self._one_block(node, inputs))


def _of_sum(node: Node, operands: Sequence[_Known]) -> tuple[Node, ...] | None:
    """The operands with which a sum over columns gives that over an area; None where they are not known."""
    if node.op is DOT_GENERAL:
        a, b = operands
        for one, other in ((a.column, b.total), (a.total, b.column)):
            if one is not None and other is not None and not (_is_narrower(one, node) or _is_narrower(other, node)):
                return one, other
        return None
    found = operands[0].total if node.op is REDUCE_SUM else operands[0].column if node.op in _IDEMPOTENT else None
    return None if found is None else (found,)


_IDEMPOTENT = tuple(map(op_of, (p.reduce_max_p, p.reduce_min_p, p.reduce_and_p, p.reduce_or_p)))


def _is_narrower(operand: Node, result: Node) -> bool:
    """Whether a sum of an operand's columns is rounded more than the result is."""
    return int(operand.aval.dtype.itemsize) < int(result.aval.dtype.itemsize)


def converted(node: Node, aval: Aval) -> Node:
    """The array with the dtype of `aval`."""
    return node if node.aval is aval else make(CONVERT, node, new_dtype=aval.dtype, weak_type=aval.weak_type)


def _makes_columns_differ(node: Node, axis: int) -> bool:
    """Whether the operation itself makes columns that differ, of operands with columns that do not."""
    return not node.inputs and varies(node, axis)
