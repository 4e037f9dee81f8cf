"""Repetition in a sequence of numbers: where it goes on with the same period."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.int64]

WINDOWS = (1, 8, 64)
"""Lengths of the pieces whose next occurrence suggests a period: some numbers come several times within one."""

MOST_PERIODS = 48
"""How many periods are tried, those first that were suggested most often: each costs a look at the whole sequence."""


@dataclass(frozen=True, slots=True)
class Run:
    """Numbers from position `start` to the one before `stop` that come again after each `period`."""

    start: int
    period: int
    stop: int

    @property
    def count(self) -> int:
        """How often all of the period is there."""
        return (self.stop - self.start) // self.period

    @property
    def saved(self) -> int:
        """How many numbers there are beyond those of one repetition."""
        return self.period * (self.count - 1)


def periodic_runs(numbers: Sequence[int], least_count: int, least_saved: int) -> list[Run]:
    """Runs that do not overlap, those first that save most; in time linear in the length of the sequence.

    least_count, least_saved: of each run. Of two periods that go equally far the shorter one is taken.
    """
    sequence = np.asarray(numbers, np.int64)
    heap: list[tuple[int, int, int, int]] = []

    def offer(start: int, stop: int, period: int) -> None:
        run = Run(start, period, stop)
        if run.count >= least_count and run.saved >= least_saved:
            heapq.heappush(heap, (-run.saved, period, start, stop))

    for period in suggested_periods(sequence, least_count):
        same = np.concatenate([[False], sequence[period:] == sequence[:-period], [False]])
        edges = np.flatnonzero(same[1:] != same[:-1]).reshape(-1, 2)
        counts = (edges[:, 1] - edges[:, 0]) // period + 1
        long = (counts >= least_count) & ((counts - 1) * period >= least_saved)
        for start, stop in edges[long].tolist():
            offer(start, stop + period, period)
    taken: list[Run] = []
    while heap:
        _, period, start, stop = heapq.heappop(heap)
        # What is left of it beside those that were taken before; a part is offered anew, for others may be better now.
        others = sorted((run.start, run.stop) for run in taken if run.start < stop and start < run.stop)
        if not others:
            taken.append(Run(start, period, stop))
            continue
        for (_, first), (last, _) in pairwise([(0, start), *others, (stop, 0)]):
            offer(first, last, period)
    return taken


def suggested_periods(sequence: Array, least_count: int) -> list[int]:
    """Distances at which pieces of the sequence come again, the most frequent first."""
    votes: dict[int, int] = {}
    for window, hashes in _hashed(sequence):
        if len(hashes) <= window:
            break
        order = np.argsort(hashes, kind="stable")
        same = hashes[order[1:]] == hashes[order[:-1]]
        gaps, counts = np.unique((order[1:] - order[:-1])[same], return_counts=True)
        for gap, count in zip(gaps.tolist(), counts.tolist(), strict=True):
            if count >= least_count - 1 and gap * (least_count - 1) < len(sequence):
                votes[gap] = max(votes.get(gap, 0), count)
    return sorted(votes, key=lambda gap: (-votes[gap], gap))[:MOST_PERIODS]


def _hashed(sequence: Array) -> list[tuple[int, Array]]:
    """For each window a number for each piece of that length; two pieces that differ may share one, if rarely."""
    found, length = [], 1
    hashes = sequence.astype(np.uint64)
    with np.errstate(over="ignore"):
        while length <= max(WINDOWS) and len(hashes):
            if length in WINDOWS:
                found.append((length, hashes.astype(np.int64)))
            mixed = (hashes ^ (hashes >> np.uint64(29))) * np.uint64(0x9E3779B97F4A7C15)
            hashes = mixed[:-length] * np.uint64(0xBF58476D1CE4E5B9) + hashes[length:]
            length *= 2
    return found
