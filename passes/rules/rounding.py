"""Rules for roundings to whole numbers, to fewer bits and to the next number, and for tests of being finite."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import primitives as p

from graphopt.ir.node import Node
from graphopt.ir.op import op_of
from graphopt.ops.make import CONVERT, full, make
from graphopt.passes.rules.conditions import unshared
from graphopt.rewrite.pattern import operation, variables
from graphopt.rewrite.rule import AnyRule, Rule, rewrites
from graphopt.rewrite.safety import kind_of

neg, absolute, sign = map(operation, (p.neg_p, p.abs_p, p.sign_p))
floor, ceil, is_finite, nextafter = map(operation, (p.floor_p, p.ceil_p, p.is_finite_p, p.nextafter_p))

x, y = variables("x y")

FLOAT = {"f": "exact"}

PATTERNS: tuple[AnyRule, ...] = (
    Rule("negated floor of a negative", neg(floor(neg(x))), ceil(x), safety=FLOAT, when=unshared, law="reduction"),
    Rule("negated ceil of a negative", neg(ceil(neg(x))), floor(x), safety=FLOAT, when=unshared, law="reduction"),
    Rule("next after itself", nextafter(x, x), x, safety=FLOAT, law="identity"),
    Rule("finite negative", is_finite(neg(x)), is_finite(x), safety=FLOAT, law="absorption"),
    Rule("finite absolute value", is_finite(absolute(x)), is_finite(x), safety=FLOAT, law="absorption"),
    Rule("finite floor", is_finite(floor(x)), is_finite(x), safety=FLOAT, law="absorption"),
    Rule("finite ceil", is_finite(ceil(x)), is_finite(x), safety=FLOAT, law="absorption"),
)

ROUND, FLOOR, CEIL, SIGN, NEG = map(op_of, (p.round_p, p.floor_p, p.ceil_p, p.sign_p, p.neg_p))
WHOLE = frozenset({FLOOR, CEIL, ROUND, SIGN})


@rewrites(p.floor_p, p.ceil_p, p.round_p, safety=FLOAT, local=True, law="idempotence")
def rounding_of_a_whole_number(node: Node) -> Node | None:
    """floor(y) → y where y = floor(x), ceil(x), round(x) or sign(x), and the same for ceil and round"""
    return node.inputs[0] if node.inputs[0].op in WHOLE else None


@rewrites(p.floor_p, p.ceil_p, p.round_p, safety={"iubf": "exact"}, local=True, law="identity")
def rounding_of_an_integer(node: Node) -> Node | None:
    """floor(float(n)) → float(n) where n is an integer or a boolean, and the same for ceil and round"""
    convert = node.inputs[0]
    return convert if convert.op is CONVERT and kind_of(convert.inputs[0].aval.dtype) in "biu" else None


@rewrites(p.neg_p, safety=FLOAT, local=True, law="inverse")
def negated_round_of_a_negative(node: Node) -> Node | None:
    """-round(-x) → round(x)"""
    inner = node.inputs[0]
    if inner.op is not ROUND or inner.inputs[0].op is not NEG:
        return None
    return make(ROUND, inner.inputs[0].inputs[0], **inner.attrs)


@rewrites(p.reduce_precision_p, safety=FLOAT, local=True, law="idempotence")
def precision_reduced_twice(node: Node) -> Node | None:
    """reduce_precision(reduce_precision(x, few bits), more bits) → reduce_precision(x, few bits)"""
    inner = node.inputs[0]
    if inner.op is not node.op:
        return None
    fewer = all(inner.attrs[name] <= node.attrs[name] for name in ("exponent_bits", "mantissa_bits"))
    return inner if fewer else None


@rewrites(p.reduce_precision_p, safety={"f": "reassociate"}, local=True, law="identity")
def precision_kept(node: Node) -> Node | None:
    """reduce_precision(x) → x where x has no more bits"""
    info = jnp.finfo(node.aval.dtype)
    enough = node.attrs["exponent_bits"] >= info.nexp and node.attrs["mantissa_bits"] >= info.nmant
    return node.inputs[0] if enough else None


@rewrites(p.is_finite_p, safety=FLOAT, law="absorption")
def finite_integer(node: Node) -> Node | None:
    """is_finite(float(n)) → True where every n of its integer type has a float"""
    convert = node.inputs[0]
    if convert.op is not CONVERT:
        return None
    source = convert.inputs[0].aval.dtype
    kind = kind_of(source)
    if kind not in "biu" or source == jax.dtypes.float0:
        return None
    largest = 1 if kind == "b" else max(-int(np.iinfo(source).min), int(np.iinfo(source).max))
    return full(True, node.aval) if largest < float(jnp.finfo(convert.aval.dtype).max) else None


@rewrites(p.is_finite_p, safety=FLOAT, local=True, law="absorption")
def finite_round(node: Node) -> Node | None:
    """is_finite(round(x)) → is_finite(x)"""
    return make(node.op, node.inputs[0].inputs[0]) if node.inputs[0].op is ROUND else None


RULES: tuple[AnyRule, ...] = (
    *PATTERNS,
    rounding_of_a_whole_number,
    rounding_of_an_integer,
    negated_round_of_a_negative,
    precision_reduced_twice,
    precision_kept,
    finite_integer,
    finite_round,
)

DECLINED: dict[str, str] = {
    "floor": "floor(x + n) → floor(x) + n is wrong where x + n is rounded.",
    "ceil": "ceil(x + n) → ceil(x) + n is wrong where x + n is rounded.",
    "round": "floor(x + 0.5) → round(x) differs for halves.",
    "nextafter": "nextafter(nextafter(x, ∞), -∞) → x is wrong for infinities and costs what it looks for.",
    "is_finite": "is_finite(x) & is_finite(y) → is_finite(x + y) is wrong where the sum overflows.",
    "reduce_precision": "a reduction to fewer bits is a rounding that was asked for.",
}
