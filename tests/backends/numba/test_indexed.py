"""Slices, updates and gathers at loaded indices in kernels, against JAX to the bit."""

import functools
import os
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st
from jax import lax

import graphopt
from graphopt.backends.numba.scalar import DTYPES
from graphopt.ops.kernel import KERNEL

from ...analysis.indexing import INDEX_DTYPES, MODES, drawn
from ...primitive_cases.cases import Case, all_cases, sample
from ...primitive_cases.test_primitive_cases import Tally, check
from ...rules.drawing import values

SEED = int(os.environ.get("GRAPHOPT_TEST_SEED", "0"))
NUMBA = functools.partial(graphopt.jit, backend="numba")


def agrees(function: Callable[..., Any], *args: Any, **options: Any) -> None:
    """The same bits as JAX's; all of it is in kernels."""
    jitted = graphopt.jit(function, backend="numba", **options)
    outside = [n for n in jitted.explain(*args).graph.nodes if n.op.primitive is not None and n.op is not KERNEL]
    assert outside == []
    for found, expected in zip(jax.tree.leaves(jitted(*args)), jax.tree.leaves(jax.jit(function)(*args)), strict=True):
        f, e = np.asarray(found), np.asarray(expected)
        assert f.dtype == e.dtype
        if f.dtype.kind == "V":  # of whose NaNs NumPy does not know that they are equal
            f, e = f.astype(np.float32), e.astype(np.float32)
        np.testing.assert_array_equal(f, e, strict=True)
        if f.dtype.kind == "f":
            np.testing.assert_array_equal(np.signbit(f) & ~np.isnan(f), np.signbit(e) & ~np.isnan(e))


@pytest.mark.parametrize("mode", MODES)
def test_random_gathers(mode: str) -> None:
    @seed(SEED)
    @settings(max_examples=6, deadline=None, derandomize=False, suppress_health_check=list(HealthCheck))
    @given(st.integers(0, 2**32 - 1), st.sampled_from(INDEX_DTYPES))
    def test(number: int, dtype: str) -> None:
        random = np.random.default_rng(number)
        with jax.enable_x64(True):
            indexing = drawn(random, dtype, most=7)
            gather = indexing.gather(mode)
            x = values(random, "float32", indexing.shape, True)
            agrees(lambda x, i: -gather(x, i), x, indexing.indices)

    test()


@pytest.mark.parametrize("dtype", [dtype.name for dtype in DTYPES])
def test_dtypes(dtype: str) -> None:
    random = np.random.default_rng(SEED)
    with jax.enable_x64(True):
        # Denormals of bfloat16 XLA flushes in some versions even where they are only moved; kernels keep them.
        x = values(random, dtype, (53, 7), dtype != "bfloat16")
        i = random.integers(-60, 60, 101)
        function = lambda x, i: (x.at[i].get(mode="fill"), lax.dynamic_update_slice(x, x[:5, :3], (i[0], i[1])))
        agrees(function, x, i)


@pytest.mark.parametrize("start", [-5, 0, 3, 48, 49, 2_000_000_000])
def test_where_slices_begin(start: int) -> None:
    x = np.arange(53 * 7, dtype=np.float32).reshape(53, 7)
    agrees(lambda x, i: lax.dynamic_slice(x, (i, 0), (5, 7)) * 2, x, np.int32(start))
    agrees(lambda x, i: lax.dynamic_update_slice(x, x[:5, :3] * 2, (i, i)), x, np.int32(start))


def test_large_gathers_share_rows_among_threads() -> None:
    random = np.random.default_rng(SEED)
    x, i = random.normal(size=(1009, 61)).astype(np.float32), random.integers(-1009, 1009, 30_011)
    agrees(lambda x, i: x[i] * 2, x, i)
    agrees(lambda x, i: jnp.sum(x[:, i] > 0, 1), x, i % 61)
    agrees(lambda x, i: x[i, i % 61], x, i)


def test_what_is_gathered_often_is_computed_once() -> None:
    """A kernel before computes 100 functions, and not one for each of the 30,000 places."""
    random = np.random.default_rng(SEED)
    x, i = random.normal(size=100).astype(np.float32), random.integers(0, 100, 30_000)
    agrees(lambda x, i: jnp.floor(x * x * 3)[i], x, i)
    bodies = [k.body for k in graphopt.jit(lambda x, i: jnp.exp(jnp.sin(x))[i], backend="numba").explain(x, i).kernels]
    assert [sum(n.op.name in ("exp", "sin") for n in body.nodes) for body in bodies] == [2, 0]


def test_exact_numerics() -> None:
    x, i = np.arange(12, dtype=np.float32).reshape(4, 3), np.int32([3, 0, -1])
    agrees(lambda x, i: x[i] * 2, x, i, numerics="exact")


CASES = [case for case in all_cases() if case.group in ("gather", "dynamic_slice", "dynamic_update_slice")]


def by_name(cases: list[Case]) -> list[Any]:
    return [pytest.param(case, id=case.name) for case in cases]


@pytest.mark.parametrize("case", by_name(sample(CASES, 5, SEED)))
def test_sampled_case(case: Case, tally: Tally) -> None:
    check(case, NUMBA, tally)


@pytest.mark.exhaustive
@pytest.mark.parametrize("case", by_name(CASES))
def test_every_case(case: Case, tally: Tally) -> None:
    check(case, NUMBA, tally)
