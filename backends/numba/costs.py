"""What one element of a scalar operation takes in a kernel's vectorized loop, measured on one core with AVX-512."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from jax.extend.core import primitives as p

from graphopt.ir.op import Op, op_of, ops_of

ARITHMETIC = 0.003
"""Nanoseconds for a byte of the result: a sum, a product, a comparison."""

INTEGER_DIVISION = 1.2
"""Nanoseconds; there is no instruction for vectors of integers."""

_FUNCTIONS: dict[str, tuple[float, float]] = {
    "div": (0.05, 0.15),
    "rem": (0.2, 0.6),
    "sqrt": (0.05, 0.15),
    "rsqrt": (0.06, 0.2),
    "cbrt": (0.2, 0.7),
    "exp": (0.16, 0.32),
    "exp2": (0.13, 0.25),
    "expm1": (0.1, 0.3),
    "log": (0.1, 0.27),
    "log1p": (0.14, 0.4),
    "log2": (0.1, 0.37),
    "sin": (0.19, 0.65),
    "cos": (0.19, 0.65),
    "tan": (0.27, 0.9),
    "tanh": (0.15, 0.45),
    "sinh": (0.17, 0.6),
    "cosh": (0.12, 0.5),
    "asin": (0.15, 0.6),
    "acos": (0.3, 0.9),
    "atan": (0.15, 0.8),
    "atan2": (0.25, 1.0),
    "asinh": (0.27, 0.9),
    "acosh": (0.27, 0.9),
    "atanh": (0.24, 0.75),
    "erf": (0.28, 1.3),
    "erfc": (0.4, 1.9),
    "pow": (0.75, 2.2),
    "logistic": (0.22, 0.6),
}
"""Nanoseconds in float32 and in float64."""

FUNCTIONS: Mapping[Op, tuple[float, float]] = {op: _FUNCTIONS[name] for name, op in ops_of(_FUNCTIONS).items()}

CHOICES = {op_of(p.max_p), op_of(p.min_p)}
"""A NaN is the greatest and the least number, and -0.0 is less than 0.0: that takes some instructions."""

DIVISIONS = {op_of(p.div_p), op_of(p.rem_p)}


def scalar_cost(op: Op, dtype: np.dtype[Any]) -> float:
    """Nanoseconds of one element."""
    if op in DIVISIONS and dtype.kind in "iu":
        return INTEGER_DIVISION
    if op in FUNCTIONS:
        return FUNCTIONS[op][dtype.itemsize > 4]
    return ARITHMETIC * dtype.itemsize * (2 if op in CHOICES and dtype.kind == "f" else 1)
