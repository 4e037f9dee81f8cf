"""Between float32, and float64, and the bits of float16 and bfloat16 (`graphopt.backends.numba.half`)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

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


def _narrow_float16(builder: Any, x: Any) -> Any:
    return builder.bitcast(builder.fptrunc(x, ir.HalfType()), ir.IntType(16))


narrow_float16 = _conversion(types.uint16, types.float32, _narrow_float16)
round_float16 = _conversion(types.uint16, types.float64, _narrow_float16)
widen_bfloat16 = _conversion(
    types.float32,
    types.uint16,
    lambda builder, x: builder.bitcast(builder.shl(builder.zext(x, WORD), WORD(16)), SINGLE),
)
narrow_bfloat16 = _conversion(types.uint16, types.float32, _narrow_bfloat16)
