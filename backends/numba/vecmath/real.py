"""The two formats, and what every function needs of them."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np

from graphopt.backends.numba.vecmath.intrinsics import (
    Kind,
    float32,
    float64,
    fma,
    from_bits,
    int32,
    int64,
    scale,
    scales,
    to_bits,
)


@dataclass(frozen=True)
class Real:
    """A binary floating-point format.

    floating: its type; integer: the signed integer of the same width.
    mantissa: stored bits of the significand; bias: what is added to an exponent.
    """

    floating: Kind
    integer: Kind
    mantissa: int
    bias: int

    @property
    def last(self) -> int:
        """The smallest denormal is 2**-last."""
        return self.bias + self.mantissa - 1

    def split(self, value: Fraction) -> tuple[Any, Any]:
        """A number as the sum of two of this format, the first the nearest."""
        high = self.nearest(value)
        return high, self.nearest(value - Fraction(float(high)))

    def bits(self, value: Any) -> int:
        """The bits of a number of this format, as a signed integer."""
        return int(np.asarray(value).view(self.integer.dtype))

    def nearest(self, value: Fraction) -> Any:
        """The nearest number of this format: a double that is halfway between two float32 is not rounded twice."""
        near = self.floating(float(value))
        around = (np.nextafter(near, self.floating(-np.inf)), near, np.nextafter(near, self.floating(np.inf)))
        return min(around, key=lambda candidate: abs(Fraction(float(candidate)) - value))


F32 = Real(float32, int32, 23, 127)
F64 = Real(float64, int64, 52, 1023)

# 250 bits of each, so that three numbers of 53 bits can be cut from them.
LN2 = Fraction("0.693147180559945309417232121458176568075500134360255254120680009493393621969694715605863326996")
PI = Fraction("3.14159265358979323846264338327950288419716939937510582097494459230781640628620899862803482534")


def count_in(real: Real) -> Any:
    """x ↦ whether it is below the normal numbers, and then of how many of the smallest denormals, for x of no sign.

    By bits: where denormals count as zero they may not be compared, or multiplied by a power of two.
    """
    normal = real.bits(np.finfo(real.floating.dtype).tiny)

    def count(x: Any) -> Any:
        bits = to_bits(x)
        return bits < normal, real.floating(bits)

    return count


count_f32, count_f64 = count_in(F32), count_in(F64)


def two_sum(a: Any, b: Any) -> Any:
    """The sum and what rounding lost of it, exactly (Knuth)."""
    total = a + b
    part = total - a
    return total, (a - (total - part)) + (b - part)


def fast_two_sum(a: Any, b: Any) -> Any:
    """The same where |a| >= |b| or a is zero (Dekker)."""
    total = a + b
    return total, b - (total - a)


def two_product(a: Any, b: Any) -> Any:
    """The product and what rounding lost of it, exactly."""
    product = a * b
    return product, fma(a, b, -product)


def power_of_two_in(real: Real) -> Any:
    """n ↦ 2**n for n from 1 - bias to bias; 0 for -bias."""
    integer, mantissa, bias = real.integer, real.mantissa, real.bias

    def power_of_two(n: Any) -> Any:
        return from_bits(integer((n + bias) << mantissa))

    return power_of_two


power_of_two_f32, power_of_two_f64 = power_of_two_in(F32), power_of_two_in(F64)


def scaled_in(real: Real) -> Any:
    """(p, n) ↦ p * 2**n, rounded once even where the result is denormal, for |n| up to twice the bias less two."""
    integer, power_of_two = real.integer, power_of_two_in(real)

    def scaled(p: Any, n: Any) -> Any:
        if scales():
            return scale(p, n)
        half = integer(n >> 1)
        return p * power_of_two(half) * power_of_two(integer(n - half))

    return scaled


scaled_f32, scaled_f64 = scaled_in(F32), scaled_in(F64)


def nearest_integer_in(real: Real) -> Any:
    """x, factor ↦ the integer nearest to their product, as a number of the format and as an integer.

    The product is less than 2**(mantissa - 2). By adding 1.5 * 2**mantissa, whose last bit is one: no conversion, which
    would have no defined value for NaN.
    """
    integer = real.integer
    magic = real.floating(1.5 * 2.0**real.mantissa)
    bits = real.bits(magic)

    def nearest_integer(x: Any, factor: Any = None) -> Any:
        shifted = x + magic if factor is None else fma(x, factor, magic)
        return shifted - magic, integer(to_bits(shifted) - bits)

    return nearest_integer


nearest_integer_f32, nearest_integer_f64 = nearest_integer_in(F32), nearest_integer_in(F64)
