"""Streaming: what is large between products is computed a few rows at a time, in one kernel.

Before, where %2 has 134 MB:
    %2: f32[8,2048,2048] = dot_general[...](%0, %1)
    ...
    %9: f32[8,2048,64] = dot_general[...](%8, %3)
After:
    %2: f32[8,2048,64] = kernel[body=@1, engine="numba", key=...](%0, %1, %3)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial

from jax.extend.core import primitives as p

from graphopt.analysis.chunk_cost import Memory
from graphopt.analysis.chunking import Region, generated, grow
from graphopt.analysis.engine import Engine, Plan
from graphopt.analysis.grouping import Group
from graphopt.analysis.machine import Machine
from graphopt.analysis.products import DOT, expanded
from graphopt.analysis.xla_time import core_time, product_time
from graphopt.ir.aval import dtype_name
from graphopt.ir.graph import Graph, nested_graphs
from graphopt.ir.node import Node, project
from graphopt.ir.op import CONSTANT, op_of
from graphopt.ops.control import COND, SCAN, WHILE
from graphopt.ops.kernel import kernel
from graphopt.ops.local import as_given
from graphopt.passes.fuse import body_of
from graphopt.rewrite.driver import Firing
from graphopt.rewrite.passes import Context, Pass
from graphopt.rewrite.rebuild import rebuild, with_bodies
from graphopt.rewrite.rule import rewrites
from graphopt.rewrite.safety import ADMITTED

REMAT = op_of(p.remat_p)

IN_PIECES = 1.7
"""What columns take that are computed in pieces of a masked region, of what they take in one: half of causal attention
takes nearly as long as all of attention."""

LIMIT = 64
"""Operations in one kernel."""

TILED = {"float32", "float64"}
"""The dtypes of products that a kernel computes a few rows at a time."""


@dataclass(frozen=True)
class Stream(Pass):
    """Makes one kernel of a product, what is done with each row of its result, and the products that sum over these.

    Attention is the model, and its gradient. `chunk`, which comes after it, leaves products to XLA and computes what
    is between them in blocks; here all of it is in a core's cache. Sums are in another order than XLA's, so the safety
    is `reassociate`.

    engine: gives the engine, once it is needed. machine: that predicted times are for; None where the engine was asked
    for by name. memory: which arrays are large, and what blocks of them would take.
    """

    engine: Callable[[], Engine] = field(repr=False)
    machine: Machine | None
    memory: Memory
    name = "stream"

    def run(self, graph: Graph, context: Context) -> Graph:
        """The graph with kernels."""
        if not any(self.memory.contractions(inner) for inner in nested_graphs(graph)):
            return graph
        if "reassociate" not in ADMITTED[context.options.numerics]:
            context.note("not row by row: under exact numerics sums stay in XLA's order")
            return graph
        if (reason := self.engine().unavailable()) is not None:
            context.note(f"left to XLA: everything, for {reason}")
            return graph
        return _Streamer(self, context).graph(graph)


@rewrites(p.dot_general_p, safety="reassociate")
def row_by_row(node: Node) -> Node | None:
    """what is made of the rows of a large product, and summed by others → the same, a few rows at a time"""
    return None  # it takes a graph to see what is made of it


class _Streamer:
    def __init__(self, options: Stream, context: Context) -> None:
        self.options = options
        self.memory = options.memory
        self.context = context
        self.engine = options.engine()
        self.done: dict[Graph, Graph] = {}

    def graph(self, graph: Graph) -> Graph:
        """`graph` with kernels, and those that it runs."""
        if graph not in self.done:
            new = graph
            tried: set[Node] = set()
            while (seed := next((n for n in self.memory.contractions(new) if n not in tried), None)) is not None:
                tried.add(seed)
                if not self.context.stopped:
                    new = self.streamed(new, seed) or new

            def visit(node: Node, inputs: tuple[Node, ...]) -> Node | None:
                if node.op not in (SCAN, WHILE, COND, REMAT):
                    return None
                return node.with_attrs(with_bodies(node, self.graph)).with_inputs(inputs)

            self.done[graph] = rebuild(new, self.context.sources, visit)
        return self.done[graph]

    def streamed(self, graph: Graph, seed: Node) -> Graph | None:
        """`graph` with a kernel of what is around a large product; None where there is none."""
        if seed.op is not DOT:
            return None
        users, made = graph.users(), generated(graph)
        for axis, size in enumerate(seed.aval.shape):
            region = grow(graph, users, made, seed, axis) if size > 1 else None
            group = None if region is None else self.group(region)
            if region is None or group is None:
                continue
            body, inputs, _ = body_of(group, graph, self.context.sources)
            # Where loops around elements are made of all products, one shape is what these go over.
            shapes = {n.aval.shape for n in body.outputs}
            alike = len(shapes) == 1 or any(n.op is DOT for n in expanded(body)[0].nodes)
            plan = self.engine.plan(body, True) if alike else None
            if plan is None:
                narrow = {str(n.aval.dtype) for p in body.nodes if p.op is DOT for n in p.inputs} - TILED
                if narrow:
                    self.context.note(f"not row by row: a product of {', '.join(sorted(narrow))}")
                continue
            if not self.is_worth(plan, body, self.share(region, graph)):
                continue
            node = kernel(body, tuple([as_given(n) for n in inputs]), plan.key, self.engine.name)
            several = len(group.results) > 1
            found = {n: project(node, k) if several else node for k, n in enumerate(group.results)}
            infos = self.context.sources.infos.get(graph, {})
            self.context.firings.append(Firing(row_by_row, seed, node, "reassociate", infos.get(seed, ())))
            self.context.note(f"{self.engine.name}: a kernel of {len(group.members)} operations, row by row")
            for read in (n for n in inputs if n.aval.size >= seed.aval.size):
                kind = f"{dtype_name(read.aval.dtype)}{list(read.aval.shape)} of {read.aval.nbytes / 1e6:.0f} MB"
                self.context.note(f"not row by row: {read.op.name} {kind}, which that kernel reads")
            return rebuild(graph, self.context.sources, partial(_given, found))
        return None

    def group(self, region: Region) -> Group | None:
        """The operations of a region; None where they are not for a kernel."""
        if region.again:
            return None
        members = {node for node in region if node.op is not CONSTANT}
        made = {node for node in region.generated if node.op is not CONSTANT}
        stack = list(members)
        while stack:
            more = [n for n in stack.pop().inputs if n in made and n not in members]
            members.update(more)
            stack += more
        if sum(node.op is DOT for node in members) < 2:
            return None
        declined = (self.engine.declines(node, False) for node in members if node.op is not DOT)
        reason = f"{len(members)} operations" if len(members) > LIMIT else next(filter(None, declined), None)
        if reason is not None:
            self.context.note(f"not row by row: {reason}")
            return None
        return Group(members, [*region.results, *region.sums])

    def share(self, region: Region, graph: Graph) -> float:
        """How much of the time of a region is left of it in blocks, where a mask leaves columns out."""
        found = self.memory.masked(region, graph.nodes)
        if found is None:
            return 1.0
        kept = sum((p.stop - p.start) * (p.last - p.first) for p in found.pieces)
        return min(1.0, IN_PIECES * kept / (region.extent * found.extent))

    def is_worth(self, plan: Plan, body: Graph, share: float) -> bool:
        """Whether a kernel is expected to be faster than XLA. share: of what XLA does in blocks.

        Of the columns that the kernel leaves out itself its time knows nothing: it is faster than that.
        """
        machine = self.options.machine
        if machine is None:
            return True
        products = sum(product_time(node, machine) for node in body.nodes if node.op is DOT)
        others = sum(core_time(node) for node in body.nodes if node.op is not DOT) / machine.threads
        xla, time = share * (products + others), self.engine.time(plan.key, machine)
        if time < xla:
            return True
        self.context.note(f"not row by row: {xla / 1e6:.2f} ms in XLA, {time / 1e6:.2f} ms in a kernel")
        return False


def _given(found: Mapping[Node, Node], node: Node, inputs: tuple[Node, ...]) -> Node | None:
    """What takes the place of a node."""
    return found.get(node)
