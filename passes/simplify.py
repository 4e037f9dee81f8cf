"""Simplification: the algebra of the described operations, rule by rule until none applies.

Before:
    %2: f32[3,4] = neg(%0)
    %3: f32[3,4] = neg(%2)
    %4: f32[4,3] = transpose[permutation=(1, 0)](%3)
    %5: f32[3,4] = transpose[permutation=(1, 0)](%4)
    %6: f32[3,4] = add(%5, %1)
After:
    %2: f32[3,4] = add(%0, %1)
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field
from functools import cache

from graphopt.analysis.refs import uses_refs
from graphopt.errors import RuleWarning
from graphopt.ir.graph import Graph
from graphopt.passes.fold import known_scalar, known_value
from graphopt.passes.rules import RULES
from graphopt.rewrite.driver import Log, Rewriter, RuleSet
from graphopt.rewrite.passes import Context, Pass
from graphopt.rewrite.rule import AnyRule
from graphopt.rewrite.safety import ADMITTED


@dataclass(frozen=True)
class Simplify(Pass):
    """Applies rules to a graph and its sub-graphs, to a fixed point.

    rules: in the order in which they are tried; by default all of `graphopt.passes.rules`, and the folding of
        constants, since rules gather them. also: names of rules that are admitted whatever the numerics.
    budget: firings for each node, above a thousand, after which rules that are still going on are switched off and
        named in the report.
    """

    rules: tuple[AnyRule, ...] = field(default=(known_value, *RULES), repr=False)
    also: tuple[str, ...] = ()
    budget: int = 10
    name = "simplify"

    def run(self, graph: Graph, context: Context) -> Graph:
        """The graph in which no rule applies any more."""
        rules = _rule_set(self.rules, context.portable, context.differentiable, uses_refs(graph))
        admitted = ADMITTED[context.options.numerics]
        rewriter = Rewriter(
            rules,
            context.sources,
            admitted,
            frozenset(self.also),
            context.limit,
            self.budget,
            timed=context.timed,
            strict=context.strict,
        )
        new = rewriter.graph(graph)
        report(rewriter.log, context)
        return new


@cache
def _rule_set(rules: tuple[AnyRule, ...], portable: bool, differentiable: bool, refs: bool) -> RuleSet:
    # JAX compiles no loop with both Refs and constant arrays in its body.
    return RuleSet(
        known_scalar if rule is known_value and refs else rule
        for rule in rules
        if (rule.is_local or not portable) and (rule.keeps_derivatives or not differentiable)
    )


def report(log: Log, context: Context) -> None:
    """Hands what the driver did to the report."""
    context.firings.extend(log.firings)
    for failed in log.failed:
        context.note(f"switched off: {failed}")
        warnings.warn(f"{failed}. The rule was switched off for this program", RuleWarning, stacklevel=2)
    for endless in log.endless:
        rules = ", ".join(f"{rule.name!r} ({rule.file}:{rule.line})" for rule in endless.rules)
        context.note(f"switched off, for they did not come to an end on {endless.node!r}: {rules}")
    context.endless.extend(log.endless)
    for rule, seconds in log.seconds.items():
        context.rule_seconds[rule] = context.rule_seconds.get(rule, 0.0) + seconds
