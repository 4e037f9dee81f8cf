"""How long sorting takes in a kernel: rows one by one, side by side, and by all threads together."""

from __future__ import annotations

from collections.abc import Mapping

from graphopt.ir.loop import Smallest, Sort, SortStep

SORTED = 1.5
"""Nanoseconds of an element and a doubling of the length, where rows are sorted."""

RADIX = 4
"""Doublings of the length from which on a sort by digits takes as long: 20k numbers take 0.1 ms, 200k 0.75."""

STEPS: Mapping[str, float] = {"survey": 0.1, "tally": 0.4, "distribute": 1.0, "sort_buckets": 2.5}
"""Nanoseconds of an element in each step in which threads sort a row together."""

COMPARED, TURNED = 0.02, 0.1
"""Nanoseconds of an element in one round of comparisons, where rows are sorted side by side, and of putting it beside
those of other rows and back."""

SCANNED = 0.3
"""Nanoseconds of an element that is found not to be among the smallest."""


def sorting_time(statement: Sort | SortStep | Smallest) -> float:
    """Nanoseconds in which a row, rows side by side, or a share of one are sorted, or the smallest elements of one are
    found."""
    if isinstance(statement, SortStep):
        return STEPS[statement.step] * words_of(statement) * statement.count / statement.shares
    if isinstance(statement, Sort) and statement.lanes > 1:
        doublings = (statement.count - 1).bit_length()
        words = statement.lanes * statement.count * statement.keys.dtype.itemsize / 4
        return words * (COMPARED * doublings * (doublings + 1) / 2 + TURNED * statement.by_rows)
    if isinstance(statement, Sort):
        return SORTED * statement.count * min(max(1, statement.count.bit_length()), RADIX * words_of(statement))
    steps = max(1, statement.k.bit_length())
    return SCANNED * statement.count + SORTED * min(statement.count, 8 * statement.k) * steps


def words_of(statement: Sort | SortStep) -> float:
    """How wide what is moved is, of a key of 32 bits: what goes with a key takes half as long."""
    return statement.keys.dtype.itemsize / 4 + (statement.places is not None) / 2
