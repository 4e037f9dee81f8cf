"""Chunking: what is large between two contractions is computed in blocks, one after the other, in a loop.

Before, where %2 has 134 MB:
    %2: f32[8,2048,2048] = dot_general[...](%0, %1)
    ...
    %9: f32[8,2048,64] = dot_general[...](%8, %1)
After:
    graph @1(...) {                  a body: it reads blocks of its operands and writes blocks of its results
      %5: f32[1,2048,64] = dynamic_slice[slice_sizes=(1, 2048, 64)](%0, %2, 0:i32[], 0:i32[])
      ...
    }
    %3: (i32[], f32[8,2048,64]) = scan[jaxpr=@1, length=8, ...](%0, %1, %2, 0:i32[], %4)
    %4: f32[8,2048,64] = project[index=1](%3)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jax.extend.core import primitives as p

from graphopt.analysis.blocks import before_all, block_of, combined, read_block, write_block
from graphopt.analysis.chunk_cost import AGAIN, CACHED, NEW, Memory
from graphopt.analysis.chunking import Region, best_region
from graphopt.analysis.xla_rows import unstored
from graphopt.errors import GraphError
from graphopt.ir.aval import dtype_name
from graphopt.ir.graph import Graph, make_graph, nested_graphs
from graphopt.ir.node import Node, param, project
from graphopt.ir.op import op_of
from graphopt.ops.control import COND, SCAN, WHILE, make_scan
from graphopt.ops.make import full, make, scalar
from graphopt.passes.pieces import Pieces
from graphopt.rewrite.driver import Firing
from graphopt.rewrite.passes import Context, Pass
from graphopt.rewrite.rebuild import rebuild, with_bodies
from graphopt.rewrite.rule import rewrites
from graphopt.rewrite.safety import ADMITTED

ADD, MUL, REMAT = op_of(p.add_p), op_of(p.mul_p), op_of(p.remat_p)

AT_MOST = 4
"""In so many regions the same large contraction may be computed."""

MOST = 32
"""Regions in one graph: each is a change of the whole graph."""


@dataclass(frozen=True)
class Chunk(Pass):
    """Computes what stands between contractions in blocks, where it is so large that memory is what takes the time.

    Attention is the model: the weights of all queries for all keys, their softmax, and what it weighs, its gradient
    too; a product of matrices and what follows with a large array between them. Each block has whole rows, so nothing
    is rescaled; sums over what is cut are sums of sums of blocks, so the safety is `reassociate`. For CPUs alone:
    elsewhere XLA has its own. What two regions need, as a derivative needs what it is the derivative of, is computed
    twice where it is large.

    large: bytes of an array from which on it is looked at. block: bytes of a block of it, of which the caches hold a
    few. rows: how many rows a block has at least where it meets an array that all blocks read, for products of matrices
    with few rows are slow. gain: the least share of the time of its contractions, with the memory that they read and
    write, that is expected to be saved. piece: nanoseconds that it takes to bring together what one of several pieces
    reads, into which a region is divided where a mask leaves other columns of each. leaves: whether what XLA computes a
    few rows at a time by itself (`graphopt.analysis.xla_rows`) is left to it.
    """

    large: int = 8 << 20
    block: int = 4 << 20
    rows: int = 32
    gain: float = 0.2
    piece: float = 30_000
    leaves: bool = True
    name = "chunk"

    @property
    def memory(self) -> Memory:
        """What its options say of memory."""
        return Memory(self.large, self.block, self.rows, self.piece)

    def run(self, graph: Graph, context: Context) -> Graph:
        """The graph with loops over blocks."""
        memory = self.memory
        if not any(memory.contractions(inner) for inner in nested_graphs(graph)):
            return graph
        if context.platforms != ("cpu",) or context.portable or context.differentiable:
            return graph
        if "reassociate" not in ADMITTED[context.options.numerics]:
            context.note("not in blocks: under exact numerics sums stay in one piece")
            return graph
        return _Chunker(memory, self.gain, self.leaves, context).graph(graph, False)


@rewrites(p.dot_general_p, p.conv_general_dilated_p, safety="reassociate")
def in_blocks(node: Node) -> Node | None:
    """what is made of an array that is too large for the caches → the same, of one block of it after the other"""
    return None  # it takes a graph to see what is made of it


class _Chunker:
    def __init__(self, memory: Memory, gain: float, leaves: bool, context: Context) -> None:
        self.memory = memory
        self.gain = gain
        self.leaves = leaves
        self.context = context
        self.done: dict[tuple[Graph, bool], Graph] = {}

    def graph(self, graph: Graph, in_loop: bool) -> Graph:
        """`graph` after the pass. in_loop: whether it runs many times, in memory that it has used before."""
        if (graph, in_loop) not in self.done:
            self.done[graph, in_loop] = self.cut(graph, in_loop) or self.in_bodies(graph, in_loop)
        return self.done[graph, in_loop]

    def in_bodies(self, graph: Graph, in_loop: bool) -> Graph:
        """`graph` with the pass run on its loops and branches, those that are new, too."""

        def visit(node: Node, inputs: tuple[Node, ...]) -> Node | None:
            if node.op not in (SCAN, WHILE, COND, REMAT):
                return None
            loops = in_loop or node.op not in (COND, REMAT)
            return node.with_attrs(with_bodies(node, lambda body: self.graph(body, loops))).with_inputs(inputs)

        return rebuild(graph, self.context.sources, visit)

    def cut(self, graph: Graph, in_loop: bool) -> Graph | None:
        """`graph` with its own large arrays in blocks, and those in blocks again; None where that does not pay."""
        large = self.memory.contractions(graph)
        left = frozenset(unstored(graph)) if large and self.leaves else frozenset()
        for node in large:
            if node in left:
                self.context.note(f"not in blocks: {_described(node)}, for XLA computes it a few rows at a time")
        seeds = [node for node in large if node not in left]
        if not seeds or self.context.stopped:
            return None
        rate = AGAIN if in_loop else NEW
        before = self.memory.graph(graph, rate)
        if (gain := 1 - self.memory.graph(graph, CACHED) / before) < self.gain:
            self.context.note(f"not in blocks: {_described(seeds[0])}, for that would gain {gain:.0%} at best")
            return None
        new, found = self.in_loops(graph, left)
        if not found:
            self.context.note(f"not in blocks: {_described(seeds[0])}, for it is read in ways that blocks cannot be")
            return None
        notes, firings = list(self.context.notes), list(self.context.firings)
        infos = self.context.sources.infos.get(graph, {})
        for seed, region in found:
            self.context.note(
                f"in blocks: {_described(seed)}: {self.memory.size(region)[0]} of {region.extent} at a time"
            )
            result = next(iter((*region.results, *region.sums)))
            self.context.firings.append(Firing(in_blocks, seed, result, "reassociate", infos.get(seed, ())))
        new = self.in_bodies(new, in_loop)
        gain = 1 - self.memory.graph(new, rate) / before
        if gain >= self.gain:
            return new
        self.context.notes, self.context.firings = notes, firings
        self.context.note(f"not in blocks: {_described(seeds[0])}, for that would gain {max(0.0, gain):.0%}")
        return None

    def in_loops(self, graph: Graph, vain: frozenset[Node]) -> tuple[Graph, list[tuple[Node, Region]]]:
        """`graph` with all regions around large contractions in loops; and the regions, with the contraction of each.

        vain: contractions around which there is no region of use. What is computed again in a region must not be needed
        anywhere else in the end: if it is, all is done once more without that region.
        """
        found: list[tuple[Node, Region]] = []
        again: list[tuple[Node, Node]] = []  # what is computed again, as it stands in the graph; of which region
        first = {node: node for node in graph.nodes}  # what each node was in the beginning
        tried, new = set(vain), graph
        while (
            seed := next((n for n in self.memory.contractions(new) if first.get(n, n) not in tried), None)
        ) is not None:
            if len(found) == MOST:
                self.context.note(f"no more than {MOST} regions are looked at")
                break
            first_seed = first.get(seed, seed)
            tried.add(first_seed)
            region = best_region(new, seed, self.memory.region)
            made = None if region is None else self.in_a_loop(region, new)
            if region is None or made is None:
                continue
            new, mapping = made
            again += [(n, first_seed) for n in region.again]
            again = [(mapping[n], s) for n, s in again if n in mapping]
            found.append((first_seed, region))
            first = {mapping[n]: old for n, old in first.items() if n in mapping}
            # Another region may need the same: one that begins with what was computed from this one's results.
            if sum(s is first_seed for s, _ in found) < AT_MOST:
                tried.discard(first_seed)
        left = set(new.nodes)
        more = {seed for node, seed in again if node in left}
        return self.in_loops(graph, vain | more) if more - vain else (new, found)

    def in_a_loop(self, region: Region, graph: Graph) -> tuple[Graph, dict[Node, Node]] | None:
        """`graph` with a region in a loop over blocks, and which node stands for each; None where that cannot be made,
        or would be one block."""
        count, left = self.memory.size(region)
        made = self.without_masked(region, count, graph)
        if made is None and count >= region.extent:
            self.context.note(f"not in blocks: {region.extent} elements are one block")
            return None
        try:
            made = made or self.in_one_loop(region, count, left, graph)
        except GraphError as error:
            self.context.note(f"not in blocks: {error.args[0]}")
            return None
        mapping = {node: node for node in graph.nodes}

        def visit(node: Node, inputs: tuple[Node, ...]) -> Node:
            mapping[node] = made.get(node) or node.with_inputs(inputs)
            return mapping[node]

        return rebuild(graph, self.context.sources, visit), mapping

    def in_one_loop(self, region: Region, count: int, left: int, graph: Graph) -> dict[Node, Node]:
        """What takes the place of the region's results and sums: a loop over blocks of `count`."""
        loop = _Loop(graph, region, count)
        made = loop.results(left)
        self.record(graph, loop.body, loop.block)
        return made

    def without_masked(self, region: Region, count: int, graph: Graph) -> dict[Node, Node] | None:
        """What takes the place of them where a mask leaves something out; None where it does not."""
        masked = self.memory.masked(region, graph.nodes)
        if masked is None:
            return None
        pieces = Pieces(graph, region, masked, count)
        try:
            made = pieces.results()
        except GraphError as error:
            self.context.note(f"computed although a mask leaves it out: {error.args[0]}")
            return None
        for body, block in pieces.bodies.items():
            self.record(graph, body, block)
        kept = sum((p.stop - p.start) * (p.last - p.first) for p in masked.pieces) / (region.extent * masked.extent)
        self.context.note(f"without what a mask leaves out, {1 - kept:.0%}, in {len(masked.pieces)} pieces")
        return made

    def record(self, graph: Graph, body: Graph, block: Mapping[Node, Node]) -> None:
        """Notes the lines that a body's nodes come from."""
        infos = self.context.sources.infos.get(graph, {})
        self.context.sources.record(body, {new: infos[old] for old, new in block.items() if old in infos})


class _Loop:
    """The loop over the blocks of a region.

    The body's parameters are what is read from outside, the number of the block, the results so far, and the sums.
    """

    def __init__(self, graph: Graph, region: Region, count: int) -> None:
        self.graph = graph
        self.region = region
        self.count = count
        self.kept = (*region.results, *region.sums)
        self.outside = tuple(region.read(graph.nodes))
        self.block: dict[Node, Node] = {}  # for each member what it is in the loop

    def results(self, left: int) -> dict[Node, Node]:
        """What takes the place of the region's results and sums. left: elements after the last whole block."""
        region, count = self.region, self.count
        begin = [full(0, n.aval) if n in region.axes else before_all(region, n) for n in self.kept]
        number = scalar(0, np.int32)
        loop = make_scan(self.body, (region.extent - left) // count, self.outside, (number, *begin))
        after = [project(loop, 1 + k) for k in range(len(self.kept))]
        if left:
            start = scalar(region.extent - left, np.int32)
            after = self.step(after, left, start, {n: n for n in self.outside})
        return dict(zip(self.kept, after, strict=True))

    @cached_property
    def body(self) -> Graph:
        """The graph of one block."""
        types = [*(n.aval for n in self.outside), scalar(0, np.int32).aval, *(n.aval for n in self.kept)]
        params = [param(index, aval) for index, aval in enumerate(types)]
        inside = dict(zip(self.outside, params, strict=False))
        number, *carried = params[len(self.outside) :]
        start = make(MUL, number, scalar(self.count, np.int32))
        following = make(ADD, number, scalar(1, np.int32))
        after = self.step(carried, self.count, start, inside)
        return make_graph(params, [following, *after])

    def step(self, carried: Sequence[Node], count: int, start: Node, inside: dict[Node, Node]) -> list[Node]:
        """Results and sums after a block of `count` elements from `start` on."""
        region = self.region

        def outside(node: Node, axis: int | None) -> Node:
            found = inside.get(node, node)
            return found if axis is None else read_block(found, axis, start, count)

        made = block_of(region, self.graph.nodes, count, start, outside)
        self.block = self.block or made
        return [
            write_block(before, made[node], region.axes[node], start)
            if node in region.axes
            else combined(region, node, before, made[node])
            for node, before in zip(self.kept, carried, strict=True)
        ]


def _described(node: Node) -> str:
    aval = node.aval
    return f"{node.op.name} {dtype_name(aval.dtype)}{list(aval.shape)} of {aval.nbytes / 1e6:.0f} MB"
