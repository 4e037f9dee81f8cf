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
Programs = dict[str, Callable[[Case], Program | None]]
"""What may be made of a case, by the subject under which it is counted."""

SAMPLE_SIZE = 200
CASES_BETWEEN_CLEARINGS = 100

finished = itertools.count(1)


@pytest.fixture(autouse=True)
def bounded_memory() -> Iterator[None]:
    """Thousands of compiled programs would fill the memory."""
    yield
    if next(finished) % CASES_BETWEEN_CLEARINGS == 0:
        jax.clear_caches()


PLAIN: Programs = {"primitive cases": plain}
TRANSFORMED: Programs = {"primitive cases under vmap": batched, "primitive cases under grad": differentiated}


def check(case: Case, jit: Jit, tally: Tally, programs: Programs = PLAIN | TRANSFORMED) -> None:
    """Compare programs that are made of the case; all that fails is raised together."""
    failures: list[Exception] = []
    with jax.enable_x64(case.x64):
        for subject, program_of in programs.items():
            program = program_of(case)
            if program is None:
                continue
            try:
                result = compare(program, jit, rounding=True)
            except Exception as error:  # noqa: BLE001 - raised below, with those of the other programs
                error.add_note(f"in {subject}: {case.name}")
                failures.append(error)
                result = "FAILED"
            tally(subject, result)
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
    check(case, graphopt.jit, tally, PLAIN)


@pytest.mark.exhaustive
@pytest.mark.parametrize("case", by_name(all_cases()))
def test_every_case_transformed(case: Case, tally: Tally) -> None:
    check(case, graphopt.jit, tally, TRANSFORMED)
