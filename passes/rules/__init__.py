"""The rules of simplification, by subject. Each states how far it may move a result, and its law of algebra."""

from graphopt.passes.rules import (
    arithmetic,
    bits,
    choice,
    comparison,
    complexes,
    composites,
    counts,
    extrema,
    functions,
    gathering,
    logic,
    movement,
    places,
    powers,
    reduction,
    rounding,
    stable,
)
from graphopt.rewrite.rule import AnyRule

RULES: tuple[AnyRule, ...] = (
    *composites.RULES,
    *stable.RULES,
    *arithmetic.RULES,
    *gathering.RULES,
    *powers.RULES,
    *functions.RULES,
    *rounding.RULES,
    *extrema.RULES,
    *complexes.RULES,
    *logic.RULES,
    *bits.RULES,
    *comparison.RULES,
    *choice.RULES,
    *counts.RULES,
    *movement.RULES,
    *places.RULES,
    *reduction.RULES,
)
"""All of them, in the order in which they are tried on a node."""

DECLINED: dict[str, str] = {
    **arithmetic.DECLINED,
    **powers.DECLINED,
    **functions.DECLINED,
    **rounding.DECLINED,
    **extrema.DECLINED,
    **complexes.DECLINED,
    **logic.DECLINED,
    **bits.DECLINED,
    **comparison.DECLINED,
    **choice.DECLINED,
    **movement.DECLINED,
    **reduction.DECLINED,
}
"""For each described operation (by its name) what holds, or seems to, and is deliberately not done, and why."""

__all__ = ["DECLINED", "RULES"]
