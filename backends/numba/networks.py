"""Sorting of rows side by side: a network of comparisons, each of one element of every row with another.

Which elements are compared depends on nothing but the length, so that a vector holds one element of each row, and a
comparison is a least and a greatest number of two vectors. The network is Batcher's bitonic sort (Knuth, The Art of
Computer Programming, vol. 3, 5.3.4), in the form in which each comparison puts the lesser one first: rows in order are
merged to rows twice as long by comparing the elements of one with those of the other from its end, and then those that
are half as far from each other, and so on. What is behind the end of a row counts as the greatest: such comparisons
change nothing, and are left out.

It has more comparisons than the odd-even merge sort, but they are of the same kind everywhere: four rounds of them are
made of 16 vectors in registers, where a round by itself would load and store each vector.
"""

from __future__ import annotations

from collections.abc import Iterable
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

LEVELS = 4
"""Rounds of comparisons that are made in registers."""

GROUP = 1 << LEVELS
"""As many vectors are in them."""

Pairs = Iterable[tuple[int, int]]


def lanes_of(width: int) -> int:
    """How many rows of keys of `width` bytes are sorted side by side."""
    return VECTOR // width


def _halving(first: int, last: int) -> Pairs:
    """Comparisons of those of GROUP vectors that are `first` apart, and half as far, to `last`."""
    apart = first
    while apart >= last:
        yield from ((i, i + apart) for i in range(GROUP) if not i & apart)
        apart //= 2


def _merging(half: int) -> Pairs:
    """Comparisons that merge each stretch of `half` of GROUP vectors with the next one."""
    yield from ((i, i ^ (2 * half - 1)) for i in range(GROUP) if not i & half)
    yield from _halving(half // 2, 1)


SORTING = tuple(pair for level in range(LEVELS) for pair in _merging(1 << level))
MERGING = tuple(_merging(GROUP // 2))
HALVING = tuple(_halving(GROUP // 2, 1))


def _exchange(width: int, pairs: Pairs, count: int) -> Any:
    """`exchange(keys, i, j, apart)`: compares vectors in registers: the first half of `count` of them from `i` on, the
    others up to `j`, those of a half `apart` from each other. Of each of `pairs` the first becomes the lesser."""
    half = count // 2

    def of(typing: Any, keys: Any, i: Any, j: Any, apart: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            vector = ir.VectorType(ir.IntType(8 * width), lanes_of(width))
            base, first, last, step = builder.inttoptr(args[0], vector.as_pointer()), *args[1:]
            steps = [builder.mul(step, ir.Constant(step.type, k)) for k in range(half)]
            low = [builder.add(first, offset) for offset in steps]
            high = [builder.sub(last, offset) for offset in reversed(steps)]
            places = [builder.gep(base, [index], inbounds=True) for index in (*low, *high)]
            values = [builder.load(place, align=width) for place in places]
            for a, b in pairs:
                in_order = builder.icmp_unsigned("<", values[a], values[b])
                values[a], values[b] = (
                    builder.select(in_order, values[a], values[b]),
                    builder.select(in_order, values[b], values[a]),
                )
            for value, place in zip(values, places, strict=True):
                builder.store(value, place, align=width)
            return context.get_dummy_value()

        return types.void(types.uintp, types.intp, types.intp, types.intp), generate

    return intrinsic(of)


def _sorter(width: int) -> Any:
    """`sort(keys, start, n)`: sorts rows of `n` keys of `width` bytes that begin at element `start`, side by side."""
    exchange = _exchange(width, [(0, 1)], 2)
    sort_group, merge_group, halve_group = (_exchange(width, pairs, GROUP) for pairs in (SORTING, MERGING, HALVING))

    @inlined
    def compare(keys: Any, begin: int, end: int, apart: int) -> None:
        """Compares vectors between `begin` and `end` that are `apart` from each other."""
        for start in range(begin, end - apart, 2 * apart):
            for i in range(start, min(start + apart, end - apart)):
                exchange(keys, i, i + apart, 0)

    @inlined
    def meet(keys: Any, begin: int, end: int, half: int) -> None:
        """Compares each stretch of `half` vectors between `begin` and `end` with the one after it from its end."""
        for start in range(begin, end - half, 2 * half):
            last = 2 * start + 2 * half - 1
            for i in range(max(start, last + 1 - end), start + half):
                exchange(keys, i, last - i, 0)

    @inlined
    def halve(keys: Any, begin: int, end: int, first: int) -> None:
        """Compares vectors between `begin` and `end` that are `first` apart, half as far, and so on."""
        apart = first
        while apart > 1:
            step = max(1, apart // (GROUP // 2))  # once more compared what was last is as it was
            size = max(2 * apart, GROUP)
            whole = begin + (end - begin) // size * size
            for start in range(begin, whole, size):
                for i in range(start, start + step):
                    halve_group(keys, i, i + (GROUP - 1) * step, step)
            while apart >= step:
                compare(keys, whole, end, apart)
                apart //= 2
        if apart == 1:
            compare(keys, begin, end, 1)

    @inlined
    def merge(keys: Any, begin: int, end: int, half: int) -> None:
        """Merges sorted stretches of `half` vectors between `begin` and `end`, each with the one after it."""
        step = half // (GROUP // 2)
        whole = begin + (end - begin) // (2 * half) * (2 * half)
        for start in range(begin, whole, 2 * half):
            for i in range(start, start + step):
                merge_group(keys, i, 2 * start + 2 * half - 1 - i, step)
        halve(keys, begin, whole, step // 2)
        if end - whole > half:
            meet(keys, whole, end, half)
            halve(keys, whole, end, half // 2)

    @inlined
    def sort_few(keys: Any, begin: int, end: int) -> None:
        """Sorts fewer vectors than GROUP."""
        half = 1
        while half < end - begin:
            meet(keys, begin, end, half)
            apart = half // 2
            while apart > 0:
                compare(keys, begin, end, apart)
                apart //= 2
            half *= 2

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
            end = min(begin + NEAR, n)
            whole = begin + (end - begin) // GROUP * GROUP
            for i in range(begin, whole, GROUP):
                sort_group(address, i, i + GROUP - 1, 1)
            sort_few(address, whole, end)
            merges(address, begin, end, GROUP, NEAR)
        merges(address, 0, n, NEAR, n)

    return sort


sort_beside_uint32 = _sorter(4)
sort_beside_uint64 = _sorter(8)
