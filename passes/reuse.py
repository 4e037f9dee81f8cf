"""Reuse: kernels write results over operands that nobody needs afterwards.

Memory that is fresh takes longer to write than memory that was just read, and of an update in a loop all but the slice
would be copied in each step. An operand may be written over where it is a value that a loop carries, which the result
becomes, or what another operation has made; not an argument of the program, nor a constant, which XLA would copy.

Before:
    %3: f32[1000] = dot_general[...](%0, %1)
    %4: f32[1000] = kernel[body=@1, engine="numba", key=...](%3)
After:
    %3: f32[1000] = dot_general[...](%0, %1)
    %4: f32[1000] = kernel[body=@1, engine="numba", in_place=((0, 0),), key=...](%3)
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from jax.extend.core import primitives as p

from graphopt.analysis.access import MOVES
from graphopt.analysis.engine import Engine, Pairs, Schedule
from graphopt.analysis.grouping import MOVED
from graphopt.analysis.local import is_shard_map
from graphopt.ir.graph import Graph, depth_first, nested_graphs
from graphopt.ir.node import Node, result_of
from graphopt.ir.op import CONSTANT, PARAM, PROJECT, op_of
from graphopt.ops.control import SCAN, WHILE, Scan, While
from graphopt.ops.kernel import KERNEL, kernel
from graphopt.passes.fuse import RUNS_ITS_GRAPHS, schedule_of
from graphopt.rewrite.passes import Context, Pass, counted
from graphopt.rewrite.rebuild import rebuild, with_bodies

DOT = op_of(p.dot_general_p)

Carried = Mapping[int, int]
"""By the number of a body's parameter the number of the result that is this parameter in the next iteration."""


@dataclass(frozen=True)
class Reuse(Pass):
    """Lets kernels of an engine write over their operands.

    schedules: by the hashes of regions how their loops are written, where not as predicted.
    """

    engine: Engine = field(repr=False)
    schedules: Mapping[str, Schedule] = field(default_factory=dict, repr=False)
    name = "reuse"

    def run(self, graph: Graph, context: Context) -> Graph:
        """The graph whose kernels say what they write over."""
        reuser = _Reuser(self.engine, context, carried_in(graph), self.schedules)
        new = reuser.graph(graph)
        if reuser.count:
            context.note(f"{self.engine.name}: {counted(reuser.count, 'result')} written over operands")
        for why, count in reuser.fresh.items():
            context.note(f"{self.engine.name}: {counted(count, 'result')} in new memory: {why}")
        return new


def carried_in(graph: Graph) -> dict[Graph, Carried]:
    """What loops carry through their bodies; nothing for a graph that is run in other ways too."""
    found: dict[Graph, Carried] = {graph: {}}
    for outer in nested_graphs(graph):
        for node in outer.nodes:
            for sub in node.subgraphs:
                carried: Carried = {}
                if node.op is SCAN:
                    scan = Scan.of(node)
                    carried = {scan.consts + k: k for k in range(scan.carry)}
                elif node.op is WHILE and sub.graph is While.of(node).body:
                    first = len(sub.graph.params) - len(sub.graph.outputs)
                    carried = {first + k: k for k in range(len(sub.graph.outputs))}
                found[sub.graph] = carried if found.get(sub.graph, carried) == carried else {}
    return found


class _Reuser:
    def __init__(
        self,
        engine: Engine,
        context: Context,
        carried: Mapping[Graph, Carried],
        schedules: Mapping[str, Schedule],
    ) -> None:
        self.engine = engine
        self.schedules = schedules
        self.context = context
        self.carried = carried
        self.any_order = context.options.numerics != "exact"
        self.done: dict[Graph, Graph] = {}
        self.count = 0
        self.fresh: Counter[str] = Counter()  # large results that are not written over operands, by the reason

    def graph(self, graph: Graph) -> Graph:
        """A graph, and those below it, with kernels that write over their operands."""
        if graph not in self.done:
            users, carried = graph.users(), self.carried.get(graph, {})

            def visit(node: Node, inputs: tuple[Node, ...]) -> Node | None:
                if node.op is KERNEL and node.attrs["engine"] == self.engine.name:
                    return self.kernel(node, inputs, graph, users, carried)
                if node.op in RUNS_ITS_GRAPHS or is_shard_map(node.op):
                    return node.with_attrs(with_bodies(node, self.graph)).with_inputs(inputs)
                return None

            self.done[graph] = rebuild(graph, self.context.sources, visit)
        return self.done[graph]

    def kernel(
        self, node: Node, inputs: tuple[Node, ...], graph: Graph, users: Mapping[Node, list[Node]], carried: Carried
    ) -> Node | None:
        """The kernel with as many of its results over operands as is right."""
        body: Graph = node.attrs["body"].graph
        taken: Pairs = ()
        key, schedule = node.attrs["key"], schedule_of(body, self.schedules)
        # What is carried before all else: another operand's memory would be copied to where the loop has it.
        for number in sorted(range(len(inputs)), key=lambda k: node.inputs[k].op is not PARAM):
            operand = node.inputs[number]
            for result, aval in enumerate(body.out_avals):
                if aval != operand.aval or any(result == other for _, other in taken):
                    continue
                if not _may_be_written_over(operand, node, result, graph, users, carried):
                    continue
                plan = self.engine.plan(body, self.any_order, (*taken, (number, result)), schedule)
                if plan is not None:
                    taken, key = (*taken, (number, result)), plan.key
                    break
        over = {result for _, result in taken}
        for result, aval in enumerate(body.out_avals):
            if result not in over and aval.nbytes >= MOVED:
                same = [operand for operand in node.inputs if operand.aval == aval]
                given = all(operand.op in (PARAM, CONSTANT) for operand in same)
                why = "operands of this type are the caller's" if given else "operands of this type are needed after it"
                self.fresh.update([why] if same else [])
        if not taken:
            return None
        self.count += len(taken)
        return kernel(body, inputs, key, self.engine.name, taken)


def _may_be_written_over(
    operand: Node, node: Node, result: int, graph: Graph, users: Mapping[Node, list[Node]], carried: Carried
) -> bool:
    """Whether nobody needs an operand of a kernel after it, and XLA need not copy it."""
    if operand in graph.outputs:
        return False
    if operand.op is PARAM:
        index = operand.attrs["index"]
        if index not in carried or result_of(graph.outputs[carried[index]]) != (node, result):
            return False
        # A slice that was taken before is no view of it.
        before = set(depth_first(node.inputs, lambda n: n.inputs))
        return all(user is node or (user in before and user.op not in MOVES) for user in users[operand])
    made = operand.inputs[0] if operand.op is PROJECT else operand
    is_fresh = made.op in (KERNEL, DOT) or (made.op.elementwise and made.op is not CONSTANT)
    return is_fresh and users[operand] == [node]
