"""Rules for choices between values: `select_n`, whose first case is the one for False."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from jax.extend.core import primitives as p

from graphopt.ir.node import Node
from graphopt.ir.op import op_of
from graphopt.ops.make import BROADCAST, make
from graphopt.passes.rules.conditions import unshared
from graphopt.passes.rules.constants import same_value, value_of
from graphopt.rewrite.pattern import Pattern, operation, variables
from graphopt.rewrite.rule import AnyRule, Match, Rule, rewrites
from graphopt.rewrite.safety import KINDS

select = operation(p.select_n_p)
lt, le, gt, ge, neg, absolute = map(operation, (p.lt_p, p.le_p, p.gt_p, p.ge_p, p.neg_p, p.abs_p))

f, g, x, y, z = variables("f g x y z")

ANY = {KINDS + "o": "exact"}
FLAGS = {"b": "exact"}


def _flags(m: Match) -> bool:
    """Whether what chooses is boolean: of an integer a complement is not the other case."""
    return bool(m["f"].aval.dtype == np.bool_)


def _joined(m: Match) -> bool:
    """Whether two choices can be one: the inner one goes away, and both ask booleans of one shape or scalars."""
    first, second = m["f"].aval, m["g"].aval
    if first.dtype != np.bool_ or second.dtype != np.bool_ or not unshared(m):
        return False
    return first.shape == second.shape


PATTERNS: tuple[AnyRule, ...] = (
    Rule("choice by a complement", select(~f, x, y), select(f, y, x), safety=ANY, when=_flags, law="inverse"),
    Rule("choice between equals", select(f, x, x), x, safety=ANY, law="idempotence"),
    Rule("choice in the first case", select(f, select(f, x, y), z), select(f, x, z), safety=ANY, law="absorption"),
    Rule("choice in the second case", select(f, x, select(f, y, z)), select(f, x, z), safety=ANY, law="absorption"),
    Rule("choice with one case twice, or", select(f, select(g, x, y), y), select(f | g, x, y), safety=ANY,
         when=_joined, law="composition"),
    Rule("choice with one case twice, and", select(f, x, select(g, x, y)), select(f & g, x, y), safety=ANY,
         when=_joined, law="composition"),
    Rule("choice between false and true", select(x, False, True), x, safety=FLAGS, law="reduction"),
    Rule("choice between true and false", select(x, True, False), ~x, safety=FLAGS, law="reduction"),
    Rule("choice or true", select(x, y, True), x | y, safety=FLAGS, law="reduction"),
    Rule("choice or false", select(x, False, y), x & y, safety=FLAGS, law="reduction"),
    Rule("choice of what chooses, or", select(x, y, x), x | y, safety=FLAGS, law="reduction"),
    Rule("choice of what chooses, and", select(x, x, y), x & y, safety=FLAGS, law="reduction"),
    Rule("choice of the complement", select(x, y, ~y), x ^ y, safety=FLAGS, law="reduction"),
)  # fmt: skip

UNARY = {
    "b": ("not",),
    "iu": ("not", "neg", "sign", "square"),
    "f": (
        "neg", "abs", "sign", "square", "sqrt", "rsqrt", "cbrt", "exp", "exp2", "expm1", "log", "log1p", "logistic",
        "sin", "cos", "tan", "asin", "acos", "atan", "sinh", "cosh", "tanh", "asinh", "acosh", "atanh", "erf", "erfc",
        "erf_inv", "lgamma", "digamma", "floor", "ceil",
    ),
    "c": ("neg", "square", "sqrt", "exp", "log", "sin", "cos"),
}  # fmt: skip
"""Operations by the kinds of their operands."""
BINARY = {
    "b": ("and", "or", "xor"),
    "iu": ("and", "or", "xor", "add", "sub", "mul", "div", "rem", "max", "min"),
    "f": ("add", "sub", "mul", "div", "rem", "max", "min", "pow", "atan2"),
    "c": ("add", "sub", "mul", "div"),
}
COMMUTATIVE = ("add", "mul", "max", "min", "and", "or", "xor")


def _fits(m: Match) -> bool:
    """Whether the operands can be chosen between before the operation, which is then done once instead of twice."""
    left, right, chooser = m["x"].aval, m["y"].aval, m["f"].aval
    return left is right and chooser.shape in ((), left.shape) and unshared(m)


def _by_operation(kinds: Mapping[str, tuple[str, ...]]) -> dict[str, dict[str, str]]:
    """The safety of each operation's rule, by kinds of dtype."""
    tables: dict[str, dict[str, str]] = {}
    for kind, names in kinds.items():
        for name in names:
            tables.setdefault(name, {})[kind] = "exact"
    return tables


def _operations_on_choices() -> tuple[AnyRule, ...]:
    rules: list[AnyRule] = []

    def add(name: str, first: Pattern, second: Pattern, after: Pattern, table: dict[str, str]) -> None:
        title = f"choice between two results of {name}"
        rules.append(Rule(title, select(f, first, second), after, safety=table, when=_fits, law="distribution"))

    chosen = select(f, x, y)
    for name, table in _by_operation(UNARY).items():
        op = operation(getattr(p, f"{name}_p"))
        add(name, op(x), op(y), op(chosen), table)
    for name, table in _by_operation(BINARY).items():
        op = operation(getattr(p, f"{name}_p"))
        add(f"{name} with one right operand", op(x, z), op(y, z), op(chosen, z), table)
        if name not in COMMUTATIVE:
            add(f"{name} with one left operand", op(z, x), op(z, y), op(z, chosen), table)
    return tuple(rules)


@rewrites(p.select_n_p, safety=ANY, local=True, law="identity")
def choice_by_a_constant(node: Node) -> Node | None:
    """select_n(a constant, x, y) → the case that it chooses"""
    value = value_of(node.inputs[0])
    cases = node.inputs[1:]
    return cases[int(value)] if value is not None and 0 <= int(value) < len(cases) else None


@rewrites(p.select_n_p, safety=ANY, local=True, law="idempotence")
def choice_between_equal_cases(node: Node) -> Node | None:
    """select_n(n, x, x, …) → x, also where the cases are constants of one value"""
    first, *others = node.inputs[1:]
    return first if all(same_value(first, other) for other in others) else None


_ORDER = {op_of(p.lt_p): True, op_of(p.le_p): True, op_of(p.gt_p): False, op_of(p.ge_p): False}
"""Comparisons that ask whether the left operand is the lesser one, or whether it is the greater one."""


@rewrites(p.select_n_p, safety={"biu": "exact", "f": "nonfinite"}, local=True, law="reduction")
def choice_of_the_greater(node: Node) -> Node | None:
    """select_n(x > y, y, x) → max(x, y), and so for min, <, <= and >="""
    chooser = node.inputs[0]
    less = _ORDER.get(chooser.op)
    if less is None or len(node.inputs) != 3:
        return None
    (left, right), (no, yes) = chooser.inputs, node.inputs[1:]
    if same_value(yes, left) and same_value(no, right):
        op = p.min_p if less else p.max_p
    elif same_value(yes, right) and same_value(no, left):
        op = p.max_p if less else p.min_p
    else:
        return None
    return make(op_of(op), left, right)


def _by_sign(node: Node) -> tuple[Node, Node, Node] | None:
    """x, and what a choice by the sign of x gives where x is positive and where it is negative."""
    chooser = node.inputs[0]
    less = _ORDER.get(chooser.op)
    if less is None or len(node.inputs) != 3:
        return None
    value, other = chooser.inputs
    if value_of(value) is not None:
        value, other, less = other, value, not less
    limit = value_of(other)
    if limit is None or limit != 0:
        return None
    no, yes = node.inputs[1:]
    return (value, no, yes) if less else (value, yes, no)


@rewrites(p.select_n_p, safety={"i": "exact", "f": "reassociate"}, local=True, law="reduction")
def choice_of_the_absolute_value(node: Node) -> Node | None:
    """select_n(x < 0, x, -x) → abs(x), and so for <=, > and >="""
    found = _by_sign(node)
    if found is None:
        return None
    value, positive, negative = found
    is_magnitude = positive is value and negative.op is op_of(p.neg_p) and negative.inputs[0] is value
    return make(op_of(p.abs_p), value) if is_magnitude else None


@rewrites(p.select_n_p, safety={"i": "exact", "f": "reassociate"}, local=True, law="inverse")
def choice_of_the_sign(node: Node) -> Node | None:
    """select_n(x < 0, abs(x), -abs(x)) → x, select_n(x > 0, abs(x), -abs(x)) → -x, and so for <= and >="""
    found = _by_sign(node)
    if found is None:
        return None
    value, positive, negative = found
    magnitude = make(op_of(p.abs_p), value)
    opposite = make(op_of(p.neg_p), magnitude)
    if positive is magnitude and negative is opposite:
        return value
    return make(op_of(p.neg_p), value) if positive is opposite and negative is magnitude else None


@rewrites(p.select_n_p, safety={"iu": "exact", "f": "reassociate"}, local=True, law="reduction")
def choice_between_what_is_equal(node: Node) -> Node | None:
    """select_n(x == y, y, x) → y, select_n(x != y, x, y) → y, and so for the other order; not where y is 0.0

    That is how programs give zeros one sign, as before a search in an order that tells them apart."""
    chooser = node.inputs[0]
    if chooser.op not in (op_of(p.eq_p), op_of(p.ne_p)) or len(node.inputs) != 3:
        return None
    (left, right), (no, yes) = chooser.inputs, node.inputs[1:]
    if not any(same_value(no, u) and same_value(yes, v) for u, v in ((left, right), (right, left))):
        return None
    if left.aval.dtype.kind not in "iu" and any(
        value is not None and value == 0 for value in map(value_of, (left, right))
    ):
        return None
    # Where the operands are equal either will do: what is chosen where they differ.
    return no if chooser.op is op_of(p.eq_p) else yes


@rewrites(p.select_n_p, safety=ANY, law="movement")
def choice_by_a_broadcast_scalar(node: Node) -> Node | None:
    """select_n(broadcast(p), x, y) → select_n(p, x, y) where p is a scalar"""
    chooser = node.inputs[0]
    if chooser.op is not BROADCAST or chooser.inputs[0].aval.shape:
        return None
    return make(node.op, chooser.inputs[0], *node.inputs[1:])


RULES: tuple[AnyRule, ...] = (
    choice_by_a_constant,
    choice_between_equal_cases,
    choice_by_a_broadcast_scalar,
    *PATTERNS,
    *_operations_on_choices(),
    choice_of_the_greater,
    choice_of_the_absolute_value,
    choice_of_the_sign,
    choice_between_what_is_equal,
)

DECLINED: dict[str, str] = {
    "select_n": "select_n(p, True, x) → ~p | x, select_n(p, x, False) → ~p & x and select_n(p, select_n(q, x, y), x) → "
    "select_n(~p & q, x, y) make more operations; f(select_n(p, x, y)) → select_n(p, f(x), f(y)) computes twice.",
}
