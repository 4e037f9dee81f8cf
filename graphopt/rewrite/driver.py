"""The driver: rules applied to a graph until none applies, within a budget that reports rather than hangs.

Nodes are brought to their normal form operands first. Since nodes are interned, what is in normal form is known by a
look into a table, and rules that undo each other are found as soon as the same node comes up a second time.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

from graphopt.errors import RuleError
from graphopt.ir.graph import Graph, make_graph
from graphopt.ir.node import Node, project
from graphopt.ir.op import CONSTANT, PARAM, PROJECT, Op
from graphopt.ir.sources import Sources, merge
from graphopt.ops.make import BROADCAST, fit
from graphopt.rewrite.pattern import value_key
from graphopt.rewrite.rebuild import with_bodies
from graphopt.rewrite.rule import AnyRule, Operand, Replacement
from graphopt.rewrite.safety import SAFETIES, kinds_of

ALL = frozenset(SAFETIES)

SWEEPS = 8
"""How often a graph is gone through at most, for rules whose condition asks how often a node is used."""


@dataclass(frozen=True, slots=True)
class Firing:
    """One application of a rule: the node it replaced and the one it put there (operands simplified already)."""

    rule: AnyRule
    old: Node
    new: Node
    safety: str
    infos: tuple[Any, ...]


@dataclass(slots=True)
class Log:
    """What the driver did in one pass.

    firings: in order. seconds: for each rule the time spent in trying and applying it. endless: rules that undid each
    other, or made more and more until the budget was spent; they were switched off. failed: errors of rules that were
    switched off for them.
    """

    firings: list[Firing] = field(default_factory=list)
    seconds: dict[AnyRule, float] = field(default_factory=dict)
    endless: list[Endless] = field(default_factory=list)
    failed: list[RuleError] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Endless:
    """Rules that do not come to an end, and a node on which they do not."""

    rules: tuple[AnyRule, ...]
    node: Node


class _Failed(Exception):
    def __init__(self, rule: AnyRule, error: RuleError) -> None:
        self.rule, self.error = rule, error


class _NoEnd(Exception):
    def __init__(self, rules: Iterable[AnyRule], node: Node) -> None:
        self.found = Endless(tuple(dict.fromkeys(rules)), node)


class RuleSet:
    """Rules in the order in which they are tried, found by the operation of a node and what is seen of its operands."""

    def __init__(self, rules: Iterable[AnyRule]) -> None:
        self.rules = tuple(rules)
        self._by_op: dict[Op, list[AnyRule]] = {}
        for rule in self.rules:
            for op in rule.ops:
                self._by_op.setdefault(op, []).append(rule)
        self._numbers = frozenset(number for rule in self.rules for number in rule.numbers)
        self._candidates: dict[Any, tuple[AnyRule, ...]] = {}

    def candidates(self, node: Node) -> tuple[AnyRule, ...]:
        """The rules that may replace a node, as far as a first look tells."""
        rules = self._by_op.get(node.op)
        if rules is None:
            return ()
        inputs = node.inputs
        if len(inputs) > 3:  # the operands of a long concatenation would fill the table for nothing
            return tuple([rule for rule in rules if rule.may_match(tuple(map(self._operand, inputs)), False)])
        same = len(inputs) == 2 and inputs[0] is inputs[1]
        key = (node.op, same, *[self._operand(n) if n.op in KNOWN else n.op for n in inputs])
        found = self._candidates.get(key)
        if found is None:
            operands = tuple(map(self._operand, inputs))
            found = self._candidates[key] = tuple(rule for rule in rules if rule.may_match(operands, same))
        return found

    def _operand(self, node: Node) -> Operand:
        number = value_key(node) if node.op in KNOWN else None
        return Operand(node.op, number if number in self._numbers else None)


KNOWN = (CONSTANT, BROADCAST)
"""The operations whose results may stand for a number."""


class Rewriter:
    """Applies rules to a graph and to its sub-graphs.

    admitted: which safeties, see `graphopt.rewrite.safety`. also: names of rules that are admitted in any case.
    limit: no more firings than this many, in all (for bisection). budget, floor: more firings than `budget` for each
    node of a graph and `floor` besides are taken for a sign that there is no end.
    timed: whether the seconds of each rule are measured. strict: whether a rule that fails is an error, or is switched
    off.
    """

    def __init__(
        self,
        rules: RuleSet,
        sources: Sources,
        admitted: Sequence[str],
        also: frozenset[str] = frozenset(),
        limit: int | None = None,
        budget: int = 10,
        floor: int = 1000,
        timed: bool = False,
        strict: bool = True,
    ) -> None:
        self.rules = rules
        self.sources = sources
        self.admitted = frozenset(admitted)
        self.also = also
        self.limit = limit
        self.budget = budget
        self.floor = floor
        self.timed = timed
        self.strict = strict
        self.log = Log()
        self.done: dict[Graph, Graph] = {}

    def graph(self, graph: Graph) -> Graph:
        """The graph after the rules, its sub-graphs included."""
        found = self.done.get(graph)
        if found is None:
            found = graph
            for _ in range(SWEEPS):
                before, (found, again) = found, self.sweep(found)
                if found is before or not again or self.stopped:
                    break
            self.done[graph] = self.done[found] = found
        return found

    def sweep(self, graph: Graph) -> tuple[Graph, bool]:
        """The graph after one sweep, and whether another one may find more. Rules without end are switched off."""
        while True:
            sweep, fired, done = _Sweep(self, graph), len(self.log.firings), dict(self.done)
            try:
                return sweep.run(), sweep.waiting
            except _NoEnd as no_end:
                self.log.endless.append(no_end.found)
                off = no_end.found.rules
            except _Failed as failure:
                self.log.failed.append(failure.error)
                off = (failure.rule,)
            # What was rewritten on the way, sub-graphs too, begins anew without these rules.
            del self.log.firings[fired:]
            self.done = done
            self.rules = RuleSet(rule for rule in self.rules.rules if rule not in off)

    @property
    def stopped(self) -> bool:
        """Whether no rule may fire any more."""
        return self.limit is not None and len(self.log.firings) >= self.limit


class _Sweep:
    """One way through one graph, operands first."""

    def __init__(self, rewriter: Rewriter, graph: Graph) -> None:
        self.rewriter = rewriter
        self.before = graph
        self.normal: dict[Node, Node] = {}
        self.replaced: dict[Node, Node] = {}
        self.infos = dict(rewriter.sources.infos.get(graph, {}))
        self.uses: Counter[Node] = Counter()
        self.uses.update(graph.outputs)
        # What is read by an operation with several results is read for each of them: rules put some in the place of it.
        results = Counter(node.inputs[0] for node in graph.nodes if node.op is PROJECT)
        self.uses.update(chain.from_iterable([node.inputs * max(1, results[node]) for node in graph.nodes]))
        self.waiting = False  # whether a rule declined because a node has several uses now
        self.left = rewriter.floor + rewriter.budget * len(graph.nodes)
        self.by: dict[Node, AnyRule] = {}  # which rule replaced a node
        self.open: set[Node] = set()  # nodes that wait for their operands
        self.recent: deque[AnyRule] = deque(maxlen=50)

    def run(self) -> Graph:
        graph, normal = self.before, self.normal
        for param in graph.params:
            normal[param] = param
        for node in graph.nodes:
            if node not in normal:
                self.settle(node)
        outputs = [normal[n] for n in graph.outputs]
        if all(new is old for new, old in zip(outputs, graph.outputs, strict=True)):
            return graph
        new = make_graph(graph.params, outputs)
        sources = self.rewriter.sources
        if new is not graph:
            sources.record(new, {n: self.infos[n] for n in new.nodes if n in self.infos})
            if graph in sources.debug:
                sources.debug.setdefault(new, sources.debug[graph])
        return new

    def settle(self, root: Node) -> None:
        """Enters the normal form of `root`, and of all that it needs, in `normal`."""
        normal, replaced = self.normal, self.replaced
        self.root, stack = root, [root]
        while stack:
            node = stack[-1]
            if node in normal:
                stack.pop()
                continue
            if node in replaced:
                # What took its place is in normal form by now.
                normal[node] = normal[replaced[node]]
                stack.pop()
                continue
            pending = [n for n in node.inputs if n not in normal]
            if pending:
                for operand in pending:
                    self.refuse_what_is_under_way(operand, stack)
                self.open.add(node)
                stack.extend(pending)
                continue
            current = self.on_normal_operands(node)
            new = self.fire(node) if current is node else current
            if new is None:
                normal[node] = node
                stack.pop()
            else:
                if new not in normal:
                    self.refuse_what_is_under_way(new, stack)
                replaced[node] = new
                stack.append(new)

    def refuse_what_is_under_way(self, node: Node, stack: list[Node]) -> None:
        """Raises _NoEnd where the normal form of `node` would be computed from itself."""
        if node in self.open or node in self.replaced:
            since = stack[stack.index(node) :] if node in stack else stack
            raise _NoEnd((self.by[n] for n in since if n in self.by), node)

    def on_normal_operands(self, node: Node) -> Node:
        if node.op is PARAM or node.op is CONSTANT:
            return node
        inputs = tuple([self.normal[n] for n in node.inputs])
        if node.op is PROJECT:
            return project(inputs[0], node.attrs["index"])
        new = node.with_inputs(inputs)
        if node.subgraphs:
            attrs = with_bodies(new, self.rewriter.graph)
            new = new if attrs is new.attrs else new.with_attrs(attrs)
        if new is not node:
            self.uses[new] += self.uses[node]
            if found := self.infos.get(node):
                self.infos[new] = merge(self.infos.get(new, ()), found)
        return new

    def fire(self, node: Node) -> Node | None:
        """What the first rule that applies puts in the place of a node; None if there is none."""
        rewriter = self.rewriter
        candidates = rewriter.rules.candidates(node)
        if not candidates or rewriter.stopped or not is_plain(node):
            return None
        kinds = kinds_of(node.inputs or (node,))
        for rule in candidates:
            start = time.perf_counter() if rewriter.timed else 0.0
            try:
                admitted = ALL if rule.name in rewriter.also else rewriter.admitted
                found = rule.apply(node, kinds, self.count_uses, admitted)
                new = None if found is None else fit(found.new, node.aval)
            except Exception as error:
                failed = RuleError(rule.name, rule.file, rule.line, node, error)
                if rewriter.strict:
                    raise failed from error
                raise _Failed(rule, failed) from error
            finally:
                if rewriter.timed:
                    seconds = rewriter.log.seconds
                    seconds[rule] = seconds.get(rule, 0.0) + time.perf_counter() - start
            if found is None or new is None or new is node:
                continue
            self.by[node] = rule
            self.recent.append(rule)
            self.uses[new] += self.uses[node]
            self.left -= 1
            if self.left < 0:
                raise _NoEnd(self.recent, self.root)
            self.inherit(found, new)
            infos = self.infos.get(node, ())
            rewriter.log.firings.append(Firing(rule, node, new, found.safety, infos))
            return new
        return None

    def count_uses(self, node: Node) -> int:
        uses = self.uses[node]
        if uses > 1:
            self.waiting = True
        return uses

    def inherit(self, found: Replacement, new: Node) -> None:
        """Gives the nodes that a rule made the source lines of those that it replaced."""
        lines: tuple[Any, ...] = ()
        for node in found.replaced:
            lines = merge(lines, self.infos.get(node, ()))
        stack = [new]
        while stack:
            node = stack.pop()
            if node in self.normal or node.op is CONSTANT or node.op is PARAM:
                continue
            self.infos[node] = merge(self.infos.get(node, ()), lines)
            stack.extend(n for n in node.inputs if n not in self.infos)


def is_plain(node: Node) -> bool:
    """Whether a node is a pure function of plain arrays, without effects and without a context of its own."""
    if node.effects or node.context is not None:
        return False
    if node.op is PROJECT:  # a result is as plain as what makes it
        return is_plain(node.inputs[0])
    for operand in node.inputs:
        if len(operand.avals) != 1 or not operand.avals[0].is_plain:
            return False
    return all(aval.is_plain for aval in node.avals)
