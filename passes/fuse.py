"""Fusion: regions of the graph become kernels, each a loop program that an engine other than XLA runs.

Before:
    %1: f32[1000] = exp(%0)
    %2: f32[1000] = mul(%1, 2.0:f32[])
    %3: f32[1000] = sub(%2, 1.0:f32[])
After:
    graph @1(%0: f32[1000]) {
      %1: f32[1000] = exp(%0)
      ...
    }
    %1: f32[1000] = kernel[body=@1, engine="numba", key=...](%0)
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from jax.extend.core import primitives

from graphopt.analysis.access import MOVES
from graphopt.analysis.engine import PREDICTED, Engine, Plan, Schedule
from graphopt.analysis.factors import blocked_among
from graphopt.analysis.grouping import Group, groups_of, is_large_move, is_repeated, is_worth_a_kernel
from graphopt.analysis.local import is_shard_map, local_graphs
from graphopt.analysis.loops import LOOPS
from graphopt.analysis.machine import Machine
from graphopt.analysis.pieces import pieces_of
from graphopt.analysis.reductions import REDUCTIONS
from graphopt.analysis.swallowed import swallowed_time
from graphopt.analysis.xla_indexed import are_places, shares_taken
from graphopt.analysis.xla_rows import unstored
from graphopt.errors import EngineError
from graphopt.ir.graph import Graph, depth_first, make_graph, nested_graphs
from graphopt.ir.node import Node, param, project, results
from graphopt.ir.op import PROJECT, op_of
from graphopt.ir.sources import Sources
from graphopt.lock import hash_of
from graphopt.ops.control import COND, SCAN, WHILE
from graphopt.ops.kernel import KERNEL, kernel
from graphopt.ops.local import RETYPE, as_given
from graphopt.passes.choose import candidate, cut_out, decide, hopeless, may_pay, pays, runs_of, takes, time_of_others
from graphopt.rewrite.passes import Context, Pass, counted
from graphopt.rewrite.rebuild import with_bodies

CALL = op_of(primitives.jit_p)

ROUNDS = 8

OFTEN = 1.5
"""How many times an element may be computed before it is asked what that costs."""

RUNS_ITS_GRAPHS = (SCAN, WHILE, COND, CALL)
"""Operations that run their sub-graphs as they stand. How a scatter combines, say, is a sub-graph for XLA to read."""

Unit = Node | Group


@dataclass(frozen=True)
class Fuse(Pass):
    """Makes kernels for an engine, of all that it can take; says what it cannot, and why.

    engine: whose kernels. machine: of what that gains time on this machine; by default of all. only: of the regions so
    formed those whose graphs have these hashes, whatever time they are expected to take. devices: over how many the
    program is partitioned; if several, kernels are made of what runs on one of them each. schedules: by the hashes of
    regions how their loops are written, where not as predicted.
    """

    engine: Engine = field(repr=False)
    machine: Machine | None = field(default=None, repr=False)
    only: frozenset[str] | None = field(default=None, repr=False)
    devices: int = 1
    schedules: Mapping[str, Schedule] = field(default_factory=dict, repr=False)
    name = "fuse"

    def run(self, graph: Graph, context: Context) -> Graph:
        """The graph with kernels in it. Raises EngineError where the engine was asked for and is not to be had."""
        if (reason := self.engine.unavailable()) is not None:
            if self.machine is None:  # it was asked for by name
                raise EngineError(reason)
            context.note(f"left to XLA: everything, for {reason}")
            return graph
        fuser = _Fuser(self.engine, self.machine is not None, graph, context, self.schedules)
        if self.devices > 1:
            fuser.inside = local_graphs(graph)
            outside = f"left to XLA: what is partitioned over {self.devices} devices, being outside of shard_map"
            context.note(f"{outside}, or inside of one that leaves axes of the mesh to the partitioner")
        if self.only is not None:
            fuser.keep(graph, self.only)
        elif self.machine is not None:
            fuser.choose(graph, self.machine)
        new = fuser.graph(graph)
        for reason, count in fuser.declined.most_common():
            context.note(f"left to XLA: {reason}" + (f" ({count} times)" if count > 1 else ""))
        for what, count in fuser.kept.items():
            context.note(what + (f" ({count} times)" if count > 1 else ""))
        if fuser.kernels:
            of = counted(fuser.fused, "operation")
            context.note(f"{self.engine.name}: {counted(fuser.kernels, 'kernel')} of {of}")
        return new


class _Fuser:
    def __init__(
        self, engine: Engine, is_free: bool, whole: Graph, context: Context, schedules: Mapping[str, Schedule]
    ) -> None:
        """is_free: whether what is expected to gain nothing stays in XLA. whole: the program's graph."""
        self.schedules = schedules
        self.engine = engine
        self.is_free = is_free
        self.whole = whole
        self.context = context
        self.done: dict[Graph, Graph] = {}
        self.plans: dict[Graph, Plan | None] = {}
        self.taken: dict[Node, bool] = {}
        self.shares: dict[Graph, dict[Node, float]] = {}
        self.chosen: dict[Graph, list[Group]] | None = None
        self.inside: set[Graph] | None = None  # the graphs that may have kernels; None where all may
        self.left: set[tuple[Graph, Node]] = set()
        self.declined: Counter[str] = Counter()
        self.kept: Counter[str] = Counter()
        self.kernels = self.fused = 0
        self.exact = context.options.numerics == "exact"

    def graph(self, graph: Graph) -> Graph:
        """A graph with kernels, in its sub-graphs too."""
        if graph not in self.done:
            self.done[graph] = self.fused_graph(graph)
        return self.done[graph]

    def plan(self, body: Graph) -> Plan | None:
        """What the engine would run for a body, asked once."""
        if body not in self.plans:
            self.plans[body] = self.engine.plan(body, not self.exact)
        return self.plans[body]

    def may(self, graph: Graph) -> bool:
        """Whether there may be kernels in a graph."""
        return self.inside is None or graph in self.inside

    def takes(self, node: Node) -> bool:
        """Whether a node can be part of a kernel."""
        if node not in self.taken:
            may = node.op.primitive is not None and (not self.is_free or takes(node))
            self.taken[node] = may and self.engine.declines(node, self.exact) is None
        return self.taken[node]

    def choose(self, graph: Graph, machine: Machine) -> None:
        """Leaves to XLA what is not expected to gain by another engine, in sub-graphs too."""
        self.leave_rows(graph)
        whole = self.whole_loops(graph, machine)
        runs = {inner: times for inner, times in runs_of(graph, whole).items() if times}
        others = self.leave(runs, machine)
        found = [(inner, group) for inner in runs for group in self.groups(inner)]
        cut = cut_out(runs)
        candidates = []
        for inner, group in found:
            body, operands, _ = body_of(group, inner)
            plan = self.plan(body)
            assert plan is not None, "groups without a plan are none"
            swallowed = swallowed_time(group.members)
            apart = sum(n.avals[0].nbytes for n in {*operands, *group.results} if (inner, n) in cut)
            time = self.time(plan, body, runs[inner], machine)
            taken = self.taken_of(group, inner)
            candidates.append(candidate(body, time, runs[inner], machine, swallowed, apart, taken))
        chosen: dict[Graph, list[Group]] = {inner: [] for inner in runs}
        self.chosen = chosen
        for (inner, group), reason in zip(found, decide(candidates, others), strict=True):
            if reason is None:
                chosen[inner].append(group)
            else:
                self.decline(group, inner, reason)
        for inner, groups in chosen.items():
            chosen[inner] = self.without_places(inner, groups)

    def taken_of(self, group: Group, graph: Graph) -> float:
        """The part of the results of a group that XLA computes: all of what is not made element by element."""
        if graph not in self.shares:
            self.shares[graph] = shares_taken(graph)
        if not all(n.op.elementwise or n.op in MOVES for n in group.members):
            return 1.0
        return max(self.shares[graph].get(n, 1.0) for n in group.results)

    def time(self, plan: Plan, body: Graph, runs: int, machine: Machine) -> float:
        """Nanoseconds of a run of a kernel. Of a product in a loop with one thread: it is short there, and one that
        something else stops would hold up every step, where XLA computes it alone."""
        alone = runs > 1 and bool(blocked_among(body.nodes))
        return self.engine.time(plan.key, replace(machine, threads=1) if alone else machine)

    def without_places(self, graph: Graph, groups: list[Group]) -> list[Group]:
        """Those of groups that are to be kernels that do more than to find where operations of XLA's read or write."""
        members = {node for group in groups for node in group.members}
        places = [g for g in groups if are_places(graph, g.results, lambda node: node not in members)]
        for group in places:
            self.decline(group, graph, "XLA finds places where it reads or writes them")
        return [group for group in groups if group not in places]

    def whole_loops(self, graph: Graph, machine: Machine) -> set[tuple[Graph, Node]]:
        """Loops that may be kernels as they are, from the outermost ones on, with the graphs that they are in.

        Others are left, and what they are made of may have kernels.
        """
        found: set[tuple[Graph, Node]] = set()
        for inner in reversed(nested_graphs(graph)):
            runs = runs_of(graph, found)[inner] if self.may(inner) else 0
            loops = {n for n in inner.nodes if n.op in LOOPS}
            may = {n for n in loops if runs and self.takes(n) and may_pay(n, runs, machine)}
            self.left |= {(inner, n) for n in loops - may}
            for group in self.groups(inner) if may else ():
                members = may & group.members
                body, _, _ = body_of(group, inner)
                plan = self.plan(body) if members else None
                if plan is None:
                    continue
                if pays(candidate(body, self.engine.time(plan.key, machine), runs, machine)):
                    found |= {(inner, n) for n in members}
            self.left |= {(inner, n) for n in may if (inner, n) not in found}
        return found

    def leave(self, runs: Mapping[Graph, int], machine: Machine) -> float:
        """Leaves to XLA what would gain too little if its kernel took no time at all: to plan one takes time too.

        runs: of each graph. Returns the nanoseconds of all that is left, in one run of the program.
        """
        found = [
            (inner, group)
            for inner in runs
            if self.may(inner)
            for group in self.possible(inner)
            if is_worth_a_kernel(group)
        ]
        candidates = []
        for inner, group in found:
            swallowed, taken = swallowed_time(group.members), self.taken_of(group, inner)
            body, _, _ = body_of(group, inner)
            candidates.append(candidate(body, 0.0, runs[inner], machine, swallowed, taken=taken))
        others = time_of_others({(inner, n) for inner, group in found for n in group.members}, runs, machine)
        reasons = hopeless(candidates, others)
        kept = {(inner, n) for (inner, g), reason in zip(found, reasons, strict=True) if not reason for n in g.members}
        for (inner, group), known, reason in zip(found, candidates, reasons, strict=True):
            if reason is not None:
                self.left |= {(inner, n) for n in group.members} - kept
                self.decline(group, inner, reason)
                others += known.runs * known.xla
        return others

    def leave_rows(self, graph: Graph) -> None:
        """Leaves to XLA what it computes with two products a few rows at a time, where those stay there."""
        for inner in nested_graphs(graph):
            for product, between in unstored(inner).items():
                if not self.takes(product):
                    self.left |= {(inner, node) for node in between}

    def possible(self, graph: Graph) -> list[Group]:
        """Groups of all that a kernel can take, and that is not left."""

        def takes(node: Node) -> bool:
            return self.takes(node) and (graph, node) not in self.left

        return groups_of(graph, takes, (), pieces_of(graph, takes, self.engine.cost))

    def decline(self, group: Group, graph: Graph, reason: str) -> None:
        """Notes why a group of a graph stays in XLA."""
        names = Counter(node.op.name for node in graph.in_order(group.members))
        self.declined[f"{', '.join(names)}: {reason}"] += 1

    def keep(self, graph: Graph, only: frozenset[str]) -> None:
        """Leaves to XLA all regions but those with these hashes."""
        self.chosen = {
            inner: [group for group in self.groups(inner) if hash_of(str(body_of(group, inner)[0])) in only]
            for inner in nested_graphs(graph)
        }

    def fused_graph(self, graph: Graph) -> Graph:
        groups = self.groups(graph) if self.chosen is None else self.chosen.get(graph, [])
        members = {node for group in groups for node in group.members}
        for node in graph.nodes:
            if self.is_free or node in members or node.op.primitive is None or not self.may(graph):
                continue
            if node.op not in (KERNEL, RETYPE) and not is_shard_map(node.op):
                reason = self.engine.declines(node, self.exact)
                self.declined[reason or f"{node.op.name}, which by itself moves data, or makes a kernel too large"] += 1
        mapping: dict[Node, Node] = {p: p for p in graph.params}
        for unit in _in_order(graph, _units(graph, groups)):
            if isinstance(unit, Group):
                self.place(unit, graph, mapping)
            elif unit.op is PROJECT:
                mapping[unit] = project(mapping[unit.inputs[0]], unit.attrs["index"])
            elif unit not in mapping:
                inputs = tuple([mapping[n] for n in unit.inputs])
                runs = unit.op in RUNS_ITS_GRAPHS or is_shard_map(unit.op)
                attrs = with_bodies(unit, self.graph) if runs else unit.attrs
                mapping[unit] = unit.with_attrs(attrs).with_inputs(inputs)
        new = make_graph(graph.params, [mapping[n] for n in graph.outputs])
        self.context.sources.inherit(graph, new, mapping)
        return new

    def groups(self, graph: Graph) -> list[Group]:
        """Groups none of which computes much more often than its operations ask for."""
        if not self.may(graph):
            return []
        cut: set[Node] = set()

        def takes(node: Node) -> bool:
            return self.takes(node) and (graph, node) not in self.left

        pieces = pieces_of(graph, takes, self.engine.cost)
        for _ in range(ROUNDS):
            groups = [g for g in groups_of(graph, takes, cut, pieces) if self.is_worth(g, graph)]
            more = {node for group in groups for node in self.to_cut(group, graph, pieces)} - cut
            if not more:
                break
            cut |= more
        return [group for group in groups if self.plan(body_of(group, graph)[0]) is not None]

    def is_worth(self, group: Group, graph: Graph) -> bool:
        """Whether there may be a kernel of a group; of one that only moves data where its time is compared with XLA's.

        What a loop's or a branch's graph gives XLA may write in place.
        """
        if is_worth_a_kernel(group):
            return True
        return self.is_free and graph is self.whole and is_large_move(group, graph)

    def to_cut(self, group: Group, graph: Graph, pieces: set[Node]) -> set[Node]:
        """Members of a wasteful group that had better be computed once, in a kernel before it."""
        inner = [n for n in group.members if n not in group.results and n not in pieces]
        if not inner:
            return set()
        body, _, mapping = body_of(group, graph)
        plan = self.plan(body)
        if plan is None:
            products, reductions = blocked_among(inner), {n for n in inner if n.op in REDUCTIONS}
            return set(products) or reductions or _read_again(inner, group, graph)
        often = {n: plan.evaluations.get(mapping[n], n.avals[0].size) / n.avals[0].size for n in group.members}
        found: dict[Node, set[Node]] = {}
        for node in inner:
            if often[node] > OFTEN:
                needed = _needed(node, group)
                wasted = sum(self.engine.cost(n) * _elements(n) * max(0.0, often[n] - 1) for n in needed)
                if wasted > self.engine.spill(node):
                    found[node] = needed
        # What is computed as often for another's sake is not, where that one is computed once.
        last = {n for n in found if not any(n in found[o] and n is not o and often[n] <= often[o] * 1.1 for o in found)}
        apart = self.work_apart(body, {mapping[n] for n in last}, {mapping[n] for n in group.members & pieces})
        return last if plan.work > apart + sum(map(self.engine.spill, last)) else set()

    def work_apart(self, body: Graph, cut: set[Node], pieces: set[Node]) -> float:
        """Nanoseconds of all kernels that the body of one becomes with these cuts."""
        groups = groups_of(body, lambda node: node.op.primitive is not None, cut, pieces) if cut else ()
        plans = [self.plan(body_of(group, body)[0]) for group in groups]
        return sum(plan.work for plan in plans if plan is not None)

    def place(self, group: Group, graph: Graph, mapping: dict[Node, Node]) -> None:
        """Puts a kernel in place of a group."""
        body, inputs, _ = body_of(group, graph, self.context.sources)
        plan, schedule = self.plan(body), schedule_of(body, self.schedules)
        if schedule != PREDICTED:
            plan = self.engine.plan(body, not self.exact, (), schedule) or plan
        assert plan is not None, "groups without a plan are none"
        node = kernel(body, tuple([as_given(mapping[n]) for n in inputs]), plan.key, self.engine.name)
        if len(group.results) == 1:
            mapping[group.results[0]] = node  # which may have several results itself
        else:
            for index, result in enumerate(group.results):
                mapping[result] = project(node, index)
        self.kept.update(plan.kept)
        self.kernels += 1
        self.fused += len(group.members)


def schedule_of(body: Graph, schedules: Mapping[str, Schedule]) -> Schedule:
    """How the loops of a region are to be written. schedules: by the hashes of regions."""
    return schedules.get(hash_of(str(body)), PREDICTED) if schedules else PREDICTED


def body_of(group: Group, graph: Graph, sources: Sources | None = None) -> tuple[Graph, list[Node], dict[Node, Node]]:
    """The graph of a group, the nodes outside of it that are its operands, and what became of its members.

    sources: gets the lines of the body's nodes, those of the group's.
    """
    mapping: dict[Node, Node] = {}
    inputs: list[Node] = []
    members = graph.in_order(group.members)
    for node in members:
        for operand in node.inputs:
            if operand in mapping:
                continue
            if is_repeated(operand):
                mapping[operand] = operand
            else:
                mapping[operand] = param(len(inputs), operand.aval)
                inputs.append(operand)
        mapping[node] = node.with_inputs(tuple([mapping[n] for n in node.inputs]))
    params = [mapping[n] for n in inputs]
    body = make_graph(params, [value for n in group.results for value in results(mapping[n])])
    if sources is not None:
        infos = sources.infos.get(graph, {})
        sources.record(body, {mapping[n]: infos[n] for n in members if n in infos})
    return body, inputs, mapping


def _read_again(inner: Sequence[Node], group: Group, graph: Graph) -> set[Node]:
    """Members that are computed and read by several others, as the steps of a stencil are; all where none is."""
    users = graph.users()
    computed = [n for n in inner if n.op not in MOVES]
    again = {n for n in computed if sum(1 for user in users[n] if user in group.members) > 1}
    return again or set(computed)


def _needed(node: Node, group: Group) -> set[Node]:
    """A member of a group and those that it is made of."""
    needed: set[Node] = set()
    stack = [node]
    while stack:
        current = stack.pop()
        if current not in needed:
            needed.add(current)
            stack += [n for n in current.inputs if n in group.members]
    return needed


def _units(graph: Graph, groups: list[Group]) -> dict[Node, Unit]:
    """For each node what computes it for those outside of kernels: a kernel, or the operation itself."""
    results = {node: group for group in groups for node in group.results}
    members = {node: group for group in groups for node in group.members}
    units: dict[Node, Unit] = {}
    users = graph.users()
    for node in reversed(graph.nodes):
        if node in results:
            units[node] = results[node]
        elif node not in members or any(units[user] is user for user in users[node]):
            units[node] = node
        else:
            units[node] = members[node]
    return units


def _elements(node: Node) -> int:
    return max([node.avals[0].size, *(n.avals[0].size for n in node.inputs)])


def _in_order(graph: Graph, unit_of: dict[Node, Unit]) -> list[Unit]:
    """Nodes and groups, each after all that it needs."""

    def needs(unit: Unit) -> list[Unit]:
        members, inside = (unit.members, unit.members) if isinstance(unit, Group) else ((unit,), ())
        return [unit_of[operand] for member in members for operand in member.inputs if operand not in inside]

    return depth_first([unit_of[n] for n in graph.nodes], needs)
