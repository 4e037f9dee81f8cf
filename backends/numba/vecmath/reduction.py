"""Range reduction of sin, cos and tan: x = n π/2 + r with |r| at most about π/4.

Where x is not far from zero, by subtracting n times π/2 in three parts (Cody and Waite): with fma the first difference
is exact, for it is a multiple of the last bit of the first part.

For every finite x, after Payne and Hanek (1983): x / 2π is needed up to whole turns only, so the leading bits of
1 / 2π, which give whole turns with the last bit of x, are left out. What is left begins at a bit that depends on the
exponent of x, and is cut into pieces whose products with x are exact, as one number (float32, computed in float64) or
as the sum of two (float64).
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import Any

from graphopt.backends.numba.vecmath.intrinsics import Number, fabs, fma, int64, rint, select, to_bits
from graphopt.backends.numba.vecmath.real import (
    F32,
    F64,
    PI,
    Real,
    fast_two_sum,
    nearest_integer_f32,
    nearest_integer_f64,
    power_of_two_f64,
    two_product,
    two_sum,
)

NEAR = {F32: F32.floating(2.0**16), F64: F64.floating(2.0**27)}
"""Up to where x is near: n has no more than half the bits of a significand there."""


def near_in(real: Real, as_sum: bool) -> Any:
    """x ↦ r, n for |x| < NEAR. as_sum: r as the sum of two numbers, the second what the first loses."""
    nearest_integer = nearest_integer_f32 if real is F32 else nearest_integer_f64
    two_by_pi = real.nearest(2 / PI)
    first = real.nearest(PI / 2)
    second, third = real.split(PI / 2 - Fraction(float(first)))

    def near(x: Any) -> Any:
        n, count = nearest_integer(x, two_by_pi)
        left = fma(-n, first, x)
        if not as_sum:
            return fma(-n, third, fma(-n, second, left)), count
        product, product_lost = two_product(n, second)
        r, lost = two_sum(left, -product)
        return r, fma(-n, third, lost - product_lost), count

    return near


near_f32, near_sum_f32, near_sum_f64 = near_in(F32, False), near_in(F32, True), near_in(F64, True)

BITS = 1300  # of 1 / 2π: up to 954 are left out for the largest float64, and then 265 are used


def turns() -> int:
    """1 / 2π in units of 2**-BITS, from Machin's formula: π = 16 atan(1/5) - 4 atan(1/239)."""
    guard = BITS + 64

    def inverse_atan(n: int) -> int:
        term = total = (1 << guard) // n
        k = 1
        while term:
            term //= -n * n
            k += 2
            total += term // k
        return total

    pi = 16 * inverse_atan(5) - 4 * inverse_atan(239)
    return (1 << (guard + BITS)) // (2 * pi)


TURNS = turns()


def pieces(omitted: int, width: int, count: int) -> list[Fraction]:
    """What is left of 1 / 2π after the bits left out, in pieces of `width` bits, the last with all the rest."""
    rest = Fraction(TURNS % (1 << (BITS - omitted)), 1 << BITS)
    found = []
    for k in range(1, count):
        unit = Fraction(1, 1 << (omitted + k * width))
        piece = rest // unit * unit
        found.append(piece)
        rest -= piece
    return [*found, rest]


# float32: four ranges of exponents. With pieces of 27 bits and x of 24, products are exact, and below 2**52 turns.
STEP = 26
FIRST, SECOND, THIRD, FOURTH = (tuple(map(float, pieces(STEP * k, 27, 3))) for k in range(4))
SECOND_FROM, THIRD_FROM, FOURTH_FROM = (2.0 ** (25 + STEP * k) for k in range(1, 4))
HALF_PI = float(PI / 2)
HALF_PI_HIGH, HALF_PI_LOW = (float(part) for part in F64.split(PI / 2))


def reduced_f32(x: Any) -> Any:
    """A float32 as float64 ↦ r, n. Nearest to a multiple of π/2 comes 2**-29; r is good to 2**-55 absolutely."""
    size = fabs(x)
    is_second, is_third, is_fourth = size >= SECOND_FROM, size >= THIRD_FROM, size >= FOURTH_FROM
    high = select(is_fourth, FOURTH[0], select(is_third, THIRD[0], select(is_second, SECOND[0], FIRST[0])))
    middle = select(is_fourth, FOURTH[1], select(is_third, THIRD[1], select(is_second, SECOND[1], FIRST[1])))
    low = select(is_fourth, FOURTH[2], select(is_third, THIRD[2], select(is_second, SECOND[2], FIRST[2])))
    a, b, c = x * high, x * middle, x * low
    turn = (a - rint(a)) + (b - rint(b))  # exact: a multiple of 2**-52 that is less than one, or small x
    n, count = nearest_integer_f64(4.0 * (turn + c))
    return fma(4.0, c, fma(4.0, turn, -n)) * HALF_PI, count


# float64: as many bits are left out as are in a number of words of 53, and x is scaled down by as much.
WORD = 53
USED = 5
WORDS = tuple(
    float(Fraction((TURNS >> (BITS - WORD * (k + 1))) % (1 << WORD), 1 << WORD))
    for k in range((1023 - 52) // WORD + USED)
)
WORD_SCALE = 2.0**-WORD


def window(words: Sequence[float], start: Number) -> list[Number]:
    """Five words from the one numbered `start`, by selects: a load from a table would keep the loop from vectorizing.

    Shifts the words by 16 if that bit of `start` is set, then by 8, and so on; what is too far to be used is left away.
    """
    kept: list[Any] = list(words)
    for shift in (16, 8, 4, 2, 1):
        is_set = (start & shift) != 0
        shifted = [*kept[shift:], *[kept[-1]] * shift]
        kept = [select(is_set, far, near) for near, far in zip(kept, shifted, strict=True)][: USED + shift - 1]
    return kept


def reduced_f64(x: Any) -> Any:
    """A float64 ↦ r as the sum of two numbers, n. Nearest to a multiple of π/2 comes 2**-61."""
    exponent = int64(int64(to_bits(x) >> 52) & 0x7FF) - (1023 + 52)
    start = int64(int64(select(exponent < 0, int64(0), int64(exponent)) * 1237) >> 16)  # / 53
    first, second, third, fourth, fifth = window(WORDS, start)
    # Up to 2**106 turns, then 2**53, 1, 2**-53 and 2**-106; what rounding lost of each is up to 2**-53 of it.
    x = x * power_of_two_f64(int64(-53 * start))
    a, a_lost = two_product(x, first)
    x = x * WORD_SCALE
    b, b_lost = two_product(x, second)
    x = x * WORD_SCALE
    c, c_lost = two_product(x, third)
    x = x * WORD_SCALE
    d, d_lost = two_product(x, fourth)
    e = x * WORD_SCALE * fifth
    # Where a has a fraction, a unit in its last place is more than what was lost of it: the first two sums are exact.
    head, left_1 = fast_two_sum(a - rint(a), a_lost - rint(a_lost))
    middle, left_2 = fast_two_sum(b - rint(b), b_lost)
    total, left_3 = two_sum(head, middle)
    total, left_4 = two_sum(total, c)
    left_5, tiny = two_sum(c_lost, d)
    n, count = nearest_integer_f64(4.0 * total)
    # What is left is summed as carefully: where x is next to a multiple of π/2, it is all that there is.
    left, lost_1 = two_sum(left_1, left_2)
    left, lost_2 = two_sum(left, left_3)
    left, lost_3 = two_sum(left, left_4)
    left, lost_4 = two_sum(left, left_5)
    tiny = ((lost_1 + lost_2) + (lost_3 + lost_4)) + (tiny + (d_lost + e))
    quarter, lost_5 = two_sum(fma(4.0, total, -n), 4.0 * left)
    lost = fma(4.0, tiny, lost_5)
    r, r_lost = two_product(quarter, HALF_PI_HIGH)
    return r, fma(quarter, HALF_PI_LOW, fma(lost, HALF_PI_HIGH, r_lost)), count
