"""Rows sorted side by side against NumPy's sort, whatever their length, and nothing else is written to."""

import ctypes
from typing import Any

import numpy as np
import pytest

from graphopt.backends.numba.code import load
from graphopt.backends.numba.compiling import KERNEL_SIGNATURE, object_of
from graphopt.backends.numba.names import function_of
from graphopt.backends.numba.networks import GROUP, NEAR, lanes_of

LENGTHS = (*range(1, 5 * GROUP), *range(NEAR - 2, NEAR + 2 * GROUP, 3), 2 * NEAR - 1, 2 * NEAR + 1, 1009, 2049)


def sorter(name: str, width: int) -> Any:
    """Sorts as many rows of `stop` keys as there are lanes, of which the first key is element `phase`."""
    call = f"sort_{name}_uint{8 * width}(keys, phase, stop)"
    source = f"def kernel(buffers, phase, start, stop):\n    keys = buffer(buffers, 0)\n    {call}\n    return np.uint64(0)\n"
    address = load(*object_of(function_of(source), KERNEL_SIGNATURE))
    return ctypes.CFUNCTYPE(ctypes.c_size_t, ctypes.c_size_t, *[ctypes.c_ssize_t] * 3)(address)


@pytest.mark.parametrize("width", [4, 8])
@pytest.mark.parametrize("name", ["beside", "rows"])
def test_every_length(name: str, width: int) -> None:
    """Zeros and ones too: a network that sorts all of them sorts all numbers (the 0-1 principle)."""
    sort, lanes, random = sorter(name, width), lanes_of(width), np.random.default_rng(width)
    dtype = np.dtype(f"u{width}")
    for length in LENGTHS:
        shape, axis = ((length, lanes), 0) if name == "beside" else ((lanes, length), 1)
        for most in (2, np.iinfo(dtype).max):
            keys = random.integers(0, most, shape, dtype)
            around = np.full(keys.size + 2 * lanes + 1, 7, dtype)
            around[lanes : -lanes - 1] = keys.ravel()
            sort(np.array([around.ctypes.data], np.uintp).ctypes.data, lanes, 0, length)
            np.testing.assert_array_equal(around[lanes : -lanes - 1].reshape(shape), np.sort(keys, axis=axis))
            assert (around[:lanes] == 7).all() and (around[-lanes - 1 :] == 7).all()
