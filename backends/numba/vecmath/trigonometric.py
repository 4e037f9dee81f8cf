"""sin, cos and tan: the reduction of `reduction.py`, then polynomials on |r| <= π/4, chosen by the quadrant.

sin(r) = r + r³ S(r²), cos(r) = 1 - r²/2 + r⁴ C(r²) and tan(r) = r + r³ T(r²) with our own minimax polynomials
(`coefficients.py`). In float64 the part of r that one number cannot hold is added to first order, as fdlibm does
(k_sin.c, k_cos.c, Sun Microsystems, 1993).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from graphopt.backends.numba.vecmath import coefficients
from graphopt.backends.numba.vecmath.intrinsics import fabs, float32, float64, fma, horner, select
from graphopt.backends.numba.vecmath.real import fast_two_sum
from graphopt.backends.numba.vecmath.reduction import reduced_f32, reduced_f64

SIN_F32, SIN_F64 = coefficients.SIN_F32, coefficients.SIN_F64
COS_F32, COS_F64 = coefficients.COS_F32, coefficients.COS_F64
TAN_F32, TAN_F64 = coefficients.TAN_F32, coefficients.TAN_F64
ONE, HALF, SMALL_F32 = np.float32(1), np.float32(0.5), np.float32(2.0**-13)
SMALL_F64 = 2.0**-27  # up to here x itself is the sine and the tangent; -0 and denormals are among them


def quadrant_f32(r: Any, n: Any) -> Any:
    """r as float64, n ↦ sin(r + n π/2)."""
    r = float32(r)
    z = r * r
    sine = fma(r * z, horner(z, SIN_F32), r)
    cosine = fma(z * z, horner(z, COS_F32), fma(-HALF, z, ONE))
    found = select((n & 1) == 0, sine, cosine)
    return select((n & 2) == 0, found, -found)


def sin_f32(x: Any) -> Any:
    """sin(x), for every x.

    Worst error measured: 1.58 ulp.
    """
    r, n = reduced_f32(float64(x))
    return select(fabs(x) < SMALL_F32, x, quadrant_f32(r, n))


def cos_f32(x: Any) -> Any:
    """cos(x) = sin(x + π/2), for every x.

    Worst error measured: 1.57 ulp.
    """
    r, n = reduced_f32(float64(x))
    return quadrant_f32(r, n + 1)


def tan_f32(x: Any) -> Any:
    """tan(x), for every x, in float64: -1 / tan(r) in odd quadrants.

    Worst error measured: 0.53 ulp.
    """
    r, n = reduced_f32(float64(x))
    z = r * r
    tangent = fma(r * z, horner(z, TAN_F32), r)
    even = (n & 1) == 0
    found = select(even, tangent, -1.0) / select(even, 1.0, tangent)
    return select(fabs(x) < SMALL_F32, x, float32(found))


def quadrant_f64(r: Any, rest: Any, n: Any) -> Any:
    """r as the sum of two, n ↦ sin(r + n π/2)."""
    z = r * r
    halved = 0.5 * z
    sine = r + fma(r * z, horner(z, SIN_F64), fma(-halved, rest, rest))
    near_one = 1.0 - halved
    cosine = near_one + (((1.0 - near_one) - halved) + fma(z * z, horner(z, COS_F64), -r * rest))
    found = select((n & 1) == 0, sine, cosine)
    return select((n & 2) == 0, found, -found)


def sin_f64(x: Any) -> Any:
    """sin(x), for every x.

    Worst error measured: 0.78 ulp.
    """
    r, rest, n = reduced_f64(x)
    return select(fabs(x) < SMALL_F64, x, quadrant_f64(r, rest, n))


def cos_f64(x: Any) -> Any:
    """cos(x) = sin(x + π/2), for every x.

    Worst error measured: 0.76 ulp.
    """
    r, rest, n = reduced_f64(x)
    return quadrant_f64(r, rest, n + 1)


def tan_f64(x: Any) -> Any:
    """tan(x), for every x.

    The tangent of r is a sum of two; in odd quadrants -1 / tan(r) is corrected by what the division leaves.
    Worst error measured: 1.25 ulp.
    """
    r, rest, n = reduced_f64(x)
    z = r * r
    high, low = fast_two_sum(r, fma(r * z, horner(z, TAN_F64), fma(z, rest, rest)))
    quotient = -1.0 / high
    left = fma(-quotient, low, fma(-quotient, high, -1.0))
    found = select((n & 1) == 0, high + low, fma(-quotient, left, quotient))
    return select(fabs(x) < SMALL_F64, x, found)
