"""Cases of elementwise operations: operands with one axis, values from where the function is at home."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from jax import lax

from graphopt.bench.operation import Operand, Operation, vectors

Numpy = Callable[..., Any] | None
Range = tuple[float, float]

INTEGERS: Range = (-(2**31), 2**31)
SHIFTS: Range = (0, 32)


def _unsigned(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function` on the bits of 32-bit integers as unsigned ones, in NumPy."""
    return lambda *xs: function(*[x.view(np.uint32) for x in xs]).astype(np.int32)


UNARY: dict[str, tuple[Range, Numpy]] = {
    "abs": ((-1, 1), np.abs),
    "neg": ((-1, 1), np.negative),
    "sign": ((-1, 1), np.sign),
    "square": ((-1, 1), np.square),
    "sqrt": ((0, 10), np.sqrt),
    "rsqrt": ((0.1, 10), lambda x: 1 / np.sqrt(x)),
    "cbrt": ((-10, 10), np.cbrt),
    "exp": ((-5, 5), np.exp),
    "exp2": ((-5, 5), np.exp2),
    "expm1": ((-1, 1), np.expm1),
    "log": ((0.1, 10), np.log),
    "log1p": ((-0.5, 5), np.log1p),
    "log2": ((0.1, 10), np.log2),
    "logistic": ((-5, 5), lambda x: 1 / (1 + np.exp(-x))),
    "floor": ((-10, 10), np.floor),
    "ceil": ((-10, 10), np.ceil),
    "sin": ((-10, 10), np.sin),
    "cos": ((-10, 10), np.cos),
    "tan": ((-1.5, 1.5), np.tan),
    "asin": ((-1, 1), np.arcsin),
    "acos": ((-1, 1), np.arccos),
    "atan": ((-5, 5), np.arctan),
    "sinh": ((-3, 3), np.sinh),
    "cosh": ((-3, 3), np.cosh),
    "tanh": ((-3, 3), np.tanh),
    "asinh": ((-5, 5), np.arcsinh),
    "acosh": ((1, 10), np.arccosh),
    "atanh": ((-0.9, 0.9), np.arctanh),
    "erf": ((-3, 3), None),
    "erfc": ((-3, 3), None),
    "erf_inv": ((-0.9, 0.9), None),
    "lgamma": ((0.5, 10), None),
    "digamma": ((0.5, 10), None),
    "is_finite": ((-1, 1), np.isfinite),
}
"""Functions of one real number, by the names that they have in jax.lax."""

BINARY: dict[str, tuple[Range, Range, Numpy]] = {
    "add": ((-1, 1), (-1, 1), np.add),
    "sub": ((-1, 1), (-1, 1), np.subtract),
    "mul": ((-1, 1), (-1, 1), np.multiply),
    "div": ((-1, 1), (0.5, 2), np.divide),
    "rem": ((-10, 10), (0.5, 2), np.fmod),
    "pow": ((0.1, 10), (-2, 2), np.power),
    "atan2": ((-1, 1), (-1, 1), np.arctan2),
    "nextafter": ((-1, 1), (-1, 1), np.nextafter),
    "max": ((-1, 1), (-1, 1), np.maximum),
    "min": ((-1, 1), (-1, 1), np.minimum),
    "igamma": ((0.5, 5), (0.1, 10), None),
    "igammac": ((0.5, 5), (0.1, 10), None),
    "eq": ((-1, 1), (-1, 1), np.equal),
    "ne": ((-1, 1), (-1, 1), np.not_equal),
    "lt": ((-1, 1), (-1, 1), np.less),
    "le": ((-1, 1), (-1, 1), np.less_equal),
    "gt": ((-1, 1), (-1, 1), np.greater),
    "ge": ((-1, 1), (-1, 1), np.greater_equal),
    "complex": ((-1, 1), (-1, 1), lambda x, y: x + np.complex64(1j) * y),
}
"""Functions of two real numbers, by the names that they have in jax.lax."""

BITS: dict[str, tuple[Callable[..., Any], tuple[Range, ...], Numpy]] = {
    "not": (lax.bitwise_not, (INTEGERS,), np.invert),
    "and": (lax.bitwise_and, (INTEGERS, INTEGERS), np.bitwise_and),
    "or": (lax.bitwise_or, (INTEGERS, INTEGERS), np.bitwise_or),
    "xor": (lax.bitwise_xor, (INTEGERS, INTEGERS), np.bitwise_xor),
    "population_count": (lax.population_count, (INTEGERS,), _unsigned(np.bitwise_count)),
    "clz": (lax.clz, (INTEGERS,), None),
    "shift_left": (lax.shift_left, (INTEGERS, SHIFTS), np.left_shift),
    "shift_right_logical": (lax.shift_right_logical, (INTEGERS, SHIFTS), _unsigned(np.right_shift)),
    "shift_right_arithmetic": (lax.shift_right_arithmetic, (INTEGERS, SHIFTS), np.right_shift),
}
"""Functions of 32-bit integers."""

OTHERS = (
    Operation("integer_pow", lambda x: lax.integer_pow(x, 3), vectors((-2, 2)), lambda x: x * x * x),
    Operation(
        "round",
        lambda x: lax.round(x, lax.RoundingMethod.TO_NEAREST_EVEN),
        vectors((-10, 10)),
        np.round,
    ),
    Operation("reduce_precision", lambda x: lax.reduce_precision(x, 8, 7), vectors((-1, 1))),
    Operation("clamp", lambda x: lax.clamp(-0.5, x, 0.5), vectors((-1, 1)), lambda x: np.clip(x, -0.5, 0.5)),
    Operation(
        "select_n",
        lambda which, x, y: lax.select_n(which, x, y),
        lambda n: (Operand((n,), "bool"), Operand((n,)), Operand((n,))),
        lambda which, x, y: np.where(which, y, x),
    ),
    Operation("real", lax.real, vectors((-1, 1), dtype="complex64"), lambda x: x.real.copy()),
    Operation("imag", lax.imag, vectors((-1, 1), dtype="complex64"), lambda x: x.imag.copy()),
    Operation("conj", lax.conj, vectors((-1, 1), dtype="complex64"), np.conj),
    Operation(
        "convert_element_type",
        lambda x: lax.convert_element_type(x, np.int32),
        vectors((-1000, 1000)),
        lambda x: x.astype(np.int32),
    ),
    Operation(
        "bitcast_convert_type",
        lambda x: lax.bitcast_convert_type(x, np.int32),
        vectors((-1, 1)),
        lambda x: x.view(np.int32).copy(),
    ),
)

ELEMENTWISE = (
    *(
        Operation(name, getattr(lax, name), vectors(r), numpy)
        for name, (r, numpy) in UNARY.items()
        if hasattr(lax, name)  # older versions of JAX have no log2
    ),
    *(Operation(name, getattr(lax, name), vectors(a, b), numpy) for name, (a, b, numpy) in BINARY.items()),
    *(Operation(name, f, vectors(*ranges, dtype="int32"), numpy) for name, (f, ranges, numpy) in BITS.items()),
    *OTHERS,
)
