"""float16 and bfloat16 in kernels: kept as their bits, in uint16, and computed on in float32.

Numba has no bfloat16, and little for float16. A value is widened before each operation and rounded after it, to the
nearest, ties to even, as XLA:CPU does (its `float-normalization` keeps the rounding between operations of one fusion).
What only moves, selects or looks at bits is done on the bits, so that a NaN keeps its payload.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

HALVES = (np.dtype(np.float16), np.dtype(jnp.bfloat16))

WORD, SINGLE = ir.IntType(32), ir.FloatType()

Emit = Callable[[Any, Any], Any]


def _conversion(result: Any, argument: Any, emit: Emit) -> Any:
    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return emit(builder, args[0])

    return intrinsic(lambda typing, x: (result(argument), generate))


def _narrow_bfloat16(builder: Any, x: Any) -> Any:
    """Half a unit of what is kept is added, less one where that is even; a NaN is cut off and made quiet."""
    bits = builder.bitcast(x, WORD)
    high = builder.lshr(bits, WORD(16))
    rounded = builder.lshr(builder.add(bits, builder.add(WORD(0x7FFF), builder.and_(high, WORD(1)))), WORD(16))
    found = builder.select(builder.fcmp_unordered("uno", x, x), builder.or_(high, WORD(0x40)), rounded)
    return builder.trunc(found, ir.IntType(16))


widen_float16 = _conversion(
    types.float32, types.uint16, lambda builder, x: builder.fpext(builder.bitcast(x, ir.HalfType()), SINGLE)
)
narrow_float16 = _conversion(
    types.uint16, types.float32, lambda builder, x: builder.bitcast(builder.fptrunc(x, ir.HalfType()), ir.IntType(16))
)
widen_bfloat16 = _conversion(
    types.float32,
    types.uint16,
    lambda builder, x: builder.bitcast(builder.shl(builder.zext(x, WORD), WORD(16)), SINGLE),
)
narrow_bfloat16 = _conversion(types.uint16, types.float32, _narrow_bfloat16)


def is_half(dtype: Any) -> bool:
    """Whether a dtype is float16 or bfloat16."""
    return dtype in HALVES


def kept_as(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """The dtype in which values of a dtype are kept: of a half its bits."""
    return np.dtype(np.uint16) if is_half(dtype) else dtype


def computed_as(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """The dtype in which values of a dtype are computed on."""
    return np.dtype(np.float32) if is_half(dtype) else dtype


def widened(dtype: np.dtype[Any], source: str) -> str:
    """A value of a dtype as the one that is computed on."""
    return f"widen_{dtype.name}({source})" if is_half(dtype) else source


def narrowed(dtype: np.dtype[Any], source: str) -> str:
    """What was computed, rounded to a dtype."""
    return f"narrow_{dtype.name}({source})" if is_half(dtype) else source
