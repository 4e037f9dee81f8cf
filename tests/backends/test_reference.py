"""The oracle: a graph evaluated one operation at a time."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.experimental import io_callback

from graphopt.backends.reference import apply_opened, evaluate
from graphopt.errors import GraphError
from graphopt.trace.jaxpr import trace_function

from ..trace.outcomes import bits

X = np.arange(3, dtype=np.float32)


def test_results_in_their_order() -> None:
    graph, _ = trace_function(lambda x, y: {"b": x + y, "a": (x, 2.0, jnp.split(y, [1]))}, X, X * 2)
    found = evaluate(graph, X, X * 2)
    assert [np.asarray(v).tolist() for v in found] == [[0, 1, 2], 2.0, [0], [2, 4], [0, 3, 6]]


def test_the_number_of_arguments_is_checked() -> None:
    graph, _ = trace_function(lambda x, y: x + y, X, X)
    with pytest.raises(GraphError, match="the graph has 2 inputs; evaluate got 1"):
        evaluate(graph, X)


def test_each_operation_runs_by_itself() -> None:
    """Compiled as a whole, x * y + z may be one fused operation, which rounds once."""

    def function(x: Any, y: Any, z: Any) -> Any:
        return x * y + z

    arguments = np.float32([1 + 2**-12]), np.float32([1 + 2**-12]), np.float32([-1])
    graph, _ = trace_function(function, *arguments)
    (found,) = evaluate(graph, *arguments)
    assert bits(found) == bits((arguments[0] * arguments[1]).astype(np.float32) + arguments[2])


@pytest.mark.parametrize("dtype", ["float32", "float64", "complex64"])
def test_a_quotient_by_one_number_is_a_quotient(dtype: str) -> None:
    """XLA would multiply by the number's reciprocal, and differ from the quotient by an array of that number."""
    x, seven = np.arange(1, 600).astype(dtype), np.asarray(7, dtype)
    with jax.enable_x64(True):
        graph, _ = trace_function(lax.div, x, seven)
        (found,) = evaluate(graph, x, seven, apply=apply_opened)
        (expected,) = evaluate(trace_function(lax.div, x, x)[0], x, np.full_like(x, seven))
    assert bits(found) == bits(expected)
    if dtype != "complex64":
        np.testing.assert_array_equal(found, x / seven)


def test_what_is_shared_is_computed_once() -> None:
    calls = []

    def function(x: Any) -> Any:
        y = io_callback(lambda v: (calls.append(1), np.asarray(v))[1], x, x, ordered=True)
        return y + y, jnp.sin(y), jnp.sin(y)

    graph, _ = trace_function(function, X)
    evaluate(graph, X)
    jax.effects_barrier()
    assert len(calls) == 1


def test_it_can_be_traced_and_differentiated() -> None:
    def function(x: Any) -> Any:
        return lax.scan(lambda c, v: (c * v + 1, None), x[0], jnp.sin(x))[0]

    graph, _ = trace_function(function, X)
    again, _ = trace_function(lambda x: evaluate(graph, x)[0], X)
    assert again is graph
    np.testing.assert_allclose(jax.grad(lambda x: evaluate(graph, x)[0])(X), jax.grad(function)(X), rtol=1e-6)
