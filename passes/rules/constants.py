"""What rules ask of constants: which operand is one, and whether a computed one may stand in a program."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np

from graphopt.ir.aval import array_aval
from graphopt.ir.node import Node, constant
from graphopt.ir.op import CONSTANT
from graphopt.ops.make import BROADCAST
from graphopt.rewrite.pattern import splat
from graphopt.rewrite.safety import kind_of


def value_of(node: Node) -> Any:
    """The value, a NumPy scalar, that all elements of a constant have; None for any other node."""
    return splat(node) if node.op is CONSTANT or node.op is BROADCAST else None


def with_constant(node: Node) -> tuple[Node, Any] | None:
    """For an operation that has one constant among its two operands: the other operand and the constant's value."""
    x, y = node.inputs
    right = value_of(y)
    if right is not None:
        return None if value_of(x) is not None else (x, right)
    left = value_of(x)
    return None if left is None else (y, left)


def literal(value: Any, like: Node) -> Node:
    """A constant without dimensions of a NumPy scalar, with a weak type where `like` has one."""
    array = np.asarray(value)
    return constant(array, array_aval((), array.dtype, like.aval.weak_type))


def is_normal(value: Any) -> bool:
    """Whether a constant is finite, not zero and not denormal: integers always count as such."""
    if kind_of(value.dtype) in "biu":
        return True
    with np.errstate(all="ignore"):
        return bool(np.isfinite(value) and np.abs(value) >= jnp.finfo(value.dtype).tiny)


def is_signed_minimum(value: Any) -> bool:
    """Whether a constant is the least value of a signed integer type, which has no negative."""
    return kind_of(value.dtype) == "i" and bool(value == np.iinfo(value.dtype).min)


def same_value(x: Node, y: Node) -> bool:
    """Whether two nodes are one, or constants of one value, to the bit, in all elements."""
    if x is y:
        return True
    a, b = value_of(x), value_of(y)
    return a is not None and b is not None and a.dtype == b.dtype and a.tobytes() == b.tobytes()
