"""How long one number takes to be computed of another: what steps that wait for each other are made of.

Engines make the same instructions of most operations, so that all wait as long; of functions each has its own.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from typing import Any

import numpy as np

from graphopt.ir.op import Op, ops_of

INTEGER, FLOATING = 0.25, 0.85
"""Nanoseconds of an operation on integers, and on floating numbers: a sum, a product."""

FORWARDED, FORWARDED_IN_KERNEL = 2.5, 4.0
"""Nanoseconds in which what a step writes to memory can be read by the next one: the least that was measured of XLA's
loops over 4 to 64 numbers, and the most of kernels'."""

IN_DOUBT = 3.1
"""And what an operation takes longer in a kernel than in XLA where it is not known to be as fast: measured of a
greatest of two numbers, for NaN and -0.0."""

_OTHERS: dict[str, tuple[float, float]] = {
    "mul": (0.75, FLOATING),
    "div": (3.0, 3.0),
    "rem": (3.0, 20.0),
    "sqrt": (4.0, 4.0),
    "neg": (INTEGER, 0.3),
    "abs": (0.5, 0.3),
    "max": (0.5, 2.4),
    "min": (0.5, 2.4),
    "clamp": (1.0, 4.8),
    "select_n": (0.5, 0.7),
    "convert_element_type": (0.5, 1.5),
    "integer_pow": (1.5, 1.7),
}

FUNCTION, IN_KERNEL = 8.0, 35.0
"""Nanoseconds of a function that is a polynomial, or more: in XLA, and in a kernel. Of most neither is known."""

_FUNCTIONS: dict[str, tuple[float, float]] = {
    **dict.fromkeys(("exp2", "log2", "tan", "sinh", "cosh", "asin", "acos", "atan2"), (FUNCTION, IN_KERNEL)),
    **dict.fromkeys(("asinh", "acosh", "atanh", "erfc", "erf_inv", "cbrt"), (FUNCTION, IN_KERNEL)),
    "exp": (12.0, 14.0),
    "expm1": (20.0, 15.0),
    "log": (23.0, 21.0),
    "log1p": (33.0, 26.0),
    "sin": (8.5, 14.0),
    "cos": (8.5, 14.0),
    "atan": (16.0, 18.0),
    "tanh": (12.5, 20.0),
    "logistic": (19.0, 23.0),
    "erf": (11.5, 24.0),
    "rsqrt": (7.5, 8.0),
    "pow": (19.0, 36.0),
}
"""Of XLA's the least that was measured on jax 0.10 and 0.12, of 4, 16 and 64 numbers; of kernels' the most."""

AS_FAST = frozenset(ops_of(("add", "sub", "mul", "div", "neg", "square", "select_n", "abs", "floor", "sqrt")).values())

LATENCIES: Mapping[Op, tuple[float, float]] = {op: _OTHERS[name] for name, op in ops_of(_OTHERS).items()}
"""Nanoseconds, of integers and of floating numbers."""

FUNCTIONS: Mapping[Op, tuple[float, float]] = {op: _FUNCTIONS[name] for name, op in ops_of(_FUNCTIONS).items()}


def latency(op: Op, dtype: np.dtype[Any], in_kernel: bool = False) -> float:
    """Nanoseconds from an operand of a scalar operation to its result; on the low side in XLA, the high in a kernel."""
    if op in FUNCTIONS:
        return FUNCTIONS[op][in_kernel]
    known = LATENCIES.get(op, (INTEGER, FLOATING))[dtype.kind not in "biu"]
    in_doubt = in_kernel and dtype.kind not in "biu" and (op not in AS_FAST or dtype.itemsize < 4)
    return known + (IN_DOUBT if in_doubt else 0.0)


Computed = tuple[Hashable, Iterable[Hashable], float]
"""What is computed, of what, and in how many nanoseconds."""


def chain(steps: Iterable[Computed], carried: Iterable[tuple[Hashable, Hashable]]) -> float:
    """Nanoseconds of the longest way from what a step is given by the one before to what it gives on.

    steps: in order; what is computed again takes the place of what it was. carried: names of what is given, and of what
    takes its place in the next step.
    """
    pairs = tuple(carried)
    ready = dict.fromkeys((given for given, _ in pairs), 0.0)
    for result, operands, own in steps:
        since = [ready[name] for name in operands if name in ready]
        if since:
            ready[result] = max(since) + own
        else:
            ready.pop(result, None)
    return max((ready.get(taken, 0.0) for _, taken in pairs), default=0.0)
