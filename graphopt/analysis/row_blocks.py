"""Loop programs of what stands between products: a few rows of a large array at a time.

The rows stay in a core's second cache: one product makes them, loops over their columns follow, and the next product is
made of them there. As a block has whole rows, nothing is rescaled. The right factors are first copied so that what a
product needs at a time lies side by side, unless it does. Sums over rows are kept for some of the blocks, one after the
other, and these are added up at last.

Body:
    %3: f32[8,2048,2048] = dot_general[...](%0, %1)
    %4: f32[8,2048,2048] = exp(%3)
    %5: f32[8,2048,64] = dot_general[...](%4, %2)
Loop program:
    parallel i1 < 256: ...                     the columns of %1, 64 at a time
    parallel i2 < 688:
      serial ...: tile0[...] = in0[...]         24 rows of %0
      serial j3 < 32:
        tile1[64 * j3 ...+ 2048 * i + j] = tile0[...] @ scratch0[...], (24, 64) @ (64, 64)
      serial j4 < 24: serial j5 < 2048: ...     exp, in tile1
      tile2[...] = tile1[...] @ in2[...], (24, 2048) @ (2048, 64)
      serial ...: out0[...] = tile2[...]
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial

from graphopt.analysis.access import Indices, Within
from graphopt.analysis.between import Between, RowProduct
from graphopt.analysis.derive import Derivation
from graphopt.analysis.left_out_columns import LeftOut
from graphopt.analysis.masked_columns import masked_columns
from graphopt.analysis.panels import Panels, panels, place, places, width_of
from graphopt.analysis.products import SUM
from graphopt.analysis.reductions import REDUCTIONS
from graphopt.analysis.row_order import Step, is_copied, order_of, takes_wide
from graphopt.analysis.writing import TooLargeError
from graphopt.ir.index import Index, delinear, linear, variable
from graphopt.ir.index import number as number_index
from graphopt.ir.loop import SERIAL, Buffer, Literal, Load, Matrix, Product, Store, Value
from graphopt.ir.node import Node

KEPT = 1 << 19
"""Bytes of all tiles of a block: half of a core's second cache."""

ROWS, MOST = 6, 24
"""Rows of which a block has a multiple, and those that it has at most: with 12 a core already computes as long as it
takes to have the right factors from the cache that all share."""

FACTORS = 1 << 23
"""Bytes of the right factors, of one matrix of several side by side, that every block reads, and of the sums over rows,
which it reads and writes: they are to stay in the cache that all cores share."""

PARTS = 8
"""In so many parts, each with sums of its own, blocks are computed that are added up, those of several matrices
together."""

SET, LINE = 1024, 64
"""Bytes: what is a multiple of the first apart falls on a few places of the first cache. Rows are apart by a line more
where columns are read."""


def write_between(derivation: Derivation, found: Between) -> None:
    """The phases of a body: one for each right factor that is copied, one over blocks of rows, and one for each result
    that is made of sums over rows."""
    _Writer(derivation, found).write()


class _Writer:
    def __init__(self, derivation: Derivation, found: Between) -> None:
        self.d = derivation
        self.d.symmetries = {}  # an element is where its own row is computed, not in another's
        self.found = found
        self.order = order_of(derivation.body, found)
        sizes = found.first.aval.shape
        self.dtype = found.first.aval.dtype
        self.extent, self.columns = sizes[found.rows], sizes[found.columns]
        self.by_rows = [p for p in found.products if not p.over_rows]
        self.over_rows = [p for p in found.products if p.over_rows]
        self.step = self.columns
        if self.over_rows and self.columns * self.dtype.itemsize % SET == 0:
            self.step += LINE // self.dtype.itemsize
        most = min(MOST, KEPT // (self.size_of_row() * self.dtype.itemsize))
        if most < min(ROWS, self.extent) or self.factors() > FACTORS or self.extent == 1:
            raise TooLargeError  # of one row loops would be shared that products stand between
        self.rows = self.extent if self.extent <= most else most - most % ROWS
        self.blocks = -(-self.extent // self.rows)
        summed = {found.labels[p.left][axis] for p in self.over_rows for axis in p.axes.summed[p.side]}
        self.serial = [axis for axis in found.others if axis in summed]
        self.apart = [axis for axis in found.others if axis not in summed]
        if any(axis in found.labels[p.node] for p in self.over_rows for axis in self.serial):
            raise TooLargeError  # one sum goes over what another one keeps
        of_apart = math.prod(sizes[axis] for axis in self.apart)
        masked = masked_columns(derivation.body, found, self.rows, width_of(self.columns, self.dtype))
        self.band = None if masked is None else masked[1]
        self.left_out = None if masked is None else LeftOut(derivation, *masked)
        self.parts = min(self.blocks, -(-PARTS // of_apart)) if self.over_rows else 1
        self.at: dict[int, Index] = {}  # of the axes of `first`, what a block or a row has
        self.tiles: list[Buffer] = []  # of all columns
        self.copies: dict[Node, Buffer] = {}  # factors of products, by these
        self.results: dict[Node, Buffer] = {}  # what products have made of rows, but for all columns
        self.sums: dict[Node, Buffer] = {}
        self.again: dict[Node, Buffer] = {}  # numbers of rows
        self.over: tuple[Buffer, Index] | None = None  # the tile that is being written, and the column

    def size_of_row(self) -> int:
        """Elements in tiles of one row."""
        wide = self.order.count * self.step
        copies = sum(self.length_of_copy(p) for p in self.found.products if is_copied(self.found, p))
        return int(wide + copies + sum(p.width for p in self.by_rows if p.node not in self.order.tiles))

    @staticmethod
    def length_of_copy(product: RowProduct) -> int:
        """Elements of a row of the factor that is copied."""
        return product.width if product.over_rows else math.prod(product.summed)

    def factors(self) -> int:
        """Bytes of the right factors of one matrix, and of sums over rows."""
        read = sum(math.prod(p.summed) * p.width for p in self.by_rows)
        summed = sum(2 * self.columns * p.width for p in self.over_rows)
        return int(read + summed) * int(self.dtype.itemsize)

    def write(self) -> None:
        """All phases."""
        rights = {product.node: panels(self.d, product) for product in self.by_rows}
        sizes = self.found.first.aval.shape
        extents = [sizes[axis] for axis in self.apart]
        for product in self.over_rows:
            size = math.prod(extents) * self.parts * self.columns * product.width
            self.sums[product.node] = self.d.new_scratch(self.dtype, size)
        for product in self.found.products:
            self.d.combined[product.node] = _gone
        for product in self.by_rows:
            if self.left_out is not None and takes_wide(self.found, product):
                self.left_out.write_sums(product)

        def write_block(index: Index) -> None:
            *at, block = places(self.d, index, (*extents, self.blocks))
            self.at = dict(zip(self.apart, at, strict=True))
            self.block(block, rights)

        def write_part(index: Index) -> None:
            *at, part = places(self.d, index, (*extents, self.parts))
            self.at = dict(zip(self.apart, at, strict=True))
            self.part(part, rights)

        if self.over_rows:
            self.d.phase(math.prod(extents) * self.parts, write_part)
            self.write_sums()
        else:
            self.d.phase(math.prod(extents) * self.blocks, write_block)

    # ---- sums over rows

    def part(self, part: Index, rights: dict[Node, Panels]) -> None:
        """Some of the blocks, one after the other, with the sums over their rows."""
        d = self.d
        starts = {p.node: self.start_of_sum(p, part) for p in self.over_rows}
        for product in self.over_rows:
            sums, start, zero = self.sums[product.node], starts[product.node], self.dtype.type(0)

            def clear(k: Index, sums: Buffer = sums, start: Index = start, zero: object = zero) -> None:
                d.add(Store(sums, start + k, Literal(zero)))

            d.loop(self.columns * product.width, SERIAL, clear)
        each = -(-self.blocks // self.parts)
        name = d.name("j")
        number = part * each + variable(name, 0, each - 1)

        def write_block() -> None:
            block = place(d, number, self.blocks) if number.terms else number
            self.block(block, rights, starts)

        def over(axes: Sequence[int]) -> None:
            if axes:
                extent = self.found.first.aval.shape[axes[0]]

                def inner(index: Index) -> None:
                    self.at[axes[0]] = index
                    over(axes[1:])

                d.loop(extent, SERIAL, inner)
                return
            within: Within = (
                ((number, 0, self.blocks),) if self.blocks % each or self.parts * each > self.blocks else ()
            )
            d.loop_over(name, each, SERIAL, write_block, within)

        over(self.serial)

    def start_of_sum(self, product: RowProduct, part: Index) -> Index:
        """Where the sums of a part of the blocks begin."""
        sizes = [self.found.first.aval.shape[axis] for axis in self.apart]
        matrix = linear((*(self.at[axis] for axis in self.apart), part), (*sizes, self.parts))
        return matrix * int(self.columns * product.width)

    def write_sums(self) -> None:
        """The phases of what is made of sums over rows."""
        d, found = self.d, self.found
        self.at = {}
        for product in self.over_rows:
            d.combined[product.node] = partial(self.added_up, product)
        for node, buffer in zip(d.body.outputs, d.outputs, strict=True):
            if node not in found.after:
                continue
            outer = node.aval.shape[:-1]

            def write(index: Index, node: Node = node, buffer: Buffer = buffer, outer: Sequence[int] = outer) -> None:
                row = places(d, index, outer)

                def store(k: Index) -> None:
                    at = (*row, k)
                    d.add(Store(buffer, linear(at, node.aval.shape), d.value(node, at), node))

                d.loop(node.aval.shape[-1], SERIAL, store)

            d.phase(math.prod(outer), write)

    def added_up(self, product: RowProduct, at: Indices) -> Value:
        """An element of a sum over rows: the sums of all parts."""
        node, labels = product.node, self.found.labels[product.node]
        of = {label: index for label, index in zip(labels, at, strict=True) if label is not None}
        column = of.get(self.found.columns, Index())
        apart = [of.get(axis, Index()) for axis in self.apart]
        sizes = [self.found.first.aval.shape[axis] for axis in self.apart]
        sums = self.sums[node]

        def of_part(part: Index) -> Value:
            place = linear((*apart, part, column, at[product.place]), (*sizes, self.parts, self.columns, product.width))
            return self.d.let(Load(sums, place), self.dtype, node, "x")

        if self.parts == 1:
            return of_part(Index())
        return self.d.fold(REDUCTIONS[SUM], self.dtype, [([self.parts], lambda r: of_part(r[0]))], node)

    # ---- one block of rows

    def block(self, block: Index, rights: dict[Node, Panels], sums: dict[Node, Index] | None = None) -> None:
        """Some rows: what the products make of them is in tiles. sums: where those over rows begin."""
        self.make_tiles()
        if self.left_out is not None:
            self.left_out.leave_out(block)
        for step in self.order.steps:
            self.loops(block, step)
            product = step.product
            if product is None:
                continue
            if product.over_rows:
                start = Index() if sums is None else sums[product.node]
                self.add_up(product, start, block)
            else:
                self.multiply(product, rights[product.node], block)

    def make_tiles(self) -> None:
        """The tiles of a block."""
        d, order = self.d, self.order
        if self.copies or self.tiles:
            return
        self.tiles = [d.new_tile(self.dtype, self.rows * self.step) for _ in range(order.count)]
        for product in self.found.products:
            if is_copied(self.found, product):
                self.copies[product.node] = d.new_tile(self.dtype, self.rows * self.length_of_copy(product))
            if not product.over_rows and product.node not in order.tiles:
                self.results[product.node] = d.new_tile(self.dtype, self.rows * product.width)
        if self.left_out is not None:
            self.left_out.make_tiles(self.by_rows, self.rows)
        for step in order.steps:
            self.again |= {node: d.new_tile(node.aval.dtype, self.rows) for node in step.kept}

    def loops(self, block: Index, step: Step) -> None:
        """The loops of a step over the rows of a block that there are."""
        if not step.roots(self.found):
            return
        d = self.d
        first = block * self.rows
        name = d.name("j")
        row = variable(name, 0, self.rows - 1) if self.rows > 1 else Index()
        within: Within = ((first + row, 0, self.extent),) if self.extent % self.rows else ()

        def write_row() -> None:
            self.at[self.found.rows] = place(d, first + row, self.extent) if within else first + row
            self.known_in(row, step)
            for node in step.outputs:
                self.store(node)
            for node in step.kept:
                d.add(Store(self.again[node], row, d.value(node, self.indices(node, Index())), node))
            if step.product is not None and is_copied(self.found, step.product):
                self.copy(step.product, row)
            for node in step.made:
                self.make(node, row, block)
                if self.left_out is not None and node in self.left_out.weights:
                    at = self.indices(self.left_out.softmax.greatest, Index())
                    self.left_out.keep_weight(node, block, row, at)

        d.loop_over(name, self.rows, SERIAL, write_row, within)
        del self.at[self.found.rows]

    def known_in(self, row: Index, step: Step) -> None:
        """How elements are found of what was computed before the loops of a step."""
        d, order = self.d, self.order
        for node in order.tiles:
            if node in step.held:
                d.combined[node] = partial(self.of_row_and_column, node, row, dict(self.at))
            elif node in d.combined:
                d.combined[node] = _gone
        for earlier in order.steps[: order.steps.index(step)]:
            for node in earlier.kept:
                d.combined[node] = self.of_row(node, partial(_in_row, self.again[node], row))
            product = earlier.product
            if product is not None and product.node in self.results:
                load = partial(_in_width, self.results[product.node], row, product)
                d.combined[product.node] = self.of_row(product.node, load)

    def store(self, node: Node) -> None:
        """A result's elements of a row."""
        d, shape = self.d, node.aval.shape
        free = [k for k, label in enumerate(self.found.labels[node]) if label is None and shape[k] > 1]

        def store(inner: Indices, buffer: Buffer) -> None:
            at = list(self.indices(node, Index()))
            for axis, index in zip(free, inner, strict=True):
                at[axis] = index
            d.add(Store(buffer, linear(tuple(at), shape), d.value(node, tuple(at)), node))

        for output, buffer in zip(d.body.outputs, d.outputs, strict=True):
            if output is node:
                d.loops([shape[axis] for axis in free], partial(store, buffer=buffer), False)

    def copy(self, product: RowProduct, row: Index) -> None:
        """A row of the factor of a product that is copied."""
        d, tile, length = self.d, self.copies[product.node], self.length_of_copy(product)
        side, axes = (1 - product.side if product.over_rows else product.side), product.axes
        node = product.node.inputs[side]
        if product.over_rows:
            labels = self.found.labels[product.left]
            of = {
                axis: self.index_of(labels[other])
                for mine, theirs in (
                    (axes.batch[side], axes.batch[1 - side]),
                    (axes.summed[side], axes.summed[1 - side]),
                )
                for axis, other in zip(mine, theirs, strict=True)
            }
        else:
            labels = self.found.labels[product.node]
            start = len(axes.batch[0]) + (len(axes.free[0]) if side else 0)
            of = {axis: self.index_of(labels[k]) for k, axis in enumerate(axes.batch[side])}
            of |= {axis: self.index_of(labels[start + k]) for k, axis in enumerate(axes.free[side])}

        def store(k: Index) -> None:
            of_k = (
                {product.free: k}
                if product.over_rows
                else dict(zip(axes.summed[side], delinear(k, product.summed), strict=True))
            )
            value = d.value(node, tuple((of | of_k).get(axis, Index()) for axis in range(len(node.aval.shape))))
            d.add(Store(tile, row * length + k, value, node))

        d.loop(length, SERIAL, store)

    def make(self, node: Node, row: Index, block: Index) -> None:
        """A row of what is computed for all columns, or for those that its block needs."""
        tile, name = self.tiles[self.order.tiles[node]], self.d.name("j")
        column = variable(name, 0, self.columns - 1)

        def store() -> None:
            self.over = tile, column
            value = self.d.value(node, self.indices(node, column))
            self.over = None
            self.d.add(Store(tile, row * self.step + column, value, node))

        within: Within = () if self.band is None else self.band.has_column(block, column)
        self.d.loop_over(name, self.columns, SERIAL, store, within)

    def index_of(self, label: int | None) -> Index:
        """The index along an axis of `first` that a block or a row has; 0 along an axis of one element."""
        return Index() if label is None else self.at.get(label, Index())

    def indices(self, node: Node, column: Index) -> Indices:
        """The indices of an element of a node, in the row that is being computed."""
        of = {self.found.columns: column, **self.at}
        sizes = zip(self.found.labels[node], node.aval.shape, strict=True)
        return tuple(Index() if label is None or size == 1 else of[label] for label, size in sizes)

    def matrix_of(self, product: RowProduct) -> Indices:
        """Which matrix of a product's right factors it is."""
        labels = self.found.labels[product.node]
        return tuple(self.index_of(labels[k]) for k in range(len(product.axes.batch[0])))

    def left(self, product: RowProduct) -> Matrix:
        """The left factor of a product of rows, in a tile."""
        if takes_wide(self.found, product):
            return Matrix(self.tiles[self.order.tiles[product.left]], Index(), (self.step, 1))
        return Matrix(self.copies[product.node], Index(), (math.prod(product.summed), 1))

    def multiply(self, product: RowProduct, right: Panels, block: Index) -> None:
        """A product of the rows that a block has, a panel after the other."""
        node, length = product.node, math.prod(product.summed)
        is_wide = node in self.order.tiles
        to = self.tiles[self.order.tiles[node]] if is_wide else self.results[node]
        left, matrix, step = self.left(product), self.matrix_of(product), self.step if is_wide else product.width

        def of(rows: int) -> None:
            def panel(number: Index, width: int) -> None:
                part = Matrix(to, number * right.width, (step, 1))
                self.d.add(Product(part, left, right.where(matrix, number), rows, width, length, node=node))

            self.over_panels(right.columns, right.width, panel, block if is_wide else None)

        def of_kept(rows: int) -> None:
            """The same, with what is summed over in panels: those that the block needs."""
            assert self.left_out is not None
            width = self.left_out.band.width
            self.left_out.begin(product, to, rows, matrix, block)

            def term(start: Index, length: int) -> None:
                some = Matrix(left.buffer, left.at + start * width, left.steps)

                def panel(number: Index, columns: int) -> None:
                    part, whole = Matrix(to, number * right.width, (step, 1)), right.where(matrix, number)
                    of = Matrix(whole.buffer, whole.at + start * (width * whole.steps[0]), whole.steps)
                    self.d.add(Product(part, some, of, rows, columns, length, True, node))

                self.over_panels(right.columns, right.width, panel, None)

            self.over_panels(length, width, term, block)

        is_cut = self.left_out is not None and node in self.left_out.sums
        self.for_rows(block, of_kept if is_cut else of)

    def over_panels(self, columns: int, width: int, write: Callable[[Index, int], None], block: Index | None) -> None:
        """What `write` writes for each panel of columns and its width. block: that only those panels are for which it
        needs."""
        d, (whole, rest) = self.d, divmod(columns, width)
        name = d.name("j")

        def within(panel: Index) -> Within:
            return () if block is None or self.band is None else self.band.has_panel(block, panel)

        if whole == 1:
            d.condition(within(Index()), lambda: write(Index(), width))
        elif whole:
            number = variable(name, 0, whole - 1)
            d.loop_over(name, whole, SERIAL, lambda: write(number, width), within(number))
        if rest:
            d.condition(within(number_index(whole)), lambda: write(number_index(whole), rest))

    def add_up(self, product: RowProduct, start: Index, block: Index) -> None:
        """Adds to sums over rows those of a block."""
        wide = self.tiles[self.order.tiles[product.left]]
        to = Matrix(self.sums[product.node], start, (product.width, 1))
        left = Matrix(wide, Index(), (1, self.step))
        right = Matrix(self.copies[product.node], Index(), (product.width, 1))

        def of(rows: int) -> None:
            self.d.add(Product(to, left, right, self.columns, product.width, rows, True, product.node))

        self.for_rows(block, of)

    def for_rows(self, block: Index, of: Callable[[int], None]) -> None:
        """What `of` writes for the number of rows that a block has."""
        whole, rest = divmod(self.extent, self.rows)
        last = (lambda: of(rest),) if rest else ()
        self.d.condition(((block, 0, whole),), lambda: of(self.rows), *last)

    def of_row(self, node: Node, load: Callable[[Indices], Load]) -> Callable[[Indices], Value]:
        """How an element of a node is found in a tile: it must be one of the row that is being computed."""
        labels, here = self.found.labels[node], dict(self.at)

        def element(at: Indices) -> Value:
            self.check(labels, at, node.aval.shape, here)
            found = load(at)
            return self.d.let(found, found.buffer.dtype, node, "x")

        return element

    def of_row_and_column(self, node: Node, row: Index, here: dict[int, Index], at: Indices) -> Value:
        """An element of what has all columns."""
        labels, columns = self.found.labels[node], self.found.columns
        self.check([None if label == columns else label for label in labels], at, node.aval.shape, here)
        column = at[labels.index(columns)]
        tile = self.tiles[self.order.tiles[node]]
        if self.over is not None and self.over[0] is tile and self.d.is_inside(self.over[1]) and column != self.over[1]:
            raise TooLargeError  # it may have been written over
        return self.d.let(Load(tile, row * self.step + column), self.dtype, node, "x")

    @staticmethod
    def check(labels: Sequence[int | None], at: Indices, shape: Sequence[int], here: dict[int, Index]) -> None:
        """Raises TooLargeError for an element of another row, or another matrix."""
        for index, label, size in zip(at, labels, shape, strict=True):
            if label is not None and size > 1 and index != here.get(label):
                raise TooLargeError


def _in_row(tile: Buffer, row: Index, at: Indices) -> Load:
    """The number of a row."""
    return Load(tile, row)


def _in_width(tile: Buffer, row: Index, product: RowProduct, at: Indices) -> Load:
    """An element of a row of a product's result."""
    return Load(tile, row * product.width + at[product.place])


def _gone(at: Indices) -> Value:
    """An element of what is there only while a row is computed."""
    raise TooLargeError
