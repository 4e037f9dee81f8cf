"""x ↦ x**-(whole + 1/2) by sums and products, from what AVX-512 estimates: it divides and takes roots a tenth as often.

Its estimate y of 1 / √x is right to 2**-14 (Intel's manual, volume 2: VRSQRT14PS), and with e = 1 - x * y**2 the power
is y**(2 * whole + 1) * (1 - e)**-(whole + 1/2), a series of few terms.
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from functools import cache
from math import prod
from typing import Any

import llvmlite.binding as llvm
from llvmlite import ir

from graphopt.backends.numba.vecmath.intrinsics import Number, fma, horner, to_bits, uint32, uint64
from graphopt.backends.numba.vecmath.real import F32, Real
from graphopt.backends.numba.vecmath.usual import usually

LANE = ir.IntType(32)


@cache
def estimates() -> bool:
    """Whether this processor estimates reciprocal roots of vectors of all lengths."""
    features = llvm.get_host_cpu_features()
    return bool(features.get("avx512f") and features.get("avx512vl"))


def by_estimate(real: Real, whole: int) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Makes of x ↦ x**-(whole + 1/2) one that is computed by an estimate, where there is one; and where there is none,
    or x is not positive or near the ends of the range, as it was."""
    return usually(usual_in(real, whole)) if estimates() else lambda always: always


def usual_in(real: Real, whole: int) -> Callable[[Any], tuple[Any, Any]]:
    """x ↦ x**-(whole + 1/2) and whether that is not it."""
    one, bits = real.floating(1), uint32 if real is F32 else uint64
    # So far from one what is lost of the result is a normal number, and x times the square of its root finite.
    reach = (real.bias - 3) // (whole + 1)
    low, high = (real.bits(real.floating(2.0 ** (sign * reach))) for sign in (-1, 1))
    terms = series(real, whole, 2 if real is F32 else 4)

    def usual(x: Any) -> tuple[Any, Any]:
        root = estimate(x)
        square = root * root
        off = fma(-x, square, one)  # of the rounded square: the result follows that, not the root
        found, lost = root, None
        for _ in range(whole):
            product = found * square
            rest = fma(found, square, -product)
            found, lost = product, rest if lost is None else fma(lost, square, rest)
        change = off * horner(off, terms)
        result = found + (found * change if lost is None else fma(found, change, lost))
        return result, bits(to_bits(x) - low) >= high - low

    return usual


def series(real: Real, whole: int, terms: int) -> list[Any]:
    """(1 - e)**-(whole + 1/2) by powers of e, without the first, which is one."""
    exponent = Fraction(2 * whole + 1, 2)
    found = [prod(((exponent + k) / (k + 1) for k in range(term)), start=Fraction(1)) for term in range(1, terms + 1)]
    return [real.nearest(each) for each in found]


def estimate(x: Number) -> Number:
    """1 / √x for positive normal numbers, right to 2**-14."""
    builder, kind = x.builder, x.value.type
    least = 16 // x.dtype.itemsize
    lanes = max(x.lanes, least)
    element = kind.element if x.lanes > 1 else kind
    vector, mask = ir.VectorType(element, lanes), ir.IntType(max(8, lanes))
    name = f"llvm.x86.avx512.rsqrt14.p{'s' if x.dtype.itemsize == 4 else 'd'}.{8 * lanes * x.dtype.itemsize}"
    function = builder.module.declare_intrinsic(name, (), ir.FunctionType(vector, [vector, vector, mask]))
    value = x.value
    if x.lanes == 1:
        value = builder.insert_element(ir.Constant(vector, ir.Undefined), value, LANE(0))
        value = builder.shuffle_vector(value, value, ir.Constant(ir.VectorType(LANE, lanes), [LANE(0)] * lanes))
    found = builder.call(function, [value, ir.Constant(vector, None), ir.Constant(mask, -1)])
    return Number(builder, builder.extract_element(found, LANE(0)) if x.lanes == 1 else found, x.dtype)
