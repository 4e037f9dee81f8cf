"""tanh, sinh and cosh.

All of them come from the exponential function, as in Cephes (S. L. Moshier, 1989), but for sinh and, in float32, tanh
near zero, which are x + x³ p(x²) with our own minimax polynomials (`coefficients.py`).
"""

from __future__ import annotations

from typing import Any

from graphopt.backends.numba.vecmath import coefficients
from graphopt.backends.numba.vecmath.exponential import half_exp_f32, half_exp_f64, reduced_f64
from graphopt.backends.numba.vecmath.intrinsics import (
    copysign,
    fabs,
    float32,
    float64,
    fma,
    horner,
    select,
)
from graphopt.backends.numba.vecmath.real import (
    F32,
    F64,
    LN2,
    Real,
    fast_two_sum,
    nearest_integer_f32,
    power_of_two_f32,
    power_of_two_f64,
)


def tanh_f32(x: Any) -> Any:
    """tanh(x), from 0.55 on 1 - 1 / (h + 1/2) with h = e**2x / 2 = 2**n (1/2 + r + r² p(r)), below a polynomial.

    Worst error measured: 1.57 ulp.
    """
    zero, half, one, border, largest = (float32(number) for number in (0, 0.5, 1, 0.55, 10))
    size = fabs(x)
    z = x * x
    near = fma(x * z, horner(z, coefficients.TANH_F32), x)
    held = select(size > largest, largest, size)
    n, count = nearest_integer_f32(held, F32.nearest(2 / LN2))
    r = fma(-n, F32.nearest(LN2 / 2), held)  # what ln 2 lacks matters less the greater n is
    scaled = horner(r, (half, one, *coefficients.TANH_EXP_F32))
    far = copysign(one - one / fma(power_of_two_f32(count), scaled, half), x)
    found = select(size > border, far, near)  # near where x is NaN
    return select(x == zero, x, found)  # denormals where they count as zero


def tanh_f64(x: Any) -> Any:
    """tanh(x) = h / (h + 1) with h = (e**2x - 1) / 2 = s (e**r - 1) + (s - 1/2), where s = 2**(n - 1).

    1 / (h + 1) is 1 - tanh(x), by which what rounding the sum loses is corrected.
    Worst error measured: 1.96 ulp.
    """
    half, one, two, largest, many = (float64(number) for number in (0.5, 1, 2, 20, 2.0**F64.mantissa))
    size = fabs(x)
    r, _, q, n = reduced_f64(two * select(size > largest, largest, size))
    s = power_of_two_f64(n - 1)
    h = fma(s, fma(r * r, q, r), s - half)
    below, lost = fast_two_sum(one, h)  # exact where h is above one, too, up to where one is its last bit
    lost = select(h < many, lost, float64(0))
    found = h / below
    return select(x == float64(0), x, copysign(fma(fma(-found, found, found), -lost, found), x))


def sinh_in(real: Real) -> Any:
    """sinh in a format."""
    one, quarter = real.floating(1), real.floating(0.25)
    polynomial = coefficients.SINH_F32 if real is F32 else coefficients.SINH_F64
    half_exp = half_exp_f32 if real is F32 else half_exp_f64

    def sinh(x: Any) -> Any:
        """sinh(x), from 1 on as h - 1/(4h) with h = e**x / 2.

        Worst error measured: 1.62 ulp in float32, 1.59 ulp in float64.
        """
        size = fabs(x)
        z = size * size
        near = fma(size * z, horner(z, polynomial), size)
        half = half_exp(size)
        return copysign(select(size < one, near, half - quarter / half), x)

    return sinh


sinh_f32, sinh_f64 = sinh_in(F32), sinh_in(F64)


def cosh_in(real: Real) -> Any:
    """cosh in a format."""
    quarter = real.floating(0.25)
    half_exp = half_exp_f32 if real is F32 else half_exp_f64

    def cosh(x: Any) -> Any:
        """cosh(x) = h + 1/(4h) with h = e**|x| / 2.

        Worst error measured: 1.44 ulp in float32, 1.35 ulp in float64.
        """
        half = half_exp(fabs(x))
        return half + quarter / half

    return cosh


cosh_f32, cosh_f64 = cosh_in(F32), cosh_in(F64)
