"""Cumulative operations along rows: rows side by side, or, of few long ones, parts side by side.

Of parts, the first phase combines each; in the second, each begins with what those before it come to.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from graphopt.analysis import parts
from graphopt.analysis.access import Indices
from graphopt.analysis.derive import Derivation
from graphopt.analysis.folds import Fold, Values
from graphopt.analysis.ordered import accumulator
from graphopt.analysis.reductions import CUMULATIVE
from graphopt.analysis.running import Running, running
from graphopt.ir.index import Index, delinear
from graphopt.ir.index import number as number_index
from graphopt.ir.loop import SERIAL, Load, Local, Set, Store, Value
from graphopt.ir.node import Node

BLOCK = 64
"""Elements of a running sum that are added one after the other as they are; the sums of blocks have more digits."""


def accumulate(derivation: Derivation, node: Node) -> None:
    """The phases of a cumulative operation."""
    _Accumulation(derivation, node).write()


class _Accumulation:
    """rows, length: how many rows there are, and elements in each. short: what is kept of a block of a row; kept: and
    of all before it."""

    def __init__(self, derivation: Derivation, node: Node) -> None:
        self.d = derivation
        self.node = node
        axis, shape = node.attrs["axis"], node.aval.shape
        self.axis = axis
        self.others = (*shape[:axis], *shape[axis + 1 :])
        self.rows, self.length = math.prod(self.others), shape[axis]
        self.stride = math.prod(shape[axis + 1 :])
        self.kept, self.short = running(node, self.length > BLOCK), running(node)

    def write(self) -> None:
        """All phases."""
        if self.rows >= parts.FEW or self.length < parts.LONG:
            self.d.phase(self.rows, lambda row: self.run(row, Index(), self.length, self.starts(self.kept)))
        else:
            self.write_parts()

    # ---- elements

    def place(self, row: Index, step: Index) -> Indices:
        """The indices of an element of a row."""
        at = delinear(row, self.others)
        along = step * -1 + (self.length - 1) if self.node.attrs["reverse"] else step
        return (*at[: self.axis], along, *at[self.axis :])

    def taken(self, row: Index, step: Index) -> Values:
        """What is taken of an element."""
        return self.short.taken(self.d, self.d.value(self.node.inputs[0], self.place(row, step)))

    def store(self, row: Index, step: Index, values: Values) -> None:
        """Stores an element of the result."""
        (buffer,) = self.d.outputs
        outer, inner = row // self.stride, row % self.stride
        result = self.d.converted(self.short.given(self.d, values), self.node.aval.dtype)
        along = self.place(row, step)[self.axis] * self.stride
        self.d.add(Store(buffer, outer * (self.stride * self.length) + along + inner, result))

    def starts(self, of: Running) -> list[Local]:
        """What is kept before the first element."""
        return [self.d.let(start, start.dtype, None, "a") for start in of.starts]

    def add(self, totals: list[Local], more: Values, to: Running) -> None:
        """Combines what is kept with more."""
        for total, value in zip(totals, to.combine(self.d, list(totals), more), strict=True):
            self.d.add(Set(total, value))

    # ---- a row

    def run(self, row: Index, start: Index, count: int, totals: list[Local]) -> None:
        """Some elements of a row, one after the other, in blocks where sums of these have more digits."""
        if self.kept.dtypes == self.short.dtypes:
            self.d.loop(count, SERIAL, lambda j: self.element(row, start + j, totals))
            return
        whole, rest = divmod(count, BLOCK)
        self.d.loop(whole, SERIAL, lambda number: self.block(row, start + number * BLOCK, BLOCK, totals))
        if rest:
            self.block(row, start + whole * BLOCK, rest, totals)

    def element(self, row: Index, step: Index, totals: list[Local]) -> None:
        """One more element, and its result."""
        self.add(totals, self.taken(row, step), self.kept)
        self.d.spend(self.node)
        self.store(row, step, list(totals))

    def block(self, row: Index, start: Index, count: int, totals: list[Local]) -> None:
        """Some elements that are combined for themselves, and then with what is before them."""
        before = self.converted(totals, self.short)
        within = self.starts(self.short)

        def write(j: Index) -> None:
            self.add(within, self.taken(row, start + j), self.short)
            self.d.spend(self.node)
            self.store(row, start + j, self.short.combine(self.d, before, list(within)))

        self.d.loop(count, SERIAL, write)
        self.add(totals, self.converted(within, self.kept), self.kept)

    def converted(self, values: Sequence[Value], of: Running) -> list[Value]:
        """Values as others are kept."""
        return [self.d.converted(value, dtype) for value, dtype in zip(values, of.dtypes, strict=True)]

    # ---- parts of a row

    def write_parts(self) -> None:
        """Two phases: what parts come to, and their elements."""
        each, left = divmod(self.length, parts.PARTS)
        buffers = [self.d.new_scratch(dtype, self.rows * parts.PARTS) for dtype in self.kept.dtypes]

        def total(index: Index) -> None:
            row, number = delinear(index, (self.rows, parts.PARTS))
            for buffer, value in zip(buffers, self.total(row, number * each, each), strict=True):
                self.d.add(Store(buffer, index, value))

        def part(index: Index) -> None:
            row, number = delinear(index, (self.rows, parts.PARTS))
            totals = self.starts(self.kept)

            def add_earlier(r: Index) -> None:
                loads: list[Value] = [self.d.let(Load(b, row * parts.PARTS + r), b.dtype) for b in buffers]
                self.add(totals, loads, self.kept)

            def earlier(r: Index) -> None:
                self.d.condition(((number - r, 1, parts.PARTS),), lambda: add_earlier(r))

            self.d.loop(parts.PARTS, SERIAL, earlier)
            self.run(row, number * each, each, totals)
            if left:
                last = ((number, parts.PARTS - 1, parts.PARTS),)
                self.d.condition(last, lambda: self.run(row, number_index(parts.PARTS * each), left, totals))

        self.d.phase(self.rows * parts.PARTS, total)
        self.d.phase(self.rows * parts.PARTS, part)

    def total(self, row: Index, start: Index, count: int) -> Sequence[Value]:
        """What some elements of a row come to."""
        if self.node.op in CUMULATIVE:  # one value, whose combinations may be done side by side
            of_all = accumulator(CUMULATIVE[self.node.op], self.node.aval.dtype)
            elements = ([count], lambda r: self.taken(row, start + r[0])[0])
            return self.converted([self.d.reduced([elements], of_all, self.node)], self.kept)
        fold = Fold(
            self.kept.dtypes,
            lambda writer: list(self.kept.starts),
            (count,),
            lambda writer, r: self.taken(row, start + r[0]),
            self.kept.combine,
        )
        return self.d.folded(fold, self.node)
