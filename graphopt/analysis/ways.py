"""The ways in which the loop program of a body may be written: by rows, in blocks, by columns, with their tiles."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Sequence
from functools import partial

from graphopt.analysis.accumulation import accumulate
from graphopt.analysis.between import between
from graphopt.analysis.bitcast import changes_width, recast
from graphopt.analysis.columns import (
    is_by_columns,
    other_widths,
    parts_of,
    reduce_columns_in_parts,
    select,
    widths,
    write_by_columns,
)
from graphopt.analysis.crossed import crossed_reductions, reduce_in_blocks
from graphopt.analysis.cumulative import accumulate_columns, is_beside
from graphopt.analysis.derive import Derivation, write_outputs
from graphopt.analysis.grouping import ALONE
from graphopt.analysis.in_place import is_update_in_place, write_update
from graphopt.analysis.loops import LOOPS, write_loop
from graphopt.analysis.parts import cut_together, reduce_in_parts
from graphopt.analysis.product_blocks import product_of, write_product
from graphopt.analysis.products import DOT
from graphopt.analysis.reductions import REDUCTIONS
from graphopt.analysis.row_blocks import write_between
from graphopt.analysis.scattering import SCATTERS, scatter
from graphopt.analysis.sorting import SORT, sort
from graphopt.analysis.tiled import crossed_axes, sides, write_in_blocks
from graphopt.analysis.top_k import TOP_K, top_k
from graphopt.analysis.turned import points_of, turn, turned_operands, write_turned
from graphopt.analysis.windows import SELECTED
from graphopt.ir.graph import Graph
from graphopt.ir.node import Node

FEW = 4
"""Results in as many rows at most are computed beside each other."""

Write = Callable[[Derivation], None]


Ways = Iterator[tuple[str, Write]]


def ways(body: Graph, any_order: bool = True, every: bool = False) -> Ways:
    """The ways in which the loop program of a body may be written, each with its name.

    any_order: whether sums and products may be reordered. every: also those that are only measured.
    """
    if any(node.op is DOT for node in body.nodes):  # of matrices for which it takes more than loops around elements
        found = between(body)
        if found is not None:
            yield "rows between products", partial(write_between, found=found)
        product = product_of(body)
        if product is not None:
            yield "blocks of a product", partial(write_product, found=product)
        return
    yield from _rows(body, any_order)
    if any(node.op in ALONE for node in body.nodes):
        return
    yield from _blocks(body, every)
    if any_order:
        yield from _crossed(body, every)
        yield from _turned(body)
    yield from _columns(body, every)


def prepare(body: Graph, derivation: Derivation, done: Collection[Node] = ()) -> None:
    """The phases that come before those of the results. done: reductions that have others."""
    for node in body.nodes:
        if changes_width(node):
            recast(derivation, node)
        elif node.op is SELECTED:
            select(derivation, node)
    for nodes in cut_together(derivation, done):
        reduce_in_parts(derivation, nodes)


def _rows(body: Graph, any_order: bool) -> Ways:
    """Element by element, with loops over fewer and fewer axes that threads share."""
    whole = next((n for n in body.nodes if n.op in ALONE), None)

    def write(derivation: Derivation, parallel: int, inside: int = 0, turned: Sequence[Node] = ()) -> None:
        prepare(body, derivation)
        for operand in turned:
            turn(derivation, operand)
        if is_update_in_place(derivation):
            write_update(derivation)
        elif whole is None:
            write_outputs(derivation, parallel, inside)
        else:
            write_whole(derivation, whole, any_order)

    rank = len(body.outputs[0].aval.shape)
    for parallel in (rank,) if whole is not None else dict.fromkeys((rank, max(rank - 1, 0), max(rank - 2, 0))):
        turned = points_of(body) if whole is None and parallel == rank - 1 else ()
        yield f"rows, {parallel} axes apart", partial(write, parallel=parallel, turned=turned)
    if whole is None and (inside := _short_axes(body)):
        yield f"rows, {inside} axes inside", partial(write, parallel=rank, inside=inside)


def _short_axes(body: Graph) -> int:
    """How many of the first axes of all results are short, where each place of the others has reductions of its own:
    results along them are often sums of the same times something else, such as the coordinates of forces, of which that
    is computed once."""
    shapes = {node.aval.shape for node in body.outputs}
    if len(shapes) > 1:
        return 0
    (shape,) = shapes
    inside = max(k for k in range(len(shape) + 1) if math.prod(shape[:k]) <= FEW)
    places = math.prod(shape[inside:])
    if inside == len(shape) or math.prod(shape[:inside]) <= 1:
        return 0
    return inside if any(n.op in REDUCTIONS and n.avals[0].size >= places > 1 for n in body.nodes) else 0


def _blocks(body: Graph, every: bool) -> Ways:
    """In blocks of two axes, where operands are read along one and results written along the other."""

    def write(derivation: Derivation, axis: int, side: int) -> None:
        prepare(body, derivation)
        write_in_blocks(derivation, axis, side)

    for axis in crossed_axes(body):
        shape = body.outputs[0].aval.shape
        for side in sides(body, (shape[axis], shape[-1]), every):
            yield f"blocks of {side} along axis {axis}", partial(write, axis=axis, side=side)


def _crossed(body: Graph, every: bool) -> Ways:
    """In blocks of two axes, where operands are reduced that lie across each other."""

    def write(derivation: Derivation, node: Node, lane: int, other: int, side: int) -> None:
        prepare(body, derivation, [node])
        reduce_in_blocks(derivation, node, lane, other, side)
        write_outputs(derivation, len(body.outputs[0].aval.shape))

    for node, lane, other in crossed_reductions(body):
        shape = node.inputs[0].aval.shape
        for side in sides(body, (shape[lane], shape[other]), every):
            yield (
                f"blocks of {side} along axes {lane} and {other}, reduced",
                partial(write, node=node, lane=lane, other=other, side=side),
            )


def _turned(body: Graph) -> Ways:
    """Of operands that are turned first, so that sums are along columns."""
    operands, summed = turned_operands(body)
    if not operands:
        return

    def write(derivation: Derivation) -> None:
        prepare(body, derivation, summed)
        for operand in operands:
            turn(derivation, operand)
        write_turned(derivation)

    yield "turned", write


def _columns(body: Graph, every: bool) -> Ways:
    """Some columns beside each other, for what is reduced or accumulated along them."""
    kept = [node for node in body.nodes if is_by_columns(node)]
    shape, *others = {n.aval.shape for n in body.outputs}
    if others or not kept or not any(widths(shape, 0)):
        return

    def write(derivation: Derivation, parallel: int, width: int, cut: bool) -> None:
        prepare(body, derivation, kept)
        for node in kept:
            if cut and parts_of(node) > 1:
                reduce_columns_in_parts(derivation, node)
        write_by_columns(derivation, parallel, width)

    rank = len(body.outputs[0].aval.shape)
    for parallel in range(rank):
        for width in (*widths(shape, parallel), *(other_widths(shape, parallel) if every else ())):
            name = f"columns by {width}, {parallel} axes apart"
            yield name, partial(write, parallel=parallel, width=width, cut=False)
    if any(parts_of(node) > 1 for node in kept):
        *_, width = widths(shape, rank - 1)
        yield f"columns by {width}, in parts", partial(write, parallel=rank - 1, width=width, cut=True)


def write_whole(derivation: Derivation, node: Node, any_order: bool) -> None:
    """The phases of an operation that is the last of its kernel."""
    if node.op in SCATTERS:
        scatter(derivation, node, any_order)
    elif node.op in LOOPS:
        write_loop(derivation, node)
    elif node.op is TOP_K:
        top_k(derivation, node)
    elif node.op is SORT:
        sort(derivation, node)
    elif is_beside(node):
        accumulate_columns(derivation, node)
    else:
        accumulate(derivation, node)
