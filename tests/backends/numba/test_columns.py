"""Reductions by columns as Numba compiles them: the results of JAX's own compiler, and vector instructions."""

import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import graphopt
from graphopt.backends.numba.compiling import text_of
from graphopt.backends.numba.engine import plan_by_key
from graphopt.backends.numba.lowering import ENGINE
from graphopt.backends.numba.names import function_of

from .test_kernels import in_one_kernel, kernels, same

FUNCTIONS: dict[str, Callable[[Any], Any]] = {
    "sum": lambda x: jnp.sum(x, 0),
    "max": lambda x: jnp.max(x, 0),
    "argmax": lambda x: lax.argmax(x, 0, np.int32),
    "centered": lambda x: x - jnp.max(x, 0),
    "cumsum": lambda x: lax.cumsum(x, 0, reverse=True),
}


@pytest.mark.parametrize("shape", [(1009, 7), (64, 1009), (5, 64, 300), (40_000, 33), (1, 5), (3, 1), (17, 1)])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_the_results_of_xla(name: str, shape: tuple[int, ...]) -> None:
    x = np.random.default_rng(0).integers(-99, 99, shape).astype(np.float32)
    compiled, _ = in_one_kernel(FUNCTIONS[name], x)
    same(compiled(x)[0], jax.jit(FUNCTIONS[name])(x))


def test_what_needs_reductions_can_share_a_kernel_with_them() -> None:
    x = np.random.default_rng(0).standard_normal((1000, 513)).astype(np.float32)
    for function in (
        lambda x: jax.nn.softmax(x, 0),
        lambda x: jnp.log(jnp.sum(jnp.exp(x), 0)),
        lambda x: (x - x.mean(0)) * lax.rsqrt(x.var(0) + 1e-5),
    ):
        jitted = graphopt.jit(function, backend="numba")
        np.testing.assert_allclose(jitted(x), jax.jit(function)(x), rtol=3e-5, atol=1e-6)
    assert len(kernels(jitted.explain(x).graph)) == 1


@pytest.mark.parametrize("name", FUNCTIONS)
def test_the_loops_are_vectorized(name: str) -> None:
    graph = graphopt.trace(FUNCTIONS[name])(np.zeros((3000, 1500), np.float32))
    plan = ENGINE.plan(graph, True)
    assert plan is not None
    code = text_of(function_of(plan_by_key(plan.key).source))
    step = {"sum": "fadd", "cumsum": "fadd", "argmax": "fcmp", "max": "maximum", "centered": "fsub"}[name]
    kind = "double" if name == "cumsum" else "float"  # running sums are kept with more digits
    assert re.search(rf"{step}[^\n]*<\d+ x {kind}>", code)


@pytest.mark.parametrize("dtype", ["float32", "int8", "complex64", "bool"])
def test_what_is_transposed(dtype: str) -> None:
    for shape in ((65, 33), (40, 100), (3, 70, 90)):
        x = np.random.default_rng(0).integers(0, 2, shape).astype(dtype)
        function = lambda x: jnp.where(jnp.swapaxes(x, -1, -2) == 0, np.ones((), x.dtype), jnp.swapaxes(x, -1, -2))
        jitted = graphopt.jit(function, backend="numba")
        assert kernels(jitted.explain(x).graph)
        same(jitted(x), jax.jit(function)(x))
