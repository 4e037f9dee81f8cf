"""Windows as Numba compiles them: the results of JAX's own compiler, and vector instructions."""

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

from .test_kernels import kernels, left, same


def pool(combine: Any, start: float, strides: tuple[int, ...], padding: str) -> Callable[[Any], Any]:
    window = tuple(3 if stride else 1 for stride in strides)
    steps = tuple(stride or 1 for stride in strides)
    return lambda x: lax.reduce_window(x, np.float32(start), combine, window, steps, padding)


POOLS: dict[str, tuple[Callable[[Any], Any], tuple[int, ...]]] = {
    "channels last": (pool(lax.max, -np.inf, (0, 1, 1, 0), "SAME"), (2, 9, 7, 32)),
    "channels last, in steps": (pool(lax.max, -np.inf, (0, 2, 2, 0), "SAME"), (2, 9, 7, 33)),
    "channels last, no padding": (pool(lax.min, np.inf, (0, 1, 2, 0), "VALID"), (2, 9, 7, 5)),
    "channels first": (pool(lax.max, -np.inf, (0, 0, 1, 1), "SAME"), (2, 3, 9, 41)),
    "channels first, in steps": (pool(lax.add, 0, (0, 0, 2, 2), "SAME"), (2, 3, 9, 28)),
    "a row": (pool(lax.add, 0, (1,), "SAME"), (3000,)),
}


@pytest.mark.parametrize("name", POOLS)
def test_the_results_of_xla(name: str) -> None:
    function, shape = POOLS[name]
    x = np.random.default_rng(0).integers(-9, 9, shape).astype(np.float32)
    weights = np.random.default_rng(1).integers(-9, 9, jax.eval_shape(function, x).shape).astype(np.float32)
    for f, args in ((function, (x,)), (lambda x, w: jax.vjp(function, x)[1](w)[0], (x, weights))):
        jitted = graphopt.jit(f, backend="numba")
        graph = jitted.explain(*args).graph
        assert kernels(graph) and left(graph) == [], left(graph)
        same(jitted(*args), jax.jit(f)(*args))


def test_special_values() -> None:
    """NaN, infinities, and windows of nothing but the worst."""
    x = np.array([1, np.nan, 2, -np.inf, -np.inf, -np.inf, 3, np.inf, np.nan, np.nan, np.nan, -1, -np.inf], np.float32)
    for size, stride, padding in ((3, 1, "SAME"), (2, 2, "VALID"), (3, 2, "SAME"), (2, 3, "SAME")):
        function = lambda x: lax.reduce_window(x, -jnp.inf, lax.max, (size,), (stride,), padding)  # noqa: B023
        weights = np.arange(1, function(x).size + 1, dtype=np.float32)
        gradient = lambda x, w: jax.vjp(function, x)[1](w)[0]  # noqa: B023
        tangent = lambda x: jax.jvp(function, (x,), (x * 0 + jnp.arange(13.0),))[1]  # noqa: B023
        for f, args in (
            (function, (x,)),
            (gradient, (x, weights)),
            (tangent, (np.nan_to_num(x, posinf=5, neginf=-5),)),
        ):
            np.testing.assert_array_equal(graphopt.jit(f, backend="numba")(*args), jax.jit(f)(*args))


def test_functions_of_the_users_own() -> None:
    def nearest(a: Any, b: Any) -> Any:
        is_less = lax.lt(a[0], b[0])
        return lax.select(is_less, a[0], b[0]), lax.select(is_less, a[1], b[1])

    x = np.random.default_rng(0).standard_normal((40, 70)).astype(np.float32)
    i = np.arange(x.size, dtype=np.int32).reshape(x.shape)
    for axis in (0, 1):
        f = lambda x, i: lax.reduce((x, i), (np.float32(np.inf), np.int32(-1)), nearest, (axis,))  # noqa: B023
        jitted = graphopt.jit(f, backend="numba")
        assert "reduce" not in left(jitted.explain(x, i).graph)
        for found, expected in zip(jitted(x, i), jax.jit(f)(x, i), strict=True):
            same(found, expected)


@pytest.mark.parametrize("name", [name for name in POOLS if name != "channels last, no padding"])
def test_the_loops_are_vectorized(name: str) -> None:
    function, shape = POOLS[name]
    plan = ENGINE.plan(graphopt.trace(function)(np.zeros(shape, np.float32)), True)
    assert plan is not None
    code = text_of(function_of(plan_by_key(plan.key).source))
    assert re.search(r"(maximum|fadd)[^\n]*<\d+ x float>", code)


def test_windows_of_several_operands() -> None:
    """The greatest element of a window, and which it is."""

    def greater(kept: Any, more: Any) -> Any:
        is_more = more[0] > kept[0]
        return jnp.where(is_more, more[0], kept[0]), jnp.where(is_more, more[1], kept[1])

    def function(x: Any, places: Any) -> Any:
        return lax.reduce_window((x, places), (np.float32(-np.inf), np.int32(-1)), greater, (3, 2), (2, 1), "SAME")

    x = np.random.default_rng(0).normal(size=(9, 40)).astype(np.float32)
    places = np.arange(x.size, dtype=np.int32).reshape(x.shape)
    jitted = graphopt.jit(function, backend="numba")
    assert "reduce_window" in [n.op.name for kernel in jitted.explain(x, places).kernels for n in kernel.body.nodes]
    for found, expected in zip(jitted(x, places), jax.jit(function)(x, places), strict=True):
        np.testing.assert_array_equal(found, expected)


def test_the_gradient_of_a_pool_of_normed_numbers() -> None:
    """Each element of the gradient is in one window, which needs no loop, and reductions beside it share their loops."""

    def normed_pool(x: Any) -> Any:
        rows = x.reshape(4, -1)
        rows = (rows - rows.mean(1, keepdims=True)) * lax.rsqrt(rows.var(1, keepdims=True) + 1)
        normed = jax.nn.relu(rows.reshape(x.shape))
        return lax.reduce_window(normed, -jnp.inf, lax.max, (1, 2, 2), (1, 2, 2), "VALID")

    gradient = jax.grad(lambda x: jnp.sin(normed_pool(x)).sum())
    x = np.random.default_rng(0).normal(size=(8, 8, 8)).astype(np.float32)
    jitted = graphopt.jit(gradient, backend="numba")
    assert left(jitted.explain(x).graph) == []
    np.testing.assert_allclose(jitted(x), jax.jit(gradient)(x), atol=1e-5)
