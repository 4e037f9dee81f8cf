"""Folds: what a reduction computes for one element of its result, as values that are combined one after the other.

A fold may keep several values at once: an argmax keeps the greatest element and its place. How it is written, with
local values or with tiles for many elements side by side, is not said here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from jax.extend.core import primitives as p

from graphopt.analysis.access import Indices, Within
from graphopt.analysis.reductions import AND, ARGMAX, OR, REDUCE, REDUCTIONS, accumulated_as, axes_of, is_arg
from graphopt.ir.attrs import EMPTY
from graphopt.ir.aval import is_floating
from graphopt.ir.graph import Graph
from graphopt.ir.loop import Apply, Expression, Literal, Local, Position, Value
from graphopt.ir.node import Node
from graphopt.ir.op import CONSTANT, Op, op_of

EQ, NE, LT, GT, SELECT = (op_of(primitive) for primitive in (p.eq_p, p.ne_p, p.lt_p, p.gt_p, p.select_n_p))

Values = list[Value]


class Writer(Protocol):
    """What writes statements."""

    def let(self, value: Expression, dtype: Any, node: Node | None = None) -> Local:
        """A new local value."""

    def value(self, node: Node, at: Indices) -> Value:
        """One element of a node."""

    def converted(self, value: Value, dtype: Any) -> Value:
        """A value in another dtype."""


@dataclass(frozen=True, slots=True)
class Fold:
    """dtypes: of what is kept. starts: the values before the first. extents: of the loops that it goes over. elements:
    what is combined for these indices. combine: what is kept, and one more. within: conditions on the indices.
    """

    dtypes: tuple[Any, ...]
    starts: Callable[[Writer], Values]
    extents: tuple[int, ...]
    elements: Callable[[Writer, Indices], Values]
    combine: Callable[[Writer, Values, Values], Values]
    within: Callable[[Indices], Within] = lambda at: ()


def combining(op: Op) -> Callable[[Writer, Values, Values], Values]:
    """Two values by one operation."""

    def combine(writer: Writer, kept: Values, more: Values) -> Values:
        return [writer.let(Apply(op, EMPTY, (kept[0], more[0])), kept[0].dtype)]

    return combine


def combining_by(graph: Graph) -> Callable[[Writer, Values, Values], Values]:
    """What is kept and one more by a graph of scalar operations."""

    def combine(writer: Writer, kept: Values, more: Values) -> Values:
        known: dict[Node, Value] = dict(zip(graph.params, (*kept, *more), strict=True))
        for node in graph.nodes:
            if node.op is CONSTANT:
                known[node] = Literal(node.attrs["value"].element)
            elif node not in known:
                operands = tuple([known[operand] for operand in node.inputs])
                known[node] = writer.let(Apply(node.op, node.attrs, operands), node.aval.dtype, node)
        return [known[node] for node in graph.outputs]

    return combine


def fold_of(node: Node, extents: Sequence[int], place: Callable[[Indices], Indices]) -> Fold:
    """The fold of a reduction. place: the operand's indices for those of the loops."""
    if node.op is REDUCE:
        operands, starts = node.inputs[: len(node.avals)], node.inputs[len(node.avals) :]
        return Fold(
            tuple(operand.aval.dtype for operand in operands),
            lambda writer: [writer.value(start, ()) for start in starts],
            tuple(extents),
            lambda writer, r: [writer.value(operand, place(r)) for operand in operands],
            combining_by(node.attrs["jaxpr"].graph),
        )
    operand, reduction = node.inputs[0], REDUCTIONS[node.op]
    dtype = accumulated_as(operand.aval.dtype)
    start = Literal(reduction.start(dtype))
    if not is_arg(node):
        return Fold(
            (dtype,),
            lambda writer: [start],
            tuple(extents),
            lambda writer, r: [writer.converted(writer.value(operand, place(r)), dtype)],
            combining(reduction.combine),
        )
    (axis,), index_dtype = axes_of(node), np.dtype(node.attrs["index_dtype"])

    def elements(writer: Writer, r: Indices) -> Values:
        at = place(r)
        return [writer.converted(writer.value(operand, at), dtype), writer.let(Position(at[axis]), index_dtype, node)]

    return Fold(
        (dtype, index_dtype),
        # Before the first of them: where all are as small as the start, it is the first that counts.
        lambda writer: [start, Literal(np.asarray(0).astype(index_dtype)[()])],
        tuple(extents),
        elements,
        first_extreme(GT if node.op is ARGMAX else LT),
    )


def first_extreme(better: Op) -> Callable[[Writer, Values, Values], Values]:
    """Of two values with their places the better one, or the first of equal ones; a NaN is better than any number."""

    def combine(writer: Writer, kept: Values, more: Values) -> Values:
        (best, place), (value, at) = kept, more

        def test(op: Op, *values: Value) -> Value:
            return writer.let(Apply(op, EMPTY, values), np.bool_)

        chosen = test(better, value, best)
        if is_floating(value.dtype):
            none = test(AND, test(NE, value, value), test(EQ, best, best))
            chosen = test(OR, chosen, none)
        return [
            writer.let(Apply(SELECT, EMPTY, (chosen, before, after)), before.dtype)
            for before, after in ((best, value), (place, at))
        ]

    return combine
