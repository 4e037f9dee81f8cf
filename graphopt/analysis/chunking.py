"""Regions that can be computed in blocks, so that their large arrays never exist as a whole.

A region is a set of operations with an axis for each, along which all of them are cut at the same places. What leaves
it is small: results along the axis, which are put together, and sums over the axis. Large arrays that two regions need
are computed in both.

M. N. Rabe, C. Staats, "Self-attention does not need O(n^2) memory", 2021; X. Zhao et al., "AutoChunk: automated
activation chunk for memory-efficient long sequence inference", ICLR 2024.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from jax.extend.core import primitives as p

from graphopt.analysis.axes import IOTA, Partial, along, partial
from graphopt.analysis.intervals import KNOWN
from graphopt.ir.graph import Graph, topological
from graphopt.ir.node import Node
from graphopt.ir.op import CONSTANT, PARAM, PROJECT, STATE, op_of
from graphopt.ops.contract import CONVOLUTION, DOT_GENERAL
from graphopt.ops.make import BROADCAST

CONTRACTIONS = (DOT_GENERAL, CONVOLUTION)

EQUALITIES = (op_of(p.eq_p), op_of(p.ne_p))

SMALL = 4096
"""Bytes of a constant that may stand wherever it is read."""

WINDOW = 500
"""How many operations are looked at, after the last that joined, for one that could."""

NEAR = 4
"""What is at least one part in so many of a large array is large beside it: its mask is, a bit for each element."""


@dataclass(slots=True)
class Region:
    """extent: elements along the axis that is cut. axes: the axis of each member. sums: members that are summed over
    it. results: the members along the axis that are read outside, none of them large. again: large members that are
    read outside, too, and so are computed again there. generated: what depends on no input, and is made where it is
    used, at no cost."""

    extent: int
    axes: dict[Node, int] = field(default_factory=dict)
    sums: dict[Node, Partial] = field(default_factory=dict)
    results: list[Node] = field(default_factory=list)
    again: list[Node] = field(default_factory=list)
    generated: frozenset[Node] = frozenset()

    def __contains__(self, node: Node) -> bool:
        return node in self.axes or node in self.sums

    @property
    def largest(self) -> int:
        """Bytes of the largest array that is cut."""
        return max(node.aval.nbytes for node in self.axes)

    def __iter__(self) -> Iterator[Node]:
        return iter((*self.axes, *self.sums))

    def along(self, node: Node) -> tuple[int | None, ...]:
        """The axes of a member's operands."""
        if node in self.sums:
            return self.sums[node].along
        found = along(node, self.axes[node])
        assert found is not None, "members can be cut along their axes"
        return found

    def has(self, node: Node, axis: int | None) -> bool:
        """Whether an operand that is read along an axis is a member. What is generated may be read otherwise, too."""
        return axis is not None and self.axes.get(node) == axis

    def rows(self) -> float:
        """Of the matrix products in which blocks meet an array that all of them read, the fewest rows that an element
        along the axis is; infinite where there are none. Of those that are summed over the axis, the products."""
        found = math.inf
        for node in self:
            if node.op not in CONTRACTIONS or not contracted_size(node):
                continue
            axes = self.along(node)
            if node in self.sums:
                found = min(found, contracted_size(node) / self.extent)
            elif None in axes:
                whole = node.inputs[axes.index(None)].aval
                free = whole.size // max(1, contracted_size(node))
                found = min(found, node.aval.size / self.extent / max(1, free))
        return found

    def read(self, order: Sequence[Node]) -> list[Node]:
        """What members read from outside, and is not made where it is used."""
        found: dict[Node, None] = {}
        for node in order:
            if node in self:
                found.update((n, None) for n in node.inputs if n not in self.axes and n not in self.generated)
        return list(found)


def contracted_size(node: Node) -> int:
    """How many products are summed for an element of a contraction."""
    assert node.op.flops is not None
    return int(node.op.flops(node.attrs, [n.aval for n in node.inputs], node.avals) // (2 * max(1, node.aval.size)))


def generated(graph: Graph) -> frozenset[Node]:
    """What is made of places and constants alone, and cheaply: masks, and what is put in by them."""
    found: set[Node] = set()
    for node in graph.nodes:
        if node.op is CONSTANT:
            cheap = node.aval.is_plain and node.aval.nbytes <= SMALL
        else:
            cheap = node.op is IOTA or node.op in KNOWN
            cheap = cheap and len(node.avals) == 1 and node.aval.is_plain and found.issuperset(node.inputs)
        if cheap:
            found.add(node)
    return frozenset(found)


def grow(
    graph: Graph, users: Mapping[Node, Sequence[Node]], made: frozenset[Node], seed: Node, axis: int
) -> Region | None:
    """The region around a large array that is cut along an axis; None where it cannot be, or to no avail.

    made: what is generated in the graph."""
    growth = _Growth(graph, made, seed, axis)
    start = last = graph.nodes.index(seed)
    for place, node in enumerate(graph.nodes[start + 1 :], start + 1):
        if growth.visit(node):
            last = place
        elif place - last > WINDOW:
            break
    region = growth.pruned(users)
    return region if region is not None and _is_closed(graph, region) else None


class _Growth:
    """A region that is becoming. reached: members that depend on the large array that it began with, the others being
    their operands. after: what depends on it, too, but cannot be a member."""

    def __init__(self, graph: Graph, made: frozenset[Node], seed: Node, axis: int) -> None:
        self.graph = graph
        self.extent = seed.aval.shape[axis]
        self.enough = seed.aval.nbytes / NEAR
        self.outputs = set(graph.outputs)
        self.generated = made
        self.axes: dict[Node, int] = {}
        self.sums: dict[Node, Partial] = {}
        self.reached = {seed}
        self.after: set[Node] = set()
        added = self.demanded([(seed, axis)])
        self.axes.update(added or {})

    def is_large(self, node: Node) -> bool:
        """Whether an array is one of those that shall not exist as a whole."""
        if len(node.avals) != 1 or node.op in (PARAM, CONSTANT, PROJECT, STATE) or node in self.outputs:
            return False
        return node.aval.is_plain and node.aval.nbytes >= self.enough

    def is_made(self, node: Node) -> bool:
        """Whether an array costs nothing to make where it is used."""
        return node in self.generated or node.op is BROADCAST

    def demanded(self, wanted: Sequence[tuple[Node, int | None]]) -> dict[Node, int] | None:
        """What has to join for operands to be had along these axes: large arrays, those that these are made of.

        None where one of them is a member along another axis, or is not known before the region is done.
        """
        added: dict[Node, int] = {}
        stack = list(wanted)
        while stack:
            node, axis = stack.pop()
            known = self.axes.get(node, added.get(node))
            if known is not None or node in self.after or node in self.sums:
                if (known is None or known != axis) and node not in self.generated:
                    return None
                continue
            if axis is None:
                continue
            if node.aval.shape[axis] != self.extent:
                return None
            if self.is_large(node) or node in self.generated:
                operands = along(node, axis)
                if operands is None:
                    continue  # it is computed before, as a whole, and read in blocks
                added[node] = axis
                stack += zip(node.inputs, operands, strict=True)
        return added

    def visit(self, node: Node) -> bool:
        """Lets a node join that depends on the array, where it can; whether it has joined."""
        if not any(n in self.reached or n in self.after for n in node.inputs):
            return False
        joined = self.joins(node)
        (self.reached if joined else self.after).add(node)
        return joined

    def joins(self, node: Node) -> bool:
        """Whether a node has become a member."""
        if any(n in self.after or n in self.sums for n in node.inputs):
            return False
        if len(node.avals) != 1 or not node.aval.is_plain:
            return False
        if node.op in EQUALITIES and not all(n in self.axes or n.op is CONSTANT for n in node.inputs):
            return False  # what is computed again may be rounded otherwise
        if node.op in CONTRACTIONS and not any(map(self.is_large, (node, *node.inputs))):
            return False
        for axis, size in enumerate(node.aval.shape):
            operands = along(node, axis) if size == self.extent else None
            if operands is None:
                continue
            wanted = list(zip(node.inputs, operands, strict=True))
            added = self.demanded(wanted) if any(n in self.axes and k is not None for n, k in wanted) else None
            if added is not None:
                self.axes.update(added)
                self.axes[node] = axis
                return True
        return self.sums_up(node)

    def sums_up(self, node: Node) -> bool:
        """Whether a node has become one that sums over the axis."""
        if self.is_large(node):
            return False
        for number, operand in enumerate(node.inputs):
            if operand not in self.axes:
                continue
            found = partial(node, number, self.axes[operand])
            added = None if found is None else self.demanded(list(zip(node.inputs, found.along, strict=True)))
            if found is None or added is None:
                return False
            self.axes.update(added)
            self.sums[node] = found
            return True
        return False

    def pruned(self, users: Mapping[Node, Sequence[Node]]) -> Region | None:
        """The large members, what reads them, and what stands between them."""

        def reads_large(node: Node) -> bool:
            return any(n in self.axes and self.is_large(n) for n in node.inputs)

        kept = {node for node in self.sums if reads_large(node)}
        for node in reversed(self.graph.nodes):
            if node in self.axes and (self.is_large(node) or reads_large(node) or any(u in kept for u in users[node])):
                kept.add(node)

        def outside(node: Node, inside: set[Node]) -> bool:
            return node in self.outputs or any(user not in inside for user in users[node])

        small = [n for n in self.axes if n in kept & self.reached and not self.is_large(n) and outside(n, kept)]
        sums = [n for n in self.sums if n in kept]
        if not small and not sums:
            return None
        needed = set(topological((), (*small, *sums), leaves=set(self.graph.nodes) - kept)) & kept
        return Region(
            self.extent,
            {n: axis for n, axis in self.axes.items() if n in needed},
            {n: self.sums[n] for n in sums},
            small,
            [n for n in self.axes if self.is_large(n) and n in needed and outside(n, needed) and not self.is_made(n)],
            self.generated,
        )


def _is_closed(graph: Graph, region: Region) -> bool:
    """Whether no member needs what is only known once others are done, and all operands are cut as they must be."""
    after: set[Node] = set()
    for node in graph.nodes:
        if node not in region:
            if node not in region.generated and any(n in region or n in after for n in node.inputs):
                after.add(node)
            continue
        for operand, axis in zip(node.inputs, region.along(node), strict=True):
            if operand in after or operand in region.sums:
                return False
            if operand in region.axes and region.axes[operand] != axis and operand not in region.generated:
                return False
    return True


def best_region(graph: Graph, seed: Node, cost: Callable[[Region], float]) -> Region | None:
    """Of the regions around a large array, each cut along another axis, the one that costs least."""
    users, made = graph.users(), generated(graph)
    found = (grow(graph, users, made, seed, axis) for axis, size in enumerate(seed.aval.shape) if size > 1)
    return min((region for region in found if region is not None), key=cost, default=None)
