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
from collections.abc import Callable, Iterator

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


def reduce_in_blocks(derivation: Derivation, node: Node, lane: int, other: int, side: int) -> None:
    """A phase that reduces along `other` and what else is reduced, but for `lane`, in blocks of so many elements along
    each of the two; who asks for a result then combines what it left."""
    axes, shape = axes_of(node), node.inputs[0].aval.shape
    kept = tuple(axis for axis in range(len(shape)) if axis not in axes and axis != lane)
    inner = tuple(axis for axis in axes if axis not in (lane, other))
    lanes, blocks = (-(-shape[axis] // side) for axis in (lane, other))
    rows = tuple(shape[axis] for axis in kept)
    parts = min(blocks, max(1, ENOUGH // (lanes * math.prod(rows))))
    each = -(-blocks // parts)
    fold = fold_of(node, [], lambda r: r)
    partial: list[Buffer] = []

    def write(index: Index) -> None:
        *row, part, number = delinear(index, (*rows, parts, lanes))
        beside = Step(derivation.name("j"), side, number, shape[lane])
        tiles = [derivation.new_tile(dtype, side) for dtype in fold.dtypes]
        partial.extend(derivation.new_scratch(dtype, math.prod(rows) * parts * shape[lane]) for dtype in fold.dtypes)

        def along(write: Callable[[], None]) -> None:
            derivation.loop_over(beside.name, side, VECTOR, write, beside.within)

        def start() -> None:
            for tile, value in zip(tiles, fold.starts(derivation), strict=True):
                derivation.add(Store(tile, beside.step, value, node))

        def through(further: Indices) -> None:
            block = Square(derivation, Step(derivation.name("j"), side, further[-1], shape[other]), beside)
            at = dict(zip((*kept, *inner), (*row, *further), strict=False))
            at |= {lane: beside.at, other: block.outer.at}
            place = tuple(at[axis] for axis in range(len(shape)))

            def combine() -> None:
                before: list[Value] = [derivation.let(Load(tile, beside.step), tile.dtype) for tile in tiles]
                elements = fold_of(node, [], lambda _: place).elements(derivation, ())
                for tile, value in zip(tiles, fold.combine(derivation, before, elements), strict=True):
                    derivation.add(Store(tile, beside.step, value, node))
                derivation.spend(node)

            block.loops(block.outer, beside, combine)

        def finish() -> None:
            place = linear((*row, part, beside.at), (*rows, parts, shape[lane]))
            for tile, buffer in zip(tiles, partial, strict=True):
                derivation.add(Store(buffer, place, derivation.let(Load(tile, beside.step), tile.dtype)))

        along(start)

        def blocks_of_part(further: Indices) -> None:
            derivation.loop(each, SERIAL, lambda step: within_blocks((*further, part * each + step)))

        def within_blocks(further: Indices) -> None:
            derivation.condition(((further[-1], 0, blocks),), lambda: through(further))

        derivation.loops(tuple(shape[axis] for axis in inner), blocks_of_part, False)
        along(finish)

    derivation.phase(math.prod(rows) * parts * lanes, write)

    def of_all(at: Indices) -> Fold:
        def elements(writer: Writer, r: Indices) -> list[Value]:
            whole = dict(zip([axis for axis in range(len(shape)) if axis not in axes], at, strict=True))
            column = r[1] if lane in axes else whole[lane]
            place = linear((*(whole[axis] for axis in kept), r[0], column), (*rows, parts, shape[lane]))
            return [writer.let(Load(buffer, place), buffer.dtype, node) for buffer in partial]

        extents = (parts, shape[lane]) if lane in axes else (parts,)
        found = fold_of(node, extents, lambda r: r)
        return Fold(found.dtypes, found.starts, found.extents, elements, found.combine, found.within)

    derivation.folds[node] = of_all
