"""Numbers as Numba computes with them: their types, and the LLVM code of operators, conversions and comparisons.

Integers are computed in 64 bits, signed where one of the operands is, and int64 does not overflow. Where Numba would
make floating numbers of integers of two kinds, or has a type that kernels do not, there is nothing here.
"""

from __future__ import annotations

import ast
import math
import operator
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np
from llvmlite import ir
from numba import types

WORD, TRUTH = ir.IntType(64), ir.IntType(1)


class NotTranslatedError(Exception):
    """A function has something that is not translated here."""


@dataclass(frozen=True, slots=True)
class Value:
    """What is known when the code runs. kind: its type in Numba. code: what LLVM knows it as.

    What is known before is the Python object itself.
    """

    kind: Any
    code: Any


ARITHMETIC = {
    ast.Add: (operator.add, "add"),
    ast.Sub: (operator.sub, "sub"),
    ast.Mult: (operator.mul, "mul"),
    ast.Div: (operator.truediv, ""),
    ast.FloorDiv: (operator.floordiv, ""),
    ast.Mod: (operator.mod, ""),
    ast.BitAnd: (operator.and_, "and_"),
    ast.BitOr: (operator.or_, "or_"),
    ast.BitXor: (operator.xor, "xor"),
    ast.LShift: (operator.lshift, "shl"),
    ast.RShift: (operator.rshift, ""),
}

COMPARISONS = {
    ast.Eq: (operator.eq, "=="),
    ast.NotEq: (operator.ne, "!="),
    ast.Lt: (operator.lt, "<"),
    ast.LtE: (operator.le, "<="),
    ast.Gt: (operator.gt, ">"),
    ast.GtE: (operator.ge, ">="),
}


@dataclass(slots=True)
class Numbers:
    """Numbers in the code that `builder` writes. context: Numba's, which knows how LLVM calls its types."""

    context: Any
    builder: Any

    def number(self, value: Any) -> Value:
        """A value of what may be known before the code runs."""
        if isinstance(value, Value):
            return value
        if isinstance(value, bool):
            return Value(types.boolean, TRUTH(value))
        if isinstance(value, int):
            return self.cast(value, types.int64 if value < 1 << 63 else types.uint64)
        if isinstance(value, float):
            return self.cast(value, types.float64)
        raise NotTranslatedError(f"{value!r} as a number")

    def truth(self, value: Any) -> Any:
        """Whether a number is not zero, as LLVM knows it."""
        found = self.number(value)
        if found.kind == types.boolean:
            return found.code
        zero = ir.Constant(found.code.type, 0)
        if isinstance(found.kind, types.Integer):
            return self.builder.icmp_unsigned("!=", found.code, zero)
        if isinstance(found.kind, types.Float):
            return self.builder.fcmp_unordered("!=", found.code, zero)
        raise NotTranslatedError(f"the truth of {found.kind}")

    def same(self, value: Any, kind: Any) -> Value:
        """A value where one of this type is asked for: integers of one width are."""
        found = self.number(value)
        if found.kind != kind and not (isinstance(found.kind, types.Integer) and isinstance(kind, types.Integer)):
            raise NotTranslatedError(f"{found.kind} for {kind}")
        return self.cast(found, kind)

    def cast(self, value: Any, kind: Any) -> Value:
        """A number as one of another type."""
        to = self.context.get_value_type(kind)
        if isinstance(value, int | float):
            if isinstance(kind, types.Float):
                return Value(kind, to(float(np.dtype(kind.name).type(value))))
            if isinstance(kind, types.Integer) and math.isfinite(value):
                wrapped = int(value) % (1 << kind.bitwidth)
                return Value(kind, to(wrapped - (1 << kind.bitwidth) * (wrapped >> (kind.bitwidth - 1))))
            raise NotTranslatedError(f"{value} as {kind}")
        if not isinstance(value, Value):
            raise NotTranslatedError(f"{value} as {kind}")
        if value.kind == kind:
            return value
        return Value(kind, self.converted(value, kind, to))

    def converted(self, value: Value, kind: Any, to: Any) -> Any:
        """The code of a number as one of another type, which LLVM calls `to`."""
        of, code, builder = value.kind, value.code, self.builder
        signed = isinstance(of, types.Integer) and of.signed
        if isinstance(of, types.Integer | types.Boolean) and isinstance(kind, types.Integer):
            width = code.type.width
            if width >= to.width:
                return code if width == to.width else builder.trunc(code, to)
            return builder.sext(code, to) if signed else builder.zext(code, to)
        if isinstance(of, types.Integer | types.Boolean) and isinstance(kind, types.Float):
            return builder.sitofp(code, to) if signed else builder.uitofp(code, to)
        if isinstance(of, types.Float) and isinstance(kind, types.Float):
            return builder.fpext(code, to) if kind.bitwidth > of.bitwidth else builder.fptrunc(code, to)
        raise NotTranslatedError(f"{of} as {kind}")

    def common(self, values: Sequence[Value]) -> Any:
        """The type of one of several values."""
        kinds = {value.kind for value in values}
        if len(kinds) == 1:
            return values[0].kind
        if types.int64 in kinds and types.uint64 not in kinds and all(isinstance(k, types.Integer) for k in kinds):
            return types.int64
        self.refuse(kinds)

    @staticmethod
    def refuse(kinds: Any) -> NoReturn:
        """Raises NotTranslatedError: numbers of several types are not combined."""
        raise NotTranslatedError(f"the common type of {', '.join(sorted(map(str, kinds)))}")

    def integer(self, value: Value) -> Value:
        """A number as Numba computes with it: an integer in 64 bits."""
        if isinstance(value.kind, types.Integer):
            return self.cast(value, types.int64 if value.kind.signed else types.uint64)
        return value

    def operands(self, left: Any, right: Any) -> tuple[Value, Value]:
        """Two numbers as ones of the type in which they are combined."""
        a, b = map(self.integer, map(self.number, (left, right)))
        if a.kind == b.kind:
            return a, b
        kinds = {a.kind, b.kind}
        if kinds == {types.int64, types.uint64}:
            return self.cast(a, types.int64), self.cast(b, types.int64)
        is_known = isinstance(left, int | float) or isinstance(right, int | float)
        if kinds <= {types.float32, types.float64, *([types.int64] if is_known else [])}:
            return self.cast(a, types.float64), self.cast(b, types.float64)
        self.refuse(kinds)

    def binary(self, op: type[ast.operator], left: Any, right: Any) -> Any:
        """An operator on two numbers."""
        if op not in ARITHMETIC:
            raise NotTranslatedError(op.__name__)
        known, name = ARITHMETIC[op]
        if isinstance(left, int | float) and isinstance(right, int | float):
            return known(left, right)
        a, b = self.operands(left, right)
        if a.kind == types.boolean:
            if op not in (ast.BitAnd, ast.BitOr, ast.BitXor):
                raise NotTranslatedError(f"{op.__name__} of booleans")
            return Value(a.kind, getattr(self.builder, name)(a.code, b.code))
        if isinstance(a.kind, types.Float):
            if op not in (ast.Add, ast.Sub, ast.Mult, ast.Div):
                raise NotTranslatedError(f"{op.__name__} of {a.kind}")
            return Value(a.kind, getattr(self.builder, f"f{name or 'div'}")(a.code, b.code))
        if not isinstance(a.kind, types.Integer) or op is ast.Div:
            raise NotTranslatedError(f"{op.__name__} of {a.kind}")
        if op in (ast.FloorDiv, ast.Mod):
            return self.divided(a, b, op is ast.Mod)
        if op in (ast.LShift, ast.RShift):
            # By less than 64: of more neither Numba nor LLVM says what there is.
            if isinstance(right, int) and not 0 <= right < 64:
                raise NotTranslatedError(f"a shift by {right}")
            if isinstance(left, Value) and isinstance(right, Value) and self.integer(left).kind != b.kind:
                self.refuse((left.kind, right.kind))
            shift = "shl" if op is ast.LShift else "ashr" if a.kind.signed else "lshr"
            return Value(a.kind, getattr(self.builder, shift)(a.code, b.code))
        flags = {"flags": ["nsw"]} if a.kind.signed and op in (ast.Add, ast.Sub, ast.Mult) else {}
        return Value(a.kind, getattr(self.builder, name)(a.code, b.code, **flags))

    def divided(self, a: Value, b: Value, rest: bool) -> Value:
        """Quotient or rest, rounded towards minus infinity; 0 where there is none."""
        builder, zero, one = self.builder, WORD(0), WORD(1)
        is_none = builder.icmp_unsigned("==", b.code, zero)
        if a.kind.signed:
            overflows = builder.icmp_signed("==", a.code, WORD(-(1 << 63)))
            is_none = builder.or_(is_none, builder.and_(overflows, builder.icmp_signed("==", b.code, WORD(-1))))
        by = builder.select(is_none, one, b.code)
        if not a.kind.signed:
            found = (builder.urem if rest else builder.udiv)(a.code, by)
            return Value(a.kind, builder.select(is_none, zero, found))
        left = builder.srem(a.code, by)
        has_other_sign = builder.icmp_signed("<", builder.xor(left, by), zero)
        is_above = builder.and_(has_other_sign, builder.icmp_signed("!=", left, zero))
        if rest:
            found = builder.select(is_above, builder.add(left, by), left)
        else:
            whole = builder.sdiv(a.code, by)
            found = builder.select(is_above, builder.sub(whole, one), whole)
        return Value(a.kind, builder.select(is_none, zero, found))

    def negative(self, operand: Any) -> Any:
        """A number with the other sign."""
        if isinstance(operand, int | float):
            return -operand
        value = self.integer(self.number(operand))
        if isinstance(value.kind, types.Float):
            return Value(value.kind, self.builder.fneg(value.code))
        if isinstance(value.kind, types.Integer):
            flags = ["nsw"] if value.kind.signed else []
            return Value(value.kind, self.builder.sub(WORD(0), value.code, flags=flags))
        raise NotTranslatedError(f"minus {value.kind}")

    def compare(self, op: type[ast.cmpop], left: Any, right: Any) -> Any:
        """A comparison of two numbers."""
        known, sign = COMPARISONS[op]
        if isinstance(left, int | float) and isinstance(right, int | float):
            return known(left, right)
        a, b = (self.unsigned_known(left, right), self.unsigned_known(right, left))
        a, b = (self.widened(a, b), self.widened(b, a))
        if a.kind == b.kind and isinstance(a.kind, types.Integer):
            compared = self.builder.icmp_signed if a.kind.signed else self.builder.icmp_unsigned
            return Value(types.boolean, compared(sign, a.code, b.code))
        if types.uint64 in (a.kind, b.kind):
            raise NotTranslatedError(f"{a.kind} {sign} {b.kind}")
        a, b = self.operands(a if isinstance(left, Value) else left, b if isinstance(right, Value) else right)
        if not isinstance(a.kind, types.Float):
            raise NotTranslatedError(f"{a.kind} {sign} {b.kind}")
        compared = self.builder.fcmp_unordered if op is ast.NotEq else self.builder.fcmp_ordered
        return Value(types.boolean, compared(sign, a.code, b.code))

    def unsigned_known(self, value: Any, other: Any) -> Value:
        """A number; one that is known and not negative as a uint64, where the other is."""
        is_count = isinstance(value, int) and not isinstance(value, bool) and value >= 0
        if is_count and isinstance(other, Value) and other.kind == types.uint64:
            return self.cast(value, types.uint64)
        return self.number(value)

    def widened(self, value: Value, other: Value) -> Value:
        """An integer to be compared with another of another type: where an int64 holds it, as one."""
        if value.kind != other.kind and isinstance(value.kind, types.Integer) and value.kind != types.uint64:
            return self.cast(value, types.int64)
        return value

    def extreme(self, sign: str, a: Value, b: Value) -> Value:
        """The lesser or greater of two integers."""
        kind = self.common([a, b])
        if not isinstance(kind, types.Integer):
            raise NotTranslatedError(f"an extreme of {kind}")
        first, second = self.cast(a, kind).code, self.cast(b, kind).code
        compared = self.builder.icmp_signed if kind.signed else self.builder.icmp_unsigned
        return Value(kind, self.builder.select(compared(sign, second, first), second, first))
