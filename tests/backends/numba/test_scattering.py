"""Scatters in kernels against JAX's: every method, mode and dtype, duplicates in their order, and in parts."""

import functools
import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st
from jax import lax

import graphopt
from graphopt.backends.numba.scalar import DTYPES

from ...analysis.indexing import INDEX_DTYPES, MODES, drawn
from ...primitive_cases.cases import Case, all_cases, sample
from ...primitive_cases.test_primitive_cases import Tally, check
from ...rules.drawing import values
from .test_indexed import agrees, by_name

SEED = int(os.environ.get("GRAPHOPT_TEST_SEED", "0"))
METHODS = ("scatter", "scatter_add", "scatter_mul", "scatter_min", "scatter_max")
NUMBA = functools.partial(graphopt.jit, backend="numba")


@pytest.mark.parametrize("mode", MODES)
def test_random_scatters(mode: str) -> None:
    """Exact numerics: floats are combined in XLA's order."""

    @seed(SEED)
    @settings(max_examples=5, deadline=None, derandomize=False, suppress_health_check=list(HealthCheck))
    @given(st.integers(0, 2**32 - 1), st.sampled_from(INDEX_DTYPES), st.sampled_from(METHODS))
    def test(number: int, dtype: str, method: str) -> None:
        random = np.random.default_rng(number)
        with jax.enable_x64(True):
            indexing = drawn(random, dtype, most=7)
            scatter = indexing.scatter(getattr(lax, method), mode)
            x, u = (random.normal(size=shape).astype(np.float32) for shape in (indexing.shape, indexing.result))
            agrees(scatter, x, indexing.indices, u, numerics="exact")

    test()


@pytest.mark.parametrize("dtype", [dtype.name for dtype in DTYPES])
def test_dtypes(dtype: str) -> None:
    random = np.random.default_rng(SEED)
    with jax.enable_x64(True):
        x, u = values(random, dtype, (53,), False), values(random, dtype, (101,), False)
        i = random.integers(-60, 60, 101)
        methods = {"b": ("set",), "c": ("add", "set")}.get(np.dtype(dtype).kind, ("multiply", "set", "min"))
        agrees(lambda x, i, u: [getattr(x.at[i], m)(u) for m in methods], x, i, u, numerics="exact")


def test_special_values() -> None:
    random = np.random.default_rng(SEED)
    x, u = values(random, "float32", (53,), True), values(random, "float32", (1009,), True)
    x, u = (np.where(np.abs(a) < np.finfo(a.dtype).tiny, np.float32(1), a) for a in (x, u))  # of two zeros either
    i = random.integers(0, 53, 1009)
    agrees(lambda x, i, u: (x.at[i].max(u), x.at[i].min(u)), x, i, u)


@pytest.mark.parametrize("method", ["add", "subtract", "max", "min", "multiply"])
def test_many_updates_of_few_elements(method: str) -> None:
    """In parts; whole numbers and powers of two are exact in any order."""
    random = np.random.default_rng(SEED)
    x, u = (2.0 ** random.integers(0, 2, n).astype(np.float32) for n in (1009, 100_003))
    x[::7] = -0.0
    u = np.where(random.random(u.size) < (0.999 if method == "multiply" else 0.5), np.float32(1), u)
    i = random.integers(-1100, 1100, 100_003)
    agrees(lambda x, i, u: getattr(x.at[i], method)(u), x, i, u)


def test_rows_and_columns_are_shared_among_threads() -> None:
    random = np.random.default_rng(SEED)
    x, i = random.normal(size=(1009, 131)).astype(np.float32), random.integers(-1009, 1009, 3011)
    agrees(
        lambda x, i, u: x.at[i].add(u * 2), x, i, random.normal(size=(3011, 131)).astype(np.float32), numerics="exact"
    )
    agrees(lambda x, i, u: x.at[:, i].add(u), x, i % 131, np.ones((1009, 3011), np.float32))
    order = random.permutation(1009).astype(np.int32)
    agrees(lambda x, i: jnp.zeros_like(x).at[i].set(x, unique_indices=True, mode="promise_in_bounds"), x, order)


def test_sums_in_parts_are_near() -> None:
    random = np.random.default_rng(SEED)
    i, u = random.integers(0, 1000, 1_000_000), random.normal(size=1_000_000).astype(np.float32)
    found = NUMBA(lambda i, u: jnp.zeros(1000, jnp.float32).at[i].add(u))(i, u)
    exact, scale = np.bincount(i, u.astype(np.float64)), np.bincount(i, np.abs(u.astype(np.float64)))
    assert np.max(np.abs(found - exact) / scale) < 1e-6


def test_gradients_of_gathers() -> None:
    x, i = np.arange(30, dtype=np.float32).reshape(10, 3), np.int32([[1, 1, -1], [0, 9, 1]])
    agrees(jax.grad(lambda x, i: jnp.sum(jnp.square(x[i]))), x, i)


CASES = [case for case in all_cases() if case.group in METHODS]


@pytest.mark.parametrize("case", by_name(sample(CASES, 5, SEED)))
def test_sampled_case(case: Case, tally: Tally) -> None:
    check(case, NUMBA, tally)


@pytest.mark.exhaustive
@pytest.mark.parametrize("case", by_name(CASES))
def test_every_case(case: Case, tally: Tally) -> None:
    check(case, NUMBA, tally)
