"""The numbers of a loop's steps, for slices of its arrays: each a value that the compiler does not know.

XLA compiles each slice by itself, for where it begins is part of its code: 5 to 15 ms for each step's part of an array.
Where the beginning is an operand all parts have the same code, which XLA compiles once. It knows constants, and what is
computed from them, but not how many steps a loop has made.
"""

from __future__ import annotations

import numpy as np
from jax.extend.core import primitives as p

from graphopt.ir.graph import make_graph
from graphopt.ir.node import Node, param, project
from graphopt.ir.op import op_of
from graphopt.ops.control import Cond
from graphopt.ops.make import make, scalar
from graphopt.passes.rules.moving import reshaped

DYNAMIC_SLICE, MIN = op_of(p.dynamic_slice_p), op_of(p.min_p)


def numbers_after(steps: Node, count: int) -> tuple[Node, ...]:
    """0, 1, …, count - 1. steps: an i32 scalar, which is positive."""
    index = make(MIN, steps, scalar(1, np.int32))
    none, each = ([scalar(n, np.int32) for n in numbers] for numbers in ([0] * count, range(count)))
    node = Cond.make(index, [steps], [make_graph([param(0, steps.aval)], outputs) for outputs in (none, each)])
    return tuple([project(node, number) for number in range(count)])


def at_number(stack: Node, number: Node) -> Node:
    """The element of an array at this place along its first axis."""
    shape = stack.aval.shape[1:]
    zeros = [scalar(0, np.int32)] * len(shape)
    return reshaped(make(DYNAMIC_SLICE, stack, number, *zeros, slice_sizes=(1, *shape)), shape)
