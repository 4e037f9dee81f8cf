"""Tuning: which regions of a program are measured to be faster in kernels, on real arguments.

Candidates are XLA alone, what the predicted times choose, all that kernels can compute, and the better of these without
one kernel at a time. They run in turn, so that what else the machine does falls on all of them.
"""

from __future__ import annotations

import math
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax
from jax.extend.core import ClosedJaxpr
from rich.progress import Progress

from graphopt.compile import optimize_graph
from graphopt.config import Options
from graphopt.explain import program_hash, region_of, target_of
from graphopt.ir.graph import Graph, nested_graphs
from graphopt.lock import Decision, hash_of, write_lock
from graphopt.ops.kernel import KERNEL

DROPPED = 8
"""How many kernels are tried to be left out, the largest first."""

TURN = 2e-3
"""Seconds that a candidate runs in one round at least."""

LEAST = 6
"""Rounds without which no interval is 95% sure."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """What may be run. name: in words. decision: regions in kernels; its times are not known before it is measured."""

    name: str
    decision: Decision


@dataclass(frozen=True, slots=True)
class Tuned:
    """What was measured. `str()` is a table.

    candidates: what was, with its ratio to XLA alone. winner: the one that is kept: XLA, unless another is surely
    faster. rounds: of measuring. function: the function with the winner's engines, as `graphopt.jit` returns one.
    """

    candidates: tuple[Candidate, ...]
    winner: Candidate
    rounds: int
    function: Any

    def write(self, path: str | os.PathLike[str]) -> None:
        """Adds the winner to a lock file, for `graphopt.jit(f, lock=path)`."""
        write_lock(path, [self.winner.decision])

    def __str__(self) -> str:
        lines = [f"{self.rounds} rounds; time over that of XLA alone, with a 95% interval:"]
        for each in self.candidates:
            found, mark = each.decision, "*" if each is self.winner else " "
            lines.append(f"{mark} {found.ratio:.3f} [{found.low:.3f}, {found.high:.3f}]  {each.name}")
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

    jitted: a call, on the arguments, of the function under options. function: the function itself under them.
    """
    stop = time.perf_counter() + seconds
    with Progress(disable=not (progress and sys.stderr.isatty()), transient=True) as shown:
        task = shown.add_task("tuning", total=seconds)

        def report() -> None:
            shown.update(task, completed=seconds - max(0.0, stop - time.perf_counter()))

        def measured(candidates: Sequence[Candidate], until: float) -> tuple[list[Candidate], int]:
            calls = [_prepared(jitted(_with(options, each.decision)), report) for each in candidates]
            return _measured(candidates, calls, until, report)

        first = list(_candidates(closed, options, devices))
        found, rounds = measured(first, time.perf_counter() + 0.5 * max(0.0, stop - time.perf_counter()))
        best = min(found, key=lambda each: each.decision.ratio)
        more = [found[0], best, *_without_one(best)] if len(best.decision.kernels) > 1 else [found[0], best]
        if best is not found[0]:
            again, rounds = measured(more, stop)
            found = [again[0], *(each for each in found[1:] if each is not best), *again[1:]]
    surely = [each for each in found[1:] if each.decision.high < 1]
    winner = min(surely, key=lambda each: each.decision.ratio, default=found[0])
    return Tuned(tuple(found), winner, rounds, function(_with(options, winner.decision)))


def _with(options: Options, decision: Decision) -> Options:
    return replace(options, tuning=(decision,))


def _candidates(closed: ClosedJaxpr, options: Options, devices: int = 1) -> Iterator[Candidate]:
    """XLA alone, then what has other kernels than those before it."""
    region, sources = region_of(closed)
    target = target_of(region, devices)

    def graph_for(backend: str) -> Graph:
        return optimize_graph(region, sources, replace(options, backend=backend, tuning=()), target)[0]

    program = program_hash(region, sources, options, target)
    yield Candidate("XLA alone", Decision(program, "auto", (), 1.0, 1.0, 1.0))
    seen: set[frozenset[str]] = {frozenset()}
    for backend, name in (("auto", "expected to be fastest"), ("numba", "all that kernels can compute")):
        nodes = [n for inner in nested_graphs(graph_for(backend)) for n in inner.nodes if n.op is KERNEL]
        bodies = sorted({n.attrs["body"].graph for n in nodes}, key=lambda body: -sum(n.aval.size for n in body.nodes))
        kernels = tuple(dict.fromkeys(hash_of(str(body)) for body in bodies))
        if frozenset(kernels) not in seen:
            seen.add(frozenset(kernels))
            yield Candidate(f"{name}: {len(kernels)} kernels", Decision(program, backend, kernels, 1.0, 1.0, 1.0))


def _without_one(best: Candidate) -> Iterator[Candidate]:
    kernels = best.decision.kernels
    for left in range(min(DROPPED, len(kernels))):
        rest = (*kernels[:left], *kernels[left + 1 :])
        yield Candidate(f"{best.name}, without number {left + 1}", replace(best.decision, kernels=rest))


def _prepared(call: Callable[[], Any], report: Callable[[], None]) -> Callable[[], float]:
    """`call`, compiled: seconds of one of it, over as many as take a TURN."""
    jax.block_until_ready(call())
    start = time.perf_counter()
    jax.block_until_ready(call())
    times = min(1000, max(1, math.ceil(TURN / max(time.perf_counter() - start, 1e-7))))
    report()

    def run() -> float:
        start = time.perf_counter()
        for _ in range(times):
            result = call()
        jax.block_until_ready(result)
        return (time.perf_counter() - start) / times

    return run


def _measured(
    candidates: Sequence[Candidate], calls: Sequence[Callable[[], float]], until: float, report: Callable[[], None]
) -> tuple[list[Candidate], int]:
    """The candidates with what was measured of them, and in how many rounds."""
    ratios: list[list[float]] = [[] for _ in calls]
    while len(ratios[0]) < LEAST or time.perf_counter() < until:
        seconds = [call() for call in calls]
        for each, taken in zip(ratios, seconds, strict=True):
            each.append(taken / seconds[0])
        report()
    found = []
    for candidate, values in zip(candidates, ratios, strict=True):
        low, high = interval(values)
        found.append(
            replace(
                candidate, decision=replace(candidate.decision, ratio=statistics.median(values), low=low, high=high)
            )
        )
    return found, len(ratios[0])


def interval(values: Sequence[float]) -> tuple[float, float]:
    """A 95% interval of the median, by the sign test; of fewer than six values, all numbers."""
    ordered, count = sorted(values), len(values)
    tail, rank = 0.0, 0
    while tail + math.comb(count, rank) / 2**count <= 0.025:
        tail += math.comb(count, rank) / 2**count
        rank += 1
    return (ordered[rank - 1], ordered[-rank]) if rank else (0.0, math.inf)
