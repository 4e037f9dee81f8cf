"""Long reductions and cumulative operations in parts, so that several threads can work on one."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from graphopt.analysis.access import Indices
from graphopt.analysis.derive import Derivation, merged
from graphopt.analysis.reductions import CUMULATIVE, REDUCTIONS, accumulated_as, axes_of, is_arg
from graphopt.ir.attrs import EMPTY
from graphopt.ir.index import Index, delinear
from graphopt.ir.index import number as number_index
from graphopt.ir.loop import SERIAL, Apply, Buffer, Literal, Load, Local, Set, Store, Value
from graphopt.ir.node import Node

PARTS = 64
"""Into how many parts a long reduction is cut."""

LONG = 1 << 15
"""Elements from which on one is cut, where there are fewer than FEW of it."""

FEW = 8

Place = Callable[[Indices], Indices]


def is_cut(node: Node) -> bool:
    """Whether a reduction is to be done in parts."""
    if node.op not in REDUCTIONS:
        return False
    shape = node.inputs[0].aval.shape
    return math.prod(shape[axis] for axis in axes_of(node)) >= LONG and node.avals[0].size < FEW


def reduce_in_parts(derivation: Derivation, node: Node) -> None:
    """Phases that reduce the parts; what then asks for the result combines them, and the few elements left over."""
    axes, shape = axes_of(node), node.inputs[0].aval.shape
    kept = tuple(size for axis, size in enumerate(shape) if axis not in axes)
    reduced = tuple(shape[axis] for axis in axes)
    rows, length = math.prod(kept), math.prod(reduced)
    each, left = divmod(length, PARTS)

    def places(at: Indices, start: Index) -> Place:
        return lambda r: merged(at, axes, delinear(start + r[0], reduced))

    def in_parts(dtype: Any, part: Callable[[Indices, Place], Value]) -> Buffer:
        buffer = derivation.new_scratch(dtype, rows * PARTS)

        def write(index: Index) -> None:
            row, number = delinear(index, (rows, PARTS))
            derivation.add(Store(buffer, index, part(delinear(row, kept), places(delinear(row, kept), number * each))))

        derivation.phase(rows * PARTS, write)
        return buffer

    def from_parts(buffer: Buffer, at: Indices) -> tuple[Sequence[int], Callable[[Indices], Value]]:
        start = row_number(at, kept) * PARTS
        return [PARTS], lambda r: derivation.let(Load(buffer, start + r[0]), buffer.dtype)

    def over(place: Place, count: int) -> list[Any]:
        return [([count], lambda r: derivation.value(node.inputs[0], place(r)))]

    reduction, dtype = REDUCTIONS[node.op], node.inputs[0].aval.dtype
    best_parts = in_parts(
        accumulated_as(dtype), lambda at, place: derivation.fold(reduction, dtype, over(place, each), node)
    )

    def best(at: Indices) -> Value:
        rest = over(places(at, number_index(PARTS * each)), left)
        return derivation.best(node, [from_parts(best_parts, at), *rest])

    if not is_arg(node):
        derivation.combined[node] = best
        return
    first_parts = in_parts(
        node.attrs["index_dtype"],
        lambda at, place: derivation.first(node, [([each], derivation.candidate(node, best(at), place))]),
    )

    def first(at: Indices) -> Value:
        rest = ([left], derivation.candidate(node, best(at), places(at, number_index(PARTS * each))))
        return derivation.first(node, [from_parts(first_parts, at), rest])

    derivation.combined[node] = first


def row_number(at: Indices, kept: tuple[int, ...]) -> Index:
    """The number of a reduction's result, counted row by row."""
    row = Index()
    for index, size in zip(at, kept, strict=True):
        row = row * size + index
    return row


def accumulate(derivation: Derivation, node: Node) -> None:
    """The phases of a cumulative operation: rows side by side, or, of few long ones, parts.

    Of parts, the first phase combines each; in the second, each begins with what those before it come to.
    """
    axis, shape, backwards = node.attrs["axis"], node.aval.shape, node.attrs["reverse"]
    others = (*shape[:axis], *shape[axis + 1 :])
    rows, length = math.prod(others), shape[axis]
    reduction, dtype = CUMULATIVE[node.op], accumulated_as(node.aval.dtype)
    (buffer,) = derivation.outputs
    stride = math.prod(shape[axis + 1 :])

    def place(row: Index, step: Index) -> Indices:
        at = delinear(row, others)
        return (*at[:axis], step * -1 + (length - 1) if backwards else step, *at[axis:])

    def element(at: Indices) -> Value:
        return derivation.converted(derivation.value(node.inputs[0], at), dtype)

    def run(row: Index, start: Index, count: int, total: Local) -> None:
        def write(j: Index) -> None:
            at = place(row, start + j)
            combined = derivation.let(Apply(reduction.combine, EMPTY, (total, element(at))), dtype, node)
            derivation.add(Set(total, combined))
            outer, inner = row // stride, row % stride
            result = derivation.converted(combined, node.aval.dtype)
            derivation.add(Store(buffer, outer * (stride * length) + at[axis] * stride + inner, result))

        derivation.loop(count, SERIAL, write)

    def start_value() -> Local:
        return derivation.let(Literal(reduction.start(dtype)), dtype, None, "a")

    each, left = divmod(length, PARTS)
    if rows >= FEW or length < LONG:
        derivation.phase(rows, lambda row: run(row, Index(), length, start_value()))
        return
    parts = derivation.new_scratch(dtype, rows * PARTS)

    def total_of_part(index: Index) -> None:
        row, number = delinear(index, (rows, PARTS))

        def of_part(r: Indices) -> Value:
            return element(place(row, number * each + r[0]))

        derivation.add(Store(parts, index, derivation.fold(reduction, dtype, [([each], of_part)], node)))

    def part(index: Index) -> None:
        row, number = delinear(index, (rows, PARTS))
        total = start_value()

        def earlier(r: Index) -> None:
            def add() -> None:
                loaded = derivation.let(Load(parts, row * PARTS + r), dtype)
                combined = derivation.let(Apply(reduction.combine, EMPTY, (total, loaded)), dtype)
                derivation.add(Set(total, combined))

            derivation.condition(((number - r, 1, PARTS),), add)

        derivation.loop(PARTS, SERIAL, earlier)
        run(row, number * each, each, total)
        if left:
            derivation.condition(
                ((number, PARTS - 1, PARTS),), lambda: run(row, number_index(PARTS * each), left, total)
            )

    derivation.phase(rows * PARTS, total_of_part)
    derivation.phase(rows * PARTS, part)
