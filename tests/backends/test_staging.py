"""Graphs back to jaxprs: what JAX asks of a jaxpr beyond computing the right thing."""

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal, jaxpr_as_fun

from graphopt.backends.xla.staging import jaxpr_of
from graphopt.config import Options
from graphopt.ir.graph import Graph
from graphopt.ir.parse import parse
from graphopt.passes.inline import Inline
from graphopt.rewrite.passes import Context
from graphopt.trace.jaxpr import trace_function

from ..trace.outcomes import bits

X = np.arange(3, dtype=np.float32)
LARGE = np.arange(5000, dtype=np.float32)
OF_JAX = jnp.arange(3.0) + 0.5


def nested(closed: ClosedJaxpr) -> Iterator[Any]:
    """The jaxprs among the parameters of equations, at every depth."""
    for eqn in closed.eqns:
        for value in jax.tree.leaves(list(eqn.params.values()), is_leaf=lambda v: isinstance(v, ClosedJaxpr | Jaxpr)):
            if isinstance(value, ClosedJaxpr | Jaxpr):
                yield value
                yield from nested(value if isinstance(value, ClosedJaxpr) else ClosedJaxpr(value, []))


def inlined(function: Any, *arguments: Any) -> Graph:
    graph, sources = trace_function(function, *arguments)
    return Inline().run(graph, Context(Options(), sources, differentiable=True))


def same_results(graph: Graph, function: Any, *arguments: Any) -> ClosedJaxpr:
    closed = jaxpr_of(graph)
    found = jax.jit(jaxpr_as_fun(closed))(*arguments)
    assert [bits(x) for x in found] == [bits(x) for x in jax.tree.leaves(jax.jit(function)(*arguments))]
    return closed


def test_scalars_are_literals_and_arrays_are_constants() -> None:
    def function(x: Any) -> Any:
        return x * 2 + np.array([1, 2, 3], np.float32), x + OF_JAX, LARGE[:3] * x, np.float32(-0.0)

    graph, _ = trace_function(function, X)
    closed = same_results(graph, function, X)
    assert len(closed.consts) == 3
    assert any(const is OF_JAX for const in closed.consts)
    literals = [v for eqn in closed.eqns for v in eqn.invars if isinstance(v, Literal)]
    assert [float(v.val) for v in literals] == [2.0]
    assert isinstance(closed.jaxpr.outvars[-1], Literal)


@pytest.mark.parametrize(
    "constant", [np.array([1, 2, 3], np.float32), OF_JAX, np.float32(3)], ids=["numpy", "jax", "scalar"]
)
@pytest.mark.parametrize("holder", ["checkpoint", "scan", "while", "cond", "custom_jvp", "jit"])
def test_constants_within_parameters_are_literals(holder: str, constant: Any) -> None:
    """A call with a constant of its own is inlined into the body of something that must have none."""

    def with_constant(y: Any) -> Any:
        return jax.jit(lambda z: jnp.sin(z) * constant)(y)

    def function(x: Any) -> Any:
        if holder == "checkpoint":
            return jax.checkpoint(with_constant)(x)
        if holder == "scan":
            return lax.scan(lambda c, _: (with_constant(c), None), x, None, length=2)[0]
        if holder == "while":
            return lax.while_loop(lambda c: c.sum() < 1, with_constant, x)
        if holder == "cond":
            return lax.cond(x[0] > 0, with_constant, jnp.cos, x)
        if holder == "custom_jvp":
            differentiable = jax.custom_jvp(with_constant)
            differentiable.defjvp(lambda primals, tangents: (differentiable(*primals), tangents[0]))
            return differentiable(x)
        return jax.jit(with_constant)(x)

    graph = inlined(function, X)
    closed = same_results(graph, function, X)
    for inner in nested(closed):
        assert not (inner.consts if isinstance(inner, ClosedJaxpr) else inner.constvars)
    # It may be differentiated still.
    gradient = jax.grad(lambda x: jax.tree.leaves(jaxpr_as_fun(closed)(x))[0].sum()) if holder != "while" else None
    if gradient is not None:
        expected = jax.grad(lambda x: function(x).sum())(X)
        np.testing.assert_allclose(gradient(X), expected, rtol=1e-6)


def test_constants_of_64_bits_stay_so_where_32_are_the_default() -> None:
    def function(x: Any) -> Any:
        with jax.enable_x64(True):
            wide = lax.convert_element_type(x, np.int64) * np.int64(2**40)
            return wide + np.array([2**50, 1, 2], np.int64), lax.scan(
                lambda c, v: (c + v * np.int64(2**33), None), wide[0], wide
            )[0]

    x = np.arange(3, dtype=np.int32)
    graph, _ = trace_function(function, x)
    assert not jax.config.read("jax_enable_x64")
    same_results(graph, function, x)


def test_effects_on_references_are_those_of_the_inputs() -> None:
    def function(ref: Any, other: Any, x: Any) -> Any:
        inner = jax.new_ref(x)
        inner[...] += other[...]
        return inner[...]

    refs = jax.new_ref(jnp.zeros(3)), jax.new_ref(jnp.ones(3))
    closed = jaxpr_of(trace_function(function, *refs, X)[0])
    on_inputs = [e for e in closed.effects if hasattr(e, "input")]
    assert [closed.jaxpr.invars.index(e.input) for e in on_inputs] == [1]


def test_a_graph_from_text_is_a_program() -> None:
    graph = parse(
        """
        graph @1(%0: f32[], %1: f32[3]) {
          %2: f32[3] = sin[accuracy=None](%1)
          return %2
        }
        graph @2(%0: f32[], %1: f32[3]) {
          return %1
        }
        graph @main(%0: f32[3], %1: f32[]) {
          %5: i32[] = constant(0)
          %2: f32[3] = cond[branches=(@1, @2)](%5, %1, %0)
          %3: f32[3] = constant(1.0, -0.0, nan)
          %4: f32[3] = max(%2, %3)
          return %4, %1
        }
        """
    )
    x = np.float32([1, 2, 3])
    found = jax.jit(jaxpr_as_fun(jaxpr_of(graph)))(x, np.float32(5))
    np.testing.assert_array_equal(found[0], [1.0, np.sin(np.float32(2)), np.nan])
    assert found[1] == 5


def test_an_output_may_be_an_input_a_constant_or_given_twice() -> None:
    def function(x: Any) -> Any:
        y = jnp.sin(x)
        return x, y, y, np.float32(2), LARGE, x

    graph, _ = trace_function(function, X)
    same_results(graph, function, X)


def test_nothing_in_and_nothing_out() -> None:
    assert jaxpr_as_fun(jaxpr_of(parse("graph @main() {\n  return\n}")))() == []
