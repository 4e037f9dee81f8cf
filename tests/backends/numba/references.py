"""The functions of vecmath in mpmath, the arguments to try them on, and how far off a result is."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from fractions import Fraction
from typing import Any

import mpmath
import numpy as np
from mpmath import mpf

DIGITS = 50
UNARY: dict[str, Callable[[Any], Any]] = {
    "acos": mpmath.acos,
    "acosh": mpmath.acosh,
    "asin": mpmath.asin,
    "asinh": mpmath.asinh,
    "atan": mpmath.atan,
    "atanh": mpmath.atanh,
    "cbrt": lambda x: mpmath.sign(x) * mpmath.cbrt(abs(x)),
    "cos": mpmath.cos,
    "cosh": lambda x: mpmath.cosh(held(x, 2000)),
    "erf": lambda x: mpmath.erf(held(x, 40)),
    "erfc": lambda x: mpmath.erfc(held(x, 40)),
    "exp": lambda x: mpmath.exp(held(x, 2000)),
    "exp2": lambda x: mpmath.power(2, held(x, 2000)),
    "expm1": lambda x: mpmath.expm1(held(x, 2000)),
    "log": mpmath.log,
    "log1p": mpmath.log1p,
    "log2": lambda x: mpmath.log(x, 2),
    "logistic": lambda x: 1 / (1 + mpmath.exp(-held(x, 2000))),
    "rsqrt": lambda x: 1 / mpmath.sqrt(x),
    "sin": mpmath.sin,
    "sinh": lambda x: mpmath.sinh(held(x, 2000)),
    "tan": mpmath.tan,
    "tanh": lambda x: mpmath.tanh(held(x, 2000)),
}
BINARY: dict[str, Callable[[Any, Any], Any]] = {
    "atan2": mpmath.atan2,
    "pow": lambda x, y: mpmath.power(2, held(y * mpmath.log(x, 2), 3000)) if x > 0 else mpmath.power(x, y),
}


def held(x: Any, bound: int) -> Any:
    """x, or the bound, beyond which the function has overflowed, vanished, or no digit more: mpmath would take long."""
    return min(max(x, -bound), bound)


def exact(function: Callable[..., Any], *arguments: Any) -> Any:
    """The value in mpmath; NaN where there is no real one, and None where it is infinite."""
    try:
        value = function(*(mpf(float(a)) for a in arguments))
    except (ValueError, ZeroDivisionError):  # the logarithm of zero, or 1 / 0
        return None
    return mpmath.nan if isinstance(value, mpmath.mpc) else None if mpmath.isinf(value) else value


def ulps(found: Any, value: Any, dtype: Any) -> float:
    """How far a result is from the exact value, in units in the last place of that; an overflow counts as 2**128."""
    if mpmath.isnan(value):
        return 0.0 if np.isnan(found) else math.inf
    if np.isnan(found):
        return math.inf
    info = np.finfo(dtype)
    top = mpf(2) ** info.maxexp
    value = min(max(value, -top), top)
    got = mpmath.sign(mpf(float(found))) * top if np.isinf(found) else mpf(float(found))
    # mag(0) is -inf; the largest number belongs to the last binade that there is.
    exponent = min(max(mpmath.mag(value) - 1, info.minexp), info.maxexp - 1) if value else info.minexp
    return float(abs(got - value) / mpf(2) ** (int(exponent) - info.nmant))


def worst(errors: Iterable[tuple[float, Any]]) -> tuple[float, Any]:
    """The largest error, and where."""
    return max(errors, key=lambda error: error[0])


THRESHOLDS = (
    *(
        0.0,
        0.125,
        0.25,
        0.375,
        0.4142135623730950488,
        0.5,
        0.625,
        0.7071067811865475,
        1.0,
        1.4142135623730951,
        2.0,
        2.5,
    ),
    *(3.0, 4.0, 6.0, 8.0, 10.0, 10.5, 20.0, 26.54, 27.2, 28.0, 40.0),
    *(87.33654, 88.0296, 88.72284, 89.41599, 90.0, 103.27893, 103.97208, 105.0, 126.0, 127.0, 128.0, 149.0, 150.0),
    *(708.3964, 709.0895, 709.78271, 710.4758, 711.0, 744.4400719, 745.1332191, 747.0),
    *(1022.0, 1023.0, 1024.0, 1074.0, 1075.0),
    *(2.0**51, 2.0**77, 2.0**103, 2.0**-13, 2.0**-27, 2.0**24, 2.0**53, 2.0**13, 2.0**27),
)


def arguments(dtype: Any, rng: np.random.Generator, count: int) -> np.ndarray[Any, Any]:
    """Numbers of both signs: any bits, every exponent from 2**-30 to 2**10, and next to what is special somewhere."""
    integer = np.dtype(f"i{np.dtype(dtype).itemsize}")
    any_bits = rng.integers(np.iinfo(integer).min, np.iinfo(integer).max, count, dtype=integer, endpoint=True)
    moderate = np.exp2(rng.uniform(-30, 10, count)) * rng.choice([-1, 1], count)
    near = np.array([*THRESHOLDS, *(k * np.pi / 4 for k in range(1, 33)), *(k * np.log(2) / 2 for k in range(1, 33))])
    around = near[rng.integers(0, len(near), count)].astype(dtype)
    around = (around.view(integer) + rng.integers(-20, 21, count).astype(integer)).view(dtype)
    around = np.concatenate([near.astype(dtype), around]) * rng.choice([-1, 1], count + len(near)).astype(dtype)
    found = np.concatenate([any_bits.view(dtype), moderate.astype(dtype), around])
    return np.asarray(found[np.isfinite(found)])


def powers(dtype: Any, rng: np.random.Generator, count: int) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Bases of every size, and next to one, to powers that neither overflow nor vanish, but for a few."""
    limit = np.finfo(dtype).maxexp
    bases = np.concatenate([np.exp2(rng.uniform(-limit, limit, count)), 1 + np.exp2(rng.uniform(-20, 0, count))])
    bases = bases.astype(dtype)
    bases = bases[(bases != 1) & (bases != 0) & np.isfinite(bases)]
    wanted = rng.uniform(-1.2 * limit, 1.05 * limit, len(bases))
    return bases, (wanted / np.log2(bases.astype(np.float64))).astype(dtype)


def next_to_quadrants(dtype: Any) -> np.ndarray[Any, Any]:
    """The numbers of each exponent that come nearest to a multiple of π/2, by continued fractions (W. Kahan)."""
    info = np.finfo(dtype)
    with mpmath.workprec(2 * info.maxexp + 4 * info.nmant):
        half_pi = mpmath.pi / 2
        ratios = [exact_fraction(mpf(2) ** e / half_pi) for e in range(-info.nmant, info.maxexp - info.nmant)]
    found = []
    for e, ratio in zip(range(-info.nmant, info.maxexp - info.nmant), ratios, strict=True):
        for denominator in convergents(ratio, 2 ** (info.nmant + 1)):
            if denominator >= 2 ** (info.nmant - 6):
                found.append(math.ldexp(denominator, e))
    return np.array(found, dtype)


def exact_fraction(value: Any) -> Fraction:
    _, mantissa, exponent, _ = value._mpf_
    return Fraction(int(mantissa)) * Fraction(2) ** int(exponent)


def convergents(ratio: Fraction, limit: int) -> Iterator[int]:
    """The denominators below the limit of the continued fraction of a ratio."""
    before, last = 1, 0
    while True:
        whole, rest = divmod(ratio.numerator, ratio.denominator)
        before, last = last, whole * last + before
        if last >= limit or rest == 0:
            return
        yield last
        ratio = Fraction(ratio.denominator, rest)


def with_digits(function: Callable[..., Any], rows: Sequence[Any], results: Any, dtype: Any) -> tuple[float, Any]:
    """The worst error of results for rows of arguments, and where, against a function of mpmath."""
    with mpmath.workdps(DIGITS):
        values = ((row, found, exact(function, *row)) for row, found in zip(rows, results, strict=True))
        return worst(
            (ulps(found, value, dtype), tuple(map(float, row))) for row, found, value in values if value is not None
        )
