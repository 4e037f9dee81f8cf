"""Products of small matrices, many side by side, for each of which XLA calls a function of a library on a CPU.

Those of up to three rows, columns or terms it writes out, and those with eight of any it computes in blocks: a product
of (3, 3) by (3, 3) takes 10 to 20 ns, one of (8, 8) by (8, 8) 40 to 60, one of (4, 4) by (4, 4) 250 to 1500.
"""

from __future__ import annotations

import math

import numpy as np

from graphopt.analysis.products import DOT, axes_of, sizes_of
from graphopt.ir.node import Node

CALLED = 100.0
"""Nanoseconds of such a call, at least: so few on another processor."""

LEAST, MOST = 4, 7
"""Rows, columns and terms between which it is one: 2000 products each of 2, 3, 4, 5, 7 and 8, on jax 0.10 and 0.12."""


def is_called_one_by_one(node: Node) -> bool:
    """Whether a product is of many small matrices, for each of which XLA calls a function, one after the other."""
    if node.op is not DOT or not all(n.aval.is_static for n in (node, *node.inputs)):
        return False
    rows, columns, length = sizes_of(node)
    floating = all(n.aval.dtype in (np.float32, np.float64) for n in (node, *node.inputs))
    is_small = LEAST <= length <= MOST and LEAST <= max(rows, columns) <= MOST
    return floating and is_small and min(rows, columns) > 1 and calls(node) > 1


def calls(node: Node) -> int:
    """How many matrices a product has side by side."""
    return math.prod(node.inputs[0].aval.shape[axis] for axis in axes_of(node).batch[0])


def called_time(node: Node) -> float:
    """Nanoseconds that XLA takes for a product of many small matrices, one after the other; nothing of all others."""
    return CALLED * calls(node) if is_called_one_by_one(node) else 0.0
