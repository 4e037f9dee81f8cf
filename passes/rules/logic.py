"""Rules for and, or, exclusive or and complement, of booleans and of the bits of integers."""

from __future__ import annotations

from typing import Any

import numpy as np
from jax.extend.core import primitives as p

from graphopt.ir.node import Node
from graphopt.ir.op import op_of
from graphopt.ops.make import fit, make
from graphopt.passes.rules.conditions import one_unshared, unshared
from graphopt.passes.rules.constants import literal, with_constant
from graphopt.rewrite.pattern import operation, variables
from graphopt.rewrite.rule import AnyRule, Rule, rewrites

neg = operation(p.neg_p)

x, y, z = variables("x y z")

BITS = {"biu": "exact"}
INTEGERS = {"iu": "exact"}
BOOLEANS = {"b": "exact"}

ONE_OPERAND: tuple[AnyRule, ...] = (
    Rule("double complement", ~~x, x, safety=BITS, law="inverse"),
    Rule("and with itself", x & x, x, safety=BITS, law="idempotence"),
    Rule("or with itself", x | x, x, safety=BITS, law="idempotence"),
    Rule("exclusive or with itself", x ^ x, 0, safety=BITS, law="absorption"),
    Rule("and zero", x & 0, 0, safety=INTEGERS, law="absorption"),
    Rule("and false", x & False, False, safety=BOOLEANS, law="absorption"),
    Rule("or zero", x | 0, x, safety=INTEGERS, law="identity"),
    Rule("or false", x | False, x, safety=BOOLEANS, law="identity"),
    Rule("exclusive or zero", x ^ 0, x, safety=INTEGERS, law="identity"),
    Rule("exclusive or false", x ^ False, x, safety=BOOLEANS, law="identity"),
    Rule("and complement", x & ~x, 0, safety=BITS, law="inverse"),
)

TWO_OPERANDS: tuple[AnyRule, ...] = (
    Rule("and of complements", ~x & ~y, ~(x | y), safety=BITS, when=one_unshared, law="distribution"),
    Rule("or of complements", ~x | ~y, ~(x & y), safety=BITS, when=one_unshared, law="distribution"),
    Rule("exclusive or of complements", ~x ^ ~y, x ^ y, safety=BITS, law="inverse"),
    Rule("complement of and", ~(~x & y), x | ~y, safety=BITS, when=unshared, law="distribution"),
    Rule("complement of or", ~(~x | y), x & ~y, safety=BITS, when=unshared, law="distribution"),
    Rule("complement of exclusive or", ~(~x ^ y), x ^ y, safety=BITS, law="inverse"),
    Rule("and absorbs or", x & (x | y), x, safety=BITS, law="absorption"),
    Rule("or absorbs and", x | (x & y), x, safety=BITS, law="absorption"),
    Rule("and with or of the complement", x & (~x | y), x & y, safety=BITS, law="absorption"),
    Rule("or with and of the complement", x | (~x & y), x | y, safety=BITS, law="absorption"),
    Rule("and of and of the complement", ~x & (x & y), 0, safety=BITS, law="inverse"),
    Rule("complement and or", ~x & (x | y), ~x & y, safety=BITS, law="absorption"),
    Rule("complement or and", ~x | (x & y), ~x | y, safety=BITS, law="absorption"),
    Rule("and twice", (x & y) & y, x & y, safety=BITS, law="idempotence"),
    Rule("or twice", (x | y) | y, x | y, safety=BITS, law="idempotence"),
    Rule("exclusive or twice", (x ^ y) ^ y, x, safety=BITS, law="inverse"),
    Rule("exclusive or of or and and", (x | y) ^ (x & y), x ^ y, safety=BITS, law="reduction"),
    Rule("or of exclusive or and and", (x ^ y) | (x & y), x | y, safety=BITS, law="absorption"),
    Rule("exclusive or of exclusive or and and", (x ^ y) ^ (x & y), x | y, safety=BITS, law="reduction"),
    Rule("or of exclusive or and or", (x ^ y) | (x | y), x | y, safety=BITS, law="absorption"),
    Rule("and of exclusive or and or", (x ^ y) & (x | y), x ^ y, safety=BITS, law="absorption"),
    Rule("or but not and", (x | y) & ~(x & y), x ^ y, safety=BITS, law="reduction"),
    Rule("one but not the other", (x & ~y) | (~x & y), x ^ y, safety=BITS, law="reduction"),
    Rule("both or neither", (x & y) | ~(x | y), ~(x ^ y), safety=BITS, when=unshared, law="reduction"),
    Rule("with and without", (x & y) | (x & ~y), x, safety=BITS, law="absorption"),
    Rule("or with and or without", (x | y) & (x | ~y), x, safety=BITS, law="absorption"),
    Rule("or of ands", (x & y) | (x & z), x & (y | z), safety=BITS, when=one_unshared, law="distribution"),
    Rule("and of ors", (x | y) & (x | z), x | (y & z), safety=BITS, when=one_unshared, law="distribution"),
    Rule("exclusive or of ands", (x & y) ^ (x & z), x & (y ^ z), safety=BITS, when=one_unshared, law="distribution"),
    Rule("exclusive ors with a common operand", (x ^ y) ^ (x ^ z), y ^ z, safety=BITS, law="inverse"),
)

ARITHMETIC: tuple[AnyRule, ...] = (
    Rule("negated complement", neg(~x), x + 1, safety=INTEGERS, law="reduction"),
    Rule("complement of a negative", ~neg(x), x - 1, safety=INTEGERS, law="reduction"),
    Rule("complement plus one", ~x + 1, neg(x), safety=INTEGERS, law="reduction"),
    Rule("sum of and and or", (x & y) + (x | y), x + y, safety=INTEGERS, law="reduction"),
    Rule("or less and", (x | y) - (x & y), x ^ y, safety=INTEGERS, law="reduction"),
    Rule("exclusive or plus and", (x ^ y) + (x & y), x | y, safety=INTEGERS, law="reduction"),
    Rule("sum less or", (x + y) - (x | y), x & y, safety=INTEGERS, law="reduction"),
    Rule("sum less and", (x + y) - (x & y), x | y, safety=INTEGERS, law="reduction"),
)

AND, OR, XOR, NOT = map(op_of, (p.and_p, p.or_p, p.xor_p, p.not_p))


def _all_ones(dtype: Any) -> Any:
    """The value of a boolean or integer dtype with every bit set."""
    return np.invert(np.zeros((), dtype))[()]


@rewrites(p.and_p, p.or_p, p.xor_p, safety=BITS, local=True, law="identity")
def operation_with_all_ones(node: Node) -> Node | None:
    """x & ~0 → x and x ^ ~0 → ~x, and x | ~0 → ~0"""
    found = with_constant(node)
    if found is None or found[1] != _all_ones(node.aval.dtype):
        return None
    if node.op is AND:
        return found[0]
    return make(NOT, found[0]) if node.op is XOR else fit(literal(found[1], node), node.aval)


@rewrites(p.or_p, p.xor_p, safety=BITS, law="inverse")
def operation_with_its_complement(node: Node) -> Node | None:
    """x | ~x → ~0 and x ^ ~x → ~0"""
    left, right = node.inputs
    if (left.op is NOT and left.inputs[0] is right) or (right.op is NOT and right.inputs[0] is left):
        return fit(literal(_all_ones(node.aval.dtype), node), node.aval)
    return None


@rewrites(p.and_p, p.or_p, p.xor_p, safety=BITS, local=True, law="composition")
def masks_of_a_chain(node: Node) -> Node | None:
    """(x & a) & b → x & (a & b), and the same for or and exclusive or"""
    found = with_constant(node)
    if found is None or found[0].op is not node.op or (inner := with_constant(found[0])) is None:
        return None
    function = {AND: np.bitwise_and, OR: np.bitwise_or, XOR: np.bitwise_xor}[node.op]
    return make(node.op, inner[0], literal(function(inner[1], found[1]), node))


@rewrites(p.and_p, p.or_p, safety=BITS, local=True, law="absorption")
def masks_that_absorb(node: Node) -> Node | None:
    """(x | a) & b → x & b where a has no bit of b, and (x & a) | b → x | b where a has all bits that b lacks"""
    found = with_constant(node)
    other = OR if node.op is AND else AND
    if found is None or found[0].op is not other or (inner := with_constant(found[0])) is None:
        return None
    first, second = inner[1], found[1]
    superfluous = first & second == 0 if node.op is AND else first | second == _all_ones(node.aval.dtype)
    return make(node.op, inner[0], literal(second, node)) if superfluous else None


RULES: tuple[AnyRule, ...] = (
    *ONE_OPERAND,
    *TWO_OPERANDS,
    *ARITHMETIC,
    operation_with_all_ones,
    operation_with_its_complement,
    masks_of_a_chain,
    masks_that_absorb,
)

DECLINED: dict[str, str] = {
    "and": "(x & y) & z is reordered around constants only; x & ~y is left though some machines have it as one.",
    "or": "(x & y) | (~x & z) → a choice is left: on integers it is one bit by bit.",
    "xor": "x ^ (x & y) → x & ~y and x ^ (x | y) → ~x & y save nothing; ~x ^ y → ~(x ^ y) neither.",
    "not": "~(x & y) → ~x | ~y makes more of it.",
}
