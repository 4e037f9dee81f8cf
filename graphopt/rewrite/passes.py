"""Passes and pipelines."""

from __future__ import annotations

import gc
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from graphopt.config import Options, settings
from graphopt.errors import PassError
from graphopt.ir.check import check
from graphopt.ir.graph import Graph
from graphopt.ir.sources import Sources
from graphopt.rewrite.driver import Endless, Firing
from graphopt.rewrite.rule import AnyRule


@dataclass(slots=True)
class Context:
    """What a pass may know beside the graph.

    options: what the user asked for. sources: where nodes come from; passes keep it up to date.
    differentiable: whether JAX may still transform the result (differentiate, batch), so that custom derivatives and
        checkpoints must stay. portable: whether the program must not depend on shapes or on the number of devices.
    platforms: where the program will run, as JAX names it ("cpu", "cuda", "rocm", "tpu"); none where that is not known.
    notes: what the running pass did and declined, in words; a pass adds with `note`.
    limit: no more than so many firings of rules in the running pass, for bisection; None for any number.
    timed: whether somebody reads the report, for whom rules are timed and what takes time to be noted is.
    strict: whether a rule that fails is an error; if not it is switched off, with a warning.
    firings, endless, rule_seconds: what the running pass's rules did, see `graphopt.rewrite.driver.Log`.
    """

    options: Options
    sources: Sources
    differentiable: bool = False
    portable: bool = False
    platforms: tuple[str, ...] = ()
    notes: list[str] = field(default_factory=list)
    limit: int | None = None
    timed: bool = False
    strict: bool = True
    firings: list[Firing] = field(default_factory=list)
    endless: list[Endless] = field(default_factory=list)
    rule_seconds: dict[AnyRule, float] = field(default_factory=dict)

    @property
    def stopped(self) -> bool:
        """Whether no rule may fire any more in the running pass."""
        return self.limit is not None and len(self.firings) >= self.limit

    def start(self) -> None:
        """Forgets what the pass before did."""
        self.notes, self.firings, self.endless, self.rule_seconds = [], [], [], {}

    def note(self, text: str) -> None:
        """Adds a line to the report, once."""
        if text not in self.notes:
            self.notes.append(text)


def counted(count: int, what: str) -> str:
    """How many of something, as a note says it: `1 call`, `2 calls`."""
    return f"{count} {what}{'s' * (count != 1)}"


class Pass(ABC):
    """A rewrite of whole graphs. Subclasses are frozen dataclasses, with their options as fields."""

    name: str
    """What `jit(passes=..., without=...)`, the report and the dump call it."""

    @abstractmethod
    def run(self, graph: Graph, context: Context) -> Graph:
        """A graph with the same parameters, results and effects."""


@dataclass(frozen=True, slots=True)
class PassRecord:
    """What one pass did: nodes before and after (sub-graphs included), seconds, its notes, and what its rules did."""

    name: str
    nodes_before: int
    nodes_after: int
    seconds: float
    notes: tuple[str, ...]
    before: Graph
    after: Graph
    firings: tuple[Firing, ...] = ()
    endless: tuple[Endless, ...] = ()
    rule_seconds: Mapping[AnyRule, float] = field(default_factory=dict)


def run_pipeline(graph: Graph, passes: Sequence[Pass], context: Context) -> tuple[Graph, tuple[PassRecord, ...]]:
    """The graph after all passes, in order, and a record of each.

    What a pass raises keeps its type and gets a note. Raises PassError if a pass changes the types of inputs or
    outputs; with GRAPHOPT_CHECK=1 the graph is checked after every pass.
    """
    with without_collections():
        return _run(graph, passes, context)


@contextmanager
def without_collections() -> Iterator[None]:
    """Without the collector of cyclic garbage: passes, and compilers of kernels, make many objects and few cycles, and
    each run of it goes through all that the process holds."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _run(graph: Graph, passes: Sequence[Pass], context: Context) -> tuple[Graph, tuple[PassRecord, ...]]:
    records = []
    count = graph.count()
    for step in passes:
        context.start()
        start = time.perf_counter()
        try:
            after = step.run(graph, context)
        except Exception as error:
            error.add_note(f"while graphopt ran the pass {step.name!r}; jit(..., without=...) can leave it out")
            raise
        seconds = time.perf_counter() - start
        same_interface(step.name, graph, after)
        if settings().check:
            check(after)
        before_count, count = count, count if after is graph else after.count()
        did = tuple(context.firings), tuple(context.endless), context.rule_seconds
        records.append(PassRecord(step.name, before_count, count, seconds, tuple(context.notes), graph, after, *did))
        graph = after
    return graph, tuple(records)


def same_interface(name: str, before: Graph, after: Graph) -> None:
    """Raises PassError unless both graphs have the same types of parameters and outputs, states of effects included."""
    for what, old, new in (
        ("inputs", before.in_avals, after.in_avals),
        ("outputs", tuple(n.aval for n in before.outputs), tuple(n.aval for n in after.outputs)),
    ):
        if old != new:
            raise PassError(f"the pass {name!r} changed the {what} of the graph from {list(old)} to {list(new)}")
