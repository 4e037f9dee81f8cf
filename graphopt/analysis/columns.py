"""Reductions with their results side by side: the loops that reduce stand outside of a loop over the innermost axis.

A reduction that keeps the last axis of its operand would read the operand by columns, an element of each row at a time.
Here a phase takes blocks of the last axis of the results. What is reduced is in a tile for all elements of a block,
and the loop over them, each of which waits for no other, becomes vector code.

Body:
    %1: f32[1000] = reduce_sum[axes=(0,)](%0)
Loop program:
    parallel i1 < 2:
      vector l2 < 512 where 0 <= 512 * i1 + l2 < 1000:
        tile0[l2] = 0.0
      reduction r3 < 4096:
        vector l2 < 512 where 0 <= 512 * i1 + l2 < 1000:
          ...
          tile0[l2] = add(tile0[l2], in0[1000 * r3 + 512 * i1 + l2])
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from graphopt.analysis.access import Indices, Within
from graphopt.analysis.derive import Derivation, is_fold, kept_by, merged
from graphopt.analysis.folds import Fold, Writer, fold_of
from graphopt.analysis.reductions import REDUCE, REDUCTIONS, axes_of
from graphopt.analysis.windows import scattered, selected
from graphopt.analysis.writing import TooLargeError
from graphopt.ir.index import Index, delinear, linear, variable
from graphopt.ir.loop import VECTOR, Buffer, Load, Store, Value
from graphopt.ir.node import Node
from graphopt.ir.op import PROJECT

WIDTH = 1024
"""Elements of a block at most."""

NARROW, LANES = 256, 16
"""Elements of a block at least, where one is cut for the sake of threads, and of which its width is a multiple."""

OTHERS = (128, 256, 512, 2048)
"""Other widths, which are measured where a program is tuned."""

KEPT = 0.2
"""Nanoseconds of an operation from which on its results are kept for a row of elements that need them."""

PARTS, PART = 64, 1 << 14
"""Parts of a reduction at most, and the elements of one at least."""

TILES = 1 << 16
"""Bytes of all tiles of a kernel at most: they are on a thread's stack, and better in its first cache."""


FEW = 8
"""Blocks from which on there is enough for all threads."""


def is_by_columns(node: Node) -> bool:
    """Whether a node is a fold with results side by side in the last axis, as their elements are in its operand."""
    if not is_fold(node) or node.op is PROJECT or not node.avals[0].shape:
        return False
    shape = node.inputs[0].aval.shape
    if node.op in REDUCTIONS or node.op is REDUCE:
        return len(shape) - 1 not in axes_of(node) and shape[-1] > 1
    return int(node.avals[0].shape[-1]) > 1


def width_of(size: int) -> int:
    """The elements of a block of an axis."""
    return -(-size // -(-size // WIDTH))


def widths(shape: tuple[int, ...], parallel: int) -> Iterator[int]:
    """How many elements of the last axis of a shape may be in one block, the first `parallel` axes being apart."""
    size, rows = shape[-1] if shape else 1, math.prod(shape[:parallel])
    if size > 1:
        yield width_of(size)
        more = -(-FEW // rows)
        if more > -(-size // WIDTH) and size >= more * NARROW:
            yield -(-size // (more * LANES)) * LANES


def other_widths(shape: tuple[int, ...], parallel: int) -> Iterator[int]:
    """Other widths of blocks, which are measured where a program is tuned."""
    known = set(widths(shape, parallel))
    yield from (width for width in OTHERS if width < shape[-1] and width not in known)


class Columns:
    """The loop over the elements of a block, and what is kept in tiles for it."""

    def __init__(self, derivation: Derivation, block: Index, width: int, extent: int) -> None:
        """block: the number of the block, of `width` elements of an axis of `extent`."""
        self.derivation = derivation
        self.width = width
        self.name = derivation.name("l")
        self.lane = variable(self.name, 0, width - 1)
        self.column = block * width + self.lane
        self.within: Within = ((self.column, 0, extent),) if extent % width else ()
        derivation.columns = self

    def vector(self, write: Callable[[], None], more: Within = ()) -> None:
        """The loop over the elements of the block, or those of them for which more conditions hold."""
        self.derivation.loop_over(self.name, self.width, VECTOR, write, (*self.within, *more), not more)

    def keeps(self, node: Node, at: Indices) -> bool:
        """Whether elements of a node are kept in a tile: those of reductions and slow operations."""
        repeats = self.derivation.repeats(self.outside(at))
        return repeats > 0 and (is_fold(node) or (repeats > 1 and self.derivation.cost(node) >= KEPT))

    def outside(self, at: Indices) -> frozenset[str]:
        """The variables of indices other than that of the loop."""
        return frozenset(name for index in at for name in index.variables()) - {self.name}

    def element(self, node: Node, at: Indices) -> Value:
        """One element that is kept, in the loop over them: from the tile that is filled before it."""
        d, (source, number) = self.derivation, kept_by(node)
        tile = d.before_vector(("tile", source, at), self.outside(at), lambda: self.tiles(source, at))[number]
        return d.converted(d.let(Load(tile, self.lane), tile.dtype), node.aval.dtype)

    def tiles(self, node: Node, at: Indices) -> list[Buffer]:
        """The elements of a node, computed in a loop over the block, or all that its fold keeps."""
        d = self.derivation
        if is_fold(node):
            d.evaluated(node, self.width)
            return self.fill(d.fold_for(node, at), node)
        tile = self.new_tile(node.aval.dtype)
        self.vector(lambda: d.add(Store(tile, self.lane, d.value(node, at), node)))
        return [tile]

    def new_tile(self, dtype: Any) -> Buffer:
        """A tile for the elements of the block. Raises TooLargeError where there are too many."""
        tile = self.derivation.new_tile(dtype, self.width)
        if sum(tile.nbytes for tile in self.derivation.tiles) > TILES:
            raise TooLargeError
        return tile

    def fill(self, fold: Fold, node: Node) -> list[Buffer]:
        """What a fold keeps in the end for each element of the block."""
        d = self.derivation
        tiles = [self.new_tile(dtype) for dtype in fold.dtypes]

        def store(values: Sequence[Value]) -> None:
            for tile, value in zip(tiles, values, strict=True):
                d.add(Store(tile, self.lane, value, node))

        def combine(r: Indices) -> None:
            kept: list[Value] = [d.let(Load(tile, self.lane), tile.dtype) for tile in tiles]
            store(fold.combine(d, kept, fold.elements(d, r)))
            d.spend(node)

        self.vector(lambda: store(fold.starts(d)))
        d.loops_within(fold.extents, fold.within, lambda r, more: self.vector(lambda: combine(r), more), self.name)
        return tiles


def write_by_columns(derivation: Derivation, parallel: int, width: int) -> None:
    """One phase over the first `parallel` axes and blocks of the last one, which computes and stores all outputs.

    They have one shape.
    """
    body = derivation.body
    shape = body.outputs[0].aval.shape
    leading = (*shape[:parallel], -(-shape[-1] // width))

    def write(index: Index) -> None:
        *row, number = delinear(index, leading)
        columns = Columns(derivation, number, width, shape[-1])

        def store(inner: Indices) -> None:
            at = (*row, *inner, columns.column)
            for node, buffer in zip(body.outputs, derivation.outputs, strict=True):
                derivation.add(Store(buffer, linear(at, shape), derivation.value(node, at), node))

        derivation.loops(shape[parallel:-1], lambda inner: columns.vector(lambda: store(inner)), False)

    derivation.phase(math.prod(leading), write)


def parts_of(node: Node) -> int:
    """Into how many parts a reduction by columns is to be cut; 1 where there are enough columns for all threads."""
    if node.op not in REDUCTIONS:
        return 1
    axes, shape = axes_of(node), node.inputs[0].aval.shape
    length = int(math.prod(shape[axis] for axis in axes))
    rows = node.avals[0].size // shape[-1]
    if rows * -(-shape[-1] // WIDTH) >= FEW:
        return 1
    return max(1, min(PARTS, length // 2, length * int(shape[-1]) // PART))


def reduce_columns_in_parts(derivation: Derivation, node: Node) -> None:
    """A phase that reduces parts, and, where the body's results are larger, one that combines them.

    Where the first axis is long, parts are of its elements, and each has loops over the others; else of all elements.
    """
    axes, shape, kept = axes_of(node), node.inputs[0].aval.shape, node.avals[0].shape
    reduced = tuple(shape[axis] for axis in axes)
    by_first = reduced[0] >= PARTS and len(reduced) > 1
    outer, inner = (reduced[:1], reduced[1:]) if by_first else (reduced, ())
    length = math.prod(outer)
    each = -(-length // parts_of(node))
    parts = -(-length // each)

    def of_part(at: Indices) -> Fold:
        start = at[0] * each

        def place(r: Indices) -> Indices:
            return merged(at[1:], axes, (*delinear(start + r[0], outer), *r[1:]))

        return replace(fold_of(node, [each, *inner], place), within=lambda r: ((start + r[0], 0, length),))

    partial = store_by_columns(derivation, node, (parts, *kept), of_part)

    def of_all(at: Indices) -> Fold:
        def elements(writer: Writer, r: Indices) -> list[Value]:
            place = linear((*r, *at), (parts, *kept))
            return [writer.let(Load(buffer, place), buffer.dtype, node) for buffer in partial]

        return replace(fold_of(node, [parts], lambda r: r), elements=elements)

    if derivation.body.outputs[0].aval.size == node.avals[0].size:
        derivation.folds[node] = of_all
        return
    whole = store_by_columns(derivation, node, kept, of_all)[-1]

    def combined(at: Indices) -> Value:
        return derivation.converted(derivation.let(Load(whole, linear(at, kept)), whole.dtype, node), node.aval.dtype)

    derivation.combined[node] = combined


def select(derivation: Derivation, node: Node) -> None:
    """The phase of a SELECTED that finds what each window selects; then its elements are folds."""
    source = node.inputs[0]
    steps = store_by_columns(derivation, node, source.aval.shape, lambda at: selected(node, at))[-1]
    derivation.folds[node] = lambda at: scattered(node, at, steps)


def store_by_columns(
    derivation: Derivation, node: Node, shape: tuple[int, ...], fold: Callable[[Indices], Fold]
) -> list[Buffer]:
    """A phase that stores what a fold keeps for each element of a shape; returns where."""
    buffers: list[Buffer] = []
    width = width_of(shape[-1])
    leading = (*shape[:-1], -(-shape[-1] // width))

    def write(index: Index) -> None:
        *row, block = delinear(index, leading)
        columns = Columns(derivation, block, width, shape[-1])
        at = (*row, columns.column)
        tiles = columns.fill(fold(at), node)
        buffers.extend(derivation.new_scratch(tile.dtype, math.prod(shape)) for tile in tiles)

        def store() -> None:
            for tile, buffer in zip(tiles, buffers, strict=True):
                loaded = derivation.let(Load(tile, columns.lane), tile.dtype)
                derivation.add(Store(buffer, linear(at, shape), loaded))

        columns.vector(store)

    derivation.phase(math.prod(leading), write)
    return buffers
