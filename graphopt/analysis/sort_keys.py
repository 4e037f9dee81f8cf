"""Keys of sorting: unsigned integers in the order of the numbers that they are made of, that of `jax.lax.sort`.

-0.0 and 0.0 have one key, and all NaNs the greatest.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from jax.extend.core import primitives as p

from graphopt.analysis.derive import Derivation
from graphopt.analysis.reductions import AND, OR, XOR, accumulated_as
from graphopt.ir.attrs import EMPTY
from graphopt.ir.index import Index
from graphopt.ir.loop import Apply, Literal, Local, Position, Value
from graphopt.ir.node import Node
from graphopt.ir.op import op_of

CONVERT, BITCAST, SELECT, EQ, NE, SHIFT, MUL = (
    op_of(primitive)
    for primitive in (
        p.convert_element_type_p,
        p.bitcast_convert_type_p,
        p.select_n_p,
        p.eq_p,
        p.ne_p,
        p.shift_right_arithmetic_p,
        p.mul_p,
    )
)

PLACE = 32
"""Bits of a place beside a key."""


def key_dtype(node: Node) -> Any:
    """The dtype of the keys that a node's elements become."""
    return np.dtype(np.uint64 if node.aval.dtype.itemsize == 8 else np.uint32)


def apply(d: Derivation, op: Any, dtype: Any, *values: Value) -> Local:
    """A scalar operation as a new local value."""
    return d.let(Apply(op, EMPTY, values), dtype)


def _top(dtype: Any) -> Literal:
    return Literal(np.dtype(dtype).type(1 << (8 * np.dtype(dtype).itemsize - 1)))


def to_key(d: Derivation, value: Value) -> Value:
    """An unsigned number that is as much greater as `value` is in the order of sorting."""
    value = d.converted(value, accumulated_as(value.dtype))
    kind, wide = value.dtype.kind, value.dtype.itemsize == 8
    unsigned, signed = (np.uint64, np.int64) if wide else (np.uint32, np.int32)
    if kind in "bu":
        return value if value.dtype == unsigned else apply(d, CONVERT, unsigned, value)
    if kind == "i":
        widened = value if value.dtype == signed else apply(d, CONVERT, signed, value)
        return apply(d, XOR, unsigned, apply(d, BITCAST, unsigned, widened), _top(unsigned))
    zero = Literal(np.zeros((), value.dtype)[()])
    number = apply(d, SELECT, value.dtype, apply(d, EQ, np.bool_, value, zero), value, zero)
    bits = apply(d, BITCAST, signed, number)
    sign = apply(d, SHIFT, signed, bits, Literal(np.dtype(signed).type(8 * value.dtype.itemsize - 1)))
    flip = apply(d, OR, unsigned, apply(d, BITCAST, unsigned, sign), _top(unsigned))
    key = apply(d, XOR, unsigned, apply(d, BITCAST, unsigned, bits), flip)
    last = Literal(np.dtype(unsigned).type(np.iinfo(unsigned).max))
    return apply(d, SELECT, unsigned, apply(d, NE, np.bool_, value, value), key, last)


def from_key(d: Derivation, key: Value, dtype: Any) -> Value:
    """The number of a dtype that a key was made of; 0.0 for both zeros, and one NaN for all."""
    if accumulated_as(dtype) != dtype:
        return d.converted(from_key(d, key, accumulated_as(dtype)), dtype)
    dtype, unsigned = np.dtype(dtype), key.dtype
    signed = np.dtype(f"i{unsigned.itemsize}")
    if dtype.kind in "bu":
        return key if dtype == unsigned else apply(d, CONVERT, dtype, key)
    if dtype.kind == "i":
        number = apply(d, BITCAST, signed, apply(d, XOR, unsigned, key, _top(unsigned)))
        return number if dtype == signed else apply(d, CONVERT, dtype, number)
    # Where the highest bit is set the number was not negative: then only that bit was flipped, else all.
    shift = Literal(signed.type(8 * unsigned.itemsize - 1))
    positive = apply(d, SHIFT, signed, apply(d, BITCAST, signed, key), shift)
    negative = apply(d, XOR, signed, positive, Literal(signed.type(-1)))
    flip = apply(d, OR, unsigned, apply(d, BITCAST, unsigned, negative), _top(unsigned))
    return apply(d, BITCAST, dtype, apply(d, XOR, unsigned, key, flip))


def with_place(d: Derivation, key: Value, place: Index) -> Value:
    """A key of 32 bits and a place as a key of 64: equal keys are in the order of their places."""
    high = apply(d, MUL, np.uint64, apply(d, CONVERT, np.uint64, key), Literal(np.uint64(1 << PLACE)))
    return apply(d, OR, np.uint64, high, d.let(Position(place), np.uint64))


def place_of(d: Derivation, key: Value) -> Local:
    """The place in what `with_place` makes, int32."""
    return apply(d, CONVERT, np.int32, apply(d, AND, np.uint64, key, Literal(np.uint64((1 << PLACE) - 1))))
