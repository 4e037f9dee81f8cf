"""Partition: kernels that do not need each other and are too small for all cores become one that runs all.

Kernels run one after the other. One that is too small to be shared leaves the other cores idle, and each is a call and
threads that begin and end together. In one kernel their parallel loops are one row of chunks, which the cores take as
they come: uneven ones even out.

Before:
    %2: f32[3000] = kernel[body=@1, engine="numba", key=...](%0)
    %3: i32[70] = kernel[body=@2, engine="numba", key=...](%1)
After:
    graph @1(%0: f32[3000], %1: f32[70,400]) {
      %2: f32[3000] = cumsum[axis=0, reverse=False](%0)
      %3: i32[70] = argmax[axes=(1,), index_dtype=dtype(i32)](%1)
    }
    %2: (f32[3000], i32[70]) = kernel[body=@1, engine="numba", key=...](%0, %1)
    %3: f32[3000] = project[index=0](%2)
    %4: i32[70] = project[index=1](%2)
"""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from graphopt.analysis.engine import PREDICTED, Engine, Plan, Schedule
from graphopt.analysis.machine import Machine
from graphopt.analysis.parallel import Task, TaskGraph
from graphopt.ir.graph import Graph, depth_first, make_graph
from graphopt.ir.node import Node, param, project
from graphopt.ir.op import CONSTANT, PARAM, PROJECT
from graphopt.ops.kernel import KERNEL, kernel
from graphopt.passes.fuse import RUNS_ITS_GRAPHS, schedule_of
from graphopt.rewrite.passes import Context, Pass
from graphopt.rewrite.rebuild import with_bodies

MOST, OPERATIONS = 16, 48
"""Kernels that become one, and operations of one that they become, at most: it is to be small."""

SHARED = 0.85
"""The parallel efficiency of a kernel that has enough of all cores."""

CACHED = 4
"""Into the cache that all cores share should so many kernels fit. (Two sorts of a million numbers each wait for memory:
side by side they took longer than one after the other.)"""


@dataclass(frozen=True)
class Partition(Pass):
    """Puts kernels of an engine side by side, where that is expected to gain time on a machine of several cores.

    Those may become one between which there is no path, and which stand behind equally many kernels: so no two new ones
    wait for each other. Where more could than one kernel should have, they are parted so that few bytes are read by
    several (`graphopt.analysis.parallel.TaskGraph.parts`). Results stay the same bits.

    machine: whose cores. gain: nanoseconds of a run to be gained at least. share: of the time that they take one by
    one, to be gained at least, for times are predicted. schedules: by their hashes the regions whose loops were
    measured; they stay by themselves.
    """

    engine: Engine = field(repr=False)
    machine: Machine = field(repr=False)
    gain: float = 40_000.0
    share: float = 0.3
    schedules: Mapping[str, Schedule] = field(default_factory=dict, repr=False)
    name = "partition"

    def run(self, graph: Graph, context: Context) -> Graph:
        """The graph with larger kernels, its sub-graphs too."""
        if self.machine.threads < 2:
            context.note("left one by one: there is one core")
            return graph
        if self.engine.unavailable() is not None:
            return graph
        return _Partitioner(self, context).graph(graph)


@dataclass(eq=False)
class _Joined:
    """Kernels that become one. plan: what the engine makes of them. inputs: operands, each once."""

    nodes: tuple[Node, ...]
    inputs: tuple[Node, ...]
    body: Graph
    plan: Plan


class _Partitioner:
    def __init__(self, step: Partition, context: Context) -> None:
        self.step = step
        self.context = context
        self.exact = context.options.numerics == "exact"
        self.done: dict[Graph, Graph] = {}

    def graph(self, graph: Graph) -> Graph:
        """A graph with kernels side by side."""
        if graph not in self.done:
            self.done[graph] = self.joined_graph(graph)
        return self.done[graph]

    def joined_graph(self, graph: Graph) -> Graph:
        """`graph` with those of its kernels joined that gain by it, and the same in its sub-graphs."""
        found = [joined for kernels in self.candidates(graph) if (joined := self.joined(kernels)) is not None]
        of = {node: joined for joined in found for node in joined.nodes}
        made: dict[_Joined, Node] = {}
        mapping: dict[Node, Node] = {p: p for p in graph.params}
        for unit in _in_order(graph, of):
            if isinstance(unit, _Joined):
                operands = tuple([mapping[n] for n in unit.inputs])
                made[unit] = kernel(unit.body, operands, unit.plan.key, self.step.engine.name)
                singles = [n for n in unit.nodes if len(n.avals) == 1]
                mapping |= {n: project(made[unit], _first(unit, n)) for n in singles}
            elif unit.op is PROJECT and unit.inputs[0] in of:
                joined = of[unit.inputs[0]]
                mapping[unit] = project(made[joined], _first(joined, unit.inputs[0]) + unit.attrs["index"])
            elif unit.op is PROJECT:
                mapping[unit] = project(mapping[unit.inputs[0]], unit.attrs["index"])
            elif unit not in mapping:
                attrs = with_bodies(unit, self.graph) if unit.op in RUNS_ITS_GRAPHS else unit.attrs
                mapping[unit] = unit.with_attrs(attrs).with_inputs(tuple([mapping[n] for n in unit.inputs]))
        new = make_graph(graph.params, [mapping[n] for n in graph.outputs])
        self.context.sources.inherit(graph, new, mapping)
        return new

    def candidates(self, graph: Graph) -> list[list[Node]]:
        """Kernels that may become one: independent, of this engine, and not well shared by all cores."""
        levels: dict[Node, int] = {}
        found: defaultdict[int, list[Node]] = defaultdict(list)
        for node in graph.nodes:
            before = max((levels[n] for n in node.inputs), default=0)
            is_kernel = node.op is KERNEL
            levels[node] = before + is_kernel
            if is_kernel and node.attrs["engine"] == self.step.engine.name and self.is_free(node):
                found[before].append(node)
        return [part for nodes in found.values() if len(nodes) > 1 for part in self.parted(nodes)]

    def is_free(self, node: Node) -> bool:
        """Whether it was not measured how a kernel is to be written."""
        return schedule_of(_body(node), self.step.schedules) == PREDICTED

    def parted(self, nodes: Sequence[Node]) -> list[list[Node]]:
        """Those of independent kernels that may become one, in parts that are not too large for a kernel."""
        small = []
        for node in nodes:
            why = self.why_alone(node)
            if why is None:
                small.append(node)
            else:
                self.context.note(f"left one by one: {_described([node])}: {why}")
        sizes = [len(_body(node).nodes) for node in small]
        count = max(-(-len(small) // MOST), -(-sum(sizes) // OPERATIONS)) if small else 0
        tasks = [Task(str(k), (self.time(node),)) for k, node in enumerate(small)]
        readers: defaultdict[Node, list[int]] = defaultdict(list)
        for k, node in enumerate(small):
            for operand in dict.fromkeys(node.inputs):
                readers[operand].append(k)
        shared = Counter[tuple[int, int]]()
        for operand, of in readers.items():
            for pair in itertools.pairwise(of):
                shared[pair] += operand.aval.nbytes
        parts = TaskGraph(tasks, shared).parts(count)
        return [[small[k] for k in sorted(part)] for part in parts if len(part) > 1]

    def why_alone(self, node: Node) -> str | None:
        """Why a kernel had better stay by itself; None where it may be one of several."""
        if "in_place" in node.attrs:
            return "it writes over its operand"
        threads = self.step.machine.threads
        if (
            sum(n.aval.nbytes for n in node.inputs) + sum(a.nbytes for a in node.avals)
            > self.step.machine.shared // CACHED
        ):
            return "its operands and results would take turns with those of others in the caches"
        alone = self.step.engine.time(node.attrs["key"], replace(self.step.machine, threads=1))
        if alone > SHARED * threads * self.time(node):
            return f"all {threads} cores share it"
        return None

    def time(self, node: Node) -> float:
        """Nanoseconds of a kernel with all cores."""
        return self.step.engine.time(node.attrs["key"], self.step.machine)

    def joined(self, nodes: Sequence[Node]) -> _Joined | None:
        """One kernel of several; None where it would not gain enough."""
        inputs = tuple(dict.fromkeys(n for node in nodes for n in node.inputs))
        params = [param(k, n.aval) for k, n in enumerate(inputs)]
        of = dict(zip(inputs, params, strict=True))
        parts = [_inlined(_body(node), [of[n] for n in node.inputs]) for node in nodes]
        body = make_graph(
            params, [part[out] for node, part in zip(nodes, parts, strict=True) for out in _body(node).outputs]
        )
        described = _described(nodes)
        computed = [n for part in parts for n in set(part.values()) if n.op is not PARAM and n.op is not CONSTANT]
        if len(set(computed)) < len(computed):
            self.context.note(f"left one by one: {described}: they have operations in common")
            return None
        plan = self.step.engine.plan(body, not self.exact)
        if plan is None:
            self.context.note(f"left one by one: {described}: too large for one kernel")
            return None
        before, after = sum(map(self.time, nodes)), self.step.engine.time(plan.key, self.step.machine)
        gain = before - after
        if gain < max(self.step.gain, self.step.share * before):
            self.context.note(f"left one by one: {described}: that would gain {max(0.0, gain) / 1e3:.1f} µs in a run")
            return None
        self.context.note(f"side by side: {described}: {before / 1e3:.1f} µs in a run become {after / 1e3:.1f}")
        for node, part in zip(nodes, parts, strict=True):
            infos = self.context.sources.infos.get(_body(node), {})
            self.context.sources.record(body, {part[n]: known for n, known in infos.items() if n in part})
        return _Joined(tuple(nodes), inputs, body, plan)


def _body(node: Node) -> Graph:
    body: Graph = node.attrs["body"].graph
    return body


def _inlined(body: Graph, operands: Sequence[Node]) -> dict[Node, Node]:
    """What each node of a body is on other operands."""
    mapping = dict(zip(body.params, operands, strict=True))
    for node in body.nodes[len(body.params) :]:
        mapping[node] = node.with_inputs(tuple([mapping[n] for n in node.inputs]))
    return mapping


def _first(joined: _Joined, node: Node) -> int:
    """The number of a kernel's first result among those of the one that it is part of."""
    return sum(len(n.avals) for n in joined.nodes[: joined.nodes.index(node)])


def _in_order(graph: Graph, of: dict[Node, _Joined]) -> list[Node | _Joined]:
    """Nodes, and kernels that become one, each after all that it needs."""

    def needs(unit: Node | _Joined) -> list[Node | _Joined]:
        return [of.get(operand, operand) for operand in unit.inputs]

    return depth_first([of.get(node, node) for node in graph.nodes], needs)


def _described(nodes: Sequence[Node]) -> str:
    """The operations of each kernel."""
    return " and ".join(
        ", ".join(dict.fromkeys(n.op.name for n in _body(node).nodes if n.op.primitive is not None)) for node in nodes
    )
