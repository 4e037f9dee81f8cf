"""Engine choice: which operations another engine than XLA is expected to run so much faster that it pays.

In doubt it is XLA. What is here was measured: operations for which XLA's code for CPUs takes many times what the
machine needs. A kernel takes a tenth of a second to compile, a sort's more, so a run must be expected to gain GAIN.

Before:
    %1: i32[1000] = argmax[axes=(1,), index_dtype=int32](%0)
After, where %0 is f32[1000,1000]:
    %1: i32[1000] = kernel[body=@1, engine="numba", key=...](%0)
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from jax.extend.core import primitives as p

from graphopt.analysis.reductions import CUMULATIVE
from graphopt.analysis.sorting import SORT
from graphopt.ir.graph import Graph, nested_graphs
from graphopt.ir.node import Node
from graphopt.ir.op import Op, op_of

GAIN = 1_000_000.0
"""Nanoseconds that a run must be expected to gain for an operation to leave XLA."""

LONG = 256
"""Elements along the axis of an operation from which on it may leave: shorter rows XLA fuses with what makes them."""


@dataclass(frozen=True, slots=True)
class Pathology:
    """An operation that XLA:CPU is slow at. xla, kernel: nanoseconds for an element, measured on two cores.

    logarithmic: whether both are for an element and a doubling of the length.
    """

    xla: float
    kernel: float
    logarithmic: bool = False


PATHOLOGIES: Mapping[Op, Pathology] = {
    SORT: Pathology(9.0, 1.5, logarithmic=True),
    op_of(p.argmax_p): Pathology(2.0, 0.2),
    op_of(p.argmin_p): Pathology(2.0, 0.2),
    **dict.fromkeys(CUMULATIVE, Pathology(2.2, 0.7)),
}
"""Seen on jax 0.10 and 0.12. Reading each element once takes a tenth of a nanosecond."""


def gain(node: Node) -> float:
    """Nanoseconds that running an operation in a kernel is expected to gain; 0 where nothing is known."""
    known = PATHOLOGIES.get(node.op)
    aval = node.inputs[0].aval if node.inputs else None
    if known is None or aval is None or not aval.is_static:
        return 0.0
    length = aval.shape[_axis(node)]
    if length < LONG:
        return 0.0
    steps = math.log2(length) if known.logarithmic else 1.0
    return (known.xla - known.kernel) * steps * aval.size


def _axis(node: Node) -> int:
    """The axis that a sort, a cumulative operation, or an argmax goes along."""
    attrs = node.attrs
    axis: int = attrs["dimension"] if node.op is SORT else attrs["axis"] if node.op in CUMULATIVE else attrs["axes"][0]
    return axis


def is_worth_it(node: Node) -> bool:
    """Whether an operation is to leave XLA where the choice is free."""
    return gain(node) >= GAIN


def wants_another_engine(graph: Graph) -> bool:
    """Whether there is anything in a graph, or in its loops and branches, that is to leave XLA."""
    return any(is_worth_it(node) for inner in nested_graphs(graph) for node in inner.nodes if node.op in PATHOLOGIES)
