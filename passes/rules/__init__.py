"""The rules of simplification, by subject. Each states how far it may move a result, and its law of algebra."""

from graphopt.passes.rules import arithmetic, logic, movement, reduction
from graphopt.rewrite.rule import AnyRule

RULES: tuple[AnyRule, ...] = (*arithmetic.RULES, *logic.RULES, *movement.RULES, *reduction.RULES)
"""All of them, in the order in which they are tried on a node."""

DECLINED: dict[str, str] = {**arithmetic.DECLINED, **logic.DECLINED, **movement.DECLINED, **reduction.DECLINED}
"""For each described operation (by its name) what holds, or seems to, and is deliberately not done, and why."""

__all__ = ["DECLINED", "RULES"]
