"""Random bits: one word of what Threefry makes of a key and a counter, as an elementwise operation.

JAX's own operation has two results, and hides in `random_bits` behind keys that no kernel can read. This one has an
attribute `word`, 0 or 1. By itself it is JAX's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from jax.extend.core import Primitive
from jax.extend.random import threefry2x32_p
from jax.interpreters import mlir

from graphopt.ir.attrs import Attrs
from graphopt.ir.aval import Aval
from graphopt.ir.op import Op, register

threefry_p = Primitive("threefry")
"""Words of Threefry-2x32 with 20 rounds (J. K. Salmon et al., "Parallel Random Numbers: As Easy as 1, 2, 3", 2011).

Operands: the two words of a key and the two of a counter, uint32 arrays of one shape.
"""


def _run(*operands: Any, word: int) -> Any:
    return threefry2x32_p.bind(*operands)[word]


def _type(*operands: Any, word: int) -> Any:
    return operands[-1]


def _flops(attrs: Attrs, ins: Sequence[Aval], outs: Sequence[Aval]) -> int:
    return 60 * outs[0].size  # half of what both words together take


threefry_p.def_impl(_run)
threefry_p.def_abstract_eval(_type)
mlir.register_lowering(threefry_p, mlir.lower_fun(_run, multiple_results=False))

THREEFRY = register(Op("threefry", threefry_p, flops=_flops, elementwise=True))
