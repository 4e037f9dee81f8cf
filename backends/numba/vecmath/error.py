"""erf and erfc.

erf(x) = x + x p(x²) up to |x| = 1, and 1 - exp(-p(|x|)) beyond. erfc(a) = exp(-a²) g(t) / (1 + 2a) for a >= 3/4, where
g, which stays between 1 and 1.3, is a polynomial in t = (a - c) / (a + c), c = 2 in float32 and 4 in float64 (M. M.
Shepherd and J. G. Laframboise, Mathematics of Computation 36, 1981). The polynomials are our own minimax polynomials
(`coefficients.py`).
"""

from __future__ import annotations

from typing import Any

from graphopt.backends.numba.vecmath import coefficients
from graphopt.backends.numba.vecmath.exponential import reduced_f32, reduced_f64
from graphopt.backends.numba.vecmath.intrinsics import copysign, fabs, fma, horner, select
from graphopt.backends.numba.vecmath.real import (
    F32,
    F64,
    Real,
    fast_two_sum,
    power_of_two_f32,
    power_of_two_f64,
    scaled_f32,
    scaled_f64,
    two_product,
)


def complement_in(real: Real) -> Any:
    """a ↦ erfc(a) for a >= 3/4."""
    one, two = real.floating(1), real.floating(2)
    centre, vanished = real.floating(2 if real is F32 else 4), real.floating(10.5 if real is F32 else 28)
    polynomial = coefficients.ERFC_F32 if real is F32 else coefficients.ERFC_F64
    first, first_lost, rest = polynomial[0], polynomial[1], polynomial[2:]
    reduced = reduced_f32 if real is F32 else reduced_f64
    scaled = scaled_f32 if real is F32 else scaled_f64

    def complement(a: Any) -> Any:
        a = select(a > vanished, vanished, a)
        t = (a - centre) / (a + centre)
        h = horner(t, rest)
        g = fma(t, h, first)
        g_lost = fma(t, h, first - g) + first_lost
        # The quotient g / (1 + 2a), with what its division, which waits for no other, and the sum 1 + 2a leave.
        below, below_lost = fast_two_sum(two * a, one)
        inverse = one / below
        quotient = g * inverse
        left = (fma(-quotient, below_lost, fma(-quotient, below, g)) + g_lost) * inverse
        # exp(-a²) - 1, with what rounding a² leaves.
        square, square_lost = two_product(a, a)
        r, r_lost, q, n = reduced(-square)
        p, p_lost = fast_two_sum(r, r * r * q)
        p_lost = p_lost + (r_lost - fma(p, square_lost, square_lost))
        return scaled(quotient + fma(quotient, p, fma(quotient, p_lost, left)), n)

    return complement


complement_f32, complement_f64 = complement_in(F32), complement_in(F64)


def excess_in(real: Real) -> Any:
    """x ↦ erf(x) / x - 1 for |x| <= 1."""
    polynomial = coefficients.ERF_F32 if real is F32 else coefficients.ERF_F64

    def excess(x: Any) -> Any:
        return horner(x * x, polynomial)

    return excess


excess_f32, excess_f64 = excess_in(F32), excess_in(F64)


def erf_in(real: Real) -> Any:
    """erf in a format."""
    one, largest = real.floating(1), real.floating(4 if real is F32 else 6)
    polynomial = coefficients.ERF_FAR_F32 if real is F32 else coefficients.ERF_FAR_F64
    excess = excess_f32 if real is F32 else excess_f64
    reduced = reduced_f32 if real is F32 else reduced_f64
    power_of_two = power_of_two_f32 if real is F32 else power_of_two_f64

    def erf(x: Any) -> Any:
        """erf(x), beyond one as 1 - exp(-v) with v = -log(erfc(x)).

        Worst error measured: 1.08 ulp in float32, 0.95 ulp in float64.
        """
        size = fabs(x)
        held = select(size > largest, largest, size)
        r, _, q, n = reduced(-horner(held, polynomial))
        scale = power_of_two(n)
        far = (one - scale) - scale * fma(r * r, q, r)
        return copysign(select(size < one, fma(size, excess(size), size), far), x)

    return erf


erf_f32, erf_f64 = erf_in(F32), erf_in(F64)


def erfc_in(real: Real) -> Any:
    """erfc in a format."""
    zero, one, two = real.floating(0), real.floating(1), real.floating(2)
    near_below = real.floating(0.75)
    excess = excess_f32 if real is F32 else excess_f64
    complement = complement_f32 if real is F32 else complement_f64

    def erfc(x: Any) -> Any:
        """erfc(x) = (1 - x) - x p(x²) up to |x| = 3/4; 2 - erfc(-x) for negative x beyond.

        What rounding loses of each factor of the rest is kept to first order.
        Worst error measured: 1.80 ulp in float32, 1.61 ulp in float64.
        """
        size = fabs(x)
        far = complement(size)
        far = select(x < zero, two - far, far)
        return select(size < near_below, fma(-x, excess(x), one - x), far)

    return erfc


erfc_f32, erfc_f64 = erfc_in(F32), erfc_in(F64)
