"""Operands that are turned before they are reduced along their rows, with many results for each row.

All pairs of a few coordinates, say: each result is a short sum, and a loop over its terms is hardly begun when it ends.
With the operand turned the loop over the results of a row is the innermost one, and fills vectors however few terms
there are.

Body:
    %4: f32[800,900,32] = sub(%2, %3)      where %2 is %0[i, k] and %3 is %1[j, k]
    %5: f32[800,900] = reduce_sum[axes=(2,)](%4)
Loop program:
    parallel i1 < 32:
      serial j2 < 900: scratch0[912 * i1 + j2] = in1[32 * j2 + i1]
      serial j3 < 12: scratch0[912 * i1 + j3 + 900] = 0.0
    parallel i4 < 800:
      vector l5 < 912 where 0 <= l5 < 900: tile0[l5] = 0.0
      reduction r6 < 32:
        vector l5 < 912 where 0 <= l5 < 900:
          tile0[l5] = add(tile0[l5], ...scratch0[912 * r6 + l5]...)
"""

from __future__ import annotations

import math

import numpy as np

from graphopt.analysis.access import MOVES, Indices
from graphopt.analysis.columns import LANES, Columns, width_of
from graphopt.analysis.derive import Derivation
from graphopt.analysis.reductions import REDUCTIONS, axes_of, is_arg
from graphopt.ir.graph import Graph
from graphopt.ir.index import Index, delinear, linear
from graphopt.ir.loop import SERIAL, Literal, Load, Store
from graphopt.ir.node import Node
from graphopt.ir.op import PARAM
from graphopt.ops.make import BROADCAST

LEAST = 9
"""Terms of each result: fewer are written out. A million sums of squares of differences take, turned and in blocks of
rows, and along the rows, in milliseconds: of 32 terms 0.45 and 0.7, of 64 0.7 and 0.95, of 1024 13 and 23."""

COORDINATES, OFTEN = 4, 1024
"""Coordinates of a point at most, and how often each is needed at least. The forces of 8000 points on each other take
12.6 ms where they are turned and 13.3 where not, their gradient 48 and 56."""

AGAIN = 32
"""How often each element of the operand is needed at least."""


def turned_operands(body: Graph) -> tuple[tuple[Node, ...], tuple[Node, ...]]:
    """The operands of a body that may be turned, and the reductions that go along their rows; empty where none may."""
    reduced = tuple(n for n in body.nodes if n.op in REDUCTIONS)
    shapes = {n.aval.shape for n in body.outputs}
    if not reduced or len(shapes) > 1 or any(is_arg(n) for n in reduced):
        return (), ()
    (shape,) = shapes
    found: dict[Node, None] = {}
    for node in reduced:
        of = node.inputs[0].aval.shape
        if axes_of(node) != (len(of) - 1,) or of[:-1] != shape or of[-1] < LEAST:
            return (), ()
        found |= dict.fromkeys(_rows(node.inputs[0]))
    return tuple(found), reduced


def points_of(body: Graph) -> tuple[Node, ...]:
    """The operands that are points, a few coordinates each, read again and again: in a loop over the points vectors are
    put together of several, unless each coordinate of all points lies side by side."""
    sizes = [node.inputs[0].aval.size for node in body.nodes if node.op in REDUCTIONS]
    most = max(sizes, default=0)
    return tuple(q for q in body.params if _are_points(q) and most >= OFTEN * q.aval.size)


def _are_points(node: Node) -> bool:
    *_, points, coordinates = (0, 0, *node.aval.shape)
    return 1 < coordinates <= COORDINATES and points >= LANES


def _rows(node: Node) -> list[Node]:
    """The operands of which what is reduced has a row for each of its last axis but one."""
    found: list[Node] = []
    shape, seen, stack = node.aval.shape, {node}, [node]
    while stack:
        current = stack.pop()
        if current.op is BROADCAST:
            (x,) = current.inputs
            along = x.op is PARAM and x.aval.shape[-2:] == shape[-2:] == current.aval.shape[-2:]
            places = tuple(current.attrs["broadcast_dimensions"])[-2:]
            if along and places == (len(shape) - 2, len(shape) - 1) and node.aval.size >= AGAIN * x.aval.size:
                found.append(x)
        elif current.op.elementwise and current.op not in MOVES:
            stack += [n for n in current.inputs if n not in seen and len(n.aval.shape) == len(shape)]
            seen |= set(current.inputs)
    return found


def turned_shape(node: Node) -> tuple[int, ...]:
    """The shape that an operand has with its last two axes exchanged: rows end with vectors, and zeros fill them."""
    *others, rows, length = node.aval.shape
    return (*others, length, -(-rows // LANES) * LANES)


def turn(derivation: Derivation, node: Node) -> None:
    """A phase that writes an operand with its last two axes exchanged, for the phases that follow."""
    shape = node.aval.shape
    rows, turned = shape[-2], turned_shape(node)
    scratch = derivation.new_scratch(node.aval.dtype, math.prod(turned))

    def write(index: Index) -> None:
        *at, k = delinear(index, turned[:-1])

        def copy(inner: Indices) -> None:
            (j,) = inner
            value = derivation.let(
                Load(derivation.inputs[node], linear((*at, j, k), shape)), node.aval.dtype, node, "x"
            )
            derivation.add(Store(scratch, linear((*at, k, j), turned), value))

        def fill(inner: Indices) -> None:
            (j,) = inner
            zero = Literal(np.zeros((), node.aval.dtype)[()])
            derivation.add(Store(scratch, linear((*at, k, j + rows), turned), zero))

        derivation.loops((rows,), copy, True)
        if turned[-1] > rows:
            derivation.loops((turned[-1] - rows,), fill, False)

    derivation.phase(math.prod(turned[:-1]), write)
    derivation.turned[node] = scratch, turned


def write_turned(derivation: Derivation) -> None:
    """One phase over rows of the results, each computed and stored in blocks of whole vectors."""
    body = derivation.body
    shape = body.outputs[0].aval.shape
    leading, size = shape[:-1], shape[-1]
    width = -(-width_of(size) // LANES) * LANES

    def write(index: Index) -> None:
        row = delinear(index, leading)

        def block(number: Index) -> None:
            columns = Columns(derivation, number, width, size)

            def store() -> None:
                at = (*row, columns.column)
                for node, buffer in zip(body.outputs, derivation.outputs, strict=True):
                    derivation.add(Store(buffer, linear(at, shape), derivation.value(node, at), node))

            columns.vector(store)

        derivation.loop(-(-size // width), SERIAL, block)

    derivation.phase(math.prod(leading), write)
