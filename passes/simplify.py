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
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, field
from functools import cache
from itertools import chain

from graphopt.analysis.cost import node_cost
from graphopt.analysis.refs import uses_refs
from graphopt.errors import RuleWarning
from graphopt.ir.graph import Graph, depth_first, nested_graphs
from graphopt.ir.op import CONSTANT
from graphopt.passes.fold import known_scalar, known_value
from graphopt.passes.rules import RULES
from graphopt.passes.rules.stable import STABILIZING
from graphopt.rewrite.driver import Log, Rewriter, RuleSet, is_plain
from graphopt.rewrite.passes import Context, Pass
from graphopt.rewrite.rule import AnyRule, Replacement
from graphopt.rewrite.safety import ADMITTED, SAFETIES, kinds_of

NOTED = 1 << 20
"""Operations and bytes that a rule would have to save for the report to say that the numerics do not admit it."""


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
        if context.timed:  # as for a report; it takes as long as another sweep
            for text in not_admitted(new, rewriter.rules, admitted):
                context.note(text)
        return new


@cache
def _rule_set(rules: tuple[AnyRule, ...], portable: bool, differentiable: bool, refs: bool) -> RuleSet:
    # JAX compiles no loop with both Refs and constant arrays in its body.
    return RuleSet(
        known_scalar if rule is known_value and refs else rule
        for rule in rules
        if (rule.is_local or not portable) and (rule.keeps_derivatives or not differentiable)
    )


def not_admitted(graph: Graph, rules: RuleSet, admitted: Collection[str]) -> list[str]:
    """The rules that would save much, or keep a result from overflowing, but may move it further than the numerics
    allow; which would allow them."""
    found: dict[AnyRule, Counter[str]] = {}
    for inner in nested_graphs(graph):
        uses = Counter(chain(inner.outputs, *(node.inputs for node in inner.nodes)))
        for node in inner.nodes:
            for rule in rules.candidates(node) if is_plain(node) else ():
                new = rule.apply(node, kinds_of(node.inputs or (node,)), uses.__getitem__, SAFETIES)
                if new is None or new.safety in admitted:
                    continue
                if rule in STABILIZING:  # not counted: of one sum it may apply at several of the nodes above it
                    found.setdefault(rule, Counter())[new.safety] = 1
                elif _saves_much(new, inner):
                    found.setdefault(rule, Counter())[new.safety] += 1
    texts = []
    for rule, safeties in found.items():
        for safety, count in safeties.items():
            needed = next(name for name, admits in ADMITTED.items() if safety in admits)
            times = f" ({count} times)" if count > 1 else ""
            texts.append(f"stays{times}: {rule.name}, which is {safety!r}: needs numerics={needed!r}")
    return texts


def _saves_much(found: Replacement, graph: Graph) -> bool:
    """Whether what comes in their place takes at most two thirds of the operations and bytes, and many less."""
    there = set(graph.nodes)
    come = [n for n in depth_first([found.new], lambda n: n.inputs) if n not in there and n.op is not CONSTANT]
    before, after = (sum(c.flops + c.bytes for c in map(node_cost, nodes)) for nodes in (found.replaced, come))
    return before - after >= NOTED and 3 * after <= 2 * before


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
