"""Rules for captured arrays that count, and for captured masks that are cut along a diagonal.

What positions make is not read: the count, or the comparison of two, takes the place of the constant where it is
repeated, compared or chosen by. So `jnp.arange(n)` and `jnp.tril(...)` are the same inside of a function and outside.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from jax.extend.core import primitives as p

from graphopt.analysis.regular import sequence_of, triangle_of
from graphopt.ir.node import Node
from graphopt.ir.op import CONSTANT, op_of
from graphopt.ops.make import BROADCAST, make, scalar
from graphopt.passes.rules.moving import IOTA, RESHAPE, SLICE, applied
from graphopt.rewrite.rule import AnyRule, rewrites
from graphopt.rewrite.safety import kind_of

ADD, MUL, LE, GE, SELECT = map(op_of, (p.add_p, p.mul_p, p.le_p, p.ge_p, p.select_n_p))

MOVES = (BROADCAST, RESHAPE, SLICE)

LEAST_COUNTED = 32
"""Elements along an axis below which a constant stays: many rules read small ones."""


def count(x: Node) -> Node | None:
    """The iota, maybe times a number, plus one, that a constant of integers is."""
    shape, dtype = x.aval.shape, x.aval.dtype
    if x.op is not CONSTANT or max(shape, default=0) < LEAST_COUNTED:
        return None
    found = sequence_of(x.value)
    if found is None or shape[found.axis] < LEAST_COUNTED or (found.step < 0 and kind_of(dtype) == "u"):
        return None
    node = make(IOTA, dtype=dtype, shape=shape, dimension=found.axis)
    if found.step != 1:
        node = make(MUL, node, scalar(found.step, dtype))
    return node if not found.start else make(ADD, node, scalar(found.start, dtype))


def mask(x: Node) -> Node | None:
    """The comparison of two iotas that a constant of booleans is."""
    shape = x.aval.shape
    if x.op is not CONSTANT or x.aval.dtype != np.bool_ or sum(n >= LEAST_COUNTED for n in shape) != 2:
        return None
    found = triangle_of(x.value)
    if found is None:
        return None
    row, column = (make(IOTA, dtype=np.dtype(np.int32), shape=shape, dimension=axis) for axis in found.axes)
    if found.shift:
        row = make(ADD, row, scalar(found.shift, row.aval.dtype))
    return make(GE if found.above else LE, column, row)


def _with(node: Node, regular: Callable[[Node], Node | None]) -> Node | None:
    """`node` with what its places make in the place of constant operands; None where there are none."""
    found = [regular(n) for n in node.inputs]
    if not any(found):
        return None
    return applied(node.op, node.attrs, *[new or old for new, old in zip(found, node.inputs, strict=True)])


@rewrites(*MOVES, safety="exact", law="reduction", all_operands=[CONSTANT])
def repeated_count(node: Node) -> Node | None:
    """broadcast(constant) → broadcast(start + step * iota) where the constant counts so"""
    return _with(node, count)


@rewrites(
    *(p.eq_p, p.ne_p, p.lt_p, p.le_p, p.gt_p, p.ge_p, p.add_p, p.sub_p),
    safety="exact",
    law="reduction",
    an_operand=[CONSTANT],
)
def combined_count(node: Node) -> Node | None:
    """constant < x → start + step * iota < x where the constant counts so; for sums, where x repeats it"""
    if node.aval.dtype != np.bool_ and all(n.aval.size in (1, node.aval.size) for n in node.inputs):
        return None
    return _with(node, count)


@rewrites(*MOVES, p.and_p, p.or_p, p.not_p, SELECT, safety="exact", law="reduction", an_operand=[CONSTANT])
def known_triangle(node: Node) -> Node | None:
    """where(constant, x, y) → where(iota <= iota + k, x, y) where the constant is a triangle of ones"""
    return _with(node, mask)


RULES: tuple[AnyRule, ...] = (repeated_count, combined_count, known_triangle)
"""The rules of this subject."""
