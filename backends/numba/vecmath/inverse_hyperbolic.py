"""asinh, acosh and atanh.

All of them are log(1 + w), w written so that nothing cancels (W. Kahan, Branch Cuts for Complex Elementary Functions,
1987): what rounding loses of 1 + w goes into the logarithm.
"""

from __future__ import annotations

from typing import Any

from graphopt.backends.numba.vecmath.intrinsics import copysign, fabs, fma, select, sqrt
from graphopt.backends.numba.vecmath.logarithm import (
    log_of_sum_f32,
    log_of_sum_f64,
    usual_log_of_sum_f32,
    usual_log_of_sum_f64,
)
from graphopt.backends.numba.vecmath.real import F32, F64, Real, fast_two_sum, two_sum
from graphopt.backends.numba.vecmath.usual import usually


def log_1p_of_in(real: Real) -> Any:
    """large, x, first, second, little ↦ log(2x) where `large`, elsewhere log(1 + first + second + little)."""
    zero, one = real.floating(0), real.floating(1)
    log_of_sum = log_of_sum_f32 if real is F32 else log_of_sum_f64

    def log_1p_of(large: Any, x: Any, first: Any, second: Any, little: Any) -> Any:
        w, w_lost = two_sum(first, second)
        u, u_lost = two_sum(one, w)
        u, lost = select(large, x, u), select(large, zero, u_lost + (w_lost + little))
        return log_of_sum(u, lost, select(large, one, zero))

    return log_1p_of


log_1p_of_f32, log_1p_of_f64 = log_1p_of_in(F32), log_1p_of_in(F64)


def usual_log_1p_of_in(real: Real) -> Any:
    """first, second, little ↦ log(1 + first + second + little), far from overflow; the first is not the smaller one."""
    one = real.floating(1)
    usual_log_of_sum = usual_log_of_sum_f32 if real is F32 else usual_log_of_sum_f64

    def usual_log_1p_of(first: Any, second: Any, little: Any) -> Any:
        w, w_lost = fast_two_sum(first, second)
        u, u_lost = two_sum(one, w)
        return usual_log_of_sum(u, u_lost + (w_lost + little))

    return usual_log_1p_of


usual_log_1p_of_f32, usual_log_1p_of_f64 = usual_log_1p_of_in(F32), usual_log_1p_of_in(F64)


def asinh_in(real: Real) -> Any:
    """asinh in a format."""
    zero, one = real.floating(0), real.floating(1)
    limit = real.floating(2.0 ** (13 if real is F32 else 27))
    log_1p_of = log_1p_of_f32 if real is F32 else log_1p_of_f64
    usual_log_1p_of = usual_log_1p_of_f32 if real is F32 else usual_log_1p_of_f64

    def second(size: Any) -> Any:
        return size * size / (one + sqrt(fma(size, size, one)))

    def usual_asinh(x: Any) -> Any:
        size = fabs(x)
        return copysign(usual_log_1p_of(size, second(size), zero), x), ~(size <= limit)

    @usually(usual_asinh)
    def asinh(x: Any) -> Any:
        """asinh(x) = log(1 + |x| + x² / (1 + √(1 + x²))), and log(2 |x|) where 1 / x² is nothing.

        Worst error measured: 1.73 ulp in float32, 1.27 ulp in float64.
        """
        size = fabs(x)
        return copysign(log_1p_of(size > limit, size, size, second(size), zero), x)

    return asinh


asinh_f32, asinh_f64 = asinh_in(F32), asinh_in(F64)


def acosh_in(real: Real) -> Any:
    """acosh in a format."""
    zero, half, one, two, nan = (real.floating(number) for number in (0, 0.5, 1, 2, "nan"))
    limit = real.floating(2.0 ** (13 if real is F32 else 27))
    log_1p_of = log_1p_of_f32 if real is F32 else log_1p_of_f64
    usual_log_1p_of = usual_log_1p_of_f32 if real is F32 else usual_log_1p_of_f64

    def terms(x: Any) -> Any:
        t = x - one
        square = fma(t, t, two * t)
        root = sqrt(square)
        left = select(root > zero, half * fma(-root, root, square) / root, zero)  # of the root, by its rounding
        return root, t, left

    def usual_acosh(x: Any) -> Any:
        return usual_log_1p_of(*terms(x)), ~((x >= one) & (x <= limit))

    @usually(usual_acosh)
    def acosh(x: Any) -> Any:
        """acosh(x) = log(1 + t + √(t² + 2t)) with t = x - 1, and log(2x) where 1 / x² is nothing; NaN below one.

        Worst error measured: 1.65 ulp in float32, 1.05 ulp in float64.
        """
        return select(x < one, nan, log_1p_of(x > limit, x, *terms(x)))

    return acosh


acosh_f32, acosh_f64 = acosh_in(F32), acosh_in(F64)


def atanh_in(real: Real) -> Any:
    """atanh in a format."""
    zero, half, one, two, nan = (real.floating(number) for number in (0, 0.5, 1, 2, "nan"))
    log_of_sum = log_of_sum_f32 if real is F32 else log_of_sum_f64
    usual_log_of_sum = usual_log_of_sum_f32 if real is F32 else usual_log_of_sum_f64

    def summed(size: Any) -> Any:
        below, below_lost = fast_two_sum(one, -size)
        inverse = one / below
        quotient = two * size * inverse
        left = fma(-quotient, below_lost, fma(-quotient, below, two * size)) * inverse
        u, lost = two_sum(one, quotient)
        return u, lost + left

    def usual_atanh(x: Any) -> Any:
        size = fabs(x)
        return copysign(half * usual_log_of_sum(*summed(size)), x), ~(size < one)

    @usually(usual_atanh)
    def atanh(x: Any) -> Any:
        """atanh(x) = log(1 + 2 |x| / (1 - |x|)) / 2, the quotient with what its division leaves; NaN beyond one.

        Worst error measured: 1.59 ulp in float32, 1.28 ulp in float64.
        """
        size = fabs(x)
        return select(size > one, nan, copysign(half * log_of_sum(*summed(size), zero), x))

    return atanh


atanh_f32, atanh_f64 = atanh_in(F32), atanh_in(F64)
