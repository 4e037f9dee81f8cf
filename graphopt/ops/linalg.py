"""Linear algebra and Fourier transforms, which libraries compute: how much arithmetic each is.

The counts are those of G. H. Golub and C. F. Van Loan, "Matrix Computations", 4th edition, 2013 (GVL), where nothing
else is said: the terms of highest order, for real numbers. Complex ones count four times.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from jax.extend.core import primitives as p

from graphopt.ir.attrs import Attrs
from graphopt.ir.aval import Aval
from graphopt.ir.graph import Graph
from graphopt.ir.node import Node
from graphopt.ir.op import Op, op_of, register

Count = Callable[[Attrs, Sequence[Aval], Sequence[Aval]], int]

COMPLEX = 4
"""Operations on real numbers that one on complex numbers counts as, where products and sums are as many."""


def matrices(aval: Aval) -> int:
    """How many matrices an array holds."""
    return math.prod(aval.shape[:-2])


def _times(aval: Aval, each: float) -> int:
    """So many operations for each matrix of an array, of its dtype."""
    return round(each * matrices(aval) * (COMPLEX if aval.dtype.kind == "c" else 1))


def _square(factor: float) -> Count:
    """So many times the third power of a matrix's side."""

    def count(attrs: Attrs, ins: Sequence[Aval], outs: Sequence[Aval]) -> int:
        return _times(ins[0], factor * ins[0].shape[-1] ** 3)

    return count


def lu_flops(attrs: Attrs, ins: Sequence[Aval], outs: Sequence[Aval]) -> int:
    """Gaussian elimination: n²(m - n/3) of m x n, 2n³/3 of a square matrix (GVL 3.2)."""
    short, long = sorted(ins[0].shape[-2:])
    return _times(ins[0], short**2 * (long - short / 3))


def triangular_solve_flops(attrs: Attrs, ins: Sequence[Aval], outs: Sequence[Aval]) -> int:
    """Substitution: n² for each column (GVL 3.1)."""
    return _times(ins[0], ins[0].shape[-1] * ins[1].shape[-2] * ins[1].shape[-1])


def _triangularized(rows: int, columns: int) -> float:
    """Householder QR without Q: 2n²(m - n/3) of m >= n (GVL 5.2)."""
    short, long = sorted((rows, columns))
    return 2 * short**2 * (long - short / 3)


def _reflected(rows: int, columns: int, reflectors: int) -> float:
    """The first columns of a product of reflectors: 4mnk - 2(m + n)k² + 4k³/3 (LAPACK's orgqr, LAWN 41; of all columns
    GVL 5.1 has the same)."""
    return 4 * rows * columns * reflectors - 2 * (rows + columns) * reflectors**2 + 4 * reflectors**3 / 3


def qr_flops(attrs: Attrs, ins: Sequence[Aval], outs: Sequence[Aval]) -> int:
    """R, and Q as a product of reflectors."""
    rows, columns = ins[0].shape[-2:]
    return _times(ins[0], _triangularized(rows, columns) + _reflected(rows, outs[0].shape[-1], min(rows, columns)))


def householder_product_flops(attrs: Attrs, ins: Sequence[Aval], outs: Sequence[Aval]) -> int:
    """The columns that are asked for of a product of reflectors."""
    rows, columns = ins[0].shape[-2:]
    return _times(ins[0], _reflected(rows, columns, ins[1].shape[-1]))


def eig_flops(attrs: Attrs, ins: Sequence[Aval], outs: Sequence[Aval]) -> int:
    """The QR algorithm: 10n³ for the eigenvalues alone, 25n³ with vectors (GVL 7.5)."""
    vectors = attrs["compute_left_eigenvectors"] or attrs["compute_right_eigenvectors"]
    return _square(25 if vectors else 10)(attrs, ins, outs)


def schur_flops(attrs: Attrs, ins: Sequence[Aval], outs: Sequence[Aval]) -> int:
    """The QR algorithm: 10n³ for the eigenvalues alone, 25n³ with Q and T (GVL 7.5)."""
    return _square(25 if attrs["compute_schur_vectors"] else 10)(attrs, ins, outs)


def svd_flops(attrs: Attrs, ins: Sequence[Aval], outs: Sequence[Aval]) -> int:
    """Golub and Reinsch's, of m >= n: 4mn² - 4n³/3 for the values alone, 14mn² + 8n³ with n columns of U, 4m²n + 8mn² +
    9n³ with all m (GVL 8.6)."""
    short, long = sorted(ins[0].shape[-2:])
    if not attrs["compute_uv"]:
        return _times(ins[0], 4 * long * short**2 - 4 * short**3 / 3)
    if attrs["full_matrices"]:
        return _times(ins[0], 4 * long**2 * short + 8 * long * short**2 + 9 * short**3)
    return _times(ins[0], 14 * long * short**2 + 8 * short**3)


def tridiagonal_solve_flops(attrs: Attrs, ins: Sequence[Aval], outs: Sequence[Aval]) -> int:
    """Elimination without pivoting: 3n for the matrix and 5n for each column (GVL 4.3: 8n with one)."""
    length, columns = outs[0].shape[-2:]
    return _times(outs[0], length * (3 + 5 * columns))


def fft_flops(attrs: Attrs, ins: Sequence[Aval], outs: Sequence[Aval]) -> int:
    """5N log2 N of N complex numbers, half of it where one side is real (C. F. Van Loan, "Computational Frameworks for
    the Fast Fourier Transform", 1992, 1.4), whatever N's factors are."""
    lengths = attrs["fft_lengths"]
    size = math.prod(lengths)
    is_real = "R" in attrs["fft_type"].name
    return round(transforms(attrs, ins[0]) * (2.5 if is_real else 5) * size * math.log2(size)) if size else 0


def transforms(attrs: Attrs, operand: Aval) -> int:
    """How many Fourier transforms there are of an operand."""
    return math.prod(operand.shape[: len(operand.shape) - len(attrs["fft_lengths"])])


CHOLESKY = register(Op("cholesky", p.cholesky_p, flops=_square(1 / 3)))  # GVL 4.2
LU = register(Op("lu", p.lu_p, flops=lu_flops))
TRIANGULAR_SOLVE = register(Op("triangular_solve", p.triangular_solve_p, flops=triangular_solve_flops))
QR = register(Op("qr", p.qr_p, flops=qr_flops))
HOUSEHOLDER_PRODUCT = register(Op("householder_product", p.householder_product_p, flops=householder_product_flops))
EIGH = register(Op("eigh", p.eigh_p, flops=_square(9)))  # the symmetric QR algorithm with vectors, GVL 8.3
EIG = register(Op("eig", p.eig_p, flops=eig_flops))
SCHUR = register(Op("schur", p.schur_p, flops=schur_flops))
HESSENBERG = register(Op("hessenberg", p.hessenberg_p, flops=_square(10 / 3)))  # GVL 7.4
TRIDIAGONAL = register(Op("tridiagonal", p.tridiagonal_p, flops=_square(4 / 3)))  # GVL 8.3
SVD = register(Op("svd", p.svd_p, flops=svd_flops))
TRIDIAGONAL_SOLVE = register(Op("tridiagonal_solve", p.tridiagonal_solve_p, flops=tridiagonal_solve_flops))
FFT = register(Op("fft", p.fft_p, flops=fft_flops))

# fmt: off
OPS = (
    CHOLESKY, LU, TRIANGULAR_SOLVE, QR, HOUSEHOLDER_PRODUCT, EIGH, EIG, SCHUR, HESSENBERG, TRIDIAGONAL, SVD,
    TRIDIAGONAL_SOLVE, FFT,
)
# fmt: on

LINEAR_SOLVE = op_of(p.linear_solve_p)


def solve_of(node: Node) -> Graph:
    """Of the sub-graphs of a linear solve the one that is run; the others are for its derivatives."""
    graph = node.attrs["jaxprs"].solve.graph
    assert isinstance(graph, Graph)
    return graph
