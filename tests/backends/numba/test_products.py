"""Products of tiles, compiled: what NumPy gives, in vectors."""

import ctypes
import platform
import re
from typing import Any

import numpy as np
import pytest

from graphopt.backends.numba.code import load
from graphopt.backends.numba.compiling import KERNEL_SIGNATURE, object_of, text_of
from graphopt.backends.numba.names import function_of
from graphopt.backends.numba.products import TERMS

SIZES = [(1, 1, 1), (1, 17, 3), (5, 16, 1), (6, 64, 9), (7, 63, 5), (13, 100, 2), (18, 128, 33), (3, 8, 0)]
SIZES += [(7, 33, TERMS), (8, 17, TERMS + 1), (5, 70, 2 * TERMS + 77)]


def source(rows: int, columns: int, length: int, dtype: str, left: tuple[int, int], adds: bool = False) -> str:
    numbers = ", ".join(map(str, (rows, columns, length, columns + 2, *left, columns + 1, int(adds))))
    lines = [f"    {name} = buffer(buffers, {number})" for number, name in enumerate(("to", "left", "right"))]
    product = f"    product_{dtype}(to, start, left, 1, right, 2, {numbers})"
    return "\n".join(["def kernel(buffers, phase, start, stop):", *lines, product, "    return np.uint64(0)", ""])


def multiplied(left: Any, right: Any, by_columns: bool, adds: bool = False) -> Any:
    """What a kernel makes of two matrices; by_columns: whether the left one lies in memory column by column. adds:
    whether it is added to a matrix of fives."""
    (rows, length), columns, dtype = left.shape, right.shape[1], left.dtype
    steps = (1, rows) if by_columns else (length, 1)
    of_left = np.concatenate([[7], (left.T if by_columns else left).ravel()]).astype(dtype)
    of_right = np.concatenate([[7, 7], np.pad(right, ((0, 0), (0, 1))).ravel()]).astype(dtype)
    to = np.full((rows, columns + 2), 5, dtype)
    symbol, code = object_of(function_of(source(rows, columns, length, dtype.name, steps, adds)), KERNEL_SIGNATURE)
    kernel = ctypes.CFUNCTYPE(ctypes.c_uint64, *[ctypes.c_int64] * 4)(load(symbol, code))
    table = np.array([array.ctypes.data for array in (to, of_left, of_right)], np.uint64)
    kernel(table.ctypes.data, 0, 1, 2)
    assert to[0, 0] == 5 and (to[:-1, -1] == 5).all() and (to[1:, 0] == 5).all()
    return to[:, 1:-1]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_products(sizes: tuple[int, int, int], dtype: str) -> None:
    rows, columns, length = sizes
    random = np.random.default_rng(0)
    left, right = (random.integers(-9, 10, shape).astype(dtype) for shape in ((rows, length), (length, columns)))
    for by_columns in (False, True):
        np.testing.assert_array_equal(multiplied(left, right, by_columns), left @ right)
        np.testing.assert_array_equal(multiplied(left, right, by_columns, adds=True), 5 + left @ right)


@pytest.mark.parametrize("adds", [False, True])
def test_long_sums_keep_their_digits(adds: bool) -> None:
    random = np.random.default_rng(1)
    left, right = (random.random(shape).astype(np.float32) for shape in ((6, 40 * TERMS), (40 * TERMS, 16)))
    exact = left.astype(np.float64) @ right.astype(np.float64) + 5 * adds
    error = np.abs(multiplied(left, right, False, adds) / exact - 1).max()
    assert error < 10 * np.finfo(np.float32).eps  # of the terms one by one 49


def test_what_is_not_finite() -> None:
    left, right = np.ones((7, 5), np.float32), np.ones((5, 33), np.float32)
    left[2, 3], right[1, 32], right[4, 0] = np.nan, np.inf, -np.inf
    with np.errstate(invalid="ignore"):
        np.testing.assert_array_equal(multiplied(left, right, False), left @ right)


@pytest.mark.skipif(platform.machine() not in ("x86_64", "aarch64"), reason="no vectors are known of")
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_sums_stay_in_vectors(dtype: str) -> None:
    code = text_of(function_of(source(12, 256 // np.dtype(dtype).itemsize, 64, dtype, (64, 1))))
    kind = {"float32": "float", "float64": "double"}[dtype]
    assert len(re.findall(rf"= phi <\d+ x {kind}>", code)) >= 12
    assert re.search(rf"call <\d+ x {kind}> @llvm\.fmuladd", code)
