"""Dead code in loops and branches: what nobody reads is neither carried, nor stacked, nor passed in.

In a graph itself what cannot be reached from the outputs is not there. The results of a loop or a branch are different:
they hang together in one node.

Before:
    %2: (f32[], f32[8], f32[8]) = scan[jaxpr=@1, ...](%1, %0)    where @1 returns (%0 + %1, %0, -%1)
    %3: f32[8] = project[index=1](%2)
    return %3
After:
    %2: (f32[], f32[8]) = scan[jaxpr=@2, ...](%1, %0)    where @2 returns (%0 + %1, %0)
    %3: f32[8] = project[index=1](%2)
    return %3
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import compress

from graphopt.ir.graph import Graph, make_graph
from graphopt.ir.node import Node, project, results
from graphopt.ir.op import CONSTANT, PARAM, PROJECT
from graphopt.ops.control import COND, SCAN, WHILE, Cond, Scan, While
from graphopt.rewrite.passes import Context, Pass
from graphopt.rewrite.rebuild import with_bodies, with_params

Mask = tuple[bool, ...]


@dataclass(frozen=True)
class Dead(Pass):
    """Drops unused results, carried values and operands of `scan`, `while` and `cond`.

    A carried value is alive if the loop's result is, or if one that is alive (or the condition) is computed from it.
    Loops and branches with effects stay as they are.
    """

    name = "dead"

    def run(self, graph: Graph, context: Context) -> Graph:
        """The graph without dead values in loops and branches, at every depth."""
        return _Dead(context).graph(graph)


class _Dead:
    def __init__(self, context: Context) -> None:
        self.context = context
        self.done: dict[Graph, Graph] = {}
        self.known: dict[tuple[Node, Mask], _Plan] = {}

    def graph(self, graph: Graph) -> Graph:
        if graph in self.done:
            return self.done[graph]
        _, plans = self.demand(graph, (True,) * len(graph.outputs))
        mapping: dict[Node, Node] = {}
        for node in graph.nodes:
            if node.op is PARAM or node.op is CONSTANT:
                mapping[node] = node
            elif node.op is PROJECT:
                if node not in mapping:  # a result that was dropped is not in `plans`, and nobody asks for it
                    source = node.inputs[0]
                    if source in mapping and source not in plans:
                        mapping[node] = project(mapping[source], node.attrs["index"])
            elif all(n in mapping for n in node.inputs) or node in plans:
                self.node(node, mapping, plans)
        new = make_graph(graph.params, [mapping[n] for n in graph.outputs])
        self.context.sources.inherit(graph, new, mapping)
        self.done[graph] = new
        return new

    def node(self, node: Node, mapping: dict[Node, Node], plans: dict[Node, _Plan]) -> None:
        plan = plans.get(node)
        if plan is None:
            new = node.with_inputs(tuple([mapping[n] for n in node.inputs]))
            if node.subgraphs:
                new = new.with_attrs(with_bodies(new, self.graph))
            mapping[node] = new
            return
        # Operands that are dropped may not have been made; in their place any node will do, for it is not looked at.
        inputs = tuple([mapping.get(n, n) for n in node.inputs])
        new = self.apply(plan, node, inputs)
        mapping[node] = new
        kept = [i for i, keep in enumerate(plan.keep_out) if keep]
        mapping.update((project(node, old), project(new, i)) for i, old in enumerate(kept))
        dropped = len(plan.keep_out) - len(kept), len(plan.keep_in) - sum(plan.keep_in)
        self.context.note(
            f"{node.op.name}: dropped {dropped[0]} of {len(plan.keep_out)} results, {dropped[1]} operands"
        )

    def apply(self, plan: _Plan, node: Node, inputs: tuple[Node, ...]) -> Node:
        """`node` with what stays of it, on those of `inputs` that stay."""
        keep_in, keep_out = plan.keep_in, plan.keep_out
        if node.op is SCAN:
            scan = Scan.of(node)
            return scan.prune(node, inputs, keep_in, keep_out, self.restrict(scan.body, keep_in, keep_out))
        if node.op is WHILE:
            loop = While.of(node)
            split = loop.cond_consts
            cond = self.restrict(loop.cond, (*keep_in[:split], *keep_out), (True,))
            body = self.restrict(loop.body, keep_in[split:], keep_out)
            return loop.prune(node, inputs, keep_in, keep_out, cond, body)
        branches = [self.restrict(b, keep_in[1:], keep_out) for b in Cond.of(node).branches]
        return Cond.of(node).prune(node, inputs, keep_in[1:], keep_out, branches)

    def restrict(self, graph: Graph, keep_in: Sequence[bool], keep_out: Sequence[bool]) -> Graph:
        """`graph` with only the chosen parameters and outputs, and without what is dead in it then."""
        fewer = make_graph(graph.params, compress(graph.outputs, keep_out))
        self.context.sources.inherit(graph, fewer, {})
        # First what is inside: a loop in there may still take a parameter that it has no use for.
        return with_params(self.graph(fewer), self.context.sources, keep_in)

    def demand(self, graph: Graph, outputs: Sequence[bool]) -> tuple[set[Node], dict[Node, _Plan]]:
        """The nodes that the chosen outputs need, and for each loop or branch of which something can be dropped what
        stays. From the outputs backwards."""
        needed: set[Node] = set(compress(graph.outputs, outputs))
        plans: dict[Node, _Plan] = {}
        for node in reversed(graph.nodes):
            if node not in needed and not any(result in needed for result in results(node)):
                continue
            if node.op in (SCAN, WHILE, COND) and not node.effects:
                plan = self.plan(node, tuple([project(node, i) in needed for i in range(len(node.avals))]))
                if not (all(plan.keep_in) and all(plan.keep_out)):
                    plans[node] = plan
                needed.update(compress(node.inputs, plan.keep_in))
            elif node.op is not PROJECT:
                needed.update(node.inputs)
        return needed, plans

    def reached(self, graph: Graph, outputs: Sequence[bool]) -> Mask:
        """Which parameters the chosen outputs depend on."""
        needed, _ = self.demand(graph, outputs)
        return tuple([p in needed for p in graph.params])

    def plan(self, node: Node, used: Mask) -> _Plan:
        """What stays of a loop or a branch if these of its results are used."""
        # Remembered, because a loop around this one asks again in each of its rounds.
        found = self.known.get((node, used))
        if found is None:
            planner = {SCAN: self.plan_scan, WHILE: self.plan_while, COND: self.plan_cond}[node.op]
            found = self.known[node, used] = planner(node, used)
        return found

    def plan_scan(self, node: Node, used: Mask) -> _Plan:
        """A scan's carry is alive if its result is used or a value that is alive is computed from it."""
        scan = Scan.of(node)
        carry, ys = used[: scan.carry], used[scan.carry :]
        while True:
            reads = self.reached(scan.body, (*carry, *ys))
            alive = either(carry, reads[scan.consts : scan.consts + scan.carry])
            if alive == carry:
                break
            carry = alive
        return _Plan((*reads[: scan.consts], *carry, *reads[scan.consts + scan.carry :]), (*carry, *ys))

    def plan_while(self, node: Node, used: Mask) -> _Plan:
        """A loop's carry is alive also where the condition reads it."""
        loop = While.of(node)
        tested = self.reached(loop.cond, (True,))
        carry = either(used, tested[loop.cond_consts :])
        while True:
            reads = self.reached(loop.body, carry)
            alive = either(carry, reads[loop.body_consts :])
            if alive == carry:
                break
            carry = alive
        return _Plan((*tested[: loop.cond_consts], *reads[: loop.body_consts], *carry), carry)

    def plan_cond(self, node: Node, used: Mask) -> _Plan:
        """An operand of a choice is alive if one of the branches reads it for a result that is used."""
        reads = [self.reached(branch, used) for branch in Cond.of(node).branches]
        return _Plan((True, *(any(column) for column in zip(*reads, strict=True))), used)


@dataclass(frozen=True, slots=True)
class _Plan:
    """What of a node stays: operands and results."""

    keep_in: Mask
    keep_out: Mask


def either(first: Sequence[bool], second: Sequence[bool]) -> Mask:
    """Where one of the two holds."""
    return tuple([a or b for a, b in zip(first, second, strict=True)])
