"""What a cumulative operation keeps from element to element, and what its results are of that.

A cumulative log-sum-exp keeps the greatest element m and the sum s of exp(x - m) over the elements x so far, and gives
m + log(s): no exponential is above one, so that none overflows (Blanchard, Higham and Higham, 2021, "Accurately
computing the log-sum-exp and softmax functions").
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from jax.extend.core import primitives as p

from graphopt.analysis.folds import EQ, GT, SELECT, Values, Writer, combining
from graphopt.analysis.ordered import accumulator
from graphopt.analysis.reductions import ADD, CUMULATIVE, MUL, accumulated_as
from graphopt.ir.attrs import EMPTY
from graphopt.ir.loop import Apply, Literal, Value
from graphopt.ir.node import Node
from graphopt.ir.op import Op, op_of

SUB, NEG, ABS, EXP, LOG = (op_of(primitive) for primitive in (p.sub_p, p.neg_p, p.abs_p, p.exp_p, p.log_p))


@dataclass(frozen=True, slots=True)
class Running:
    """dtypes: of what is kept. starts: what is before the first element. taken: an element as what is kept of it alone.

    combine: what is kept of some elements, and of those after them. given: the result of what is kept.
    """

    dtypes: tuple[np.dtype[Any], ...]
    starts: tuple[Literal, ...]
    taken: Callable[[Writer, Value], Values]
    combine: Callable[[Writer, Values, Values], Values]
    given: Callable[[Writer, Values], Value]


def kept_as(node: Node, long: bool) -> np.dtype[Any]:
    """The dtype in which a cumulative operation is kept. long: of many elements, whose roundings one after the other
    would add up: sums are kept in float64 then."""
    dtype = accumulated_as(node.aval.dtype)
    is_sum = node.op in CUMULATIVE and CUMULATIVE[node.op].combine is ADD
    return np.dtype(np.float64) if long and is_sum and dtype == np.float32 else dtype


def running(node: Node, long: bool = False) -> Running:
    """What a cumulative operation keeps. long: as in `kept_as`."""
    if node.op not in CUMULATIVE:
        return _log_sum(accumulated_as(node.aval.dtype))
    kept = accumulator(CUMULATIVE[node.op], kept_as(node, long))
    return Running(
        (kept.dtype,),
        (kept.start,),
        lambda writer, value: [kept.taken(writer, value)],
        combining(kept.reduction.combine),
        lambda writer, values: kept.given(writer, values[0]),
    )


def _log_sum(dtype: np.dtype[Any]) -> Running:
    def literal(value: float) -> Literal:
        return Literal(dtype.type(value))

    def combine(writer: Writer, kept: Values, more: Values) -> Values:
        def apply(op: Op, *values: Value, of: Any = dtype) -> Value:
            return writer.let(Apply(op, EMPTY, values), np.dtype(of))

        (most, total), (value, others) = kept, more
        greater = apply(GT, value, most, of=np.bool_)
        # Two infinities that are equal are as far from each other as other equal numbers.
        same = apply(EQ, value, most, of=np.bool_)
        apart = apply(SELECT, same, apply(ABS, apply(SUB, value, most)), literal(0))
        factor = apply(EXP, apply(NEG, apart))
        before = apply(MUL, total, apply(SELECT, greater, literal(1), factor))
        after = apply(MUL, others, apply(SELECT, greater, factor, literal(1)))
        return [apply(SELECT, greater, most, value), apply(ADD, before, after)]

    def given(writer: Writer, kept: Values) -> Value:
        logarithm = writer.let(Apply(LOG, EMPTY, (kept[1],)), dtype)
        return writer.let(Apply(ADD, EMPTY, (kept[0], logarithm)), dtype)

    return Running(
        (dtype, dtype),
        (literal(-np.inf), literal(0)),
        lambda writer, value: [writer.converted(value, dtype), literal(1)],
        combine,
        given,
    )
