"""Numbers in code that is being generated, and the LLVM instructions that Python has no operator for.

The functions of this package are Python functions of such numbers: called, they emit their instructions into the loop
that calls them, so that it can be vectorized. Numba sees one intrinsic for each (`scalar`), and neither translates nor
types what is inside, which would take it some hundredths of a second for each function.

IEEE arithmetic: nothing is reassociated, and a division by zero is not an error. No operand is converted but by name
(`float32(x)`), for what Python's numbers may stand where they are of the other operand's kind.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import llvmlite.binding as llvm
import numpy as np
from llvmlite import ir
from numba import from_dtype
from numba.extending import intrinsic
from numba.np.numpy_support import as_dtype

Dtype = np.dtype[Any]

_FLOATS = {4: ir.FloatType(), 8: ir.DoubleType()}


def type_of(dtype: Dtype, lanes: int = 1) -> Any:
    """How LLVM calls numbers of a dtype, and vectors of them."""
    if dtype.kind == "c":
        return ir.LiteralStructType([_FLOATS[dtype.itemsize // 2]] * 2)
    kind = _FLOATS[dtype.itemsize] if dtype.kind == "f" else ir.IntType(1 if dtype.kind == "b" else 8 * dtype.itemsize)
    return kind if lanes == 1 else ir.VectorType(kind, lanes)


def _constant(value: Any, dtype: Dtype, lanes: int) -> Any:
    """A number that is known before the code runs, in each lane."""
    one = ir.Constant(type_of(dtype), value)
    return one if lanes == 1 else ir.Constant(type_of(dtype, lanes), [one] * lanes)


def intrinsic_name(name: str, *kinds: Any) -> str:
    """How LLVM calls its intrinsic on these types."""

    def of(kind: Any) -> str:
        if isinstance(kind, ir.VectorType):
            return f"v{kind.count}{kind.element.intrinsic_name}"
        return str(kind.intrinsic_name)

    return ".".join([name, *map(of, kinds)])


@dataclass(frozen=True, slots=True, eq=False)
class Number:
    """A number that is computed when the code runs, or a vector of them, in each of whose lanes the same is done.

    value: what LLVM knows it as, from `builder` on. dtype: of one of them.
    """

    builder: Any
    value: Any
    dtype: Dtype

    __array_ufunc__ = None  # a NumPy scalar on the left leaves operators to this class

    def _new(self, value: Any, dtype: Dtype | None = None) -> Number:
        return Number(self.builder, value, self.dtype if dtype is None else dtype)

    @property
    def lanes(self) -> int:
        """How many numbers these are."""
        return self.value.type.count if isinstance(self.value.type, ir.VectorType) else 1

    def _value(self, other: Any) -> Any:
        """A number of the same dtype, as LLVM knows it."""
        return _number(self, other, self.dtype).value

    def _arithmetic(self, other: Any, name: str, reversed: bool = False) -> Number:
        if self.dtype.kind not in "iuf":
            raise TypeError(f"{name} of {self.dtype}")
        operands = (self._value(other), self.value) if reversed else (self.value, self._value(other))
        return self._new(getattr(self.builder, f"f{name}" if self.dtype.kind == "f" else name)(*operands))

    def __add__(self, other: Any) -> Number:
        return self._arithmetic(other, "add")

    def __radd__(self, other: Any) -> Number:
        return self._arithmetic(other, "add", reversed=True)

    def __sub__(self, other: Any) -> Number:
        return self._arithmetic(other, "sub")

    def __rsub__(self, other: Any) -> Number:
        return self._arithmetic(other, "sub", reversed=True)

    def __mul__(self, other: Any) -> Number:
        return self._arithmetic(other, "mul")

    def __rmul__(self, other: Any) -> Number:
        return self._arithmetic(other, "mul", reversed=True)

    def __truediv__(self, other: Any) -> Number:
        return self._new(self.builder.fdiv(self.value, self._value(other)))

    def __rtruediv__(self, other: Any) -> Number:
        return self._new(self.builder.fdiv(self._value(other), self.value))

    def __neg__(self) -> Number:
        return self._new(self.builder.fneg(self.value) if self.dtype.kind == "f" else self.builder.neg(self.value))

    def __invert__(self) -> Number:
        return self._new(self.builder.not_(self.value))

    def __and__(self, other: Any) -> Number:
        return self._new(self.builder.and_(self.value, self._value(other)))

    def __or__(self, other: Any) -> Number:
        return self._new(self.builder.or_(self.value, self._value(other)))

    def __xor__(self, other: Any) -> Number:
        return self._new(self.builder.xor(self.value, self._value(other)))

    def __lshift__(self, other: Any) -> Number:
        return self._new(self.builder.shl(self.value, self._value(other)))

    def __rlshift__(self, other: Any) -> Number:
        return self._new(self.builder.shl(self._value(other), self.value))

    def __rshift__(self, other: Any) -> Number:
        shift = self.builder.ashr if self.dtype.kind == "i" else self.builder.lshr
        return self._new(shift(self.value, self._value(other)))

    def _compared(self, other: Any, sign: str) -> Number:
        """A NaN compares as different."""
        if self.dtype.kind == "f":
            compare = self.builder.fcmp_unordered if sign == "!=" else self.builder.fcmp_ordered
        else:
            compare = self.builder.icmp_signed if self.dtype.kind == "i" else self.builder.icmp_unsigned
        return self._new(compare(sign, self.value, self._value(other)), np.dtype(bool))

    def __lt__(self, other: Any) -> Number:
        return self._compared(other, "<")

    def __le__(self, other: Any) -> Number:
        return self._compared(other, "<=")

    def __gt__(self, other: Any) -> Number:
        return self._compared(other, ">")

    def __ge__(self, other: Any) -> Number:
        return self._compared(other, ">=")

    def __eq__(self, other: Any) -> Any:
        return self._compared(other, "==")

    def __ne__(self, other: Any) -> Any:
        return self._compared(other, "!=")

    def __bool__(self) -> bool:
        raise TypeError("whether it holds is not known before the code runs: use select")

    @property
    def real(self) -> Number:
        """The first part of a complex number."""
        return self._part(0)

    @property
    def imag(self) -> Number:
        """The second part of a complex number."""
        return self._part(1)

    def _part(self, number: int) -> Number:
        return self._new(self.builder.extract_value(self.value, number), np.dtype(f"f{self.dtype.itemsize // 2}"))


def _number(beside: Number, value: Any, dtype: Dtype) -> Number:
    """A number of a dtype: one that is computed already, or a constant, in as many lanes as another."""
    if isinstance(value, Number):
        if value.dtype != dtype:
            raise TypeError(f"{value.dtype} where {dtype} is needed")
        return value
    own = getattr(value, "dtype", None)  # of NumPy's
    fits = own == dtype if own is not None else dtype == np.float64 if isinstance(value, float) else dtype.kind in "iub"
    if not fits:
        raise TypeError(f"{value!r} where {dtype} is needed")
    constant = _constant(value.item() if own is not None else value, dtype, beside.lanes)
    return Number(beside.builder, constant, dtype)


def operands_of(*values: Any) -> list[Number]:
    """Some numbers of one dtype, which at least one of them has, or a constant of NumPy's or of float64."""
    computed = [value for value in values if isinstance(value, Number)]
    return [_number(computed[0], value, computed[0].dtype) for value in values]


@dataclass(frozen=True, slots=True)
class Kind:
    """A dtype that can be called: with a number of Python's or NumPy's as NumPy's, with a computed one to convert it.

    A floating number becomes an integer towards zero, and is to be in its range.
    """

    dtype: Dtype

    def __call__(self, value: Any) -> Any:
        """The number in this dtype."""
        return self._converted(value) if isinstance(value, Number) else self.dtype.type(value)

    def _converted(self, number: Number) -> Number:
        of, to, builder = number.dtype, self.dtype, number.builder
        if of == to:
            return number
        kind, wider = type_of(to, number.lanes), to.itemsize > of.itemsize
        if of.kind == to.kind == "f":
            convert = builder.fpext if wider else builder.fptrunc
        elif of.kind == "f":
            convert = builder.fptosi if to.kind == "i" else builder.fptoui
        elif to.kind == "f":
            convert = builder.sitofp if of.kind == "i" else builder.uitofp
        elif of.kind == "b" or wider:
            convert = builder.sext if of.kind == "i" else builder.zext
        elif of.itemsize == to.itemsize:
            return Number(builder, number.value, to)
        else:
            convert = builder.trunc
        return Number(builder, convert(number.value, kind), to)


float32, float64 = Kind(np.dtype(np.float32)), Kind(np.dtype(np.float64))
int32, int64 = Kind(np.dtype(np.int32)), Kind(np.dtype(np.int64))
uint16, uint32, uint64 = Kind(np.dtype(np.uint16)), Kind(np.dtype(np.uint32)), Kind(np.dtype(np.uint64))


def scalar(function: Callable[..., Number], result: Callable[..., Dtype] = lambda *of: of[0]) -> Any:
    """A function of numbers as Numba calls it.

    result: the dtype of its result by those of its operands.
    """

    def typed(typing: Any, *operands: Any) -> Any:
        dtypes = [as_dtype(operand) for operand in operands]

        def emit(context: Any, builder: Any, signature: Any, values: Sequence[Any]) -> Any:
            numbers = (Number(builder, value, dtype) for value, dtype in zip(values, dtypes, strict=True))
            found = function(*numbers)
            assert found.dtype == result(*dtypes), (function, found.dtype)
            return found.value

        return from_dtype(result(*dtypes))(*operands), emit

    return intrinsic_like(function, typed)


def intrinsic_like(function: Callable[..., Any], typed: Any) -> Any:
    """An intrinsic by how it is typed, with the parameters of a function, which Numba counts."""
    first = inspect.Parameter("typing", inspect.Parameter.POSITIONAL_OR_KEYWORD)
    typed.__signature__ = inspect.Signature([first, *inspect.signature(function).parameters.values()])
    typed.__name__ = function.__name__
    return intrinsic(typed)


def _call(name: str, *operands: Any) -> Number:
    """A call of an LLVM intrinsic whose operands and result are all of one type."""
    numbers = operands_of(*operands)
    builder, kind = numbers[0].builder, numbers[0].value.type
    of_kind = ir.FunctionType(kind, [kind] * len(numbers))
    function = builder.module.declare_intrinsic(intrinsic_name(name, kind), (), of_kind)
    return Number(builder, builder.call(function, [number.value for number in numbers]), numbers[0].dtype)


def rint(x: Any) -> Number:
    """The nearest integer, ties to even."""
    return _call("llvm.rint", x)


def floor(x: Any) -> Number:
    """The greatest integer that is not above."""
    return _call("llvm.floor", x)


def sqrt(x: Any) -> Number:
    """The square root, rounded once."""
    return _call("llvm.sqrt", x)


def fabs(x: Any) -> Number:
    """The absolute value of a floating number."""
    return _call("llvm.fabs", x)


def copysign(size: Any, sign: Any) -> Number:
    """The first with the sign of the second."""
    return _call("llvm.copysign", size, sign)


def maximum(x: Any, y: Any) -> Number:
    """The greater: a NaN if one is, and 0.0 above -0.0."""
    return _call("llvm.maximum", x, y)


def minimum(x: Any, y: Any) -> Number:
    """The lesser: a NaN if one is, and -0.0 below 0.0."""
    return _call("llvm.minimum", x, y)


def fma(a: Any, b: Any, c: Any) -> Number:
    """a * b + c, rounded once."""
    return _call("llvm.fma", a, b, c)


def fmod(x: Number, y: Number) -> Number:
    """The remainder, by a call of C's function for each number."""
    return Number(x.builder, x.builder.frem(x.value, y.value), x.dtype)


@cache
def scales() -> bool:
    """Whether this processor multiplies vectors by powers of two in one instruction, and LLVM knows of it."""
    return bool(llvm.get_host_cpu_features().get("avx512f")) and llvm.llvm_version_info >= (22,)


def scale(x: Any, n: Number) -> Number:
    """x * 2**n for an integer n of 32 bits or within them, rounded once. Where the processor does not: a call."""
    count = int32(n).value
    number = _number(n, x, x.dtype)
    kind = number.value.type
    function = ir.FunctionType(kind, [kind, count.type])
    found = n.builder.module.declare_intrinsic(intrinsic_name("llvm.ldexp", kind, count.type), (), function)
    return Number(n.builder, n.builder.call(found, [number.value, count]), number.dtype)


def horner(x: Any, coefficients: Sequence[Any]) -> Any:
    """The polynomial with these coefficients, constant term first, one fma for each but the last."""
    *rest, value = coefficients
    for coefficient in reversed(rest):
        value = fma(value, x, coefficient)
    return value


def paired(x: Any, coefficients: Sequence[Any]) -> Any:
    """The same polynomial by pairs of terms, of which none waits for another: Horner's rule in x², half as many steps.

    One multiplication more, and of the last step two numbers are rounded (Estrin's first step; Knuth, The Art of
    Computer Programming 2, 4.6.4).
    """
    square = x * x
    terms = list(coefficients)
    pairs = [fma(b, x, a) for a, b in zip(terms[::2], terms[1::2], strict=False)]
    value = terms[-1] if len(terms) % 2 else pairs.pop()
    for pair in reversed(pairs):
        value = fma(value, square, pair)
    return value


def select(condition: Number, a: Any, b: Any) -> Number:
    """`a` where the condition holds, otherwise `b`; both are computed, and no branch is left to be removed."""
    known = next((x for x in (a, b) if isinstance(x, Number)), None)
    dtype = known.dtype if known is not None else np.asarray(a).dtype
    first, second = (_number(condition, x, dtype) for x in (a, b))
    return Number(condition.builder, condition.builder.select(condition.value, first.value, second.value), dtype)


def pair(re: Number, im: Number) -> Number:
    """The complex number of two parts."""
    builder, dtype = re.builder, np.dtype(f"c{2 * re.dtype.itemsize}")
    found = ir.Constant(type_of(dtype), ir.Undefined)
    return Number(builder, builder.insert_value(builder.insert_value(found, re.value, 0), im.value, 1), dtype)


def _of_same_width(x: Number, kind: str) -> Number:
    dtype = np.dtype(f"{kind}{x.dtype.itemsize}")
    return Number(x.builder, x.builder.bitcast(x.value, type_of(dtype, x.lanes)), dtype)


def to_bits(x: Number) -> Number:
    """The bits of a float32 as an int32, of a float64 as an int64."""
    return _of_same_width(x, "i")


def from_bits(x: Number) -> Number:
    """The float32 with the bits of an int32, the float64 with those of an int64."""
    return _of_same_width(x, "f")
