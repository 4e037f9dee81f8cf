"""Sorts of few long rows as loop programs: in each phase all threads have shares of every row."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import numpy as np

from graphopt.analysis.derive import Derivation
from graphopt.analysis.reductions import ADD
from graphopt.analysis.sort_keys import apply
from graphopt.analysis.sort_rows import Rows
from graphopt.ir.index import Index, delinear, variable
from graphopt.ir.loop import SERIAL, SORT_STEPS, Buffer, Load, SortStep, Store, Value, table_size
from graphopt.ir.node import Node

FEW, LONG = 8, 1 << 15
"""Rows below which they are sorted by all threads together, and elements of one from which on: it takes more steps."""

SHARES, LEAST = 16, 1 << 13
"""Into how many shares a row is divided, and how many elements each has at least."""


class Together(Rows):
    """Few long rows, by one key."""

    def __init__(self, derivation: Derivation, node: Node) -> None:
        super().__init__(derivation, node)
        self.shares = max(1, min(SHARES, self.count // LEAST, math.isqrt(self.count)))
        self.keys_of, self.to_keys = (derivation.new_scratch(self.key_dtype, self.rows * self.count) for _ in range(2))
        self.places, self.to_places = self.new_places(), self.new_places()
        self.table = derivation.new_scratch(np.uint64, self.rows * table_size(self.shares))

    def write(self) -> None:
        """A phase for each step, one for the results, and one for the zeros in them."""
        d, phases = self.derivation, self.rows * self.shares
        for step in SORT_STEPS:
            d.phase(phases, partial(self.step, step))
        if not self.has_zeros:
            d.phase(phases, self.give_share)
            return
        counts = d.new_scratch(np.int64, phases)

        def give(number: Index) -> None:
            self.give_share(number)
            d.add(Store(counts, number, self.below_in_share(number)))

        d.phase(phases, give)
        d.phase(self.rows, lambda row: self.restore_zeros(row, self.below_in_row(row, counts)))

    def step(self, step: str, number: Index) -> None:
        """One share of a row in one step. Before the first one there are its keys."""
        if step == SORT_STEPS[0]:
            self.loop_over_share(number, lambda row, j: self.prepare(row, j, self.keys_of, self.places))
        row, share = delinear(number, (self.rows, self.shares))
        buffers = (self.keys_of, self.places, self.to_keys, self.to_places, self.table)
        self.derivation.add(SortStep(step, *buffers, row, self.count, share, self.shares))

    def give_share(self, number: Index) -> None:
        """The results in one share of a row."""

        def give(row: Index, j: Index) -> None:
            self.give(row, j, self.to_keys, self.to_places, row * self.count + j)

        self.loop_over_share(number, give)

    def loop_over_share(self, number: Index, write: Callable[[Index, Index], None]) -> None:
        """A loop over one share of a row."""
        d, each = self.derivation, -(-self.count // self.shares)
        row, share = delinear(number, (self.rows, self.shares))
        step = variable(d.name("j"), 0, each - 1)
        (name,) = step.variables()
        j = share * each + step
        within = ((j, 0, self.count),) if each * self.shares > self.count else ()
        d.loop_over(name, each, SERIAL, lambda: write(row, j), within)

    def sorted_key(self, row: Index, j: Index) -> Value:
        """An element of a row in order."""
        return self.derivation.let(Load(self.to_keys, row * self.count + j), self.key_dtype, self.node)

    def below_in_share(self, number: Index) -> Value:
        """How many keys are below zero in one of as many shares of equal size as there are."""
        row, share = delinear(number, (self.rows, self.shares))
        each = self.count // self.shares
        return self.below([([each], lambda r: self.sorted_key(row, share * each + r[0]))])

    def below_in_row(self, row: Index, counts: Buffer) -> Value:
        """How many there are in a row: in its shares, and in what is left over."""
        d, each = self.derivation, self.count // self.shares
        found = self.sum([([self.shares], lambda r: d.let(Load(counts, row * self.shares + r[0]), np.int64))])
        left = self.count - each * self.shares
        if not left:
            return found
        others = self.below([([left], lambda r: self.sorted_key(row, r[0] + each * self.shares))])
        return apply(d, ADD, np.int64, found, others)
