"""Random graphs of 5 to 60 operations, all that are described: every prefix of the pipeline against the evaluator."""

import os
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from graphopt.backends.agreement import disagreement
from graphopt.backends.reference import apply_opened, evaluate
from graphopt.config import NUMERICS, Options
from graphopt.ir.check import check
from graphopt.ir.op import op_of
from graphopt.ops import described_ops
from graphopt.passes.pipelines import STANDARD
from graphopt.rewrite.passes import Context, run_pipeline
from graphopt.rewrite.safety import ADMITTED, SAFETIES
from graphopt.trace.jaxpr import graph_of

from ..rules.drawing import values
from .operations import STEPS, take_step

SEED = int(os.environ.get("GRAPHOPT_TEST_SEED", "0"))
ARGUMENTS = (
    ("float32", (2, 3)),
    ("float32", ()),
    ("int32", (3,)),
    ("int32", ()),
    ("bool", (2, 3)),
    ("float32", (5,)),
    ("float32", (1, 3)),
    ("float32", (2, 1)),
    ("int32", (1,)),
)

Steps = list[tuple[str, int]]
# fmt: off
COMMON = [
    "add", "mul", "sub", "neg", "div", "max", "min", "square", "abs", "transpose", "reshape", "slice", "broadcast_in_dim",
    "convert_element_type", "select_n", "concatenate", "reduce_sum", "and", "or", "not", "eq", "pad", "rev", "iota",
]
# fmt: on
"""Drawn more often: with these most rules begin."""

programs = st.lists(
    st.tuples(st.sampled_from([*sorted(STEPS), *COMMON * 3]), st.integers(0, 2**20)), min_size=8, max_size=70
)


def run(steps: Steps, known: list[Any]) -> list[Any]:
    """The values of all steps after the arguments; steps for which there is no operand are left out."""
    known = list(known)
    for name, number in steps:
        value = take_step(name, number, known)
        if value is not None:
            known.append(value)
    return known[len(ARGUMENTS) :]


def every_prefix_agrees(steps: Steps, number: int, special: bool) -> None:
    random = np.random.default_rng(number)
    args = [values(random, dtype, shape, special) for dtype, shape in ARGUMENTS]
    # A few results: what is computed for nothing is part of a program too, but not most of it.
    closed = jax.make_jaxpr(lambda *known: run(steps, list(map(jnp.asarray, known)))[-4:])(*args)
    graph, sources = graph_of(closed)
    expected = evaluate(graph, *args, apply=apply_opened)
    seen = {graph}
    for numerics in NUMERICS:
        context = Context(Options(numerics=numerics), sources)
        _, records = run_pipeline(graph, STANDARD, context)
        loosest = 0
        for record in records:
            assert not record.endless, record.notes
            assert {firing.safety for firing in record.firings} <= set(ADMITTED[numerics])
            loosest = max([loosest, *(SAFETIES.index(firing.safety) for firing in record.firings)])
            if record.after not in seen:
                seen.add(record.after)
                check(record.after)
                found = disagreement(graph, record.after, args, SAFETIES[loosest], expected)
                rules = [f"{f.rule.name} ({f.rule.file}:{f.rule.line})" for r in records for f in r.firings]
                assert found is None, (
                    f"{numerics}, after {record.name}: {found}\n{graph}\n{record.after}\n{args}\n{rules}"
                )


quiet = settings(suppress_health_check=list(HealthCheck), derandomize=False)


@seed(SEED)
@settings(quiet, max_examples=60)
@given(programs, st.integers(0, 2**32 - 1), st.booleans())
def test_random_graphs(steps: Steps, number: int, special: bool) -> None:
    every_prefix_agrees(steps, number, special)


@pytest.mark.exhaustive
@pytest.mark.timeout(0)
@pytest.mark.parametrize("part", range(10))
def test_ten_thousand_random_graphs(part: int) -> None:
    @seed(SEED + part)
    @settings(quiet, max_examples=1000)
    @given(programs, st.integers(0, 2**32 - 1), st.booleans())
    def test(steps: Steps, number: int, special: bool) -> None:
        every_prefix_agrees(steps, number, special)

    test()


def test_every_described_operation_is_drawn() -> None:
    random = np.random.default_rng(0)
    known = [values(random, dtype, shape, False) for dtype, shape in ARGUMENTS]
    known += [np.ones((2, 1), np.complex64), np.ones((3, 1), np.float32), np.ones((3, 3), np.uint8)]
    drawn = set()
    for name in STEPS:
        for number in range(30):

            def step(*known: Any, name: str = name, number: int = number) -> Any:
                return take_step(name, number, list(map(jnp.asarray, known)))

            drawn |= {op_of(eqn.primitive) for eqn in inner(jax.make_jaxpr(step)(*known).jaxpr)}
    assert {op.name for op in described_ops()} - {op.name for op in drawn} == set()


def inner(jaxpr: Any) -> list[Any]:
    """The equations of a jaxpr and of those in it."""
    found = list(jaxpr.eqns)
    for eqn in jaxpr.eqns:
        for value in eqn.params.values():
            if hasattr(value, "jaxpr"):
                found += inner(value.jaxpr)
    return found
