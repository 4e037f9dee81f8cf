"""Sorting of rows side by side: a network of comparisons, each of one element of every row with another.

Which elements are compared depends on nothing but the length, so that a vector holds one element of each row, and a
comparison is a least and a greatest number of two vectors. The network is Batcher's odd-even merge sort (Knuth, The Art
of Computer Programming, vol. 3, 5.3.4): rows of two are merged to rows of four, and so on. What is behind the end of a
row counts as the greatest: such comparisons change nothing, and are left out.
"""

from __future__ import annotations

from typing import Any

import numba
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from graphopt.backends.numba.translating import inlined

VECTOR = 64
"""Bytes of a vector."""

NEAR = 256
"""Vectors that stay in a core's first cache; a power of two."""


def lanes_of(width: int) -> int:
    """How many rows of keys of `width` bytes are sorted side by side."""
    return VECTOR // width


def _exchange(width: int) -> Any:
    """`exchange(keys, i, j)`: of vectors `i` and `j` the lesser ones go to `i`, the greater ones to `j`."""

    def of(typing: Any, keys: Any, i: Any, j: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            vector = ir.VectorType(ir.IntType(8 * width), lanes_of(width))
            base = builder.inttoptr(args[0], vector.as_pointer())
            places = [builder.gep(base, [index], inbounds=True) for index in args[1:]]
            first, second = (builder.load(place, align=width) for place in places)
            in_order = builder.icmp_unsigned("<", first, second)
            builder.store(builder.select(in_order, first, second), places[0], align=width)
            builder.store(builder.select(in_order, second, first), places[1], align=width)
            return context.get_dummy_value()

        return types.void(types.uintp, types.intp, types.intp), generate

    return intrinsic(of)


def _sorter(width: int) -> Any:
    """`sort(keys, start, n)`: sorts rows of `n` keys of `width` bytes that begin at element `start`, side by side."""
    exchange = _exchange(width)

    @inlined
    def merge(keys: Any, begin: int, end: int, half: int) -> None:
        """Merges sorted stretches of `half` vectors between `begin` and `end`, each with the one after it."""
        for start in range(begin, end - half, 2 * half):
            for i in range(start, min(start + half, end - half)):
                exchange(keys, i, i + half)
        apart = half // 2
        while apart > 1:
            for start in range(begin, end - apart, 2 * half):
                for first in range(start + apart, min(start + 2 * half - apart, end - apart), 2 * apart):
                    for i in range(first, min(first + apart, end - apart)):
                        exchange(keys, i, i + apart)
            apart //= 2
        if half > 1:
            for start in range(begin, end - 1, 2 * half):
                for i in range(start + 1, min(start + 2 * half - 1, end - 1), 2):
                    exchange(keys, i, i + 1)

    @inlined
    def merges(keys: Any, begin: int, end: int, half: int, most: int) -> None:
        """Merges stretches of `half` vectors, of twice as many, and so on, up to those of `most`."""
        while half < min(most, end - begin):
            merge(keys, begin, end, half)
            half *= 2

    @inlined
    def sort(keys: Any, start: int, n: int) -> None:
        address = numba.uintp(keys + numba.uintp(width * start))
        # What stays in a core's first cache is sorted there.
        for begin in range(0, n, NEAR):
            merges(address, begin, min(begin + NEAR, n), 1, NEAR)
        merges(address, 0, n, NEAR, n)

    return sort


sort_beside_uint32 = _sorter(4)
sort_beside_uint64 = _sorter(8)
