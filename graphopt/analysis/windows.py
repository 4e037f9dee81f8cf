"""Windows: reductions over a place's neighbourhood, with padding, strides and dilations, as folds.

Element `i` of a result goes over the operand's elements `i * stride + k * dilation - padding`, for each `k` of the
window, that there are: those in the padding, and in the holes of an operand that is dilated, are passed over.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from jax.extend.core import primitives as p

from graphopt.analysis.access import Indices, Within
from graphopt.analysis.folds import SELECT, Fold, Values, Writer, combining, combining_by
from graphopt.analysis.reductions import ADD, MAX, MIN, Reduction, accumulated_as, greatest, least
from graphopt.ir.attrs import EMPTY
from graphopt.ir.index import Index, linear
from graphopt.ir.loop import Apply, Buffer, Literal, Load, Position
from graphopt.ir.node import Node
from graphopt.ir.op import Op, op_of

WINDOW = op_of(p.reduce_window_p)
GATHER, SELECTED = op_of(p.select_and_gather_add_p), op_of(p.select_and_scatter_add_p)
EQ = op_of(p.eq_p)

COMBINED: Mapping[Op, Reduction] = {
    op_of(p.reduce_window_sum_p): Reduction(ADD, lambda dtype: 0),
    op_of(p.reduce_window_max_p): Reduction(MAX, least),
    op_of(p.reduce_window_min_p): Reduction(MIN, greatest),
}

WINDOWS = (*COMBINED, WINDOW, GATHER)
"""Operations whose elements are folds over a window; of SELECTED it takes a phase before."""


def places(node: Node, shape: tuple[int, ...], at: Indices, r: Indices) -> tuple[Indices, Within]:
    """The indices of an operand of a shape for step `r` of the window at `at`, and where there is such an element."""
    attrs, rank = node.attrs, len(at)
    source: list[Index] = []
    within: list[tuple[Index, int, int]] = []
    for i, step, size, stride, (before, _), holes, dilation in zip(
        at,
        r,
        shape,
        attrs["window_strides"],
        attrs["padding"],
        attrs.get("base_dilation") or (1,) * rank,
        attrs.get("window_dilation") or (1,) * rank,
        strict=True,
    ):
        place = i * stride + step * dilation - before
        if holes > 1:
            within.append((place % holes, 0, 1))
            place = place // holes
        within.append((place, 0, int(size)))
        source.append(place)
    return tuple(source), tuple(within)


def window_fold(node: Node, at: Indices) -> Fold:
    """The fold of a window."""
    extents = tuple(int(size) for size in node.attrs["window_dimensions"])
    shape = node.inputs[0].aval.shape

    def within(r: Indices) -> Within:
        return places(node, shape, at, r)[1]

    def values(writer: Writer, r: Indices, operands: tuple[Node, ...]) -> Values:
        place = places(node, shape, at, r)[0]
        return [writer.value(operand, place) for operand in operands]

    if node.op is GATHER:
        tangents, operand = node.inputs
        # The tangent is where the operand is the first that no other is better than; it is what is asked for.
        worst = Literal(worst_of(node, operand.aval.dtype))
        nothing = Literal(np.zeros((), tangents.aval.dtype)[()])
        return Fold(
            (operand.aval.dtype, tangents.aval.dtype),
            lambda writer: [worst, nothing],
            extents,
            lambda writer, r: values(writer, r, (operand, tangents)),
            kept_where(op_of(node.attrs["select_prim"])),
            within,
        )
    if node.op is WINDOW:
        count = len(node.avals)
        operands, starts = node.inputs[:count], node.inputs[count:]
        return Fold(
            tuple(operand.aval.dtype for operand in operands),
            lambda writer: [writer.value(start, ()) for start in starts],
            extents,
            lambda writer, r: values(writer, r, operands),
            combining_by(node.attrs["jaxpr"].graph),
            within,
        )
    reduction, operand = COMBINED[node.op], node.inputs[0]
    dtype = accumulated_as(operand.aval.dtype)
    return Fold(
        (dtype,),
        lambda writer: [Literal(reduction.start(dtype))],
        extents,
        lambda writer, r: [writer.converted(value, dtype) for value in values(writer, r, (operand,))],
        combining(reduction.combine),
        within,
    )


def kept_where(test: Op) -> Callable[[Writer, Values, Values], Values]:
    """Of two, each with something beside it, the first where `test` of both is true, else the second."""

    def combine(writer: Writer, kept: Values, more: Values) -> Values:
        first = writer.let(Apply(test, EMPTY, (kept[0], more[0])), np.bool_)
        return [
            writer.let(Apply(SELECT, EMPTY, (first, after, before)), before.dtype)
            for before, after in zip(kept, more, strict=True)
        ]

    return combine


def worst_of(node: Node, dtype: Any) -> Any:
    """What is selected last, as a NumPy scalar."""
    worst = least if node.attrs["select_prim"] is p.ge_p else greatest
    return np.asarray(worst(np.dtype(dtype))).astype(dtype)[()]


# ---- what a window has selected, scattered


def selected(node: Node, at: Indices) -> Fold:
    """The number of the step of the window at `at` whose element a SELECTED selects: the last value that is kept.

    Elements in the padding are worse than all, and the first of them is selected where no other is better.
    """
    operand = node.inputs[1]
    dtype, extents = operand.aval.dtype, tuple(int(size) for size in node.attrs["window_dimensions"])
    worst = Literal(worst_of(node, dtype))

    def elements(writer: Writer, r: Indices) -> Values:
        place = places(node, operand.aval.shape, at, r)[0]
        return [writer.value(operand, place), writer.let(Position(linear(r, numbers_of_steps(node))), np.int32)]

    return Fold(
        (dtype, np.dtype(np.int32)),
        lambda writer: [worst, Literal(np.int32(0))],
        extents,
        elements,
        kept_where(op_of(node.attrs["select_prim"])),
        lambda r: places(node, operand.aval.shape, at, r)[1],
    )


def scattered(node: Node, at: Indices, steps: Buffer) -> Fold:
    """The sum of what the windows that have selected the element at `at` give it, in their order.

    steps: what each window has selected.
    """
    source = node.inputs[0]
    shape, dtype = source.aval.shape, accumulated_as(source.aval.dtype)
    attrs = node.attrs
    strides, numbers = attrs["window_strides"], numbers_of_steps(node)
    extents = tuple(number // stride for number, stride in zip(numbers, strides, strict=True))

    def window_at(r: Indices) -> tuple[Indices, Indices]:
        """A window that may have the element, and which of its steps that is."""
        windows, of_window = [], []
        for i, k, stride, extent, (before, _) in zip(at, r, strides, extents, attrs["padding"], strict=True):
            back = k * -1 + (extent - 1)
            place = i + before
            windows.append(place // stride - back)
            of_window.append(place % stride + back * stride)
        return tuple(windows), tuple(of_window)

    def within(r: Indices) -> Within:
        return tuple((index, 0, int(size)) for index, size in zip(window_at(r)[0], shape, strict=True))

    def elements(writer: Writer, r: Indices) -> Values:
        windows, of_window = window_at(r)
        step = writer.let(Load(steps, linear(windows, shape)), np.int32, node)
        own = writer.let(Position(linear(of_window, numbers)), np.int32)
        same = writer.let(Apply(EQ, EMPTY, (step, own)), np.bool_)
        value = writer.converted(writer.value(source, windows), dtype)
        nothing = Literal(np.zeros((), dtype)[()])
        return [writer.let(Apply(SELECT, EMPTY, (same, nothing, value)), dtype)]

    start = Literal(np.zeros((), dtype)[()])
    return Fold((dtype,), lambda writer: [start], extents, elements, combining(ADD), within)


def numbers_of_steps(node: Node) -> tuple[int, ...]:
    """A shape that a window fits into, of multiples of its strides: a step's place in it is the step's number."""
    sizes = zip(node.attrs["window_dimensions"], node.attrs["window_strides"], strict=True)
    return tuple(-(-int(size) // int(stride)) * int(stride) for size, stride in sizes)
