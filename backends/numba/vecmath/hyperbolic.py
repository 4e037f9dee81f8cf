"""tanh, sinh and cosh.

Near zero the odd ones are x + x³ p(x²) with our own minimax polynomial (`coefficients.py`); elsewhere all of them come
from the exponential function, as in Cephes (S. L. Moshier, 1989).
"""

from __future__ import annotations

from typing import Any

from graphopt.backends.numba.vecmath import coefficients
from graphopt.backends.numba.vecmath.exponential import half_exp_f32, half_exp_f64, reduced_f32, reduced_f64
from graphopt.backends.numba.vecmath.intrinsics import copysign, fabs, fma, horner, select
from graphopt.backends.numba.vecmath.real import F32, F64, Real, power_of_two_f32, power_of_two_f64


def tanh_in(real: Real) -> Any:
    """tanh in a format."""
    one, two = real.floating(1), real.floating(2)
    near_below, largest = real.floating(0.625), real.floating(10 if real is F32 else 20)
    polynomial = coefficients.TANH_F32 if real is F32 else coefficients.TANH_F64
    reduced = reduced_f32 if real is F32 else reduced_f64
    power_of_two = power_of_two_f32 if real is F32 else power_of_two_f64

    def tanh(x: Any) -> Any:
        """tanh(x), from 5/8 on as 1 - 2 / (e**2x + 1).

        Worst error measured: 1.31 ulp in float32, 1.26 ulp in float64.
        """
        size = fabs(x)
        z = size * size
        near = fma(size * z, horner(z, polynomial), size)
        r, _, q, n = reduced(two * select(size > largest, largest, size))
        scale = power_of_two(n)
        far = one - two / (fma(scale, fma(r * r, q, r), scale) + one)
        return copysign(select(size < near_below, near, far), x)

    return tanh


tanh_f32, tanh_f64 = tanh_in(F32), tanh_in(F64)


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
