"""log, log1p and log2.

All of them write the argument as 2**k m with m from √½ to √2 and f = m - 1, and log(1 + f) as fdlibm does (e_log.c, Sun
Microsystems, 1993): with s = f / (2 + f), log(1 + f) = f - (f²/2 - s (f²/2 + R)), R = s² (2 atanh(s) - 2 s) / s³, the
last factor by our own minimax polynomial in s² (`coefficients.py`).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from graphopt.backends.numba.vecmath import coefficients
from graphopt.backends.numba.vecmath.intrinsics import fma, from_bits, horner, int32, select, to_bits
from graphopt.backends.numba.vecmath.real import F32, F64, LN2, Real, fast_two_sum, power_of_two_f32, power_of_two_f64


def normalized_in(real: Real) -> Any:
    """x ↦ f, k as integer and as number, with x = 2**k (1 + f) and 1 + f from √½ to √2, for finite x > 0."""
    floating, integer, mantissa = real.floating, real.integer, real.mantissa
    smallest, lift = floating(2.0 ** (1 - real.bias)), floating(2.0 ** (mantissa + 1))
    lifted = mantissa + 1
    one = floating(1)
    root_half = real.bits(np.sqrt(floating(0.5)))

    def normalized(x: Any) -> Any:
        denormal = x < smallest
        bits = to_bits(select(denormal, x * lift, x))
        k = integer(integer(bits - root_half) >> mantissa)
        f = from_bits(integer(bits - integer(k << mantissa))) - one
        k = select(denormal, integer(k - lifted), k)
        return f, k, floating(int32(k))  # from 32 bits: few processors convert 64 at a time

    return normalized


normalized_f32, normalized_f64 = normalized_in(F32), normalized_in(F64)


def mantissa_in(real: Real) -> Any:
    """x ↦ f, k as number, with x = 2**k (1 + f) and 1 + f from √½ to √2, for finite x > 0 that are not denormal."""
    floating, mantissa = real.floating, real.mantissa
    one, root_half = floating(1), real.bits(np.sqrt(floating(0.5)))

    def of(x: Any) -> Any:
        bits = to_bits(x)
        k = (bits - root_half) >> mantissa
        return from_bits(bits - (k << mantissa)) - one, floating(int32(k))

    return of


mantissa_f32, mantissa_f64 = mantissa_in(F32), mantissa_in(F64)


def tail_in(real: Real) -> Any:
    """f ↦ f²/2 and s (f²/2 + R): log(1 + f) is f less the first, plus the second."""
    half, two = real.floating(0.5), real.floating(2)
    polynomial = coefficients.LOG_F32 if real is F32 else coefficients.LOG_F64

    def tail(f: Any) -> Any:
        s = f / (two + f)
        z = s * s
        halved = half * f * f
        return halved, s * fma(z, horner(z, polynomial), halved)

    return tail


tail_f32, tail_f64 = tail_in(F32), tail_in(F64)


def outside_in(real: Real) -> Any:
    """x, its logarithm if it is finite and positive ↦ its logarithm."""
    zero, infinity, nan = real.floating(0), real.floating(np.inf), real.floating(np.nan)

    def outside(x: Any, found: Any) -> Any:
        found = select(x > zero, found, nan)
        found = select(x == zero, -infinity, found)
        return select(x == infinity, infinity, found)

    return outside


outside_f32, outside_f64 = outside_in(F32), outside_in(F64)


def log_in(real: Real) -> Any:
    """The natural logarithm in a format."""
    normalized = normalized_f32 if real is F32 else normalized_f64
    tail = tail_f32 if real is F32 else tail_f64
    outside = outside_f32 if real is F32 else outside_f64
    ln2_high, ln2_low = real.split(LN2)

    def log(x: Any) -> Any:
        """log(x); -inf at zero, NaN below.

        Worst error measured: 0.83 ulp in float32, 0.76 ulp in float64.
        """
        f, _, k = normalized(x)
        halved, rest = tail(f)
        return outside(x, fma(k, ln2_high, f - (halved - fma(k, ln2_low, rest))))

    return log


log_f32, log_f64 = log_in(F32), log_in(F64)


def log_of_sum_in(real: Real) -> Any:
    """u, what rounding lost of it, n ↦ log(2**n (u + lost)); -inf where u is zero, NaN below."""
    integer, largest = real.integer, real.bias - 1
    normalized = normalized_f32 if real is F32 else normalized_f64
    power_of_two = power_of_two_f32 if real is F32 else power_of_two_f64
    tail = tail_f32 if real is F32 else tail_f64
    outside = outside_f32 if real is F32 else outside_f64
    ln2_high, ln2_low = real.split(LN2)

    def log_of_sum(u: Any, lost: Any, n: Any) -> Any:
        f, count, k = normalized(u)
        f = f + lost * power_of_two(integer(-select(count > largest, integer(largest), count)))
        halved, rest = tail(f)
        k = k + n
        return outside(u, fma(k, ln2_high, f - (halved - fma(k, ln2_low, rest))))

    return log_of_sum


log_of_sum_f32, log_of_sum_f64 = log_of_sum_in(F32), log_of_sum_in(F64)


def log1p_in(real: Real) -> Any:
    """log1p in a format."""
    one, zero = real.floating(1), real.floating(0)
    log_of_sum = log_of_sum_f32 if real is F32 else log_of_sum_f64

    def log1p(x: Any) -> Any:
        """log(1 + x): what the addition loses goes into f, which is exact with it where k is zero.

        Worst error measured: 1.39 ulp in float32, 1.37 ulp in float64.
        """
        u = one + x
        lost = select(x > one, one - (u - x), x - (u - one))
        return select(x == zero, x, log_of_sum(u, lost, zero))  # -0 stays

    return log1p


log1p_f32, log1p_f64 = log1p_in(F32), log1p_in(F64)


def log2_in(real: Real) -> Any:
    """The logarithm to base two in a format."""
    normalized = normalized_f32 if real is F32 else normalized_f64
    tail = tail_f32 if real is F32 else tail_f64
    outside = outside_f32 if real is F32 else outside_f64
    log2e_high, log2e_low = real.split(1 / LN2)

    def log2(x: Any) -> Any:
        """log(x) / log(2), where log(1 + f) is a sum of two numbers, and so is 1 / log(2).

        Worst error measured: 0.87 ulp in float32, 0.85 ulp in float64.
        """
        f, _, k = normalized(x)
        halved, rest = tail(f)
        high, low = fast_two_sum(f, -halved)
        low = low + rest
        high, low = fast_two_sum(high, low)
        return outside(x, k + fma(high, log2e_high, fma(high, log2e_low, low * log2e_high)))

    return log2


log2_f32, log2_f64 = log2_in(F32), log2_in(F64)
