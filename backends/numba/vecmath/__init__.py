"""Scalar functions in float32 and float64 that LLVM vectorizes where a loop has their instructions.

What depends on the argument is selected among values that have all been computed: there are no branches, but for one
that is taken where a vector has an argument that is not usual (`usual.py`). None reads a table; a few constants are
selected by size.

With each stands the worst error measured, in units in the last place of the exact result (of a denormal one, in the
smallest denormal): in float32 on at least every 37th number, against the float64 function, and on all numbers for erfc,
logistic and sinh; in float64 on some thousand numbers against mpmath, and on a million against 80 bits. The tests
(tests/backends/numba/test_vecmath.py) hold all of them to two units, against mpmath.

NaN, infinities and signed zeros come out as JAX has them, denormals as IEEE 754 has them. Where the processor is told
to flush denormals to zero, as XLA does on its threads, normal results are the same. There denormals are still told from
zero in pow, atan2 and cbrt, and are their own sine, and so on, where they are for XLA; elsewhere they count as zero.

They are Python functions of numbers that are computed later (`intrinsics.Number`), for the type they are named for:
`exp_f32(x)` takes and returns a float32. What Numba is given of them is made by `intrinsics.scalar`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from jax.extend.core import primitives

from graphopt.backends.numba.vecmath.error import erf_f32, erf_f64, erfc_f32, erfc_f64
from graphopt.backends.numba.vecmath.exponential import (
    exp2_f32,
    exp2_f64,
    exp_f32,
    exp_f64,
    expm1_f32,
    expm1_f64,
    logistic_f32,
    logistic_f64,
)
from graphopt.backends.numba.vecmath.hyperbolic import cosh_f32, cosh_f64, sinh_f32, sinh_f64, tanh_f32, tanh_f64
from graphopt.backends.numba.vecmath.inverse import (
    acos_f32,
    acos_f64,
    asin_f32,
    asin_f64,
    atan2_f32,
    atan2_f64,
    atan_f32,
    atan_f64,
)
from graphopt.backends.numba.vecmath.inverse_error import erf_inv_f32, erf_inv_f64
from graphopt.backends.numba.vecmath.inverse_hyperbolic import (
    acosh_f32,
    acosh_f64,
    asinh_f32,
    asinh_f64,
    atanh_f32,
    atanh_f64,
)
from graphopt.backends.numba.vecmath.logarithm import log1p_f32, log1p_f64, log2_f32, log2_f64, log_f32, log_f64
from graphopt.backends.numba.vecmath.power import (
    HALVES,
    cbrt_f32,
    cbrt_f64,
    half_power_in,
    pow_f32,
    pow_f64,
    rsqrt_f32,
    rsqrt_f64,
)
from graphopt.backends.numba.vecmath.real import F32, F64
from graphopt.backends.numba.vecmath.trigonometric import cos_f32, cos_f64, sin_f32, sin_f64, tan_f32, tan_f64
from graphopt.ir.op import Op, op_of

DTYPES: tuple[np.dtype[Any], ...] = (np.dtype(np.float32), np.dtype(np.float64))

SCALAR_MATH: Mapping[tuple[Op, np.dtype[Any]], Any] = {
    (op_of(primitive), dtype): function
    for primitive, *functions in (
        (primitives.acos_p, acos_f32, acos_f64),
        (primitives.acosh_p, acosh_f32, acosh_f64),
        (primitives.asin_p, asin_f32, asin_f64),
        (primitives.asinh_p, asinh_f32, asinh_f64),
        (primitives.atan2_p, atan2_f32, atan2_f64),
        (primitives.atan_p, atan_f32, atan_f64),
        (primitives.atanh_p, atanh_f32, atanh_f64),
        (primitives.cbrt_p, cbrt_f32, cbrt_f64),
        (primitives.cos_p, cos_f32, cos_f64),
        (primitives.cosh_p, cosh_f32, cosh_f64),
        (primitives.erf_p, erf_f32, erf_f64),
        (primitives.erfc_p, erfc_f32, erfc_f64),
        (primitives.exp2_p, exp2_f32, exp2_f64),
        (primitives.exp_p, exp_f32, exp_f64),
        (primitives.expm1_p, expm1_f32, expm1_f64),
        (primitives.log1p_p, log1p_f32, log1p_f64),
        (getattr(primitives, "log2_p", None), log2_f32, log2_f64),
        (primitives.log_p, log_f32, log_f64),
        (primitives.logistic_p, logistic_f32, logistic_f64),
        (primitives.pow_p, pow_f32, pow_f64),
        (primitives.rsqrt_p, rsqrt_f32, rsqrt_f64),
        (primitives.sin_p, sin_f32, sin_f64),
        (primitives.sinh_p, sinh_f32, sinh_f64),
        (primitives.tan_p, tan_f32, tan_f64),
        (primitives.tanh_p, tanh_f32, tanh_f64),
    )
    if primitive is not None  # older versions of JAX make log2 of other operations
    for dtype, function in zip(DTYPES, functions, strict=True)
}
"""The function that computes an operation on elements of a dtype; of `pow`, where both operands have it."""

AS_EXACT_AS_JAX: Mapping[tuple[Op, np.dtype[Any]], Any] = {
    (op_of(primitives.erf_inv_p), DTYPES[0]): erf_inv_f32,
    (op_of(primitives.erf_inv_p), DTYPES[1]): erf_inv_f64,
}
"""Functions by JAX's own approximations, which are not good to two units."""

MATH = {**SCALAR_MATH, **AS_EXACT_AS_JAX}
"""All functions of one or two operands."""

HALF_POWERS: Mapping[tuple[float, np.dtype[Any]], Any] = {
    ((-1 if down else 1) * (whole + 0.5), dtype): half_power_in(real, whole, down)
    for whole, down in HALVES
    for real, dtype in zip((F32, F64), DTYPES, strict=True)
}
"""`x ↦ pow(x, exponent)`, for each of these exponents and a dtype: many times cheaper than `pow`."""
