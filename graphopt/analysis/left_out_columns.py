"""Columns of a masked softmax that a block of rows leaves out, and what there would have been of them.

All that the mask has put in is one number, so that a row of a block has the same weight in each of these columns. The
maximum of the row is that of the columns that are there and of this number, the sum gets the weight as often as columns
are left out, and a product with other rows gets the weight times their sum; where the weight is 0, as it mostly is, 0
times each of them, which is NaN where one is not finite. The result is that of all columns, its sums in another order,
whatever the mask puts in.

Loop program of 24 rows, the columns that they need being those up to the last of these rows:
    reduction r36 < 2048 where r36 < 64 * ((24 * v19 + 87) // 64): ...
    serial j24 < 32 where 64 * j24 < 24 * v19 + 24:
      tile2[...] += tile0[64 * j24 ...] @ in2[4096 * j24 ...], (24, 64) @ (64, 64)
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from jax.extend.core import primitives as p

from graphopt.analysis.access import Indices, Within, always
from graphopt.analysis.between import RowProduct
from graphopt.analysis.derive import CLAMP, NE, SELECT, Derivation
from graphopt.analysis.masked_columns import DIV, EXP, SUB, Band, Softmax, moved_from
from graphopt.analysis.panels import places
from graphopt.analysis.reductions import ADD, MAX, MUL
from graphopt.analysis.writing import INT64
from graphopt.ir.attrs import EMPTY
from graphopt.ir.index import Index, linear, variable
from graphopt.ir.loop import SERIAL, Apply, Buffer, Literal, Load, Position, Store, Value
from graphopt.ir.node import Node
from graphopt.ir.op import Op, op_of

EQ = op_of(p.eq_p)


@dataclass(frozen=True, slots=True)
class _Sums:
    """Over the rows that a product has for the columns of each panel: of these, and of 0 times these.

    sizes: of the axes of matrices and panels, and of a row. scale: what the first are multiplied with, so that they are
    finite where the rows are.
    """

    of: Buffer
    of_none: Buffer
    sizes: tuple[int, ...]
    scale: float


class LeftOut:
    """Writes what belongs to columns that are left out.

    weights: tiles of what each row of a block has in these columns, by the factors of products. sums: by products, and
    totals: tiles of those of the columns that a block leaves out.
    """

    def __init__(self, derivation: Derivation, softmax: Softmax, band: Band) -> None:
        self.d, self.softmax, self.band = derivation, softmax, band
        self.dtype = softmax.weights.aval.dtype
        self.weights: dict[Node, Buffer] = {}
        self.sums: dict[Node, _Sums] = {}
        self.totals: dict[Node, tuple[Buffer, Buffer]] = {}

    def write_sums(self, product: RowProduct) -> None:
        """The phase that sums the rows that a product has for the columns of each panel."""
        d, node, axes, band = self.d, product.right, product.axes, self.band
        batch, (summed,) = axes.batch[1 - product.side], axes.summed[1 - product.side]
        sizes = (*(node.aval.shape[axis] for axis in batch), band.panels, product.width)
        sums = [d.new_scratch(self.dtype, math.prod(sizes)) for _ in range(2)]
        scale = 2.0 ** -math.ceil(math.log2(band.extent))

        def write(index: Index) -> None:
            *matrix, panel = places(d, index, sizes[:-1])
            start = linear((*matrix, panel, Index()), sizes)

            def clear(k: Index) -> None:
                for buffer in sums:
                    d.add(Store(buffer, start + k, self._number(0.0)))

            d.loop(product.width, SERIAL, clear)
            name = d.name("j")
            column = panel * band.width + variable(name, 0, band.width - 1)
            known = dict(zip(batch, matrix, strict=True)) | {summed: column}

            def add(k: Index) -> None:
                at = known | {product.free: k}
                element = d.value(node, tuple(at.get(axis, Index()) for axis in range(len(node.aval.shape))))
                for buffer, factor in zip(sums, (scale, 0.0), strict=True):
                    before = d.let(Load(buffer, start + k), self.dtype, None, "x")
                    term = self._applied(MUL, element, self._number(factor))
                    d.add(Store(buffer, start + k, self._applied(ADD, before, term)))

            within: Within = ((column, 0, band.extent),) if band.extent % band.width else ()
            d.loop_over(name, band.width, SERIAL, lambda: d.loop(product.width, SERIAL, add), within)

        d.phase(math.prod(sizes[:-1]), write)
        self.sums[product.node] = _Sums(sums[0], sums[1], sizes, scale)

    def make_tiles(self, products: Sequence[RowProduct], rows: int) -> None:
        """The tiles of a block."""
        for product in products:
            if product.node in self.sums:
                tiles = [self.d.new_tile(self.dtype, product.width) for _ in range(2)]
                self.totals[product.node] = tiles[0], tiles[1]
                if product.left not in self.weights:
                    self.weights[product.left] = self.d.new_tile(self.dtype, rows)

    def leave_out(self, block: Index) -> None:
        """From here on rows are those of a block, and what is reduced has the columns that it needs."""
        within = partial(self.band.has_column, block)
        for node in (self.softmax.greatest, *self.softmax.sums):
            self.d.within[node] = within
            self.d.combined[node] = partial(self.reduced, node, block)

    def keep_weight(self, factor: Node, block: Index, row: Index, at: Indices) -> None:
        """Stores what a row has in each column that is left out. at: the row's place in what is reduced."""
        d, weight = self.d, self.outside(at)
        if factor in self.softmax.quotients:
            total = d.value(moved_from(factor.inputs[1]), at)
            weight = d.let(Apply(DIV, factor.attrs, (weight, total)), self.dtype)
        weight = self._chosen(self.are_any(block), weight, self._number(0.0))
        d.add(Store(self.weights[factor], row, weight))

    def begin(self, product: RowProduct, to: Buffer, rows: int, matrix: Indices, block: Index) -> None:
        """Writes what the columns that are left out add to some rows of a product, side by side in a buffer."""
        d, sums, width = self.d, self.sums[product.node], product.width
        totals = self.totals[product.node]

        def clear(k: Index) -> None:
            for total in totals:
                d.add(Store(total, k, self._number(0.0)))

        d.loop(width, SERIAL, clear)
        for within_of in (0, 1):
            name = d.name("j")
            panel = variable(name, 0, self.band.panels - 1)
            within = self.band.sides(block, panel)[within_of]
            if always(within) is not False:
                start = linear((*matrix, panel, Index()), sums.sizes)
                d.loop_over(name, self.band.panels, SERIAL, partial(self.add, sums, totals, start), within)
        weights = self.weights[product.left]

        def of_row(row: Index) -> None:
            weight = d.let(Load(weights, row), self.dtype, None, "x")
            scaled = self._applied(MUL, weight, self._number(1 / sums.scale))
            is_none = d.let(Apply(EQ, EMPTY, (weight, self._number(0.0))), np.bool_)

            def of_place(k: Index) -> None:
                total, none = (d.let(Load(tile, k), self.dtype, None, "x") for tile in totals)
                d.add(Store(to, row * width + k, self._chosen(is_none, none, self._applied(MUL, scaled, total))))

            d.loop(width, SERIAL, of_place)

        d.loop(rows, SERIAL, of_row)

    def add(self, sums: _Sums, totals: tuple[Buffer, Buffer], start: Index) -> None:
        """Adds the sums of a panel."""
        d = self.d

        def add(k: Index) -> None:
            for buffer, total in zip((sums.of, sums.of_none), totals, strict=True):
                before = d.let(Load(total, k), self.dtype, None, "x")
                more = d.let(Load(buffer, start + k), self.dtype, None, "x")
                d.add(Store(total, k, self._applied(ADD, before, more)))

        d.loop(sums.sizes[-1], SERIAL, add)

    # ---- one row

    def reduced(self, node: Node, block: Index, at: Indices) -> Value:
        """A maximum or a sum of a row's columns, those that are left out too."""
        found = self.d.reduction(node, at)
        if node is self.softmax.greatest:
            other = self._applied(MAX, found, self._number(self.softmax.fill))
        else:
            count = self.d.converted(self.count(block), self.dtype)
            other = self._applied(ADD, found, self._applied(MUL, count, self.outside(at)))
        return self._chosen(self.are_any(block), other, found)

    def outside(self, at: Indices) -> Value:
        """The exponential that a row has in each column that is left out."""
        d, softmax = self.d, self.softmax

        def write() -> Value:
            operands = (self._number(softmax.fill), d.value(softmax.greatest, at))
            shifted = d.let(Apply(SUB, softmax.shifted.attrs, operands), self.dtype)
            return d.let(Apply(EXP, softmax.weights.attrs, (shifted,)), self.dtype)

        return d.once(("outside", at), at, write)

    def count(self, block: Index) -> Value:
        """How many columns a block leaves out."""
        d, extent = self.d, self.band.extent

        def write() -> Value:
            ends = [d.let(Position(at), INT64) for at in self.band.range(block)]
            limits = (Literal(np.int64(0)), Literal(np.int64(extent)))
            begin, end = (d.let(Apply(CLAMP, EMPTY, (limits[0], at, limits[1])), INT64) for at in ends)
            kept = d.let(Apply(SUB, EMPTY, (end, begin)), INT64)
            return d.let(Apply(SUB, EMPTY, (limits[1], kept)), INT64)

        return d.once(("left out", block), (block,), write)

    def are_any(self, block: Index) -> Value:
        """Whether a block leaves out any."""
        none = Literal(np.int64(0))
        return self.d.once(
            ("are any left out", block),
            (block,),
            lambda: self.d.let(Apply(NE, EMPTY, (self.count(block), none)), np.bool_),
        )

    def _number(self, value: float) -> Literal:
        return Literal(self.dtype.type(value))

    def _applied(self, op: Op, one: Value, other: Value) -> Value:
        return self.d.let(Apply(op, EMPTY, (one, other)), self.dtype)

    def _chosen(self, condition: Value, yes: Value, no: Value) -> Value:
        return self.d.let(Apply(SELECT, EMPTY, (condition, no, yes)), self.dtype)
