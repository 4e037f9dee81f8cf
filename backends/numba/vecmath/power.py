"""pow, also with halves as exponents, cbrt and rsqrt."""

from __future__ import annotations

from typing import Any

import numpy as np

from graphopt.backends.numba.vecmath import coefficients
from graphopt.backends.numba.vecmath.intrinsics import (
    copysign,
    fabs,
    float32,
    float64,
    floor,
    fma,
    from_bits,
    horner,
    int32,
    rint,
    select,
    sqrt,
    to_bits,
)
from graphopt.backends.numba.vecmath.logarithm import mantissa_f32, mantissa_f64, normalized_f32, normalized_f64
from graphopt.backends.numba.vecmath.real import (
    F32,
    F64,
    LN2,
    Real,
    count_f32,
    count_f64,
    fast_two_sum,
    nearest_integer_f64,
    power_of_two_f64,
    scaled_f32,
    scaled_f64,
    two_product,
)
from graphopt.backends.numba.vecmath.reciprocal_root import by_estimate
from graphopt.backends.numba.vecmath.usual import usually

TWO_BY_LN2_HIGH, TWO_BY_LN2_LOW = (float(part) for part in F64.split(2 / LN2))
THIRD_HIGH, THIRD_LOW = (float(part) for part in F64.split(LN2 / LN2 / 3))
LN2_F64 = float(LN2)
POW_LOG_F32, POW_EXP_WIDE_F32 = coefficients.POW_LOG_F32, coefficients.POW_EXP_WIDE_F32
POW_EXP_F32 = coefficients.POW_EXP_F32
POW_LOG_F64, EXP_F64 = coefficients.POW_LOG_F64, coefficients.EXP_F64


def special_in(real: Real) -> Any:
    """x, y, |x|**y for finite y and positive finite x ↦ x**y as IEEE 754 has it, also where denormals count as zero."""
    floating = real.floating
    zero, one, half = floating(0), floating(1), floating(0.5)
    infinity, nan = floating(np.inf), floating(np.nan)
    count = count_f32 if real is F32 else count_f64

    def special(x: Any, y: Any, found: Any) -> Any:
        size = fabs(x)
        (_, of_x), (y_is_denormal, of_y) = count(size), count(fabs(y))
        x_is_zero, y_is_zero = of_x == zero, of_y == zero
        down = copysign(one, y) < zero
        found = select(x_is_zero, select(down, infinity, zero), found)
        found = select(size == infinity, select(down, zero, infinity), found)
        found = select(fabs(y) == infinity, select((size > one) ^ down, infinity, zero), found)
        found = select(size == one, one, found)
        whole = (floor(y) == y) & (y_is_zero | ~y_is_denormal)
        odd = whole & (floor(half * y) != half * y)
        negative = copysign(one, x) < zero
        found = select(negative & odd, -found, found)
        defined = ~negative | whole | x_is_zero | (x == -infinity)
        found = select(defined & (x == x) & (y == y), found, nan)
        return select(y_is_zero | (x == one), one, found)

    return special


special_f32, special_f64 = special_in(F32), special_in(F64)


def is_usual_in(real: Real) -> Any:
    """x, y log2 x ↦ whether x is a positive normal number and the result neither overflows nor vanishes by far."""
    smallest, infinity, far = (
        real.floating(2.0 ** (1 - real.bias)),
        real.floating(np.inf),
        real.floating(real.bias + 23),
    )

    def is_usual(x: Any, power: Any) -> Any:
        return (x >= smallest) & (x < infinity) & (fabs(power) < far)

    return is_usual


is_usual_f32, is_usual_f64 = is_usual_in(F32), is_usual_in(F64)


def usual_pow_f32(x: Any, y: Any) -> Any:
    """Powers of positive normal numbers: the logarithm in float64, 2 to the power of what is no integer in float32."""
    f, k, _ = mantissa_f32(x)
    power = float64(y) * log2_wide(f, k)
    n = rint(float32(power))
    r = float32(power - float64(n))
    found = fma(r, horner(r, POW_EXP_F32), np.float32(1))
    return scaled_f32(found, int32(n)), ~is_usual_f32(x, n)


def log2_wide(f: Any, k: Any) -> Any:
    """Two parts of a float32 ↦ its logarithm to base two in float64.

    log2(1 + f) = 2/ln(2) atanh(s), s = f / (2 + f), whose divisor is one of float32 and is corrected.
    """
    near = float64(np.float32(1) / (np.float32(2) + f))
    f = float64(f)
    inverse = fma(fma(-near, 2.0 + f, 1.0), near, near)
    s = f * inverse
    return fma(TWO_BY_LN2_HIGH, s * horner(s * s, POW_LOG_F32), float64(k))


@usually(usual_pow_f32)
def pow_f32(x: Any, y: Any) -> Any:
    """x**y as IEEE 754 has it, by 2**(y log2 |x|) in float64.

    Worst error measured: 1.06 ulp.
    """
    f, _, k = normalized_f32(fabs(x))
    power = float64(y) * log2_wide(f, float32(k))
    power = select(power < -200.0, -200.0, power)
    power = select(power > 200.0, 200.0, power)
    n, count = nearest_integer_f64(power)
    r = power - n
    found = fma(r, horner(r, POW_EXP_WIDE_F32), 1.0) * power_of_two_f64(count)
    return special_f32(x, y, float32(found))


def log2_sum(f: Any, k: Any) -> Any:
    """Two parts of a float64 ↦ its logarithm to base two as the sum of two numbers.

    It is good to about 2**-66: log2(1 + f) = 2/ln(2) (s + s³/3 + s⁵ p(s²)), s = f / (2 + f), where s and the first
    two terms are sums of two.
    """
    below, below_lost = fast_two_sum(2.0, f)
    inverse = 1.0 / below
    s = f * inverse
    s_low = fma(-s, below_lost, fma(-s, below, f)) * inverse
    z, z_low = two_product(s, s)
    z_low = fma(2.0 * s, s_low, z_low)
    third, third_low = two_product(THIRD_HIGH, z)
    third_low = fma(THIRD_HIGH, z_low, fma(THIRD_LOW, z, third_low))
    sum_high, sum_low = fast_two_sum(third, z * z * horner(z, POW_LOG_F64))
    series, series_low = fast_two_sum(1.0, sum_high)
    series_low = series_low + (sum_low + third_low)
    log, log_low = two_product(s, series)
    log_low = log_low + fma(s, series_low, s_low * series)
    scaled, scaled_low = two_product(log, TWO_BY_LN2_HIGH)
    scaled_low = scaled_low + fma(log, TWO_BY_LN2_LOW, log_low * TWO_BY_LN2_HIGH)
    high, low = fast_two_sum(k, scaled)
    return fast_two_sum(high, low + scaled_low)


def exp2_sum(power: Any, low: Any) -> Any:
    """2 to the power of the sum of two numbers, the first from -1100 to 1100."""
    n, count = nearest_integer_f64(power)
    r = ((power - n) + low) * LN2_F64
    return scaled_f64(1.0 + fma(r * r, horner(r, EXP_F64), r), count)


def usual_pow_f64(x: Any, y: Any) -> Any:
    """Powers of positive normal numbers."""
    f, k, _ = mantissa_f64(x)
    high, low = log2_sum(f, k)
    power = y * high
    return exp2_sum(power, fma(y, low, fma(y, high, -power))), ~is_usual_f64(x, power)


@usually(usual_pow_f64)
def pow_f64(x: Any, y: Any) -> Any:
    """x**y as IEEE 754 has it, by 2**(y log2 |x|), with the logarithm as the sum of two numbers.

    Worst error measured: 1.25 ulp.
    """
    f, _, k = normalized_f64(fabs(x))
    high, low = log2_sum(f, k)
    power = y * high
    beyond = fabs(power) > 1100.0
    low = select(beyond, 0.0, fma(y, low, fma(y, high, -power)))
    power = select(power < -1100.0, -1100.0, power)
    power = select(power > 1100.0, 1100.0, power)
    return special_f64(x, y, exp2_sum(power, low))


def half_power_in(real: Real, whole: int, down: bool) -> Any:
    """x ↦ x**(whole + 1/2), or its reciprocal where `down`; whole from 0 to 2."""
    return lower_half_power_in(real, whole) if down else upper_half_power_in(real, whole)


def upper_half_power_in(real: Real, whole: int) -> Any:
    """x ↦ x**(whole + 1/2)."""
    zero, infinity = real.floating(0), real.floating(np.inf)

    def half_power(x: Any) -> Any:
        """By a root and products, none of which leaves the range before the result does.

        Worst error measured: 1.87 ulp in float32, 1.86 ulp in float64.
        """
        root = sqrt(x)
        found = root if whole == 0 else x * root if whole == 1 else (x * x) * root
        return select(x == -infinity, infinity, select(x == zero, zero, found))

    return half_power


def lower_half_power_in(real: Real, whole: int) -> Any:
    """x ↦ x**-(whole + 1/2)."""
    zero, one, infinity = real.floating(0), real.floating(1), real.floating(np.inf)
    exponent = real.floating(whole + 0.5)
    far = 2 * (real.bias // 6)  # from where on what rounding loses of a square is no normal number
    limit, down = real.floating(2.0**far), real.floating(2.0**-far)
    down_of_result = real.floating(2.0 ** -(far * whole + far // 2))

    def half_power(x: Any) -> Any:
        """By products, and near the ends of the range a root and quotients, none of which leaves it before the result
        does.

        Worst error measured: 1.87 ulp in float32, 1.86 ulp in float64.
        """
        if whole == 0:
            return select(x == -infinity, zero, select(x == zero, infinity, one / sqrt(x)))
        # -0.0 becomes 0.0. The root of a reciprocal, which is -0.0 of -inf.
        is_far = x > limit
        x = select(is_far, x * down, x + zero)
        base = one / x
        root = sqrt(base)
        if whole == 1:
            return root / x * select(is_far, down_of_result, one)
        square = base * base
        found = square * root
        # What rounding lost of the reciprocal and of its square, to the first order; NaN where that is not finite.
        lost = exponent * fma(-x, base, one)
        corrected = found + fma(fma(base, base, -square), root, found * lost)
        return select(corrected == corrected, corrected, fabs(found)) * select(is_far, down_of_result, one)

    half_power.__name__ = f"lower_half_power_{whole}"  # by which a module knows it
    return by_estimate(real, whole)(half_power)


HALVES = tuple((whole, down) for whole in (0, 1, 2) for down in (False, True))


def halley_in(real: Real) -> Any:
    """t, x ↦ t nearer to the cube root of x: three times as many digits are right."""
    two = real.floating(2)

    def halley(t: Any, x: Any) -> Any:
        square = t * t
        return fma(-t, fma(square, t, -x) / fma(two * square, t, x), t)

    return halley


halley_f32, halley_f64 = halley_in(F32), halley_in(F64)


def started_in(real: Real) -> Any:
    """x ↦ its cube root to about five bits, from a third of its exponent (W. Kahan, K. C. Ng: fdlibm's s_cbrt.c)."""
    integer = real.integer
    third = np.float32(1 / 3)
    # The upper 32 bits of a float64 suffice: few processors convert 64 at a time.
    omitted, start = (0, 709958130) if real is F32 else (32, 715094163)

    def started(x: Any) -> Any:
        top = int32(to_bits(x) >> omitted)
        guess = int32(float32(top) * third)
        return from_bits(integer(integer(guess + start) << omitted))

    return started


started_f32, started_f64 = started_in(F32), started_in(F64)


def cbrt_in(real: Real) -> Any:
    """The cube root in a format."""
    floating, is_single = real.floating, real is F32
    zero, one, infinity = floating(0), floating(1), floating(np.inf)
    low, high = floating(2.0 ** (2 * real.mantissa - real.bias)), floating(2.0 ** (real.bias - 3))
    # By a power of two that has a cube root, away from where the steps meet denormals or three times x would overflow.
    shift = 16 if is_single else 36
    up, down = floating(8.0**shift), floating(8.0**-shift)
    root_up, root_down = floating(2.0**shift), floating(2.0**-shift)
    # Of the smallest denormal, times a power of two so that what is left has a cube root.
    part = floating(2.0 ** (-real.last % 3))
    root_of_part = floating(2.0 ** (-real.last // 3))
    count = count_f32 if is_single else count_f64
    started, halley = (started_f32, halley_f32) if is_single else (started_f64, halley_f64)

    def root(size: Any) -> Any:
        found = halley(halley(started(size), size), size)
        return found if is_single else halley(found, size)

    def usual_cbrt(x: Any) -> Any:
        size = fabs(x)
        return copysign(root(size), x), ~((size >= low) & (size <= high))

    @usually(usual_cbrt)
    def cbrt(x: Any) -> Any:
        """The cube root, by two or three of Halley's steps, the last of which rounds once.

        Worst error measured: 0.74 ulp in float32, 0.74 ulp in float64.
        """
        size = fabs(x)
        (denormal, counted), tiny, huge = count(size), size < low, size > high
        found = root(select(denormal, counted * part, size * select(tiny, up, select(huge, down, one))))
        found = found * select(denormal, root_of_part, select(tiny, root_down, select(huge, root_up, one)))
        return select((size < infinity) & (counted != zero), copysign(found, x), x)

    return cbrt


cbrt_f32, cbrt_f64 = cbrt_in(F32), cbrt_in(F64)


def rsqrt_in(real: Real) -> Any:
    """The reciprocal square root in a format."""
    one = real.floating(1)

    @by_estimate(real, 0)
    def rsqrt(x: Any) -> Any:
        """1 / √x, by products, and near the ends of the range by the square root and the division of the processor.

        Worst error measured: 1.50 ulp in float32, 1.50 ulp in float64.
        """
        return one / sqrt(x)

    return rsqrt


rsqrt_f32, rsqrt_f64 = rsqrt_in(F32), rsqrt_in(F64)
