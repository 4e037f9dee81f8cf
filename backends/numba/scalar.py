"""Scalar operations as Numba source: `expression` gives for each operation and dtype one with XLA's meaning.

Numba computes on small integers in 64 bits, so every integer result is cast back to its dtype, which wraps around as
XLA does. What is not here stays with XLA: `reason` says why.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.extend.core import primitives as p

from graphopt.backends.numba.complex_source import COMPLEX
from graphopt.backends.numba.functions import HALF_POWERS, VECMATH
from graphopt.backends.numba.half import (
    FLOAT16,
    HALVES,
    computed_as,
    computes_on_float16,
    is_half,
    kept_as,
    narrowed,
    widened,
)
from graphopt.ir.attrs import EMPTY, Attrs
from graphopt.ir.loop import Apply, Literal, Local, Value
from graphopt.ir.node import Node
from graphopt.ir.op import Op, op_of
from graphopt.ops.random import THREEFRY

POW = op_of(p.pow_p)

DTYPES = (*map(np.dtype, ("bool", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f4", "f8", "c8", "c16")), *HALVES)
"""The dtypes that kernels compute in."""

Dtype = np.dtype[Any]
Expression = Callable[[Attrs, Sequence[Dtype], Dtype, Sequence[str]], str | None]
"""`(attrs, operand dtypes, result dtype, operands as source) -> source`; None where it cannot be said."""


def is_float(dtype: Dtype) -> bool:
    """Whether a dtype is float32 or float64."""
    return dtype.kind == "f"


def cast(dtype: Dtype, source: str) -> str:
    """An expression cast to a dtype."""
    return f"np.{dtype.name}({source})" if dtype.kind != "b" else f"({source})"


def literal(value: Any) -> str:
    """A NumPy scalar as source."""
    dtype = np.dtype(value.dtype)
    if is_half(dtype):
        return f"np.uint16({np.asarray(value).view(np.uint16).item()})"
    if dtype.kind == "b":
        return str(bool(value))
    if dtype.kind == "c":
        return f"pair({literal(value.real)}, {literal(value.imag)})"
    if dtype.kind == "f" and not np.isfinite(value):
        return f"np.{dtype.name}({'np.nan' if np.isnan(value) else 'np.inf' if value > 0 else '-np.inf'})"
    return f"np.{dtype.name}({value.item()!r})" if dtype.kind != "f" else f"np.{dtype.name}({float(value)!r})"


def _both(floating: str, integer: str, boolean: str | None = None) -> Expression:
    """One format for floating numbers, one for integers, one for booleans; `{0}`, `{1}` are the operands, `{T}` the
    result's type."""

    def expression(attrs: Attrs, of: Sequence[Dtype], to: Dtype, args: Sequence[str]) -> str | None:
        if of[0].kind == "b":
            return None if boolean is None else boolean.format(*args)
        floats = is_float(of[0])
        return floating.format(*args, T=f"np.{to.name}") if floats else cast(to, integer.format(*args))

    return expression


def _wrapping(floating: str, integer: str, boolean: str | None = None, wide: str = "") -> Expression:
    """As `_both`, for what may overflow: of integers of 64 bits `wide`, for the others are computed in those."""
    narrow = _both(floating, integer, boolean)

    def expression(attrs: Attrs, of: Sequence[Dtype], to: Dtype, args: Sequence[str]) -> str | None:
        return wide.format(*args) if to == np.int64 and of[0] == np.int64 else narrow(attrs, of, to, args)

    return expression


def _compare(sign: str, boolean: str | None = None) -> Expression:
    def expression(attrs: Attrs, of: Sequence[Dtype], to: Dtype, args: Sequence[str]) -> str:
        if of[0].kind == "b":
            return (boolean or f"(np.uint8({{0}}) {sign} np.uint8({{1}}))").format(*args)
        return f"({args[0]} {sign} {args[1]})"

    return expression


def _floating(form: str) -> Expression:
    def expression(attrs: Attrs, of: Sequence[Dtype], to: Dtype, args: Sequence[str]) -> str | None:
        return form.format(*args) if is_float(of[0]) else None

    return expression


def _integer(form: str) -> Expression:
    def expression(attrs: Attrs, of: Sequence[Dtype], to: Dtype, args: Sequence[str]) -> str | None:
        return cast(to, form.format(*args)) if of[0].kind in "iu" else None

    return expression


def _round(attrs: Attrs, of: Sequence[Dtype], to: Dtype, args: Sequence[str]) -> str | None:
    function = {0: "round_away", 1: "round_even"}.get(int(attrs["rounding_method"]))
    return f"{function}({args[0]})" if function and is_float(of[0]) else None


def _convert(attrs: Attrs, of: Sequence[Dtype], to: Dtype, args: Sequence[str]) -> str | None:
    source = of[0]
    if to.kind == "b":
        return args[0] if source.kind == "b" else f"({args[0]} != 0)"
    if source.kind == "f" and to.kind in "iu":
        return f"float_to_{to.name}({args[0]})"
    return args[0] if source == to else cast(to, args[0])


def _bitcast(attrs: Attrs, of: Sequence[Dtype], to: Dtype, args: Sequence[str]) -> str | None:
    if of[0] == to:
        return args[0]
    # To another width it is several operations: graphopt.analysis.bitcast.
    return f"bits_to_{kept_as(to).name}({args[0]})" if "b" not in (of[0].kind, to.kind) else None


def _integer_pow(attrs: Attrs, of: Sequence[Dtype], to: Dtype, args: Sequence[str]) -> str | None:
    """Repeated squaring, as JAX lowers it."""
    exponent, x = attrs["y"], args[0]
    if exponent == 0:
        return literal(to.type(1))
    floats = is_float(of[0]) or is_half(of[0])
    if (of[0].kind not in "iu" and not floats) or (exponent < 0 and not floats) or abs(exponent) > 64:
        return None

    def times(a: str, b: str) -> str:
        return str(expression(MUL, EMPTY, (to, to), to, (a, b)))

    result, power, left = None, x, abs(exponent)
    while left:
        if left & 1:
            result = power if result is None else times(result, power)
        left >>= 1
        power = times(power, power)
    return result if exponent > 0 else expression(DIV, EMPTY, (to, to), to, (literal(to.type(1)), str(result)))


def _select(attrs: Attrs, of: Sequence[Dtype], to: Dtype, args: Sequence[str]) -> str:
    which, *cases = args
    if of[0].kind == "b":
        return f"choose({which}, {cases[1]}, {cases[0]})" if len(cases) == 2 else cases[0]
    chosen = cases[-1]
    for number in range(len(cases) - 2, -1, -1):
        chosen = f"choose({which} <= {number}, {cases[number]}, {chosen})"
    return chosen


def _clamp(attrs: Attrs, of: Sequence[Dtype], to: Dtype, args: Sequence[str]) -> str | None:
    low, x, high = args
    if to.kind == "b":
        return None
    form = "minimum(maximum({1}, {0}), {2})" if is_float(to) else "min(max({1}, {0}), {2})"
    return form.format(low, x, high) if is_float(to) else cast(to, form.format(low, x, high))


def _bits(dtype: Dtype, source: str) -> str:
    """The bits of a floating number as an unsigned integer."""
    return source if is_half(dtype) else f"bits_to_uint{8 * dtype.itemsize}({source})"


def _of_bits(dtype: Dtype, source: str) -> str:
    return source if is_half(dtype) else f"bits_to_{dtype.name}({source})"


def _next_after(attrs: Attrs, of: Sequence[Dtype], to: Dtype, args: Sequence[str]) -> str:
    numbers = [widened(to, arg) for arg in args]
    nan = _bits(to, literal(np.asarray(np.nan, to)[()]))
    given = ", ".join([*numbers, *(_bits(to, arg) for arg in args), nan])
    return _of_bits(to, f"next_after_uint{8 * to.itemsize}({given})")


def _precision(dtype: np.dtype[Any], exponent_bits: int, mantissa_bits: int) -> tuple[int, ...]:
    """What `reduce_precision` is given for a dtype after the number and its bits."""
    info = jnp.finfo(dtype)
    mantissa, exponent = int(info.nmant), int(info.nexp)
    infinity = ((1 << exponent) - 1) << mantissa
    greatest, least = infinity, 0
    if exponent_bits < exponent:
        bias, reduced = (1 << (exponent - 1)) - 1, (1 << (exponent_bits - 1)) - 1
        greatest, least = (bias + reduced) << mantissa, (bias - reduced + 1) << mantissa
    return (1 << info.bits - 1), infinity, max(0, mantissa - mantissa_bits), greatest, least


def _reduce_precision(attrs: Attrs, of: Sequence[Dtype], to: Dtype, args: Sequence[str]) -> str | None:
    if attrs["mantissa_bits"] == 0:  # then XLA has no NaN
        return None
    unsigned = f"uint{8 * to.itemsize}"
    numbers = _precision(to, attrs["exponent_bits"], attrs["mantissa_bits"])
    given = ", ".join(f"np.{unsigned}({number})" for number in numbers)
    return _of_bits(to, f"reduce_precision_{unsigned}({widened(to, args[0])}, {_bits(to, args[0])}, {given})")


def name_of(op: Op, dtype: Dtype) -> str:
    """What source calls a function of `graphopt.backends.numba.vecmath`."""
    return f"{op.name}_{dtype.name}"


def _function(op: Op) -> Expression:
    def expression(attrs: Attrs, of: Sequence[Dtype], to: Dtype, args: Sequence[str]) -> str | None:
        # Who asks XLA for an accuracy gets XLA's.
        known = all((op, dtype) in VECMATH for dtype in of) and attrs.get("accuracy") is None
        return f"{name_of(op, to)}({', '.join(args)})" if known else None

    return expression


FUNCTIONS: Mapping[Op, Expression] = {op: _function(op) for op, _ in VECMATH}
"""The elementwise operations that take a polynomial or more."""

MUL, DIV, SELECT, NEG, ABS, CONVERT, BITCAST, NEXT_AFTER, REDUCE_PRECISION, INTEGER_POW = (
    op_of(primitive)
    for primitive in (
        *(p.mul_p, p.div_p, p.select_n_p, p.neg_p, p.abs_p, p.convert_element_type_p, p.bitcast_convert_type_p),
        *(p.nextafter_p, p.reduce_precision_p, p.integer_pow_p),
    )
)

SCALARS: Mapping[Op, Expression] = {
    **FUNCTIONS,
    op_of(p.add_p): _wrapping("({0} + {1})", "{0} + {1}", "({0} | {1})", "wrapping_add({0}, {1})"),
    op_of(p.sub_p): _wrapping("({0} - {1})", "{0} - {1}", None, "wrapping_sub({0}, {1})"),
    MUL: _wrapping("({0} * {1})", "{0} * {1}", "({0} & {1})", "wrapping_mul({0}, {1})"),
    DIV: _both("({0} / {1})", "divide({0}, {1})"),
    op_of(p.rem_p): _both("float_remainder({0}, {1})", "remainder({0}, {1})"),
    NEG: _wrapping("negate({0})", "-{0}", None, "wrapping_sub(np.int64(0), {0})"),
    op_of(p.max_p): _both("maximum({0}, {1})", "max({0}, {1})", "({0} | {1})"),
    op_of(p.min_p): _both("minimum({0}, {1})", "min({0}, {1})", "({0} & {1})"),
    ABS: _wrapping(
        "fabs({0})", "-{0} if {0} < 0 else {0}", None, "(wrapping_sub(np.int64(0), {0}) if {0} < 0 else {0})"
    ),
    op_of(p.sign_p): _both("({0} if {0} != {0} else copysign({T}({0} != 0), {0}))", "int({0} > 0) - int({0} < 0)"),
    op_of(p.square_p): _wrapping("({0} * {0})", "{0} * {0}", None, "wrapping_mul({0}, {0})"),
    op_of(p.floor_p): _floating("floor({0})"),
    op_of(p.ceil_p): _floating("ceil({0})"),
    op_of(p.round_p): _round,
    op_of(p.sqrt_p): _floating("sqrt({0})"),
    op_of(p.is_finite_p): lambda attrs, of, to, args: f"(fabs({args[0]}) < np.inf)" if is_float(of[0]) else None,
    op_of(p.eq_p): _compare("=="),
    op_of(p.ne_p): _compare("!="),
    op_of(p.lt_p): _compare("<"),
    op_of(p.le_p): _compare("<="),
    op_of(p.gt_p): _compare(">"),
    op_of(p.ge_p): _compare(">="),
    op_of(p.and_p): _both("", "{0} & {1}", "({0} & {1})"),
    op_of(p.or_p): _both("", "{0} | {1}", "({0} | {1})"),
    op_of(p.xor_p): _both("", "{0} ^ {1}", "({0} ^ {1})"),
    op_of(p.not_p): _both("", "~{0}", "(not {0})"),
    op_of(p.shift_left_p): _integer("shift_left({0}, {1})"),
    op_of(p.shift_right_logical_p): _integer("shift_right_logical({0}, {1})"),
    op_of(p.shift_right_arithmetic_p): _integer("shift_right_arithmetic({0}, {1})"),
    op_of(p.population_count_p): _integer("population_count({0})"),
    op_of(p.clz_p): _integer("count_leading_zeros({0})"),
    INTEGER_POW: _integer_pow,
    SELECT: _select,
    op_of(p.clamp_p): _clamp,
    CONVERT: _convert,
    BITCAST: _bitcast,
    THREEFRY: lambda attrs, of, to, args: f"threefry_{attrs['word']}({', '.join(args)})",
    NEXT_AFTER: _next_after,
    REDUCE_PRECISION: _reduce_precision,
}
"""The elementwise operations that kernels compute, and how: of halves in float32."""

ON_BITS: Mapping[Op, Expression] = {
    SELECT: _select,
    BITCAST: _bitcast,
    NEXT_AFTER: _next_after,
    REDUCE_PRECISION: _reduce_precision,
    INTEGER_POW: _integer_pow,
    NEG: lambda attrs, of, to, args: f"np.uint16({args[0]} ^ np.uint16(0x8000))",
    ABS: lambda attrs, of, to, args: f"np.uint16({args[0]} & np.uint16(0x7FFF))",
}
"""Those of halves that are not widened for them as a whole."""


def expression(op: Op, attrs: Attrs, of: Sequence[Dtype], to: Dtype, args: Sequence[str]) -> str | None:
    """`op` on operands of these dtypes, given as source; None where it cannot be said.

    A value of float16 or bfloat16 is its bits.
    """
    if any(dtype.kind == "c" for dtype in (*of, to)):
        return _of_complex(op, attrs, of, to, args)
    if op not in SCALARS:
        return None
    if not any(map(is_half, (*of, to))):
        return SCALARS[op](attrs, of, to, args)
    if op in ON_BITS:
        return ON_BITS[op](attrs, of, to, args)
    if op is CONVERT and of[0] == to:
        return args[0]
    if op is CONVERT and to.kind == "b":  # a denormal is not zero here, for XLA does not widen it either
        return f"(np.uint16({args[0]} & np.uint16(0x7FFF)) != 0)"
    if op is CONVERT and to == FLOAT16 and of[0] == np.float64 and computes_on_float16():
        return f"round_float16({args[0]})"
    wide = [widened(dtype, arg) for dtype, arg in zip(of, args, strict=True)]
    found = SCALARS[op](attrs, list(map(computed_as, of)), computed_as(to), wide)
    return None if found is None else narrowed(to, found)


def _of_complex(op: Op, attrs: Attrs, of: Sequence[Dtype], to: Dtype, args: Sequence[str]) -> str | None:
    """To and from real numbers by their real part; the rest from its own table."""
    if op is SELECT:
        return _select(attrs, of, to, args)
    if op is CONVERT and of[0].kind != "c":
        part = np.dtype(f"f{to.itemsize // 2}")
        return f"pair({expression(CONVERT, attrs, of, part, args)}, np.{part.name}(0))"
    if op is CONVERT and to.kind != "c":
        return expression(CONVERT, attrs, [np.dtype(f"f{of[0].itemsize // 2}")], to, [f"{args[0]}.real"])
    return COMPLEX[op](attrs, of, to, args) if op in COMPLEX else None


INFINITIES: Mapping[str, str] = {
    f"np.float32({sign}np.inf)": f"bits_to_float32(np.int32({bits} | (stop >> 62)))"
    for sign, bits in (("", 0x7F800000), ("-", -0x800000))
} | {
    f"np.float64({sign}np.inf)": f"bits_to_float64(np.int64({bits} | (stop >> 62)))"
    for sign, bits in (("", 0x7FF << 52), ("-", -(1 << 52)))
}
"""How source selects an infinity, so that LLVM does not know that it is one: `stop` is less than 2**62.

`min(a, inf if c else x)` would become `a if c else min(a, x)`, which it does not vectorize.
"""


def half_power_name(exponent: float, dtype: Dtype) -> str:
    """What source calls a power whose exponent is known."""
    return f"pow_{'minus_' if exponent < 0 else ''}{int(2 * abs(exponent))}_halves_{dtype.name}"


def value_source(value: Value) -> str:
    """A value as source."""
    return value.name if isinstance(value, Local) else literal(value.value)


def applied(value: Apply, dtype: Dtype) -> str:
    """A scalar operation on values as source."""
    args = [value_source(operand) for operand in value.values]
    if value.op is SELECT:
        args = [INFINITIES.get(arg, arg) for arg in args]
    if value.op is POW and isinstance(exponent := value.values[1], Literal):
        known = (float(exponent.value), dtype)
        if known in HALF_POWERS and value.values[0].dtype == dtype:
            return f"{half_power_name(*known)}({args[0]})"
    source = expression(value.op, value.attrs, [operand.dtype for operand in value.values], dtype, args)
    assert source is not None, value
    return source


def reason(node: Node) -> str | None:
    """Why an elementwise node cannot be computed in a kernel; None where it can."""
    avals = (*(n.aval for n in node.inputs), node.aval)
    for aval in avals:
        if aval.dtype not in DTYPES:
            return f"{aval.dtype} is left to XLA"
    if node.op not in SCALARS and node.op not in COMPLEX:
        return f"{node.op.name} is left to XLA"
    of = [n.aval.dtype for n in node.inputs]
    if expression(node.op, node.attrs, of, node.aval.dtype, [f"x{i}" for i in range(len(of))]) is None:
        return f"{node.op.name} of {', '.join(map(str, of))} is left to XLA"
    return None
