"""The arithmetic of linear algebra: formulas against textbook algorithms of which each operation is counted."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import pytest
from jax import lax

import graphopt
from graphopt.analysis.cost import cost_of, node_cost
from graphopt.ir.graph import Graph, nested_graphs
from graphopt.ops.linalg import LINEAR_SOLVE, OPS

N = 48


def traced(function: Callable[..., Any], *each: tuple[int, ...], dtype: Any = jnp.float32) -> Graph:
    return graphopt.trace(function)(*[jax.ShapeDtypeStruct(shape, dtype) for shape in each])


def flops(function: Callable[..., Any], *each: tuple[int, ...], dtype: Any = jnp.float32) -> int:
    """Of the operations of linear algebra alone: JAX puts others beside them, for triangles."""
    nodes = [node for graph in nested_graphs(traced(function, *each, dtype=dtype)) for node in graph.nodes]
    costs = [node_cost(node) for node in nodes if node.op in OPS]
    assert costs and not any(cost.uncounted for cost in costs)
    return sum(cost.flops for cost in costs)


def eliminated(rows: int, columns: int) -> int:
    """Gaussian elimination, each division, product and difference."""
    return sum((rows - k - 1) * (1 + 2 * (columns - k - 1)) for k in range(min(rows, columns)))


def reflected(rows: int, columns: int) -> int:
    """I - t v vᵀ with v of so many elements applied to so many columns."""
    return columns * (2 * rows + 2 * rows)


def triangularized(rows: int, columns: int) -> int:
    return sum(2 * (rows - k) + reflected(rows - k, columns - k - 1) for k in range(min(rows, columns)))


def accumulated(rows: int, columns: int, reflectors: int) -> int:
    """Columns of a product of reflectors, the last one first: it has not reached the columns before it yet."""
    return sum(reflected(rows - k, columns - k) for k in range(reflectors))


def cholesky(a: Any) -> Any:
    return lax.linalg.cholesky(a, symmetrize_input=False)


COUNTED: list[tuple[str, int, float]] = [
    ("cholesky", flops(cholesky, (N, N)), sum(1 + k + k * (k + 1) for k in range(N))),
    ("lu", flops(lax.linalg.lu, (N, N)), eliminated(N, N)),
    ("lu of a tall matrix", flops(lax.linalg.lu, (3 * N, N)), eliminated(3 * N, N)),
    ("lu of a wide matrix", flops(lax.linalg.lu, (N, 3 * N)), eliminated(N, 3 * N)),
    ("qr", flops(lambda a: lax.linalg.qr(a, full_matrices=False), (3 * N, N)),
     triangularized(3 * N, N) + accumulated(3 * N, N, N)),
    ("qr with all columns", flops(lambda a: lax.linalg.qr(a, full_matrices=True), (2 * N, N)),
     triangularized(2 * N, N) + accumulated(2 * N, 2 * N, N)),
    ("qr of a wide matrix", flops(lambda a: lax.linalg.qr(a, full_matrices=False), (N, 2 * N)),
     triangularized(N, 2 * N) + accumulated(N, N, N)),
    ("reflectors", flops(lax.linalg.householder_product, (2 * N, N), (N // 2,)), accumulated(2 * N, N, N // 2)),
    ("hessenberg", flops(lax.linalg.hessenberg, (N, N)),
     sum(reflected(N - k - 1, N - k - 1) + reflected(N - k - 1, N) for k in range(N - 2))),
    # A v, and a symmetric matrix less two products of vectors of which half is computed.
    ("tridiagonal", flops(lambda a: lax.linalg.tridiagonal(a, lower=True), (N, N)),
     sum(2 * k**2 + 4 * k * (k + 1) / 2 for k in range(N - 1))),
]  # fmt: skip


@pytest.mark.parametrize(("name", "found", "counted"), COUNTED, ids=[name for name, _, _ in COUNTED])
def test_factorizations_count_what_textbook_algorithms_do(name: str, found: int, counted: float) -> None:
    assert found == pytest.approx(counted, rel=0.1)


def test_substitution_counts_each_product_and_difference() -> None:
    def left(a: Any, b: Any) -> Any:
        return lax.linalg.triangular_solve(a, b, left_side=True)

    each = sum(1 + 2 * k for k in range(N))
    assert flops(left, (N, N), (N, 7)) == 7 * each
    assert flops(lax.linalg.triangular_solve, (N, N), (7, N)) == 7 * each
    # Thomas: a quotient, a product and a difference for the matrix; of each column three there and two back.
    assert flops(lax.linalg.tridiagonal_solve, (N,), (N,), (N,), (N, 4)) == N * (3 + 4 * 5)


def test_a_fourier_transform_counts_the_butterflies() -> None:
    def transformed(size: int) -> int:
        # A product of complex numbers is 6 operations, a sum 2: a butterfly has one and two.
        return 0 if size == 1 else 2 * transformed(size // 2) + size // 2 * (6 + 2 * 2)

    assert flops(jnp.fft.fft, (256,), dtype=jnp.complex64) == transformed(256)
    assert flops(jnp.fft.fft, (3, 64), dtype=jnp.complex64) == 3 * transformed(64)
    assert flops(jnp.fft.rfft, (5, 64)) == 5 * transformed(64) // 2
    both = flops(jnp.fft.fft2, (16, 32), dtype=jnp.complex64)
    assert both == 16 * transformed(32) + 32 * transformed(16)
    assert flops(lambda x: lax.fft(x, "FFT", (0,)), (3, 0), dtype=jnp.complex64) == 0


def test_eigenvalues_and_singular_values_count_as_in_the_literature() -> None:
    values, vectors = (
        flops(lambda a, v=v: lax.linalg.eig(a, compute_left_eigenvectors=False, compute_right_eigenvectors=v), (N, N))
        for v in (False, True)
    )
    assert (values, vectors) == (10 * N**3, 25 * N**3)
    assert flops(lax.linalg.schur, (N, N)) == 25 * N**3
    assert flops(lambda a: lax.linalg.schur(a, compute_schur_vectors=False), (N, N)) == 10 * N**3
    assert flops(lambda a: lax.linalg.eigh(a, symmetrize_input=False), (N, N)) == 9 * N**3

    def svd(shape: tuple[int, int], **options: bool) -> float:
        return flops(lambda a: lax.linalg.svd(a, **options), shape) / N**3

    assert svd((N, N), compute_uv=False) == pytest.approx(8 / 3, rel=1e-3)
    assert svd((2 * N, N), full_matrices=False) == svd((N, 2 * N), full_matrices=False) == 14 * 2 + 8
    assert svd((2 * N, N), full_matrices=True) == 4 * 4 + 8 * 2 + 9


def test_several_matrices_count_each_and_complex_ones_four_times() -> None:
    one = flops(lax.linalg.lu, (N, N))
    assert flops(lax.linalg.lu, (2, 5, N, N)) == pytest.approx(10 * one, rel=1e-6)
    assert flops(lax.linalg.lu, (N, N), dtype=jnp.complex64) == pytest.approx(4 * one, rel=1e-6)
    assert all(flops(lax.linalg.lu, shape) == 0 for shape in ((0, 0), (0, 3, 3)))


def test_of_a_linear_solve_only_what_is_run_counts() -> None:
    graph = traced(jnp.linalg.solve, (N, N), (N, 3))
    assert any(node.op is LINEAR_SOLVE for inner in nested_graphs(graph) for node in inner.nodes)
    assert cost_of(graph).flops == pytest.approx(2 * N**3 / 3 + 2 * N**2 * 3, rel=0.15)
