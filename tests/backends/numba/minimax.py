"""How the coefficients of graphopt.backends.numba.vecmath.coefficients were found; prints that file.

Each is the best polynomial of its degree for a quotient, such as (sin(x) - x) / x³ as a function of x², by Remez'
exchange in 60 digits, where errors count as much as they do in the function that it serves; then each coefficient is
rounded to the format. Printed with each is its worst error, relative to that function.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import mpmath
import numpy as np
from mpmath import mp, mpf

mp.dps = 60


@dataclass(frozen=True)
class Fit:
    """A quotient on an interval; `share(v)`: how a relative error of the quotient counts in the function served."""

    name: str
    quotient: Callable[[Any], Any]
    low: Any
    high: Any
    terms: tuple[int, int]  # in float32, in float64
    share: Callable[[Any], Any]
    form: str
    wide: bool = False  # float64 coefficients even where float32 is computed
    split: bool = False  # the constant term as the sum of two numbers


def odd(
    name: str, function: Callable[[Any], Any], high: Any, terms: tuple[int, int], text: str, wide: bool = False
) -> Fit:
    """(f(x) - x) / x³ as a function of x² for an odd function f."""

    def quotient(z: Any) -> Any:
        x = mpmath.sqrt(z)
        return (function(x) - x) / (x * z)

    def share(z: Any) -> Any:
        x = mpmath.sqrt(z)
        return (function(x) - x) / function(x)

    return Fit(
        name,
        quotient,
        mpf(0),
        mpf(high) ** 2,
        terms,
        share,
        f"({text}(x) - x) / x³ in x², |x| <= {mpmath.nstr(high, 5)}",
        wide,
    )


def erfc_factor(centre: int) -> Callable[[Any], Any]:
    """(1 + 2a) exp(a²) erfc(a), a function that stays between 1 and 1.3, by t = (a - centre) / (a + centre)."""

    def factor(t: Any) -> Any:
        a = centre * (1 + t) / (1 - t)
        return (1 + 2 * a) * mpmath.exp(a * a) * mpmath.erfc(a)

    return factor


def erfcx_share(centre: Any) -> Callable[[Any], Any]:
    """exp(a²) erfc(a) / u for u = 3 / (3 + a), a function that stays between 0.18 and 1, by v = u - centre."""

    def share(v: Any) -> Any:
        u = v + centre
        a = 3 * (1 - u) / u
        return mpmath.exp(a * a) * mpmath.erfc(a) / u

    return share


def power_of_two(name: str, terms: int, wide: bool = False) -> Fit:
    """(2^r - 1) / r for float32."""
    return Fit(
        name,
        lambda r: mpmath.expm1(r * mpmath.ln(2)) / r,
        mpf(-1) / 2,
        mpf(1) / 2,
        (terms, 0),
        lambda r: mpmath.expm1(r * mpmath.ln(2)),
        "(2^r - 1) / r, |r| <= 1/2",
        wide,
    )


HALF_LN2 = mpmath.ln(2) / 2
QUARTER_PI = mp.pi / 4
ATANH = (mpmath.sqrt(2) - 1) / (mpmath.sqrt(2) + 1)  # s = (m - 1) / (m + 1) for m up to √2


def log_tail(name: str, scale: Any, text: str) -> Fit:
    """(log(1 + f) - f) / f² for float32, times a number."""

    def near(f: Any) -> Any:
        return f if f else mpf(10) ** -15

    return Fit(
        name,
        lambda f: scale * (mpmath.log1p(near(f)) - near(f)) / near(f) ** 2,
        mpmath.sqrt(2) / 2 - 1,
        mpmath.sqrt(2) - 1,
        (9, 0),
        lambda f: 1 - near(f) / mpmath.log1p(near(f)),
        f"{text}, f from √½ - 1 to √2 - 1",
    )


def atanh_tail(z: Any) -> Any:
    s = mpmath.sqrt(z)
    return (mpmath.atanh(s) / s - 1 - z / 3) / z**2


FITS = (
    Fit(
        "EXP",
        lambda r: (mpmath.expm1(r) - r) / r**2,
        -HALF_LN2,
        HALF_LN2,
        (6, 11),
        lambda r: (mpmath.expm1(r) - r) / mpmath.expm1(r),
        "(exp(r) - 1 - r) / r², |r| <= ln(2) / 2",
    ),
    Fit(
        "LOG",
        lambda z: 2 * (mpmath.atanh(mpmath.sqrt(z)) - mpmath.sqrt(z)) / (mpmath.sqrt(z) * z),
        mpf(0),
        ATANH**2,
        (0, 7),
        lambda z: z / 3,
        "(2 atanh(s) - 2 s) / s³ in s², |s| <= 3 - 2√2",
    ),
    log_tail("LOG", 1, "(log(1 + f) - f) / f²"),
    log_tail("LOG2", 1 / mpmath.ln(2), "(log2(1 + f) - f / ln(2)) / f²"),
    odd("SIN", mpmath.sin, QUARTER_PI, (3, 6), "sin"),
    Fit(
        "COS",
        lambda z: (mpmath.cos(mpmath.sqrt(z)) - 1 + z / 2) / z**2,
        mpf(0),
        QUARTER_PI**2,
        (3, 6),
        lambda z: z**2 / 24 / mpmath.cos(mpmath.sqrt(z)),
        "(cos(x) - 1 + x²/2) / x⁴ in x², |x| <= π/4",
    ),
    odd("TAN_WIDE", mpmath.tan, QUARTER_PI, (7, 0), "tan", wide=True),
    odd("TAN", mpmath.tan, QUARTER_PI, (6, 14), "tan"),
    odd("SINH", mpmath.sinh, mpf(1), (4, 7), "sinh"),
    odd("TANH", mpmath.tanh, mpf("0.55"), (4, 0), "tanh"),
    Fit(
        "TANH_EXP",
        lambda r: (mpmath.expm1(2 * r) / 2 - r) / r**2,
        -HALF_LN2 / 2,
        HALF_LN2 / 2,
        (5, 0),
        lambda r: (mpmath.expm1(2 * r) - 2 * r) / mpmath.exp(2 * r),
        "(exp(2r)/2 - 1/2 - r) / r², |r| <= ln(2) / 4",
    ),
    odd("ASIN", mpmath.asin, mpf(1) / 2, (6, 13), "asin"),
    odd("ATAN", mpmath.atan, mpf(1), (10, 22), "atan"),
    Fit(
        "ERF",
        lambda z: mpmath.erf(mpmath.sqrt(z)) / mpmath.sqrt(z) - 1,
        mpf(0),
        mpf(1),
        (8, 14),
        lambda z: 1 - mpmath.sqrt(z) / mpmath.erf(mpmath.sqrt(z)),
        "erf(x) / x - 1 in x², |x| <= 1",
    ),
    Fit(
        "ERFC",
        erfcx_share(mpf(1) / 2),
        mpf(3) / mpf(13.5) - mpf(1) / 2,
        mpf(1) / 2,
        (10, 0),
        lambda v: mpf(1),
        "exp(a²) erfc(a) / u in u - 1/2, u = 3 / (3 + a), 0 <= a <= 10.5",
        split=True,
    ),
    Fit(
        "ERFC",
        erfc_factor(4),
        mpf(-13) / 19,
        mpf(24) / mpf(32),
        (0, 22),
        lambda t: mpf(1),
        "(1 + 2a) exp(a²) erfc(a) in (a - 4) / (a + 4), 3/4 <= a <= 28",
        split=True,
    ),
    Fit(
        "ERF_FAR",
        lambda a: -mpmath.log(mpmath.erfc(a)),
        mpf(1),
        mpf(4),
        (8, 0),
        lambda a: mpmath.log(mpmath.erfc(a)) * mpmath.erfc(a) / mpmath.erf(a),
        "-log(erfc(x)), 1 <= x <= 4",
    ),
    Fit(
        "ERF_FAR",
        lambda a: -mpmath.log(mpmath.erfc(a)),
        mpf(1),
        mpf(6),
        (0, 19),
        lambda a: mpmath.log(mpmath.erfc(a)) * mpmath.erfc(a) / mpmath.erf(a),
        "-log(erfc(x)), 1 <= x <= 6",
    ),
    Fit(
        "POW_LOG",
        lambda z: mpmath.atanh(mpmath.sqrt(z)) / mpmath.sqrt(z),
        mpf(0),
        ATANH**2,
        (5, 0),
        lambda z: mpf(1),
        "atanh(s) / s in s², |s| <= 3 - 2√2",
        wide=True,
    ),
    Fit(
        "POW_LOG",
        atanh_tail,
        mpf(0),
        ATANH**2,
        (0, 8),
        lambda z: z**2 / 5,
        "(atanh(s) / s - 1 - s²/3) / s⁴ in s², |s| <= 3 - 2√2",
    ),
    power_of_two("POW_EXP_WIDE", 7, wide=True),
    power_of_two("POW_EXP", 6),
)


def best(fit: Fit, terms: int) -> tuple[list[Any], Any]:
    """Remez' exchange on a grid: the coefficients, constant term first, and the largest weighted error."""
    middle, half = (fit.low + fit.high) / 2, (fit.high - fit.low) / 2
    grid = [middle - half * mpmath.cos(mp.pi * (k + mpf("0.013")) / 400) for k in range(400)]
    values = [fit.quotient(v) for v in grid]
    weights = [abs(fit.share(v) / value) for v, value in zip(grid, values, strict=True)]
    chosen = sorted({round(399 * k / terms) for k in range(terms + 1)})
    for _ in range(12):
        rows = [[grid[j] ** power for power in range(terms)] + [(-1) ** k / weights[j]] for k, j in enumerate(chosen)]
        solved = mpmath.lu_solve(mpmath.matrix(rows), mpmath.matrix([values[j] for j in chosen]))
        coefficients = list(solved[:terms])
        errors = [w * (value_at(coefficients, v) - value) for v, value, w in zip(grid, values, weights, strict=True)]
        runs: list[int] = []  # the largest error of each run of one sign
        for j, error in enumerate(errors):
            if runs and errors[runs[-1]] * error > 0:
                if abs(error) > abs(errors[runs[-1]]):
                    runs[-1] = j
            else:
                runs.append(j)
        while len(runs) > terms + 1:
            runs.pop(0 if abs(errors[runs[0]]) < abs(errors[runs[-1]]) else -1)
        if len(runs) < terms + 1 or runs == chosen:
            break
        chosen = runs
    return coefficients, max(map(abs, errors))


def value_at(coefficients: Sequence[Any], v: Any) -> Any:
    value = mpf(0)
    for coefficient in reversed(coefficients):
        value = value * v + coefficient
    return value


def worst(fit: Fit, coefficients: Sequence[Any]) -> float:
    """The worst error relative to the function, on 41 points, as a power of two."""
    errors = []
    for k in range(41):
        v = fit.low + (fit.high - fit.low) * (k + mpf("0.37")) / mpf("41")
        exact = fit.quotient(v)
        errors.append(abs((value_at(coefficients, v) / exact - 1) * fit.share(v)))
    return float(mpmath.log(max(errors), 2))


HEADER = '''"""Coefficients of polynomials, constant term first; written by tests/backends/numba/minimax.py, which says how.

Above each: the quotient that it stands for, and its worst error relative to the function it serves.
"""

from __future__ import annotations

import numpy as np


def singles(*coefficients: float) -> tuple[np.float32, ...]:
    """What the compiler makes float32 constants of."""
    return tuple(np.float32(c) for c in coefficients)


def doubles(*coefficients: float) -> tuple[float, ...]:
    """What the compiler makes float64 constants of."""
    return coefficients

'''


def main(names: Sequence[str]) -> None:
    print(HEADER, end="")
    for fit in FITS:
        if names and fit.name not in names:
            continue
        for width, terms in zip((32, 64), fit.terms, strict=True):
            if not terms:
                continue
            kind = np.float32 if width == 32 and not fit.wide else np.float64
            found, error = best(fit, terms)
            rounded = [kind(float(c)) for c in found]
            final = [mpf(float(c)) for c in rounded]
            if fit.split:
                rounded.insert(1, kind(float(found[0] - final[0])))
                final[0] += mpf(float(rounded[1]))
            bound = worst(fit, final)
            print(f"\n# {fit.form}: 2^{bound:.1f}; before rounding 2^{float(mpmath.log(error, 2)):.1f}.")
            print(f"{fit.name}_F{width} = {'singles' if kind is np.float32 else 'doubles'}(")
            for c in rounded:
                print(f"    {c!s},")
            print(")")


if __name__ == "__main__":
    main(sys.argv[1:])
