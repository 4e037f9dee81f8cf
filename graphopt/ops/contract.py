"""Contractions: matrix products and convolutions. A multiplication and an addition count as two operations."""

from __future__ import annotations

import math
from collections.abc import Sequence

from jax.extend.core import primitives as p

from graphopt.ir.attrs import Attrs
from graphopt.ir.aval import Aval
from graphopt.ir.op import Op, register


def dot_general_flops(attrs: Attrs, ins: Sequence[Aval], outs: Sequence[Aval]) -> int:
    """Twice the result's elements times the length of what is summed over."""
    (contracted, _), _ = attrs["dimension_numbers"]
    return 2 * outs[0].size * int(math.prod(ins[0].shape[d] for d in contracted))


def convolution_flops(attrs: Attrs, ins: Sequence[Aval], outs: Sequence[Aval]) -> int:
    """Twice the result's elements times the elements of one filter (padding counted as if it were data)."""
    kernel, spec = ins[1], attrs["dimension_numbers"].rhs_spec
    return 2 * outs[0].size * int(math.prod(kernel.shape[d] for d in spec[1:]))


DOT_GENERAL = register(Op("dot_general", p.dot_general_p, flops=dot_general_flops))
CONVOLUTION = register(Op("conv_general_dilated", p.conv_general_dilated_p, flops=convolution_flops))
