"""exp, exp2, expm1 and the logistic function.

All of them write the argument as n ln 2 + r with |r| at most ln(2) / 2 (Cody and Waite, with fma: n times the first
part of ln 2 is exact), and exp(r) - 1 as r + r² q(r) with our own minimax polynomial q (`coefficients.py`). The factor
2**n is built from bits and multiplied in two steps, so that denormal results are rounded once and large ones overflow
where they should; some processors have one instruction for that.
"""

from __future__ import annotations

from typing import Any

from graphopt.backends.numba.vecmath import coefficients
from graphopt.backends.numba.vecmath.intrinsics import fabs, fma, paired, select
from graphopt.backends.numba.vecmath.real import (
    F32,
    F64,
    LN2,
    Real,
    fast_two_sum,
    nearest_integer_f32,
    nearest_integer_f64,
    power_of_two_f32,
    power_of_two_f64,
    scaled_f32,
    scaled_f64,
)


def remainder_f32(x: Any) -> Any:
    """r and n of `reduced_in` alone."""
    ln2_high, ln2_low = F32.split(LN2)
    n, count = nearest_integer_f32(x, F32.nearest(1 / LN2))
    return fma(-n, ln2_low, fma(-n, ln2_high, x)), count


def reduced_in(real: Real) -> Any:
    """x ↦ r, what rounding lost of it, q(r), n for finite x that do not overflow n.

    x = n ln 2 + r + lost, exp(r) - 1 = r + r² q(r). What was lost matters to few.
    """
    polynomial = coefficients.EXP_F32 if real is F32 else coefficients.EXP_F64
    nearest_integer = nearest_integer_f32 if real is F32 else nearest_integer_f64
    ln2_high, ln2_low = real.split(LN2)
    log2e = real.nearest(1 / LN2)

    def reduced(x: Any) -> Any:
        n, count = nearest_integer(x, log2e)
        exact = fma(-n, ln2_high, x)
        r = fma(-n, ln2_low, exact)
        return r, fma(-n, ln2_low, exact - r), paired(r, polynomial), count

    return reduced


reduced_f32, reduced_f64 = reduced_in(F32), reduced_in(F64)


def clamped_in(real: Real) -> Any:
    """x ↦ x held where exp has neither overflowed for long nor vanished; NaN stays NaN."""
    low, high = real.floating(-105 if real is F32 else -747), real.floating(90 if real is F32 else 711)

    def clamped(x: Any) -> Any:
        x = select(x < low, low, x)
        return select(x > high, high, x)

    return clamped


clamped_f32, clamped_f64 = clamped_in(F32), clamped_in(F64)


def exp_in(real: Real) -> Any:
    """exp in a format."""
    one = real.floating(1)
    clamped = clamped_f32 if real is F32 else clamped_f64
    reduced = reduced_f32 if real is F32 else reduced_f64
    scaled = scaled_f32 if real is F32 else scaled_f64

    def exp(x: Any) -> Any:
        """e**x.

        Worst error measured: 1.00 ulp in float32, 0.97 ulp in float64.
        """
        r, _, q, n = reduced(clamped(x))
        return scaled(one + fma(r * r, q, r), n)

    return exp


exp_f32, exp_f64 = exp_in(F32), exp_in(F64)


def half_exp_in(real: Real) -> Any:
    """exp(x) / 2, which overflows later than exp."""
    one, integer = real.floating(1), real.integer
    clamped = clamped_f32 if real is F32 else clamped_f64
    reduced = reduced_f32 if real is F32 else reduced_f64
    scaled = scaled_f32 if real is F32 else scaled_f64

    def half_exp(x: Any) -> Any:
        r, _, q, n = reduced(clamped(x))
        return scaled(one + fma(r * r, q, r), integer(n - 1))

    return half_exp


half_exp_f32, half_exp_f64 = half_exp_in(F32), half_exp_in(F64)


def exp2_in(real: Real) -> Any:
    """exp2 in a format."""
    one = real.floating(1)
    low, high = real.floating(-152 if real is F32 else -1077), real.floating(129 if real is F32 else 1025)
    polynomial = coefficients.EXP_F32 if real is F32 else coefficients.EXP_F64
    nearest_integer = nearest_integer_f32 if real is F32 else nearest_integer_f64
    scaled = scaled_f32 if real is F32 else scaled_f64
    ln2 = real.nearest(LN2)

    def exp2(x: Any) -> Any:
        """2**x, as exp of (x - n) ln 2 with n the nearest integer; exact where x is whole.

        Worst error measured: 1.01 ulp in float32, 1.03 ulp in float64.
        """
        x = select(x < low, low, x)
        x = select(x > high, high, x)
        n, count = nearest_integer(x)
        r = (x - n) * ln2
        return scaled(one + fma(r * r, paired(r, polynomial), r), count)

    return exp2


exp2_f32, exp2_f64 = exp2_in(F32), exp2_in(F64)


def expm1_in(real: Real) -> Any:
    """expm1 in a format."""
    floating, integer, zero = real.floating, real.integer, real.floating(0)
    low, high = floating(-20 if real is F32 else -40), floating(88.9 if real is F32 else 710)  # n from -57 to bias + 1
    reduced = reduced_f32 if real is F32 else reduced_f64
    power_of_two = power_of_two_f32 if real is F32 else power_of_two_f64

    def expm1(x: Any) -> Any:
        """e**x - 1 = 2 (s r² q + (s r + (s - 1/2))), where s = 2**(n - 1), which overflows later than 2**n.

        Worst error measured: 1.28 ulp in float32, 1.37 ulp in float64.
        """
        held = select(x < low, low, x)
        held = select(held > high, high, held)
        r, _, q, n = reduced(held)
        s = power_of_two(integer(n - 1))
        far = floating(2) * fma(s, r * r * q, fma(s, r, s - floating(0.5)))
        near = fma(r * r, q, r)  # far would lose the last bit of a denormal x
        return select(x == zero, x, select(n == 0, near, far))  # -0 stays, and what counts as zero

    return expm1


expm1_f32, expm1_f64 = expm1_in(F32), expm1_in(F64)


def logistic_in(real: Real) -> Any:
    """The logistic function in a format."""
    zero, one = real.floating(0), real.floating(1)
    exp = exp_f32 if real is F32 else exp_f64

    def logistic(x: Any) -> Any:
        """1 / (1 + e**-x), for negative x as e**x / (1 + e**x), which does not overflow.

        The quotient is corrected by what it and the sum below it leave.
        Worst error measured: 1.48 ulp in float32, 1.41 ulp in float64.
        """
        e = exp(-fabs(x))
        above = select(x < zero, e, one)
        below, below_lost = fast_two_sum(one, e)
        inverse = one / below
        quotient = above * inverse
        left = fma(-quotient, below_lost, fma(-quotient, below, above))
        return fma(left, inverse, quotient)

    return logistic


logistic_f32, logistic_f64 = logistic_in(F32), logistic_in(F64)
