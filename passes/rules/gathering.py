"""Rules that gather the constants of a chain of sums, or of products and quotients, into one.

Of floating-point constants two cases are told apart. Where both move a value the same way (terms of one sign, factors
on one side of 1), what overflows before overflows after, and only rounding moves. Where they pull in opposite
directions, an overflow, or digits that the first operation rounded away, may come back.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from jax.extend.core import primitives as p

from graphopt.ir.node import Node
from graphopt.ir.op import op_of
from graphopt.ops.make import make
from graphopt.passes.rules.constants import is_normal, is_signed_minimum, literal, with_constant
from graphopt.rewrite.rule import AnyRule, rewrites
from graphopt.rewrite.safety import kind_of

ADD, SUB, MUL, DIV = map(op_of, (p.add_p, p.sub_p, p.mul_p, p.div_p))


def _is_float(value: Any) -> bool:
    return kind_of(value.dtype) == "f"


# ---- sums


def _shift(node: Node) -> tuple[bool, Node, Any] | None:
    """A sum or difference with a constant, as x + k or -x + k: whether x is negated, x and k."""
    if (node.op is not ADD and node.op is not SUB) or (found := with_constant(node)) is None:
        return None
    operand, value = found
    if node.op is ADD:
        return False, operand, value
    if operand is node.inputs[1]:
        return True, operand, value
    with np.errstate(all="ignore"):
        return False, operand, np.negative(value)


def _sum(node: Node, one_sign: bool) -> Node | None:
    """A sum of a constant and a sum with a constant, as one sum. one_sign: which of the two cases is meant."""
    outer = _shift(node)
    inner = None if outer is None else _shift(outer[1])
    if outer is None or inner is None:
        return None
    with np.errstate(all="ignore"):
        first = np.negative(inner[2]) if outer[0] else inner[2]
        total = first + outer[2]
    if _is_float(total):
        same = np.signbit(first) == np.signbit(outer[2])
        if not np.isfinite(total) or bool(same) != one_sign:
            return None
    if inner[0] != outer[0]:
        return make(SUB, literal(total, node), inner[1])
    if total < 0 and not is_signed_minimum(total):
        return make(SUB, inner[1], literal(np.negative(total), node))
    return make(ADD, inner[1], literal(total, node))


@rewrites(p.add_p, p.sub_p, safety={"iu": "exact", "f": "reassociate"}, local=True, law="composition")
def sum_of_constants(node: Node) -> Node | None:
    """(x + a) + b → x + (a + b), and with differences; of floats a and b of one sign"""
    return _sum(node, one_sign=True)


@rewrites(p.add_p, p.sub_p, safety={"f": "approximate"}, local=True, law="composition")
def sum_of_opposite_constants(node: Node) -> Node | None:
    """(x + a) - b → x + (a - b), and the like: digits that x + a rounded away come back"""
    return _sum(node, one_sign=False)


# ---- like terms


def _term(node: Node) -> tuple[Node, Any] | None:
    """A product with a constant, as x and the constant."""
    return with_constant(node) if node.op is MUL else None


def _like_terms(node: Node, one_sign: bool) -> Node | None:
    """A sum or difference of multiples of the same value, as one multiple."""
    left, right = node.inputs
    first, second = _term(left), _term(right)
    if first is None and second is None:
        return None
    one = (first or second or (left, np.float32(1)))[1].dtype.type(1)
    (x, a), (y, b) = first or (left, one), second or (right, one)
    if x is not y:
        return None
    with np.errstate(all="ignore"):
        b = np.negative(b) if node.op is SUB else b
        total = a + b
    if _is_float(total) and (
        bool(np.signbit(a) == np.signbit(b)) != one_sign or not all(map(is_normal, (a, b, total)))
    ):
        return None
    return make(MUL, x, literal(total, node))


@rewrites(p.add_p, p.sub_p, safety={"iu": "exact", "f": "reassociate"}, local=True, law="distribution")
def like_terms(node: Node) -> Node | None:
    """x * a + x * b → x * (a + b), and x * a + x; of floats a and b of one sign"""
    return _like_terms(node, one_sign=True)


@rewrites(p.add_p, p.sub_p, safety={"f": "nonfinite"}, local=True, law="distribution")
def opposite_like_terms(node: Node) -> Node | None:
    """x * a - x * b → x * (a - b), and the like: a product that overflows may not occur"""
    return _like_terms(node, one_sign=False)


# ---- products and quotients


def _scale(node: Node) -> tuple[str, Node, Any] | None:
    """x * c, x / c or c / x, as "times", "by" or "over", x and c."""
    if (node.op is not MUL and node.op is not DIV) or (found := with_constant(node)) is None:
        return None
    if node.op is MUL:
        return "times", *found
    return "by" if found[0] is node.inputs[0] else "over", *found


_COMPOSED: dict[tuple[str, str], tuple[str, Callable[[Any, Any], Any]]] = {
    ("times", "times"): ("times", lambda a, b: a * b),  # (x * a) * b
    ("times", "by"): ("times", lambda a, b: a / b),  # (x * a) / b
    ("by", "times"): ("times", lambda a, b: b / a),  # (x / a) * b
    ("by", "by"): ("by", lambda a, b: a * b),  # (x / a) / b
    ("times", "over"): ("over", lambda a, b: b / a),  # b / (x * a)
    ("by", "over"): ("over", lambda a, b: b * a),  # b / (x / a)
    ("over", "times"): ("over", lambda a, b: a * b),  # (a / x) * b
    ("over", "by"): ("over", lambda a, b: a / b),  # (a / x) / b
    ("over", "over"): ("times", lambda a, b: b / a),  # b / (a / x)
}
"""By the inner and the outer operation: the one that does both, and its constant from the inner and the outer one."""


def _product(node: Node, one_side: bool) -> Node | None:
    """An operation with a constant on one with a constant, as one. one_side: which of the two cases is meant."""
    outer = _scale(node)
    inner = None if outer is None else _scale(outer[1])
    if outer is None or inner is None:
        return None
    kind, compose = _COMPOSED[inner[0], outer[0]]
    a, b = inner[2], outer[2]
    if not _is_float(a):
        if inner[0] != "times" or outer[0] != "times":
            return None
        with np.errstate(all="ignore"):
            return make(MUL, inner[1], literal(a * b, node))
    with np.errstate(all="ignore"):
        total = compose(a, b)
    if not all(map(is_normal, (a, b, total))) or _same_side(inner, outer) != one_side:
        return None
    if kind == "over":
        return make(DIV, literal(total, node), inner[1])
    return make(MUL if kind == "times" else DIV, inner[1], literal(total, node))


def _same_side(inner: tuple[str, Node, Any], outer: tuple[str, Node, Any]) -> bool:
    """Whether both operations make a value larger, or both smaller. A constant that x divides is neither."""
    if "over" in (inner[0], outer[0]):
        return False
    larger = [abs(c) >= 1 if kind == "times" else abs(c) <= 1 for kind, _, c in (inner, outer)]
    smaller = [abs(c) <= 1 if kind == "times" else abs(c) >= 1 for kind, _, c in (inner, outer)]
    return all(larger) or all(smaller)


@rewrites(p.mul_p, p.div_p, safety={"iu": "exact", "f": "reassociate"}, local=True, law="composition")
def product_of_constants(node: Node) -> Node | None:
    """(x * a) * b → x * (a * b), and with quotients; of floats a and b on one side of 1"""
    return _product(node, one_side=True)


@rewrites(p.mul_p, p.div_p, safety={"f": "nonfinite"}, local=True, law="composition")
def product_of_opposite_constants(node: Node) -> Node | None:
    """(x * a) / b → x * (a / b), and the like: an overflow between the two may not occur"""
    return _product(node, one_side=False)


# ---- equations


@rewrites(p.eq_p, p.ne_p, safety={"iu": "exact"}, local=True, law="movement")
def equation_with_a_sum(node: Node) -> Node | None:
    """x + a == b → x == b - a, and with differences, on integers"""
    found = with_constant(node)
    inner = None if found is None else _shift(found[0])
    if found is None or inner is None:
        return None
    with np.errstate(all="ignore"):
        value = inner[2] - found[1] if inner[0] else found[1] - inner[2]
    return make(node.op, inner[1], literal(value, found[0]))


RULES: tuple[AnyRule, ...] = (
    sum_of_constants,
    like_terms,
    product_of_constants,
    sum_of_opposite_constants,
    opposite_like_terms,
    product_of_opposite_constants,
    equation_with_a_sum,
)
