"""How long XLA takes on a CPU for what it calls libraries for: LAPACK's factorizations, Fourier transforms; measured.

Far less is done in a nanosecond than in products of matrices, the less the smaller the matrices are: a part of each
factorization goes column by column. LAPACK takes the threads that it finds, so the numbers are of a call as a whole.
"""

from __future__ import annotations

from collections.abc import Mapping

from graphopt.analysis.machine import Machine
from graphopt.ir.node import Node
from graphopt.ir.op import Op
from graphopt.ops import linalg
from graphopt.ops.linalg import FFT, SVD, TRIANGULAR_SOLVE, TRIDIAGONAL_SOLVE, matrices, transforms

CALL = 500.0
"""Nanoseconds of one call, however little it computes: in a loop 0.3 to 0.6 µs of 4x4 matrices (eigh and svd 3 to 5).

A program of one of them alone takes 10 to 50 µs more, which are those of beginning it."""

HALF = 1000
"""Side of a matrix for which half of the rate below is reached (Hockney's half-performance length): from 50x50 to
500x500 matrices the rate grows eightfold to sixteenfold."""

_RATES = {
    "cholesky": 0.95,
    "lu": 0.85,
    "triangular_solve": 1.4,
    "qr": 1.25,
    "householder_product": 1.25,
    "eigh": 2.3,
    "eig": 0.85,
    "schur": 1.15,
    "hessenberg": 1.25,
    "tridiagonal": 1.0,
    "svd": 2.5,
}

RATES: Mapping[Op, float] = {op: _RATES[op.name] for op in linalg.OPS if op.name in _RATES}
"""What LAPACK does of an operation's count in the limit of large matrices, over what one core does in XLA's products.
More than one core does where it divides and conquers (eigh, svd), which is less arithmetic than the QR algorithm takes.
On two cores, of float32 matrices of 50, 200 and 500 rows: eigh takes 0.22, 2.1 to 2.8 and 13 to 15 ms, svd 0.3 to 0.4,
3.4 to 4.1 and 28 to 35, lu 0.02, 0.25 to 0.33 and 2.6 to 3.8, cholesky 0.01, 0.2 and 1.2 to 1.4, eig 0.8, 10 to 15 and
96 to 119."""

SINGULAR_VALUES = 0.6
"""And of svd where it has no vectors to compute: 14 to 18 ms of 500x500."""

SUBSTITUTED = 1.0
"""Nanoseconds of an element of the matrix of a triangular system, however few columns there are: 0.22 to 0.27 ms of
500x500 with one."""

ELIMINATED = 2.4
"""Nanoseconds of an operation of a tridiagonal system: each waits for the one before."""

TRANSFORMED = 12.0
"""Over what one core does in products, an operation of a Fourier transform: 0.57 to 0.68 ms of 500 of 500 numbers, 20
of a million. (Lengths with large prime factors take some five times as long.)"""


def is_called(node: Node) -> bool:
    """Whether an operation is one of those of which there are times, of a known shape."""
    return node.op in linalg.OPS and all(aval.is_static for aval in (*(n.aval for n in node.data_inputs), *node.avals))


def called_time(node: Node, machine: Machine) -> float:
    """Nanoseconds of an operation that XLA calls a library for."""
    ins = [n.aval for n in node.data_inputs]
    assert node.op.flops is not None
    flops = node.op.flops(node.attrs, ins, node.data_avals)
    dtype = ins[0].dtype
    # A product of complex numbers was counted as those of real ones that it is made of.
    computing = machine.multiplying_in_xla(flops, dtype.itemsize // (2 if dtype.kind == "c" else 1))
    if node.op is FFT:
        several = transforms(node.attrs, ins[0]) > 1 or len(node.attrs["fft_lengths"]) > 1
        return CALL + TRANSFORMED * computing / (machine.threads if several else 1)
    if node.op is TRIDIAGONAL_SOLVE:
        return CALL + ELIMINATED * flops
    rate = SINGULAR_VALUES if node.op is SVD and not node.attrs["compute_uv"] else RATES[node.op]
    side = int(min(ins[0].shape[-2:]))
    least = SUBSTITUTED * side**2 * matrices(ins[0]) if node.op is TRIANGULAR_SOLVE else 0.0
    return CALL + max(least, computing / rate * (1 + HALF / max(1, side)))
