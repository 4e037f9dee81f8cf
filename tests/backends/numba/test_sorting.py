"""Sorts in kernels against JAX's, to the bit: every dtype, stability, NaN, zeros of both signs, several keys, any axis."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import graphopt
from graphopt.backends.numba.networks import NEAR
from graphopt.backends.numba.sorting import MEDIUM, SHORT

LENGTHS = (1, 2, SHORT, SHORT + 1, 1009, MEDIUM + 1)
SPECIAL = np.array([np.nan, -0.0, 0.0, np.inf, -np.inf, 1, -1, -0.0, -np.nan, 0.0, 3, 1e-42], np.float32)


def drawn(dtype: str, shape: tuple[int, ...]) -> Any:
    random = np.random.default_rng(sum(shape))
    if dtype == "bool":
        return random.integers(0, 2, shape).astype(bool)
    if np.dtype(dtype).kind == "f":
        return random.choice([*random.normal(size=50), *SPECIAL], shape).astype(dtype)
    info = np.iinfo(dtype)
    few = random.integers(info.min, info.max, 40, dtype=dtype, endpoint=True)
    return random.choice(np.array([*few, info.min, info.max, 0, 1], dtype), shape)


def agrees(function: Callable[..., Any], *args: Any) -> None:
    jitted = graphopt.jit(function, backend="numba")
    assert any(n.op.name == "sort" for kernel in jitted.explain(*args).kernels for n in kernel.body.nodes)
    found, expected = jax.tree.leaves(jitted(*args)), jax.tree.leaves(jax.jit(function)(*args))
    for a, b in zip(found, expected, strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)
        if a.dtype.kind == "f":
            real = ~np.isnan(b)
            np.testing.assert_array_equal(np.signbit(a)[real], np.signbit(b)[real])


@pytest.mark.parametrize("length", LENGTHS)
def test_lengths(length: int) -> None:
    agrees(lambda x: (jnp.sort(x), lax.sort([x, jnp.arange(length)], num_keys=1)), drawn("float32", (length,)))


@pytest.mark.parametrize("length", [2, 3, 31, 64, 100, NEAR, NEAR + 1, 3 * NEAR - 1])
def test_rows_side_by_side(length: int) -> None:
    """So many that elements of some are in one vector; the last vector is not full."""
    agrees(lambda x: jnp.sort(x, 1), drawn("float32", (37, length)))


@pytest.mark.parametrize("dtype", ["bool", "int8", "int32", "uint32", "float16", "float32"])
def test_columns_side_by_side(dtype: str) -> None:
    (kernel,) = graphopt.jit(lambda x: jnp.sort(x, 0), backend="numba").explain(drawn(dtype, (45, 50))).kernels
    assert "side by side" in str(kernel.program)
    agrees(lambda x: (jnp.sort(x, 0), lax.sort(x[:, :17] + x[:, 17:34], dimension=0)), drawn(dtype, (45, 50)))


@pytest.mark.parametrize("dtype", ["bool", "int8", "int32", "uint8", "uint16", "uint32", "float32"])
def test_dtypes_and_axes(dtype: str) -> None:
    agrees(lambda x: (jnp.sort(x, 0), jnp.argsort(x, 1)), drawn(dtype, (53, 61)))


@pytest.mark.parametrize("dtype", ["int64", "uint64", "float64"])
def test_wide_dtypes(dtype: str) -> None:
    with jax.enable_x64(True):
        agrees(lambda x: (jnp.sort(x, 0), jnp.argsort(x, 1)), drawn(dtype, (53, 61)))


def test_several_keys_and_what_goes_with_them() -> None:
    x, y = drawn("float32", (7, 101)), drawn("int8", (7, 101))
    agrees(lambda x, y: lax.sort((x, y, x * 2), dimension=1, num_keys=2), x, y)
    agrees(lambda x, y: lax.sort((y, x), dimension=0, num_keys=1), x, y)
    agrees(lambda x, y: jnp.lexsort((x[0], y[0])), x, y)


def test_special_values_keep_their_order() -> None:
    x = np.tile(SPECIAL, 100)
    agrees(lambda x: (jnp.sort(x), jnp.argsort(x), jnp.sort(-x)), x)
    agrees(jax.vmap(jnp.sort), x.reshape(100, -1))


def test_ties_of_an_unstable_sort_are_in_the_order_of_xla() -> None:
    """A kernel is stable; what no rule says stays as it is, so that a program has one result."""
    keys, places = drawn("bool", (300,)), np.arange(300)
    jitted = graphopt.jit(lambda *operands: lax.sort(operands, num_keys=1, is_stable=False), backend="numba")
    report = jitted.explain(keys, places)
    assert not report.kernels
    assert any("unstable sort" in note for note in report.notes)
    np.testing.assert_array_equal(
        jitted(keys, places), jax.jit(lambda *operands: lax.sort(operands, num_keys=1, is_stable=False))(keys, places)
    )


def test_an_unstable_sort_of_keys_alone() -> None:
    agrees(lambda x: lax.sort(x, is_stable=False), drawn("int8", (1009,)))
