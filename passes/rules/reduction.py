"""Rules for reductions, cumulative operations, windows and contractions."""

from __future__ import annotations

from graphopt.rewrite.rule import AnyRule

RULES: tuple[AnyRule, ...] = ()

DECLINED: dict[str, str] = {}
