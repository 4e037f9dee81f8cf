"""The bits of elements as more elements of fewer bits, or as fewer of more.

    %1: u8[3,4] = bitcast_convert_type[new_dtype=uint8](%0)      where %0 is f32[3]
Element (i, j) of it is byte j of element i, the lowest first.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from jax.extend.core import primitives as p

from graphopt.analysis.access import Indices
from graphopt.analysis.derive import Derivation
from graphopt.analysis.reductions import OR
from graphopt.ir.attrs import EMPTY
from graphopt.ir.index import number
from graphopt.ir.loop import Apply, Literal, Local, Position, Value
from graphopt.ir.node import Node
from graphopt.ir.op import Op, op_of
from graphopt.ops.make import default_attrs

BITCAST, SHIFT_LEFT, SHIFT_RIGHT = (
    op_of(primitive) for primitive in (p.bitcast_convert_type_p, p.shift_left_p, p.shift_right_logical_p)
)


def changes_width(node: Node) -> bool:
    """Whether a node is a bitcast to elements of another width."""
    return node.op is BITCAST and node.inputs[0].aval.dtype.itemsize != node.aval.dtype.itemsize


def recast(derivation: Derivation, node: Node) -> None:
    """Elements of a bitcast to another width are put together, or cut, from the operand's."""
    derivation.combined[node] = lambda at: _element(derivation, node, at)


def _element(derivation: Derivation, node: Node, at: Indices) -> Value:
    (operand,) = node.inputs
    of, to = operand.aval.dtype, node.aval.dtype
    if of.itemsize > to.itemsize:
        whole = _bits(derivation, derivation.value(operand, at[:-1]))
        shift = derivation.let(Position(at[-1] * (8 * to.itemsize)), whole.dtype)
        part = _apply(derivation, SHIFT_RIGHT, whole.dtype, whole, shift)
        return _of_bits(derivation, derivation.converted(part, _unsigned(to)), to)
    total: Value = Literal(_unsigned(to).type(0))
    for place in range(to.itemsize // of.itemsize):
        bits = _bits(derivation, derivation.value(operand, (*at, number(place))))
        offset = Literal(_unsigned(to).type(place * 8 * of.itemsize))
        high = _apply(derivation, SHIFT_LEFT, _unsigned(to), derivation.converted(bits, _unsigned(to)), offset)
        total = _apply(derivation, OR, _unsigned(to), total, high)
    return _of_bits(derivation, total, to)


def _unsigned(dtype: Any) -> np.dtype[Any]:
    return np.dtype(f"u{dtype.itemsize}")


def _apply(derivation: Derivation, op: Op, dtype: Any, *values: Value) -> Local:
    return derivation.let(Apply(op, EMPTY, values), dtype)


def _bits(derivation: Derivation, value: Value) -> Value:
    return _of_bits(derivation, value, _unsigned(value.dtype))


def _of_bits(derivation: Derivation, value: Value, dtype: Any) -> Value:
    if value.dtype == dtype:
        return value
    attrs = default_attrs(BITCAST).replace(new_dtype=np.dtype(dtype))
    return derivation.let(Apply(BITCAST, attrs, (value,)), dtype)
