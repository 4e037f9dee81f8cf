"""Right factors of products in kernels: as they lie in memory, or copied, what is needed at a time side by side."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from graphopt.analysis.access import Indices, Within
from graphopt.analysis.between import RowProduct
from graphopt.analysis.derive import Derivation
from graphopt.analysis.writing import INT64
from graphopt.ir.index import Index, delinear, linear, variable
from graphopt.ir.loop import SERIAL, Matrix, Position, Store
from graphopt.ir.node import Node
from graphopt.ir.op import PARAM

PANEL = 256
"""Bytes of the columns that a product has at a time: four vectors, and with all that is summed over in the first
cache."""

At = Callable[[Indices, Index, Index], Indices]
"""The indices of an element: of its matrix, of what is summed over, and of the columns."""


@dataclass(frozen=True, slots=True)
class Panels:
    """A right factor, columns `width` at a time. where: the matrix of a panel, for its number and the indices of the
    axes that matrices are side by side along."""

    columns: int
    width: int
    where: Callable[[Indices, Index], Matrix]


def places(derivation: Derivation, index: Index, extents: Sequence[int]) -> list[Index]:
    """An iteration's places along axes, each a variable: what is divided is divided once."""
    found = zip(delinear(index, tuple(extents)), extents, strict=True)
    return [place(derivation, at, extent) if at.divisions() else at for at, extent in found]


def place(derivation: Derivation, at: Index, extent: int) -> Index:
    """An index as a variable, which is known to be less than `extent`."""
    local = derivation.let(Position(at), INT64)
    derivation.bind(local.name)
    return variable(local.name, 0, extent - 1)


def width_of(columns: int, dtype: np.dtype[Any]) -> int:
    """How many columns a panel has."""
    return min(columns, PANEL // int(dtype.itemsize))


def panels(derivation: Derivation, product: RowProduct) -> Panels:
    """The factor of a product that blocks of rows do not have: as it lies in memory, or a copy, written in a phase."""
    node, side, axes = product.right, 1 - product.side, product.axes
    batch, length, columns = axes.batch[side], math.prod(product.summed), product.width

    def at(matrix: Indices, k: Index, j: Index) -> Indices:
        of = dict(zip(batch, matrix, strict=True))
        of |= dict(zip(axes.summed[side], delinear(k, product.summed), strict=True))
        return tuple(of.get(axis, j if axis == product.free else Index()) for axis in range(len(node.aval.shape)))

    width = width_of(columns, node.aval.dtype)
    shape = tuple(node.aval.shape[axis] for axis in batch)
    if node.op is PARAM and _is_in_rows(node, shape, length, columns, at):
        operand = derivation.inputs[node]

        def inside(matrix: Indices, panel: Index) -> Matrix:
            return Matrix(operand, linear(at(matrix, Index(), panel * width), node.aval.shape), (columns, 1))

        return Panels(columns, width, inside)
    count = -(-columns // width)
    copy = derivation.new_scratch(node.aval.dtype, math.prod(shape) * count * length * width)
    sizes = (*shape, count, length, width)
    # Loops go through what is read in order, as far as they can.
    is_inner = not at(tuple(Index() for _ in shape), Index(), variable("j", 0, 1))[-1].is_number

    def write(index: Index) -> None:
        *matrix, panel = places(derivation, index, (*shape, count))
        name = derivation.name("j")
        column = variable(name, 0, width - 1)
        within: Within = ((panel * width + column, 0, columns),) if columns % width else ()

        def store(k: Index) -> None:
            value = derivation.value(node, at(tuple(matrix), k, panel * width + column))
            derivation.add(Store(copy, linear((*matrix, panel, k, column), sizes), value, node))

        def columns_of(write: Callable[[], None]) -> None:
            derivation.loop_over(name, width, SERIAL, write, within)

        if is_inner:
            derivation.loop(length, SERIAL, lambda k: columns_of(lambda: store(k)))
        else:
            columns_of(lambda: derivation.loop(length, SERIAL, store))

    derivation.phase(math.prod(shape) * count, write)

    def where(matrix: Indices, panel: Index) -> Matrix:
        return Matrix(copy, linear((*matrix, panel, Index(), Index()), sizes), (width, 1))

    return Panels(columns, width, where)


def _is_in_rows(node: Node, shape: tuple[int, ...], length: int, columns: int, at: At) -> bool:
    """Whether a factor lies in memory row by row, one behind the other."""
    k, j = variable("k", 0, max(length - 1, 1)), variable("j", 0, max(columns - 1, 1))
    place = linear(at(tuple(Index() for _ in shape), k, j), node.aval.shape)
    return place.coefficient("k") == columns and place.coefficient("j") == 1
