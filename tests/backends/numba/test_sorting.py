"""Sorts in kernels against JAX's, to the bit: every dtype, stability, NaN, zeros of both signs, several keys, any axis."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jax import lax

import graphopt
from graphopt.analysis import sort_together, sorting
from graphopt.backends.interpret import interpret, shaped
from graphopt.backends.numba.networks import NEAR
from graphopt.backends.numba.sorting import SHORT

LENGTHS = (1, 2, SHORT, SHORT + 1, 1009, 8193)
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
    (kernel,) = graphopt.jit(lambda x: jnp.sort(x, 1), backend="numba").explain(drawn("float32", (37, length))).kernels
    assert "after each other" in str(kernel.program)
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


@pytest.fixture
def together(monkeypatch: pytest.MonkeyPatch) -> None:
    """Threads sort rows together that are not long."""
    monkeypatch.setattr(sorting, "LONG", 9)
    monkeypatch.setattr(sort_together, "LEAST", 3)


@pytest.mark.usefixtures("together")
@pytest.mark.parametrize("shape", [(9,), (10,), (97,), (1009,), (5000,), (3, 1013), (7, 256)])
def test_rows_that_threads_sort_together(shape: tuple[int, ...]) -> None:
    """Shares of unequal size, one and several rows; what goes with keys."""
    x = drawn("float32", shape)
    report = graphopt.jit(lambda x: jnp.sort(x, -1), backend="numba").explain(x)
    assert "sort_buckets" in str(report.kernels[0].program)
    agrees(lambda x: (jnp.sort(x, -1), jnp.argsort(x, -1)), x)


@pytest.mark.usefixtures("together")
@pytest.mark.parametrize("shape", [(17,), (2, 13)])
def test_steps_in_the_interpreter(shape: tuple[int, ...]) -> None:
    x = drawn("float32", shape)
    for function in (lambda x: jnp.sort(x, -1), lambda x: lax.sort((x, x * 2), num_keys=1)):
        (kernel,) = graphopt.jit(function, backend="numba").explain(x).kernels
        found = shaped(interpret(kernel.program, x), [n.aval for n in kernel.body.outputs])
        for a, b in zip(found, jax.tree.leaves(jax.jit(function)(x)), strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.usefixtures("together")
@pytest.mark.parametrize("dtype", ["bool", "int8", "uint8", "int16", "int32", "uint32", "float16"])
def test_dtypes_that_threads_sort_together(dtype: str) -> None:
    agrees(lambda x: (jnp.sort(x, 0), jnp.argsort(x, 1, stable=True), jnp.sort(x.T[:5])), drawn(dtype, (61, 7)))


@pytest.mark.usefixtures("together")
@pytest.mark.parametrize("dtype", ["int64", "uint64", "float64"])
def test_wide_dtypes_that_threads_sort_together(dtype: str) -> None:
    with jax.enable_x64(True):
        agrees(lambda x: (jnp.sort(x, 0), jnp.argsort(x, 1), jnp.sort(x.ravel())), drawn(dtype, (1009, 3)))


def test_a_row_of_many() -> None:
    """As many as threads do sort together; nearly all in one bucket, and hardly any two apart."""
    random = np.random.default_rng(0)
    n = sorting.LONG + 17
    rare = np.where(np.arange(n) == n // 2, np.float32(1e30), random.normal(size=n).astype(np.float32) * 1e-20)
    for x in (
        random.normal(size=n).astype(np.float32),
        rare,
        np.round(np.clip(rare, -1, 1) * 1e20),
        np.sort(rare)[::-1].copy(),
    ):
        agrees(lambda x: (jnp.sort(x), lax.sort((x, jnp.arange(n), -x), num_keys=1)), x)


@pytest.mark.parametrize("dtype", ["uint32", "uint64"])
def test_keys_that_only_their_last_digits_tell_apart(dtype: str) -> None:
    """Buckets by the leading digit are full of such, so that insertion would never end."""
    random = np.random.default_rng(0)
    bits = np.iinfo(dtype).bits
    high = random.integers(0, 3, 5000).astype(dtype) << np.array(bits - 2, dtype)
    for low in (random.integers(0, 4, 5000), random.permutation(5000), np.arange(5000)[::-1]):
        keys = high | low.astype(dtype)
        keys[0] |= np.array(1 << (bits // 2), dtype)
        with jax.enable_x64(True):
            agrees(lambda x: (jnp.sort(x), jnp.argsort(x)), keys)


@pytest.mark.usefixtures("together")
@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.sampled_from(["int8", "uint16", "int32", "float16", "float32"]),
    st.integers(0, 3),
    st.sampled_from([0, 1, 2, 8, 9, 31, 97, 512]),
    st.integers(0, 1000),
)
def test_random_sorts(dtype: str, keys: int, length: int, seed: int) -> None:
    """One to three keys, with and without what goes with them."""
    random = np.random.default_rng(seed)
    bits = random.integers(0, 256, (4, length * np.dtype(dtype).itemsize), dtype=np.uint8).view(dtype)
    few = bits[:, random.integers(0, max(1, length // 3), length)] if seed % 2 else bits
    few[:, : length // 4] = 0
    few[:, : length // 4 : 2] *= -1 if np.dtype(dtype).kind == "f" else 1
    operands = list(few)[: max(1, keys) + seed % 2]

    def sort(*operands: Any) -> Any:
        return lax.sort(operands, num_keys=max(1, keys))

    found, expected = graphopt.jit(sort, backend="numba")(*operands), jax.jit(sort)(*operands)
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_array_equal(a, b)
        zeros = b == 0
        np.testing.assert_array_equal(np.signbit(a)[zeros], np.signbit(b)[zeros])
