"""The report: what the passes did to a function, and what is run in the end."""

from __future__ import annotations

import html
import io
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING

import jax
import numpy as np
from jax import jit as jax_jit
from jax.extend.core import ClosedJaxpr, jaxpr_as_fun
from rich.console import Console, Group
from rich.markup import escape
from rich.table import Table

from graphopt.analysis.cost import Cost, cost_of
from graphopt.analysis.local import devices_in
from graphopt.backends.reference import drawn
from graphopt.backends.xla.staging import jaxpr_of
from graphopt.backends.xla.target import Target
from graphopt.bind import bind, bound_graph
from graphopt.compile import context_for, optimize_graph
from graphopt.config import Options
from graphopt.debug import user_lines
from graphopt.ir.graph import Graph, make_graph, nested_graphs
from graphopt.ir.loop import LoopProgram
from graphopt.ir.node import Node, results
from graphopt.ir.sources import Sources
from graphopt.lock import Decision, hash_of
from graphopt.ops.kernel import KERNEL
from graphopt.passes.inline import OPTIMIZED_CALL, Inline
from graphopt.plan import Plan, plan_of
from graphopt.rewrite.driver import Firing
from graphopt.rewrite.passes import Context, PassRecord, counted
from graphopt.rewrite.rule import AnyRule
from graphopt.rewrite.safety import SAFETIES
from graphopt.trace.jaxpr import graph_of

if TYPE_CHECKING:
    from graphopt.backends.numba.engine import Planned
    from graphopt.backends.numba.inspect import InnerLoop

SHOWN_LINES = 60


@dataclass(frozen=True, slots=True)
class RuleUse:
    """What one rule did in one pass: how often it fired, the loosest safety of that, the seconds that it took with the
    attempts in vain, and the user's lines that it rewrote."""

    step: str
    rule: AnyRule
    times: int
    safety: str
    seconds: float
    lines: tuple[str, ...]


def _loosest(firings: Sequence[Firing]) -> str:
    return max((firing.safety for firing in firings), key=SAFETIES.index)


def _lines(firings: Sequence[Firing]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(line for firing in firings for line in user_lines(firing.infos)))


@dataclass(frozen=True)
class Kernel:
    """A kernel of the final graph. `str()` is its loop program and its source.

    node: the kernel; its body says what it computes. lines: the user's line that each node of the body comes from.
    """

    node: Node
    lines: Mapping[Node, str] = field(repr=False)

    @property
    def body(self) -> Graph:
        """What it computes, as a graph."""
        graph: Graph = self.node.attrs["body"].graph
        return graph

    @property
    def program(self) -> LoopProgram:
        """How it computes that: loops over elements."""
        return _planned(self).program

    @property
    def source(self) -> str:
        """The Numba source, with the user's line beside each statement that comes from one."""
        from graphopt.backends.numba.engine import source_with_lines

        return source_with_lines(self.node.attrs["key"], lambda node: self.lines.get(node, ""))

    @property
    def flops(self) -> int:
        """Scalar operations of one run."""
        return _planned(self).work.flops

    @property
    def bytes(self) -> int:
        """Bytes of its operands, results and scratch, each once."""
        return _planned(self).work.bytes

    @property
    def predicted(self) -> float:
        """Seconds that one run is expected to take, with all threads of this machine."""
        return _planned(self).seconds

    def inner_loops(self) -> tuple[InnerLoop, ...]:
        """Its inner loops, with how wide the vectors are that LLVM made of each. Compiles it once more."""
        from graphopt.backends.numba.inspect import inner_loops

        return inner_loops(self.node.attrs["key"])

    def measure(self, seconds: float = 0.2) -> float:
        """Seconds of one run, measured on operands that are drawn: the median of the runs in about so many seconds."""
        graph = make_graph(self.body.params, results(self.node.with_inputs(self.body.params)))
        random = np.random.default_rng(0)
        operands = jax.device_put([drawn(aval, random) for aval in graph.in_avals])
        call = jax_jit(jaxpr_as_fun(jaxpr_of(graph)))
        jax.block_until_ready(call(*operands))
        runs, stop = list[float](), time.perf_counter() + seconds
        while len(runs) < 3 or time.perf_counter() < stop:
            start = time.perf_counter()
            jax.block_until_ready(call(*operands))
            runs.append(time.perf_counter() - start)
        return statistics.median(runs)

    def __str__(self) -> str:
        known = f"{self.flops:,} operations, {self.bytes:,} bytes, {self.predicted * 1e6:,.1f} µs expected"
        return f"{known} (measured: .measure(); vectors: .inner_loops())\n\n{self.program}\n\n{self.source}"


def _planned(kernel: Kernel) -> Planned:
    from graphopt.backends.numba.engine import plan_by_key

    return plan_by_key(kernel.node.attrs["key"])


@dataclass(frozen=True)
class Report:
    """What graphopt makes of a function on arguments of given types. `str()` is text; notebooks show HTML.

    function: its name. options: what was asked for. target: the platform. passes: a record of each pass, with node
    counts (sub-graphs included), seconds and notes. traced, graph: the graph before and after. cost_before, cost:
    operations and bytes before and after. sources: where nodes come from (see `lines`). measured: what the lock file
    says of the program, where there is one that knows it.
    """

    function: str
    options: Options
    target: Target
    passes: tuple[PassRecord, ...]
    traced: Graph
    graph: Graph
    cost_before: Cost
    cost: Cost
    sources: Sources
    measured: Decision | None = None

    def lines(self, node: Node, graph: Graph | None = None) -> tuple[str, ...]:
        """The user's lines that a node of the final graph (or of `graph`) stands for: `file:line:column (function)`."""
        return user_lines(self.sources.of(graph or self.graph, node))

    @property
    def rules(self) -> tuple[RuleUse, ...]:
        """The rules that fired, the most frequent first."""
        uses: dict[tuple[str, AnyRule], list[Firing]] = {}
        for record in self.passes:
            for firing in record.firings:
                uses.setdefault((record.name, firing.rule), []).append(firing)
        seconds = {(record.name, rule): s for record in self.passes for rule, s in record.rule_seconds.items()}
        found = [
            RuleUse(step, rule, len(all_), _loosest(all_), seconds.get((step, rule), 0.0), _lines(all_))
            for (step, rule), all_ in uses.items()
        ]
        return tuple(sorted(found, key=lambda use: -use.times))

    @property
    def kernels(self) -> tuple[Kernel, ...]:
        """The kernels of the final graph, those in loops and branches too."""
        nodes = {n: graph for graph in nested_graphs(self.graph) for n in graph.nodes if n.op is KERNEL}
        return tuple(Kernel(node, self._body_lines(node, graph)) for node, graph in nodes.items())

    def _body_lines(self, node: Node, graph: Graph) -> Mapping[Node, str]:
        """The user's line for each node of a kernel's body, and of the loops in it."""
        inside = nested_graphs(node.attrs["body"].graph)
        found = [(n, infos) for graph in inside for n, infos in self.sources.infos.get(graph, {}).items()]
        return {n: lines[0] for n, infos in found if (lines := user_lines(infos))}

    @cached_property
    def plan(self) -> Plan:
        """Which regions run, on how many cores, when, and what is waited for, as predicted; a picture in notebooks."""
        return plan_of(self.graph)

    @property
    def notes(self) -> tuple[str, ...]:
        """What the passes did and declined, and why, in the order of the passes."""
        return tuple(f"{record.name}: {note}" for record in self.passes for note in record.notes)

    def __str__(self) -> str:
        return "\n".join([*self._tables().export_text().rstrip().splitlines(), *self._listing()])

    def _repr_html_(self) -> str:
        tables = self._tables().export_html(inline_styles=True, code_format="<pre>{code}</pre>")
        return f"{tables}<pre>{html.escape(chr(10).join(self._listing()))}</pre>"

    def _tables(self) -> Console:
        console = Console(file=io.StringIO(), width=120, color_system=None, record=True)
        console.print(self._renderable())
        return console

    def _renderable(self) -> Group:
        platforms = ", ".join(self.target.platforms)
        kernels = len(self.kernels)
        engines = f"{counted(kernels, 'kernel')} in Numba, the rest in XLA" if kernels else "everything runs in XLA"
        title = f"{self.function} on {platforms}: numerics {self.options.numerics}, {engines}"
        if (found := self.measured) is not None:
            interval = f"{found.ratio:.3f} [{found.low:.3f}, {found.high:.3f}] of the time of XLA alone"
            title += f"\nas the lock file has it: {found}; measured {interval}"
        table = Table(title="passes", title_justify="left")
        for heading in ("pass", "nodes before", "nodes after", "ms"):
            table.add_column(heading, justify="left" if heading == "pass" else "right")
        table.add_column("notes")
        for record in self.passes:
            counts = (str(record.nodes_before), str(record.nodes_after), f"{record.seconds * 1e3:.2f}")
            table.add_row(record.name, *counts, "\n".join(record.notes))
        rules = Table(title="rules that fired", title_justify="left")
        for heading in ("rule", "times", "safety", "ms", "your lines"):
            rules.add_column(heading, justify="right" if heading in ("times", "ms") else "left")
        for use in self.rules:
            more = [f"and {len(use.lines) - 3} more"] if len(use.lines) > 3 else []
            shown = "\n".join([*(escape(line) for line in use.lines[:3]), *more])
            rules.add_row(escape(use.rule.name), str(use.times), use.safety, f"{use.seconds * 1e3:.2f}", shown)
        costs = Table(title="one run", title_justify="left")
        for heading in ("", "operations", "bytes", "operations not counted"):
            costs.add_column(heading, justify="right")
        for name, cost in (("before", self.cost_before), ("after", self.cost)):
            flops = f"{cost.flops:,}" + (" + each loop's iterations" if cost.unbounded else "")
            costs.add_row(name, flops, f"{cost.bytes:,}", str(cost.uncounted))
        return Group(title, table, *([rules] if rules.row_count else []), costs, *self._plans())

    def _plans(self) -> list[Table]:
        """The plan, where the program is for a CPU, of which times are known."""
        return [self.plan.table()] if self.target.platforms == ("cpu",) and self.plan.regions else []

    def _listing(self) -> list[str]:
        """The final graph's text with the source line of each node beside it."""
        lines = str(self.graph).splitlines()
        start = next(i for i, line in enumerate(lines) if line.startswith("graph @main"))
        for offset, node in enumerate(self.graph.nodes[len(self.graph.params) :], start=1):
            if node.op.primitive is not None and (known := self.lines(node)):
                lines[start + offset] += f"    # {'; '.join(known)}"
        hidden = len(lines) - SHOWN_LINES
        more = [f"… {hidden} more lines: print(report.graph)"] if hidden > 0 else []
        return lines[:SHOWN_LINES] + more


def report_of(name: str, closed: ClosedJaxpr, options: Options, devices: int = 1, donates: bool = False) -> Report:
    """The report of a program that was traced, for the default platform. devices: over how many its arguments are
    spread, at least. donates: whether memory of some is given away."""
    traced, sources = traced_graph(closed, options)
    target = replace(target_of(traced, devices), alone=not donates)
    given, decision = _tuned_for(closed, options, target) if options.tuning else (options, None)
    bound, binding = bound_graph(traced, context_for(options, sources, target, timed=True))
    graph, records = optimize_graph(bound, sources, given, target, timed=True)
    records = (*binding, *records)
    return Report(name, options, target, records, traced, graph, cost_of(traced), cost_of(graph), sources, decision)


def target_of(graph: Graph, devices: int = 1) -> Target:
    """Where a program is going to run: the default platform, on the devices of its arguments and operations."""
    return Target((jax.default_backend(),), max(devices, devices_in(graph)))


def traced_graph(closed: ClosedJaxpr, options: Options) -> tuple[Graph, Sources]:
    """The graph of a traced program, with the optimized calls of these options opened and nothing else changed."""
    graph, sources = graph_of(closed)
    opened = Inline(only=OPTIMIZED_CALL).run(graph, Context(options, sources))
    return opened, sources


def region_of(closed: ClosedJaxpr) -> tuple[Graph, Sources]:
    """The graph of a traced program as it is lowered for a call: what the function has captured is an operand."""
    bound = bind(closed)
    graph, sources = graph_of(closed if bound is None else bound[0])
    return next((n.subgraphs[0].graph for n in graph.nodes if n.op.name == OPTIMIZED_CALL), graph), sources


def program_hash(graph: Graph, sources: Sources, options: Options, target: Target) -> str:
    """By which a lock file knows a program."""
    return hash_of(
        str(optimize_graph(graph, sources, replace(options, backend="xla", tuning=(), memory_limit=None), target)[0])
    )


def _tuned_for(closed: ClosedJaxpr, options: Options, target: Target) -> tuple[Options, Decision | None]:
    """`options` with what was measured of the program as it is lowered said of it as it is shown; and that."""
    lowered = program_hash(*region_of(closed), options, target)
    traced, sources = traced_graph(closed, options)
    bound, _ = bound_graph(traced, context_for(options, sources, target))
    shown = program_hash(bound, sources, options, target)
    known = tuple(replace(each, program=shown) for each in options.tuning if each.program == lowered)
    return replace(options, tuning=known or options.tuning), known[0] if known else None
