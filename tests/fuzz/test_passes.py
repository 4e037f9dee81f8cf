"""Random programs through the passes, each pass alone and all of them: the same types, bits and effects."""

from typing import Any

import jax
import numpy as np
import pytest
from hypothesis import HealthCheck, given, note, reject, settings
from hypothesis import strategies as st
from jax.extend.core import ClosedJaxpr, jaxpr_as_fun

from graphopt.backends.reference import apply_opened, evaluate
from graphopt.backends.xla.staging import jaxpr_of
from graphopt.config import Options
from graphopt.ir.check import check
from graphopt.ir.graph import Graph
from graphopt.passes.contract import Contract
from graphopt.passes.dead import Dead
from graphopt.passes.fold import Fold
from graphopt.passes.hoist import Hoist
from graphopt.passes.inline import Inline
from graphopt.passes.pipelines import STANDARD
from graphopt.passes.reroll import Reroll
from graphopt.passes.simplify import Simplify
from graphopt.passes.solve import Solve
from graphopt.rewrite.passes import Context, Pass, run_pipeline
from graphopt.trace.jaxpr import graph_of

from .programs import LOG, Program, programs

PIPELINES: dict[str, tuple[Pass, ...]] = {
    "inline": (Inline(),),
    "inline, no sharing": (Inline(shared_nodes=10_000),),
    "inline, all shared": (Inline(shared_nodes=0),),
    "fold": (Fold(),),
    "fold, small": (Fold(max_elements=1),),
    "dead": (Dead(),),
    "contract": (Contract(),),
    "solve": (Contract(), Solve()),
    "hoist": (Hoist(),),
    "simplify": (Simplify(),),
    "reroll": (Reroll(least_saved=2, any_cost=True),),
    "standard": STANDARD,
    "turned round": (Dead(), Fold(), Inline(), Dead(), Fold()),
}

some = settings(max_examples=25, suppress_health_check=list(HealthCheck))
many = settings(max_examples=2000, suppress_health_check=list(HealthCheck))


@given(programs(), st.booleans())
@some
def test_same_bits_and_effects(program: Program, differentiable: bool) -> None:
    passes_keep_bits_and_effects(program, differentiable)


@pytest.mark.exhaustive
@pytest.mark.timeout(0)
@given(programs(), st.booleans())
@many
def test_same_bits_and_effects_of_many(program: Program, differentiable: bool) -> None:
    passes_keep_bits_and_effects(program, differentiable)


@given(programs(exact=True), st.sampled_from(sorted(PIPELINES)))
@settings(some, max_examples=12)
def test_compiled_as_a_whole(program: Program, pipeline: str) -> None:
    passes_keep_compiled_bits(program, pipeline)


@pytest.mark.exhaustive
@pytest.mark.timeout(0)
@given(programs(exact=True), st.sampled_from(sorted(PIPELINES)))
@many
def test_compiled_as_a_whole_of_many(program: Program, pipeline: str) -> None:
    passes_keep_compiled_bits(program, pipeline)


def passes_keep_bits_and_effects(program: Program, differentiable: bool) -> None:
    arguments = program.values()
    closed = jax.make_jaxpr(program)(*arguments)
    note(str(closed))
    graph, sources = graph_of(closed)
    check(graph)
    expected = outcome(interpreted, graph, arguments)
    done: set[Graph] = {graph}
    for name, passes in PIPELINES.items():
        note(name)
        context = Context(Options(numerics="exact"), sources, differentiable=differentiable)
        _, records = run_pipeline(graph, passes, context)
        for step in records:
            check(step.after)
            assert step.after.in_avals == graph.in_avals
            assert [n.aval for n in step.after.outputs] == [n.aval for n in graph.outputs]
            if step.after not in done:
                done.add(step.after)
                assert outcome(interpreted, step.after, arguments) == expected, f"{name}: after {step.name}"
            if step.name == "dead":
                assert Dead().run(step.after, context) is step.after


def passes_keep_compiled_bits(program: Program, pipeline: str) -> None:
    """Under `jax.jit` a sum of products is rounded as XLA fuses it, so these programs have integers and comparisons."""
    arguments = program.values()
    closed = jax.make_jaxpr(program)(*arguments)
    note(str(closed))
    graph, sources = graph_of(closed)
    context = Context(Options(numerics="exact"), sources)
    after, _ = run_pipeline(graph, PIPELINES[pipeline], context)
    back = jaxpr_of(after, sources)
    assert back.in_avals == closed.in_avals and back.out_avals == closed.out_avals
    try:
        expected = outcome(compiled, closed, arguments)
    except NotImplementedError:
        reject()  # JAX traces some Refs that are made inside of a loop, and cannot compile them
    assert outcome(compiled, back, arguments) == expected


def interpreted(graph: Graph, arguments: list[Any]) -> list[Any]:
    return evaluate(graph, *arguments, apply=apply_opened)


def compiled(closed: ClosedJaxpr, arguments: list[Any]) -> list[Any]:
    results: list[Any] = jax.jit(jaxpr_as_fun(closed))(*arguments)
    return results


def outcome(run: Any, subject: Any, arguments: list[Any]) -> tuple[list[Any], list[Any]]:
    """What comes out, to the bit, and what the effects wrote, in order."""
    LOG.clear()
    results = [np.asarray(x) for x in run(subject, arguments)]
    jax.effects_barrier()
    return [(str(x.dtype), x.shape, x.tobytes()) for x in results], list(LOG)
