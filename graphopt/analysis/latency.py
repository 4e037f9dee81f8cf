"""How long one number takes to be computed of another: what steps that wait for each other are made of.

Engines make the same instructions of most operations, so that all wait as long.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from jax.extend.core import primitives as p

from graphopt.ir.graph import Graph
from graphopt.ir.node import Node
from graphopt.ir.op import CONSTANT, Op, op_of

INTEGER, FLOATING = 0.25, 0.85
"""Nanoseconds of an operation on integers, and on floating numbers: a sum, a product."""

FUNCTION = 8.0
"""Of a function that is a polynomial, or more."""

_OTHERS: dict[str, tuple[float, float]] = {
    "mul": (0.75, FLOATING),
    "div": (3.0, 3.0),
    "rem": (3.0, 20.0),
    "sqrt": (5.0, 5.0),
    "neg": (INTEGER, 0.3),
    "abs": (0.5, 0.3),
    "max": (0.5, 2.4),
    "min": (0.5, 2.4),
    "clamp": (1.0, 4.8),
    "select_n": (0.5, 0.7),
    "convert_element_type": (0.5, 1.5),
    "pow": (10.0, 20.0),
    "integer_pow": (1.5, 1.7),
}
_FUNCTIONS = (
    *("exp", "exp2", "expm1", "log", "log1p", "log2", "sin", "cos", "tan", "tanh", "sinh", "cosh", "asin", "acos"),
    *("atan", "atan2", "asinh", "acosh", "atanh", "erf", "erfc", "erf_inv", "logistic", "cbrt", "rsqrt"),
)

LATENCIES: Mapping[Op, tuple[float, float]] = {
    op_of(getattr(p, f"{name}_p")): times
    for name, times in (dict.fromkeys(_FUNCTIONS, (FUNCTION, FUNCTION)) | _OTHERS).items()
    if hasattr(p, f"{name}_p")
}
"""Nanoseconds, of integers and of floating numbers."""


def latency(op: Op, dtype: np.dtype[Any]) -> float:
    """Nanoseconds from an operand of a scalar operation to its result."""
    return LATENCIES.get(op, (INTEGER, FLOATING))[dtype.kind not in "biu"]


def chain(graph: Graph, carried: Iterable[tuple[Node, Node]]) -> float:
    """Nanoseconds of the longest way from a number that a step is given by the one before to one it gives on.

    carried: parameters of the step's graph, and the outputs that take their places.
    """
    pairs = tuple(carried)
    ready: dict[Node, float] = {param: 0.0 for param, _ in pairs}
    for node in graph.nodes:
        waited = [ready[n] for n in node.inputs if n in ready]
        if node in ready or not waited or node.op is CONSTANT:
            continue
        dtype = node.avals[0].dtype
        own = latency(node.op, np.dtype(dtype)) if node.op.elementwise and isinstance(dtype, np.dtype) else 0.0
        ready[node] = max(waited) + own
    return max((ready.get(output, 0.0) for _, output in pairs), default=0.0)
