"""Runs in sequences of numbers: found where they are, the shortest period, none where there is none."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphopt.analysis.runs import Run, periodic_runs


def test_runs_one_after_the_other() -> None:
    sequence = [9, 8, 7, *[1, 2, 3, 2, 4] * 20, 5, *[1, 2, 3, 6, 4] * 10, *[2] * 30]
    found = periodic_runs(sequence, 4, 8)
    assert sorted(found, key=lambda run: run.start) == [Run(3, 5, 103), Run(104, 5, 154), Run(154, 1, 184)]


def test_the_last_period_need_not_be_whole() -> None:
    (run,) = periodic_runs([*[1, 2, 3] * 6, 1, 2, 7], 4, 8)
    assert run == Run(0, 3, 20)
    assert (run.count, run.saved) == (6, 15)


def test_a_period_of_repetitions_is_taken_as_a_whole() -> None:
    (run,) = periodic_runs([*[1, 1, 2, 2, 1, 2]] * 8, 4, 8)
    assert run.period == 6


@pytest.mark.parametrize("sequence", [[], [1], [1, 2, 3], list(range(100)), [1, 2, 1, 2, 1, 2]])
def test_nothing_repeats_often_enough(sequence: list[int]) -> None:
    assert periodic_runs(sequence, 4, 4) == []


@given(
    st.lists(st.lists(st.integers(0, 4), min_size=1, max_size=6), min_size=1, max_size=4),
    st.lists(st.integers(1, 9), min_size=4, max_size=4),
)
def test_runs_repeat_and_do_not_overlap(pieces: list[list[int]], counts: list[int]) -> None:
    sequence = [number for piece, count in zip(pieces, counts, strict=False) for number in piece * count]
    taken: set[int] = set()
    for run in periodic_runs(sequence, 4, 4):
        assert run.count >= 4
        assert run.saved >= 4
        assert sequence[run.start + run.period : run.stop] == sequence[run.start : run.stop - run.period]
        assert taken.isdisjoint(range(run.start, run.stop))
        taken.update(range(run.start, run.stop))


def test_a_long_run_among_random_numbers() -> None:
    random = np.random.default_rng(0).integers(0, 1000, 3000).tolist()
    (run,) = periodic_runs([*random[:1500], *random[:700] * 20, *random[1500:]], 4, 100)
    assert run.period == 700
    assert run.count >= 20
