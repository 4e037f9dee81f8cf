"""Scalar operations as Numba source: for each operation and dtype an expression with XLA's meaning.

Numba computes on small integers in 64 bits, so every integer result is cast back to its dtype, which wraps around as
XLA does. What is not here stays with XLA: `reason` says why.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from jax.extend.core import primitives as p

from graphopt.backends.numba.vecmath import SCALAR_MATH
from graphopt.ir.attrs import Attrs
from graphopt.ir.node import Node
from graphopt.ir.op import Op, op_of

DTYPES = tuple(map(np.dtype, ("bool", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f4", "f8")))
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
    if dtype.kind == "b":
        return str(bool(value))
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
    same_width = of[0].itemsize == to.itemsize and "b" not in (of[0].kind, to.kind)
    return f"bits_to_{to.name}({args[0]})" if same_width else None


def _integer_pow(attrs: Attrs, of: Sequence[Dtype], to: Dtype, args: Sequence[str]) -> str | None:
    """Repeated squaring, as JAX lowers it."""
    exponent, x = attrs["y"], args[0]
    if exponent == 0:
        return literal(to.type(1))
    if of[0].kind not in "iuf" or (exponent < 0 and not is_float(of[0])) or abs(exponent) > 64:
        return None

    def times(a: str, b: str) -> str:
        return cast(to, f"{a} * {b}")

    result, power, left = None, x, abs(exponent)
    while left:
        if left & 1:
            result = power if result is None else times(result, power)
        left >>= 1
        power = times(power, power)
    return result if exponent > 0 else f"({literal(to.type(1))} / {result})"


def _select(attrs: Attrs, of: Sequence[Dtype], to: Dtype, args: Sequence[str]) -> str:
    which, *cases = args
    if of[0].kind == "b":
        return f"({cases[1]} if {which} else {cases[0]})" if len(cases) == 2 else cases[0]
    chosen = cases[-1]
    for number in range(len(cases) - 2, -1, -1):
        chosen = f"({cases[number]} if {which} <= {number} else {chosen})"
    return chosen


def _clamp(attrs: Attrs, of: Sequence[Dtype], to: Dtype, args: Sequence[str]) -> str | None:
    low, x, high = args
    if to.kind == "b":
        return None
    form = "minimum(maximum({1}, {0}), {2})" if is_float(to) else "min(max({1}, {0}), {2})"
    return form.format(low, x, high) if is_float(to) else cast(to, form.format(low, x, high))


def name_of(op: Op, dtype: Dtype) -> str:
    """What source calls a function of `graphopt.backends.numba.vecmath`."""
    return f"{op.name}_{dtype.name}"


def _function(op: Op) -> Expression:
    def expression(attrs: Attrs, of: Sequence[Dtype], to: Dtype, args: Sequence[str]) -> str | None:
        # Who asks XLA for an accuracy gets XLA's.
        known = all((op, dtype) in SCALAR_MATH for dtype in of) and attrs.get("accuracy") is None
        return f"{name_of(op, to)}({', '.join(args)})" if known else None

    return expression


FUNCTIONS: Mapping[Op, Expression] = {op: _function(op) for op, _ in SCALAR_MATH}
"""The elementwise operations that take a polynomial or more."""

SCALARS: Mapping[Op, Expression] = {
    **FUNCTIONS,
    op_of(p.add_p): _both("({0} + {1})", "{0} + {1}", "({0} | {1})"),
    op_of(p.sub_p): _both("({0} - {1})", "{0} - {1}"),
    op_of(p.mul_p): _both("({0} * {1})", "{0} * {1}", "({0} & {1})"),
    op_of(p.div_p): _both("({0} / {1})", "divide({0}, {1})"),
    op_of(p.rem_p): _integer("remainder({0}, {1})"),
    op_of(p.neg_p): _both("(-{0})", "-{0}"),
    op_of(p.max_p): _both("maximum({0}, {1})", "max({0}, {1})", "({0} | {1})"),
    op_of(p.min_p): _both("minimum({0}, {1})", "min({0}, {1})", "({0} & {1})"),
    op_of(p.abs_p): _both("fabs({0})", "-{0} if {0} < 0 else {0}"),
    op_of(p.sign_p): _both("({0} if {0} != {0} else copysign({T}({0} != 0), {0}))", "int({0} > 0) - int({0} < 0)"),
    op_of(p.square_p): _both("({0} * {0})", "{0} * {0}"),
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
    op_of(p.integer_pow_p): _integer_pow,
    op_of(p.select_n_p): _select,
    op_of(p.clamp_p): _clamp,
    op_of(p.convert_element_type_p): _convert,
    op_of(p.bitcast_convert_type_p): _bitcast,
}
"""The elementwise operations that kernels compute, and how."""


def reason(node: Node) -> str | None:
    """Why an elementwise node cannot be computed in a kernel; None where it can."""
    avals = (*(n.aval for n in node.inputs), node.aval)
    for aval in avals:
        if aval.dtype not in DTYPES:
            return f"{aval.dtype} is left to XLA"
    expression = SCALARS.get(node.op)
    if expression is None:
        return f"{node.op.name} is left to XLA"
    of = [n.aval.dtype for n in node.inputs]
    if expression(node.attrs, of, node.aval.dtype, [f"x{i}" for i in range(len(of))]) is None:
        return f"{node.op.name} of {', '.join(map(str, of))} is left to XLA"
    return None
