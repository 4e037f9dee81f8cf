"""Tuning: what of a program is measured to be faster in kernels, how their loops are written, and what XLA is told.

Candidates are XLA alone, what the predicted times choose, and all that kernels can compute. From the best of them one
thing after the other is changed, and kept where it is surely faster: a kernel is left out, its loops are written in
another way or with other tiles, its threads take more or less at once, beginning with the largest kernel; then the size
of blocks, then XLA's compiler options. What is compared runs in turn, so that what else the machine does falls on all.

The search is coordinate descent, as J. Ansel et al., "OpenTuner: an extensible framework for program autotuning", 2014,
has it among its techniques; few choices matter, and each takes a compilation.
"""

from __future__ import annotations

import math
import os
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import jax
from jax.extend.core import ClosedJaxpr
from rich.progress import Progress

from graphopt.choices import Candidate, Choices, Regions, candidates
from graphopt.config import Options
from graphopt.lock import Decision, write_lock

TURN = 2e-3
"""Seconds that a candidate runs in one round at least."""

LEAST = 6
"""Rounds without which no interval is 95% sure."""

BEGINNING, END = 0.3, 0.25
"""Parts of the time in which the first candidates are measured, and the last time the best of all."""

Call = Callable[[], float]


@dataclass(frozen=True, slots=True)
class Tuned:
    """What was measured. `str()` is a table.

    candidates: what was, with its ratio to XLA alone. winner: the one that is kept: XLA, unless another is surely
    faster. rounds: of measuring the winner. function: the function with the winner's choices, as `graphopt.jit` returns
    one. skipped: what there was no time for.
    """

    candidates: tuple[Candidate, ...]
    winner: Candidate
    rounds: int
    function: Any
    skipped: tuple[str, ...] = ()

    def write(self, path: str | os.PathLike[str]) -> None:
        """Adds the winner to a lock file, for `graphopt.jit(f, lock=path)`."""
        write_lock(path, [self.winner.decision])

    def __str__(self) -> str:
        lines = [f"{self.rounds} rounds; time over that of XLA alone, with a 95% interval:"]
        for each in self.candidates:
            found, mark = each.decision, "*" if each is self.winner else " "
            lines.append(f"{mark} {found.ratio:.3f} [{found.low:.3f}, {found.high:.3f}]  {each.name}")
        lines.append(f"kept: {self.winner.decision}")
        if self.skipped:
            lines.append(f"no time for: {', '.join(self.skipped)}")
        return "\n".join(lines)


def tune(
    closed: ClosedJaxpr,
    options: Options,
    jitted: Callable[[Options], Callable[[], Any]],
    function: Callable[[Options], Any],
    seconds: float,
    progress: bool,
    devices: int = 1,
) -> Tuned:
    """Measures the candidates for a traced program for about so many seconds.

    jitted: a call, on the arguments, of the function under options. function: the function itself under them. devices:
    over how many the arguments are spread.
    """
    start = time.perf_counter()
    with Progress(disable=not (progress and sys.stderr.isatty()), transient=True) as shown:
        task = shown.add_task("tuning", total=seconds)

        def report(what: str = "tuning") -> None:
            shown.update(task, completed=min(seconds, time.perf_counter() - start), description=what)

        search = _Search(jitted, options, start + seconds, report)
        regions = Regions(closed, options, devices)
        best = search.best_of(list(candidates(regions)), start + BEGINNING * seconds)
        best = search.descend(Choices(regions, best), start + (1 - END) * seconds)
        winner = search.confirmed(best)
    return Tuned(
        tuple(search.found.values()),
        winner,
        search.rounds,
        function(_with(options, winner.decision)),
        tuple(dict.fromkeys(search.skipped)),
    )


def _with(options: Options, decision: Decision) -> Options:
    return replace(options, tuning=(decision,))


@dataclass
class _Search:
    """stop: when the time is over. found: by their names all that was measured, XLA alone first."""

    jitted: Callable[[Options], Callable[[], Any]]
    options: Options
    stop: float
    report: Callable[[str], None]
    found: dict[str, Candidate] = field(default_factory=dict)
    skipped: list[str] = field(default_factory=list)
    rounds: int = 0
    calls: dict[str, Call] = field(default_factory=dict)
    compiling: list[float] = field(default_factory=list)  # seconds of each compilation
    round: float = 0.0  # seconds of a candidate in one round

    def call(self, candidate: Candidate) -> Call:
        """What runs a candidate, compiled."""
        if candidate.name not in self.calls:
            self.report(candidate.name)
            start = time.perf_counter()
            self.calls[candidate.name] = _prepared(self.jitted(_with(self.options, candidate.decision)))
            self.compiling.append(time.perf_counter() - start)
        return self.calls[candidate.name]

    def compared(self, candidates: Sequence[Candidate], until: float) -> tuple[list[Candidate], list[list[float]]]:
        """The candidates with what was measured of them beside the first one, and the times of each."""
        calls = [self.call(each) for each in candidates]
        start = time.perf_counter()
        times = _measured(calls, until, lambda: self.report("measuring"))
        self.rounds = len(times[0])
        self.round = (time.perf_counter() - start) / self.rounds / len(calls)
        measured = [_with_ratio(each, taken, times[0]) for each, taken in zip(candidates, times, strict=True)]
        self.found |= {each.name: each for each in measured}
        return measured, times

    def best_of(self, candidates: Sequence[Candidate], until: float) -> Candidate:
        """The candidate that took the least; the first one is what others are measured by."""
        measured, _ = self.compared(candidates, until)
        return min(measured, key=lambda each: each.decision.ratio)

    def descend(self, choices: Choices, until: float) -> Candidate:
        """What becomes of a candidate by one choice after the other."""
        for what, others in choices:
            best = choices.best
            room = until - time.perf_counter()
            others = others[: self.how_many(room, room / max(1, choices.left))]
            if not others:
                self.skipped.append(what)
                continue
            reference = next(iter(self.found.values()))
            first = [reference] if best.name == reference.name else [reference, best]
            measured, times = self.compared([*first, *others], time.perf_counter() + room / max(1, choices.left))
            now = len(first) - 1  # the best so far
            faster = [
                each
                for each, taken in zip(measured[len(first) :], times[len(first) :], strict=True)
                if _interval_of(taken, times[now])[1] < 1
            ]
            choices.best = min(faster, key=lambda each: each.decision.ratio, default=measured[now])
            for each in measured[len(first) :]:
                if each is not choices.best:
                    del self.calls[each.name]
        return choices.best

    def how_many(self, room: float, share: float) -> int:
        """How many candidates can be compiled and measured in `share` seconds; one more that takes longer, where there
        is room for it."""
        each = statistics.median(self.compiling) + LEAST * self.round
        return min(max(1, int(share / each)), max(0, int((room - 2 * LEAST * self.round) / each)))

    def confirmed(self, best: Candidate) -> Candidate:
        """The best candidate, measured once more beside XLA alone; XLA alone where it is not surely faster."""
        reference = next(iter(self.found.values()))
        if best.name != reference.name:
            (reference, best), _ = self.compared([reference, best], self.stop)
        return best if best.decision.high < 1 else reference


def _prepared(call: Callable[[], Any]) -> Call:
    """`call`, compiled: seconds of one of it, over as many as take a TURN."""
    jax.block_until_ready(call())
    start = time.perf_counter()
    jax.block_until_ready(call())
    times = min(1000, max(1, math.ceil(TURN / max(time.perf_counter() - start, 1e-7))))

    def run() -> float:
        start = time.perf_counter()
        for _ in range(times):
            result = call()
        jax.block_until_ready(result)
        return (time.perf_counter() - start) / times

    return run


def _measured(calls: Sequence[Call], until: float, report: Callable[[], None]) -> list[list[float]]:
    """Seconds that each took, in LEAST rounds and as many more as there is time for."""
    times: list[list[float]] = [[] for _ in calls]
    while len(times[0]) < LEAST or time.perf_counter() < until:
        for taken, call in zip(times, calls, strict=True):
            taken.append(call())
        report()
    return times


def _with_ratio(candidate: Candidate, taken: Sequence[float], reference: Sequence[float]) -> Candidate:
    low, high = _interval_of(taken, reference)
    ratio = statistics.median(a / b for a, b in zip(taken, reference, strict=True))
    return replace(candidate, decision=replace(candidate.decision, ratio=ratio, low=low, high=high))


def _interval_of(taken: Sequence[float], reference: Sequence[float]) -> tuple[float, float]:
    return interval([a / b for a, b in zip(taken, reference, strict=True)])


def interval(values: Sequence[float]) -> tuple[float, float]:
    """A 95% interval of the median, by the sign test; of fewer than six values, all numbers."""
    ordered, count = sorted(values), len(values)
    tail, rank = 0.0, 0
    while tail + math.comb(count, rank) / 2**count <= 0.025:
        tail += math.comb(count, rank) / 2**count
        rank += 1
    return (ordered[rank - 1], ordered[-rank]) if rank else (0.0, math.inf)
