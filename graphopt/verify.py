"""Verifying: the graph is evaluated after every pass; a pass that changes the results is traced down to its rule.

What is found is named with its file and line, and shown on the smallest graph on which it happens.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from graphopt.backends.agreement import disagreement
from graphopt.backends.reference import apply_opened, evaluate
from graphopt.compile import context_for, passes_of
from graphopt.config import Options
from graphopt.errors import RuleError, VerificationError
from graphopt.ir.check import check
from graphopt.ir.graph import Graph
from graphopt.ir.sources import Sources
from graphopt.rewrite.driver import Endless, Firing, Rewriter, RuleSet
from graphopt.rewrite.passes import Context, Pass, same_interface
from graphopt.rewrite.rule import AnyRule
from graphopt.rewrite.safety import SAFETIES
from graphopt.shrink import Sample, around, shrink


@dataclass(frozen=True)
class Finding:
    """A pass that does not keep what a graph computes.

    step: its name. rules: those of its rules that do it; empty where it has none. reason: what went wrong. smallest:
    the smallest graph found that shows it, with arguments. after: what the pass makes of that graph; None if it fails.
    """

    step: str
    rules: tuple[AnyRule, ...]
    reason: str
    smallest: Sample
    after: Graph | None

    def __str__(self) -> str:
        named = ", ".join(f"{rule.name!r} ({rule.file}:{rule.line}): {rule}" for rule in self.rules)
        lines = [f"the pass {self.step!r}: {self.reason}"]
        lines += [f"rule {named}"] if named else []
        lines += ["the smallest graph that shows it:", str(self.smallest.graph)]
        for index, value in enumerate(self.smallest.args):
            text = np.array2string(np.asarray(value), threshold=8, edgeitems=3, separator=", ")
            lines.append(f"  with %{index} = {' '.join(text.split())}")
        if self.after is not None:
            lines += ["which becomes:", str(self.after)]
        return "\n".join(lines)


@dataclass(frozen=True)
class Verified:
    """One pass that kept what the program computes: nodes after it, firings of its rules, how closely it kept it."""

    step: str
    nodes: int
    firings: int
    agreement: str


@dataclass(frozen=True)
class Verification:
    """What `verify` returns where every pass holds: the passes in order."""

    function: str
    passes: tuple[Verified, ...]

    def __str__(self) -> str:
        lines = [f"{self.function}: verified after each pass"]
        for done in self.passes:
            rules = f", {done.firings} rewrites" if done.firings else ""
            lines.append(f"  {done.step}: {done.nodes} nodes{rules}, {done.agreement}")
        return "\n".join(lines)


def verify_graph(name: str, graph: Graph, sources: Sources, options: Options, args: Sequence[Any]) -> Verification:
    """Evaluates `graph` on `args` before and after every pass, one operation at a time.

    Raises VerificationError at the first pass whose result differs by more than the safety of the rules that fired
    allows (without rules: by a bit), that fails, or whose rules do not come to an end. Effects of the program happen
    at each evaluation.
    """
    expected = evaluate(graph, *args, apply=apply_opened)
    start, done, safety = graph, [], 0
    for step in passes_of(options):
        context = context_for(options, sources)
        try:
            after = step.run(graph, context)
            same_interface(step.name, graph, after)
            check(after)
        except RuleError as error:
            raise VerificationError(_failing_rule(step, error, context, args)) from error
        except Exception as error:
            raise VerificationError(_failing_pass(step, error, graph, context, args)) from error
        if context.endless:
            raise VerificationError(_endless(step, context.endless[0], args))
        # What earlier passes were allowed to move stays moved.
        safety = max([safety, *(SAFETIES.index(firing.safety) for firing in context.firings)])
        same = disagreement(start, after, args, "exact", expected) is None
        difference = None if same else disagreement(start, after, args, SAFETIES[safety], expected)
        if difference is not None:
            raise VerificationError(_differing(step, graph, context, args, SAFETIES[safety], str(difference)))
        agreement = "the same bits" if same else f"within what {SAFETIES[safety]!r} allows"
        done.append(Verified(step.name, after.count(), len(context.firings), agreement))
        graph = after
    return Verification(name, tuple(done))


def _alone(rules: Iterable[AnyRule], graph: Graph) -> tuple[Graph, list[Firing], list[Endless]]:
    rewriter = Rewriter(RuleSet(rules), Sources(), SAFETIES, floor=100)
    after = rewriter.graph(graph)
    return after, rewriter.log.firings, rewriter.log.endless


def _failing_rule(step: Pass, error: RuleError, context: Context, args: Sequence[Any]) -> Finding:
    rules = [r for r in getattr(step, "rules", ()) if (r.name, r.file, r.line) == (error.rule, error.file, error.line)]

    def shows(graph: Graph, args: Sequence[Any]) -> bool:
        try:
            _alone(rules, graph)
        except RuleError:
            return True
        return False

    sample = _smallest(around_node(error.node, args), shows)
    return Finding(step.name, tuple(rules), f"a rule failed: {error.reason}", sample, None)


def _failing_pass(step: Pass, error: Exception, graph: Graph, context: Context, args: Sequence[Any]) -> Finding:
    def shows(graph: Graph, args: Sequence[Any]) -> bool:
        try:
            after = step.run(graph, _again(context))
            same_interface(step.name, graph, after)
            check(after)
        except Exception as other:  # noqa: BLE001  what fails in the same way shows the fault
            return type(other) is type(error)
        return False

    reason = f"it failed with {type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
    return Finding(step.name, (), reason, shrink(Sample(graph, tuple(args)), shows), None)


def _endless(step: Pass, found: Endless, args: Sequence[Any]) -> Finding:
    def shows(graph: Graph, args: Sequence[Any]) -> bool:
        return bool(_alone(found.rules, graph)[2])

    sample = _smallest(around_node(found.node, args), shows)
    return Finding(step.name, found.rules, "its rules do not come to an end", sample, None)


def _differing(step: Pass, graph: Graph, context: Context, args: Sequence[Any], safety: str, reason: str) -> Finding:
    """Bisects to the firing that changes the result, and shrinks the graph that shows it."""
    sample = Sample(graph, tuple(args))
    rules: tuple[AnyRule, ...] = ()
    if context.firings:
        expected = evaluate(graph, *args, apply=apply_opened)
        good, bad = 0, len(context.firings)
        while bad - good > 1:
            middle = (good + bad) // 2
            after = step.run(graph, replace(_again(context), limit=middle))
            if disagreement(graph, after, args, safety, expected) is None:
                good = middle
            else:
                bad = middle
        culprit = context.firings[bad - 1]

        def rule_shows(graph: Graph, args: Sequence[Any]) -> bool:
            after, firings, _ = _alone([culprit.rule], graph)
            stated = max((SAFETIES.index(f.safety) for f in firings), default=0)
            return bool(firings) and disagreement(graph, after, args, SAFETIES[stated]) is not None

        for candidate in [*around_node(culprit.old, args), sample]:
            if rule_shows(candidate.graph, candidate.args):
                smallest = shrink(candidate, rule_shows)
                after, firings, _ = _alone([culprit.rule], smallest.graph)
                found = disagreement(smallest.graph, after, smallest.args, firings[0].safety)
                return Finding(step.name, (culprit.rule,), str(found or reason), smallest, after)
        rules = (culprit.rule,)

    def pass_shows(graph: Graph, args: Sequence[Any]) -> bool:
        return disagreement(graph, step.run(graph, _again(context)), args, safety) is not None

    smallest = shrink(sample, pass_shows)
    after = step.run(smallest.graph, _again(context))
    found = disagreement(smallest.graph, after, smallest.args, safety)
    return Finding(step.name, rules, str(found or reason), smallest, after)


def around_node(node: Any, args: Sequence[Any]) -> list[Sample]:
    """Graphs that compute `node`: on the program's arguments if it is of the outermost graph, and on drawn ones."""
    samples = []
    for values, seed in ((args, 0), (None, 0), (None, 1), (None, 2)):
        try:
            sample = around(node, values, seed)
        except TypeError:
            continue
        if all(np.shape(v) == a.shape for v, a in zip(sample.args, sample.graph.in_avals, strict=True)):
            samples.append(sample)
    return samples


def _smallest(samples: Sequence[Sample], shows: Any) -> Sample:
    for sample in samples:
        if shows(sample.graph, sample.args):
            return shrink(sample, shows)
    return samples[0]


def _again(context: Context) -> Context:
    return Context(context.options, Sources(), context.differentiable, context.portable)
