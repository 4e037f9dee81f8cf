"""Predicted times of what XLA calls libraries for: they grow with the work, and are in the plan."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import pytest
from jax import lax

import graphopt
from graphopt.analysis.machine import Machine
from graphopt.analysis.xla_calls import CALL, RATES, SUBSTITUTED
from graphopt.ops.linalg import FFT, OPS, TRIDIAGONAL_SOLVE
from graphopt.plan import plan_of

MACHINE = Machine(threads=2)


def planned(function: Callable[..., Any], *each: tuple[int, ...], dtype: Any = jnp.float32) -> float:
    """Milliseconds that a program is expected to take."""
    graph = graphopt.trace(function)(*[jax.ShapeDtypeStruct(shape, dtype) for shape in each])
    return plan_of(graph, MACHINE).seconds * 1e3


def eigh(a: Any) -> Any:
    return lax.linalg.eigh(a, symmetrize_input=False)


@pytest.mark.parametrize(
    ("function", "side", "measured"),
    [
        (eigh, 50, 0.22),
        (eigh, 500, 14.0),
        (lax.linalg.lu, 16, 0.002),
        (lax.linalg.lu, 50, 0.018),
        (lax.linalg.lu, 500, 3.2),
        (lambda a: lax.linalg.qr(a, full_matrices=False), 200, 1.0),
        (lambda a: lax.linalg.eig(a, compute_left_eigenvectors=False), 200, 12.0),
        (lax.linalg.schur, 500, 79.0),
        (lambda a: lax.linalg.svd(a, full_matrices=False), 500, 32.0),
        (lambda a: lax.linalg.svd(a, compute_uv=False), 100, 0.48),
    ],
)
def test_factorizations_are_expected_to_take_what_they_took(function: Any, side: int, measured: float) -> None:
    assert measured / 3 < planned(function, (side, side)) < measured * 3


def test_every_operation_has_a_time() -> None:
    assert set(RATES) | {FFT, TRIDIAGONAL_SOLVE} == set(OPS)


def test_times_grow_with_sides_counts_and_digits() -> None:
    alone = planned(lax.linalg.lu, (100, 100))
    assert planned(lax.linalg.lu, (8, 100, 100)) == pytest.approx(8 * (alone - CALL * 1e-6) + CALL * 1e-6)
    # From 50 to 500 rows the arithmetic is a thousand times as much, the time far less.
    assert 30 < planned(eigh, (500, 500)) / planned(eigh, (50, 50)) < 300
    with jax.enable_x64(True):
        assert 1.5 * alone < planned(lax.linalg.lu, (100, 100), dtype=jnp.float64) < 2.5 * alone
    assert planned(lax.linalg.lu, (100, 100), dtype=jnp.complex64) > 3 * alone
    assert planned(lax.linalg.lu, (0, 0)) <= CALL * 1e-6


def test_a_triangular_system_reads_its_matrix_however_few_columns_there_are() -> None:
    def solve(a: Any, b: Any) -> Any:
        return lax.linalg.triangular_solve(a, b, left_side=True)

    one = planned(solve, (500, 500), (500, 1))
    assert one == pytest.approx((CALL + SUBSTITUTED * 500**2) * 1e-6)
    assert planned(solve, (500, 500), (500, 5)) == one < planned(solve, (500, 500), (500, 500)) / 5


def test_several_transforms_have_all_threads_one_has_one() -> None:
    size, call = 1 << 16, CALL * 1e-6
    one = planned(jnp.fft.fft, (size,), dtype=jnp.complex64) - call
    two = planned(jnp.fft.fft, (2, size), dtype=jnp.complex64) - call
    assert two == pytest.approx(one)


def test_a_solve_is_planned_once_not_for_its_derivatives() -> None:
    lu = planned(lax.linalg.lu, (400, 400))
    assert lu < planned(jnp.linalg.solve, (400, 400), (400,)) < 1.5 * lu
