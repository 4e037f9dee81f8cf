"""The plan of a program: its regions, on how many cores each runs, when, and what is waited for, as predicted.

A region is a kernel, or operations that XLA fuses (roughly: as this library would), or one of its others. XLA runs one
after the other where a program has few, and where it has many most: measured on JAX 0.10 and 0.12, whose loops and
calls into libraries begin one at a time. So the predicted time is that of one region after the other; how long it would
take with independent ones side by side is said too. Times are predicted as engines are chosen by them
(`graphopt.analysis.kernel_time`, `graphopt.analysis.xla_time`).
"""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import cached_property

from rich.console import Console
from rich.table import Table

from graphopt.analysis.access import MOVES
from graphopt.analysis.grouping import groups_of
from graphopt.analysis.machine import Machine, this_machine
from graphopt.analysis.parallel import Placed, Task, TaskGraph, makespan
from graphopt.analysis.products import DOT
from graphopt.analysis.reductions import REDUCTIONS
from graphopt.analysis.splits import split_of
from graphopt.analysis.xla_calls import called_time, is_called
from graphopt.analysis.xla_time import TURN, alone_time, fused_time, product_time
from graphopt.drawing import drawn_plan
from graphopt.ir.graph import Graph
from graphopt.ir.node import Node
from graphopt.ir.op import CONSTANT, PARAM, PROJECT
from graphopt.ops.control import COND, SCAN, WHILE, Scan
from graphopt.ops.kernel import KERNEL
from graphopt.ops.linalg import LINEAR_SOLVE, solve_of
from graphopt.passes.choose import PATHOLOGIES, WHILE_RUNS, elements
from graphopt.passes.fuse import body_of
from graphopt.rewrite.passes import without_collections

SHOWN = 40
"""Regions in a report at most, those that take the longest."""

NAMES = 4
"""Operations that a region's name says at most."""


@dataclass(frozen=True, slots=True)
class Region:
    """What runs as one. nodes: of the graph.

    task: its name, and nanoseconds on 1, 2, … cores. engine: "numba" or "xla". split: how its work is cut for the
    cores. grain: iterations of each parallel loop of a kernel that a core takes at a time; none where XLA decides.
    """

    nodes: tuple[Node, ...] = field(repr=False)
    task: Task
    engine: str
    split: str = ""
    grain: tuple[int, ...] = ()


@dataclass(frozen=True, repr=False)
class Plan:
    """The regions of a program on the cores of a machine, with predicted times. `str()` is a table; notebooks draw it.

    regions: in an order in which they can run. graph: their tasks, by their places in `regions`, with the bytes that go
    between them. cores: of the machine. Seconds are predicted ones.
    """

    regions: tuple[Region, ...]
    graph: TaskGraph = field(repr=False)
    cores: int

    @cached_property
    def schedule(self) -> tuple[Placed, ...]:
        """One region after the other, each on the cores that it uses."""
        return self.graph.one_by_one(self.cores)

    @property
    def work(self) -> float:
        """Seconds that one core would take for everything."""
        return self.graph.work / 1e9

    @property
    def seconds(self) -> float:
        """How long a run takes."""
        return makespan(self.schedule) / 1e9

    @cached_property
    def side_by_side(self) -> float:
        """How long it would take with independent regions side by side."""
        return makespan(self.graph.side_by_side(self.cores)) / 1e9

    @cached_property
    def critical_path(self) -> tuple[Region, ...]:
        """The regions that wait for each other the longest, each on as many cores as help."""
        return tuple(self.regions[task] for task in self.graph.critical_path(self.cores)[0])

    @property
    def critical_seconds(self) -> float:
        """How long the critical path takes: with no number of such machines is it done sooner."""
        return self.graph.critical_path(self.cores)[1] / 1e9

    @property
    def efficiency(self) -> float:
        """How much of all cores' time is of use: work / (cores × seconds), 1 where there is nothing to do."""
        return self.work / (self.cores * self.seconds) if self.seconds else 1.0

    def summary(self) -> str:
        """What is predicted, in one line."""
        return (
            f"{_time(self.seconds)} on {self.cores} cores, of work for {_time(self.work)}: parallel efficiency "
            f"{self.efficiency:.0%}; critical path {_time(self.critical_seconds)}; with independent regions side by "
            f"side {_time(self.side_by_side)}"
        )

    def table(self) -> Table:
        """The regions, those that take the longest where there are many, in the order in which they run."""
        table = Table(title=f"plan: {self.summary()}", title_justify="left")
        for heading in ("region", "engine", "level", "cores", "grain", "split", "µs"):
            table.add_column(heading, justify="left" if heading in ("region", "engine", "split") else "right")
        levels = {task: number for number, level in enumerate(self.graph.levels) for task in level}
        critical = set(self.graph.critical_path(self.cores)[0])
        longest = sorted(self.schedule, key=lambda placed: placed.start - placed.stop)[:SHOWN]
        for placed in self.schedule:
            if placed not in longest:
                continue
            region = self.regions[placed.task]
            mark = "*" if placed.task in critical else ""
            grain = ", ".join(map(str, region.grain))
            row = (f"{placed.task + 1}{mark} {region.task.name}", region.engine, str(levels[placed.task]))
            microseconds = f"{(placed.stop - placed.start) / 1e3:,.1f}"
            table.add_row(*row, str(len(placed.cores)), grain, region.split, microseconds)
        hidden = len(self.schedule) - len(longest)
        table.caption = "* on the critical path" + (f"; {hidden} shorter regions are not shown" if hidden else "")
        table.caption_justify = "left"
        return table

    def svg(self) -> str:
        """The plan as a picture: when each region runs on which cores, and below which waits for which."""
        return drawn_plan(self.graph, self.schedule, self.cores, [region.engine for region in self.regions])

    def __repr__(self) -> str:
        return f"<Plan: {len(self.regions)} regions, {self.summary()}>"

    def _repr_svg_(self) -> str:
        return self.svg()

    def __str__(self) -> str:
        console = Console(file=io.StringIO(), width=120, color_system=None, record=True)
        console.print(self.table())
        return console.export_text().rstrip()


def plan_of(graph: Graph, machine: Machine | None = None) -> Plan:
    """The plan of a program that is to be lowered. machine: by default this one."""
    machine = machine or this_machine()
    with without_collections():
        return _Planner(machine).plan(graph)


class _Planner:
    def __init__(self, machine: Machine) -> None:
        self.machines = [replace(machine, threads=count) for count in range(1, machine.threads + 1)]
        self.known: dict[Graph, Plan] = {}

    def plan(self, graph: Graph) -> Plan:
        """The plan of a graph, sub-graphs once each."""
        if graph not in self.known:
            self.known[graph] = self._plan(graph)
        return self.known[graph]

    def _plan(self, graph: Graph) -> Plan:
        groups = groups_of(graph, _is_fused)
        members = {node for group in groups for node in group.members}
        units: list[tuple[Node, ...]] = [tuple(n for n in graph.nodes if n in group.members) for group in groups]
        regions = [self.fused(graph, body_of(group, graph)[0], u) for group, u in zip(groups, units, strict=True)]
        writer = {node: number for number, group in enumerate(groups) for node in group.results}
        for node in graph.nodes:
            if node.op.primitive is None or node in members:
                continue
            writer[node] = len(regions)
            regions.append(self.single(node))
        edges = Counter[tuple[int, int]]()
        for number, region in enumerate(regions):
            for operand in _operands(region.nodes):
                for before in _writers(operand, writer, number):
                    edges[before, number] += operand.aval.nbytes
        tasks = TaskGraph([region.task for region in regions], dict(edges))
        # What XLA does for nothing is no region, unless others wait for each other by it.
        kept = [
            n for n in tasks.order if regions[n].task.times[0] > 0 or (tasks.nx.in_degree(n) and tasks.nx.out_degree(n))
        ]
        place = {number: new for new, number in enumerate(kept)}
        ordered = tuple(regions[number] for number in kept)
        sizes = {(place[a], place[b]): size for (a, b), size in edges.items() if a in place and b in place}
        return Plan(ordered, TaskGraph([r.task for r in ordered], sizes), len(self.machines))

    def fused(self, graph: Graph, body: Graph, nodes: tuple[Node, ...]) -> Region:
        """Operations that XLA makes one loop of, or a loop for each reduction."""
        moves_only = all(node.op in MOVES for node in nodes)
        times = [0.0 if moves_only and _is_for_nothing(nodes) else fused_time(body, m) for m in self.machines]
        return Region(nodes, Task(_name(nodes), tuple(times)), "xla", "result" if times[-1] < times[0] else "")

    def single(self, node: Node) -> Region:
        """A kernel, a loop, a branch, or an operation that is not fused."""
        if node.op is KERNEL and node.attrs["engine"] == "numba":
            return self.kernel(node)
        times = tuple(self.time(node, machine) for machine in self.machines)
        return Region((node,), Task(node.op.name, times), "xla", "result" if times[-1] < times[0] else "")

    def kernel(self, node: Node) -> Region:
        """A kernel, with the splits and grains of its parallel loops."""
        from graphopt.backends.numba.engine import plan_by_key

        planned = plan_by_key(node.attrs["key"])
        program = planned.program
        members = [n for n in node.attrs["body"].graph.nodes if n.op.primitive is not None]
        times = tuple(planned.nanoseconds(machine) for machine in self.machines)
        threads = planned.threads(self.machines[-1])
        split = ", ".join(dict.fromkeys(split_of(program, n) for n, count in enumerate(threads) if count > 1))
        grain = tuple(phase.grain for phase in program.phases)
        return Region((node,), Task(_name(members), times), "numba", split, grain)

    def time(self, node: Node, machine: Machine) -> float:
        """Nanoseconds of an operation that is not fused."""
        bodies = [self.inner(sub.graph, machine) for sub in node.subgraphs]
        if node.op is SCAN:
            return Scan.of(node).length * sum(bodies)
        if node.op is WHILE:
            return WHILE_RUNS * sum(bodies)
        if node.op is COND:
            return max(bodies, default=0.0)
        if node.op in PATHOLOGIES and (count := elements(node)):
            return PATHOLOGIES[node.op].xla * count  # on one core
        if node.op is LINEAR_SOLVE:
            return self.inner(solve_of(node), machine)
        if is_called(node):
            return called_time(node, machine)
        if node.op is DOT and node.aval.is_static:
            return product_time(node, machine)
        alone = alone_time(node, machine)
        if not bodies or alone:
            return alone if alone * machine.threads > TURN else alone * machine.threads
        return sum(bodies)

    def inner(self, graph: Graph, machine: Machine) -> float:
        """Nanoseconds of a sub-graph."""
        plan = self.plan(graph)
        return sum(region.task.time(machine.threads) for region in plan.regions)


def _is_fused(node: Node) -> bool:
    return (node.op.elementwise or node.op in MOVES or node.op in REDUCTIONS) and all(a.is_static for a in node.avals)


def _is_for_nothing(nodes: Iterable[Node]) -> bool:
    """Whether what only moves data moves none: the same elements in the same order, or a number repeated."""
    return all(n.aval.size <= 1 or "new_sizes" in n.attrs or n.inputs[0].aval.size <= 1 for n in nodes)


def _operands(nodes: tuple[Node, ...]) -> list[Node]:
    """What nodes read that is not among them, each once."""
    inside = set(nodes)
    return list(dict.fromkeys(operand for node in nodes for operand in node.inputs if operand not in inside))


def _writers(node: Node, writer: dict[Node, int], reader: int) -> set[int]:
    """The regions that a value comes from; of one that its reader computes anew those that this is made of."""
    found: set[int] = set()
    stack = [node]
    while stack:
        current = stack.pop()
        if current in writer:
            found.add(writer[current])
        elif current.op is PROJECT or current.op not in (PARAM, CONSTANT):
            stack += current.inputs
    return found - {reader}


def _name(nodes: Iterable[Node]) -> str:
    """The operations of a region, those that compute first."""
    names = Counter(node.op.name for node in nodes if node.op not in MOVES) or Counter(n.op.name for n in nodes)
    shown = [name if count == 1 else f"{count} {name}" for name, count in names.most_common(NAMES)]
    return ", ".join(shown) + (", …" if len(names) > NAMES else "")


def _time(seconds: float) -> str:
    return f"{seconds * 1e3:,.2f} ms" if seconds >= 1e-3 else f"{seconds * 1e6:,.1f} µs"
