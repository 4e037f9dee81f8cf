"""Complex numbers in kernels: pairs of floating numbers, with the formulas by which XLA:CPU computes.

Products, quotients, absolute values and signs are those of XLA's `elemental_ir_emitter.cc`, exp, log and sqrt those
that it expands from StableHLO (`functional_algorithms`, P. Peterson), sin and cos JAX's own. Functions with other
branch cuts and special values (pow, tan, tanh, the inverse ones) stay with XLA.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from numba.extending import intrinsic

from graphopt.backends.numba.vecmath.exponential import exp_f32, exp_f64, expm1_f32, expm1_f64
from graphopt.backends.numba.vecmath.intrinsics import copysign, fabs, maximum, minimum, pair, scalar, select, sqrt
from graphopt.backends.numba.vecmath.inverse import atan2_f32, atan2_f64
from graphopt.backends.numba.vecmath.logarithm import log1p_f32, log1p_f64, log_f32, log_f64
from graphopt.backends.numba.vecmath.real import two_product, two_sum
from graphopt.backends.numba.vecmath.trigonometric import cos_f32, cos_f64, sin_f32, sin_f64


def _by_parts(flags: tuple[str, ...]) -> Any:
    def typed(typing: Any, x: Any, y: Any) -> Any:
        def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            found = args[0]
            for part in (0, 1):
                a, b = (builder.extract_value(arg, part) for arg in args)
                found = builder.insert_value(found, builder.fadd(a, b, flags=flags), part)
            return found

        return x(x, y), emit

    return intrinsic(typed)


add_any_order: Any = _by_parts(("reassoc",))
"""A sum that may be taken in another order with others."""


def multiply(x: Any, y: Any) -> Any:
    """The product, by its definition: no part of an infinity is looked for in a NaN."""
    return pair(x.real * y.real - x.imag * y.imag, x.real * y.imag + x.imag * y.real)


def _divide_in(real: Any) -> Any:
    """Smith's algorithm (R. L. Smith, "Algorithm 116", CACM 5, 1962), and what C99 has for zero and infinity."""
    zero, one, infinity = real(0), real(1), real(np.inf)

    def unit(x: Any) -> Any:
        """1 or 0 for what is infinite and what is not, with the sign of x."""
        return copysign(select(fabs(x) == infinity, one, zero), x)

    def divide(x: Any, y: Any) -> Any:
        a, b, c, d = x.real, x.imag, y.real, y.imag
        swapped = fabs(c) < fabs(d)
        ratio = select(swapped, c / d, d / c)
        below = select(swapped, d + c * ratio, c + d * ratio)
        re = select(swapped, a * ratio + b, a + b * ratio) / below
        im = select(swapped, b * ratio - a, b - a * ratio) / below
        # Where both are NaN: an infinity by what is finite, what is finite by an infinity, and a number by zero.
        lost = (re != re) & (im != im)
        finite_x = (fabs(a) < infinity) & (fabs(b) < infinity)
        finite_y = (fabs(c) < infinity) & (fabs(d) < infinity)
        infinite_x = lost & finite_y & ((fabs(a) == infinity) | (fabs(b) == infinity))
        infinite_y = lost & finite_x & ((fabs(c) == infinity) | (fabs(d) == infinity))
        e, f = unit(a), unit(b)
        re = select(infinite_x, infinity * (e * c + f * d), re)
        im = select(infinite_x, infinity * (f * c - e * d), im)
        e, f = unit(c), unit(d)
        re = select(infinite_y, zero * (a * e + b * f), re)
        im = select(infinite_y, zero * (b * e - a * f), im)
        by_zero = lost & (c == zero) & (d == zero) & ((a == a) | (b == b))
        re = select(by_zero, copysign(infinity, c) * a, re)
        im = select(by_zero, copysign(infinity, c) * b, im)
        return pair(re, im)

    return divide


INFINITE_THOUGH_NAN = jax.__version_info__ >= (0, 12)
"""Whether to XLA an infinity is infinite where its other part is NaN, as C99 has it."""


def _absolute_in(real: Any) -> Any:
    one = real(1)

    def absolute(x: Any) -> Any:
        a, b = fabs(x.real), fabs(x.imag)
        large, small = maximum(a, b), minimum(a, b)
        ratio = small / large
        found = large * sqrt(one + ratio * ratio)
        return select(found == found, found, small)

    return absolute


def _size_in(real: Any, absolute: Any) -> Any:
    infinity = real(np.inf)

    def size(x: Any) -> Any:
        return select((fabs(x.real) == infinity) | (fabs(x.imag) == infinity), infinity, absolute(x))

    return size


def _sign_in(real: Any, absolute: Any) -> Any:
    zero = real(0)

    def sign(x: Any) -> Any:
        size = absolute(x)
        return pair(select(size == zero, zero, x.real / size), select(size == zero, zero, x.imag / size))

    return sign


def _exp_in(real: Any, exp: Any, sin: Any, cos: Any) -> Any:
    zero, half, infinity = real(0), real(0.5), real(np.inf)

    def exponential(x: Any) -> Any:
        """Where exp of the real part overflows its root need not, and sine or cosine may be small."""
        size, root = exp(x.real), exp(x.real * half)
        c, s = cos(x.imag), sin(x.imag)
        overflows = size == infinity
        re = select(overflows, root * c * root, size * c)
        im = select(overflows, root * s * root, size * s)
        return pair(re, select(x.imag == zero, zero, im))

    return exponential


def _log_in(real: Any, log: Any, log1p: Any, atan2: Any) -> Any:
    half, one = real(0.5), real(1)

    def logarithm(x: Any) -> Any:
        """Near |x| = 1 the logarithm is that of 1 plus |x|² - 1, which is summed with what rounding loses of it."""
        a, b = fabs(x.real), fabs(x.imag)
        large, small = maximum(a, b), minimum(a, b)
        square, lost = two_product(large, large)
        other, other_lost = two_product(small, small)
        total, left_1 = two_sum(square, -one)
        total, left_2 = two_sum(total, other)
        total, left_3 = two_sum(total, lost)
        beyond = total + (left_1 + left_2 + left_3 + other_lost)
        ratio = select(large == small, one, small / large)
        far = log(large) + half * log1p(ratio * ratio)
        return pair(select(fabs(beyond) < half, half * log1p(beyond), far), atan2(x.imag, x.real))

    return logarithm


def _sqrt_in(real: Any) -> Any:
    zero, half, one, two, infinity = real(0), real(0.5), real(1), real(2), real(np.inf)
    root_2, root_half = real(2**0.5), real(0.5**0.5)
    # sqrt((1 + sqrt 2) / 2) and half of its inverse: what is left where both parts are equal.
    equal_re, equal_im = real(((1 + 2**0.5) / 2) ** 0.5), real(0.5 / ((1 + 2**0.5) / 2) ** 0.5)

    def hypotenuse(large: Any, small: Any) -> Any:
        ratio = small / large
        ratio = ratio * ratio
        root = sqrt(one + ratio)
        found = select((root == one) & (ratio > zero), large + large * ratio * half, large * root)
        return select(large == small, large * root_2, found)

    def square_root(x: Any) -> Any:
        """With u = sqrt((|x| + |re x|) / 2), which is scaled where it would overflow or vanish: u and im x / 2u."""
        a, b = fabs(x.real), fabs(x.imag)
        root_a, root_b = sqrt(a), sqrt(b)
        equal, less = a == b, a < b
        u = sqrt(hypotenuse(maximum(a, b), minimum(a, b)) * half + a * half)
        extreme = (u == zero) | (u == infinity)
        ratio = select(equal, one, select(less, a / b, b / a))
        size = hypotenuse(maximum(ratio, one), minimum(ratio, one))
        first, second = sqrt(one + size), sqrt(ratio + size)
        scaled = select(a > b, root_a * (first * root_half), root_b * (second * root_half))
        high = select(equal, root_a * equal_re, select(extreme, scaled, u))
        roots = select(equal, one, select(less, root_a / root_b, root_b / root_a))
        scaled = select(a > b, root_b * roots / (first * root_2), root_b / (second * root_2))
        low = select(equal, root_b * equal_im, select(extreme, scaled, b / (u * two)))
        re = select(x.real >= zero, high, low)
        im = select(x.real < zero, high, low)
        return pair(re, select(x.imag < zero, -im, im))

    return square_root


def _trigonometric_in(real: Any, sin: Any, cos: Any, expm1: Any) -> tuple[Any, Any]:
    zero, half, two = real(0), real(0.5), real(2)

    def sine(x: Any) -> Any:
        up, down = expm1(x.imag), expm1(-x.imag)
        re = sin(x.real) * ((up + down + two) * half)
        return pair(select(x.real == zero, zero, re), cos(x.real) * ((up - down) * half))

    def cosine(x: Any) -> Any:
        up, down = expm1(x.imag), expm1(-x.imag)
        im = -sin(x.real) * ((up - down) * half)
        return pair(cos(x.real) * ((up + down + two) * half), select(x.real == zero, zero, im))

    return sine, cosine


def _functions(name: str, real: Any, vector: Sequence[Any]) -> dict[str, Any]:
    exp, log, log1p, atan2, sin, cos, expm1 = vector
    absolute = _absolute_in(real)
    sine, cosine = _trigonometric_in(real, sin, cos, expm1)
    functions = {
        f"sign_{name}": _sign_in(real, absolute),
        f"div_{name}": _divide_in(real),
        f"exp_{name}": _exp_in(real, exp, sin, cos),
        f"log_{name}": _log_in(real, log, log1p, atan2),
        f"sqrt_{name}": _sqrt_in(real),
        f"sin_{name}": sine,
        f"cos_{name}": cosine,
    }
    size = scalar(_size_in(real, absolute) if INFINITE_THOUGH_NAN else absolute, lambda x: np.dtype(real))
    return {f"abs_{name}": size} | {called: scalar(function) for called, function in functions.items()}


COMPLEX_NAMES: Mapping[str, Any] = {
    "pair": scalar(pair, lambda re, im: np.dtype(f"c{2 * re.itemsize}")),
    "complex_multiply": scalar(multiply),
    "complex_add_any_order": add_any_order,
    **_functions("complex64", np.float32, (exp_f32, log_f32, log1p_f32, atan2_f32, sin_f32, cos_f32, expm1_f32)),
    **_functions("complex128", np.float64, (exp_f64, log_f64, log1p_f64, atan2_f64, sin_f64, cos_f64, expm1_f64)),
}
"""What source may name."""
