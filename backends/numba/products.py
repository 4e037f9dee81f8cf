"""Products of tiles: a few rows by a few columns at a time, whose sums stay in vector registers.

For each step along what is summed over, a vector or some of a row of the right factor meet an element of each of
several rows of the left one (K. Goto, R. van de Geijn, "Anatomy of high-performance matrix multiplication", ACM
Transactions on Mathematical Software 34(3), 2008). So many sums hide how long an addition takes, and so few registers
are left that nothing goes to memory. Long sums are sums of sums (as in `passes/cascade.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import llvmlite.binding as llvm
import numpy as np
from llvmlite import ir
from numba import from_dtype, types
from numba.core import cgutils
from numba.extending import intrinsic

WORD = ir.IntType(64)
LANE = ir.IntType(32)

TERMS = 512
"""Terms that are added one after the other, at most. Of attention to 4096 positions results were wrong by 67 units in
the last place without sums of sums, by 10 with them."""


@dataclass(frozen=True, slots=True)
class Registers:
    """vector: bytes of one. rows, vectors: of the sums that are held at a time."""

    vector: int
    rows: int
    vectors: int


@cache
def registers() -> Registers:
    """Those of this processor: 32 of them hold 6 by 4 sums, 16 hold 6 by 2."""
    features = llvm.get_host_cpu_features()
    if features.get("avx512f"):
        return Registers(64, 6, 4)
    if features.get("avx"):
        return Registers(32, 6, 2)
    return Registers(16, 6, 4 if features.get("neon") else 2)


@dataclass(frozen=True, slots=True)
class _Sizes:
    """rows, columns, length: of the product. to_row, left_row, left_step, right_row: elements from one to the next.
    adds: whether it is added to what is there."""

    rows: int
    columns: int
    length: int
    to_row: int
    left_row: int
    left_step: int
    right_row: int
    adds: int


def product_of(dtype: Any) -> Any:
    """`product(to, at, left, at, right, at, ...)`: matrices of `dtype` by their addresses and first elements.

    What follows are the numbers of `_Sizes`, which are known when compiling.
    """
    element = from_dtype(np.dtype(dtype))

    def of(
        typing: Any,
        to: Any,
        to_at: Any,
        left: Any,
        left_at: Any,
        right: Any,
        right_at: Any,
        rows: Any,
        columns: Any,
        length: Any,
        to_row: Any,
        left_row: Any,
        left_step: Any,
        right_row: Any,
        adds: Any,
    ) -> Any:  # Numba asks for names
        numbers = (rows, columns, length, to_row, left_row, left_step, right_row, adds)
        if not all(isinstance(number, types.IntegerLiteral) for number in numbers):
            return None
        sizes = _Sizes(*(number.literal_value for number in numbers))

        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            kind = context.get_data_type(element)
            pairs = zip(args[0:6:2], args[1:6:2], strict=True)
            starts = [builder.gep(builder.inttoptr(base, kind.as_pointer()), [at], inbounds=True) for base, at in pairs]
            _write(builder, kind, np.dtype(dtype).itemsize, sizes, *starts)
            return context.get_dummy_value()

        return types.void(*[types.uintp, types.intp] * 3, *numbers), generate

    return intrinsic(prefer_literal=True)(of)


def _write(builder: Any, kind: Any, itemsize: int, sizes: _Sizes, to: Any, left: Any, right: Any) -> None:
    """Writes one product where the builder is: of many terms, some of them after the other.

    kind: of an element. to, left, right: where the matrices begin.
    """
    whole, rest = divmod(sizes.length, TERMS)
    if whole + bool(rest) <= 1:
        _Writer(builder, kind, itemsize, sizes, to, left, right).product()
        return
    if not sizes.adds:  # of no terms: zeros
        _Writer(builder, kind, itemsize, replace(sizes, length=0), to, left, right).product()

    def part(number: Any, length: int) -> None:
        begin = builder.mul(number, WORD(TERMS))
        left_part = builder.gep(left, [builder.mul(begin, WORD(sizes.left_step))], inbounds=True)
        right_part = builder.gep(right, [builder.mul(begin, WORD(sizes.right_row))], inbounds=True)
        of = replace(sizes, length=length, adds=1)
        _Writer(builder, kind, itemsize, of, to, left_part, right_part).product()

    with cgutils.for_range(builder, WORD(whole), intp=WORD) as loop:
        part(loop.index, TERMS)
    if rest:
        part(WORD(whole), rest)


class _Writer:
    """Writes a product of few terms where the builder is."""

    def __init__(self, builder: Any, kind: Any, itemsize: int, sizes: _Sizes, to: Any, left: Any, right: Any) -> None:
        self.builder = builder
        self.kind = kind
        self.itemsize = itemsize
        self.sizes = sizes
        self.to, self.left, self.right = to, left, right

    def product(self) -> None:
        """All of it: a stretch of columns after the other, and in each some rows after the other."""
        most, rows = registers().rows, self.sizes.rows
        for stretch in self.stretches():
            if rows >= most:
                with cgutils.for_range(self.builder, WORD(rows // most), intp=WORD) as loop:
                    self.rows(self.builder.mul(loop.index, WORD(most)), most, stretch)
            if rows % most:
                self.rows(WORD(rows - rows % most), rows % most, stretch)

    def stretches(self) -> Iterator[list[tuple[int, int]]]:
        """The columns that are computed at a time: vectors, each by its first column and how many it has."""
        lanes = registers().vector // self.itemsize
        columns = self.sizes.columns
        vectors = [(first, min(lanes, columns - first)) for first in range(0, columns, lanes)]
        for first in range(0, len(vectors), registers().vectors):
            yield vectors[first : first + registers().vectors]

    def rows(self, first: Any, count: int, stretch: Sequence[tuple[int, int]]) -> None:
        """Some rows of a stretch, from row `first` on."""
        builder, sizes = self.builder, self.sizes
        left = builder.gep(self.left, [builder.mul(first, WORD(sizes.left_row))], inbounds=True)
        start = [self.zero(width) for _ in range(count) for _, width in stretch]

        def step(k: Any, sums: Sequence[Any]) -> list[Any]:
            row = builder.mul(k, WORD(sizes.right_row))
            vectors = [self.load(self.right, row, column, width) for column, width in stretch]
            at = builder.mul(k, WORD(sizes.left_step))
            found, place = [], iter(sums)
            for i in range(count):
                element = builder.load(builder.gep(left, [builder.add(at, WORD(i * sizes.left_row))], inbounds=True))
                for vector, (_, width) in zip(vectors, stretch, strict=True):
                    found.append(self.multiplied(self.spread(element, width), vector, next(place)))
            return found

        sums = iter(self.loop(sizes.length, start, step))
        for i in range(count):
            for column, width in stretch:
                place, total = self.result(first, i, column, width), next(sums)
                if sizes.adds:
                    total = builder.fadd(builder.load(place, align=self.itemsize), total)
                builder.store(total, place, align=self.itemsize)

    def result(self, first: Any, i: int, column: int, width: int) -> Any:
        """Where a vector of the result is in memory, in the row that is `i` behind `first`."""
        row = self.builder.mul(self.builder.add(first, WORD(i)), WORD(self.sizes.to_row))
        return self.place(self.to, row, column, width)

    def loop(self, length: int, start: Sequence[Any], step: Callable[[Any, Sequence[Any]], list[Any]]) -> list[Any]:
        """What `start` has become after `length` steps."""
        builder = self.builder
        if length == 0:
            return list(start)
        before, body, after = (
            builder.block,
            *(builder.append_basic_block(name) for name in ("product", "product_end")),
        )
        builder.branch(body)
        builder.position_at_end(body)
        k = builder.phi(WORD)
        sums = [builder.phi(value.type) for value in start]
        found = step(k, sums)
        following = builder.add(k, WORD(1), flags=["nsw", "nuw"])
        for phi, first, again in zip((k, *sums), (WORD(0), *start), (following, *found), strict=True):
            phi.add_incoming(first, before)
            phi.add_incoming(again, body)
        builder.cbranch(builder.icmp_unsigned("<", following, WORD(length)), body, after)
        builder.position_at_end(after)
        return found

    def vector(self, width: int) -> Any:
        return ir.VectorType(self.kind, width)

    def zero(self, width: int) -> Any:
        """Where sums begin: where they are added to something, with the zero whose sign changes nothing."""
        return ir.Constant(self.vector(width), [ir.Constant(self.kind, -0.0 if self.sizes.adds else 0.0)] * width)

    def place(self, base: Any, row: Any, column: int, width: int) -> Any:
        """Where a vector is in memory."""
        element = self.builder.gep(base, [self.builder.add(row, WORD(column))], inbounds=True)
        return self.builder.bitcast(element, self.vector(width).as_pointer())

    def load(self, base: Any, row: Any, column: int, width: int) -> Any:
        return self.builder.load(self.place(base, row, column, width), align=self.itemsize)

    def spread(self, element: Any, width: int) -> Any:
        """A vector with one number everywhere."""
        one = self.vector(width)
        first = self.builder.insert_element(ir.Constant(one, ir.Undefined), element, LANE(0))
        everywhere = ir.Constant(ir.VectorType(LANE, width), [LANE(0)] * width)
        return self.builder.shuffle_vector(first, ir.Constant(one, ir.Undefined), everywhere)

    def multiplied(self, a: Any, b: Any, c: Any) -> Any:
        """a * b + c, rounded once where the processor does that as fast."""
        kind = a.type
        name = f"llvm.fmuladd.v{kind.count}f{8 * self.itemsize}"
        function = cgutils.get_or_insert_function(self.builder.module, ir.FunctionType(kind, [kind] * 3), name)
        return self.builder.call(function, [a, b, c])
