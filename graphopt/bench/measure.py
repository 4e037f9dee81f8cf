"""Measuring: contenders in turn in one process, and what can be said of their ratio.

Machines are noisy and often shared, so a figure is never one contender's time: each round runs every contender once, in
an order that alternates, and what is reported is the median over rounds of the ratio within a round.
"""

from __future__ import annotations

import gc
import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
from scipy import stats

LONG, UNSETTLED, PAUSE = 5e-3, 0.1, 1e-3
"""Seconds: of a contender that leaves work behind, that is waited for it at most, and at a time."""


@dataclass(frozen=True, slots=True)
class Ratio:
    """The median of paired ratios, with a 95% interval that holds whatever the distribution (by the sign test).

    low, high: its ends; None from fewer than six rounds, of which no interval is that sure.
    """

    median: float
    low: float | None
    high: float | None

    def __str__(self) -> str:
        if self.low is None or self.high is None:
            return f"{self.median:.3f} [?]"
        return f"{self.median:.3f} [{self.low:.3f}, {self.high:.3f}]"


def rounds(
    contenders: Mapping[str, Callable[[], float]], count: int, before: Callable[[], object] | None = None
) -> dict[str, list[float]]:
    """Seconds of each contender in each of `count` rounds. Calling a contender runs it and returns its seconds.

    The first two change places from round to round, so that neither always comes after the same one.
    before: what to do at the start of each round.
    """
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    order = list(contenders)
    for _ in range(count):
        if before is not None:
            before()
        for name in order:
            seconds[name].append(contenders[name]())
        order[:2] = order[1::-1]
    return seconds


def narrowed(
    contenders: Mapping[str, Callable[[], float]],
    count: int,
    before: Callable[[], object] | None = None,
    *,
    width: float,
    limit: float,
) -> dict[str, list[float]]:
    """`rounds`, and as many again and again until the interval of "graphopt" over "jax" is narrow, or time is up.

    Whether to go on depends on the interval's width alone, not on where it lies, or the end would choose the figure.

    width: of the interval, as a share of the median, that is narrow enough. limit: seconds of further rounds.
    """
    seconds = rounds(contenders, count, before)
    end = time.perf_counter() + limit
    while time.perf_counter() < end:
        ratio = paired_ratio(seconds["graphopt"], seconds["jax"])
        if ratio.low is not None and ratio.high is not None and ratio.high - ratio.low < width * ratio.median:
            break
        # Of an even number of rounds each contender begins one half.
        for name, more in rounds(contenders, 2 * math.ceil(count / 2), before).items():
            seconds[name] += more
    return seconds


def timed(function: Callable[..., Any], *args: Any, calls: int = 1) -> Callable[[], float]:
    """A contender that calls `function(*args)` `calls` times and returns seconds a call. It collects garbage first.

    Arrays may still be computed when the clock stops, but not when the next contender starts.
    """

    def run() -> float:
        gc.collect()
        start = time.perf_counter()
        for _ in range(calls):
            result = function(*args)
        seconds = (time.perf_counter() - start) / calls
        jax.block_until_ready(result)
        return seconds

    return run


def awaited(result: Any) -> Any:
    """A result of JAX's, when it is computed. The method of a single array takes half a microsecond less than
    `jax.block_until_ready`, which NumPy's contender does not have to pay either."""
    wait = getattr(result, "block_until_ready", None)
    return jax.block_until_ready(result) if wait is None else wait()


def settle(seconds: float) -> None:
    """Waits until a contender that took so long has really ended, but not longer than UNSETTLED.

    XLA gives memory back when the result is there: for intermediate arrays of 100 MB one of its threads takes 20 ms,
    in which the next contender would have one core less. A short one has little to give back, and after a pause the
    next would begin slowly.
    """
    if seconds < LONG:
        return
    end = time.perf_counter() + UNSETTLED
    while time.perf_counter() < end:
        before = time.process_time()
        time.sleep(PAUSE)
        if time.process_time() - before < PAUSE / 4:
            break


def repeated(
    function: Callable[..., Any], args: tuple[Any, ...], calls: int, wait: Callable[[Any], Any] = awaited
) -> Callable[[], float]:
    """A contender that calls `function(*args)` `calls` times and returns seconds a call, results included.

    wait: returns what it is given, when that is computed.
    """

    def run() -> float:
        start = time.perf_counter()
        for _ in range(calls):
            wait(function(*args))
        seconds = time.perf_counter() - start
        settle(seconds)
        return seconds / calls

    return run


def one_each(
    function: Callable[..., Any],
    arguments: Sequence[tuple[Any, ...]],
    held: list[Any],
    uncounted: int,
    wait: Callable[[Any], Any] = awaited,
) -> Callable[[], float]:
    """A contender that calls `function` with each of `arguments` and returns seconds a call, results included.

    held: receives the results, so that no later call gets their memory while it is still in a cache.
    uncounted: how many calls come before the clock starts. After others have filled the caches they fetch the code.
    wait: returns what it is given, when that is computed.
    """

    def run() -> float:
        for args in arguments[:uncounted]:
            held.append(wait(function(*args)))
        start = time.perf_counter()
        for args in arguments[uncounted:]:
            held.append(wait(function(*args)))
        seconds = time.perf_counter() - start
        settle(seconds)
        return seconds / (len(arguments) - uncounted)

    return run


def paired_ratio(numerator: Sequence[float], denominator: Sequence[float]) -> Ratio:
    """Median and 95% interval of the ratios within each round. Raises ValueError where the lengths differ."""
    ratios = [n / d for n, d in zip(numerator, denominator, strict=True)]
    interval = stats.quantile_test(ratios, p=0.5).confidence_interval(0.95)
    low, high = (None if math.isnan(end) else float(end) for end in (interval.low, interval.high))
    return Ratio(statistics.median(ratios), low, high)


def geometric_mean(values: Sequence[float]) -> float:
    """The geometric mean of positive numbers."""
    return math.exp(statistics.fmean(map(math.log, values)))
