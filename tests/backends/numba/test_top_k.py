"""top_k in kernels against JAX's, to the bit: every dtype, any k, ties, NaN with and without a sign, any axis."""

import functools
import os
from typing import Any

import jax
import numba
import numpy as np
import pytest
from jax import lax

import graphopt
from graphopt.backends.numba.scalar import DTYPES
from graphopt.backends.numba.selecting import BLOCK, COUNTED, LANES, smallest_uint32, smallest_uint64

from ...primitive_cases.cases import Case, all_cases, sample
from ...primitive_cases.test_primitive_cases import Tally, check
from .test_indexed import agrees, by_name
from .test_sorting import drawn

SEED = int(os.environ.get("GRAPHOPT_TEST_SEED", "0"))
NUMBA = functools.partial(graphopt.jit, backend="numba")


@pytest.mark.parametrize("dtype", [dtype.name for dtype in DTYPES if dtype.kind in "biuf"])
def test_dtypes(dtype: str) -> None:
    with jax.enable_x64(True):
        agrees(lambda x: lax.top_k(x, 7), drawn(dtype, (5, 101)))


@pytest.mark.parametrize(
    ("count", "k"), [(1, 1), (63, 63), (64, 1), (1009, 10), (1009, 100), (1009, 1009), (50_000, 50)]
)
def test_lengths(count: int, k: int) -> None:
    x = np.random.default_rng(SEED).normal(size=(3, count)).astype(np.float32)
    agrees(lambda x: lax.top_k(x, k), np.concatenate([x, np.sort(x), -np.sort(-x), np.round(x), x * 0]))


def test_not_numbers() -> None:
    """Above infinity, or with a sign below minus infinity; by their bits among themselves."""
    bits = np.uint32(
        [0x7FC00000, 0xFFC00000, 0x7FC00001, 0xFFFFFFFF, 0x7F800000, 0xFF800000, 0, 0x80000000, 0x7F800000]
    )
    x = np.tile(bits, 30).view(np.float32)
    for k in (3, 200):
        found, places = NUMBA(lambda x, k=k: lax.top_k(x, k))(x)
        expected, at = jax.jit(lambda x, k=k: lax.top_k(x, k))(x)
        np.testing.assert_array_equal(places, at)
        np.testing.assert_array_equal(np.asarray(found).view(np.uint32), np.asarray(expected).view(np.uint32))


def test_axes_and_producers() -> None:
    x = drawn("float32", (11, 7, 101))
    for axis in range(3):
        agrees(lambda x, axis=axis: lax.top_k(-x, 5, axis=axis), x)
    agrees(jax.vmap(lambda x: lax.top_k(x, 3)), x)


LENGTHS = (1, 31, 64, 65, 200, 1000, 5000)


@pytest.mark.parametrize("function", [smallest_uint32, smallest_uint64], ids=["32 bits", "64 bits"])
def test_the_smallest(function: Any) -> None:
    """Random, rising, falling, equal, few different ones, and each lane's least where it is worst."""
    dtype = np.uint32 if function is smallest_uint32 else np.uint64
    random = np.random.default_rng(SEED)
    most = np.iinfo(dtype).max
    smallest = numba.njit(lambda keys, start, n, places, to, k: function(keys, start, n, places, to, k))
    for n in LENGTHS:
        wild = random.integers(0, most, n, dtype, endpoint=True)
        lanes = np.where(np.arange(n) % LANES == 3, np.arange(n), n + np.arange(n)).astype(dtype)
        zeros, full = np.zeros(n, dtype), np.full(n, most, dtype)
        for keys in (wild, np.sort(wild), np.sort(wild)[::-1].copy(), wild % 5, lanes, zeros, full):
            for k in {1, min(n, 3), min(n, LANES), min(n, COUNTED + 1), min(n, BLOCK * 4), n}:
                places = np.full(k + 2, -7, np.int32)
                smallest(numba.uintp(keys.ctypes.data), 0, n, numba.uintp(places.ctypes.data), 1, k)
                np.testing.assert_array_equal(places, [-7, *np.argsort(keys, kind="stable")[:k], -7])


CASES = [case for case in all_cases() if case.group == "top_k"]


@pytest.mark.parametrize("case", by_name(sample(CASES, 4, SEED)))
def test_sampled_case(case: Case, tally: Tally) -> None:
    check(case, NUMBA, tally)


@pytest.mark.exhaustive
@pytest.mark.parametrize("case", by_name(CASES))
def test_every_case(case: Case, tally: Tally) -> None:
    check(case, NUMBA, tally)
