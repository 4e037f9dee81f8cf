"""Operands turned before they are reduced along their rows: loop programs interpreted, and kernels."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import graphopt
from graphopt.analysis import turned
from graphopt.analysis.turned import points_of, turned_operands
from graphopt.backends.interpret import interpret
from graphopt.backends.numba.engine import NumbaEngine
from graphopt.config import Options
from graphopt.ir.graph import Graph
from graphopt.passes.pipelines import STANDARD
from graphopt.rewrite.passes import Context, run_pipeline
from graphopt.trace.jaxpr import trace_function

RANDOM = np.random.default_rng(0)
X, Y = (RANDOM.normal(size=shape).astype(np.float32) for shape in ((33, 10), (18, 10)))


def graph_of(function: Callable[..., Any], *args: Any) -> Graph:
    graph, sources = trace_function(function, *args)
    return run_pipeline(graph, STANDARD, Context(Options(), sources))[0]


def distances(x: Any, y: Any) -> Any:
    return jnp.sqrt(((x[:, None] - y[None]) ** 2).sum(-1))


def furthest(x: Any, y: Any) -> Any:
    return jnp.abs(x[:, None] - y[None]).max(-1)


def several(x: Any, y: Any) -> Any:
    batches = jnp.concatenate([x[None], x[None] * 2])
    return ((batches[:, :, None] - y[None, None]) ** 2).sum(-1)


def both(x: Any, y: Any) -> Any:
    product = (x[:, None] * y[None]).sum(-1)
    return product / (1 + jnp.abs(x[:, None] - y[None]).sum(-1))


PAIRS: dict[str, tuple[Callable[..., Any], tuple[Any, ...]]] = {
    "distances": (distances, (X, Y)),
    "of one operand": (lambda x: distances(x, x), (X,)),
    "greatest": (furthest, (X, Y)),
    "several": (several, (X, Y)),
    "two reductions": (both, (X, Y)),
}


@pytest.mark.parametrize("name", PAIRS)
def test_programs_with_turned_operands(name: str) -> None:
    function, args = PAIRS[name]
    graph = graph_of(function, *args)
    program, _ = NumbaEngine().program(graph)
    for grain in (None, 1):
        (found,) = interpret(program, *args, grain=grain)
        np.testing.assert_allclose(found, np.ravel(jax.jit(function)(*args)), rtol=1e-5, atol=1e-6)


def test_all_pairs_are_turned() -> None:
    graph = graph_of(distances, *(np.ones((n, 13), np.float32) for n in (400, 300)))
    assert turned_operands(graph)[0] == (graph.params[1],)
    program, _ = NumbaEngine().program(graph)
    assert [buffer.role for buffer in program.buffers].count("scratch") == 1
    exact, _ = NumbaEngine().program(graph, any_order=False)
    assert all(buffer.role != "scratch" for buffer in exact.buffers)


def forces(x: Any, m: Any) -> Any:
    d = x[:, None] - x[None]
    return (d * (m[None] / (0.1 + (d * d).sum(-1)))[..., None]).sum(1)


def of_batches(x: Any, m: Any) -> Any:
    d = x[:, :, None] - x[:, None]
    return (d * (m[..., None] / (0.1 + (d * d).sum(-1)))[..., None]).sum(2)


@pytest.mark.parametrize("function", [forces, of_batches, jax.grad(lambda x, m: (forces(x, m) ** 2).sum())])
def test_points_are_turned(function: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    x, m = X[:18, :3].copy(), np.abs(X[:18, 4])
    if function is of_batches:
        x, m = np.stack([x, x + 1]), np.stack([m, m * 2])
    assert points_of(graph_of(function, x, m)) == ()  # they are read seldom
    monkeypatch.setattr(turned, "OFTEN", 4)
    graph = graph_of(function, x, m)
    assert points_of(graph) and all(q.aval.shape[-1] == 3 for q in points_of(graph))
    program, _ = NumbaEngine().program(graph)
    assert function is of_batches or any(buffer.role == "scratch" for buffer in program.buffers)
    for grain in (None, 1):
        (found,) = interpret(program, x, m, grain=grain)
        np.testing.assert_allclose(found, np.ravel(jax.jit(function)(x, m)), rtol=1e-4, atol=1e-4)


LEFT: dict[str, tuple[Callable[..., Any], tuple[Any, ...]]] = {
    "few terms": (distances, (X[:, :3], Y[:, :3])),
    "rows that are needed once": (lambda x: (x * x).sum(-1), (X,)),
    "places": (lambda x, y: jnp.argmax(x[:, None] - y[None], -1), (X, Y)),
    "another axis": (lambda x, y: (x[:, None] - y[None]).sum(0), (X, Y)),
}


@pytest.mark.parametrize("name", LEFT)
def test_what_is_not_turned(name: str) -> None:
    function, args = LEFT[name]
    assert turned_operands(graph_of(function, *args))[0] == ()


@pytest.mark.parametrize("dtype", ["float32", "float64", "int32", "bfloat16"])
@pytest.mark.parametrize("terms", [16, 33, 130])
def test_kernels_of_all_pairs(dtype: str, terms: int) -> None:
    """They are vectorized, and give what XLA does, also of what is not finite."""
    with jax.enable_x64(dtype == "float64"):
        x, y = (jnp.asarray(RANDOM.normal(size=(n, terms)) * 8, dtype) for n in (203, 301))
        if dtype.startswith("f"):
            x, y = x.at[3, 2].set(jnp.nan), y.at[7, 1].set(jnp.inf)

        def function(x: Any, y: Any) -> Any:
            x, y = (z.astype("float64" if dtype == "float64" else "float32") for z in (x, y))
            return jnp.abs(x[:, None] - y[None]).sum(-1)

        ours = graphopt.jit(function, backend="numba")
        loops = [loop for kernel in ours.explain(x, y).kernels for loop in kernel.inner_loops()]
        assert any(loop.lanes > 1 for loop in loops), loops
        np.testing.assert_allclose(ours(x, y), jax.jit(function)(x, y), rtol=1e-5)
