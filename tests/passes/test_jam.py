"""Rows reduced side by side: programs before and after as text, and interpreted."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import graphopt
from graphopt.backends.numba.engine import NumbaEngine
from graphopt.ir.loop import LoopProgram
from graphopt.passes.jam import LEAST, ROWS, Jam

from .loop_programs import check_before_and_after, check_files, program_by

WITHOUT = NumbaEngine(jam=Jam(long=1 << 60))
EAGER = Jam(rows=3, long=0)

RANDOM = np.random.default_rng(0)
MATRIX = RANDOM.integers(-128, 128, (3 * LEAST + 2, 37)).astype(np.int8)
VECTOR, SCALES = (RANDOM.normal(size=n).astype(np.float32) for n in MATRIX.shape[::-1])


def without(function: Callable[..., Any], *args: Any) -> LoopProgram:
    return program_by(WITHOUT, function, *args)


def dequantized(matrix: Any, scales: Any, vector: Any) -> Any:
    return (matrix.astype(jnp.float32) * scales[:, None]) @ vector


def furthest(matrix: Any, vector: Any) -> Any:
    return jnp.abs(matrix.astype(jnp.float32) - vector).max(-1)


CASES: dict[str, tuple[Callable[..., Any], tuple[Any, ...]]] = {
    "product": (dequantized, (MATRIX, SCALES, VECTOR)),
    "greatest": (furthest, (MATRIX, VECTOR)),
}


@pytest.mark.parametrize("name", CASES)
def test_the_text_before_and_after(name: str) -> None:
    function, args = CASES[name]
    check_before_and_after(EAGER, name, without(function, *args), *args)


def test_no_text_is_left_over() -> None:
    check_files("jam", CASES)


LEFT: dict[str, tuple[Callable[..., Any], tuple[Any, ...]]] = {
    "nothing in common": (lambda x: jnp.abs(x.astype(jnp.float32)).sum(-1), (MATRIX,)),
    "few rows": (furthest, (MATRIX[:50], VECTOR)),
    "several loops over a row": (lambda x, y: jax.nn.softmax(x.astype(jnp.float32) * y), (MATRIX, VECTOR)),
    "down the columns": (lambda x, y: (x.astype(jnp.float32) * y[:, None]).sum(0), (MATRIX, SCALES)),
}


@pytest.mark.parametrize("name", LEFT)
def test_what_is_not_jammed(name: str) -> None:
    function, args = LEFT[name]
    before = without(function, *args)
    assert EAGER.run(before) == (before, ())


def test_a_short_operand_stays_in_registers_or_in_the_first_cache() -> None:
    before = without(dequantized, MATRIX, SCALES, VECTOR)
    assert Jam(rows=3).run(before) == (before, ())


@pytest.mark.parametrize("dtype", ["int8", "bfloat16", "float32", "float64"])
def test_kernels_of_jammed_rows(dtype: str) -> None:
    """The report says so, the loop stays vectorized, rows that are left over are right, and so is what is not finite."""
    with jax.enable_x64(dtype == "float64"):
        matrix = jnp.asarray(RANDOM.integers(-9, 9, (ROWS * LEAST + 3, 2051)), dtype)
        vector = jnp.asarray(RANDOM.normal(size=2051), "float64" if dtype == "float64" else "float32")
        vector = vector.at[7].set(jnp.inf)
        matrix = matrix.at[-1, 7].set(0).at[:2, 7].set(-1)

        def function(x: Any, y: Any) -> Any:
            return (x.astype(y.dtype) * 0.5 * y).sum(-1)

        ours = graphopt.jit(function, backend="numba")
        report = ours.explain(matrix, vector)
        assert any(f"jam: {ROWS} rows" in str(note) for note in report.notes), report.notes
        (kernel,) = report.kernels
        assert all(loop.lanes > 1 for loop in kernel.inner_loops()), kernel.inner_loops()
        found, expected = ours(matrix, vector), jax.jit(function)(matrix, vector)
        np.testing.assert_allclose(found, expected, rtol=1e-12 if dtype == "float64" else 1e-4, atol=1e-4)
