"""JAX's own primitive cases with backend="numba": what kernels can take runs in them, and every case is as it was.

The counts at the end say how many cases ran whole in Numba, how many in part and how many in XLA, and of what was left
to XLA how often for which reason. A run takes one case of some primitives, drawn by the seed; all of them run with
`pytest -m exhaustive tests/primitive_cases/test_in_kernels.py::test_every_case`, and those under vmap and grad, which
take several times as long, with `test_every_case_transformed` in its place.
"""

import functools
import os
import random

import jax
import pytest

import graphopt
from graphopt.ops.kernel import KERNEL

from .cases import Case, all_cases, grouped, sample
from .comparison import compare, plain, plain_of_each
from .test_primitive_cases import TRANSFORMED, Tally, bounded_memory, by_name, check

__all__ = ["bounded_memory"]

SAMPLE_SIZE = 40
SEED = int(os.environ["GRAPHOPT_TEST_SEED"])
LEFT = "fuse: left to XLA: "
numba_jit = functools.partial(graphopt.jit, backend="numba")


def where_it_ran(case: Case, tally: Tally) -> None:
    """Counts in which engine the operations of a case run, and why not in the other."""
    (args,) = case.arguments(1)
    try:
        report = numba_jit(case.function).explain(*args)
    except Exception:  # noqa: BLE001 - what raises under jax.jit too is compared there
        return
    outside = [n for n in report.graph.nodes if n.op.primitive is not None and n.op is not KERNEL]
    where = ("whole" if not outside else "in part") if report.kernels else "in XLA" if outside else "nothing to run"
    tally("where primitive cases run", where)
    for note in report.notes:
        if note.startswith(LEFT):
            tally("left to XLA, by group and reason", f"{case.group}: {note.removeprefix(LEFT).split(' (')[0]}")


one_of_each = sample(all_cases(), 0, SEED)


@pytest.mark.parametrize("case", by_name(random.Random(SEED).sample(one_of_each, SAMPLE_SIZE)))
def test_sampled_case(case: Case, tally: Tally) -> None:
    with jax.enable_x64(case.x64):
        tally("primitive cases in kernels", compare(plain(case), numba_jit, rounding=True))
        where_it_ran(case, tally)


@pytest.mark.exhaustive
@pytest.mark.parametrize("cases", [pytest.param(cases, id=cases[0].name) for cases in grouped(all_cases())])
def test_every_case(cases: tuple[Case, ...], tally: Tally) -> None:
    with jax.enable_x64(cases[0].x64):
        outcome = compare(plain_of_each(cases), numba_jit, rounding=True)
        for case in cases:
            tally("primitive cases in kernels", outcome)
            where_it_ran(case, tally)


@pytest.mark.exhaustive
@pytest.mark.parametrize("case", by_name(all_cases()))
def test_every_case_transformed(case: Case, tally: Tally) -> None:
    check(case, numba_jit, tally, TRANSFORMED)
