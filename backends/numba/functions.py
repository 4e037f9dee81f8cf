"""Which functions the vector math has (`graphopt.backends.numba.vecmath`): to be known without importing Numba."""

from __future__ import annotations

from typing import Any

import numpy as np

from graphopt.ir.op import Op, ops_of

DTYPES: tuple[np.dtype[Any], ...] = (np.dtype(np.float32), np.dtype(np.float64))

# fmt: off
_NAMES = [
    "acos", "acosh", "asin", "asinh", "atan", "atan2", "atanh", "cbrt", "cos", "cosh", "erf", "erf_inv", "erfc", "exp",
    "exp2", "expm1", "log", "log1p", "log2", "logistic", "pow", "rsqrt", "sin", "sinh", "tan", "tanh",
]
# fmt: on

VECMATH: dict[tuple[Op, np.dtype[Any]], None] = {
    (op, dtype): None for op in ops_of(_NAMES).values() for dtype in DTYPES
}
"""Operations and the dtypes of their operands, in order."""

HALF_POWERS = {(sign * (whole + 0.5), dtype) for whole in (0, 1, 2) for sign in (1, -1) for dtype in DTYPES}
"""Exponents of `pow`, and dtypes, that have a function of their own."""
