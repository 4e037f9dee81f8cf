"""Joining: several narrow products with one operand in common become one product, which reads that operand once.

Before, for %0: f32[4096,256] and three vectors or narrow matrices of it:
    %4: f32[4096,8] = dot_general[dimension_numbers=(((1,), (0,)), ((), ())), ...](%0, %1)
    %5: f32[4096,8] = dot_general[dimension_numbers=(((1,), (0,)), ((), ())), ...](%0, %2)
    %6: f32[4096,8] = dot_general[dimension_numbers=(((1,), (0,)), ((), ())), ...](%0, %3)
After:
    %4: f32[256,24] = concatenate[dimension=1](%1, %2, %3)
    %5: f32[4096,24] = dot_general[dimension_numbers=(((1,), (0,)), ((), ())), ...](%0, %4)
    %6: f32[4096,8] = slice[limit_indices=(4096, 8), start_indices=(0, 0), strides=None](%5)
    %7: f32[4096,8] = slice[limit_indices=(4096, 16), start_indices=(0, 8), strides=None](%5)
    %8: f32[4096,8] = slice[limit_indices=(4096, 24), start_indices=(0, 16), strides=None](%5)
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np
from jax.extend.core import primitives as p

from graphopt.ir.attrs import Attrs
from graphopt.ir.graph import Graph, make_graph, nested_graphs
from graphopt.ir.node import Node
from graphopt.ir.sources import merge
from graphopt.ops.contract import DOT_GENERAL
from graphopt.passes.rules.contraction import axes_of
from graphopt.passes.rules.moving import applied, concatenated, reshaped, sliced
from graphopt.rewrite.driver import Firing
from graphopt.rewrite.passes import Context, Pass
from graphopt.rewrite.rebuild import with_bodies
from graphopt.rewrite.rule import rewrites
from graphopt.rewrite.safety import ADMITTED

NOTED = 1 << 22
"""Operations of products with an operand in common from which on the report says why they stay apart."""


@dataclass(frozen=True)
class Join(Pass):
    """Joins products that share an operand where that pays: `x @ a, x @ b, x @ c` to slices of `x @ [a b c]`.

    It pays where a large operand is multiplied with a few columns at a time: it is read again for each product, so that
    one product of all columns is faster even though they are put together at each call. With ordinary widths, or few
    rows, one larger product saves no more than its slices cost, even where constants are put together once.

    products: of at least so many. width: columns of each at most. shared: elements of a matrix of the common operand at
    least, rows: its rows, summed: its columns, over which is summed.

    The safety is `reassociate`: each element is the same sum, but XLA may take another kernel for it.
    """

    products: int = 3
    width: int = 8
    shared: int = 1 << 19
    rows: int = 256
    summed: int = 128
    name = "join"

    def run(self, graph: Graph, context: Context) -> Graph:
        """The graph with its narrow products joined."""
        counts = [sum(node.op is DOT_GENERAL for node in inner.nodes) for inner in nested_graphs(graph)]
        if context.platforms != ("cpu",) or max(counts) < 2 or context.portable or context.differentiable:
            return graph
        joiner = _Joiner(self, context)
        if "reassociate" in ADMITTED[context.options.numerics]:
            return joiner.graph(graph)
        groups = [group for inner in nested_graphs(graph) for group in joiner.groups(inner, levels(inner))[0]]
        if count := sum(map(len, groups)):
            context.note(f"{count} products that share operands stay apart: to join them is 'reassociate'")
        return graph


@dataclass(frozen=True, slots=True)
class Part:
    """A product, seen as one of several that share an operand.

    side: which operand that is. axis: of the other operand, along which others can be put beside it once its axes that
    are not summed are one, of `width` elements. attrs: of the product then.
    """

    node: Node
    side: int
    axis: int
    width: int
    attrs: Attrs

    @property
    def shared(self) -> Node:
        """The operand in common."""
        return self.node.inputs[self.side]

    @property
    def sizes(self) -> tuple[int, int]:
        """The rows of each matrix of the operand in common, and its columns, over which is summed."""
        contracted, _, free = axes_of(self.node)
        shape = self.shared.aval.shape
        return math.prod(shape[a] for a in free[self.side]), math.prod(shape[a] for a in contracted[self.side])


@rewrites(p.dot_general_p, safety={"f": "reassociate"}, law="distribution")
def products_beside_each_other(node: Node) -> Node | None:
    """dot(x, a), dot(x, b) → slices of dot(x, [a b]); found in graphs, not node by node"""
    return None


class _Joiner:
    def __init__(self, step: Join, context: Context) -> None:
        self.step, self.context = step, context
        self.done: dict[Graph, Graph] = {}

    def graph(self, graph: Graph) -> Graph:
        """`graph` after the pass, what its nodes hold included."""
        if graph not in self.done:
            self.done[graph] = self.rewritten(graph)
        return self.done[graph]

    def rewritten(self, graph: Graph) -> Graph:
        level = levels(graph)
        found, notes = self.groups(graph, level)
        for text in notes:
            self.context.note(text)
        groups = {part.node: group for group in found for part in group}
        if not groups and not any(node.subgraphs for node in graph.nodes):
            return graph
        infos = self.context.sources.infos.get(graph, {})
        mapping: dict[Node, Node] = {}
        lines: dict[Node, tuple[Any, ...]] = {}
        # What the products of a level read comes before all of them: so they may be joined at the first.
        for node in sorted(graph.nodes, key=lambda n: (level[n], n.op is not DOT_GENERAL)):
            if node in mapping:
                continue
            group = groups.get(node)
            if group is None or self.context.stopped:
                attrs = with_bodies(node, self.graph) if node.subgraphs else node.attrs
                new = node if attrs is node.attrs else node.with_attrs(attrs)
                mapping[node] = new.with_inputs(tuple([mapping[n] for n in node.inputs]))
                continue
            product, slices = joined(group, mapping)
            own = reduce(merge, [infos.get(part.node, ()) for part in group])
            lines |= dict.fromkeys((product, product.inputs[1 - group[0].side]), own)
            self.context.firings.append(Firing(products_beside_each_other, node, slices[node], "reassociate", own))
            mapping |= slices
        after = make_graph(graph.params, [mapping[n] for n in graph.outputs])
        self.context.sources.inherit(graph, after, mapping)
        self.context.sources.record(after, lines)
        return after

    def groups(self, graph: Graph, level: Mapping[Node, int]) -> tuple[list[list[Part]], list[str]]:
        """The products that are joined; and in words what they are, and why others stay."""
        nodes = [node for node in graph.nodes if node.op is DOT_GENERAL]
        reads = Counter((node.inputs[side], side, level[node]) for node in nodes for side in (0, 1))
        found: dict[tuple[Any, ...], list[Part]] = {}
        for node in nodes:
            for side in (0, 1):
                part = part_of(node, side) if reads[node.inputs[side], side, level[node]] > 1 else None
                if part is not None:
                    key = (part.shared, side, part.axis, part.attrs, level[node], self.declined(part))
                    found.setdefault(key, []).append(part)
        groups: list[list[Part]] = []
        notes: list[str] = []
        taken: set[Node] = set()
        apart: Counter[str] = Counter()
        for (*_, reason), every in found.items():
            parts = [part for part in every if part.node not in taken]
            width = sum(part.width for part in parts)
            if reason is None and len(parts) >= self.step.products:
                groups.append(parts)
                taken.update(part.node for part in parts)
                shape = "×".join(map(str, parts[0].shared.aval.shape))
                notes.append(f"{len(parts)} products with one operand of {shape} joined: {width} columns at once")
            elif len(parts) > 1 and 2 * parts[0].shared.aval.size * width >= NOTED:
                apart[reason or f"they are fewer than {self.step.products}"] += len(parts)
        notes += [f"{count} products that share operands stay apart: {reason}" for reason, count in apart.items()]
        return groups, notes

    def declined(self, part: Part) -> str | None:
        """Why a product gains nothing from others beside it."""
        step = self.step
        rows, summed = part.sizes
        if part.node.aval.dtype not in (np.float32, np.float64):
            return f"they are of {part.node.aval.dtype}, of which XLA computes no larger product faster"
        if part.width > step.width:
            return f"with more than {step.width} columns each, one product is not faster than they are"
        if rows < step.rows or summed < step.summed or rows * summed < step.shared:
            return "the operand in common is small, and read again at no cost"
        return None


def levels(graph: Graph) -> dict[Node, int]:
    """For each node the largest number of products on a way to it, itself included: none of one level needs another."""
    found: dict[Node, int] = {}
    for node in graph.nodes:
        found[node] = max([found[n] for n in node.inputs], default=0) + (node.op is DOT_GENERAL)
    return found


def part_of(node: Node, side: int) -> Part | None:
    """A product as one of several that share its operand `side`; None where the axes that they differ in would have to
    be moved first, or where there is more to its types than shape and dtype."""
    values = (*node.inputs, node)
    plain = all(n.aval.is_plain and not n.aval.weak_type and n.aval.dtype == node.aval.dtype for n in values)
    if not plain or node.context is not None or node.effects or 0 in node.aval.shape:
        return None
    contracted, batch, free = axes_of(node)
    shape, own = node.inputs[1 - side].aval.shape, free[1 - side]
    count = len(own)
    axis = own[0] if own else len(shape) if side == 0 else len(batch[0])
    if own != list(range(axis, axis + count)):
        return None
    numbers = []
    for axes in (contracted, batch):
        after = [a if a < axis else a - count + 1 for a in axes[1 - side]]
        numbers.append((tuple(axes[0]), tuple(after)) if side == 0 else (tuple(after), tuple(axes[1])))
    attrs = node.attrs.replace(dimension_numbers=tuple(numbers))
    return Part(node, side, axis, math.prod(shape[a] for a in own), attrs)


def joined(group: Sequence[Part], mapping: Mapping[Node, Node]) -> tuple[Node, dict[Node, Node]]:
    """One product, and what stands for each of the group. mapping: what stands for their operands."""
    first = group[0]
    side, axis = first.side, first.axis
    others = []
    for part in group:
        other, count = part.node.inputs[1 - side], len(axes_of(part.node)[2][1 - side])
        shape = other.aval.shape
        others.append(reshaped(mapping[other], (*shape[:axis], part.width, *shape[axis + count :])))
    operands = (mapping[first.shared], concatenated(others, axis))
    product = applied(DOT_GENERAL, first.attrs, *operands[:: 1 if side == 0 else -1])
    _, batch, free = axes_of(first.node)
    along = len(batch[0]) + (len(free[0]) if side == 0 else 0)
    slices: dict[Node, Node] = {}
    start = 0
    for part in group:
        starts, counts = [0] * len(product.aval.shape), list(product.aval.shape)
        starts[along], counts[along] = start, part.width
        start += part.width
        slices[part.node] = reshaped(sliced(product, starts, counts, [1] * len(starts)), part.node.aval.shape)
    return product, slices
