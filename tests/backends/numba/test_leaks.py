"""Nothing leaks: memory is flat over calls and over compilations of one kernel, and grows little with each new kernel."""

import gc
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import graphopt
from graphopt.backends.numba.objects import kernel_count

pytestmark = pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs /proc")

X = jnp.arange(4000.0).reshape(40, 100)
MEGABYTE = 1 << 20


def resident() -> int:
    """Bytes of memory of this process."""
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def growth(step: Callable[[int], Any], before: int, times: int) -> int:
    """Bytes that a process grows by over so many steps, after so many others."""
    for number in range(before):
        step(number)
    start = resident()
    for number in range(before, before + times):
        step(number)
    return resident() - start


def rows(x: Any) -> Any:
    return x * 2 - x.sum(1, keepdims=True)


@pytest.mark.exhaustive
@pytest.mark.parametrize("backend", ["numba", "auto"])
def test_a_hundred_thousand_calls_keep_no_memory(backend: str) -> None:
    def function(x: Any) -> Any:
        return jnp.sort(x, 1) @ x[:50].T, rows(x)

    jitted = graphopt.jit(function, backend=backend)
    x = X if backend == "numba" else jnp.tile(X, (1, 10))
    assert jitted.explain(x).kernels
    assert growth(lambda _: jax.block_until_ready(jitted(x)), 2_000, 100_000) < 4 * MEGABYTE


@pytest.mark.parametrize("times", [40, pytest.param(1_000, marks=pytest.mark.exhaustive)])
def test_compiling_the_same_kernel_again_keeps_no_memory(times: int) -> None:
    jitted = graphopt.jit(rows, backend="numba")

    def again(_: int) -> None:
        jitted.clear_cache()
        jax.block_until_ready(jitted(X))

    def anew(_: int) -> None:
        jax.block_until_ready(graphopt.jit(lambda x: rows(x), backend="numba")(X))

    again(0)
    count = kernel_count()
    for step in (again, anew):
        assert growth(step, 20, times) < 4 * MEGABYTE
    assert kernel_count() == count


@pytest.mark.parametrize("times", [10, pytest.param(200, marks=pytest.mark.exhaustive)])
def test_each_new_kernel_takes_a_bounded_amount_of_memory(times: int) -> None:
    def new(number: int) -> None:
        factor = np.float32(number + 0.53)
        jax.block_until_ready(graphopt.jit(lambda x: jnp.sin(x) * factor + x, backend="numba")(X))
        jax.clear_caches()

    count = kernel_count()
    assert growth(new, 3, times) < 2 * MEGABYTE * times
    assert kernel_count() == count + 3 + times
