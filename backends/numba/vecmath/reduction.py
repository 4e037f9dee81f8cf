"""Range reduction of sin, cos and tan: x = n π/2 + r with |r| at most about π/4, for every finite x.

After Payne and Hanek (1983): x / 2π is needed up to whole turns only, so the leading bits of 1 / 2π, which give whole
turns with the last bit of x, are left out. What is left begins at a bit that depends on the exponent of x, and is cut
into pieces whose products with x are exact, as one number (float32, computed in float64) or as the sum of two (float64).
There is no other path for small x: a loop with a branch to a slow one would not be vectorized.
"""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np

from graphopt.backends.numba.vecmath.intrinsics import fabs, fma, rint, scalar, select, to_bits
from graphopt.backends.numba.vecmath.real import (
    F64,
    PI,
    nearest_integer_f64,
    power_of_two_f64,
    two_product,
    two_sum,
)

BITS = 1200  # of 1 / 2π: 971 are left out for the largest float64, and then 160 are used


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


@scalar
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


# float64: the bits left out go up in steps of 16, and x is scaled down by as much as the pieces are scaled up.
ROWS = (1024 - 52) // 16 + 1
TABLE = np.array([float(piece * 2 ** (16 * k)) for k in range(ROWS) for piece in pieces(16 * k, 53, 4)])
HALF_PI_HIGH, HALF_PI_LOW = (float(part) for part in F64.split(PI / 2))


@scalar
def reduced_f64(x: Any) -> Any:
    """A float64 ↦ r as the sum of two numbers, n. Nearest to a multiple of π/2 comes 2**-61."""
    exponent = np.int64(np.int64(to_bits(x) >> 52) & 0x7FF) - 1023
    k = np.int64(select(exponent < 52, np.int64(0), np.int64(exponent - 52)) >> 4)
    scaled = x * power_of_two_f64(np.int64(-16 * k))
    place = np.uint64(4 * k)
    # Up to 2**69 turns, 2**16, 2**-37, 2**-90, and what rounding lost of each up to 2**-53 of it.
    a, a_lost = two_product(scaled, TABLE[place])
    b, b_lost = two_product(scaled, TABLE[place + np.uint64(1)])
    c, c_lost = two_product(scaled, TABLE[place + np.uint64(2)])
    d = scaled * TABLE[place + np.uint64(3)]
    total, first = two_sum(a - rint(a), a_lost - rint(a_lost))
    total, second = two_sum(total, b - rint(b))
    c, smallest = two_sum(c, b_lost)
    total, third = two_sum(total, c)
    n, count = nearest_integer_f64(4.0 * total)
    # The rest is summed as carefully: where x is next to a multiple of π/2, it is all that is left.
    first, fourth = two_sum(first, second)
    first, fifth = two_sum(first, third)
    quarter, sixth = two_sum(fma(4.0, total, -n), 4.0 * first)
    lost = fma(4.0, fourth + fifth + (smallest + (c_lost + d)), sixth)
    r, r_lost = two_product(quarter, HALF_PI_HIGH)
    return r, fma(quarter, HALF_PI_LOW, fma(lost, HALF_PI_HIGH, r_lost)), count
