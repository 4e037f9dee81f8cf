"""How the factors of a product of matrices lie in memory, where it can be computed a block at a time."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from weakref import WeakKeyDictionary

from graphopt.analysis.products import DOT, Axes, axes_of, declined_anyhow, is_for_loops
from graphopt.ir.node import Node


@dataclass(frozen=True, slots=True)
class Line:
    """Axes of an array that are one in memory: `extent` elements, each `step` behind the one before."""

    extent: int
    step: int


@dataclass(frozen=True, slots=True)
class Factor:
    """How a factor lies in memory. batch: the steps of the axes that matrices are side by side along. free, summed: the
    axes that the result has, and those that are summed over."""

    batch: tuple[int, ...]
    free: Line
    summed: Line


@dataclass(frozen=True, slots=True)
class Blocked:
    """A product that is computed block by block. batch: extents of the axes that matrices are side by side along.
    side: which factor a block has rows of; of the other one it has columns."""

    node: Node
    batch: tuple[int, ...]
    factors: tuple[Factor, Factor]
    side: int

    @property
    def is_copied(self) -> bool:
        """Whether columns do not lie beside each other in memory, so that they are copied."""
        return self.factors[1 - self.side].free.step != 1


_known: WeakKeyDictionary[Node, Blocked | None] = WeakKeyDictionary()


def blocked(node: Node) -> Blocked | None:
    """How a product of matrices is computed block by block; None where it is not. It is found out once."""
    if node not in _known:
        _known[node] = _blocked(node) if node.op is DOT else None
    return _known[node]


def blocked_among(nodes: Iterable[Node]) -> list[Node]:
    """The products among some nodes that are computed block by block."""
    return [node for node in nodes if blocked(node) is not None]


def _blocked(node: Node) -> Blocked | None:
    dtypes = {n.aval.dtype for n in (*node.inputs, node)}
    dtype = node.aval.dtype
    if len(dtypes) > 1 or dtype.kind != "f" or dtype.itemsize not in (4, 8) or not node.aval.size:
        return None
    if is_for_loops(node) or declined_anyhow(node) is not None:
        return None
    axes = axes_of(node)
    left, right = (_factor(axes, side, node.inputs[side].aval.shape) for side in (0, 1))
    if left is None or right is None:
        return None
    rows, columns, length = left.free.extent, right.free.extent, left.summed.extent
    # What is copied, or computed across what it is stored along, goes through memory in steps.
    across = columns * length if right.free.step != 1 else 0
    turned = rows * columns + (rows * length if left.free.step != 1 else 0)
    return Blocked(node, tuple(node.aval.shape[: len(axes.batch[0])]), (left, right), int(turned < across))


def _factor(axes: Axes, side: int, shape: Sequence[int]) -> Factor | None:
    """How a factor of this shape lies in memory; None where what is one axis of the product is not one of it."""
    steps = [math.prod(shape[axis + 1 :]) for axis in range(len(shape))]
    free, summed = (_line(of[side], shape, steps) for of in (axes.free, axes.summed))
    if free is None or summed is None:
        return None
    return Factor(tuple(steps[axis] for axis in axes.batch[side]), free, summed)


def _line(axes: Sequence[int], shape: Sequence[int], steps: Sequence[int]) -> Line | None:
    """Axes as one; None where they are not that in memory."""
    line = Line(1, 1)
    for axis in reversed(axes):
        if shape[axis] == 1:
            continue
        if line.extent > 1 and steps[axis] != line.extent * line.step:
            return None
        line = Line(line.extent * shape[axis], line.step if line.extent > 1 else steps[axis])
    return line
