"""Exponentials that are divided by sums of them, or whose sums' logarithms are taken: shifted so that none overflows.

With m the maximum of a row of x, exp(x) is exp(x - m) times exp(m). Where that factor cancels, it need not be computed:
in exp(x) / sum(exp(x)), in the derivatives of it, and, but for a term m, in log(sum(exp(x))). How often it is in a
value, its degree, follows from how the value is made. Of what a mask leaves out of the sum the maximum is not taken.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from jax.extend.core import primitives as p

from graphopt.ir.node import Node
from graphopt.ir.op import Op, op_of
from graphopt.ops.contract import DOT_GENERAL
from graphopt.ops.make import BROADCAST, CONVERT, full, make, scalar
from graphopt.passes.rules.contraction import axes_of
from graphopt.passes.rules.moving import (
    RESHAPE,
    SQUEEZE,
    Uses,
    applied,
    axes_kept,
    broadcast,
    reshaped,
    without_units,
)
from graphopt.rewrite.pattern import splat
from graphopt.rewrite.rule import AnyRule, rewrites
from graphopt.rewrite.safety import kind_of

EXP, LOG, NEG, SQUARE, POWER = map(op_of, (p.exp_p, p.log_p, p.neg_p, p.square_p, p.integer_pow_p))
ADD, SUB, MUL, DIV, SUM = map(op_of, (p.add_p, p.sub_p, p.mul_p, p.div_p, p.reduce_sum_p))
MAX, IS_FINITE, SELECT = map(op_of, (p.reduce_max_p, p.is_finite_p, p.select_n_p))

LOOKED_AT = 48
"""Nodes below the root that are looked at."""

Places = tuple[int, ...]
"""The axes of a value that are those of a row's maximum, but for axes of size one."""


@dataclass(frozen=True, slots=True)
class Share:
    """What a value becomes: `new` times exp(degree * m), where m lies along the axes `places` of it."""

    new: Node
    degree: int = 0
    places: Places = ()


@rewrites(DIV, MUL, LOG, DOT_GENERAL, safety={"f": "approximate"}, law="reduction", keeps_derivatives=False)
def shares_of_exponentials(node: Node, uses: Uses) -> Node | None:
    """exp(x) / sum(exp(x)) → the same of x - max(x), log(sum(exp(x))) too, and what is made of both: no overflow"""
    total = next(_sums_below(node, uses), None)
    if total is None:
        return None
    found = _Shifted(total).of(node)
    return None if found is None or found.degree or found.new is node else found.new


@dataclass(frozen=True, slots=True)
class _Total:
    """A sum of exponentials, of those alone that are kept. kept: masks, and which case of each choice the kept are."""

    axes: Places
    exponential: Node
    kept: tuple[tuple[Node, int], ...]


def _total(node: Node, uses: Uses) -> _Total | None:
    """The sum of exponentials that a node is, maybe of some that a mask chooses, or in another dtype."""
    if node.op is not SUM or node.context is not None or not node.attrs["axes"] or not node.inputs[0].aval.size:
        return None
    inner, kept = node.inputs[0], list[tuple[Node, int]]()
    while inner.op is not EXP:
        if inner.op is CONVERT and kind_of(inner.inputs[0].aval.dtype) == "f":
            inner = inner.inputs[0]
        elif (case := _kept_case(inner)) is not None and uses(inner.inputs[case]) <= 1:
            # What is left out may be larger than the maximum of the rest: nobody else may read its exponential.
            kept.append((inner.inputs[0], case))
            inner = inner.inputs[case]
        else:
            return None
    return _Total(tuple(node.attrs["axes"]), inner, tuple(kept))


def _kept_case(node: Node) -> int | None:
    """Which operand a choice between something and zero keeps; None for any other node."""
    if node.op is not SELECT or len(node.inputs) != 3 or node.inputs[0].aval.shape != node.aval.shape:
        return None
    if node.inputs[0].aval.dtype != np.bool_:
        return None
    return next((case for case in (1, 2) if splat(node.inputs[3 - case]) == 0), None)


def _sums_below(node: Node, uses: Uses) -> Iterator[_Total]:
    """The sums of exponentials of which a node is made by what keeps degrees, where the exponents are not shifted."""
    stack, seen = [node], {node}
    while stack and len(seen) <= LOOKED_AT:
        found = stack.pop()
        total = _total(found, uses)
        if total is not None:
            if not _is_shifted(total.exponential.inputs[0]):
                yield total
        elif found is node or found.op in _DEGREES:
            new = [n for n in found.inputs if n not in seen]
            seen.update(new)
            stack += new


def _is_shifted(x: Node) -> bool:
    """Whether a maximum along an axis is in what x is made of, element by element."""
    stack, seen = [x], {x}
    while stack and len(seen) <= LOOKED_AT:
        node = stack.pop()
        if node.op is MAX:
            return True
        if node.op.elementwise or node.op in (BROADCAST, RESHAPE, SQUEEZE, CONVERT):
            new = [n for n in node.inputs if n not in seen]
            seen.update(new)
            stack += new
    return False


class _Shifted:
    """The values above one sum of exponentials, with the exponents shifted."""

    def __init__(self, total: _Total) -> None:
        exponential, axes = total.exponential, total.axes
        x = counted = exponential.inputs[0]
        for mask, case in total.kept:
            cases = (full(-math.inf, x.aval), counted)
            counted = make(SELECT, mask, *(cases if case == 2 else cases[::-1]))
        top = make(MAX, counted, axes=axes)
        # A row of infinities alone, or with a NaN, stays as it was.
        top = make(SELECT, make(IS_FINITE, top), full(0, top.aval), top)
        kept = [axis for axis in range(len(x.aval.shape)) if axis not in axes]
        shifted = applied(EXP, exponential.attrs, make(SUB, x, broadcast(top, x.aval.shape, kept)))
        self.top = reshaped(top, without_units(top.aval.shape))
        own = [k for k, axis in enumerate(kept) if x.aval.shape[axis] != 1]
        self.known: dict[Node, Share | None] = {
            exponential: Share(shifted, 1, tuple(kept[k] for k in own)),
        }

    def of(self, node: Node) -> Share | None:
        """What a value becomes; None where the factor is in one term of it and not in another."""
        if node not in self.known:
            self.known[node] = None  # for what is deeper than it may be
            self.known[node] = self.computed(node) if len(self.known) <= LOOKED_AT else None
        return self.known[node]

    def computed(self, node: Node) -> Share | None:
        rule = _DEGREES.get(node.op) if not node.effects and node.context is None and len(node.avals) == 1 else None
        if rule is None:
            return Share(node)
        shares = [self.of(n) for n in node.inputs]
        known = [share for share in shares if share is not None]
        if len(known) < len(shares):
            return None
        if all(share.new is n for share, n in zip(known, node.inputs, strict=True)):
            return Share(node)
        new = applied(node.op, node.attrs, *[share.new for share in known])
        if not any(share.degree for share in known):
            return Share(new)
        if node.op is LOG:
            return Share(make(ADD, new, self.term(known[0], new)))
        found = rule(node, known)
        return None if found is None else Share(new, *(found if found[0] else (0, ())))

    def term(self, share: Share, like: Node) -> Node:
        """The degree times the maximum, as a term of the logarithm `like`."""
        shape, dtype = like.aval.shape, like.aval.dtype
        top = self.top if self.top.aval.dtype == dtype else make(CONVERT, self.top, new_dtype=dtype, weak_type=False)
        term = broadcast(top, shape, share.places) if shape else top
        if share.degree == 1:
            return term
        factor = broadcast(scalar(share.degree, like.aval.dtype), shape, ())
        return make(MUL, term, factor)


Rule = Callable[[Node, list[Share]], "tuple[int, Places] | None"]
"""The degree and the places of a result from those of its operands, one of which at least has a degree."""


def _product(node: Node, shares: list[Share]) -> tuple[int, Places] | None:
    a, b = shares
    if a.degree and b.degree and a.places != b.places:
        return None
    return a.degree + (b.degree if node.op is MUL else -b.degree), a.places if a.degree else b.places


def _sum(node: Node, shares: list[Share]) -> tuple[int, Places] | None:
    a, b = shares
    return (a.degree, a.places) if (a.degree, a.places) == (b.degree, b.places) else None


def _power(node: Node, shares: list[Share]) -> tuple[int, Places]:
    exponent = {SQUARE: 2, POWER: node.attrs.get("y")}.get(node.op) or 1
    return shares[0].degree * int(exponent), shares[0].places


def _cast(node: Node, shares: list[Share]) -> tuple[int, Places] | None:
    return (shares[0].degree, shares[0].places) if kind_of(node.aval.dtype) == "f" else None


def _choice(node: Node, shares: list[Share]) -> tuple[int, Places] | None:
    case = _kept_case(node)
    if case is None or shares[0].degree:
        return None
    return shares[case].degree, shares[case].places


def _broadcast(node: Node, shares: list[Share]) -> tuple[int, Places] | None:
    dimensions = node.attrs["broadcast_dimensions"]
    return (shares[0].degree, tuple(dimensions[k] for k in shares[0].places)) if len(node.inputs) == 1 else None


def _reshape(node: Node, shares: list[Share]) -> tuple[int, Places] | None:
    places = axes_kept(node.inputs[0].aval.shape, node.aval.shape) if len(node.inputs) == 1 else None
    return None if places is None else (shares[0].degree, tuple(places[k] for k in shares[0].places))


def _reduction(node: Node, shares: list[Share]) -> tuple[int, Places] | None:
    gone, places = node.attrs["axes"], shares[0].places
    if any(k in gone for k in places):
        return None
    return shares[0].degree, tuple(k - sum(axis < k for axis in gone) for k in places)


def _contraction(node: Node, shares: list[Share]) -> tuple[int, Places] | None:
    _, batch, free = axes_of(node)
    side = 0 if shares[0].degree else 1
    if shares[1 - side].degree:
        return None
    first = len(batch[0]) + (len(free[0]) if side else 0)
    where = {a: k for k, a in enumerate(batch[side])} | {a: first + k for k, a in enumerate(free[side])}
    if any(k not in where for k in shares[side].places):
        return None
    return shares[side].degree, tuple(where[k] for k in shares[side].places)


_DEGREES: Mapping[Op, Rule] = {
    MUL: _product,
    DIV: _product,
    ADD: _sum,
    SUB: _sum,
    NEG: _power,
    SQUARE: _power,
    POWER: _power,
    LOG: _power,
    CONVERT: _cast,
    SELECT: _choice,
    BROADCAST: _broadcast,
    RESHAPE: _reshape,
    SQUEEZE: _reshape,
    SUM: _reduction,
    DOT_GENERAL: _contraction,
}
"""The operations of which the degree is known."""

RULES: tuple[AnyRule, ...] = (shares_of_exponentials,)
