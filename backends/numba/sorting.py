"""Sorting of unsigned integer keys, alone or with a permutation: what loop programs call for one row.

Keys are distributed by their leading digit, below which they differ, and each of the buckets is sorted by digits from
the least significant one (Knuth, The Art of Computer Programming, vol. 3, 5.2.5): but only by as many as are likely to
tell its keys apart, for what is then not in order is little, and inserted (5.2.1). Where it is not little, all digits
follow (as in MacLaren's method: 5.2.5, exercise 10). Every step is stable.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np

from graphopt.backends.numba.intrinsics import count_leading_zeros, element_reader, element_writer, tile_of
from graphopt.backends.numba.memory import free, malloc
from graphopt.backends.numba.translating import inlined

SHORT = 32
"""Up to this many keys are sorted by insertion alone."""

DIGIT = 10
"""Bits of the widest digit."""

VALUES = 1 << DIGIT
"""Values of such a digit."""

SPARE = 1
"""A bucket of 2^k keys is sorted by this many bits more than k before the rest is inserted."""

STEPS = 8
"""By so many places a key is moved on average before insertion is given up."""

read_word, write_word = element_reader("i8", constant=False), element_writer("i8")
read_place, write_place = element_reader("i4", constant=False), element_writer("i4")
words = tile_of("i8")


@inlined
def add_up(counters: Any, values: int, start: int) -> None:
    """Of how many keys there are of each value of a digit, where those of each begin."""
    total = start
    for value in range(values):
        found = read_word(counters, value)
        write_word(counters, value, total)
        total += found


@inlined
def bits_of(x: int) -> Any:
    """Bits of a number up to the highest one that is set."""
    return 64 - np.intp(count_leading_zeros(np.uint64(x)))


def unsigned_of(width: int) -> Any:
    """The dtype of keys of so many bytes."""
    return np.uint32 if width == 4 else np.uint64


def surveyor(width: int) -> Any:
    """`differing(keys, start, stop)`: which bits any two keys differ in, as what any and what all have set."""
    read, unsigned = element_reader(f"u{width}", constant=False), unsigned_of(width)
    ones = int(np.iinfo(unsigned).max)

    @inlined
    def differing(keys: Any, start: int, stop: int) -> Any:
        some, all_of_them = unsigned(0), unsigned(ones)
        for i in range(start, stop):
            some = unsigned(some | read(keys, i))
            all_of_them = unsigned(all_of_them & read(keys, i))
        return np.uint64(some ^ all_of_them)

    return differing


def mover(width: int, with_places: bool) -> Any:
    """`move(keys, places, i, to_keys, to_places, j)`: copies a key, and its place with it."""
    read, write = element_reader(f"u{width}", constant=False), element_writer(f"u{width}")

    @inlined
    def move(keys: Any, places: Any, i: int, to_keys: Any, to_places: Any, j: int) -> None:
        write(to_keys, j, read(keys, i))
        if with_places:
            write_place(to_places, j, read_place(places, i))

    return move


def inserter(width: int, with_places: bool) -> Any:
    """`insert(keys, places, start, n, steps)`: sorts by insertion; whether that was done in so many steps.

    If not, the keys are in some order that is as stable.
    """
    read, write = element_reader(f"u{width}", constant=False), element_writer(f"u{width}")
    move = mover(width, with_places)

    @inlined
    def insert(keys: Any, places: Any, start: int, n: int, steps: int) -> bool:
        left = steps
        for i in range(start + 1, start + n):
            key = read(keys, i)
            if read(keys, i - 1) > key:
                if with_places:
                    place = read_place(places, i)
                j = i
                while j > start and read(keys, j - 1) > key:
                    move(keys, places, j - 1, keys, places, j)
                    j -= 1
                write(keys, j, key)
                if with_places:
                    write_place(places, j, place)
                left -= i - j
                if left < 0:
                    return False
        return True

    return insert


def tallier(width: int) -> Any:
    """`tally(keys, start, stop, counters, shift, digit)`: how many keys have each value of a digit of so many bits."""
    read, unsigned = element_reader(f"u{width}", constant=False), unsigned_of(width)

    @inlined
    def tally(keys: Any, start: int, stop: int, counters: Any, shift: int, digit: int) -> None:
        for i in range(1 << digit):
            write_word(counters, i, 0)
        mask = unsigned((1 << digit) - 1)
        for i in range(start, stop):
            slot = np.intp((read(keys, i) >> unsigned(shift)) & mask)
            write_word(counters, slot, read_word(counters, slot) + 1)

    return tally


def distributor(width: int, with_places: bool) -> Any:
    """`distribute(keys, places, start, stop, to_keys, to_places, counters, shift, digit)`: in the order of a digit.

    The counters, where the next key of each value goes, become where those of each end.
    """
    read, unsigned = element_reader(f"u{width}", constant=False), unsigned_of(width)
    move = mover(width, with_places)

    @inlined
    def distribute(
        keys: Any,
        places: Any,
        start: int,
        stop: int,
        to_keys: Any,
        to_places: Any,
        counters: Any,
        shift: int,
        digit: int,
    ) -> None:
        mask = unsigned((1 << digit) - 1)
        for i in range(start, stop):
            slot = np.intp((read(keys, i) >> unsigned(shift)) & mask)
            target = read_word(counters, slot)
            write_word(counters, slot, target + 1)
            move(keys, places, i, to_keys, to_places, target)

    return distribute


def digits_sorter(width: int, with_places: bool) -> Any:
    """`by_digits(keys, places, other_keys, other_places, start, n, low, bits, counters)`: in the order of bits `low` to
    `bits` of the keys, from the least significant digit. The others are memory for as much, at the same places."""
    read, unsigned = element_reader(f"u{width}", constant=False), unsigned_of(width)
    move, tally, distribute = mover(width, with_places), tallier(width), distributor(width, with_places)

    @inlined
    def by_digits(
        keys: Any,
        places: Any,
        other_keys: Any,
        other_places: Any,
        start: int,
        n: int,
        low: int,
        bits: int,
        counters: Any,
    ) -> None:
        passes = max(1, (bits - low + DIGIT - 1) // DIGIT)
        digit = (bits - low + passes - 1) // passes
        of_keys, of_places, to_keys, to_places = keys, places, other_keys, other_places
        for number in range(passes):
            shift = low + number * digit
            tally(of_keys, start, start + n, counters, shift, digit)
            first = np.intp((read(of_keys, start) >> unsigned(shift)) & unsigned((1 << digit) - 1))
            if read_word(counters, first) == n:  # all have the same
                continue
            add_up(counters, 1 << digit, start)
            distribute(of_keys, of_places, start, start + n, to_keys, to_places, counters, shift, digit)
            of_keys, of_places, to_keys, to_places = to_keys, to_places, of_keys, of_places
        if of_keys != keys:
            for i in range(start, start + n):
                move(of_keys, of_places, i, keys, places, i)

    return by_digits


def bucket_sorter(width: int, with_places: bool) -> Any:
    """`sort(keys, places, other_keys, other_places, start, n, counters)`: sorts keys that agree in their leading bits.

    The others are memory for as much, at the same places; counters: VALUES words.
    """
    insert, by_digits = inserter(width, with_places), digits_sorter(width, with_places)
    differing = surveyor(width)

    @inlined
    def sort(keys: Any, places: Any, other_keys: Any, other_places: Any, start: int, n: int, counters: Any) -> None:
        bits = bits_of(differing(keys, start, start + n)) if n > SHORT else 0
        low = max(0, bits - bits_of(n) - SPARE)
        while True:
            if n > SHORT:
                by_digits(keys, places, other_keys, other_places, start, n, low, bits, counters)
            if insert(keys, places, start, n, max(SHORT * SHORT, STEPS * n)):
                return
            low = 0

    return sort


def _sorter(width: int, with_places: bool) -> Any:
    """`sort(keys, places, start, n)`: sorts keys start to start + n of `width` bytes, and their places with them."""
    differing, tally = surveyor(width), tallier(width)
    distribute, move = distributor(width, with_places), mover(width, with_places)
    insert, sort_bucket = inserter(width, with_places), bucket_sorter(width, with_places)

    @inlined
    def by_buckets(keys: Any, places: Any, other_keys: Any, other_places: Any, start: int, n: int, bits: int) -> None:
        """Into the other memory by the leading digit, sorted there, and back."""
        digit = min(bits, DIGIT, bits_of(n) - 1)
        shift = bits - digit
        ends, counters = words(VALUES), words(VALUES)
        tally(keys, start, start + n, ends, shift, digit)
        add_up(ends, 1 << digit, start)
        distribute(keys, places, start, start + n, other_keys, other_places, ends, shift, digit)
        begin = start
        for value in range(1 << digit):
            end = read_word(ends, value)
            if end - begin > 1:
                sort_bucket(other_keys, other_places, keys, places, begin, end - begin, counters)
            begin = end
        for i in range(start, start + n):
            move(other_keys, other_places, i, keys, places, i)

    @inlined
    def sort(keys: Any, places: Any, start: int, n: int) -> None:
        if n <= SHORT:
            insert(keys, places, start, n, n * n)
            return
        other_keys = numba.uintp(malloc(numba.uintp(width * n)))
        other_places = numba.uintp(malloc(numba.uintp(4 * n if with_places else 1)))
        of_start_keys = numba.uintp(other_keys - numba.uintp(width * start))  # so that places in both are the same
        of_start_places = numba.uintp(other_places - numba.uintp(4 * start))
        bits = bits_of(differing(keys, start, start + n))
        by_buckets(keys, places, of_start_keys, of_start_places, start, n, bits)
        free(other_keys)
        free(other_places)

    return sort


sort_uint32 = _sorter(4, with_places=False)
sort_uint64 = _sorter(8, with_places=False)
sort_places_uint32 = _sorter(4, with_places=True)
sort_places_uint64 = _sorter(8, with_places=True)
