"""What is said of measured times: against tables, by simulation, and with a clock that is set by hand."""

from types import SimpleNamespace

import numpy as np
import pytest

from graphopt.bench import measure
from graphopt.bench.measure import Ratio, geometric_mean, narrowed, one_each, paired_ratio, repeated, rounds, timed

# Which of n ordered values bound the median with at least 95%, and how surely they do: the tables of the sign test.
INTERVALS = {
    6: (1, 6, 0.96875),
    7: (1, 7, 0.984375),
    10: (2, 9, 0.978515625),
    20: (6, 15, 0.95861053),
    25: (8, 18, 0.95671463),
}


def test_the_ratio_is_taken_within_a_round() -> None:
    """Each round is ten times as slow as the one before it: what they share falls out."""
    jax_seconds = [1.0, 10.0, 100.0, 1000.0]
    assert paired_ratio([2.0, 30.0, 300.0, 8000.0], jax_seconds).median == 3.0
    assert paired_ratio([2.0, 30.0, 400.0, 8000.0], jax_seconds).median == 3.5


@pytest.mark.parametrize("count", INTERVALS)
def test_the_interval_is_that_of_the_tables(count: int) -> None:
    low, high, _ = INTERVALS[count]
    values = np.random.default_rng(0).permutation(np.arange(1.0, count + 1))
    ratio = paired_ratio((4 * values).tolist(), [4.0] * count)
    assert ratio == Ratio((count + 1) / 2, low, high)


@pytest.mark.parametrize("count", [1, 2, 5])
def test_few_rounds_give_no_interval(count: int) -> None:
    ratio = paired_ratio([3.0] * count, [2.0] * count)
    assert ratio == Ratio(1.5, None, None)
    assert str(ratio) == "1.500 [?]"


def test_a_ratio_prints_its_interval() -> None:
    assert str(paired_ratio([1.0] * 6, [4.0, 4.0, 4.0, 4.0, 4.0, 2.0])) == "0.250 [0.250, 0.500]"


def test_rounds_that_do_not_pair_are_refused() -> None:
    with pytest.raises(ValueError, match="shorter"):
        paired_ratio([1.0, 2.0], [1.0])


@pytest.mark.parametrize("count", [7, 20])
def test_the_interval_holds_the_median_as_often_as_it_says(count: int) -> None:
    """Skewed times, with a load that both contenders of a round share and that changes from round to round."""
    random = np.random.default_rng(count)
    trials, truth = 1000, 1.25
    held = 0
    for _ in range(trials):
        load = random.exponential(size=count) + 0.1
        theirs = load
        ours = truth * load * np.exp(random.gumbel(size=count) + np.log(np.log(2.0)))  # the median of the factor is 1
        ratio = paired_ratio(ours.tolist(), theirs.tolist())
        assert ratio.low is not None
        assert ratio.high is not None
        held += ratio.low <= truth <= ratio.high
    surely = INTERVALS[count][2]
    assert surely >= 0.95
    assert abs(held / trials - surely) < 4 * np.sqrt(surely * (1 - surely) / trials)


def test_rounds_run_every_contender_once_and_turn_the_order_around() -> None:
    order: list[str] = []

    def contender(name: str, seconds: float) -> float:
        order.append(name)
        return seconds + len(order)

    seconds = rounds({"a": lambda: contender("a", 0.1), "b": lambda: contender("b", 0.2)}, 3)
    assert order == ["a", "b", "b", "a", "a", "b"]
    assert seconds == {"a": [1.1, 4.1, 5.1], "b": [2.2, 3.2, 6.2]}


def test_something_can_be_done_before_each_round() -> None:
    order: list[str] = []

    def contender(name: str) -> float:
        order.append(name)
        return 1.0

    rounds({"a": lambda: contender("a"), "b": lambda: contender("b")}, 2, lambda: order.append("before"))
    assert order == ["before", "a", "b", "before", "b", "a"]


class Clock:
    """A clock that stands still until it is told how many seconds pass."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        self.used = 0.0  # by all threads
        self.busy = 0.0  # seconds that other threads will be busy for
        times = {"perf_counter": lambda: self.now, "process_time": lambda: self.used, "sleep": self.passes}
        monkeypatch.setattr(measure, "time", SimpleNamespace(**times))

    def passes(self, seconds: float) -> None:
        self.now += seconds
        self.used += min(seconds, self.busy)
        self.busy = max(0.0, self.busy - seconds)


class Unfinished:
    """A result whose computation takes five seconds more."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock

    def block_until_ready(self) -> None:
        self.clock.passes(5.0)


def test_a_contender_returns_the_seconds_of_a_call(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    assert timed(clock.passes, 3.0)() == 3.0
    assert timed(clock.passes, 0.25, calls=8)() == 0.25
    assert clock.now == 105.0


def test_what_is_still_computed_is_awaited_but_not_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)

    def dispatch() -> list[Unfinished]:
        clock.passes(1.0)
        return [Unfinished(clock)]

    assert timed(dispatch, calls=2)() == 1.0
    assert clock.now == 107.0


def test_results_can_be_part_of_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)

    def dispatch(seconds: float) -> list[Unfinished]:
        clock.passes(seconds)
        return [Unfinished(clock)]

    assert repeated(dispatch, (1.0,), calls=4)() == 6.0
    assert repeated(dispatch, (1.0,), calls=4, wait=lambda result: result)() == 1.0
    held: list[object] = []
    assert one_each(dispatch, [(1.0,), (3.0,)], held, uncounted=0)() == 7.0
    assert len(held) == 2
    assert one_each(dispatch, [(9.0,), (1.0,), (3.0,)], held, uncounted=1)() == 7.0
    assert len(held) == 5
    assert one_each(dispatch, [(9.0,), (1.0,), (3.0,)], held, uncounted=1, wait=lambda result: result)() == 2.0
    assert len(held) == 8


@pytest.mark.parametrize("left, waited", [(0.0, 0.001), (0.0205, 0.022), (9.0, 0.1)])
def test_what_a_contender_leaves_behind_is_not_the_next_ones(
    left: float, waited: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock(monkeypatch)

    def contender(seconds: float) -> float:
        clock.passes(seconds)
        clock.busy = left
        return seconds

    assert repeated(contender, (0.5,), calls=2, wait=lambda result: result)() == 0.5
    assert clock.now - 101.0 == pytest.approx(waited, abs=1.1e-3)
    before = clock.now
    assert repeated(contender, (1 / 1024,), calls=2, wait=lambda result: result)() == 1 / 1024
    assert clock.now - before == 1 / 512  # a short one is not waited for


def test_the_geometric_mean() -> None:
    assert geometric_mean([1.0, 4.0, 16.0]) == pytest.approx(4.0, rel=1e-15)
    assert geometric_mean([0.5, 2.0]) == pytest.approx(1.0, rel=1e-15)
    assert geometric_mean([0.3]) == pytest.approx(0.3, rel=1e-15)
    with pytest.raises(ValueError, match=r"math domain error|positive"):
        geometric_mean([1.0, 0.0])


def test_rounds_go_on_until_the_interval_is_narrow_or_time_is_up(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr(measure.time, "perf_counter", lambda: clock[0])
    random = np.random.default_rng(0)

    def noisy(spread: float) -> float:
        clock[0] += 1.0
        return float(np.exp(spread * random.normal()))

    steady = {"jax": lambda: noisy(0.0), "graphopt": lambda: noisy(0.0)}
    assert len(narrowed(steady, 2, width=0.1, limit=1000.0)["jax"]) == 6, "no interval comes from fewer rounds"
    assert len(narrowed(steady, 2, width=0.1, limit=0.0)["jax"]) == 2
    shaky = {"jax": lambda: noisy(0.2), "graphopt": lambda: noisy(0.2)}
    seconds = narrowed(shaky, 7, width=0.1, limit=1e6)
    ratio = paired_ratio(seconds["graphopt"], seconds["jax"])
    assert ratio.low is not None
    assert ratio.high is not None
    assert ratio.high - ratio.low < 0.1 * ratio.median
    assert len(seconds["jax"]) > 50
    assert len(narrowed(shaky, 7, width=0.1, limit=10.0)["jax"]) == 7 + 8
