"""Masks: which columns of a region's blocks need not be computed, for a mask leaves nothing of them.

Where `select_n` takes, for all places of some rows and columns, what is the same in each column, everything behind it
is the same in each column: sums over these columns are products, and none of them has to be there. Half of the products
of causal attention are of this kind, and most of attention in a sliding window.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from graphopt.analysis.axes import along, partial
from graphopt.analysis.chunking import CONTRACTIONS, Region
from graphopt.analysis.intervals import SELECT, Intervals, varies
from graphopt.ir.node import Node

GRANULES = 64
"""Into so many parts the columns are cut: all of a part is left out, or none of it."""

PIECES = (2, 4, 8, 16)
"""In how many pieces the rows may be computed, each with columns of its own."""

LEAST_SHARE = 0.1
"""Of the products: what is to be left out at least."""


@dataclass(frozen=True, slots=True)
class Piece:
    """Rows from `start` to the one before `stop`, and the columns that they need: from `first` to before `last`."""

    start: int
    stop: int
    first: int
    last: int


@dataclass(frozen=True, slots=True)
class Masked:
    """Rows lie along the axis that is cut. columns: for each member that has columns their axis. extent: how many.
    granule: of how many columns each part is that is left out as a whole; only the last one may have fewer."""

    columns: Mapping[Node, int]
    extent: int
    granule: int
    pieces: tuple[Piece, ...]

    def areas(self, piece: Piece) -> list[tuple[int, int]]:
        """The columns that a piece leaves out, from the first to the one behind the last."""
        return [area for area in ((0, piece.first), (piece.last, self.extent)) if area[0] < area[1]]

    @property
    def edges(self) -> list[int]:
        """Where parts of the columns begin, and behind the last one."""
        return _edges(self.extent, self.granule)

    def taken(self, node: Node, row: int, piece: Piece, area: tuple[int, int]) -> Node | None:
        """The operand of a `select_n` that is its result in all of an area; None where that differs, or is unknown."""
        intervals = Intervals((piece.start, piece.stop), area)
        least, greatest = (bound[0, 0] for bound in intervals.of(node.inputs[0], row, self.columns[node]))
        return node.inputs[1 + int(least)] if least == greatest else None


Cost = Callable[[Sequence[Node], float, int], float]


def masked(region: Region, order: Sequence[Node], least_rows: int, cost: Cost) -> Masked | None:
    """What may be left out of a region; None where that is nothing, or too little.

    order: the graph's nodes. least_rows: of each piece. cost: of a share of these contractions in so many pieces.
    """
    for node in order:
        if node.op is not SELECT or node not in region.axes or not node.inputs[0].aval.shape:
            continue
        for axis in range(len(node.aval.shape)):
            if axis == region.axes[node] or node.aval.shape[axis] < 2 or not _may_mask(node, axis):
                continue
            columns = _columns(region, order, node, axis)
            found = None if columns is None else _best(region, columns, node.aval.shape[axis], least_rows, cost)
            if found is not None:
                return found
    return None


def _may_mask(node: Node, axis: int) -> bool:
    return len(node.inputs) == 3 and any(not varies(case, axis) for case in node.inputs[1:])


def _columns(region: Region, order: Sequence[Node], seed: Node, axis: int) -> dict[Node, int] | None:
    """For each member that has columns their axis, from that of one of them; None where they get lost."""
    columns = {seed: axis}
    known = 0
    while known < len(columns):
        known = len(columns)
        for node in (*order, *reversed(order)):
            if node not in region:
                continue
            if node not in columns and not _from_operands(region, node, columns):
                return None
            if node in columns and not _to_operands(region, node, columns):
                return None
    return columns


def _from_operands(region: Region, node: Node, columns: dict[Node, int]) -> bool:
    """Finds the axis of the columns from an operand's; whether a member has it, or a sum over it."""
    rows = region.axes.get(node)
    for number, operand in enumerate(node.inputs):
        if operand not in columns or not region.has(operand, region.along(node)[number]):
            continue
        for axis in range(len(node.aval.shape)):
            found = None if axis == rows else along(node, axis)
            if found is not None and found[number] == columns[operand]:
                columns[node] = axis
                return True
        return partial(node, number, columns[operand]) is not None
    return True


def _to_operands(region: Region, node: Node, columns: dict[Node, int]) -> bool:
    """Finds the axes of members that are operands; whether each has one only."""
    found = along(node, columns[node])
    if found is None:
        return False
    for operand, row, axis in zip(node.inputs, region.along(node), found, strict=True):
        if not region.has(operand, row):
            continue
        known = columns.get(operand) if axis is None else columns.setdefault(operand, axis)
        if known != axis and operand not in region.generated:
            return False
    return True


def _best(region: Region, columns: Mapping[Node, int], extent: int, least_rows: int, cost: Cost) -> Masked | None:
    """The pieces that take least time."""
    products = [n for n in region if n.op in CONTRACTIONS and (n in columns or any(m in columns for m in n.inputs))]
    granule = math.ceil(extent / GRANULES)
    choices = []
    for count in PIECES:
        rows = math.ceil(region.extent / count)
        if rows >= least_rows:
            pieces = _pieces(region, columns, rows, _edges(extent, granule))
            share = sum((p.stop - p.start) * (p.last - p.first) for p in pieces) / (region.extent * extent)
            choices.append((cost(products, share, count), share, pieces))
    if not choices:
        return None
    _, share, pieces = min(choices, key=lambda choice: choice[0])
    return Masked(columns, extent, granule, tuple(pieces)) if share <= 1 - LEAST_SHARE else None


def _pieces(region: Region, columns: Mapping[Node, int], rows: int, edges: Sequence[int]) -> list[Piece]:
    starts = list(range(0, region.extent, rows))
    intervals = Intervals([*starts, region.extent], edges)
    out = np.zeros((len(starts), len(edges) - 1), np.bool_)
    for node in region.axes:
        if node.op is SELECT and node in columns and len(node.inputs) == 3:
            least, greatest = intervals.of(node.inputs[0], region.axes[node], columns[node])
            for case, known in ((0, greatest == 0), (1, least == 1)):
                if not varies(node.inputs[1 + case], columns[node]):
                    out |= known
    pieces = []
    for number, start in enumerate(starts):
        kept = np.flatnonzero(~out[number])
        first, last = (int(kept[0]), int(kept[-1])) if kept.size else (0, 0)
        pieces.append(Piece(start, min(start + rows, region.extent), edges[first], edges[last + 1]))
    return pieces


def _edges(extent: int, granule: int) -> list[int]:
    return [*range(0, extent, granule), extent]
