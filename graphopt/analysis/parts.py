"""Long reductions in parts, so that several threads can work on one."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from typing import Any

from graphopt.analysis.access import Indices
from graphopt.analysis.derive import Derivation, merged
from graphopt.analysis.reductions import REDUCTIONS, accumulated_as, axes_of, is_arg
from graphopt.ir.index import Index, delinear
from graphopt.ir.index import number as number_index
from graphopt.ir.loop import Buffer, Load, Store, Value
from graphopt.ir.node import Node

PARTS = 64
"""Into how many parts a long reduction is cut at most, and half as many at least."""

LONG = 1 << 15
"""Elements from which on one is cut, where there are fewer than FEW of it."""

FEW = 8

ROW = 64
"""Elements of the other axes from which on parts are of the first axis that is reduced: loops over them pay."""

Place = Callable[[Indices], Indices]


def is_cut(node: Node) -> bool:
    """Whether a reduction is to be done in parts."""
    if node.op not in REDUCTIONS:
        return False
    return _elements(node) >= LONG and node.avals[0].size < FEW


def cut_together(derivation: Derivation, done: Collection[Node]) -> list[list[Node]]:
    """The reductions of the body that are to be done in parts, but for those that are `done`.

    Those over the same extents that follow each other, none of which needs another, are together.
    """
    found: list[list[Node]] = []
    for node in derivation.body.nodes:
        if node in done or not (is_cut(node) or _is_long_work(derivation, node)):
            continue
        last = found[-1] if found else []
        if last and _extents(last[0]) == _extents(node) and derivation.above[node].isdisjoint(last):
            last.append(node)
        else:
            found.append([node])
    return found


def _is_long_work(derivation: Derivation, node: Node) -> bool:
    """Whether a reduction to few results is of other reductions that are long in sum."""
    if node.op not in REDUCTIONS or node.avals[0].size >= FEW:
        return False
    count = _elements(node)
    inner = [n for n in derivation.above[node.inputs[0]] if n.avals[0].size * FEW > count]
    return count >= PARTS and count * max(map(_elements, inner), default=0) >= LONG


def _elements(node: Node) -> int:
    """How many elements each result of a reduction is made of."""
    shape = node.inputs[0].aval.shape
    return math.prod(shape[axis] for axis in axes_of(node))


def _extents(node: Node) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The shape of a reduction's operand, and the axes that it goes over."""
    return node.inputs[0].aval.shape, axes_of(node)


def parts_of(length: int) -> int:
    """Into how many parts so many elements are cut: so that little is left over, which no threads share."""
    counts = range(PARTS, PARTS // 2, -1)
    little = (count for count in counts if length % count <= length // count // 4)
    return next(little, min(counts, key=lambda count: length % count))


def reduce_in_parts(derivation: Derivation, nodes: Sequence[Node]) -> None:
    """Phases that reduce the parts; what then asks for a result combines them, and the few elements left over.

    nodes: reductions over the same extents. Where the first axis is long, parts are of its elements, and each has loops
    over the others; else of all elements, row by row.
    """
    shape, axes = _extents(nodes[0])
    kept = tuple(size for axis, size in enumerate(shape) if axis not in axes)
    reduced = tuple(shape[axis] for axis in axes)
    by_first = reduced[0] >= PARTS and math.prod(reduced[1:]) >= ROW
    outer, inner = (reduced[:1], reduced[1:]) if by_first else (reduced, ())
    rows, parts = math.prod(kept), parts_of(math.prod(outer))
    each, left = divmod(math.prod(outer), parts)

    def places(at: Indices, start: Index) -> Place:
        return lambda r: merged(at, axes, (*delinear(start + r[0], outer), *r[1:]))

    def in_parts(wanted: Sequence[tuple[Any, Callable[[Indices, Place], Value]]]) -> list[Buffer]:
        buffers = [derivation.new_scratch(dtype, rows * parts) for dtype, _ in wanted]

        def write(index: Index) -> None:
            row, number = delinear(index, (rows, parts))
            at = delinear(row, kept)
            place = places(at, number * each)
            found = [part(at, place) for _, part in wanted]
            for buffer, value in zip(buffers, found, strict=True):
                derivation.add(Store(buffer, index, value))

        derivation.phase(rows * parts, write)
        return buffers

    def from_parts(buffer: Buffer, at: Indices) -> tuple[Sequence[int], Callable[[Indices], Value]]:
        start = row_number(at, kept) * parts
        return [parts], lambda r: derivation.let(Load(buffer, start + r[0]), buffer.dtype)

    def over(node: Node, place: Place, count: int) -> list[Any]:
        return [([count, *inner], lambda r: derivation.value(node.inputs[0], place(r)))]

    def best_part(node: Node) -> tuple[Any, Callable[[Indices, Place], Value]]:
        reduction, dtype = REDUCTIONS[node.op], node.inputs[0].aval.dtype
        return accumulated_as(dtype), lambda at, place: derivation.fold(reduction, dtype, over(node, place, each), node)

    def best_of(node: Node, buffer: Buffer) -> Callable[[Indices], Value]:
        def best(at: Indices) -> Value:
            rest = over(node, places(at, number_index(parts * each)), left)
            return derivation.best(node, [from_parts(buffer, at), *rest])

        return best

    best_parts = in_parts([best_part(node) for node in nodes])
    best = {node: best_of(node, buffer) for node, buffer in zip(nodes, best_parts, strict=True)}
    derivation.combined |= {node: best[node] for node in nodes if not is_arg(node)}
    args = [node for node in nodes if is_arg(node)]

    def candidates(node: Node, at: Indices, place: Place, count: int) -> Any:
        return [count, *inner], derivation.candidate(node, best[node](at), place)

    def first_part(node: Node) -> tuple[Any, Callable[[Indices, Place], Value]]:
        dtype = node.attrs["index_dtype"]
        return dtype, lambda at, place: derivation.first(node, [candidates(node, at, place, each)])

    def first_of(node: Node, buffer: Buffer) -> Callable[[Indices], Value]:
        def first(at: Indices) -> Value:
            rest = candidates(node, at, places(at, number_index(parts * each)), left)
            return derivation.first(node, [from_parts(buffer, at), rest])

        return first

    first_parts = in_parts([first_part(node) for node in args]) if args else []
    derivation.combined |= {node: first_of(node, buffer) for node, buffer in zip(args, first_parts, strict=True)}


def row_number(at: Indices, kept: tuple[int, ...]) -> Index:
    """The number of a reduction's result, counted row by row."""
    row = Index()
    for index, size in zip(at, kept, strict=True):
        row = row * size + index
    return row
