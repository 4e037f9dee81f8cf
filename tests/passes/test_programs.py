"""A program of every kind after the standard passes: by the oracle the same bits, compiled the same effects."""

from collections.abc import Iterator

import jax
import numpy as np
import pytest

from graphopt.backends.reference import apply_opened, evaluate
from graphopt.config import NUMERICS, Options
from graphopt.ir.check import check
from graphopt.ir.graph import Graph
from graphopt.ir.parse import parse
from graphopt.passes.pipelines import STANDARD
from graphopt.rewrite.passes import Context, run_pipeline
from graphopt.trace.jaxpr import graph_of

from ..trace.outcomes import Outcome, compiled, outcome, traced
from ..trace.programs import PROGRAMS, Program


@pytest.fixture(params=PROGRAMS.values(), ids=PROGRAMS.keys())
def program(request: pytest.FixtureRequest) -> Iterator[Program]:
    chosen: Program = request.param
    with jax.enable_x64(chosen.x64):
        yield chosen


def by_operation(graph: Graph, program: Program) -> Outcome:
    return outcome(
        lambda *arguments: evaluate(graph, *arguments, apply=apply_opened), jax.tree.leaves(program.arguments())
    )


@pytest.mark.parametrize("numerics", NUMERICS)
def test_nothing_is_left_to_do(program: Program, numerics: str) -> None:
    graph, sources = graph_of(traced(program))
    context = Context(Options(numerics=numerics), sources)
    optimized, _ = run_pipeline(graph, STANDARD, context)
    check(optimized)
    again, records = run_pipeline(optimized, STANDARD, context)
    assert again is optimized, [f"{firing.rule.name} on {firing.old!r}" for r in records for firing in r.firings]


@pytest.mark.parametrize("differentiable", [False, True], ids=["lowered", "differentiable"])
def test_exact_passes_keep_every_bit(program: Program, differentiable: bool) -> None:
    graph, sources = graph_of(traced(program))
    context = Context(Options(numerics="exact"), sources, differentiable=differentiable)
    optimized, _ = run_pipeline(graph, STANDARD, context)
    check(optimized)
    assert parse(str(optimized), like=optimized) is optimized
    if program.random:
        return
    assert by_operation(optimized, program) == by_operation(graph, program)
    if not differentiable:
        found = compiled(optimized, sources, program.arguments())
        expected = compiled(graph, sources, program.arguments())
        assert found.effects == expected.effects
        # Compiled as a whole, what was fused may round otherwise.
        for (dtype, shape, one), (dtype_too, shape_too, other) in zip(
            found.results + found.references, expected.results + expected.references, strict=True
        ):
            assert (dtype, shape) == (dtype_too, shape_too)
            if one != other:
                left, right = (np.frombuffer(x, dtype) for x in (one, other))
                np.testing.assert_allclose(left, right, rtol=1e-5, atol=1e-6)
