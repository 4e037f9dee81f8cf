"""Rules that put forms which neither overflow nor cancel in the place of those that people write.

None of them is for the bits: they are admitted where numerics are "fast", as all rules are that change what overflows.
"""

from __future__ import annotations

import math

import numpy as np
from jax.extend.core import primitives as p

from graphopt.ir.node import Node
from graphopt.ir.op import op_of
from graphopt.ops.make import BROADCAST, make
from graphopt.passes.rules import shares
from graphopt.passes.rules.conditions import one_unshared, unshared
from graphopt.passes.rules.constants import literal, value_of, with_constant
from graphopt.passes.rules.moving import Uses, applied, broadcast, reshaped
from graphopt.rewrite.pattern import Pattern, operation, variables
from graphopt.rewrite.rule import AnyRule, Match, Rule, rewrites

neg, absolute, maximum, minimum = map(operation, (p.neg_p, p.abs_p, p.max_p, p.min_p))
exp, log, log1p, logistic = map(operation, (p.exp_p, p.log_p, p.log1p_p, p.logistic_p))
reciprocal_square = operation(p.integer_pow_p, y=-2)
SUM, SQUARE, MUL, DIV, SUB = map(op_of, (p.reduce_sum_p, p.square_p, p.mul_p, p.div_p, p.sub_p))
NEG, ABS = op_of(p.neg_p), op_of(p.abs_p)

w, x, y, z = variables("w x y z")

FINITE = {"f": "nonfinite"}
APPROXIMATE = {"f": "approximate"}

ROW = 1 << 16
"""Elements of a row up to which it is still in a cache when it is gone through a second time."""


def _softened(value: Pattern) -> Pattern:
    """log(1 + exp(-|x|)), what the softened maximum of x and 0 is larger than the maximum itself."""
    return log1p(exp(neg(absolute(value))))


def _may_be_positive(m: Match) -> bool:
    """Whether the exponential may overflow; what the rule itself makes does not."""
    exponent = m["x"]
    return exponent.op is not NEG or exponent.inputs[0].op not in (ABS, SQUARE)


def _operand_goes_or_repeats(m: Match) -> bool:
    """Whether nothing but the logarithm reads its operand, or it is taken of fewer elements then."""
    return m.uses(m.node.inputs[0]) <= 1 or m["y"].op is BROADCAST


def _quotient_goes(m: Match) -> bool:
    """Whether nothing but the product reads the quotient in it."""
    return any(n.op is DIV and m.uses(n) <= 1 for n in m.node.inputs)


SOFT: tuple[AnyRule, ...] = (
    Rule("soft maximum with zero", log(exp(x) + 1.0), maximum(x, 0.0) + _softened(x), safety=FINITE, law="reduction"),
    Rule("soft maximum by log1p", log1p(exp(x)), maximum(x, 0.0) + _softened(x), safety=FINITE,
         when=_may_be_positive, law="reduction"),
    Rule("logarithm of the logistic function", log(logistic(x)), minimum(x, 0.0) - _softened(x), safety=FINITE,
         law="reduction"),
    Rule("one less logistic", 1.0 - logistic(x), logistic(neg(x)), safety=APPROXIMATE, when=unshared, law="reduction"),
    Rule("derivative of the soft maximum", (y / (exp(x) + 1.0)) * exp(x), y * logistic(x), safety=FINITE,
         when=_quotient_goes, law="reduction"),
    Rule("value times its reciprocal square", x * reciprocal_square(x), 1.0 / x, safety=APPROXIMATE, when=unshared,
         law="reduction"),
    Rule("multiple times its reciprocal square", (x * y) * reciprocal_square(x), y / x, safety=APPROXIMATE,
         when=one_unshared, law="reduction"),
    Rule("logarithm of a share", log(exp(x) / y), x - log(y), safety=APPROXIMATE, when=_operand_goes_or_repeats,
         law="reduction"),
    Rule("derivative of the logarithm of a share", ((y / exp(x)) / z + w) * exp(x), y / z + w * exp(x),
         safety=APPROXIMATE, law="reduction"),
    Rule("derivative of the logarithm of a scaled share", ((y / exp(x)) * z + w) * exp(x), y * z + w * exp(x),
         safety=APPROXIMATE, law="reduction"),
    Rule("share of what is divided by it", ((y / exp(x)) * z) * exp(x), y * z, safety=APPROXIMATE, law="reduction"),
    Rule("share of a quotient by it", ((y / exp(x)) / z) * exp(x), y / z, safety=APPROXIMATE, law="reduction"),
    Rule("share of a quotient", (y / exp(x)) * exp(x), y, safety=APPROXIMATE, law="reduction"),
)  # fmt: skip


_AGAINST_OVERFLOW = frozenset((
    "soft maximum with zero", "soft maximum by log1p", "logarithm of the logistic function",
    "derivative of the soft maximum", "logarithm of a share",
))  # fmt: skip


@rewrites(p.sub_p, safety=FINITE, law="reduction", an_operand=[MUL, DIV])
def mean_square_less_squared_mean(node: Node, uses: Uses) -> Node | None:
    """mean(x²) - mean(x)² → mean((x - mean(x))²) along rows that stay in a cache"""
    squares, root = node.inputs
    if root.op is not SQUARE or uses(squares) > 1 or uses(root) > 1:
        return None
    of_squares, of_values = _mean(squares), _mean(root.inputs[0])
    if of_squares is None or of_values is None or uses(of_squares) > 1:
        return None
    axes, squared = of_squares.attrs["axes"], of_squares.inputs[0]
    values = squared.inputs[0]
    if squared.op is not SQUARE or values is not of_values.inputs[0] or axes != of_values.attrs["axes"]:
        return None
    shape = values.aval.shape
    if math.prod(shape[axis] for axis in axes) > ROW or node.aval.dtype.itemsize < 4:
        return None
    mean = reshaped(root.inputs[0], of_values.aval.shape)
    kept = [axis for axis in range(len(shape)) if axis not in axes]
    differences = make(SUB, values, broadcast(mean, shape, kept))
    total = applied(SUM, of_squares.attrs, make(SQUARE, differences))
    return applied(squares.op, squares.attrs, *[total if n is of_squares else n for n in squares.inputs])


@rewrites(p.sub_p, safety=FINITE, law="reduction", an_operand=[SUM])
def sum_of_squares_less_squared_sum(node: Node, uses: Uses) -> Node | None:
    """sum(x²) - sum(x)² / n → sum((x - mean(x))²) along rows that stay in a cache; so for n * mean(x)²"""
    of_squares, root = node.inputs
    found = _scaled(root)
    if of_squares.op is not SUM or found is None or found[0].op is not SQUARE or uses(of_squares) > 1 or uses(root) > 1:
        return None
    of_values, factor = found[0].inputs[0], found[1]
    if (part := _scaled(of_values)) is not None:
        of_values, factor = part[0], factor * part[1] ** 2
    squared = of_squares.inputs[0]
    if of_values.op is not SUM or squared.op is not SQUARE or squared.inputs[0] is not of_values.inputs[0]:
        return None
    axes, values = of_squares.attrs["axes"], squared.inputs[0]
    shape = values.aval.shape
    count = math.prod(shape[axis] for axis in axes)
    if axes != of_values.attrs["axes"] or not 0 < count <= ROW or node.aval.dtype.itemsize < 4:
        return None
    if not np.isclose(factor * count, 1, rtol=float(np.finfo(np.float32).eps) * 4, atol=0):
        return None
    kept = [axis for axis in range(len(shape)) if axis not in axes]
    mean = make(MUL, of_values, literal(np.asarray(1 / count, values.aval.dtype)[()], of_values))
    return applied(SUM, of_squares.attrs, make(SQUARE, make(SUB, values, broadcast(mean, shape, kept))))


def _scaled(node: Node) -> tuple[Node, float] | None:
    """The other operand of a product with a constant, and the constant; so for a quotient by one."""
    if node.op is DIV:
        number = value_of(node.inputs[1])
        return None if number is None or not number else (node.inputs[0], 1 / float(number))
    found = with_constant(node) if node.op is MUL else None
    return None if found is None else (found[0], float(found[1]))


def _mean(node: Node) -> Node | None:
    """The sum whose mean a node is."""
    found = _scaled(node)
    if found is None or found[0].op is not SUM:
        return None
    total, factor = found
    count = math.prod(total.inputs[0].aval.shape[axis] for axis in total.attrs["axes"])
    exact = np.isclose(factor * count, 1, rtol=float(np.finfo(np.float32).eps) * 4, atol=0)
    return total if exact else None


VARIANCES: tuple[AnyRule, ...] = (mean_square_less_squared_mean, sum_of_squares_less_squared_sum)

RULES: tuple[AnyRule, ...] = (*SOFT, *VARIANCES, *shares.RULES)

STABILIZING: frozenset[AnyRule] = frozenset(
    (*[r for r in SOFT if r.name in _AGAINST_OVERFLOW], *VARIANCES, *shares.RULES)
)
"""Those in whose place infinities, NaN or few digits stay: the report says so however little work there is."""
