"""Random loops that Python unrolls, rolled again: the same bits as before, operation by operation."""

import jax
import numpy as np
import pytest
from hypothesis import HealthCheck, event, given, note, settings

import graphopt
from graphopt.backends.agreement import disagreement
from graphopt.config import Options
from graphopt.ir.check import check
from graphopt.ir.graph import Graph
from graphopt.ops.control import SCAN
from graphopt.passes.inline import Inline
from graphopt.passes.reroll import Reroll
from graphopt.rewrite.passes import Context
from graphopt.trace.jaxpr import trace_function

from .loops import Loop, loops

few = settings(max_examples=6, suppress_health_check=list(HealthCheck))
some = settings(max_examples=40, suppress_health_check=list(HealthCheck))
many = settings(max_examples=3000, suppress_health_check=list(HealthCheck))


@given(loops())
@some
def test_rolled_loops_compute_the_same(loop: Loop) -> None:
    rolled_computes_the_same(loop)


@pytest.mark.exhaustive
@pytest.mark.timeout(0)
@given(loops())
@many
def test_many_rolled_loops_compute_the_same(loop: Loop) -> None:
    rolled_computes_the_same(loop)


@given(loops())
@few
def test_compiled_rolled_loops_agree_with_jax(loop: Loop) -> None:
    args = loop.arguments()
    passes = ("inline", Reroll(least_saved=3, any_cost=True), "fold", "simplify", "hoist", "dead")
    found, expected = graphopt.jit(loop, passes=passes)(*args), jax.jit(loop)(*args)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5)


def rolled_computes_the_same(loop: Loop) -> None:
    args = loop.arguments()
    traced, sources = trace_function(loop, *args)
    context = Context(Options(), sources)
    before = Inline(shared_nodes=10_000).run(traced, context)
    after = Reroll(least_saved=3, any_cost=True).run(before, context)
    check(after)
    note(f"{before}\nbecame\n{after}")
    event(f"loops: {loops_in(after)}")
    difference = disagreement(before, after, jax.tree.leaves(args), "exact")
    assert difference is None, difference


def loops_in(graph: Graph) -> int:
    return sum(node.op is SCAN for node in graph.nodes)
