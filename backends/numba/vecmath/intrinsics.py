"""The LLVM instructions that Numba's Python has no spelling for, and two ways to compile a scalar function."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numba
from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic


def scalar(function: Callable[..., Any]) -> Any:
    """A function of scalars for use in loops: inlined by LLVM, so that the loop around it can be vectorized.

    IEEE arithmetic: nothing is reassociated, and a division by zero is not an error.
    """
    return numba.njit(function, error_model="numpy", forceinline=True)


def _call(builder: Any, name: str, arguments: Sequence[Any]) -> Any:
    """A call of an LLVM intrinsic whose operands and result are all of one type."""
    kind = arguments[0].type
    function = builder.module.declare_intrinsic(name, [kind], ir.FunctionType(kind, [kind] * len(arguments)))
    return builder.call(function, arguments)


def _unary(name: str) -> Any:
    """An LLVM intrinsic from one floating-point number to another of its type."""

    def typed(typing_context: Any, x: Any) -> Any:
        def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            return _call(builder, name, arguments)

        return (x(x), emit) if isinstance(x, types.Float) else None

    return intrinsic(typed)


rint = _unary("llvm.rint")
"""The nearest integer, ties to even."""

floor = _unary("llvm.floor")
sqrt = _unary("llvm.sqrt")
fabs = _unary("llvm.fabs")


def _copysign(typing_context: Any, magnitude: Any, sign: Any) -> Any:
    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return _call(builder, "llvm.copysign", arguments)

    return (magnitude(magnitude, sign), emit) if magnitude == sign else None


copysign: Any = intrinsic(_copysign)


def _fma(typing_context: Any, a: Any, b: Any, c: Any) -> Any:
    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return _call(builder, "llvm.fma", arguments)

    return (a(a, b, c), emit) if a == b == c else None


fma: Any = intrinsic(_fma)
"""a * b + c, rounded once."""


def _horner(typing_context: Any, x: Any, coefficients: Any) -> Any:
    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        point, packed = arguments
        value = builder.extract_value(packed, coefficients.count - 1)
        for k in reversed(range(coefficients.count - 1)):
            value = _call(builder, "llvm.fma", [value, point, builder.extract_value(packed, k)])
        return value

    return (x(x, coefficients), emit) if coefficients.dtype == x else None


horner: Any = intrinsic(_horner)
"""The polynomial with the given tuple of coefficients, constant term first, one fma for each but the last."""


def _select(typing_context: Any, condition: Any, a: Any, b: Any) -> Any:
    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.select(*arguments)

    return (a(types.boolean, a, b), emit) if a == b else None


select: Any = intrinsic(_select)
"""`a` where the condition holds, otherwise `b`; both are computed, and no branch is left to be removed."""

_BITS = {types.float32: types.int32, types.float64: types.int64}
_FLOAT = {integer: floating for floating, integer in _BITS.items()}


def _cast(kinds: dict[Any, Any]) -> Any:
    def typed(typing_context: Any, x: Any) -> Any:
        def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            return builder.bitcast(arguments[0], context.get_value_type(kinds[x]))

        return (kinds[x](x), emit) if x in kinds else None

    return intrinsic(typed)


to_bits = _cast(_BITS)
"""The bits of a float32 as an int32, of a float64 as an int64."""

from_bits = _cast(_FLOAT)
"""The float32 with the bits of an int32, the float64 with those of an int64."""
