"""Rules that are functions and ask how many nodes read an operand, so that nothing is computed twice."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import wraps

from jax.extend.core import Primitive

from graphopt.ir.node import Node
from graphopt.ir.op import Op
from graphopt.rewrite.rule import ProceduralRule, Replacement, rewrites

Uses = Callable[[Node], int]
Counted = Callable[[Node, Uses], Node | None]


@dataclass(frozen=True, eq=False)
class CountingRule(ProceduralRule):
    """A `ProceduralRule` whose function is given the node and a function that says how many nodes read a given one.

    counted: that function. of: operations of which some operand must be a result; None for any.
    """

    counted: Counted | None = None
    of: frozenset[Op] | None = None

    def may_match(self, operands: tuple[Op, ...]) -> bool:
        """Whether it can replace a node whose operands are results of these operations."""
        return self.of is None or not self.of.isdisjoint(operands)

    def apply(self, node: Node, uses: Uses, admitted: Iterable[str]) -> Replacement | None:
        """What to put in the place of `node`; None where the rule does not hold or is not admitted."""

        def function(node: Node) -> Node | None:
            assert self.counted is not None
            return self.counted(node, uses)

        place = (self.law, self.file, self.line)
        return ProceduralRule(self.name, function, self.ops, self.table, self.local, *place).apply(node, uses, admitted)


def rewrites_counting(
    *ops: Op | Primitive,
    safety: str | Mapping[str, str],
    law: str,
    name: str | None = None,
    of: Iterable[Op] | None = None,
) -> Callable[[Counted], CountingRule]:
    """`rewrites` for a function of a node and of the number of uses.

    of: operations of which some operand must be a result. Called alone, the rule takes each operand for its own.
    """
    some = None if of is None else frozenset(of)

    def rule(counted: Counted) -> CountingRule:
        @wraps(counted)
        def function(node: Node) -> Node | None:
            return counted(node, lambda _: 1)

        title = name or counted.__name__.strip("_").replace("_", " ")
        plain = rewrites(*ops, safety=safety, law=law, name=title)(function)
        code = counted.__code__
        place = (code.co_filename, code.co_firstlineno)
        return CountingRule(title, function, plain.ops, plain.table, False, law, *place, counted=counted, of=some)

    return rule
