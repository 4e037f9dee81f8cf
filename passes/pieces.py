"""Pieces of a region, each a loop over blocks of its rows that reads no columns but those that a mask leaves it.

What the columns that are left out add to sums is computed from sums of what lies there.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from jax.extend.core import primitives as p

from graphopt.analysis.blocks import before_all, read_block, with_extent, write_block
from graphopt.analysis.chunking import Region
from graphopt.analysis.left_out import Area, MaskedBlock, Outside, converted
from graphopt.analysis.masks import Masked, Piece
from graphopt.analysis.reductions import ADD, MUL, accumulated_as
from graphopt.ir.aval import array_aval
from graphopt.ir.graph import Graph, make_graph, topological
from graphopt.ir.node import Node, constant, param, project
from graphopt.ir.op import CONSTANT, op_of
from graphopt.ops.control import make_scan
from graphopt.ops.make import full, make, scalar
from graphopt.passes.rules.moving import broadcast, concatenated, reshaped, sliced

REDUCE_SUM, SELECT, SLICE = op_of(p.reduce_sum_p), op_of(p.select_n_p), op_of(p.slice_p)

State = dict[Node | tuple[Node, Area], Node]
"""What goes from block to block: the results of a piece, its sums, and what each area adds to these in one column."""


class Pieces:
    """A region in pieces.

    graph: that it is of. count: rows of a block at most. bodies: the loops' bodies, and for each what a node of the
    region is in it.
    """

    def __init__(self, graph: Graph, region: Region, masked: Masked, count: int) -> None:
        self.graph = graph
        self.region = region
        self.masked = masked
        self.count = count
        self.bodies: dict[Graph, dict[Node, Node]] = {}
        self.tables: dict[tuple[Node, int], Node] = {}
        self.areas = list(dict.fromkeys(area for piece in masked.pieces for area in masked.areas(piece)))
        edges = np.asarray(masked.edges)
        starts, stops = np.asarray(self.areas, np.int64).reshape(-1, 2).T[:, :, None]
        self.inside = (starts <= edges[:-1]) & (edges[1:] <= stops)  # which granules each area has

    def results(self) -> dict[Node, Node]:
        """What takes the place of the region's results and sums. Raises GraphError where that cannot be made."""
        columns = self.masked.columns
        sums = {node: before_all(self.region, node) for node in self.region.sums}
        parts: dict[Node, list[Node]] = {node: [] for node in self.region.results}
        beside: dict[Node, dict[Area, Node]] = {node: {} for node in sums if node in columns}
        for piece in self.masked.pieces:
            after = self.piece(piece, self.before(piece, sums))
            for node, found in parts.items():
                found.append(after[node])
            for node, before in sums.items():
                sums[node] = after[node]
                if node in columns:
                    sums[node] = write_block(before, after[node], columns[node], scalar(piece.first, np.int32))
                    for area in self.masked.areas(piece):
                        known = beside[node].get(area)
                        beside[node][area] = make(ADD, known, after[node, area]) if known else after[node, area]
        sums.update({node: self.with_areas(sums[node], columns[node], found) for node, found in beside.items()})
        return {**{node: concatenated(found, self.region.axes[node]) for node, found in parts.items()}, **sums}

    def before(self, piece: Piece, sums: dict[Node, Node]) -> State:
        """What a piece begins with: of the sums so far the columns that it adds to."""
        state: State = {}
        for node in self.region.results:
            state[node] = full(0, with_extent(node.aval, self.region.axes[node], piece.stop - piece.start))
        for node, total in sums.items():
            axis = self.masked.columns.get(node)
            state[node] = total if axis is None else _between(total, axis, piece.first, piece.last)
            if axis is not None:
                one = full(0, with_extent(node.aval, axis, 1))
                state.update({(node, area): one for area in self.masked.areas(piece)})
        return state

    def piece(self, piece: Piece, state: State) -> State:
        """What is there after a piece."""
        rows = piece.stop - piece.start
        count = min(self.count, rows)
        times, left = divmod(rows, count)
        if times > 1:
            state = self.loop(piece, count, times, state)
        else:
            state, _ = self.step(piece, count, scalar(0, np.int32), state, lambda node: node)
        if left:
            state, _ = self.step(piece, left, scalar(rows - left, np.int32), state, lambda node: node)
        return state

    def loop(self, piece: Piece, count: int, times: int, state: State) -> State:
        """What is there after as many blocks."""
        read: dict[Node, None] = {}

        def noted(node: Node) -> Node:
            if not self.is_generated(node):
                read[node] = None
            return node

        tried, _ = self.step(piece, count, scalar(0, np.int32), state, noted)
        needed = set(topological((), list(tried.values()), leaves=set(read)))
        consts = [node for node in read if node in needed]
        types = [*(n.aval for n in consts), scalar(0, np.int32).aval, *(n.aval for n in state.values())]
        params = [param(index, aval) for index, aval in enumerate(types)]
        inside = dict(zip(consts, params, strict=False))
        number, *carried = params[len(consts) :]
        first = make(MUL, number, scalar(count, np.int32))
        held = dict(zip(state, carried, strict=True))
        after, made = self.step(piece, count, first, held, lambda node: inside.get(node, node))
        following = make(ADD, number, scalar(1, np.int32))
        body = make_graph(params, [following, *(after[key] for key in state)])
        self.bodies[body] = made
        loop = make_scan(body, times, consts, (scalar(0, np.int32), *state.values()))
        return {key: project(loop, 1 + place) for place, key in enumerate(state)}

    def is_generated(self, node: Node) -> bool:
        """Whether a node, or what it is a part of, is made where it is used."""
        return node in self.region.generated or (node.op is SLICE and node.inputs[0] in self.region.generated)

    def step(
        self, piece: Piece, count: int, first: Node, state: State, inside: Callable[[Node], Node]
    ) -> tuple[State, dict[Node, Node]]:
        """What is there after a block of `count` rows from row `first` of the piece on; and the block.

        inside: what a node outside of all loops is where the block is computed.
        """
        start = _sum(first, piece.start)
        block = MaskedBlock(self.region, self.masked, piece, count, start, self.outside(piece, count, start, inside))
        block.make(self.graph.nodes)
        after: State = {}
        for key, before in state.items():
            if isinstance(key, tuple):
                after[key] = make(ADD, before, block.beside[key])
            elif key in self.region.sums:
                after[key] = make(self.region.sums[key].reduction.combine, before, block.made[key])
            elif count == piece.stop - piece.start:
                after[key] = block.made[key]
            else:
                after[key] = write_block(before, block.made[key], self.region.axes[key], first)
        return after, block.made

    def outside(self, piece: Piece, count: int, start: Node, inside: Callable[[Node], Node]) -> Outside:
        """How a block reads what is outside."""

        def rows(node: Node, axis: int | None) -> Node:
            found = inside(node)
            return found if axis is None else read_block(found, axis, start, count)

        def part(node: Node, row: int | None, column: int | None) -> Node:
            return rows(node if column is None else _between(node, column, piece.first, piece.last), row)

        def column(node: Node, row: int | None, column: int) -> Node:
            return rows(_between(node, column, 0, 1), row)

        def total(node: Node, axis: int, area: Area) -> Node:
            return inside(self.total(node, axis, area))

        return Outside(part, column, total)

    def total(self, node: Node, axis: int, area: Area) -> Node:
        """The sum of an array over an area along an axis, which stays as one of size one."""
        if (node, axis) not in self.tables:
            wide = array_aval(node.aval.shape, accumulated_as(node.aval.dtype), node.aval.weak_type)
            parts = self.of_granules(converted(node, wide), axis)
            sums = self.selected(parts, axis, self.inside)
            narrow = array_aval(sums.aval.shape, node.aval.dtype, node.aval.weak_type)
            self.tables[node, axis] = converted(sums, narrow)
        place = self.areas.index(area)
        return _between(self.tables[node, axis], axis, place, place + 1)

    def of_granules(self, node: Node, axis: int) -> Node:
        """The sums of an array over each granule."""
        shape, granule = node.aval.shape, self.masked.granule
        whole = self.masked.extent // granule
        found = []
        for count, first, last in ((whole, 0, whole * granule), (1, whole * granule, self.masked.extent)):
            if first < last:
                part = _between(node, axis, first, last)
                parts = (*shape[:axis], count, (last - first) // count, *shape[axis + 1 :])
                found.append(make(REDUCE_SUM, reshaped(part, parts), axes=(axis + 1,)))
        return concatenated(found, axis)

    def selected(self, node: Node, axis: int, chosen: npt.NDArray[np.bool_]) -> Node:
        """For each row of `chosen` the sum of an array over where that is true along an axis; nothing else counts."""
        shape = node.aval.shape
        spread = (*shape[:axis], *chosen.shape, *shape[axis + 1 :])
        others = [*range(axis), *range(axis + 1, len(spread))]
        mask = broadcast(constant(chosen), spread, (axis, axis + 1))
        values = broadcast(node, spread, others)
        return make(REDUCE_SUM, make(SELECT, mask, full(0, values.aval), values), axes=(axis + 1,))

    def with_areas(self, total: Node, axis: int, beside: dict[Area, Node]) -> Node:
        """A sum over all rows, with what each area adds to all of its columns."""
        if not beside:
            return total
        areas = [self.areas.index(area) for area in beside]
        added = self.selected(concatenated(list(beside.values()), axis), axis, self.inside[areas].T)
        shape, granule = added.aval.shape, self.masked.granule
        spread = (*shape[: axis + 1], granule, *shape[axis + 1 :])
        columns = broadcast(added, spread, [*range(axis + 1), *range(axis + 2, len(spread))])
        columns = reshaped(columns, (*shape[:axis], shape[axis] * granule, *shape[axis + 1 :]))
        return make(ADD, total, _between(columns, axis, 0, self.masked.extent))


def _between(node: Node, axis: int, first: int, last: int) -> Node:
    """The elements of an array from `first` to the one before `last` along an axis."""
    shape = node.aval.shape
    starts = [first if a == axis else 0 for a in range(len(shape))]
    return sliced(node, starts, [last - first if a == axis else n for a, n in enumerate(shape)], (1,) * len(shape))


def _sum(number: Node, more: int) -> Node:
    if number.op is CONSTANT:
        return scalar(int(np.asarray(number.value)) + more, np.int32)
    return make(ADD, number, scalar(more, np.int32)) if more else number
