"""Results in square blocks, for bodies that read an operand across: what is transposed, say.

Row by row such a body takes one element of each line of memory that it touches, and has to fetch the line again for the
next row. In a block all that is fetched is used before it is lost.

Body:
    %1: f32[4096,1000] = transpose[permutation=(1, 0)](%0)
Loop program:
    parallel i1 < 1024:
      serial j3 < 64:
        vector j2 < 64 where ...:
          x4: f32 = in0[... + 1000 * j3 + j2]
          tile0[65 * j3 + j2] = x4
      serial j2 < 64 where ...:
        vector j3 < 64:
          v5: f32 = tile0[65 * j3 + j2]
          out0[... + 4096 * j2 + j3] = v5
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

from jax.extend.core import primitives as p

from graphopt.analysis.access import Indices, Within
from graphopt.analysis.derive import Derivation
from graphopt.analysis.writing import STRIDED, TooLargeError
from graphopt.ir.graph import Graph
from graphopt.ir.index import Index, delinear, linear, variable
from graphopt.ir.loop import SERIAL, VECTOR, Buffer, Load, Store, Value
from graphopt.ir.node import Node
from graphopt.ir.op import PARAM, op_of

TRANSPOSE = op_of(p.transpose_p)

SIDE, WIDE = 32, 64
"""Elements of a block along each of its two axes, and where they are of four bytes at most: the fewer loops begin. Of
1000x1000 numbers a sum with something transposed takes 0.21 ms in blocks of 32, and 0.19 in blocks of 64."""

OTHERS = (16, 32, 64)
"""Other lengths, which are measured where a program is tuned."""

MOST = 4
"""Tiles of a kernel at most: they are on a thread's stack."""


def crossed_axes(body: Graph) -> Iterator[int]:
    """The axes of the results along which operands may lie that are transposed in a body."""
    shape = body.outputs[0].aval.shape
    if any(node.op is TRANSPOSE for node in body.nodes) and {n.aval.shape for n in body.outputs} == {shape}:
        yield from (axis for axis in range(len(shape) - 1) if shape[axis] >= SIDE and shape[-1] >= SIDE)


def sides(body: Graph, extents: tuple[int, int], every: bool) -> Iterator[int]:
    """How long the sides of blocks may be that are cut of axes so long. every: also those that are only measured."""
    narrow = max((n.aval.dtype.itemsize for n in body.params), default=4) <= 4
    side = WIDE if narrow and min(extents) >= WIDE else SIDE
    yield side
    if every:
        yield from (other for other in OTHERS if other != side and min(extents) >= other)


def write_in_blocks(derivation: Derivation, axis: int, side: int) -> None:
    """One phase over the other axes and blocks of `axis` and the last one, which computes and stores all outputs.

    side: elements of a block along each of the two.
    """
    body = derivation.body
    shape = body.outputs[0].aval.shape
    last = len(shape) - 1
    others = [k for k in range(last) if k != axis]
    leading = (*(shape[k] for k in others), *(-(-shape[k] // side) for k in (axis, last)))

    def write(index: Index) -> None:
        *found, outer, inner = delinear(index, leading)
        block = Square(
            derivation,
            Step(derivation.name("j"), side, outer, shape[axis]),
            Step(derivation.name("j"), side, inner, shape[last]),
        )
        at = dict(zip(others, found, strict=True)) | {axis: block.outer.at, last: block.inner.at}
        place = tuple(at[k] for k in range(len(shape)))

        def store() -> None:
            for node, buffer in zip(body.outputs, derivation.outputs, strict=True):
                derivation.add(Store(buffer, linear(place, shape), derivation.value(node, place), node))

        block.loops(block.outer, block.inner, store)

    derivation.phase(math.prod(leading), write)


class Step:
    """One of a block's two loops."""

    def __init__(self, name: str, side: int, block: Index, extent: int) -> None:
        """block: the number of the block, of `side` elements of an axis of `extent`."""
        self.name, self.side = name, side
        self.step = variable(name, 0, side - 1)
        self.at = block * side + self.step
        self.within: Within = ((self.at, 0, extent),) if extent % side else ()


class Square:
    """What is read across in a block is first copied to a tile, row by row as it lies in memory.

    The tile's rows are longer by one element than the block's, so that a column of it is spread over the cache.
    """

    def __init__(self, derivation: Derivation, outer: Step, inner: Step) -> None:
        self.derivation = derivation
        self.side = outer.side
        self.outer, self.inner = outer, inner
        self.tiles = 0
        derivation.columns = self

    def loops(self, outer: Step, inner: Step, write: Callable[[], None], vector: bool = True) -> None:
        """Both loops. vector: whether what is in them may come from tiles."""
        d = self.derivation
        d.loop_over(
            outer.name,
            self.side,
            SERIAL,
            lambda: d.loop_over(inner.name, self.side, VECTOR, write, inner.within, vector),
            outer.within,
        )

    def keeps(self, node: Node, at: Indices) -> bool:
        """Whether an operand is read across."""
        if node.op is not PARAM:
            return False
        place = linear(at, node.aval.shape)
        steps = [place.coefficient(side.name) for side in (self.outer, self.inner)]
        return steps[0] == 1 and (steps[1] or 0) >= STRIDED and self.derivation.repeats(self.outside(at)) > 0

    def outside(self, at: Indices) -> frozenset[str]:
        """The variables of indices other than those of the loops."""
        return frozenset(name for index in at for name in index.variables()) - {self.outer.name, self.inner.name}

    def element(self, node: Node, at: Indices) -> Value:
        """One element of such an operand, from its tile."""
        d = self.derivation
        tile = d.before_vector(("tile", node, at), self.outside(at), lambda: self.tile(node, at))
        return d.let(Load(tile, self.place), tile.dtype)

    @property
    def place(self) -> Index:
        """Where in a tile the element of both loops is."""
        return self.inner.step * (self.side + 1) + self.outer.step

    def tile(self, node: Node, at: Indices) -> Buffer:
        """A tile with what the block needs of an operand."""
        d = self.derivation
        self.tiles += 1
        if self.tiles > MOST:
            raise TooLargeError
        tile = d.new_tile(node.aval.dtype, self.side * (self.side + 1))
        source = Load(d.inputs[node], linear(at, node.aval.shape))

        def copy() -> None:
            d.add(Store(tile, self.place, d.let(source, node.aval.dtype, node, "x")))

        self.loops(self.inner, self.outer, copy, vector=False)
        return tile
