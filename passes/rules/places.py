"""Rules for the places of elements, as iota counts them, and for what is taken from them or put there.

`x[jnp.arange(n)]` asks of each index whether it is negative; `x.at[jnp.arange(n), jnp.arange(n)]` is a diagonal.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from jax.extend.core import primitives as p

from graphopt.analysis.network import counts_diagonal, from_the_start
from graphopt.ir.node import Node
from graphopt.ir.op import op_of
from graphopt.ops.make import BROADCAST, full, make
from graphopt.passes.rules.comparison import FUNCTIONS, to_a_constant
from graphopt.passes.rules.constants import with_constant
from graphopt.passes.rules.moving import IOTA, RESHAPE, broadcast, uniform
from graphopt.rewrite.rule import AnyRule, rewrites
from graphopt.rewrite.safety import kind_of

ADD, MUL, EQ, NE, SELECT, SQUEEZE = map(op_of, (p.add_p, p.mul_p, p.eq_p, p.ne_p, p.select_n_p, p.squeeze_p))
SCATTER, SCATTER_ADD = map(op_of, (p.scatter_p, p.scatter_add_p))

DEEPEST = 4
"""Operations that places may be away from an iota."""


def _bounds(node: Node) -> tuple[int, int] | None:
    """Between which numbers the elements lie of an iota, times a number and more by one; None where that is not known,
    or they wrap around."""
    if kind_of(node.aval.dtype) not in "iu" or not node.aval.is_static or not node.aval.size:
        return None
    later: list[tuple[Any, int]] = []
    x = node
    while x.op is not IOTA:
        if len(later) == DEEPEST:
            return None
        if x.op in (BROADCAST, RESHAPE, SQUEEZE) and len(x.inputs) == 1:
            later.append((ADD, 0))
            (x,) = x.inputs
            continue
        found = with_constant(x) if x.op in (ADD, MUL) else None
        if found is None:
            return None
        later.append((x.op, int(found[1])))
        x = found[0]
    if x.inputs:
        return None
    low, high = 0, x.aval.shape[x.attrs["dimension"]] - 1
    limits = np.iinfo(node.aval.dtype)
    for op, number in ((ADD, 0), *reversed(later)):
        ends = [end + number if op is ADD else end * number for end in (low, high)]
        low, high = min(ends), max(ends)
        if low < limits.min or high > limits.max:
            return None
    return low, high


@rewrites(*(p.eq_p, p.ne_p, p.lt_p, p.le_p, p.gt_p, p.ge_p), safety={"iu": "exact"}, law="absorption")
def comparison_of_places(node: Node) -> Node | None:
    """iota < 0 → False, and the like: where all places compare alike"""
    found = to_a_constant(node)
    if found is None or kind_of(found[1].aval.dtype) not in "iu" or (ends := _bounds(found[1])) is None:
        return None
    op, _, limit = found
    low, high = ends
    if op in (EQ, NE):
        if low <= int(limit) <= high:
            return None
        return full(op is NE, node.aval)
    first, last = (bool(FUNCTIONS[op](end, int(limit))) for end in ends)
    return full(first, node.aval) if first == last else None


@rewrites(p.scatter_p, p.scatter_add_p, safety="exact", law="reduction")
def scatter_along_a_diagonal(node: Node) -> Node | None:
    """scatter(full(c), (i, i), v) → where(eye, v, c) for all places i; scatter_add → where(eye, c + v, c)"""
    x, indices, update = node.inputs
    shape, numbers = x.aval.shape, node.attrs["dimension_numbers"]
    if uniform(x) is None or len(shape) != 2 or shape[0] != shape[1] or update.aval.shape != shape[:1]:
        return None
    if numbers.update_window_dims or numbers.operand_batching_dims or not counts_diagonal(indices, shape[0]):
        return None
    if sorted(numbers.scatter_dims_to_operand_dims) != [0, 1]:
        return None
    return _diagonal(node, update, shape[0])


@rewrites(p.reshape_p, safety="exact", law="reduction", an_operand=[SCATTER, SCATTER_ADD])
def scatter_in_steps_of_a_diagonal(node: Node) -> Node | None:
    """reshape(scatter(full(c), i * (n + 1), v), (n, n)) → where(eye, v, c)"""
    inner, shape = node.inputs[0], node.aval.shape
    if inner.op not in (SCATTER, SCATTER_ADD) or len(shape) != 2 or shape[0] != shape[1] or node.attrs["dimensions"]:
        return None
    x, indices, update = inner.inputs
    count = shape[0]
    if uniform(x) is None or len(x.aval.shape) != 1 or update.aval.shape != (count,) or count < 2:
        return None
    if inner.attrs["dimension_numbers"].update_window_dims or indices.op not in (BROADCAST, RESHAPE):
        return None
    steps = from_the_start(indices.inputs[0])
    if indices.aval.shape != (count, 1) or steps.op is not MUL or steps.aval.shape != (count,):
        return None
    found = with_constant(steps)
    if found is None or found[0].op is not IOTA or found[0].inputs or int(found[1]) != count + 1:
        return None
    return _diagonal(inner, update, count) if _bounds(steps) is not None else None


def _diagonal(node: Node, update: Node, count: int) -> Node:
    """What a scatter to a uniform array puts on the diagonal of a square one of so many rows."""
    start = uniform(node.inputs[0])
    assert start is not None
    shape = (count, count)
    rows, columns = (make(IOTA, dtype=np.dtype(np.int32), shape=shape, dimension=axis) for axis in (0, 1))
    around = broadcast(start, shape, ())
    value = broadcast(update, shape, (0,))
    if node.op is SCATTER_ADD:
        value = make(ADD, around, value)
    return make(SELECT, make(EQ, rows, columns), around, value)


RULES: tuple[AnyRule, ...] = (comparison_of_places, scatter_along_a_diagonal, scatter_in_steps_of_a_diagonal)
