"""erf and erfc.

erf(x) = x + x p(x²) up to |x| = 1, and 1 - exp(-p(|x|)) beyond. In float64, erfc(a) = exp(-a²) g(t) / (1 + 2a) for
a >= 3/4, where g, which stays between 1 and 1.3, is a polynomial in t = (a - 4) / (a + 4) (M. M. Shepherd and J. G.
Laframboise, Mathematics of Computation 36, 1981). In float32 it is exp(-a²) u H(u) for all a >= 0, u = 3 / (3 + a): one
division, and no other polynomial where a is small. The polynomials are our own minimax polynomials (`coefficients.py`).
"""

from __future__ import annotations

from typing import Any

from graphopt.backends.numba.vecmath import coefficients
from graphopt.backends.numba.vecmath.exponential import reduced_f32, reduced_f64, remainder_f32
from graphopt.backends.numba.vecmath.intrinsics import copysign, fabs, float32, fma, paired, select
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

SHARE = float32(0.1816), float32(0.9207)
"""By how much exp(a²) erfc(a) changes with u, relative to what is left of the division: a line in u, within 0.04."""


def complement(a: Any) -> Any:
    """erfc(a) for a >= 3/4 in float64."""
    first, first_lost, *rest = coefficients.ERFC_F64
    a = select(a > 28.0, 28.0, a)
    t = (a - 4.0) / (a + 4.0)
    h = paired(t, rest)
    g = fma(t, h, first)
    g_lost = fma(t, h, first - g) + first_lost
    # The quotient g / (1 + 2a), with what its division, which waits for no other, and the sum 1 + 2a leave.
    below, below_lost = fast_two_sum(2.0 * a, 1.0)
    inverse = 1.0 / below
    quotient = g * inverse
    left = (fma(-quotient, below_lost, fma(-quotient, below, g)) + g_lost) * inverse
    # exp(-a²) - 1, with what rounding a² leaves.
    square, square_lost = two_product(a, a)
    r, r_lost, q, n = reduced_f64(-square)
    p, p_lost = fast_two_sum(r, r * r * q)
    p_lost = p_lost + (r_lost - fma(p, square_lost, square_lost))
    return scaled_f64(quotient + fma(quotient, p, fma(quotient, p_lost, left)), n)


def excess_in(real: Real) -> Any:
    """x ↦ erf(x) / x - 1 for |x| <= 1."""
    polynomial = coefficients.ERF_F32 if real is F32 else coefficients.ERF_F64

    def excess(x: Any) -> Any:
        return paired(x * x, polynomial)

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

        Worst error measured: 1.28 ulp in float32, 0.95 ulp in float64.
        """
        size = fabs(x)
        held = select(size > largest, largest, size)
        r, _, q, n = reduced(-paired(held, polynomial))
        scale = power_of_two(n)
        far = (one - scale) - scale * fma(r * r, q, r)
        return copysign(select(size < one, fma(size, excess(size), size), far), x)

    return erf


erf_f32, erf_f64 = erf_in(F32), erf_in(F64)


def erfc_f32(x: Any) -> Any:
    """erfc(x) = exp(-a²) u H(u), a = |x| and u = 3 / (3 + a), H(1) = 1; 2 - erfc(-x) for negative x.

    What is left of the division, and what rounding 3 + a and a² loses, is added to the exponent. In the product and the
    last two steps of H, what rounding loses is kept to first order.
    Worst error measured: 1.98 ulp.
    """
    two, three, largest = float32(2), float32(3), float32(10.5)
    first, first_lost, rest = coefficients.ERFC_F32[0], coefficients.ERFC_F32[1], coefficients.ERFC_F32[2:]
    size = fabs(x)
    a = select(size > largest, largest, size)
    below, below_lost = fast_two_sum(three, a)
    u = three / below
    left = fma(-u, below_lost, fma(-u, below, three))  # of 3, once u has been taken as often as 3 + a
    share = fma(u, SHARE[1], SHARE[0])
    v = u - float32(0.5)
    inner = paired(v, rest[1:])
    h = fma(v, inner, rest[0])
    h_lost = fma(v, inner, rest[0] - h)
    g = fma(v, h, first)
    g_lost = fma(v, h_lost, fma(v, h, first - g) + first_lost)
    product = u * g
    product_lost = fma(u, g_lost, fma(u, g, -product))
    square, square_lost = two_product(a, a)
    r, n = remainder_f32(-square)
    more = fma(left, share, -square_lost)
    total = r + more
    p = r + fma(total * total, paired(total, coefficients.EXP_F32), more)
    far = scaled_f32(product + fma(product, p, product_lost), n)
    return select(x < float32(0), two - far, far)


def erfc_f64(x: Any) -> Any:
    """erfc(x) = (1 - x) - x p(x²) up to |x| = 3/4; 2 - erfc(-x) for negative x beyond.

    What rounding loses of each factor of the rest is kept to first order.
    Worst error measured: 1.61 ulp.
    """
    size = fabs(x)
    far = complement(size)
    far = select(x < 0.0, 2.0 - far, far)
    return select(size < 0.75, fma(-x, excess_f64(x), 1.0 - x), far)
