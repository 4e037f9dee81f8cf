"""Rules for operations that move data, from all files of this subject."""

from __future__ import annotations

from graphopt.passes.rules import broadcasts, casts, joins, orders, outward, reshapes, slices, transposes
from graphopt.rewrite.rule import AnyRule

_FILES = (casts, transposes, reshapes, broadcasts, slices, joins, orders, outward)

RULES: tuple[AnyRule, ...] = tuple(rule for file in _FILES for rule in file.RULES)

DECLINED: dict[str, str] = {name: why for file in _FILES for name, why in file.DECLINED.items()}
