"""Loop programs of what stands between two products: a few rows of a large array at a time.

The rows stay in a core's second cache: one product makes them, loops over their columns follow, and the next product is
made of them there. As a block has whole rows, nothing is rescaled. The right factors are first copied so that what a
product needs at a time lies side by side, unless it does.

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
from dataclasses import dataclass
from functools import partial

from graphopt.analysis.access import MOVES, Indices, Within
from graphopt.analysis.between import Between, made_of
from graphopt.analysis.derive import Derivation
from graphopt.analysis.products import axes_of
from graphopt.analysis.writing import INT64, TooLargeError
from graphopt.ir.index import Index, delinear, linear, variable
from graphopt.ir.index import number as number_index
from graphopt.ir.loop import SERIAL, Buffer, Load, Matrix, Position, Product, Store, Value
from graphopt.ir.node import Node
from graphopt.ir.op import PARAM

PANEL = 256
"""Bytes of the columns that a product has at a time: four vectors, and with all that is summed over in the first
cache."""

KEPT = 3 << 17
"""Bytes of all tiles of a block: less than half of a core's second cache."""

ROWS, MOST = 6, 24
"""Rows of which a block has a multiple, and those that it has at most: with 12 a core already computes as long as it
takes to have the right factors from the cache that all share."""

FACTORS = 1 << 23
"""Bytes of the right factors, of one matrix of several side by side, that every block reads: they are to stay in the
cache that all cores share."""


@dataclass(frozen=True, slots=True)
class _Panels:
    """A right factor, columns `width` at a time. where: the matrix of a panel, for its number and the indices of the
    axes that matrices are side by side along."""

    columns: int
    width: int
    where: Callable[[Indices, Index], Matrix]


def write_between(derivation: Derivation, found: Between) -> None:
    """The phases of a body: one for each right factor that is copied, then one over blocks of rows."""
    _Writer(derivation, found).write()


class _Writer:
    def __init__(self, derivation: Derivation, found: Between) -> None:
        self.d = derivation
        self.d.symmetries = {}  # an element is where its own row is computed, not in another's
        self.found = found
        first = found.first
        self.dtype = first.aval.dtype
        self.axes = axes_of(first)
        start = len(self.axes.batch[0])
        self.side = 0 if found.rows < start + len(self.axes.free[0]) else 1  # which factor has the rows
        self.extent, self.columns = first.aval.shape[found.rows], first.aval.shape[found.columns]
        self.summed = tuple(first.inputs[0].aval.shape[axis] for axis in self.axes.summed[0])
        self.length = math.prod(self.summed)
        self.widths = {last: self.factor(last).aval.shape[self.free(last)] for last in found.lasts}
        lefts = list(dict.fromkeys(self.left(last) for last in found.lasts))
        self.lefts = lefts
        self.in_place = len(lefts) == 1 and not found.crosses
        of_row = self.length + self.columns * (1 if self.in_place else 1 + len(lefts)) + sum(self.widths.values())
        most = min(MOST, KEPT // (of_row * self.dtype.itemsize))
        if most < min(ROWS, self.extent) or self.factors() > FACTORS:
            raise TooLargeError
        self.rows = self.extent if self.extent <= most else most - most % ROWS
        self.late = made_of(derivation.body, found.lasts)
        self.at: dict[int, Index] = {}  # of the axes of `first`, what a block or a row has

    def factors(self) -> int:
        """Bytes of the right factors of one matrix."""
        total: int = (self.length + sum(self.widths.values())) * self.columns * self.dtype.itemsize
        return total

    def given(self, last: Node) -> int:
        """Which factor of a last product is made of the large array."""
        return 0 if last.inputs[0] in self.found.labels else 1

    def left(self, last: Node) -> Node:
        """The factor of a last product that is made of the large array."""
        return last.inputs[self.given(last)]

    def factor(self, last: Node) -> Node:
        """The other one."""
        return last.inputs[1 - self.given(last)]

    def free(self, last: Node) -> int:
        """The axis of that factor which the result has."""
        return int(axes_of(last).free[1 - self.given(last)][0])

    def place_of_free(self, last: Node) -> int:
        """And that axis of the result."""
        return len(last.aval.shape) - 1 if self.given(last) == 0 else len(axes_of(last).batch[0])

    def write(self) -> None:
        """All phases."""
        right = self.panels_of_first()
        others = {last: self.panels_of_last(last) for last in self.found.lasts}
        extents = tuple(self.found.first.aval.shape[axis] for axis in self.found.others)
        leading = (*extents, -(-self.extent // self.rows))

        def write_block(index: Index) -> None:
            *at, block = self.places(index, leading)
            self.at = dict(zip(self.found.others, at, strict=True))
            self.block(block, right, others)

        self.d.phase(math.prod(leading), write_block)

    def places(self, index: Index, extents: tuple[int, ...]) -> list[Index]:
        """An iteration's places along axes, each a variable: what is divided is divided once."""
        found = zip(delinear(index, extents), extents, strict=True)
        return [self.place(at, extent) if at.divisions() else at for at, extent in found]

    def place(self, at: Index, extent: int) -> Index:
        """An index as a variable, which is known to be less than `extent`."""
        local = self.d.let(Position(at), INT64)
        self.d.bind(local.name)
        return variable(local.name, 0, extent - 1)

    # ---- right factors

    def panels_of_first(self) -> _Panels:
        """The factor of the first product that has the columns."""
        side, axes = 1 - self.side, self.axes
        node = self.found.first.inputs[side]
        free = axes.free[side]
        start = len(axes.batch[0]) + (len(axes.free[0]) if side else 0)
        place = free[self.found.columns - start]

        def at(batch: Indices, k: Index, j: Index) -> Indices:
            of = dict(zip(axes.batch[side], batch, strict=True))
            of |= dict(zip(axes.summed[side], delinear(k, self.summed), strict=True))
            return tuple(of.get(axis, j if axis == place else Index()) for axis in range(len(node.aval.shape)))

        return self.panels(node, axes.batch[side], self.length, self.columns, at)

    def panels_of_last(self, last: Node) -> _Panels:
        """The factor of a last product that is not made of the large array."""
        side, axes = 1 - self.given(last), axes_of(last)
        node, free = self.factor(last), self.free(last)
        (summed,) = axes.summed[side]

        def at(batch: Indices, k: Index, j: Index) -> Indices:
            of = {**dict(zip(axes.batch[side], batch, strict=True)), summed: k, free: j}
            return tuple(of[axis] for axis in range(len(node.aval.shape)))

        return self.panels(node, axes.batch[side], self.columns, self.widths[last], at)

    def panels(
        self,
        node: Node,
        batch: Sequence[int],
        length: int,
        columns: int,
        at: Callable[[Indices, Index, Index], Indices],
    ) -> _Panels:
        """A right factor of `length` by `columns`: as it lies in memory, or a copy."""
        width = min(columns, PANEL // int(self.dtype.itemsize))
        shape = tuple(node.aval.shape[axis] for axis in batch)
        if node.op is PARAM and self.is_in_rows(node, shape, length, columns, at):
            operand = self.d.inputs[node]

            def inside(indices: Indices, panel: Index) -> Matrix:
                return Matrix(operand, linear(at(indices, Index(), panel * width), node.aval.shape), (columns, 1))

            return _Panels(columns, width, inside)
        count = -(-columns // width)
        copy = self.d.new_scratch(self.dtype, math.prod(shape) * count * length * width)
        sizes = (*shape, count, length, width)
        # Loops go through what is read in order, as far as they can.
        is_inner = not at(tuple(Index() for _ in shape), Index(), variable("j", 0, 1))[-1].is_number

        def write(index: Index) -> None:
            *indices, panel = self.places(index, (*shape, count))
            name = self.d.name("j")
            column = variable(name, 0, width - 1)
            within: Within = ((panel * width + column, 0, columns),) if columns % width else ()

            def store(k: Index) -> None:
                value = self.d.value(node, at(tuple(indices), k, panel * width + column))
                self.d.add(Store(copy, linear((*indices, panel, k, column), sizes), value, node))

            def columns_of(write: Callable[[], None]) -> None:
                self.d.loop_over(name, width, SERIAL, write, within)

            if is_inner:
                self.d.loop(length, SERIAL, lambda k: columns_of(lambda: store(k)))
            else:
                columns_of(lambda: self.d.loop(length, SERIAL, store))

        self.d.phase(math.prod(shape) * count, write)

        def where(indices: Indices, panel: Index) -> Matrix:
            return Matrix(copy, linear((*indices, panel, Index(), Index()), sizes), (width, 1))

        return _Panels(columns, width, where)

    @staticmethod
    def is_in_rows(
        node: Node, shape: tuple[int, ...], length: int, columns: int, at: Callable[[Indices, Index, Index], Indices]
    ) -> bool:
        """Whether a factor lies in memory row by row, one behind the other."""
        k, j = variable("k", 0, max(length - 1, 1)), variable("j", 0, max(columns - 1, 1))
        place = linear(at(tuple(Index() for _ in shape), k, j), node.aval.shape)
        return place.coefficient("k") == columns and place.coefficient("j") == 1

    # ---- one block of rows

    def block(self, block: Index, right: _Panels, others: dict[Node, _Panels]) -> None:
        """Some rows: what the products make of them is in tiles."""
        d, found = self.d, self.found
        first = block * self.rows
        array = d.new_tile(self.dtype, self.rows * self.columns)
        self.multiply(array, self.first_rows(first), right, found.first, self.batch_of_first(), block)

        def kept_row(row: Index) -> Callable[[Indices], Value]:
            def element(at: Indices) -> Value:
                if any(at[axis] != index for axis, index in self.at.items()):
                    raise TooLargeError  # of another row, or another matrix
                return d.let(Load(array, row * self.columns + at[found.columns]), self.dtype, found.first, "x")

            return element

        lefts = {
            node: array if self.in_place or node is found.first else d.new_tile(self.dtype, array.size)
            for node in self.lefts
        }
        again = {node: d.new_tile(node.aval.dtype, self.rows) for node in self.needed_again()}
        early = [
            (node, buffer) for node, buffer in zip(d.body.outputs, d.outputs, strict=True) if node not in self.late
        ]

        def write_row(row: Index) -> None:
            d.combined[found.first] = kept_row(row)
            for node, buffer in early:
                at = self.indices(node, Index())
                d.add(Store(buffer, linear(at, node.aval.shape), d.value(node, at), node))
            for node, tile in again.items():
                d.add(Store(tile, row, d.value(node, self.indices(node, Index())), node))
            for node, tile in lefts.items():
                if node is not found.first:
                    self.write_columns(node, tile, row)

        if early or again or any(node is not found.first for node in lefts):
            self.over_rows(first, write_row)
        d.combined[found.first] = _gone
        results = {last: d.new_tile(self.dtype, self.rows * self.widths[last]) for last in found.lasts}
        for last, tile in results.items():
            rows = Matrix(lefts[self.left(last)], Index(), (self.columns, 1))
            self.multiply(tile, rows, others[last], last, self.batch_of_last(last), block)
        self.results(first, results, again)

    def over_rows(self, first: Index, write: Callable[[Index], None]) -> None:
        """A loop over the rows of a block that there are."""
        name = self.d.name("j")
        row = variable(name, 0, self.rows - 1) if self.rows > 1 else Index()
        within: Within = ((first + row, 0, self.extent),) if self.extent % self.rows else ()

        def write_row() -> None:
            self.at[self.found.rows] = self.place(first + row, self.extent) if within else first + row
            write(row)

        self.d.loop_over(name, self.rows, SERIAL, write_row, within)
        del self.at[self.found.rows]

    def first_rows(self, first: Index) -> Matrix:
        """A tile with the rows of the first product's left factor."""
        d, axes, side = self.d, self.axes, self.side
        node = self.found.first.inputs[side]
        tile = d.new_tile(self.dtype, self.rows * self.length)
        start = len(axes.batch[0]) + (len(axes.free[0]) if side else 0)

        def write_row(row: Index) -> None:
            of = {axis: self.at[k] for k, axis in enumerate(axes.batch[side])}
            of |= {axis: self.at.get(start + k, Index()) for k, axis in enumerate(axes.free[side])}

            def store(k: Index) -> None:
                at = of | dict(zip(axes.summed[side], delinear(k, self.summed), strict=True))
                value = d.value(node, tuple(at[axis] for axis in range(len(node.aval.shape))))
                d.add(Store(tile, row * self.length + k, value, node))

            d.loop(self.length, SERIAL, store)

        self.over_rows(first, write_row)
        return Matrix(tile, Index(), (self.length, 1))

    def write_columns(self, node: Node, tile: Buffer, row: Index) -> None:
        """A row of what a last product sums over."""

        def store(column: Index) -> None:
            value = self.d.value(node, self.indices(node, column))
            self.d.add(Store(tile, row * self.columns + column, value, node))

        self.d.loop(self.columns, SERIAL, store)

    def indices(self, node: Node, column: Index) -> Indices:
        """The indices of an element of a node, in the row that is being computed."""
        of = {self.found.columns: column, **self.at}
        sizes = zip(self.found.labels[node], node.aval.shape, strict=True)
        return tuple(Index() if label is None or size == 1 else of[label] for label, size in sizes)

    def batch_of_first(self) -> Indices:
        """Which matrix of the first product's right factors it is."""
        return tuple(self.at[k] for k in range(len(self.axes.batch[0])))

    def batch_of_last(self, last: Node) -> Indices:
        """And of a last product's."""
        labels = self.found.labels[self.left(last)]
        named = [labels[axis] for axis in axes_of(last).batch[self.given(last)]]
        return tuple(Index() if label is None else self.at[label] for label in named)

    def multiply(self, to: Buffer, left: Matrix, right: _Panels, node: Node, batch: Indices, block: Index) -> None:
        """A product of the rows that a block has, a panel after the other."""
        length = self.length if node is self.found.first else self.columns

        def of(rows: int) -> None:
            def panel(number: Index, width: int) -> None:
                part = Matrix(to, number * right.width, (right.columns, 1))
                self.d.add(Product(part, left, right.where(batch, number), rows, width, length, node))

            whole, rest = divmod(right.columns, right.width)
            self.d.loop(whole, SERIAL, lambda number: panel(number, right.width))
            if rest:
                panel(number_index(whole), rest)

        whole, rest = divmod(self.extent, self.rows)
        last = (lambda: of(rest),) if rest else ()
        self.d.condition(((block, 0, whole),), lambda: of(self.rows), *last)

    # ---- what is made of the last products

    def needed_again(self) -> list[Node]:
        """What rows have a number of each, that is needed with the last products."""
        lasts, labels = self.found.lasts, self.found.labels
        found: dict[Node, None] = {}
        stack = [n for node in self.late if node not in lasts for n in node.inputs]
        while stack:
            node = stack.pop()
            if node in labels and node not in self.late and node not in found:
                sizes = zip(labels[node], node.aval.shape, strict=True)
                of_rows = self.found.columns not in labels[node] and node.op not in MOVES
                if of_rows and all(label is not None or size == 1 for label, size in sizes):
                    found[node] = None
                else:
                    stack += node.inputs
        return [node for node in self.d.body.nodes if node in found]

    def results(self, first: Index, results: dict[Node, Buffer], again: dict[Node, Buffer]) -> None:
        """Stores what is made of the last products."""
        d, found = self.d, self.found
        outputs = [(n, buffer) for n, buffer in zip(d.body.outputs, d.outputs, strict=True) if n in self.late]

        def write_row(row: Index) -> None:
            for node, tile in again.items():
                d.combined[node] = self.of_row(node, partial(_in_row, tile, row))
            for last, tile in results.items():
                place, width = self.place_of_free(last), self.widths[last]

                def load(at: Indices, tile: Buffer = tile, place: int = place, width: int = width) -> Load:
                    return Load(tile, row * width + at[place])

                d.combined[last] = self.of_row(last, load)
            for node, buffer in outputs:
                labels, shape = found.labels[node], node.aval.shape
                free = [axis for axis, label in enumerate(labels) if label is None and shape[axis] > 1]

                def store(inner: Indices, node: Node = node, buffer: Buffer = buffer, free: list[int] = free) -> None:
                    at = list(self.indices(node, Index()))
                    for axis, index in zip(free, inner, strict=True):
                        at[axis] = index
                    d.add(Store(buffer, linear(tuple(at), node.aval.shape), d.value(node, tuple(at)), node))

                d.loops([shape[axis] for axis in free], store, False)

        self.over_rows(first, write_row)

    def of_row(self, node: Node, load: Callable[[Indices], Load]) -> Callable[[Indices], Value]:
        """How an element of a node is found in a tile: it must be one of the row that is being computed."""
        labels, here = self.found.labels[node], dict(self.at)

        def element(at: Indices) -> Value:
            for index, label, size in zip(at, labels, node.aval.shape, strict=True):
                if label is not None and size > 1 and index != here[label]:
                    raise TooLargeError
            found = load(at)
            return self.d.let(found, found.buffer.dtype, node, "x")

        return element


def _in_row(tile: Buffer, row: Index, at: Indices) -> Load:
    """The number of a row."""
    return Load(tile, row)


def _gone(at: Indices) -> Value:
    """An element of the large array after it was written over."""
    raise TooLargeError
