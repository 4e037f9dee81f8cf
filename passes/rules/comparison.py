"""Rules for comparisons. A comparison with NaN is false, but for `ne`: what holds for integers need not for floats."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.extend.core import primitives as p

from graphopt.ir.node import Node
from graphopt.ir.op import op_of
from graphopt.ops.make import CONVERT, full, make
from graphopt.passes.rules.conditions import unshared
from graphopt.passes.rules.constants import literal, value_of, with_constant
from graphopt.passes.rules.extrema import NOT_NEGATIVE
from graphopt.rewrite.pattern import operation, variables
from graphopt.rewrite.rule import AnyRule, Rule, rewrites
from graphopt.rewrite.safety import kind_of

eq, ne, lt, le, gt, ge = map(operation, (p.eq_p, p.ne_p, p.lt_p, p.le_p, p.gt_p, p.ge_p))
neg, absolute = map(operation, (p.neg_p, p.abs_p))
EQ, NE, LT, LE, GT, GE = map(op_of, (p.eq_p, p.ne_p, p.lt_p, p.le_p, p.gt_p, p.ge_p))

x, y, z = variables("x y z")

INTEGERS = {"biu": "exact"}
REAL = {"biuf": "exact"}
FINITE = {"biu": "exact", "f": "nonfinite"}

WITH_ITSELF: tuple[AnyRule, ...] = (
    Rule("equal to itself", eq(x, x), True, safety=INTEGERS, law="absorption"),
    Rule("different from itself", ne(x, x), False, safety=INTEGERS, law="absorption"),
    Rule("less than itself", lt(x, x), False, safety=REAL, law="absorption"),
    Rule("greater than itself", gt(x, x), False, safety=REAL, law="absorption"),
    Rule("at most itself", le(x, x), True, safety=INTEGERS, law="absorption"),
    Rule("at least itself", ge(x, x), True, safety=INTEGERS, law="absorption"),
)

COMPLEMENTS: tuple[AnyRule, ...] = (
    Rule("not equal", ~eq(x, y), ne(x, y), safety={"biufc": "exact"}, law="inverse"),
    Rule("not different", ~ne(x, y), eq(x, y), safety={"biufc": "exact"}, law="inverse"),
    Rule("not less", ~lt(x, y), ge(x, y), safety=FINITE, law="inverse"),
    Rule("not at most", ~le(x, y), gt(x, y), safety=FINITE, law="inverse"),
    Rule("not greater", ~gt(x, y), le(x, y), safety=FINITE, law="inverse"),
    Rule("not at least", ~ge(x, y), lt(x, y), safety=FINITE, law="inverse"),
)

FLAGS: tuple[AnyRule, ...] = (
    Rule("equal to true", eq(x, True), x, safety={"b": "exact"}, law="identity"),
    Rule("equal to false", eq(x, False), ~x, safety={"b": "exact"}, law="reduction"),
    Rule("different from true", ne(x, True), ~x, safety={"b": "exact"}, law="reduction"),
    Rule("different from false", ne(x, False), x, safety={"b": "exact"}, law="identity"),
)


def _pairs() -> tuple[AnyRule, ...]:
    """Two comparisons of the same operands, joined by and or or; each also with the operands of `lt` and the like
    the other way round, where `gt` says the same."""
    return (
        Rule("less or equal", lt(x, y) | eq(x, y), le(x, y), safety=REAL, law="reduction"),
        Rule("greater or equal", gt(x, y) | eq(x, y), ge(x, y), safety=REAL, law="reduction"),
        Rule("less or greater", lt(x, y) | gt(x, y), ne(x, y), safety=FINITE, law="reduction"),
        Rule("less one way or the other", lt(x, y) | lt(y, x), ne(x, y), safety=FINITE, law="reduction"),
        Rule("greater one way or the other", gt(x, y) | gt(y, x), ne(x, y), safety=FINITE, law="reduction"),
        Rule("less or at least", lt(x, y) | ge(x, y), True, safety=FINITE, law="inverse"),
        Rule("greater or at most", gt(x, y) | le(x, y), True, safety=FINITE, law="inverse"),
        Rule("equal or different", eq(x, y) | ne(x, y), True, safety=REAL, law="inverse"),
        Rule("at most or equal", le(x, y) | eq(x, y), le(x, y), safety=REAL, law="absorption"),
        Rule("at least or equal", ge(x, y) | eq(x, y), ge(x, y), safety=REAL, law="absorption"),
        Rule("less or at most", lt(x, y) | le(x, y), le(x, y), safety=REAL, law="absorption"),
        Rule("greater or at least", gt(x, y) | ge(x, y), ge(x, y), safety=REAL, law="absorption"),
        Rule("at most and at least", le(x, y) & ge(x, y), eq(x, y), safety=REAL, law="reduction"),
        Rule("at most one way and the other", le(x, y) & le(y, x), eq(x, y), safety=REAL, law="reduction"),
        Rule("at least one way and the other", ge(x, y) & ge(y, x), eq(x, y), safety=REAL, law="reduction"),
        Rule("at most and different", le(x, y) & ne(x, y), lt(x, y), safety=REAL, law="reduction"),
        Rule("at least and different", ge(x, y) & ne(x, y), gt(x, y), safety=REAL, law="reduction"),
        Rule("less and at most", lt(x, y) & le(x, y), lt(x, y), safety=REAL, law="absorption"),
        Rule("greater and at least", gt(x, y) & ge(x, y), gt(x, y), safety=REAL, law="absorption"),
        Rule("less and different", lt(x, y) & ne(x, y), lt(x, y), safety=REAL, law="absorption"),
        Rule("greater and different", gt(x, y) & ne(x, y), gt(x, y), safety=REAL, law="absorption"),
        Rule("equal and different", eq(x, y) & ne(x, y), False, safety=REAL, law="inverse"),
        Rule("less and greater", lt(x, y) & gt(x, y), False, safety=REAL, law="inverse"),
        Rule("less and equal", lt(x, y) & eq(x, y), False, safety=REAL, law="inverse"),
        Rule("greater and equal", gt(x, y) & eq(x, y), False, safety=REAL, law="inverse"),
        Rule("less and at least", lt(x, y) & ge(x, y), False, safety=REAL, law="inverse"),
        Rule("greater and at most", gt(x, y) & le(x, y), False, safety=REAL, law="inverse"),
    )


def _of_operations() -> tuple[AnyRule, ...]:
    """The same operation on both sides, undone on both."""
    rules: list[AnyRule] = []
    for name, op in (("equal to", eq), ("different from", ne)):
        rules += [
            Rule(f"negative {name} a negative", op(neg(x), neg(y)), op(x, y), safety={"iuf": "exact"}, law="inverse"),
            Rule(f"complement {name} a complement", op(~x, ~y), op(x, y), safety=INTEGERS, law="inverse"),
            Rule(f"sum {name} a sum", op(x + y, x + z), op(y, z), safety={"iu": "exact"}, law="inverse"),
            Rule(f"difference {name} a difference", op(x - z, y - z), op(x, y), safety={"iu": "exact"}, law="inverse"),
            Rule(f"rest {name} a rest", op(z - x, z - y), op(x, y), safety={"iu": "exact"}, law="inverse"),
            Rule(f"exclusive or {name} an exclusive or", op(x ^ y, x ^ z), op(y, z), safety=INTEGERS, law="inverse"),
            Rule(f"sum {name} a term", op(x + y, x), op(y, 0), safety={"iu": "exact"}, law="inverse"),
            Rule(f"difference {name} zero", op(x - y, 0), op(x, y), safety={"iu": "exact"}, when=unshared,
                 law="reduction"),
            Rule(f"exclusive or {name} zero", op(x ^ y, 0), op(x, y), safety={"iu": "exact"}, when=unshared,
                 law="reduction"),
            Rule(f"negative {name} zero", op(neg(x), 0.0), op(x, 0.0), safety={"iufc": "exact"}, law="absorption"),
            Rule(f"absolute value {name} zero", op(absolute(x), 0.0), op(x, 0.0), safety={"if": "exact"},
                 law="absorption"),
        ]  # fmt: skip
    orders = (("less than", lt, gt), ("at most", le, ge), ("greater than", gt, lt), ("at least", ge, le))
    for name, op, turned in orders:
        rules.append(Rule(f"negative {name} a negative", op(neg(x), neg(y)), turned(x, y), safety={"f": "exact"},
                          law="inverse"))  # fmt: skip
    for name, primitive in NOT_NEGATIVE.items():
        f = operation(primitive)
        rules.append(Rule(f"{name} less than zero", lt(f(x), 0.0), False, safety={"f": "exact"}, law="absorption"))
        rules.append(Rule(f"zero greater than {name}", gt(0.0, f(x)), False, safety={"f": "exact"}, law="absorption"))
    return tuple(rules)


TURNED = {EQ: EQ, NE: NE, LT: GT, LE: GE, GT: LT, GE: LE}
"""The same comparison with its operands the other way round."""

FUNCTIONS: dict[Any, Any] = {
    EQ: np.equal, NE: np.not_equal, LT: np.less, LE: np.less_equal, GT: np.greater, GE: np.greater_equal,
}  # fmt: skip


def to_a_constant(node: Node) -> tuple[Any, Node, Any] | None:
    """A comparison with a constant, the constant to the right: the comparison, the value and the constant."""
    found = with_constant(node)
    if found is None:
        return None
    op = node.op if found[0] is node.inputs[0] else TURNED[node.op]
    return op, found[0], found[1]


@rewrites(p.lt_p, p.le_p, p.gt_p, p.ge_p, safety=INTEGERS, law="absorption")
def comparison_with_a_limit(node: Node) -> Node | None:
    """x < least → False, x >= least → True, x <= least → x == least, x > least → x != least; so for the largest"""
    found = to_a_constant(node)
    if found is None:
        return None
    op, value, limit = found
    low, high = (False, True) if kind_of(limit.dtype) == "b" else (np.iinfo(limit.dtype).min, np.iinfo(limit.dtype).max)
    if limit != low and limit != high:
        return None
    below, above, up_to, from_ = (LT, GT, LE, GE) if limit == low else (GT, LT, GE, LE)
    if op in (below, from_):
        return full(op is from_, node.aval)
    return make(EQ if op is up_to else NE, value, literal(limit, value)) if op in (up_to, above) else None


@rewrites(p.lt_p, p.gt_p, safety={"f": "exact"}, law="absorption")
def comparison_with_infinity(node: Node) -> Node | None:
    """x > ∞ → False and x < -∞ → False"""
    found = to_a_constant(node)
    if found is None or not np.isinf(found[2]):
        return None
    return full(False, node.aval) if (found[0] is GT) == (found[2] > 0) else None


@rewrites(*(p.eq_p, p.ne_p, p.lt_p, p.le_p, p.gt_p, p.ge_p), safety={"f": "exact"}, local=True, law="inverse")
def comparison_of_a_negative(node: Node) -> Node | None:
    """-x < a → x > -a, and so for all comparisons"""
    found = to_a_constant(node)
    if found is None or found[1].op is not op_of(p.neg_p):
        return None
    op, value, limit = found
    return make(TURNED[op], value.inputs[0], literal(np.negative(limit), value))


@rewrites(*(p.eq_p, p.ne_p, p.lt_p, p.le_p, p.gt_p, p.ge_p), safety={"biuf": "exact"}, law="reduction")
def comparison_of_a_choice(node: Node) -> Node | None:
    """select_n(p, a, b) == c → p, ~p, True or False; number(p) == c too, and so for all comparisons"""
    found = to_a_constant(node)
    if found is None:
        return None
    op, choice, limit = found
    flag, cases = _cases(choice)
    if flag is None or any(case is None or _is_denormal(case) for case in (*cases, limit)):
        return None
    no, yes = (bool(FUNCTIONS[op](case, limit)) for case in cases)
    if no == yes:
        return full(no, node.aval)
    return flag if yes else make(op_of(p.not_p), flag)


def _cases(node: Node) -> tuple[Node | None, tuple[Any, ...]]:
    """Of a choice by a boolean between two constants: the boolean, and the constants for False and True."""
    if node.op is not op_of(p.select_n_p) and node.op is not CONVERT:
        return None, ()
    flag = node.inputs[0]
    if flag.aval.dtype != np.bool_ or not flag.aval.is_plain:
        return None, ()
    if node.op is op_of(p.select_n_p):
        return flag, tuple(map(value_of, node.inputs[1:]))
    return flag, tuple(np.asarray([False, True]).astype(node.aval.dtype))


def _is_denormal(value: Any) -> bool:
    return kind_of(value.dtype) == "f" and bool(value != 0 and abs(value) < jnp.finfo(value.dtype).tiny)


RULES: tuple[AnyRule, ...] = (
    *WITH_ITSELF,
    *COMPLEMENTS,
    *FLAGS,
    *_pairs(),
    *_of_operations(),
    comparison_with_a_limit,
    comparison_with_infinity,
    comparison_of_a_negative,
    comparison_of_a_choice,
)

DECLINED: dict[str, str] = {
    "eq": "x == x → True on floats, whatever the numerics: it is how programs ask for NaN; a * x == a * y → x == y on "
    "integers is wrong where products wrap around.",
    "ne": "x != x → False on floats, whatever the numerics: it is how programs ask for NaN.",
    "lt": "x + a < b → x < b - a is wrong on integers where the sum wraps around, and on floats where it is rounded.",
    "le": "x <= a → x < a + 1 on integers saves nothing; x <= x → True on floats is wrong for NaN.",
    "gt": "x > y → y < x is the same; both are left as they are written.",
    "ge": "exp(x) >= 0 → True is wrong for NaN.",
}
