"""Rules for booleans, integers' bits, comparisons and choices."""

from __future__ import annotations

from graphopt.rewrite.pattern import variables
from graphopt.rewrite.rule import AnyRule, Rule

x, y, z = variables("x y z")

RULES: tuple[AnyRule, ...] = (Rule("double complement", ~~x, x, law="inverse"),)

DECLINED: dict[str, str] = {}
