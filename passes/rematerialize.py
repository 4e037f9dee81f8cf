"""Rematerialization: values that are long in memory before they are read again are computed again instead.

Before, with a limit on memory:
    %2: f32[8,8] = sort[...](%0)
    ...
    %8: f32[8,8] = dot_general[...](%7, %2)
After:
    %2: f32[8,8] = sort[...](%0)
    ...
    %8: f32[8,8] = barrier[id=1](%0, %7)       %0, but not before %7 is known
    %9: f32[8,8] = sort[...](%8)
    %10: f32[8,8] = dot_general[...](%7, %9)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from graphopt.analysis.liveness import Step, Steps, live, steps_of
from graphopt.analysis.recomputation import Plan, plan_for
from graphopt.errors import MemoryLimitError
from graphopt.ir.aval import dtype_name
from graphopt.ir.graph import Graph
from graphopt.ir.node import Node
from graphopt.ir.op import PROJECT
from graphopt.passes.recomputed import with_recomputation
from graphopt.rewrite.passes import Context, Pass

Measure = Callable[[Graph], int]
"""Bytes that a program needs in all: arguments, results and intermediate values, as XLA says when it compiles it."""

RUNGS = 12
"""For how many estimates between all that is live and what one step needs a plan is made. They are the same ones for
every limit, so that what a tighter limit is met with is found for a looser one too."""

FIRST = 1.25
"""The first plan's estimate is at most so many times the share that is allowed."""

CLOSER = 3
"""How many plans are compiled at most to be nearer to the limit than the rung that meets it."""


@dataclass(frozen=True)
class Rematerialize(Pass):
    """Computes values again rather than to keep them, so that the program needs no more memory than a limit.

    limit: bytes of arguments, results and intermediate values together. measure: what a program takes in truth.

    Which values is chosen by an estimate of what is live (`graphopt.analysis.liveness`); what comes of it is measured,
    for less and less, until the limit is met with little time added. Of a program that is refused every rung was
    measured: the least that is named is the same one for every limit, and is met when it is asked for. Recomputed
    values are the same computation on the same values.
    """

    limit: int
    measure: Measure = field(repr=False)
    name = "rematerialize"

    def run(self, graph: Graph, context: Context) -> Graph:
        """The graph within the limit. Raises MemoryLimitError, with the least that was found, where that is not met."""
        needed = self.measure(graph)
        if needed <= self.limit:
            context.note(f"nothing is computed again: {needed:,} bytes are needed, {self.limit:,} allowed")
            return graph
        return _Search(self, graph, needed, context).found()


@dataclass(frozen=True, slots=True)
class _Trial:
    """A plan that was measured. needed: bytes in truth."""

    plan: Plan
    graph: Graph
    needed: int


class _Search:
    """Looks for the plan that meets the limit and adds least time."""

    def __init__(self, options: Rematerialize, graph: Graph, needed: int, context: Context) -> None:
        self.options = options
        self.graph = graph
        self.needed = needed
        self.context = context
        self.steps = steps_of(graph)
        self.targets = rungs(self.steps)
        self.trials: dict[tuple[int, float], _Trial] = {}
        """What was measured, by its plan's peak and seconds."""

    def found(self) -> Graph:
        """The graph of a plan that meets the limit; raises MemoryLimitError where none does.

        What XLA makes of a plan is near the estimate, not at it, and a plan for less may be found where one for more is
        not: first the rungs for less and less, from about what the limit allows, then those for more.
        """
        allowed = self.steps.peak * FIRST * self.share()
        start = next((k for k, target in enumerate(self.targets) if target <= allowed), len(self.targets) - 1)
        for k in (*range(start, len(self.targets)), *reversed(range(start))):
            trial = self.trial(plan_for(self.steps, self.targets[k]))
            if self.is_met(trial):
                best = self.closer(trial, self.targets[k], self.targets[max(0, k - 1)])
                self.note(best)
                return best.graph
        raise self.refusal()

    def closer(self, best: _Trial, low: int, high: int) -> _Trial:
        """A plan that meets the limit, too, with less time added: for estimates between that of one that does and that
        of the rung above, by halves."""
        for _ in range(CLOSER):
            middle = (low + high) // 2
            plan = plan_for(self.steps, middle)
            if plan.seconds < best.plan.seconds and self.is_met(trial := self.trial(plan)):
                best, low = trial, middle
            else:
                high = middle
        return best

    def is_met(self, trial: _Trial) -> bool:
        return trial.needed <= self.options.limit

    def share(self) -> float:
        """Of the intermediate values the share that the limit leaves."""
        fixed = sum(p.aval.nbytes for p in self.graph.params) + sum(n.aval.nbytes for n in set(self.graph.results))
        return min(1.0, max(0.0, self.options.limit - fixed) / max(1, self.needed - fixed))

    def trial(self, plan: Plan) -> _Trial:
        """A plan as a graph, measured once."""
        key = plan.peak, plan.seconds
        if key not in self.trials:
            graph = with_recomputation(self.graph, self.steps, plan, self.context.sources)
            self.trials[key] = _Trial(plan, graph, self.options.measure(graph))
        return self.trials[key]

    def note(self, best: _Trial) -> None:
        """Says what is computed again and what that costs."""
        total = sum(step.seconds for step in self.steps.order)
        self.context.note(
            f"{self.needed:,} bytes became {best.needed:,} of {self.options.limit:,} allowed: {len(best.plan.chosen)} "
            f"values are computed again, which takes about {best.plan.seconds / max(total, 1e-12):.0%} more time; "
            f"{len(self.trials)} plans were compiled"
        )
        for text in _described([(again.buffer.value, again.buffer.value.aval.nbytes) for again in best.plan.chosen]):
            self.context.note(f"again: {text}")

    def refusal(self) -> MemoryLimitError:
        """The error that says what is possible, and which values stand in the way."""
        least = min(self.trials.values(), key=lambda trial: trial.needed, default=None)
        needed = self.needed if least is None else min(self.needed, least.needed)
        order = self.steps.by_memory if least is None else least.plan.order
        return MemoryLimitError(self.options.limit, needed, _largest(order, self.graph))


def rungs(steps: Steps) -> list[int]:
    """Bytes live at once for which plans are made: from what the steps need as they are down to what a step needs for
    its operands and results alone, each the same share of the one before."""
    peak = steps.peak
    least = max((_own(step) for step in steps.order), default=0)
    if not 0 < least < peak:
        return [peak]
    share = (least / peak) ** (1 / (RUNGS - 1))
    return [round(peak * share**k) for k in range(RUNGS)]


def _own(step: Step) -> int:
    """Bytes that a step needs for itself, were nothing else there."""
    return step.inner + sum(buffer.nbytes for buffer in {*step.reads, *step.writes})


def _described(values: Sequence[tuple[Node, int]], most: int = 6) -> list[str]:
    """Values in words, the same ones together, the largest first."""
    counts: dict[tuple[str, int], int] = {}
    for node, nbytes in values:
        made = node.inputs[0] if node.op is PROJECT else node
        text = f"{made.op.name} {dtype_name(node.aval.dtype)}{list(node.aval.shape)}"
        counts[text, nbytes] = counts.get((text, nbytes), 0) + 1
    found = sorted(counts.items(), key=lambda item: -item[0][1] * item[1])
    lines = [f"{count} × {text}, {size:,} bytes each" for (text, size), count in found[:most]]
    return [*lines, f"and {len(found) - most} kinds more"] if len(found) > most else lines


def _largest(order: Sequence[Step], graph: Graph) -> str:
    """What is in memory when most is: arguments, results, and the largest of the values between them."""
    given = sum(p.aval.nbytes for p in graph.params)
    results = sum(n.aval.nbytes for n in set(graph.results))
    sizes = live(order)
    words = [f"arguments {given:,} bytes", f"results {results:,} bytes"]
    if sizes:
        at = sizes.index(max(sizes))
        last = {b: k for k, step in enumerate(order) for b in (*step.writes, *step.reads)}
        made = {b: k for k, step in enumerate(order) for b in step.writes}
        there = [(b.value, b.nbytes) for b, k in made.items() if k <= at <= last[b] and b.nbytes]
        words += _described(there, 4)
    return "; ".join(words)
