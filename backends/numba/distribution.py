"""Sorting of one long row by several threads: what loop programs call for each share of a step.

The steps of a parallel radix sort (Zagha and Blelloch, Radix sort for vector multiprocessors, 1991), but from the
leading digit in which keys differ, so that there is one distribution for all threads: which bits differ; how many keys
of each share have each value of the digit; where those go; and then each bucket is sorted by one thread, in its caches.

The table of a row has two words for each share, one of its keys and the bits in which others differ from it; then the
counters of each share; and then where buckets begin and end.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np

from graphopt.backends.numba.intrinsics import element_reader, element_writer, opaque
from graphopt.backends.numba.sorting import (
    VALUES,
    add_up,
    bits_of,
    bucket_sorter,
    distributor,
    read_word,
    surveyor,
    tallier,
    words,
    write_word,
)
from graphopt.backends.numba.translating import inlined
from graphopt.ir.loop import LEADING

BUCKETS = 1 << LEADING

read_bits, write_bits = element_reader("u8", constant=False), element_writer("u8")


@inlined
def counters_at(at: int, shares: int, share: int) -> Any:
    """Where the counters of a share are in the table that begins at `at`; those of one more: where buckets begin."""
    return at + 2 * shares + (share << LEADING)


@inlined
def shift_of(table: Any, at: int, shares: int) -> Any:
    """The place of the leading digit: no two keys differ above it."""
    first, differing = read_bits(table, at), np.uint64(0)
    for share in range(shares):
        differing |= read_bits(table, at + 2 * share + 1) | (read_bits(table, at + 2 * share) ^ first)
    return max(0, bits_of(differing) - LEADING)


@inlined
def begin_of(share: int, shares: int, start: int, count: int) -> Any:
    """Where a share of a row begins, and the one before it ends. None is empty."""
    return start + min(count, share * ((count + shares - 1) // shares))


def _surveyor(width: int) -> Any:
    """`survey(keys, start, count, table, at, share, shares)`: in which bits the keys of a share differ."""
    differing, read = surveyor(width), element_reader(f"u{width}", constant=False)

    @inlined
    def survey(keys: Any, start: int, count: int, table: Any, at: int, share: int, shares: int) -> None:
        begin, end = begin_of(share, shares, start, count), begin_of(share + 1, shares, start, count)
        write_bits(table, at + 2 * share, np.uint64(read(keys, begin)))
        write_bits(table, at + 2 * share + 1, differing(keys, begin, end))

    return survey


def _tallier(width: int) -> Any:
    """`tally(keys, start, count, table, at, share, shares)`: how many keys of a share have each value of the digit."""
    tally_of = tallier(width)

    @inlined
    def tally(keys: Any, start: int, count: int, table: Any, at: int, share: int, shares: int) -> None:
        begin, end = begin_of(share, shares, start, count), begin_of(share + 1, shares, start, count)
        counters = numba.uintp(table + numba.uintp(8 * counters_at(at, shares, share)))
        tally_of(keys, begin, end, counters, shift_of(table, at, shares), LEADING)

    return tally


def _distributor(width: int, with_places: bool) -> Any:
    """`distribute(keys, places, to_keys, to_places, start, count, table, at, share, shares)`: a share of the keys into
    buckets, after those of the shares before it."""
    distribute_all = distributor(width, with_places)

    @inlined
    def prepare(counters: Any, start: int, table: Any, at: int, share: int, shares: int) -> None:
        """Where the first key of a share goes, of each value of the digit; the first share notes the buckets."""
        for value in range(BUCKETS):
            write_word(counters, value, 0)
        for other in range(opaque(shares)):  # LLVM would write out what is done for each
            of_other = counters_at(at, shares, other)
            for value in range(BUCKETS):
                write_word(counters, value, read_word(counters, value) + read_word(table, of_other + value))
        add_up(counters, BUCKETS, start)
        if share == 0:
            begins = counters_at(at, shares, shares)
            for value in range(BUCKETS):
                write_word(table, begins + value, read_word(counters, value))
        for other in range(share):
            of_other = counters_at(at, shares, other)
            for value in range(BUCKETS):
                write_word(counters, value, read_word(counters, value) + read_word(table, of_other + value))

    @inlined
    def distribute(
        keys: Any,
        places: Any,
        to_keys: Any,
        to_places: Any,
        start: int,
        count: int,
        table: Any,
        at: int,
        share: int,
        shares: int,
    ) -> None:
        counters = words(BUCKETS)
        prepare(counters, start, table, at, share, shares)
        begin, end = begin_of(share, shares, start, count), begin_of(share + 1, shares, start, count)
        shift = shift_of(table, at, shares)
        distribute_all(keys, places, begin, end, to_keys, to_places, counters, shift, LEADING)

    return distribute


def _buckets_sorter(width: int, with_places: bool) -> Any:
    """`sort(keys, places, other_keys, other_places, start, count, table, at, share, shares)`: those buckets that begin
    in a share of the row."""
    sort_bucket = bucket_sorter(width, with_places)

    @inlined
    def first_from(table: Any, begins: int, place: int) -> Any:
        """The first bucket that begins at a place or after it."""
        low, high = 0, BUCKETS
        while low < high:
            middle = (low + high) // 2
            if read_word(table, begins + middle) < place:
                low = middle + 1
            else:
                high = middle
        return low

    @inlined
    def sort(
        keys: Any,
        places: Any,
        other_keys: Any,
        other_places: Any,
        start: int,
        count: int,
        table: Any,
        at: int,
        share: int,
        shares: int,
    ) -> None:
        begins, counters = counters_at(at, shares, shares), words(VALUES)
        first = first_from(table, begins, begin_of(share, shares, start, count))
        stop = first_from(table, begins, begin_of(share + 1, shares, start, count))
        for value in range(first, stop):
            begin = read_word(table, begins + value)
            end = read_word(table, begins + value + 1) if value + 1 < BUCKETS else start + count
            if end - begin > 1:
                sort_bucket(keys, places, other_keys, other_places, begin, end - begin, counters)

    return sort


STEPS: dict[str, Any] = {
    "survey_uint32": _surveyor(4),
    "survey_uint64": _surveyor(8),
    "tally_uint32": _tallier(4),
    "tally_uint64": _tallier(8),
    "distribute_uint32": _distributor(4, with_places=False),
    "distribute_uint64": _distributor(8, with_places=False),
    "distribute_places_uint64": _distributor(8, with_places=True),
    "sort_buckets_uint32": _buckets_sorter(4, with_places=False),
    "sort_buckets_uint64": _buckets_sorter(8, with_places=False),
    "sort_buckets_places_uint64": _buckets_sorter(8, with_places=True),
}
"""What the steps of a sort are called in a kernel."""
