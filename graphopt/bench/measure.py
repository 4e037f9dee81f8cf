"""Measuring: contenders in turn in one process, and what can be said of their ratio.

Machines are noisy and often shared, so a figure is never one contender's time: each round runs every contender once, in an
order that alternates, and what is reported is the median over rounds of the ratio within a round.
"""

from __future__ import annotations

import gc
import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from scipy import stats


@dataclass(frozen=True, slots=True)
class Ratio:
    """The median of paired ratios, with a distribution-free 95% interval (order statistics of the sign test)."""

    median: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.median:.3f} [{self.low:.3f}, {self.high:.3f}]"


def rounds(contenders: Mapping[str, Callable[[], float]], count: int) -> dict[str, list[float]]:
    """Seconds of each contender in each of `count` rounds. A contender runs once when it is called and returns its seconds."""
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    order = list(contenders)
    for _ in range(count):
        for name in order:
            gc.collect()
            seconds[name].append(contenders[name]())
        order.reverse()
    return seconds


def timed(function: Callable[[], object], calls: int = 1) -> Callable[[], float]:
    """A contender that calls `function` `calls` times and returns seconds a call."""

    def run() -> float:
        start = time.perf_counter()
        for _ in range(calls):
            function()
        return (time.perf_counter() - start) / calls

    return run


def paired_ratio(numerator: Sequence[float], denominator: Sequence[float]) -> Ratio:
    """Median and 95% interval of the ratios within each round."""
    ratios = sorted(n / d for n, d in zip(numerator, denominator, strict=True))
    rank = int(stats.binom.ppf(0.025, len(ratios), 0.5))
    return Ratio(statistics.median(ratios), ratios[max(0, rank - 1)], ratios[min(len(ratios) - 1, len(ratios) - rank)])


def geometric_mean(values: Sequence[float]) -> float:
    """The geometric mean of positive numbers."""
    return math.exp(statistics.fmean(map(math.log, values)))
