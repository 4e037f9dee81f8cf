"""Loop programs of a product of matrices and of what is done with each element of it, a block at a time.

A block has a few rows of one factor and a panel of columns of the other, whose sums stay in registers (`Product`). What
follows of its elements is computed while they are in the first cache. Columns have to lie beside each other in memory:
where they do not they are copied first, a panel after the other, or those of the other factor are, which is then
multiplied by this one's rows. Of a layer and its gradient, x @ w and y @ w.T, the second is of this kind.

Body:
    %3: f32[100,10] = dot_general[...](%0, %1)
    %4: f32[100,10] = broadcast_in_dim[broadcast_dimensions=(1,), shape=(100, 10)](%2)
    %5: f32[100,10] = add(%3, %4)
Loop program:
    parallel i1 < 9, at least 2 at a time:
      if 0 <= i1 < 8:
        tile0[0 ...+ 10 * i + j] = in0[6144 * i1 ...+ 512 * i + j] @ in1[0 ...+ 10 * i + j], (12, 512) @ (512, 10)
      else:
        tile0[0 ...+ 10 * i + j] = in0[6144 * i1 ...+ 512 * i + j] @ in1[0 ...+ 10 * i + j], (4, 512) @ (512, 10)
      serial j2 < 12 where 0 <= 12 * i1 + j2 < 100:
        v4: i64 = 12 * i1 + j2
        serial j3 < 10:
          x5: f32 = tile0[10 * j2 + j3]
          x6: f32 = in2[j3]
          v7: f32 = add(x5, x6)
          out0[10 * v4 + j3] = v7
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial

from graphopt.analysis.access import MOVES, Indices, Within
from graphopt.analysis.derive import IOTA, Derivation
from graphopt.analysis.factors import Blocked, blocked
from graphopt.analysis.panels import place, places, width_of
from graphopt.analysis.products import DOT, axes_of
from graphopt.ir.graph import Graph
from graphopt.ir.index import Index, delinear, linear, variable
from graphopt.ir.loop import SERIAL, Buffer, Load, Matrix, Product, Store, Value
from graphopt.ir.op import CONSTANT, PARAM

ROWS, LEAST = 24, 6
"""Rows of a block at most, and at least: of so many, times the vectors of a panel, the sums fill the registers."""

BLOCKS = 8
"""Blocks up to which there are smaller ones rather than fewer, so that cores have as much to do."""

FAR, KEPT = 1 << 12, 1 << 19
"""Bytes from one element of a row to the next from which on a block's rows are copied first, and of the copy at most:
what is so far apart falls on a few places of the caches. (The product of 2048x2048 matrices with the first transposed
takes 134 ms instead of 86.)"""

STRETCH = 16
"""How many elements of a column are copied at a time: so many lines of the copy are written to again and again."""


def product_of(body: Graph) -> Blocked | None:
    """The product that all results of a body are made of, element by element; None where it is not such a body."""
    products = [node for node in body.nodes if node.op is DOT]
    found = blocked(products[0]) if len(products) == 1 else None
    if found is None or any(n.op is not PARAM for n in found.node.inputs):
        return None
    made = {found.node}
    for node in body.nodes:
        if any(n in made for n in node.inputs):
            made.add(node)
            if node.aval.shape != found.node.aval.shape or not node.op.elementwise or len(node.avals) > 1:
                return None
        elif node not in made and not (node.op in (PARAM, CONSTANT, IOTA, *MOVES) or node.op.elementwise):
            return None
    return found if all(node.aval.shape == found.node.aval.shape for node in body.outputs) else None


def write_product(derivation: Derivation, found: Blocked) -> None:
    """The phases of a body: one in which columns are copied, if they are, and one over blocks."""
    _Writer(derivation, found).write()


class _Writer:
    def __init__(self, derivation: Derivation, found: Blocked) -> None:
        self.d = derivation
        self.found = found
        self.node = found.node
        self.dtype = found.node.aval.dtype
        self.length = found.factors[0].summed.extent
        self.side = found.side  # of the factor of which a block has rows
        self.down, self.across = found.factors[self.side], found.factors[1 - self.side]
        self.rows, self.columns = self.down.free.extent, self.across.free.extent
        self.width = width_of(self.columns, self.dtype)
        self.panels = -(-self.columns // self.width)
        self.high = min(ROWS, self.rows)
        while self.high > LEAST and self.blocks * self.panels * math.prod(found.batch) < BLOCKS:
            self.high -= self.high % LEAST or LEAST
        # A product that nothing is done with is written to where it is to be.
        self.is_bare = self.side == 0 and list(derivation.body.outputs) == [self.node]
        self.copy: Buffer | None = None
        self.rows_copied: Buffer | None = None
        derivation.symmetries = {}  # an element is where its own block is computed, not in another

    @property
    def blocks(self) -> int:
        """Blocks of rows."""
        return -(-self.rows // self.high)

    def write(self) -> None:
        """All phases."""
        if self.found.is_copied:
            self.copy_columns()
        tile = None if self.is_bare else self.d.new_tile(self.dtype, self.high * self.width)
        size = self.high * self.length
        if self.down.summed.step * self.dtype.itemsize >= FAR and size * self.dtype.itemsize <= KEPT:
            self.rows_copied = self.d.new_tile(self.dtype, size)

        def write_block(index: Index) -> None:
            *matrix, panel, block = places(self.d, index, (*self.found.batch, self.panels, self.blocks))
            if self.rows_copied is not None:
                self.copy_rows(tuple(matrix), block, self.rows_copied)
            self.multiply(tuple(matrix), panel, block, tile)
            if tile is not None:
                self.finish(tuple(matrix), panel, block, tile)

        self.d.phase(math.prod(self.found.batch) * self.panels * self.blocks, write_block)

    @property
    def sizes_of_copy(self) -> tuple[int, ...]:
        """For each matrix and panel, what is summed over, row by row."""
        return (*self.found.batch, self.panels, self.length, self.width)

    def copy_columns(self) -> None:
        """The phase that copies the factor of which a block has columns."""
        d, factor, node = self.d, self.across, self.node.inputs[1 - self.side]
        sizes = self.sizes_of_copy
        copy = self.copy = d.new_scratch(self.dtype, math.prod(sizes))
        short = min(STRETCH, self.length)

        def write(index: Index) -> None:
            *matrix, panel = places(d, index, sizes[:-2])
            names = d.name("j"), d.name("j")
            column = variable(names[0], 0, self.width - 1) if self.width > 1 else Index()
            some_columns = _within(panel * self.width + column, self.width, self.columns)

            def write_stretch(stretch: Index) -> None:
                k = stretch * short + variable(names[1], 0, short - 1)

                def store() -> None:
                    at = _at(matrix, factor.batch) + k * factor.summed.step
                    at += (panel * self.width + column) * factor.free.step
                    value = d.let(Load(d.inputs[node], at), self.dtype, node, "x")
                    d.add(Store(copy, linear((*matrix, panel, k, column), sizes), value, self.node))

                def write_column() -> None:
                    d.loop_over(names[1], short, SERIAL, store, _within(k, short, self.length))

                d.loop_over(names[0], self.width, SERIAL, write_column, some_columns)

            d.loop(-(-self.length // short), SERIAL, write_stretch)

        d.phase(math.prod(sizes[:-2]), write)

    def copy_rows(self, matrix: Indices, block: Index, tile: Buffer) -> None:
        """The loops that copy the rows of a block, those of each element that is summed over beside each other."""
        d, factor, node = self.d, self.down, self.node.inputs[self.side]

        def write(k: Index) -> None:
            name = d.name("j")
            row = variable(name, 0, self.high - 1)

            def store() -> None:
                at = _at(matrix, factor.batch) + (block * self.high + row) * factor.free.step + k * factor.summed.step
                value = d.let(Load(d.inputs[node], at), self.dtype, node, "x")
                d.add(Store(tile, k * self.high + row, value, self.node))

            d.loop_over(name, self.high, SERIAL, store, _within(block * self.high + row, self.high, self.rows))

        d.loop(self.length, SERIAL, write)

    def left(self, matrix: Indices, block: Index) -> Matrix:
        """The rows of a block."""
        if self.rows_copied is not None:
            return Matrix(self.rows_copied, Index(), (1, self.high))
        start = _at(matrix, self.down.batch) + block * (self.high * self.down.free.step)
        return Matrix(self.d.inputs[self.node.inputs[self.side]], start, (self.down.free.step, self.down.summed.step))

    def multiply(self, matrix: Indices, panel: Index, block: Index, tile: Buffer | None) -> None:
        """The product of a block."""
        d, across, left = self.d, self.across, self.left(matrix, block)
        if self.copy is not None:
            right = Matrix(self.copy, linear((*matrix, panel, Index(), Index()), self.sizes_of_copy), (self.width, 1))
        else:
            start = _at(matrix, across.batch) + panel * self.width
            right = Matrix(d.inputs[self.node.inputs[1 - self.side]], start, (across.summed.step, 1))
        if tile is None:
            start = linear((*matrix, block * self.high, panel * self.width), self.sizes)
            to = Matrix(d.outputs[0], start, (self.columns, 1))
        else:
            to = Matrix(tile, Index(), (self.width, 1))

        def of(high: int, wide: int) -> None:
            d.add(Product(to, left, right, high, wide, self.length, node=self.node))

        def of_rows(high: int) -> None:
            self.part(panel, self.columns, self.width, partial(of, high))

        self.part(block, self.rows, self.high, of_rows)

    @property
    def sizes(self) -> tuple[int, ...]:
        """Of the result: matrices, rows and columns."""
        return (*self.found.batch, *(factor.free.extent for factor in self.found.factors))

    def part(self, number: Index, whole: int, each: int, write: Callable[[int], None]) -> None:
        """What `write` writes for as many as there are in part `number` of a whole: `each`, or what is left."""
        count, rest = divmod(whole, each)
        if not rest:
            write(each)
        else:
            self.d.condition(((number, 0, count),), lambda: write(each), lambda: write(rest))

    def finish(self, matrix: Indices, panel: Index, block: Index, tile: Buffer) -> None:
        """The loops over a block's elements that compute the results of them, as these lie in memory."""
        d = self.d
        names = d.name("j"), d.name("j")
        extents = (self.high, self.width)
        row, column = (
            variable(name, 0, extent - 1) if extent > 1 else Index()
            for name, extent in zip(names, extents, strict=True)
        )
        found = (block * self.high + row, panel * self.width + column)
        within = (_within(found[0], self.high, self.rows), _within(found[1], self.width, self.columns))
        outer, inner = self.side, 1 - self.side  # of the result's rows and columns, which of the block's they are

        def write_row() -> None:
            at = place(d, found[outer], self.sizes[-2]) if within[outer] else found[outer]

            def write_element() -> None:
                d.combined[self.node] = partial(self.element, tile, row * self.width + column)
                for node, buffer in zip(d.body.outputs, d.outputs, strict=True):
                    value = d.value(node, (*matrix, *self.indices(at, found[inner])))
                    d.add(Store(buffer, linear((*matrix, at, found[inner]), self.sizes), value, node))

            d.loop_over(names[inner], extents[inner], SERIAL, write_element, within[inner])

        d.loop_over(names[outer], extents[outer], SERIAL, write_row, within[outer])

    def element(self, tile: Buffer, place: Index, at: Indices) -> Value:
        """An element of the product, from the tile of its block."""
        return self.d.let(Load(tile, place), self.dtype, self.node, "x")

    def indices(self, row: Index, column: Index) -> Indices:
        """Of an element of the result, but for those of its matrix."""
        shape, first = self.node.aval.shape, len(self.found.batch)
        second = first + len(axes_of(self.node).free[0])
        return (*delinear(row, shape[first:second]), *delinear(column, shape[second:]))


def _within(index: Index, each: int, whole: int) -> Within:
    """The condition that an element of a part of a whole is there."""
    return ((index, 0, whole),) if whole % each else ()


def _at(matrix: Sequence[Index], steps: Sequence[int]) -> Index:
    """Where a matrix begins."""
    return sum((index * step for index, step in zip(matrix, steps, strict=True)), Index())
