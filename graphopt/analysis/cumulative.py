"""Cumulative operations along another axis than the last: all columns of a block at once, their totals in a tile.

Body:
    %1: f32[4096,1000] = cumsum[axis=0, reverse=False](%0)
Loop program, where it is not cut into parts:
    parallel i1 < 1:
      vector l2 < 1000:
        tile0[l2] = 0.0
      serial j3 < 4096:
        vector l2 < 1000:
          v4: f64 = tile0[l2]
          x5: f32 = in0[1000 * j3 + l2]
          v6: f64 = convert_element_type(x5)
          v7: f64 = add(v4, v6)
          tile0[l2] = v7
          v8: f32 = convert_element_type(v7)
          out0[1000 * j3 + l2] = v8
"""

from __future__ import annotations

import math
from collections.abc import Callable

from graphopt.analysis.access import Indices, Within, always
from graphopt.analysis.accumulation import BLOCK
from graphopt.analysis.columns import FEW, PART, PARTS, WIDTH, Columns, store_by_columns, width_of
from graphopt.analysis.derive import Derivation
from graphopt.analysis.folds import Fold, Writer, combining
from graphopt.analysis.reductions import CUMULATIVE
from graphopt.analysis.running import kept_as
from graphopt.ir.attrs import EMPTY
from graphopt.ir.index import Index, delinear, linear, variable
from graphopt.ir.loop import SERIAL, Apply, Buffer, Literal, Load, Store, Value
from graphopt.ir.node import Node

WIDE = 8
"""Columns from which on they are accumulated side by side."""


def is_beside(node: Node) -> bool:
    """Whether a node is a cumulative operation with enough results side by side that do not wait for each other."""
    return node.op in CUMULATIVE and node.attrs["axis"] < len(node.aval.shape) - 1 and node.aval.shape[-1] >= WIDE


def accumulate_columns(derivation: Derivation, node: Node) -> None:
    """The phases of such an operation. Few columns are cut into parts: the first phase finds what each comes to."""
    _Accumulation(derivation, node).write()


class _Accumulation:
    def __init__(self, derivation: Derivation, node: Node) -> None:
        self.derivation, self.node = derivation, node
        self.shape, self.axis = node.aval.shape, node.attrs["axis"]
        self.others = (*self.shape[: self.axis], *self.shape[self.axis + 1 :])
        self.length = int(self.shape[self.axis])
        self.reduction, self.dtype = CUMULATIVE[node.op], kept_as(node, self.length > BLOCK)
        self.each = -(-self.length // self.wanted_parts())
        self.parts = -(-self.length // self.each)
        self.of_parts = (self.parts, *self.others)

    def wanted_parts(self) -> int:
        """How many parts there should be, where columns alone are too few for all threads."""
        columns = int(self.shape[-1])
        if math.prod(self.others[:-1]) * -(-columns // WIDTH) >= FEW:
            return 1
        return max(1, min(PARTS, self.length // 2, self.length * columns // PART))

    def write(self) -> None:
        """A phase for what each part comes to, if there are parts, and one that goes through them all."""
        totals: list[Buffer] = []
        if self.parts > 1:
            totals = store_by_columns(self.derivation, self.node, self.of_parts, self.of_part)
        width = width_of(self.shape[-1])
        leading = (*self.of_parts[:-1], -(-self.shape[-1] // width))

        def write(index: Index) -> None:
            *row, block = delinear(index, leading)
            columns = Columns(self.derivation, block, width, self.shape[-1])
            at = (*row, columns.column)
            (tile,) = columns.fill(self.before(at, totals), self.node)
            self.run(at, columns, tile)

        self.derivation.phase(math.prod(leading), write)

    def place(self, at: Indices, step: Index) -> Indices:
        """The indices of a step of the row that part and column `at` are of."""
        place = step * -1 + (self.length - 1) if self.node.attrs["reverse"] else step
        return (*at[1 : 1 + self.axis], place, *at[1 + self.axis :])

    def element(self, writer: Writer, at: Indices, step: Index) -> Value:
        """What is combined in a step."""
        return writer.converted(writer.value(self.node.inputs[0], self.place(at, step)), self.dtype)

    def inside(self, step: Index) -> Within:
        """Whether there is such a step: the last part may be shorter."""
        return ((step, 0, self.length),)

    def of_part(self, at: Indices) -> Fold:
        """All steps of a part."""
        start = at[0] * self.each
        return self.fold(
            self.each, lambda writer, r: self.element(writer, at, start + r[0]), lambda r: self.inside(start + r[0])
        )

    def before(self, at: Indices, totals: list[Buffer]) -> Fold:
        """What the parts before one come to."""

        def element(writer: Writer, r: Indices) -> Value:
            return writer.let(Load(totals[0], linear((*r, *at[1:]), self.of_parts)), self.dtype)

        # The last one is before none: with one part there is nothing to be combined.
        return self.fold(self.parts - 1, element, lambda r: ((at[0] - r[0], 1, self.parts),))

    def fold(
        self, extent: int, element: Callable[[Writer, Indices], Value], within: Callable[[Indices], Within]
    ) -> Fold:
        """The operation over so many elements."""
        start = Literal(self.reduction.start(self.dtype))
        return Fold(
            (self.dtype,),
            lambda writer: [start],
            (extent,),
            lambda writer, r: [element(writer, r)],
            combining(self.reduction.combine),
            within,
        )

    def run(self, at: Indices, columns: Columns, tile: Buffer) -> None:
        """The steps of a part, each stored."""
        d, (out,) = self.derivation, self.derivation.outputs

        def step_of(step: Index) -> None:
            def combine() -> None:
                total = d.let(Load(tile, columns.lane), tile.dtype)
                combined = d.let(Apply(self.reduction.combine, EMPTY, (total, self.element(d, at, step))), self.dtype)
                d.spend(self.node)
                d.add(Store(tile, columns.lane, combined))
                result = d.converted(combined, self.node.aval.dtype)
                d.add(Store(out, linear(self.place(at, step), self.shape), result))

            columns.vector(combine)

        start = at[0] * self.each
        if self.each == 1:
            return step_of(start)
        name = d.name("j")
        step = start + variable(name, 0, self.each - 1)
        within = () if always(self.inside(step)) else self.inside(step)
        return d.loop_over(name, self.each, SERIAL, lambda: step_of(step), within)
