"""What is left of x when y has been taken from it as often as it goes, with the sign of x: C's fmod, which is exact.

C's takes some bits of the quotient at a time. A quotient of less than 2**mantissa needs no more than one division:
n = floor(|x| / |y|) is right, or one too many where the quotient was rounded up to an integer. Either way |x| - n |y|
is a multiple of the smaller operand's last place and less than |y|: a number of the format, which one fma makes, and so
is what is left when |y| has been given back.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from graphopt.backends.numba.vecmath.intrinsics import copysign, fabs, floor, fma, fmod, select, to_bits
from graphopt.backends.numba.vecmath.real import F32, F64, Real
from graphopt.backends.numba.vecmath.usual import usually


def usual_in(real: Real) -> Any:
    """x, y ↦ what is left, and whether it is not known to be right.

    It is where y is finite, the quotient has fewer bits than a number, and neither operand is so small that what is
    left could be denormal, which may count as zero: then C's is right, which computes on bits.
    """
    floating = real.floating
    most, zero = floating(2.0**real.mantissa), floating(0)
    small = real.bits(floating(2.0 ** (1 - real.bias + real.mantissa)))
    infinity = real.bits(floating(np.inf))

    def usual(x: Any, y: Any) -> tuple[Any, Any]:
        size, by = fabs(x), fabs(y)
        quotient = floor(size / by)
        left = fma(-quotient, by, size)
        left = select(left < zero, left + by, left)
        of_size, of_by = to_bits(size), to_bits(by)
        small_size = (of_size < small) & (of_size != 0)
        odd_by = (of_by < small) | (of_by >= infinity)
        return copysign(left, x), ~(quotient < most) | small_size | odd_by

    return usual


def by_bits(x: Any, y: Any) -> Any:
    """C's. It knows nothing of denormals that count as zero: by them there is no remainder."""
    return select(y == x.dtype.type(0), x.dtype.type(np.nan), fmod(x, y))


@usually(usual_in(F32))
def rem_f32(x: Any, y: Any) -> Any:
    """The remainder of float32; NaN by zero and of infinities."""
    return by_bits(x, y)


@usually(usual_in(F64))
def rem_f64(x: Any, y: Any) -> Any:
    """The remainder of float64; NaN by zero and of infinities."""
    return by_bits(x, y)


def rem(x: Any, y: Any) -> Any:
    """The remainder of two numbers of one dtype."""
    return (rem_f32 if x.dtype == np.float32 else rem_f64)(x, y)
