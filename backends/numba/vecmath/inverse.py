"""asin, acos, atan and atan2.

asin(x) = x + x³ p(x²) up to |x| = 1/2 and π/2 - 2 asin(√((1 - x) / 2)) beyond, as in fdlibm (e_asin.c, Sun
Microsystems, 1993); atan(x) = x + x³ p(x²) up to 1 and π/2 - atan(1/x) beyond. The polynomials are our own minimax
polynomials (`coefficients.py`), instead of quotients: a division costs as much as a dozen terms.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from graphopt.backends.numba.vecmath import coefficients
from graphopt.backends.numba.vecmath.intrinsics import (
    copysign,
    fabs,
    fma,
    from_bits,
    horner,
    rint,
    select,
    sqrt,
    to_bits,
    uint32,
    uint64,
)
from graphopt.backends.numba.vecmath.real import F32, F64, PI, Real, count_f32, count_f64, fast_two_sum
from graphopt.backends.numba.vecmath.usual import usually


def arcsine_in(real: Real) -> Any:
    """|x| ↦ whether it is up to 1/2; s, s³ p(s²) with s = |x| there and √((1 - |x|) / 2) elsewhere."""
    one, half = real.floating(1), real.floating(0.5)
    polynomial = coefficients.ASIN_F32 if real is F32 else coefficients.ASIN_F64

    def arcsine(size: Any) -> Any:
        near = size <= half
        z = select(near, size * size, (one - size) * half)
        s = select(near, size, sqrt(z))
        return near, s, s * z * horner(z, polynomial)

    return arcsine


arcsine_f32, arcsine_f64 = arcsine_in(F32), arcsine_in(F64)


def asin_in(real: Real) -> Any:
    """asin in a format."""
    zero, two = real.floating(0), real.floating(2)
    arcsine = arcsine_f32 if real is F32 else arcsine_f64
    high, low = real.split(PI / 2)

    def asin(x: Any) -> Any:
        """asin(x); NaN beyond one.

        Worst error measured: 1.08 ulp in float32, 1.08 ulp in float64.
        """
        near, s, rest = arcsine(fabs(x))
        first, lost = fast_two_sum(high, -two * s)
        far = first + fma(-two, rest, low + lost)
        return select(x == zero, x, copysign(select(near, s + rest, far), x))

    return asin


asin_f32, asin_f64 = asin_in(F32), asin_in(F64)


def acos_in(real: Real) -> Any:
    """acos in a format."""
    zero, two = real.floating(0), real.floating(2)
    arcsine = arcsine_f32 if real is F32 else arcsine_f64
    high, low = real.split(PI / 2)

    def acos(x: Any) -> Any:
        """acos(x); NaN beyond one.

        Worst error measured: 1.15 ulp in float32, 1.11 ulp in float64.
        """
        near, s, rest = arcsine(fabs(x))
        signed, signed_rest = copysign(s, x), copysign(rest, x)
        middle = (high - signed) + (low - signed_rest)
        right = two * (s + rest)
        left = fma(-two, s, two * high) + two * (low - rest)
        return select(near, middle, select(x > zero, right, left))

    return acos


acos_f32, acos_f64 = acos_in(F32), acos_in(F64)


def atan_in(real: Real) -> Any:
    """atan in a format."""
    zero, one = real.floating(0), real.floating(1)
    polynomial = coefficients.ATAN_F32 if real is F32 else coefficients.ATAN_F64
    high, low = real.split(PI / 2)

    def atan(x: Any) -> Any:
        """atan(x).

        Worst error measured: 1.44 ulp in float32, 1.20 ulp in float64.
        """
        size = fabs(x)
        far = size > one
        t = select(far, one / size, size)
        z = t * t
        rest = t * z * horner(z, polynomial)
        return select(x == zero, x, copysign(select(far, (high - t) + (low - rest), t + rest), x))

    return atan


atan_f32, atan_f64 = atan_in(F32), atan_in(F64)


def atan2_in(real: Real) -> Any:
    """atan2 in a format."""
    floating, integer = real.floating, real.integer
    zero, one, infinity = floating(0), floating(1), floating(np.inf)
    polynomial = coefficients.ATAN_F32 if real is F32 else coefficients.ATAN_F64
    half_high, half_low = real.split(PI / 2)
    high, low = real.split(PI)
    count = count_f32 if real is F32 else count_f64
    smallest, bits = floating(2.0 ** (1 - real.bias)), uint32 if real is F32 else uint64
    normal = real.bits(smallest)
    lift = real.bias // 2
    up_by, unit = floating(2.0**lift), floating(2.0 ** (lift - real.last))

    def angle(y: Any, x: Any, up: Any, across: Any) -> tuple[Any, Any]:
        """The angle of (x, y), whose sizes are these or in the same proportion, and the quotient that it is made of."""
        steep = up > across
        small, large = select(steep, across, up), select(steep, up, across)
        t = select(large == zero, zero, small / large)
        t = select(small == infinity, one, t)
        z = t * t
        rest = t * z * horner(z, polynomial)
        # In the right half plane without the steep part the angle is t + rest, elsewhere it is taken from π/2 or to it.
        left = copysign(one, x) < zero
        start = select(steep, half_high, select(left, high, zero))
        start_low = select(steep, half_low, select(left, low, zero))
        away = select(steep, select(left, one, -one), select(left, -one, one))
        found = fma(away, t, start) + fma(away, rest, start_low)
        found = select((x == x) & (y == y), found, x + y)
        return copysign(found, y), steep | left | (t >= smallest)

    def is_denormal(size: Any) -> Any:
        return bits(to_bits(size) - 1) < normal - 1

    def usual_atan2(y: Any, x: Any) -> tuple[Any, Any]:
        up, across = fabs(y), fabs(x)
        return angle(y, x, up, across)[0], is_denormal(up) | is_denormal(across)

    def lifted(size: Any) -> Any:
        """A size by a power of two, also of a denormal that counts as zero. A large one becomes infinite, beside which
        a denormal is as little as beside itself."""
        denormal, counted = count(size)
        return select(denormal, counted * unit, size * up_by)

    @usually(usual_atan2)
    def atan2(y: Any, x: Any) -> Any:
        """The angle of the point (x, y): the atan of the smaller by the larger size, then turned by the octant.

        Worst error measured: 1.55 ulp in float32, 1.58 ulp in float64.
        """
        up, across = fabs(y), fabs(x)
        found, is_normal = angle(y, x, lifted(up), lifted(across))
        # So many of the smallest denormals: y / x, with y in these.
        few = from_bits(integer(rint(count(up)[1] / across)))
        return select(is_normal | (found != found), found, copysign(few, y))

    return atan2


atan2_f32, atan2_f64 = atan2_in(F32), atan2_in(F64)
