"""References: written to and read from in the order of the program, wherever they come from."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.extend.core import jaxpr_as_fun

from graphopt.backends.reference import evaluate
from graphopt.backends.xla.staging import jaxpr_of
from graphopt.config import Options
from graphopt.ir.check import check
from graphopt.passes.pipelines import STANDARD
from graphopt.rewrite.passes import Context, run_pipeline
from graphopt.trace.jaxpr import graph_of, trace_function


def states(graph: Any) -> int:
    return sum(node.aval.is_state for node in graph.outputs)


def test_a_reference_argument_has_a_final_state_and_an_inner_one_has_none() -> None:
    def function(one: Any, two: Any, x: Any) -> Any:
        inner = jax.new_ref(x)
        two[...] = inner[...]
        inner[...] = x
        return one[...]

    refs = jax.new_ref(jnp.zeros(3)), jax.new_ref(jnp.ones(3))
    graph, _ = trace_function(function, *refs, np.ones(3, np.float32))
    check(graph)
    assert len(graph.results) == 1
    assert states(graph) == 2  # read is an effect, too: it must not move past a write


def test_reads_and_writes_keep_their_order() -> None:
    def function(ref: Any) -> Any:
        a = ref[...]
        ref[...] = a + 1
        b = ref[...]
        ref[...] = b * 10
        ref[...] = b * 100  # the write before is unused, and stays
        return a, b, ref[...]

    ref = jax.new_ref(jnp.float32(2))
    graph, sources = trace_function(function, ref)
    assert graph.count() == jaxpr_of(graph).jaxpr.eqns.__len__() == 9
    for run in (jax.jit(jaxpr_as_fun(jaxpr_of(graph, sources))), lambda r: evaluate(graph, r)):
        ref[...] = jnp.float32(2)
        assert [float(x) for x in run(ref)] == [2, 3, 300]
        assert float(ref[...]) == 300


def closed_over(ref: Any) -> Any:
    def function(x: Any) -> Any:
        ref[...] += x
        return ref[...] * 2

    return function


def in_a_call(ref: Any) -> Any:
    def function(x: Any) -> Any:
        called = jax.jit(lambda y: ref.__setitem__(..., ref[...] * y))
        called(x)
        before = ref[...]
        called(x)
        return before, ref[...]

    return function


def in_a_loop(ref: Any) -> Any:
    def function(x: Any) -> Any:
        def step(c: Any, i: Any) -> Any:
            ref[...] += x * i
            return c + ref[...], None

        total, _ = lax.scan(step, x * 0, jnp.arange(3.0))
        lax.fori_loop(0, 2, lambda i, _: ref.__setitem__(..., ref[...] * 2), None)
        lax.cond(x > 0, lambda: ref.__setitem__(..., ref[...] + 1), lambda: None)
        return total

    return function


@pytest.mark.parametrize("make", [closed_over, in_a_call, in_a_loop])
def test_references_that_the_function_closes_over(make: Any) -> None:
    x = np.float32(3)
    mine, theirs = jax.new_ref(jnp.float32(5)), jax.new_ref(jnp.float32(5))
    closed = jax.make_jaxpr(make(mine))(x)
    graph, sources = graph_of(closed)
    check(graph)
    assert states(graph) == 1
    optimized, _ = run_pipeline(graph, STANDARD, Context(Options(), sources))
    check(optimized)
    assert states(optimized) == 1
    expected = [np.asarray(v).tolist() for v in jax.tree.leaves(jax.jit(make(theirs))(x))]
    for some in (graph, optimized):
        for run in (evaluate, lambda graph, x: jax.jit(jaxpr_as_fun(jaxpr_of(graph, sources)))(x)):
            mine[...] = jnp.float32(5)
            assert [np.asarray(v).tolist() for v in run(some, x)] == expected
            assert float(mine[...]) == float(theirs[...])


def test_two_references_to_a_call_are_not_taken_for_one_another() -> None:
    @jax.jit
    def swap(a: Any, b: Any) -> None:
        a[...], b[...] = b[...], a[...]

    def function(a: Any, b: Any) -> Any:
        swap(b, a)
        swap(a, b)
        swap(b, a)
        return a[...], b[...]

    refs = jax.new_ref(jnp.float32(1)), jax.new_ref(jnp.float32(2))
    graph, sources = trace_function(function, *refs)
    optimized, _ = run_pipeline(graph, STANDARD, Context(Options(), sources))
    check(optimized)
    assert not any(node.subgraphs for node in optimized.nodes)
    for some in (graph, optimized):
        refs[0][...], refs[1][...] = jnp.float32(1), jnp.float32(2)
        assert [float(x) for x in evaluate(some, *refs)] == [2, 1]
