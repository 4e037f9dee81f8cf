"""What reductions accumulate: for the greatest and least of floating numbers, integers in the same order.

A greatest number of two takes some instructions that wait for each other, for a NaN is greater than all and 0.0 is
greater than -0.0. Of integers it is one instruction, in vectors and at the end of a row that fills none. As integers
the bits of numbers are in their order, where all but the sign of negative ones are flipped; NaNs are at both ends then,
by their signs. Integers wrap around: what is added to all of them brings the NaNs of one end to those of the other.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from jax.extend.core import primitives as p

from graphopt.analysis.folds import GT, SELECT, Writer
from graphopt.analysis.reductions import ADD, AND, MAX, MIN, XOR, Reduction, accumulated_as
from graphopt.ir.attrs import EMPTY
from graphopt.ir.aval import is_floating
from graphopt.ir.loop import Apply, Literal, Local, Value
from graphopt.ir.op import Op, op_of

BITCAST, SHIFT, LT = (op_of(primitive) for primitive in (p.bitcast_convert_type_p, p.shift_right_arithmetic_p, p.lt_p))


@dataclass(frozen=True, slots=True)
class Accumulator:
    """How elements of a dtype are combined by a reduction. dtype: of what is combined."""

    reduction: Reduction
    of: np.dtype[Any]
    dtype: np.dtype[Any]

    @property
    def is_ordered(self) -> bool:
        """Whether numbers are combined as integers."""
        return self.dtype != self.of

    @property
    def start(self) -> Literal:
        """What combining starts from."""
        start = self.reduction.start(self.of)
        if not self.is_ordered:
            return Literal(start)
        bits = int(start.view(self.dtype))
        key = bits ^ (np.iinfo(self.dtype).max if bits < 0 else 0)
        return Literal(self.dtype.type(key + int(self._turn)))

    @property
    def _turn(self) -> Any:
        """What brings NaNs to the end that is kept: as many as there are of one sign."""
        one_sign = (1 << np.finfo(self.of).nmant) - 1
        return self.dtype.type(-one_sign if self.reduction.combine is MAX else one_sign)

    @property
    def _last(self) -> Literal:
        """Infinity, behind which all NaNs are."""
        limits, both_signs = np.iinfo(self.dtype), 2 * abs(int(self._turn))
        return Literal(
            self.dtype.type(limits.max - both_signs if self.reduction.combine is MAX else limits.min + both_signs)
        )

    def taken(self, writer: Writer, value: Value) -> Value:
        """An element as what is combined."""
        value = writer.converted(value, self.of)
        if not self.is_ordered:
            return value
        bits = _apply(writer, BITCAST, self.dtype, value)
        key = _apply(writer, XOR, self.dtype, bits, self._flipped(writer, bits))
        return _apply(writer, ADD, self.dtype, key, Literal(self._turn))

    def given(self, writer: Writer, value: Value) -> Value:
        """What was combined as a number."""
        if not self.is_ordered:
            return value
        key = _apply(writer, ADD, self.dtype, value, Literal(-self._turn))
        bits = _apply(writer, XOR, self.dtype, key, self._flipped(writer, key))
        number, none = _apply(writer, BITCAST, self.of, bits), Literal(self.of.type(np.nan))
        is_none = _apply(writer, GT if self.reduction.combine is MAX else LT, np.bool_, value, self._last)
        return _apply(writer, SELECT, self.of, is_none, number, none)

    def _flipped(self, writer: Writer, bits: Value) -> Value:
        """The bits of a number to be flipped: all but the sign where it is set."""
        shift = Literal(self.dtype.type(8 * self.dtype.itemsize - 1))
        sign = _apply(writer, SHIFT, self.dtype, bits, shift)
        return _apply(writer, AND, self.dtype, sign, Literal(self.dtype.type(np.iinfo(self.dtype).max)))


def accumulator(reduction: Reduction, dtype: Any) -> Accumulator:
    """How elements of a dtype are combined one after the other."""
    of = accumulated_as(dtype)
    ordered = reduction.combine in (MAX, MIN) and is_floating(of)
    return Accumulator(reduction, of, np.dtype(f"i{of.itemsize}") if ordered else of)


def _apply(writer: Writer, op: Op, dtype: Any, *values: Value) -> Local:
    return writer.let(Apply(op, EMPTY, values), np.dtype(dtype))
