"""What each operation means. Importing this package registers the described operations; all others are opaque."""

from graphopt.ir.op import Op, _ops
from graphopt.ops import contract, elementwise, linalg, random, reduce, shape

__all__ = ["contract", "described_ops", "elementwise", "linalg", "random", "reduce", "shape"]


def described_ops() -> tuple[Op, ...]:
    """The operations of which more is known than JAX's primitive, in the order of their registration.

    Without those of linear algebra: of them no more is known than how much arithmetic they are.
    """
    described = (op for op in _ops.values() if op.flops is not None or op.fold is not None or op.elementwise)
    return tuple(op for op in described if op not in linalg.OPS)
