"""Sorts as loop programs: keys made into unsigned integers of the same order, sorted, and what belongs to them fetched.

The order is that of `jax.lax.sort`: -0.0 and 0.0 are equal, NaNs are equal and last. Rows are sorted side by side, and
few long ones by all threads together. What goes with keys of 32 bits is known by its place, which is beside the key in
one of 64.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from jax.extend.core import primitives as p

from graphopt.analysis.derive import Derivation
from graphopt.analysis.sort_keys import PLACE, key_dtype, to_key
from graphopt.analysis.sort_rows import Rows
from graphopt.analysis.sort_together import FEW, LONG, Together
from graphopt.ir.index import Index, variable
from graphopt.ir.loop import SERIAL, Buffer, Position, Sort, Store
from graphopt.ir.loop import VECTOR as VECTORS
from graphopt.ir.node import Node
from graphopt.ir.op import op_of

SORT = op_of(p.sort_p)

BESIDE, MOST = 16, 1 << 13
"""Rows from which on they are sorted side by side, and elements of one up to which: comparisons grow faster than with
the length."""

VECTOR = 64
"""Bytes of a vector."""

SHARES = 16
"""Into how many shares blocks of rows are divided, each with memory for the keys of one."""


def declined_sort(node: Node) -> str | None:
    """Why no kernel is made of a sort; None where one is.

    Kernels sort stably. An unstable sort may give what belongs to equal keys in any order, but one program is to have
    one result: it stays with the engine whose order its author has seen.
    """
    keys = node.attrs["num_keys"]
    if any(n.aval.dtype.kind == "c" for n in node.inputs[:keys]):
        return "sort by complex keys"
    if not node.attrs["is_stable"] and keys < len(node.inputs):
        return "an unstable sort of more than its keys, in which the order of equal keys is XLA's"
    if node.inputs[0].aval.shape[node.attrs["dimension"]] >= 1 << (PLACE - 1):
        return "a sort of rows whose places are no int32"
    return None


def sort(derivation: Derivation, node: Node) -> None:
    """The phases of a sort of any number of operands by the first `num_keys` of them.

    Phases over blocks of as many rows as there are in a vector, over shares of rows, or over rows.
    """
    rows = Rows(derivation, node)
    lanes = VECTOR // rows.key_dtype.itemsize
    if rows.is_alone and rows.rows >= BESIDE and 1 < rows.count <= MOST:
        _Beside(derivation, node, lanes).write()
    elif len(rows.keys) == 1 and rows.rows < FEW and rows.count >= LONG:
        Together(derivation, node).write()
    elif len(rows.keys) == 1:
        _ByOne(derivation, node).write()
    else:
        _BySeveral(derivation, node).write()


class _ByOne(Rows):
    """Each row by one thread, by one key."""

    def write(self) -> None:
        d = self.derivation
        keys, places = d.new_scratch(self.key_dtype, self.rows * self.count), self.new_places()

        def row(index: Index) -> None:
            start = index * self.count
            d.loop(self.count, SERIAL, lambda j: self.prepare(index, j, keys, places))
            d.add(Sort(keys, places, start, self.count))
            d.loop(self.count, SERIAL, lambda j: self.give(index, j, keys, places, start + j))
            if self.has_zeros:
                self.restore_row(index)

        d.phase(self.rows, row)


class _Beside(Rows):
    """Many short rows: blocks of them, in which an element of each is in one vector.

    Rows along the last axis are prepared one after the other, as they are in memory: what sorts them puts them side by
    side and back, which takes it a fifth of what loads and stores of single elements take.
    """

    def __init__(self, derivation: Derivation, node: Node, lanes: int) -> None:
        super().__init__(derivation, node)
        self.lanes = lanes
        self.by_rows = self.axis == len(self.shape) - 1

    def write(self) -> None:
        """Memory for keys is needed for few of the blocks."""
        d = self.derivation
        blocks = -(-self.rows // self.lanes)
        shares = min(blocks, SHARES)
        keys = d.new_scratch(self.key_dtype, shares * self.count * self.lanes)

        def block(number: Index, start: Index) -> None:
            lane = variable(d.name("l"), 0, self.lanes - 1)
            (name,) = lane.variables()
            row = number * self.lanes + lane
            within = ((row, 0, self.rows),) if self.rows % self.lanes else ()

            def one_row(write: Callable[[Index, Index], None]) -> None:
                d.loop(self.count, SERIAL, lambda j: write(j, start + lane * self.count + j))

            def beside(write: Callable[[Index, Index], None]) -> None:
                def step(j: Index) -> None:
                    d.loop_over(name, self.lanes, VECTORS, lambda: write(j, start + j * self.lanes + lane), within)

                if self.by_rows:
                    d.loop_over(name, self.lanes, SERIAL, lambda: one_row(write), within)
                else:
                    d.loop(self.count, SERIAL, step)

            def store(j: Index, at: Index) -> None:
                d.add(Store(keys, at, self.key(row, j)))

            def back(j: Index, at: Index) -> None:
                self.give(row, j, keys, None, at)

            beside(store)
            d.add(Sort(keys, None, start, self.count, self.lanes, self.by_rows))
            beside(back)
            if self.has_zeros:
                d.loop_over(name, self.lanes, SERIAL, lambda: self.restore_row(row), within)

        def share(number: Index) -> None:
            def one(j: Index) -> None:
                of_share = j * shares + number
                start = number * (self.count * self.lanes)
                d.condition(((of_share, 0, blocks),), lambda: block(of_share, start))

            d.loop(-(-blocks // shares), SERIAL, one)

        d.phase(shares, share)


class _BySeveral(Rows):
    """Each row by one thread, by several keys: by the last, then by the one before it, and so on, which is stable."""

    def write(self) -> None:
        d, size = self.derivation, self.rows * self.count
        buffers = {dtype: d.new_scratch(dtype, size) for dtype in map(key_dtype, self.keys)}
        places = d.new_scratch(np.int32, size)

        def row(index: Index) -> None:
            start = index * self.count
            for number, key in enumerate(reversed(self.keys)):
                self.sort_by(key, index, buffers[key_dtype(key)], places, is_first=number == 0)
            d.loop(self.count, SERIAL, lambda j: self.fetch(index, j, self.loaded(places, start + j)))

        d.phase(self.rows, row)

    def sort_by(self, key: Node, row: Index, keys: Buffer, places: Buffer, is_first: bool) -> None:
        """Sorts the places in a row by one key."""
        d, start = self.derivation, row * self.count

        def prepare(j: Index) -> None:
            if is_first:
                d.add(Store(places, start + j, d.let(Position(j), np.int32)))
            step = j if is_first else self.loaded(places, start + j)
            d.add(Store(keys, start + j, to_key(d, d.value(key, self.at(row, step)))))

        d.loop(self.count, SERIAL, prepare)
        d.add(Sort(keys, places, start, self.count))
