"""Reductions in square blocks, for bodies that read an operand across: the sum of what is times something transposed.

Row by row such a reduction takes one element of each line of memory that it touches. Here a phase has some columns
side by side, a lane for each, and goes through them block by block. What lies across is copied to a tile first, row by
row as it is in memory; what the lanes have come to is in a tile too, and is combined at the end.

Body:
    %2: f32[1000,1000] = transpose[permutation=(1, 0)](%1)
    %3: f32[1000,1000] = mul(%0, %2)
    %4: f32[] = reduce_sum[axes=(0, 1)](%3)
Loop program:
    parallel i1 < 16:
      vector j2 < 64 where ...: tile0[j2] = 0.0
      serial j3 < 16:
        serial j2 < 64 where ...:
          vector j4 < 64 where ...: tile1[65 * j2 + j4] = in1[... + 1000 * j2 + j4]
        serial j4 < 64 where ...:
          vector j2 < 64 where ...: tile0[j2] = add(tile0[j2], in0[... + 1000 * j4 + j2] * tile1[65 * j2 + j4])
      vector j2 < 64 where ...: scratch0[64 * i1 + j2] = tile0[j2]
    parallel i5 < 1: the sum of scratch0
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

from graphopt.analysis.access import MOVES, Indices
from graphopt.analysis.derive import IOTA, Derivation
from graphopt.analysis.folds import Fold, Writer, fold_of
from graphopt.analysis.reductions import REDUCTIONS, axes_of, is_arg
from graphopt.analysis.tiled import SIDE, TRANSPOSE, Square, Step
from graphopt.ir.graph import Graph
from graphopt.ir.index import Index, delinear, linear
from graphopt.ir.loop import SERIAL, VECTOR, Buffer, Load, Store, Value
from graphopt.ir.node import Node
from graphopt.ir.op import CONSTANT, PARAM

ENOUGH = 16
"""Groups of lanes from which on there is work for all threads; where there are fewer, a reduction is cut in parts."""


def crossed_reductions(body: Graph) -> Iterator[tuple[Node, int, int]]:
    """The reductions of a body that operands may lie across, each with the axis of its operand whose elements are
    side by side, and the one that blocks follow each other along: one of both is the last axis."""
    reduced = [n for n in body.nodes if n.op in REDUCTIONS]
    if len(reduced) != 1 or is_arg(reduced[0]) or not any(n.op is TRANSPOSE for n in body.nodes):
        return
    (node,) = reduced
    axes, shape = axes_of(node), node.inputs[0].aval.shape
    last = len(shape) - 1
    if not _is_plain(node.inputs[0]) or not shape or shape[last] < SIDE:
        return
    for axis in range(last):
        if shape[axis] >= SIDE and {axis, last} & set(axes):
            yield (node, last, axis) if axis in axes else (node, axis, last)


def _is_plain(node: Node) -> bool:
    """Whether a value is computed of operands element by element, wherever these are."""
    stack, seen = [node], {node}
    while stack:
        current = stack.pop()
        if not (current.op.elementwise or current.op in MOVES or current.op in (PARAM, CONSTANT, IOTA)):
            return False
        stack += [n for n in current.inputs if n not in seen]
        seen |= set(current.inputs)
    return True


class _Reduction:
    """A reduction along `other` and what else is reduced, but for `lane`, in blocks of so many elements along each of
    the two."""

    def __init__(self, derivation: Derivation, node: Node, lane: int, other: int, side: int) -> None:
        self.derivation, self.node = derivation, node
        self.lane, self.other, self.side = lane, other, side
        self.axes, self.shape = axes_of(node), node.inputs[0].aval.shape
        self.kept = tuple(k for k in range(len(self.shape)) if k not in self.axes and k != lane)
        self.inner = tuple(axis for axis in self.axes if axis not in (lane, other))
        self.rows = tuple(self.shape[axis] for axis in self.kept)
        self.lanes, self.blocks = (-(-self.shape[axis] // side) for axis in (lane, other))
        self.parts = min(self.blocks, max(1, ENOUGH // (self.lanes * math.prod(self.rows))))
        self.fold = fold_of(node, [], lambda r: r)
        size = math.prod(self.rows) * self.parts * self.shape[lane]
        self.partial = [derivation.new_scratch(dtype, size) for dtype in self.fold.dtypes]

    def write(self) -> None:
        """The phase."""
        self.derivation.phase(math.prod(self.rows) * self.parts * self.lanes, self.write_lanes)

    def write_lanes(self, index: Index) -> None:
        """What some lanes of a part of the blocks come to."""
        d = self.derivation
        *row, part, number = delinear(index, (*self.rows, self.parts, self.lanes))
        beside = Step(d.name("j"), self.side, number, self.shape[self.lane])
        tiles = [d.new_tile(dtype, self.side) for dtype in self.fold.dtypes]
        each = -(-self.blocks // self.parts)

        def start() -> None:
            for tile, value in zip(tiles, self.fold.starts(d), strict=True):
                d.add(Store(tile, beside.step, value, self.node))

        def of_block(*further: Index) -> None:
            bounds = ((further[-1], 0, self.blocks),)
            d.condition(bounds, lambda: self.write_block(tuple(row), further, beside, tiles))

        def of_part(further: Indices) -> None:
            d.loop(each, SERIAL, lambda step: of_block(*further, part * each + step))

        def finish() -> None:
            place = linear((*row, part, beside.at), (*self.rows, self.parts, self.shape[self.lane]))
            for tile, buffer in zip(tiles, self.partial, strict=True):
                d.add(Store(buffer, place, d.let(Load(tile, beside.step), tile.dtype)))

        d.loop_over(beside.name, self.side, VECTOR, start, beside.within)
        d.loops(tuple(self.shape[axis] for axis in self.inner), of_part, False)
        d.loop_over(beside.name, self.side, VECTOR, finish, beside.within)

    def write_block(self, row: Indices, further: Indices, beside: Step, tiles: Sequence[Buffer]) -> None:
        """Combines a block with what the lanes have come to. further: where it is along what is reduced."""
        d = self.derivation
        block = Square(d, Step(d.name("j"), self.side, further[-1], self.shape[self.other]), beside)
        at = dict(zip((*self.kept, *self.inner), (*row, *further), strict=False))
        at |= {self.lane: beside.at, self.other: block.outer.at}
        place = tuple(at[axis] for axis in range(len(self.shape)))

        def combine() -> None:
            before: list[Value] = [d.let(Load(tile, beside.step), tile.dtype) for tile in tiles]
            elements = fold_of(self.node, [], lambda _: place).elements(d, ())
            for tile, value in zip(tiles, self.fold.combine(d, before, elements), strict=True):
                d.add(Store(tile, beside.step, value, self.node))
            d.spend(self.node)

        block.loops(block.outer, beside, combine)

    def of_all(self, at: Indices) -> Fold:
        """What combines the parts, and the lanes where these are reduced too."""
        is_reduced = self.lane in self.axes

        def elements(writer: Writer, r: Indices) -> list[Value]:
            whole = dict(zip([axis for axis in range(len(self.shape)) if axis not in self.axes], at, strict=True))
            column = r[1] if is_reduced else whole[self.lane]
            extents = (*self.rows, self.parts, self.shape[self.lane])
            place = linear((*(whole[axis] for axis in self.kept), r[0], column), extents)
            return [writer.let(Load(buffer, place), buffer.dtype, self.node) for buffer in self.partial]

        extents = (self.parts, self.shape[self.lane]) if is_reduced else (self.parts,)
        return replace(fold_of(self.node, extents, lambda r: r), elements=elements)


def reduce_in_blocks(derivation: Derivation, node: Node, lane: int, other: int, side: int) -> None:
    """A phase that reduces in blocks; who asks for a result then combines what it left."""
    reduction = _Reduction(derivation, node, lane, other, side)
    reduction.write()
    derivation.folds[node] = reduction.of_all
