"""Translated code computes what Numba's own compiler makes of the same source; what is not translated goes there."""

import ctypes
from typing import Any

import llvmlite.binding as llvm
import numpy as np
import pytest

from graphopt.backends.numba import compiling
from graphopt.backends.numba.code import load
from graphopt.backends.numba.compiling import KERNEL_SIGNATURE, SYMBOL
from graphopt.backends.numba.names import function_of
from graphopt.backends.numba.translating import NotTranslatedError, translated

INTEGERS = ["x + y", "x - y", "x * y", "-x", "~x", "x & y", "x | y", "x ^ y", "min(x, y)", "max(x, y, x)"]
INTEGERS += ["x // 3", "x % 3", "x // -2", "x % -2", "x // y", "x % y", "x + 7", "x << 3", "x >> 1"]
TESTS = ["x < y", "x <= y", "x > y", "x >= y", "x == y", "x != y", "x != 0", "not (x < y)", "(x < y) & (x != y)"]
FLOATS = ["x + y", "x - y", "x * y", "x / y", "x + 0.5", "1 / x", "x if x > y else y", "np.float32(x)"]
BOOLEANS = ["x & y", "x | y", "x ^ y", "x and y", "x or not y", "(np.uint8(x) < np.uint8(y))"]


def values(dtype: np.dtype[Any]) -> Any:
    if dtype.kind == "b":
        return np.array([False, True] * 9)
    if dtype.kind == "f":
        return np.array(
            [0, -0.0, 1, -1, 2.5, -3.5, np.nan, np.inf, -np.inf, 1e-40, 1e30, 0.1, 3, -7, 1e-3, 9, 4, 5], dtype
        )
    info = np.iinfo(dtype)
    ends = [info.min, info.max, info.max - 1, info.max // 2, info.max // 3, info.min // 2, info.min // 3, 0, 0]
    if dtype.itemsize == 8:  # beyond 64 bits both may do as they like
        ends = [end >> 33 for end in ends]
    return np.array([*ends, 1, 2, 3, 5, 7, 11, 63, 100, 120], dtype)


def run(kernel: Any, arrays: list[Any], count: int) -> None:
    table = np.array([array.ctypes.data for array in arrays], np.uint64)
    ctypes.CFUNCTYPE(ctypes.c_size_t, *[ctypes.c_size_t] * 4)(kernel)(table.ctypes.data, 0, 0, count)


def by_numba(source: str) -> int:
    module = compiling._by_numba(function_of(source), KERNEL_SIGNATURE, False)
    module.verify()
    compiling._optimize(module, compiling._machine())
    return load(SYMBOL, compiling._machine().emit_object(module))


@pytest.mark.parametrize("name", ["bool", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f4", "f8"])
def test_what_is_translated_computes_what_numba_computes(name: str) -> None:
    dtype = np.dtype(name)
    kinds = {"b": (BOOLEANS, []), "f": (FLOATS, TESTS), "i": (INTEGERS, TESTS), "u": (INTEGERS, TESTS)}
    numbers, tests = kinds[dtype.kind]
    if dtype.kind == "u":
        numbers = [each for each in numbers if "-2" not in each]
    cast = f"np.{dtype.name}" if dtype.kind != "b" else ""
    found = [(dtype, f"{cast}({each})") for each in numbers] + [(np.dtype(bool), f"({each})") for each in tests]
    lines = ["def kernel(buffers, phase, start, stop):", "    for i in range(start, stop):"]
    lines += [f"        {v} = input_{dtype.name}(buffer(buffers, {k}), i)" for k, v in enumerate("xy")]
    lines += [f"        write_{to.name}(buffer(buffers, {2 + k}), i, {each})" for k, (to, each) in enumerate(found)]
    source = "\n".join([*lines, "    return np.uint64(0)", ""])
    sample = values(dtype)
    inputs = [np.tile(sample, len(sample)), np.repeat(sample, len(sample))]
    ours, theirs = ([np.zeros(len(inputs[0]), to) for to, _ in found] for _ in range(2))
    text = translated(function_of(source), KERNEL_SIGNATURE, SYMBOL)
    llvm.parse_assembly(text).verify()
    run(load(*compiling.object_of(function_of(source), KERNEL_SIGNATURE)), [*inputs, *ours], len(inputs[0]))
    run(by_numba(source), [*inputs, *theirs], len(inputs[0]))
    for (_, each), mine, other in zip(found, ours, theirs, strict=True):
        np.testing.assert_array_equal(mine, other, each)
        numbers_are = ~np.isnan(mine) if mine.dtype.kind == "f" else slice(None)
        assert mine[numbers_are].tobytes() == other[numbers_are].tobytes(), each


STATEMENTS = """
def kernel(buffers, phase, start, stop):
    out = buffer(buffers, 0)
    if phase == 0:
        for i in range(start, stop):
            total, least = 0, 100
            for j in range(max(0, i - 3), min(7, i + 2)):
                if j == 2 or (i > 4 and not j < 5):
                    continue
                total += j * i
                least = min(least, j)
            k = 0
            while True:
                k += 1
                if k * k > i:
                    break
            while k < i:
                k = k + 2
            for j in range(i, 3 * i, k):
                total += (j << (i & 3)) + np.int64(np.uint64(1000 + j) >> np.uint64(i & 7))
            write_int64(out, i, 1000 * total + 10 * least + (k if total > 3 else -k))
    else:
        pass
    return np.uint64(0)
"""


def test_statements() -> None:
    ours, theirs = np.zeros(12, np.int64), np.zeros(12, np.int64)
    translated(function_of(STATEMENTS), KERNEL_SIGNATURE, SYMBOL)
    run(load(*compiling.object_of(function_of(STATEMENTS), KERNEL_SIGNATURE)), [ours], 12)
    run(by_numba(STATEMENTS), [theirs], 12)
    np.testing.assert_array_equal(ours, theirs)
    assert len(set(ours)) > 6


@pytest.mark.parametrize(
    "statement",
    [
        "x = unknown",
        "x = [start]",
        "x = start; x = np.float32(1)",
        "x = start < np.uint64(stop)",
        "x = start / stop",
        "for i in range(stop, start, -1): pass",
        "x = start << 64",
        "x = np.uint64(start) << stop",
        "x = choose(start < stop, start, np.float32(0))",
        "x = abs(start)",
        "x = 0 < start < stop",
    ],
)
def test_what_is_not_translated(statement: str) -> None:
    source = f"def kernel(buffers, phase, start, stop):\n    {statement}\n    return np.uint64(0)\n"
    with pytest.raises(NotTranslatedError):
        translated(function_of(source), KERNEL_SIGNATURE, SYMBOL)


CALLS = ["sort_{0}(x, x, 0, stop)", "sort_places_{0}(x, x, 0, stop)", "sort_beside_{0}(x, 0, stop)"]
CALLS += ["sort_rows_{0}(x, 0, stop)", "smallest_{0}(x, 0, stop, x, 0, 5)"]


@pytest.mark.parametrize("dtype", ["uint32", "uint64"])
@pytest.mark.parametrize("call", CALLS)
def test_sorting_and_selecting_are_translated(call: str, dtype: str) -> None:
    lines = ["def kernel(buffers, phase, start, stop):", "    x = buffer(buffers, 0)", f"    {call.format(dtype)}"]
    source = "\n".join([*lines, "    return np.uint64(0)", ""])
    llvm.parse_assembly(translated(function_of(source), KERNEL_SIGNATURE, SYMBOL)).verify()
