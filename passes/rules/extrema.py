"""Rules for maxima, minima and clamps."""

from __future__ import annotations

from typing import Any

import numpy as np
from jax.extend.core import primitives as p

from graphopt.ir.node import Node
from graphopt.ir.op import op_of
from graphopt.ops.make import full, make
from graphopt.passes.rules.conditions import one_unshared, unshared
from graphopt.passes.rules.constants import literal, value_of, with_constant
from graphopt.rewrite.pattern import operation, variables
from graphopt.rewrite.rule import AnyRule, Match, Rule, rewrites
from graphopt.rewrite.safety import kind_of

largest, least, clamp, neg, absolute = map(operation, (p.max_p, p.min_p, p.clamp_p, p.neg_p, p.abs_p))
MAX, MIN, CLAMP = map(op_of, (p.max_p, p.min_p, p.clamp_p))

x, y, z = variables("x y z")
a, b = variables("a b", constant=True)

FLUSHES = {"biu": "exact", "f": "reassociate"}
FINITE = {"biu": "exact", "f": "nonfinite"}
"""A NaN on the one side is none on the other."""

PATTERNS: tuple[AnyRule, ...] = (
    Rule("maximum with itself", largest(x, x), x, safety=FLUSHES, law="idempotence"),
    Rule("minimum with itself", least(x, x), x, safety=FLUSHES, law="idempotence"),
    Rule("maximum twice", largest(largest(x, y), y), largest(x, y), safety=FLUSHES, law="idempotence"),
    Rule("minimum twice", least(least(x, y), y), least(x, y), safety=FLUSHES, law="idempotence"),
    Rule("maximum of a minimum", largest(least(x, y), y), y, safety=FINITE, law="absorption"),
    Rule("minimum of a maximum", least(largest(x, y), y), y, safety=FINITE, law="absorption"),
    Rule("minimum of maxima", least(largest(x, y), largest(x, z)), largest(x, least(y, z)), safety=FLUSHES,
         when=one_unshared, law="distribution"),
    Rule("maximum of minima", largest(least(x, y), least(x, z)), least(x, largest(y, z)), safety=FLUSHES,
         when=one_unshared, law="distribution"),
    Rule("maximum with its negative", largest(x, neg(x)), absolute(x), safety={"i": "exact", "f": "reassociate"},
         law="reduction"),
    Rule("maximum of negatives", largest(neg(x), neg(y)), neg(least(x, y)), safety={"f": "reassociate"},
         when=unshared, law="distribution"),
    Rule("minimum of negatives", least(neg(x), neg(y)), neg(largest(x, y)), safety={"f": "reassociate"},
         when=unshared, law="distribution"),
    Rule("maximum of sums", largest(x + z, y + z), largest(x, y) + z, safety={"f": "nonfinite"}, when=unshared,
         law="distribution"),
    Rule("minimum of sums", least(x + z, y + z), least(x, y) + z, safety={"f": "nonfinite"}, when=unshared,
         law="distribution"),
    Rule("clamp twice", clamp(x, clamp(x, y, z), z), clamp(x, y, z), safety=FLUSHES, law="idempotence"),
)  # fmt: skip


def _shrinks(m: Match) -> bool:
    """Whether both products go away and the constant is positive, so that order is kept."""
    value = value_of(m["a"])
    return bool(value is not None and value > 0 and np.isfinite(value)) and unshared(m)


def _turns(m: Match) -> bool:
    """Whether both products go away and the constant is negative, so that order is reversed."""
    value = value_of(m["a"])
    return bool(value is not None and value < 0 and np.isfinite(value)) and unshared(m)


SCALED: tuple[AnyRule, ...] = tuple(
    Rule(name, op(x * a, y * a), becomes(x, y) * a, safety={"f": "reassociate"}, when=when, law="distribution")
    for name, op, becomes, when in (
        ("maximum of positive multiples", largest, largest, _shrinks),
        ("minimum of positive multiples", least, least, _shrinks),
        ("maximum of negative multiples", largest, least, _turns),
        ("minimum of negative multiples", least, largest, _turns),
    )
)

NOT_NEGATIVE = {
    "an absolute value": p.abs_p, "a square": p.square_p, "an exponential": p.exp_p, "a power of two": p.exp2_p,
    "a root": p.sqrt_p, "a cosh": p.cosh_p, "a logistic function": p.logistic_p,
}  # fmt: skip
MONOTONE = {"exponentials": p.exp_p, "tanh": p.tanh_p, "logistic functions": p.logistic_p}
"""Increasing functions that are defined everywhere."""


def _of_functions() -> tuple[AnyRule, ...]:
    rules: list[AnyRule] = []
    for name, primitive in NOT_NEGATIVE.items():
        f = operation(primitive)
        rules.append(Rule(f"maximum of zero and {name}", largest(f(x), 0.0), f(x), safety={"f": "reassociate"},
                          law="identity"))  # fmt: skip
    for name, primitive in MONOTONE.items():
        f = operation(primitive)
        for word, op in (("maximum", largest), ("minimum", least)):
            rules.append(Rule(f"{word} of {name}", op(f(x), f(y)), f(op(x, y)),
                              safety={"f": "reassociate"}, when=unshared, law="distribution"))  # fmt: skip
    return tuple(rules)


def _limits(dtype: Any) -> tuple[Any, Any]:
    """The least and the largest value of a dtype."""
    kind = kind_of(dtype)
    if kind == "b":
        return False, True
    return (-np.inf, np.inf) if kind == "f" else (np.iinfo(dtype).min, np.iinfo(dtype).max)


def _limit(node: Node, ineffective: bool) -> Node | None:
    """For max or min with a limit of the dtype: the other operand, or the limit."""
    found = with_constant(node)
    if found is None:
        return None
    lowest, highest = _limits(node.aval.dtype)
    neutral, deciding = (lowest, highest) if node.op is MAX else (highest, lowest)
    if ineffective:
        return found[0] if found[1] == neutral else None
    return full(found[1].item(), node.aval) if found[1] == deciding else None


@rewrites(p.max_p, p.min_p, safety=FLUSHES, local=True, law="identity")
def extremum_with_an_ineffective_limit(node: Node) -> Node | None:
    """max(x, least) → x and min(x, largest) → x, of what the dtype has; of floats with infinities"""
    return _limit(node, ineffective=True)


@rewrites(p.max_p, p.min_p, safety=FINITE, law="absorption")
def extremum_with_a_deciding_limit(node: Node) -> Node | None:
    """max(x, largest) → largest and min(x, least) → least, of what the dtype has; of floats with infinities"""
    return _limit(node, ineffective=False)


@rewrites(p.max_p, p.min_p, safety=FLUSHES, local=True, law="composition")
def extremum_of_an_extremum(node: Node) -> Node | None:
    """max(max(x, a), b) → max(x, the larger of a and b), and the same for min"""
    found = with_constant(node)
    if found is None or found[0].op is not node.op or (inner := with_constant(found[0])) is None:
        return None
    first, second = inner[1], found[1]
    if first != first or second != second:
        return None
    keep = max(first, second) if node.op is MAX else min(first, second)
    return make(node.op, inner[0], literal(keep, node))


@rewrites(p.max_p, p.min_p, safety=FLUSHES, local=True, law="composition")
def clamp_from_extrema(node: Node) -> Node | None:
    """min(max(x, a), b) → clamp(a, x, b) and max(min(x, b), a) → clamp(a, x, b) where a ≤ b"""
    found = with_constant(node)
    other = MIN if node.op is MAX else MAX
    if found is None or found[0].op is not other or (inner := with_constant(found[0])) is None:
        return None
    low, high = (inner[1], found[1]) if node.op is MIN else (found[1], inner[1])
    return _clamp(inner[0], low, high, node)


@rewrites(p.max_p, p.min_p, safety=FLUSHES, local=True, law="composition")
def extremum_of_a_clamp(node: Node) -> Node | None:
    """max(clamp(a, x, b), c) → clamp(the larger of a and c, x, b) where c ≤ b, and the same for min"""
    found = with_constant(node)
    if found is None or found[0].op is not CLAMP or (bounds := _bounds(found[0])) is None:
        return None
    limit, (low, high) = found[1], bounds
    if node.op is MAX:
        return _clamp(found[0].inputs[1], max(low, limit), high, node) if limit <= high else None
    return _clamp(found[0].inputs[1], low, min(high, limit), node) if low <= limit else None


@rewrites(p.clamp_p, safety=FLUSHES, local=True, law="composition")
def clamp_of_a_clamp(node: Node) -> Node | None:
    """clamp(c, clamp(a, x, b), d) → one clamp, where the two ranges have values in common"""
    inner, bounds = node.inputs[1], _bounds(node)
    if inner.op is not CLAMP or bounds is None or (first := _bounds(inner)) is None:
        return None
    return _clamp(inner.inputs[1], max(first[0], bounds[0]), min(first[1], bounds[1]), node)


@rewrites(p.clamp_p, safety=FLUSHES, local=True, law="identity")
def clamp_with_an_ineffective_limit(node: Node) -> Node | None:
    """clamp(least, x, b) → min(x, b) and clamp(a, x, largest) → max(x, a), of what the dtype has"""
    bounds = _bounds(node)
    if bounds is None:
        return None
    lowest, highest = _limits(node.aval.dtype)
    value = node.inputs[1]
    if bounds[0] == lowest:
        return value if bounds[1] == highest else make(MIN, value, literal(bounds[1], node))
    return make(MAX, value, literal(bounds[0], node)) if bounds[1] == highest else None


def _bounds(node: Node) -> tuple[Any, Any] | None:
    """The limits of a clamp where both are constants, in order."""
    low, high = value_of(node.inputs[0]), value_of(node.inputs[2])
    return (low, high) if low is not None and high is not None and low <= high else None


def _clamp(value: Node, low: Any, high: Any, like: Node) -> Node | None:
    return make(CLAMP, literal(low, like), value, literal(high, like)) if low <= high else None


RULES: tuple[AnyRule, ...] = (
    *PATTERNS,
    *SCALED,
    *_of_functions(),
    extremum_with_an_ineffective_limit,
    extremum_with_a_deciding_limit,
    extremum_of_an_extremum,
    clamp_from_extrema,
    extremum_of_a_clamp,
    clamp_of_a_clamp,
    clamp_with_an_ineffective_limit,
)

DECLINED: dict[str, str] = {
    "max": "max(x, y) + min(x, y) → x + y is not seen in programs; max(-x, -y) → -min(x, y) on integers is wrong for "
    "the least one, and of sums on integers where they wrap around.",
    "min": "min(log(x), log(y)) → log(min(x, y)) is wrong where one of them is negative.",
    "clamp": "limits that are not known are left: whether they are in order decides what a clamp of a clamp is.",
}
