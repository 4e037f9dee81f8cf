"""Rules for arithmetic: sums, products, quotients, powers, exponentials, extrema."""

from __future__ import annotations

from jax.extend.core import primitives as p

from graphopt.rewrite.pattern import operation, variables
from graphopt.rewrite.rule import AnyRule, Rule

neg = operation(p.neg_p)

x, y, z = variables("x y z")
a, b = variables("a b", constant=True)

RULES: tuple[AnyRule, ...] = (
    Rule("add zero", x + 0.0, x, safety="reassociate", law="identity"),
    Rule("add minus zero", x + -0.0, x, safety="reassociate", law="identity"),
    Rule("double negation", neg(neg(x)), x, law="inverse"),
    Rule("factor", x * y + x * z, x * (y + z), safety="nonfinite", law="distribution"),
)

DECLINED: dict[str, str] = {}
