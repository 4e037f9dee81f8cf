"""Renew: large arguments that XLA would copy are copied by kernels.

A result that is an argument in another shape, or an argument with a part written over, is new memory, for the argument
stays the caller's. XLA fills it on one thread, in pages of the usual size; a kernel asks for huge pages, and threads
share the work. What XLA then writes over is the copy. Only where the program is all there is: inside of another one a
reshape is nothing to do, and so it is where the caller gives the argument away.

Before:
    %2: f32[3000,3000] = dynamic_update_slice(%0, %1, 7:i32[], 0:i32[])
After, where @1 is a copy:
    %2: f32[3000,3000] = kernel[body=@1, engine="numba", key=...](%0)
    %3: f32[3000,3000] = dynamic_update_slice(%2, %1, 7:i32[], 0:i32[])
"""

from __future__ import annotations

from dataclasses import dataclass, field

from jax.extend.core import primitives as p

from graphopt.analysis.engine import Engine
from graphopt.analysis.grouping import MOVED, SAME_ORDER
from graphopt.analysis.machine import Machine
from graphopt.analysis.scattering import SCATTERS
from graphopt.ir.graph import Graph, make_graph
from graphopt.ir.node import Node, param
from graphopt.ir.op import PARAM, op_of
from graphopt.ops.kernel import kernel
from graphopt.ops.make import BROADCAST, make
from graphopt.passes.choose import candidate, decide
from graphopt.rewrite.passes import Context, Pass, counted
from graphopt.rewrite.rebuild import rebuild

COPY = op_of(p.copy_p)

WRITTEN_OVER = {op_of(p.dynamic_update_slice_p), *SCATTERS}
"""Operations whose result XLA writes over their first operand."""


def copied(graph: Graph) -> list[Node]:
    """The arguments that XLA copies into memory of their own: those that are results or are written over."""
    written = [node.inputs[0] for node in graph.nodes if _is_copied_for(node, graph)]
    return [node for node in dict.fromkeys((*graph.outputs, *written)) if node.op is PARAM]


def _is_copied_for(node: Node, graph: Graph) -> bool:
    if node.op in WRITTEN_OVER:
        return True
    stays = node.op in SAME_ORDER or (node.op is BROADCAST and node.aval.size == node.inputs[0].aval.size)
    return stays and node in graph.outputs


@dataclass(frozen=True)
class Renew(Pass):
    """Copies arguments by kernels of an engine, where that gains time on a machine."""

    engine: Engine = field(repr=False)
    machine: Machine = field(repr=False)
    name = "renew"

    def run(self, graph: Graph, context: Context) -> Graph:
        """The graph with these kernels."""
        exact = context.options.numerics == "exact"
        copies = {node: self._copy(node, exact) for node in copied(graph)}
        for node, copy in copies.items():
            if isinstance(copy, str) and node.avals[0].nbytes >= MOVED:
                context.note(f"{node.aval} is copied by XLA: {copy}")
        made = {node: copy for node, copy in copies.items() if isinstance(copy, Node)}
        if not made:
            return graph

        def visit(node: Node, inputs: tuple[Node, ...]) -> Node | None:
            if not _is_copied_for(node, graph) or node.inputs[0] not in made:
                return None
            return node.with_inputs((made[node.inputs[0]], *inputs[1:]))

        new = rebuild(graph, context.sources, visit)
        renewed = make_graph(new.params, [made.get(n, n) for n in new.outputs])
        context.sources.inherit(new, renewed, {n: n for n in new.nodes})
        context.note(f"{self.engine.name}: {counted(len(made), 'argument')} copied")
        return renewed

    def _copy(self, node: Node, exact: bool) -> Node | str:
        """A kernel that copies an argument; why there is none where XLA's copy is expected to take no longer."""
        if not node.aval.is_plain or not node.aval.is_static:
            return "its type says more than shape and dtype"
        copy = make(COPY, param(0, node.aval))
        if (reason := self.engine.declines(copy, exact)) is not None:
            return reason
        body = make_graph(copy.inputs, (copy,))
        plan = self.engine.plan(body, not exact)
        if plan is None:
            return "a kernel would be too large"
        (found,) = decide([candidate(body, self.engine.time(plan.key, self.machine), 1, self.machine)], 0.0)
        return found if found is not None else kernel(body, (node,), plan.key, self.engine.name)
