"""What computing a region in blocks costs and gains: memory that is new, memory that is in a cache."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial

import jax.numpy as jnp

from graphopt.analysis.chunking import CONTRACTIONS, NEAR, Region, contracted_size
from graphopt.analysis.masks import Masked, masked
from graphopt.analysis.xla_rows import SLOW_SERIES
from graphopt.analysis.xla_time import SERIES
from graphopt.ir.graph import Graph
from graphopt.ir.node import Node
from graphopt.ir.op import PARAM
from graphopt.ops.control import SCAN, Scan

NEW, AGAIN, CACHED = 0.25, 0.1, 0.03
"""Nanoseconds to write and read a byte of memory that is new to the process, that was used before, that is in a cache
(measured on two cores: fresh pages 4 to 7 GB/s)."""

NARROW = 4
"""How many times as large an array of bfloat16 must be since jax 0.11, whose XLA has quick functions for its products
and softmax: with a mask, or by sigmoids, attention of 4x1024 takes 1.0 to 1.2 times as long in blocks, 8x2048 0.9."""

FLOP = 1 / 400
"""Nanoseconds of one operation in a matrix product."""


@dataclass(frozen=True, slots=True)
class Memory:
    """large: bytes of an array from which on it leaves the caches. block: bytes of one of which they hold a few.
    rows: how many rows a block has at least where it meets an array that all blocks read. piece: nanoseconds that each
    of several pieces of a region takes besides: the columns that it reads are brought together."""

    large: int
    block: int
    rows: int
    piece: float

    def contractions(self, graph: Graph) -> list[Node]:
        """The contractions with results that are large, also beside the largest one of the graph."""
        found = [n for n in graph.nodes if n.op in CONTRACTIONS and n.aval.is_plain and self.is_large(n)]
        enough = max((n.aval.nbytes for n in found), default=0) / NEAR
        return [node for node in found if node.aval.nbytes >= enough]

    def is_large(self, node: Node) -> bool:
        """Whether a contraction's result is large, for XLA."""
        is_narrow = SERIES not in SLOW_SERIES and any(n.aval.dtype == jnp.bfloat16 for n in node.inputs)
        return bool(node.aval.nbytes >= self.large * (NARROW if is_narrow else 1))

    def size(self, region: Region) -> tuple[int, int]:
        """Elements of a block along the axis that is cut, and how many are left over after the last whole one."""
        least = max(1, region.extent * self.block // region.largest, math.ceil(self.rows / region.rows()))
        count = least
        if region.rows() < math.inf:
            sizes = [size for k in range(6) if (size := least << k) < region.extent]
            count = min(sizes, key=partial(self.loop, region), default=least)
        for divisor in range(min(count, region.extent), count // 2, -1):
            if region.extent % divisor == 0:
                return divisor, 0
        return count, region.extent % count

    def masked(self, region: Region, order: Sequence[Node]) -> Masked | None:
        """What a mask leaves out of a region, where that pays."""

        def cost(products: Sequence[Node], share: float, pieces: int) -> float:
            return _flops(products) * FLOP * share + pieces * self.piece

        return masked(region, order, 2 * self.rows, cost)

    def loop(self, region: Region, count: int) -> float:
        """Nanoseconds that a loop over blocks of `count` takes for memory: what every block reads as a whole, what is
        summed over the blocks, and the large arrays, in a cache or not.

        Where nothing is read again, blocks may be as small as they can be, and what is in them can be cut once more.
        """
        whole = {n for m in region for n, axis in zip(m.inputs, region.along(m), strict=True) if axis is None}
        read = sum(n.aval.nbytes * (AGAIN if n.aval.nbytes >= self.large else CACHED) for n in whole if n not in region)
        moved = read + sum(2 * node.aval.nbytes * CACHED for node in region.sums)
        fits = region.rows() == math.inf or region.largest * count <= self.block * region.extent
        return moved * (region.extent / count) + 2 * region.largest * (CACHED if fits else AGAIN)

    def region(self, region: Region) -> float:
        """By which regions are compared: nanoseconds that one takes beside what it computes, its loop and what others
        will compute again, for each array that it keeps from existing as a whole."""
        loop = self.loop(region, self.size(region)[0])
        total = 2 * (loop + _flops(region) * FLOP) if region.again else loop
        return total / sum(node.aval.nbytes * NEAR >= region.largest for node in region.axes)

    def graph(self, graph: Graph, rate: float) -> float:
        """Nanoseconds that the contractions of a graph are expected to take, with the large arrays that they read and
        write. rate: for a byte of those."""
        total = 0.0
        arrays: dict[Node, None] = {}
        for node in graph.nodes:
            if node.op is SCAN:
                scan = Scan.of(node)
                total += self.graph(scan.body, AGAIN) * scan.length
                # Results that are put together block by block are filled with zeros before.
                total += sum(aval.nbytes * rate for aval in node.avals if aval.nbytes >= self.large)
            elif node.op in CONTRACTIONS:
                total += _flops([node]) * FLOP
                arrays.update(dict.fromkeys(n for n in (node, *node.inputs) if n.op is not PARAM))
        return total + sum(n.aval.nbytes * (rate if n.aval.nbytes >= self.large else CACHED) for n in arrays)


def _flops(nodes: Iterable[Node]) -> int:
    return sum(2 * n.aval.size * contracted_size(n) for n in nodes if n.op in CONTRACTIONS)
