"""Operations whose every occurrence is a value of its own are never merged; all others are, and those nobody reads go."""

from collections import Counter
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
from graphopt.ir.graph import Graph
from graphopt.passes.inline import Inline
from graphopt.passes.pipelines import STANDARD
from graphopt.rewrite.passes import Context, run_pipeline
from graphopt.trace.jaxpr import trace_function

X = np.arange(3, dtype=np.float32)


def names(graph: Graph) -> Counter[str]:
    return Counter(node.op.name for node in graph.nodes)


def equations(graph: Graph) -> Counter[str]:
    return Counter(eqn.primitive.name for eqn in jaxpr_of(graph).eqns)


def after(passes: Any, function: Any, *arguments: Any) -> Graph:
    graph, sources = trace_function(function, *arguments)
    return run_pipeline(graph, passes, Context(Options(), sources))[0]


def test_equal_operations_are_merged_and_unused_ones_are_gone() -> None:
    def function(x: Any) -> Any:
        unused = jnp.cos(x)
        del unused
        return jnp.sin(x), jnp.sin(x) + 1, jax.jit(jnp.tanh)(x), jax.jit(jnp.tanh)(x)

    graph, _ = trace_function(function, X)
    assert names(graph) == {"param": 1, "constant": 1, "sin": 1, "add": 1, "jit": 1}
    assert equations(graph) == {"sin": 1, "add": 1, "jit": 1}


@pytest.mark.parametrize("calls", [1, 2, 3], ids=["directly", "in a call", "in a call in a call"])
@pytest.mark.parametrize(
    ("name", "function"),
    [
        ("optimization_barrier", lax.optimization_barrier),
        ("rng_uniform", lambda x: lax.rng_uniform(x[0] * 0, 1.0, (3,))),
        ("new_ref", lambda x: jax.new_ref(x)[...]),
    ],
)
def test_distinct_operations_are_not_merged(name: str, function: Any, calls: int) -> None:
    one: Any = function
    for _ in range(calls - 1):
        one = jax.jit(one)

    def both(x: Any) -> Any:
        return one(x) + one(x) * 2

    graph, _ = trace_function(both, X)
    assert names(graph)[name if calls == 1 else "jit"] == 2
    flat = after([Inline()], both, X)
    assert names(flat)[name] == 2
    assert equations(flat)[name] == 2
    assert equations(after(STANDARD, both, X))[name] == 2


def test_each_draw_is_another_one() -> None:
    draw = jax.jit(lambda low: lax.rng_uniform(low, 1.0, (8,)))

    def both(low: Any) -> Any:
        return draw(low), draw(low), lax.rng_uniform(low, 1.0, (8,)), lax.rng_uniform(low, 1.0, (8,))

    low = np.float32(0)
    for passes in ((), STANDARD):
        graph = after(passes, both, low)
        for drawn in (evaluate(graph, low), jax.jit(jaxpr_as_fun(jaxpr_of(graph)))(low)):
            assert len({np.asarray(x).tobytes() for x in drawn}) == 4


def test_a_loop_draws_anew_and_is_copied_with_its_draws() -> None:
    def loop(x: Any) -> Any:
        return lax.scan(lambda c, _: (c + lax.rng_uniform(jnp.float32(0), 1.0, ()), c), x, None, length=3)[1]

    def function(x: Any) -> Any:
        called = jax.jit(loop)
        return called(x), called(x), loop(x)

    graph = after(STANDARD, function, np.float32(0))
    assert equations(graph)["scan"] == 3
    drawn = jax.jit(jaxpr_as_fun(jaxpr_of(graph)))(np.float32(0))
    assert len({np.asarray(x).tobytes() for x in drawn}) == 3
    assert all(len(set(np.asarray(x).tolist())) == 3 for x in drawn)


def test_shared_calls_keep_their_number() -> None:
    """A body too large to be inlined twice: two calls of one sub-graph, and still two draws."""

    @jax.jit
    def large(x: Any) -> Any:
        for _ in range(40):
            x = jnp.sin(x) + lax.rng_uniform(jnp.float32(0), 1.0, ())
        return x

    graph = after(STANDARD, lambda x: (large(x), large(x)), np.float32(0))
    assert equations(graph) == {"jit": 2}
    assert len({sub.graph for sub in graph.subgraphs}) == 1
    one, two = jax.jit(jaxpr_as_fun(jaxpr_of(graph)))(np.float32(0))
    assert one != two
