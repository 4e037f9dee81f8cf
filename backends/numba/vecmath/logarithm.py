"""log, log1p and log2.

All of them write the argument as 2**k m with m from √½ to √2 and f = m - 1. In float32 log(1 + f) - f is f² times a
polynomial. In float64 it is as fdlibm has it (e_log.c, Sun Microsystems, 1993): with s = f / (2 + f),
log(1 + f) = f - (f²/2 - s (f²/2 + R)), R = s² (2 atanh(s) - 2 s) / s³, the last factor by a polynomial too. The
polynomials are our own (`coefficients.py`).

All but denormal numbers have a short way: zero and negative ones too, for `where(x > 0, log(x), 0)`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from graphopt.backends.numba.vecmath import coefficients
from graphopt.backends.numba.vecmath.intrinsics import (
    fma,
    from_bits,
    horner,
    int32,
    paired,
    select,
    to_bits,
    uint32,
    uint64,
)
from graphopt.backends.numba.vecmath.real import (
    F32,
    F64,
    LN2,
    Real,
    count_f32,
    count_f64,
    fast_two_sum,
    power_of_two_f32,
    power_of_two_f64,
)
from graphopt.backends.numba.vecmath.usual import usually


def normalized_in(real: Real) -> Any:
    """x ↦ f, k as integer and as number, with x = 2**k (1 + f) and 1 + f from √½ to √2, for finite x > 0."""
    floating, integer, mantissa = real.floating, real.integer, real.mantissa
    one, count = floating(1), count_f32 if real is F32 else count_f64
    root_half = real.bits(np.sqrt(floating(0.5)))

    def normalized(x: Any) -> Any:
        denormal, counted = count(x)
        bits = to_bits(select(denormal, counted, x))
        k = integer(integer(bits - root_half) >> mantissa)
        f = from_bits(integer(bits - integer(k << mantissa))) - one
        k = select(denormal, integer(k - real.last), k)
        return f, k, floating(int32(k))  # from 32 bits: few processors convert 64 at a time

    return normalized


normalized_f32, normalized_f64 = normalized_in(F32), normalized_in(F64)


def mantissa_in(real: Real) -> Any:
    """x ↦ f, k as number, 2**-k, with x = 2**k (1 + f) and 1 + f from √½ to √2, for finite x > 0 that are not denormal.

    2**-k is right for k below the bias.
    """
    floating, mantissa = real.floating, real.mantissa
    one, root_half = floating(1), real.bits(np.sqrt(floating(0.5)))
    bits_of_one = real.bits(one)

    def of(x: Any) -> Any:
        bits = to_bits(x)
        k = (bits - root_half) >> mantissa
        power = k << mantissa
        return from_bits(bits - power) - one, floating(int32(k)), from_bits(bits_of_one - power)

    return of


mantissa_f32, mantissa_f64 = mantissa_in(F32), mantissa_in(F64)


def is_denormal_in(real: Real) -> Any:
    """x ↦ whether it is positive and below the normal numbers. By bits, as in `count_in`."""
    unsigned = uint32 if real is F32 else uint64
    normal = real.bits(np.finfo(real.floating.dtype).tiny)

    def is_denormal(x: Any) -> Any:
        return unsigned(to_bits(x) - 1) < normal - 1

    return is_denormal


is_denormal_f32, is_denormal_f64 = is_denormal_in(F32), is_denormal_in(F64)


def tail_f64(f: Any) -> Any:
    """f ↦ f²/2 and s (f²/2 + R): log(1 + f) is f less the first, plus the second."""
    s = f / (2.0 + f)
    z = s * s
    halved = 0.5 * f * f
    return halved, s * fma(z, horner(z, coefficients.LOG_F64), halved)


def beyond_f32(f: Any, low: Any) -> Any:
    """f, a small number ↦ log(1 + f) - f and that number."""
    return fma(f * f, paired(f, coefficients.LOG_F32), low)


def beyond_f64(f: Any, low: Any) -> Any:
    """The same in float64."""
    halved, rest = tail_f64(f)
    return (rest + low) - halved


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
    mantissa = mantissa_f32 if real is F32 else mantissa_f64
    beyond = beyond_f32 if real is F32 else beyond_f64
    outside = outside_f32 if real is F32 else outside_f64
    is_denormal = is_denormal_f32 if real is F32 else is_denormal_f64
    ln2_high, ln2_low = real.split(LN2)

    def of_parts(f: Any, k: Any) -> Any:
        return fma(k, ln2_high, f + beyond(f, k * ln2_low))

    def usual_log(x: Any) -> Any:
        f, k, _ = mantissa(x)
        return outside(x, of_parts(f, k)), is_denormal(x)

    @usually(usual_log)
    def log(x: Any) -> Any:
        """log(x); -inf at zero, NaN below.

        Worst error measured: 0.90 ulp in float32, 0.76 ulp in float64.
        """
        f, _, k = normalized(x)
        return outside(x, of_parts(f, k))

    return log


log_f32, log_f64 = log_in(F32), log_in(F64)


def usual_log_of_sum_in(real: Real) -> Any:
    """u, what rounding lost of it ↦ log(u + lost) where neither u nor its reciprocal is denormal, and u is positive."""
    mantissa = mantissa_f32 if real is F32 else mantissa_f64
    beyond = beyond_f32 if real is F32 else beyond_f64
    ln2_high, ln2_low = real.split(LN2)

    def usual_log_of_sum(u: Any, lost: Any) -> Any:
        f, k, down = mantissa(u)
        f = fma(lost, down, f)
        return fma(k, ln2_high, f + beyond(f, k * ln2_low))

    return usual_log_of_sum


usual_log_of_sum_f32, usual_log_of_sum_f64 = usual_log_of_sum_in(F32), usual_log_of_sum_in(F64)


def log_of_sum_in(real: Real) -> Any:
    """u, what rounding lost of it, n ↦ log(2**n (u + lost)); -inf where u is zero, NaN below."""
    integer, largest = real.integer, real.bias - 1
    normalized = normalized_f32 if real is F32 else normalized_f64
    power_of_two = power_of_two_f32 if real is F32 else power_of_two_f64
    beyond = beyond_f32 if real is F32 else beyond_f64
    outside = outside_f32 if real is F32 else outside_f64
    ln2_high, ln2_low = real.split(LN2)

    def log_of_sum(u: Any, lost: Any, n: Any) -> Any:
        f, count, k = normalized(u)
        f = f + lost * power_of_two(integer(-select(count > largest, integer(largest), count)))
        k = k + n
        return outside(u, fma(k, ln2_high, f + beyond(f, k * ln2_low)))

    return log_of_sum


log_of_sum_f32, log_of_sum_f64 = log_of_sum_in(F32), log_of_sum_in(F64)


def log1p_in(real: Real) -> Any:
    """log1p in a format."""
    one, zero = real.floating(1), real.floating(0)
    log_of_sum = log_of_sum_f32 if real is F32 else log_of_sum_f64
    usual_log_of_sum = usual_log_of_sum_f32 if real is F32 else usual_log_of_sum_f64
    outside = outside_f32 if real is F32 else outside_f64
    many = real.floating(2.0 ** (real.bias - 1))  # from here on reciprocals are denormal

    def summed(x: Any) -> Any:
        u = one + x
        return u, select(x > one, one - (u - x), x - (u - one))

    def usual_log1p(x: Any) -> Any:
        u, lost = summed(x)
        return select(x == zero, x, outside(u, usual_log_of_sum(u, lost))), u >= many

    @usually(usual_log1p)
    def log1p(x: Any) -> Any:
        """log(1 + x): what the addition loses goes into f, which is exact with it where k is zero.

        Worst error measured: 1.51 ulp in float32, 1.37 ulp in float64.
        """
        u, lost = summed(x)
        return select(x == zero, x, log_of_sum(u, lost, zero))  # -0 stays

    return log1p


log1p_f32, log1p_f64 = log1p_in(F32), log1p_in(F64)


def log2_of_parts_f32(f: Any, k: Any) -> Any:
    """f, k ↦ k + log2(1 + f), which is f / ln(2) and f² times a polynomial."""
    return k + fma(f, LOG2E_F32[0], f * fma(f, paired(f, coefficients.LOG2_F32), LOG2E_F32[1]))


def log2_of_parts_f64(f: Any, k: Any) -> Any:
    """The same, log(1 + f) as a sum of two numbers, and so is 1 / log(2)."""
    halved, rest = tail_f64(f)
    high, low = fast_two_sum(f, -halved)
    low = low + rest
    high, low = fast_two_sum(high, low)
    return k + fma(high, LOG2E_F64[0], fma(high, LOG2E_F64[1], low * LOG2E_F64[0]))


LOG2E_F32, LOG2E_F64 = F32.split(1 / LN2), F64.split(1 / LN2)


def log2_in(real: Real) -> Any:
    """The logarithm to base two in a format."""
    normalized = normalized_f32 if real is F32 else normalized_f64
    mantissa = mantissa_f32 if real is F32 else mantissa_f64
    of_parts = log2_of_parts_f32 if real is F32 else log2_of_parts_f64
    outside = outside_f32 if real is F32 else outside_f64
    is_denormal = is_denormal_f32 if real is F32 else is_denormal_f64

    def usual_log2(x: Any) -> Any:
        f, k, _ = mantissa(x)
        return outside(x, of_parts(f, k)), is_denormal(x)

    @usually(usual_log2)
    def log2(x: Any) -> Any:
        """log(x) / log(2).

        Worst error measured: 1.56 ulp in float32, 0.85 ulp in float64.
        """
        f, _, k = normalized(x)
        return outside(x, of_parts(f, k))

    return log2


log2_f32, log2_f64 = log2_in(F32), log2_in(F64)
