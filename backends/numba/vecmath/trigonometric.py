"""sin, cos and tan: a reduction of `reduction.py`, then polynomials on |r| <= π/4, chosen by the quadrant.

The usual arguments are reduced by a few fmas, the others as Payne and Hanek do. sin(r) = r + r³ S(r²),
cos(r) = 1 - r²/2 + r⁴ C(r²) and tan(r) = r + r³ T(r²) with our own minimax polynomials (`coefficients.py`). In float64
the part of r that one number cannot hold is added to first order, as fdlibm does (k_sin.c, k_cos.c, Sun Microsystems,
1993).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from graphopt.backends.numba.vecmath import coefficients
from graphopt.backends.numba.vecmath.intrinsics import (
    fabs,
    float32,
    float64,
    fma,
    from_bits,
    horner,
    int32,
    select,
    to_bits,
)
from graphopt.backends.numba.vecmath.real import F32, F64, Real, fast_two_sum
from graphopt.backends.numba.vecmath.reduction import (
    NEAR,
    near_f32,
    near_sum_f32,
    near_sum_f64,
    reduced_f32,
    reduced_f64,
)
from graphopt.backends.numba.vecmath.usual import usually

SIN_F32, SIN_F64 = coefficients.SIN_F32, coefficients.SIN_F64
COS_F32, COS_F64 = coefficients.COS_F32, coefficients.COS_F64
TAN_F32, TAN_F64, TAN_WIDE_F32 = coefficients.TAN_F32, coefficients.TAN_F64, coefficients.TAN_WIDE_F32
ZERO_F32, ONE, HALF, SMALL_F32 = np.float32(0), np.float32(1), np.float32(0.5), np.float32(2.0**-13)
SMALL_F64 = 2.0**-27  # up to here x itself is the sine and the tangent; -0 and denormals are among them


def signed_in(real: Real) -> Any:
    """value, bits ↦ the value with the other sign where the highest of the bits is set."""
    highest = real.bits(-real.floating(0))

    def signed(value: Any, bits: Any) -> Any:
        return from_bits(to_bits(value) ^ (bits & highest))

    return signed


signed_f32, signed_f64 = signed_in(F32), signed_in(F64)


def folded_f32(r: Any, n: Any) -> Any:
    """r, n ↦ sin(r + n π/2), with the other sign where n & 2."""
    z = r * r
    sine = fma(r * z, horner(z, SIN_F32), r)
    cosine = fma(z * z, horner(z, COS_F32), fma(-HALF, z, ONE))
    return select((n & 1) == 0, sine, cosine)


def folded_f64(r: Any, rest: Any, n: Any) -> Any:
    """r as the sum of two, n ↦ sin(r + n π/2), with the other sign where n & 2."""
    z = r * r
    halved = 0.5 * z
    sine = r + fma(r * z, horner(z, SIN_F64), fma(-halved, rest, rest))
    near_one = 1.0 - halved
    cosine = near_one + (((1.0 - near_one) - halved) + fma(z * z, horner(z, COS_F64), -r * rest))
    return select((n & 1) == 0, sine, cosine)


def tangent_in(real: Real) -> Any:
    """r as the sum of two, n ↦ tan(r + n π/2) in a format.

    The tangent of r is a sum of two; in odd quadrants -1 / tan(r) is corrected by what the division leaves.
    """
    polynomial = TAN_F32 if real is F32 else TAN_F64
    minus_one = real.floating(-1)

    def tangent(r: Any, rest: Any, n: Any) -> Any:
        z = r * r
        high, low = fast_two_sum(r, fma(r * z, horner(z, polynomial), fma(z, rest, rest)))
        quotient = minus_one / high
        left = fma(-quotient, low, fma(-quotient, high, minus_one))
        return select((n & 1) == 0, high, fma(-quotient, left, quotient))

    return tangent


tangent_f32, tangent_f64 = tangent_in(F32), tangent_in(F64)


def usual_sin_f32(x: Any) -> Any:
    """The sine of what is not far; of -0, and of what counts as zero, x itself."""
    r, n = near_f32(x)
    return select(x == ZERO_F32, x, signed_f32(folded_f32(r, n), n << 30)), ~(fabs(x) < NEAR[F32])


def usual_cos_f32(x: Any) -> Any:
    """The cosine of what is not far."""
    r, n = near_f32(x)
    return signed_f32(folded_f32(r, n + 1), (n + 1) << 30), ~(fabs(x) < NEAR[F32])


@usually(usual_sin_f32)
def sin_f32(x: Any) -> Any:
    """sin(x), for every x.

    Worst error measured: 1.58 ulp.
    """
    r, n = reduced_f32(float64(x))
    return select(fabs(x) < SMALL_F32, x, signed_f32(folded_f32(float32(r), n), int32(n) << 30))


@usually(usual_cos_f32)
def cos_f32(x: Any) -> Any:
    """cos(x) = sin(x + π/2), for every x.

    Worst error measured: 1.57 ulp.
    """
    r, n = reduced_f32(float64(x))
    return signed_f32(folded_f32(float32(r), n + 1), int32(n + 1) << 30)


def usual_tan_f32(x: Any) -> Any:
    """The tangent of what is not far; of -0, and of what counts as zero, x itself."""
    return select(x == ZERO_F32, x, tangent_f32(*near_sum_f32(x))), ~(fabs(x) < NEAR[F32])


@usually(usual_tan_f32)
def tan_f32(x: Any) -> Any:
    """tan(x), for every x: -1 / tan(r) in odd quadrants.

    Worst error measured: 1.54 ulp.
    """
    r, n = reduced_f32(float64(x))
    z = r * r
    tangent = fma(r * z, horner(z, TAN_WIDE_F32), r)
    even = (n & 1) == 0
    found = select(even, tangent, -1.0) / select(even, 1.0, tangent)
    return select(fabs(x) < SMALL_F32, x, float32(found))


def usual_sin_f64(x: Any) -> Any:
    """The sine of what is not far; of -0, and of what counts as zero, x itself."""
    r, rest, n = near_sum_f64(x)
    return select(x == 0.0, x, signed_f64(folded_f64(r, rest, n), n << 62)), ~(fabs(x) < NEAR[F64])


def usual_cos_f64(x: Any) -> Any:
    """The cosine of what is not far."""
    r, rest, n = near_sum_f64(x)
    return signed_f64(folded_f64(r, rest, n + 1), (n + 1) << 62), ~(fabs(x) < NEAR[F64])


@usually(usual_sin_f64)
def sin_f64(x: Any) -> Any:
    """sin(x), for every x.

    Worst error measured: 0.78 ulp.
    """
    r, rest, n = reduced_f64(x)
    return select(fabs(x) < SMALL_F64, x, signed_f64(folded_f64(r, rest, n), n << 62))


@usually(usual_cos_f64)
def cos_f64(x: Any) -> Any:
    """cos(x) = sin(x + π/2), for every x.

    Worst error measured: 0.76 ulp.
    """
    r, rest, n = reduced_f64(x)
    return signed_f64(folded_f64(r, rest, n + 1), (n + 1) << 62)


def usual_tan_f64(x: Any) -> Any:
    """The tangent of what is not far; of -0, and of what counts as zero, x itself."""
    return select(x == 0.0, x, tangent_f64(*near_sum_f64(x))), ~(fabs(x) < NEAR[F64])


@usually(usual_tan_f64)
def tan_f64(x: Any) -> Any:
    """tan(x), for every x.

    Worst error measured: 1.25 ulp.
    """
    r, rest, n = reduced_f64(x)
    return select(fabs(x) < SMALL_F64, x, tangent_f64(r, rest, n))
