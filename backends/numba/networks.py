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

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numba
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from graphopt.backends.numba.intrinsics import element_reader, element_writer
from graphopt.backends.numba.memory import free, malloc
from graphopt.backends.numba.translating import inlined

VECTOR = 64
"""Bytes of a vector."""

NEAR = 256
"""Vectors that stay in a core's first cache; a power of two."""

LEVELS = 4
"""Rounds of comparisons that are made in registers."""

GROUP = 1 << LEVELS
"""As many vectors are in them."""

WORD = ir.IntType(64)

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


def _once(name: str, write: Callable[[Any, Sequence[Any]], None], attribute: str = "noinline") -> Any:
    """An intrinsic of four words that calls a function of a kernel's module, which is there once: what is made of many
    vectors takes LLVM long, each time. write: its body, of a builder and the words. attribute: of the function."""

    def of(typing: Any, a: Any, b: Any, c: Any, d: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            module = builder.module
            if name not in module.globals:
                function = ir.Function(module, ir.FunctionType(ir.VoidType(), [WORD] * 4), name)
                function.linkage = "internal"
                for each in (attribute, "nounwind"):
                    function.attributes.add(each)
                body = ir.IRBuilder(function.append_basic_block())
                write(body, function.args)
                body.ret_void()
            builder.call(module.globals[name], args)
            return context.get_dummy_value()

        return types.void(a, b, c, d), generate

    return intrinsic(of)


def _exchange(width: int, name: str, pairs: Pairs, count: int) -> Any:
    """`exchange(keys, i, j, apart)`: compares vectors in registers: the first half of `count` of them from `i` on, the
    others up to `j`, those of a half `apart` from each other. Of each of `pairs` the first becomes the lesser."""
    vector = ir.VectorType(ir.IntType(8 * width), lanes_of(width))

    def write(builder: Any, args: Sequence[Any]) -> None:
        keys, first, last, apart = args
        base = builder.inttoptr(keys, vector.as_pointer())
        steps = [builder.mul(apart, ir.Constant(WORD, k)) for k in range(count // 2)]
        low = [builder.add(first, step) for step in steps]
        high = [builder.sub(last, step) for step in reversed(steps)]
        places = [builder.gep(base, [index], inbounds=True) for index in (*low, *high)]
        values = [builder.load(place, align=width) for place in places]
        for i, j in pairs:
            a, b = values[i], values[j]
            in_order = builder.icmp_unsigned("<", a, b)
            values[i], values[j] = builder.select(in_order, a, b), builder.select(in_order, b, a)
        for value, place in zip(values, places, strict=True):
            builder.store(value, place, align=width)

    return _once(f"graphopt.{name}.{width}", write, "noinline" if count > 2 else "alwaysinline")


def _sorter(width: int) -> Any:
    """`sort(keys, start, n)`: sorts rows of `n` keys of `width` bytes that begin at element `start`, side by side."""
    exchange = _exchange(width, "exchange", [(0, 1)], 2)
    sort_group = _exchange(width, "sort_group", SORTING, GROUP)
    merge_group = _exchange(width, "merge_group", MERGING, GROUP)
    halve_group = _exchange(width, "halve_group", HALVING, GROUP)

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
        while apart > 0:
            step = max(1, apart // (GROUP // 2))  # what was compared last stays as it is when it is once more
            size = max(2 * apart, GROUP)
            whole = begin + (end - begin) // size * size
            for start in range(begin, whole, size):
                for i in range(start, start + step):
                    halve_group(keys, i, i + (GROUP - 1) * step, step)
            while apart >= step:
                compare(keys, whole, end, apart)
                apart //= 2

    @inlined
    def merge(keys: Any, begin: int, end: int, half: int) -> None:
        """Merges sorted stretches of `half` vectors between `begin` and `end`, each with the one after it."""
        step = half // (GROUP // 2)
        whole = begin + (end - begin) // (2 * half) * (2 * half) if half >= GROUP else begin
        for start in range(begin, whole, 2 * half):
            for i in range(start, start + step):
                merge_group(keys, i, 2 * start + 2 * half - 1 - i, step)
        meet(keys, whole, end, half)
        left = half // 2 if end - whole > half else 0
        for at_end in range(2):  # one call: it takes LLVM long
            halve(keys, whole if at_end else begin, end if at_end else whole, left if at_end else step // 2)

    @inlined
    def merges(keys: Any, begin: int, end: int, least: int, most: int) -> None:
        """Merges stretches of `least` vectors, of twice as many, and so on, up to those of `most`. Those of less than
        GROUP are at the end alone."""
        half = least
        while half < min(most, end - begin):
            merge(keys, begin if half >= GROUP else begin + (end - begin) // GROUP * GROUP, end, half)
            half *= 2

    @inlined
    def sort(keys: Any, start: int, n: int) -> None:
        address = numba.uintp(keys + numba.uintp(width * start))
        for i in range(0, n // GROUP * GROUP, GROUP):
            sort_group(address, i, i + GROUP - 1, 1)
        # What stays in a core's first cache is sorted there.
        least, most = 1, NEAR
        while least < n:
            for begin in range(0, n, most):
                merges(address, begin, min(begin + most, n), least, most)
            least, most = most, n

    return sort


def _turner(width: int) -> Any:
    """`turn(of, apart, to, to_apart)`: the square of as many rows as lanes at `of`, whose rows are so many elements
    apart, with rows and columns exchanged at `to`.

    Shuffling each vector of the first half with that of the second one moves a bit of the row's number to the column's:
    each time for one of them.
    """
    lanes, element = lanes_of(width), ir.IntType(8 * width)
    vector = ir.VectorType(element, lanes)

    def row(builder: Any, address: Any, apart: Any, k: int) -> Any:
        base = builder.inttoptr(address, element.as_pointer())
        place = builder.gep(base, [builder.mul(apart, ir.Constant(WORD, k))], inbounds=True)
        return builder.bitcast(place, vector.as_pointer())

    def shuffled(builder: Any, a: Any, b: Any, first: int) -> Any:
        order = [first + k // 2 + k % 2 * lanes for k in range(lanes)]
        return builder.shuffle_vector(a, b, ir.Constant(ir.VectorType(ir.IntType(32), lanes), order))

    def write(builder: Any, args: Sequence[Any]) -> None:
        of, apart, to, to_apart = args
        rows = [builder.load(row(builder, of, apart, k), align=width) for k in range(lanes)]
        for _ in range(lanes.bit_length() - 1):
            pairs = zip(rows[: lanes // 2], rows[lanes // 2 :], strict=True)
            rows = [shuffled(builder, a, b, first) for a, b in pairs for first in (0, lanes // 2)]
        for k, value in enumerate(rows):
            builder.store(value, row(builder, to, to_apart, k), align=width)

    return _once(f"graphopt.turn.{width}", write)


def _rows_sorter(width: int, sort: Any) -> Any:
    """`sort_rows(keys, start, n)`: sorts rows of `n` keys of `width` bytes, of which one begins where another ends, the
    first at element `start`: as many as there are lanes."""
    lanes, turn = lanes_of(width), _turner(width)
    read, write = element_reader(f"u{width}", constant=False), element_writer(f"u{width}")

    @inlined
    def sort_rows(keys: Any, start: int, n: int) -> None:
        memory = numba.uintp(malloc(numba.uintp(VECTOR * (n + 1))))
        beside = (memory + numba.uintp(VECTOR - 1)) & ~numba.uintp(VECTOR - 1)  # no vector lies across two lines
        first = numba.uintp(keys + numba.uintp(width * start))
        whole = n // lanes * lanes
        for k in range(0, whole, lanes):
            turn(first + numba.uintp(width * k), n, beside + numba.uintp(VECTOR * k), lanes)
        for k in range(whole, n):
            for row in range(lanes):
                write(beside, lanes * k + row, read(first, n * row + k))
        sort(beside, 0, n)
        for k in range(0, whole, lanes):
            turn(beside + numba.uintp(VECTOR * k), lanes, first + numba.uintp(width * k), n)
        for k in range(whole, n):
            for row in range(lanes):
                write(first, n * row + k, read(beside, lanes * k + row))
        free(memory)

    return sort_rows


sort_beside_uint32 = _sorter(4)
sort_beside_uint64 = _sorter(8)
sort_rows_uint32 = _rows_sorter(4, sort_beside_uint32)
sort_rows_uint64 = _rows_sorter(8, sort_beside_uint64)
