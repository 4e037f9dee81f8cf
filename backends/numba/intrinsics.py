"""Scalar operations that Numba's own language lacks or defines otherwise than XLA: one LLVM instruction or a few each.

Each takes and returns scalars of one dtype. Indexing here has no wrap-around for negative indices, whose check would
keep LLVM from vectorizing; what a kernel only reads is marked as such, so that no overlap is checked for at run time.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba import from_dtype, types
from numba.extending import intrinsic

WORD = ir.IntType(64)

ALIGNMENT = 64
"""Bytes of the widest vector."""


def _llvm(name: str) -> Any:
    """The LLVM intrinsic of this name, on one operand."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kind = args[0].type
        function = builder.module.declare_intrinsic(name, [kind], ir.FunctionType(kind, [kind]))
        return builder.call(function, args)

    return intrinsic(lambda typing, x: (x(x), generate))


ceil = _llvm("llvm.ceil")
round_away = _llvm("llvm.round")
population_count = _llvm("llvm.ctpop")


@intrinsic
def negate(typing: Any, x: Any) -> Any:
    """A floating number with the other sign, a NaN too: 0 - x would keep a NaN's."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.fneg(args[0])

    return x(x), generate


@intrinsic
def count_leading_zeros(typing: Any, x: Any) -> Any:
    """Zero bits above the highest one; the width for zero."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.ctlz(args[0], ir.Constant(ir.IntType(1), 0))

    return x(x), generate


def _combined(combine: Callable[[Any, Any, Any], Any]) -> Any:
    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return combine(builder, *args)

    return intrinsic(lambda typing, x, y: (x(x, x), generate))


# A product that only goes into a sum in any order is not rounded before it is added.
add_any_order = _combined(lambda builder, x, y: builder.fadd(x, y, flags=("reassoc", "contract")))
mul_any_order = _combined(lambda builder, x, y: builder.fmul(x, y, flags=("reassoc",)))
mul_to_add = _combined(lambda builder, x, y: builder.fmul(x, y, flags=("contract",)))

# Numba tells LLVM that its own never overflow, which then concludes from x - y < x that y > 0.
wrapping_add = _combined(lambda builder, x, y: builder.add(x, y))
wrapping_sub = _combined(lambda builder, x, y: builder.sub(x, y))
wrapping_mul = _combined(lambda builder, x, y: builder.mul(x, y))


def _is_signed(kind: Any) -> bool:
    return isinstance(kind, types.Integer) and kind.signed


def _divide(quotient: bool) -> Any:
    """Integer division as XLA has it: towards zero; x / 0 is all ones, x % 0 is x, and the least number / -1 itself."""

    def of(typing: Any, x: Any, y: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            a, b = args
            kind = a.type
            zero, one, ones = (ir.Constant(kind, value) for value in (0, 1, -1))
            by_zero = builder.icmp_unsigned("==", b, zero)
            undefined = by_zero
            if _is_signed(x):
                least = ir.Constant(kind, -(2 ** (kind.width - 1)))
                overflow = builder.and_(builder.icmp_unsigned("==", a, least), builder.icmp_unsigned("==", b, ones))
                undefined = builder.or_(by_zero, overflow)
            divisor = builder.select(undefined, one, b)
            if quotient:
                found = builder.sdiv(a, divisor) if _is_signed(x) else builder.udiv(a, divisor)
                return builder.select(by_zero, ones, found)
            found = builder.srem(a, divisor) if _is_signed(x) else builder.urem(a, divisor)
            return builder.select(by_zero, a, found)

        return x(x, x), generate

    return intrinsic(of)


divide = _divide(True)
remainder = _divide(False)


def _shift(kind_of_shift: str) -> Any:
    """Shifts as XLA has them: by the width or more (as an unsigned number) nothing is left but the sign."""

    def of(typing: Any, x: Any, y: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            a, by = args
            width = ir.Constant(a.type, a.type.width)
            inside = builder.icmp_unsigned("<", by, width)
            amount = builder.select(inside, by, ir.Constant(a.type, a.type.width - 1))
            if kind_of_shift == "arithmetic":
                return builder.ashr(a, amount)
            found = builder.shl(a, amount) if kind_of_shift == "left" else builder.lshr(a, amount)
            return builder.select(inside, found, ir.Constant(a.type, 0))

        return x(x, x), generate

    return intrinsic(of)


shift_left = _shift("left")
shift_right_logical = _shift("logical")
shift_right_arithmetic = _shift("arithmetic")


@intrinsic
def choose(typing: Any, condition: Any, a: Any, b: Any) -> Any:
    """`a` where the condition holds, otherwise `b`. Of a conditional expression LLVM may make a choice of what is
    loaded, which it does not vectorize."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.select(*args)

    return (a(types.boolean, a, b), generate) if a == b else None


def float_to_integer(to: Any) -> Any:
    """Conversion of a floating number to the integer dtype `to`: towards zero, saturating, NaN to 0.

    What does not fit is chosen by comparisons: LLVM's own saturating conversion is done one element at a time.
    """
    result = from_dtype(np.dtype(to))

    def of(typing: Any, x: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            number, kind = args[0], ir.IntType(max(result.bitwidth, 32))
            low, high = (ir.Constant(number.type, float(end)) for end in (result.minval, result.maxval + 1))
            is_low, is_high = builder.fcmp_ordered("<", number, low), builder.fcmp_ordered(">=", number, high)
            fits = builder.and_(builder.fcmp_ordered(">=", number, low), builder.fcmp_ordered("<", number, high))
            held = builder.select(fits, number, ir.Constant(number.type, 0.0))
            found = builder.fptosi(held, kind) if result.signed else builder.fptoui(held, kind)
            found = builder.select(is_high, ir.Constant(kind, result.maxval), found)
            found = builder.select(is_low, ir.Constant(kind, result.minval), found)
            return found if kind.width == result.bitwidth else builder.trunc(found, ir.IntType(result.bitwidth))

        return result(x), generate

    return intrinsic(of)


def bits_to(to: Any) -> Any:
    """The bits of a number as one of another dtype of the same width."""
    result = from_dtype(np.dtype(to))

    def of(typing: Any, x: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            return builder.bitcast(args[0], context.get_value_type(result))

        return result(x), generate

    return intrinsic(of)


def _element(builder: Any, kind: Any, address: Any, index: Any) -> Any:
    base = builder.inttoptr(address, kind.as_pointer())
    return builder.gep(base, [index], inbounds=True)


def tile_of(dtype: Any) -> Any:
    """`tile(size)`: the address of `size` elements of `dtype` on the stack, a number that is known when compiling."""
    element = from_dtype(np.dtype(dtype))

    def of(typing: Any, size: Any) -> Any:
        if not isinstance(size, types.IntegerLiteral):
            return None

        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            kind = ir.ArrayType(context.get_data_type(element), size.literal_value)
            with builder.goto_entry_block():  # not filled with zeros, which takes LLVM long
                memory = builder.alloca(kind)
            memory.align = ALIGNMENT
            return builder.ptrtoint(memory, WORD)

        return types.uintp(size), generate

    return intrinsic(prefer_literal=True)(of)


def _constant(module: Any) -> Any:
    """What nobody writes to, as a scope of memory that no store is in: loops need no checks for overlap, which LLVM
    does not make where rows are read in one order and written in another."""
    domain = module.add_metadata(["graphopt"])
    return module.add_metadata([module.add_metadata(["constant", domain])])


def element_reader(dtype: Any, constant: bool) -> Any:
    """`read(address, index)`: element `index` of an array of `dtype`. constant: nobody writes to it meanwhile."""
    result = from_dtype(np.dtype(dtype))

    def of(typing: Any, address: Any, index: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            kind = context.get_data_type(result)
            loaded = builder.load(_element(builder, kind, *args))
            if constant:
                loaded.set_metadata("invariant.load", builder.module.add_metadata([]))
                loaded.set_metadata("alias.scope", _constant(builder.module))
            if result == types.boolean:  # Numba asks by a branch, after which LLVM makes no vectors
                return builder.icmp_unsigned("!=", loaded, ir.Constant(kind, 0))
            return context.data_model_manager[result].from_data(builder, loaded)

        return result(types.uintp, types.intp), generate

    return intrinsic(of)


def element_writer(dtype: Any) -> Any:
    """`write(address, index, value)`: sets element `index` of an array of `dtype`."""
    of_value = from_dtype(np.dtype(dtype))

    def of(typing: Any, address: Any, index: Any, value: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            kind = context.get_data_type(of_value)
            stored = context.data_model_manager[of_value].as_data(builder, args[2])
            store = builder.store(stored, _element(builder, kind, args[0], args[1]))
            store.set_metadata("noalias", _constant(builder.module))
            return context.get_dummy_value()

        return types.void(types.uintp, types.intp, of_value), generate

    return intrinsic(of)


@intrinsic
def opaque(typing: Any, x: Any) -> Any:
    """The same number, of which the compiler does not know that it is."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kind = ir.FunctionType(WORD, [WORD])
        return builder.asm(kind, "", "=r,0", [args[0]], side_effect=False)

    return types.intp(types.intp), generate
