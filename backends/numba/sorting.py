"""Sorting of unsigned integer keys, alone or with a permutation: what loop programs call for one row.

Radix sort from the least significant digit (Knuth, The Art of Computer Programming, vol. 3, 5.2.5): stable, a pass a
digit, and no pass over a digit that all keys share. Short rows are sorted by insertion, which is stable too.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np

from graphopt.backends.numba.intrinsics import element_reader, element_writer
from graphopt.backends.numba.memory import free, malloc
from graphopt.backends.numba.translating import inlined

SHORT = 48
"""Rows of up to this many are sorted by insertion."""

MEDIUM = 1 << 13
"""From this length on a digit has 11 bits; below, 8, whose counters are few."""

read_word, write_word = element_reader("i8", constant=False), element_writer("i8")
read_place, write_place = element_reader("i4", constant=False), element_writer("i4")


def _sorter(width: int, with_places: bool) -> Any:
    """`sort(keys, places, start, n)`: sorts keys start to start + n of `width` bytes, and their places with them."""
    read, write = element_reader(f"u{width}", constant=False), element_writer(f"u{width}")
    unsigned = np.uint32 if width == 4 else np.uint64
    bits = 8 * width

    @inlined
    def insert(keys: Any, places: Any, start: int, n: int) -> None:
        for i in range(start + 1, start + n):
            key = read(keys, i)
            if with_places:
                place = read_place(places, i)
            j = i
            while j > start and read(keys, j - 1) > key:
                write(keys, j, read(keys, j - 1))
                if with_places:
                    write_place(places, j, read_place(places, j - 1))
                j -= 1
            write(keys, j, key)
            if with_places:
                write_place(places, j, place)

    @inlined
    def count(keys: Any, start: int, n: int, counters: Any, digit: int, passes: int) -> None:
        """How many keys have each value of each digit."""
        mask = unsigned((1 << digit) - 1)
        for i in range(passes << digit):
            write_word(counters, i, 0)
        for i in range(start, start + n):
            key = read(keys, i)
            for number in range(passes):
                slot = (number << digit) + np.intp((key >> unsigned(number * digit)) & mask)
                write_word(counters, slot, read_word(counters, slot) + 1)

    @inlined
    def distribute(
        keys: Any,
        places: Any,
        at: int,
        to_keys: Any,
        to_places: Any,
        to: int,
        n: int,
        counters: Any,
        shift: int,
        mask: int,
    ) -> None:
        """One pass: keys in the order of one digit. The counters become where the next key of each value goes."""
        total = 0
        for value in range(mask + 1):
            found = read_word(counters, value)
            write_word(counters, value, total)
            total += found
        for i in range(n):
            key = read(keys, at + i)
            slot = np.intp((key >> unsigned(shift)) & unsigned(mask))
            target = read_word(counters, slot)
            write_word(counters, slot, target + 1)
            write(to_keys, to + target, key)
            if with_places:
                write_place(to_places, to + target, read_place(places, at + i))

    @inlined
    def shares(counters: Any, n: int, values: int) -> bool:
        """Whether all keys have the same value of a digit."""
        most = 0
        for value in range(values):
            most = max(most, read_word(counters, value))
        return most == n

    @inlined
    def sort(keys: Any, places: Any, start: int, n: int) -> None:
        if n <= SHORT:
            insert(keys, places, start, n)
            return
        digit = 11 if n >= MEDIUM else 8
        passes = (bits + digit - 1) // digit
        counters = numba.uintp(malloc(numba.uintp(8 * passes << digit)))
        other_keys = numba.uintp(malloc(numba.uintp(width * n)))
        other_places = numba.uintp(malloc(numba.uintp(4 * n if with_places else 1)))
        count(keys, start, n, counters, digit, passes)
        here = True
        for number in range(passes):
            of_digit = numba.uintp(counters + numba.uintp(8 * (number << digit)))
            if shares(of_digit, n, 1 << digit):
                continue
            shift, mask = number * digit, (1 << digit) - 1
            if here:
                distribute(keys, places, start, other_keys, other_places, 0, n, of_digit, shift, mask)
            else:
                distribute(other_keys, other_places, 0, keys, places, start, n, of_digit, shift, mask)
            here = not here
        if not here:
            for i in range(n):
                write(keys, start + i, read(other_keys, i))
                if with_places:
                    write_place(places, start + i, read_place(other_places, i))
        free(counters)
        free(other_keys)
        free(other_places)

    return sort


sort_uint32 = _sorter(4, with_places=False)
sort_uint64 = _sorter(8, with_places=False)
sort_places_uint32 = _sorter(4, with_places=True)
sort_places_uint64 = _sorter(8, with_places=True)
