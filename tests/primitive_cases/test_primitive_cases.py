"""Whatever jax.jit makes of JAX's own primitive cases, graphopt.jit makes too: plain, under vmap and under grad.

A run takes a sample, drawn by the seed in its header, with at least one case of each primitive; all of them run with
`pytest -m exhaustive tests/primitive_cases`. The counts of each outcome are printed at the end.
"""

import itertools
import os
from collections.abc import Callable, Iterator
from typing import Any

import jax
import pytest

import graphopt

from .cases import Case, all_cases, sample
from .comparison import Jit, Program, batched, compare, differentiated, plain

Tally = Callable[[str, str], None]

SAMPLE_SIZE = 200
CASES_BETWEEN_CLEARINGS = 100

finished = itertools.count(1)


@pytest.fixture(autouse=True)
def bounded_memory() -> Iterator[None]:
    """Thousands of compiled programs would fill the memory."""
    yield
    if next(finished) % CASES_BETWEEN_CLEARINGS == 0:
        jax.clear_caches()


def check(case: Case, jit: Jit, tally: Tally) -> None:
    """Compare the case under each transformation; all that fails is raised together."""
    failures: list[Exception] = []

    def outcome(subject: str, program: Program) -> str:
        try:
            result = compare(program, jit, rounding=True)
        except Exception as error:  # noqa: BLE001 - raised below, with those of the other transformations
            error.add_note(f"in {subject}: {case.name}")
            failures.append(error)
            result = "FAILED"
        tally(subject, result)
        return result

    with jax.enable_x64(case.x64):
        if outcome("primitive cases", plain(case)).startswith("jax.jit raises"):
            return
        for name, program in (("vmap", batched(case)), ("grad", differentiated(case))):
            if program is not None:
                outcome(f"primitive cases under {name}", program)
    if failures:
        raise ExceptionGroup(case.name, failures)


def by_name(cases: list[Case] | tuple[Case, ...]) -> list[Any]:
    return [pytest.param(case, id=case.name) for case in cases]


@pytest.mark.parametrize("case", by_name(sample(all_cases(), SAMPLE_SIZE, int(os.environ["GRAPHOPT_TEST_SEED"]))))
def test_sampled_case(case: Case, tally: Tally) -> None:
    check(case, graphopt.jit, tally)


@pytest.mark.exhaustive
@pytest.mark.parametrize("case", by_name(all_cases()))
def test_every_case(case: Case, tally: Tally) -> None:
    check(case, graphopt.jit, tally)
