"""Reductions and cumulative operations."""

from __future__ import annotations

import math
from collections.abc import Sequence

from jax.extend.core import primitives as p

from graphopt.ir.attrs import Attrs
from graphopt.ir.aval import Aval
from graphopt.ir.op import Op, register


def one_per_operand_element(attrs: Attrs, ins: Sequence[Aval], outs: Sequence[Aval]) -> int:
    """One operation for each element that is read."""
    return sum(aval.size for aval in ins)


def one_per_window_element(attrs: Attrs, ins: Sequence[Aval], outs: Sequence[Aval]) -> int:
    """One operation for each element of each window."""
    return outs[0].size * int(math.prod(attrs["window_dimensions"]))


# fmt: off
_NAMES = [
    "reduce_sum", "reduce_prod", "reduce_max", "reduce_min", "reduce_and", "reduce_or", "reduce_xor", "argmax",
    "argmin", "cumsum", "cumprod", "cummax", "cummin", "cumlogsumexp", "scatter_add", "scatter_mul", "scatter_min",
    "scatter_max",
]
_WINDOWED = ["reduce_window_sum", "reduce_window_max", "reduce_window_min"]
# fmt: on

OPS = tuple(
    register(Op(primitive.name, primitive, flops=flops))
    for names, flops in ((_NAMES, one_per_operand_element), (_WINDOWED, one_per_window_element))
    for primitive in (getattr(p, f"{name}_p", None) for name in names)
    if primitive is not None
)
