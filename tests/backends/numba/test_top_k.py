"""top_k in kernels against JAX's, to the bit: every dtype, any k, ties, NaN with and without a sign, any axis."""

import ctypes
import functools
import os
from typing import Any

import jax
import numpy as np
import pytest
from jax import lax

import graphopt
from graphopt.backends.numba.code import load
from graphopt.backends.numba.compiling import KERNEL_SIGNATURE, object_of
from graphopt.backends.numba.names import function_of
from graphopt.backends.numba.scalar import DTYPES
from graphopt.backends.numba.selecting import BLOCK, COUNTED, LANES

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


SMALLEST = """
def kernel(buffers, phase, start, stop):
    smallest_{dtype}(buffer(buffers, 0), 0, start, buffer(buffers, 1), 1, stop)
    return np.uint64(0)
"""


@pytest.mark.parametrize("dtype", [np.uint32, np.uint64], ids=["32 bits", "64 bits"])
def test_the_smallest(dtype: Any) -> None:
    """Random, rising, falling, equal, few different ones, and each lane's least where it is worst."""
    kernel = function_of(SMALLEST.format(dtype=dtype.__name__))
    address = load(*object_of(kernel, KERNEL_SIGNATURE))
    call = ctypes.CFUNCTYPE(ctypes.c_size_t, *[ctypes.c_size_t] * 4)(address)
    random = np.random.default_rng(SEED)
    most = np.iinfo(dtype).max
    for n in LENGTHS:
        wild = random.integers(0, most, n, dtype, endpoint=True)
        lanes = np.where(np.arange(n) % LANES == 3, np.arange(n), n + np.arange(n)).astype(dtype)
        zeros, full = np.zeros(n, dtype), np.full(n, most, dtype)
        for keys in (wild, np.sort(wild), np.sort(wild)[::-1].copy(), wild % 5, lanes, zeros, full):
            for k in {1, min(n, 3), min(n, LANES), min(n, COUNTED + 1), min(n, BLOCK * 4), n}:
                places = np.full(k + 2, -7, np.int32)
                table = np.array([keys.ctypes.data, places.ctypes.data], np.uint64)
                call(table.ctypes.data, 0, n, k)
                np.testing.assert_array_equal(places, [-7, *np.argsort(keys, kind="stable")[:k], -7])


CASES = [case for case in all_cases() if case.group == "top_k"]


@pytest.mark.parametrize("case", by_name(sample(CASES, 4, SEED)))
def test_sampled_case(case: Case, tally: Tally) -> None:
    check(case, NUMBA, tally)


@pytest.mark.exhaustive
@pytest.mark.parametrize("case", by_name(CASES))
def test_every_case(case: Case, tally: Tally) -> None:
    check(case, NUMBA, tally)
