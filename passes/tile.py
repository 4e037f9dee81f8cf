"""Tiles: a value that two loops compute of the same elements is computed by the first of them, and kept for the second.

A softmax needs the exponentials of a row for their sum, and again to divide them by it. They are not worth a trip
through memory, but a row of them stays in a core's first cache. What is as cheap as that is computed again.

Before:
    parallel i1 < 8:
      a2: f32 = 0.0
      reduction r3 < 100:
        x4: f32 = in0[100 * i1 + r3]
        v5: f32 = exp(x4)
        a2 add= v5
      serial j6 < 100:
        x7: f32 = in0[100 * i1 + j6]
        v8: f32 = exp(x7)
        v9: f32 = div(v8, a2)
        out0[100 * i1 + j6] = v9
After:
    tile tile0: f32[100]
    parallel i1 < 8:
      a2: f32 = 0.0
      serial r3 < 100:
        x4: f32 = in0[100 * i1 + r3]
        v5: f32 = exp(x4)
        tile0[r3] = v5
        a2 add= v5
      serial j6 < 100:
        v8: f32 = tile0[j6]
        v9: f32 = div(v8, a2)
        out0[100 * i1 + j6] = v9
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from graphopt.analysis.columns import TILES
from graphopt.analysis.common import Numbering, Place, statements_of
from graphopt.analysis.kernel_time import DIVIDED, GUESSED, MOVE, Cost
from graphopt.analysis.order import blocks_of, reads_of
from graphopt.ir.index import Index, linear, variable
from graphopt.ir.loop import (
    SERIAL,
    Apply,
    Block,
    Buffer,
    For,
    If,
    Let,
    Load,
    LoopProgram,
    Position,
    Statement,
    Store,
    When,
    While,
)
from graphopt.ir.node import Node


@dataclass(frozen=True, slots=True)
class Tiled:
    """A loop program with tiles.

    kept: what is in each new tile, as text. saved: how many elements of a node of the body are no longer computed.
    """

    program: LoopProgram
    kept: tuple[str, ...] = ()
    saved: Mapping[Node, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Tile:
    """Keeps in tiles what loops beside each other compute alike, where it takes longer than to store and to load it.

    cost: nanoseconds of an element of a scalar operation. most: bytes of all tiles of a kernel; without any, nothing is
    kept.
    """

    cost: Cost = field(repr=False)
    most: int = TILES
    name = "tile"

    def run(self, program: LoopProgram) -> Tiled:
        """The program with tiles: it computes the same bits."""
        tiler = _Tiler(self, program)
        for phase in program.phases:
            tiler.block(phase.body, phase.extent)
        if not tiler.tiles:
            return Tiled(program)
        phases = [replace(phase, body=tiler.rewritten(phase.body)) for phase in program.phases]
        buffers = (*program.buffers, *tiler.tiles.values())
        return Tiled(replace(program, buffers=buffers, phases=tuple(phases)), tuple(tiler.kept), tiler.saved)


class _Tiler:
    def __init__(self, options: Tile, program: LoopProgram) -> None:
        self.options = options
        own = [buffer for buffer in program.buffers if buffer.role == "tile"]
        # A larger one is for products, which go through it once: it is in the second cache whatever there is besides.
        self.left = options.most - sum(tile.nbytes for tile in own if tile.nbytes <= options.most)
        self.numbers = len(own)
        self.tiles: dict[Place, Buffer] = {}
        self.changed: dict[int, tuple[Statement, ...]] = {}  # by the id of a statement what stands in its place
        self.stored: set[int] = set()  # the ids of loops that store to tiles
        self.kept: list[str] = []
        self.saved: defaultdict[Node, float] = defaultdict(float)

    def block(self, block: Block, times: float) -> None:
        """Finds what loops of a block compute alike, and in the blocks inside of it. times: how often it is run."""
        if sum(isinstance(statement, For) for statement in block.statements) > 1:
            numbering = Numbering()
            first: dict[object, Place] = {}
            for statement in block.statements:
                if isinstance(statement, For):
                    # What loops around this block have in common with others is stored or gone already.
                    found = [p for p in numbering.places(statement) if id(p.let) not in self.changed]
                    self.loop(statement, [(p, first[p.key]) for p in found if p.key in first], times)
                    for place in found:
                        first.setdefault(place.key, place)
                numbering.passed(statement)
        for statement in block.statements:
            again = statement.extent if isinstance(statement, For) else GUESSED if isinstance(statement, While) else 1
            for inner in blocks_of(statement):
                self.block(inner, times * again)

    def loop(self, loop: For, common: Sequence[tuple[Place, Place]], times: float) -> None:
        """Takes from tiles what a loop has in common with those before it, as far as that pays."""
        users: defaultdict[str, set[str | None]] = defaultdict(set)
        for statement in statements_of(loop) if common else ():
            user = statement.local.name if isinstance(statement, Let) else None
            for name in reads_of(statement, inside=False):
                users[name].add(user)
        gone: set[str | None] = set()  # values that nobody needs any more, or that come from tiles
        for number in reversed(range(len(common))):
            place, before = common[number]
            if users[place.name] <= gone:
                self.drop(place, (), times)
                gone.add(place.name)
                continue
            cone: set[str | None] = {place.name}
            saved = self.time(place.let)
            for other, _ in reversed(common[:number]):
                if users[other.name] <= gone | cone:
                    cone.add(other.name)
                    saved += self.time(other.let)
            if saved > 2 * MOVE * place.let.local.dtype.itemsize and self.has_tile(before):
                gone.add(place.name)
                tile = self.tiles[before]
                self.drop(place, (replace(place.let, value=Load(tile, _at(place))),), times)

    def has_tile(self, place: Place) -> bool:
        """Whether there is a tile with the values of a place, or now one that they are stored in."""
        if place in self.tiles:
            return True
        dtype = place.let.local.dtype
        tile = Buffer(f"tile{self.numbers + len(self.tiles)}", dtype, math.prod(place.extents), "tile")
        if self.left < tile.nbytes:
            return False
        self.left -= tile.nbytes
        self.tiles[place] = tile
        self.changed[id(place.let)] = (place.let, Store(tile, _at(place), place.let.local, place.let.node))
        self.stored |= {id(loop) for loop in place.loops}
        value = place.let.value
        what = value.op.name if isinstance(value, Apply) else "elements"
        self.kept.append(f"{what} of {tile.size} at a time, {tile.nbytes} bytes")
        return True

    def drop(self, place: Place, statements: tuple[Statement, ...], times: float) -> None:
        """Replaces a value."""
        self.changed[id(place.let)] = statements
        if place.let.node is not None:
            self.saved[place.let.node] += times * math.prod(place.extents)

    def time(self, let: Let) -> float:
        """Nanoseconds of one element."""
        value = let.value
        if isinstance(value, Apply):
            return self.options.cost(value.op, max((v.dtype for v in value.values), key=lambda d: d.itemsize))
        if isinstance(value, Load | Position):
            return DIVIDED * value.at.divisions()
        return 0.0

    def rewritten(self, block: Block) -> Block:
        """A block with what has changed in it."""
        return Block([new for old in block.statements for new in self.changed.get(id(old), (self.inside(old),))])

    def inside(self, statement: Statement) -> Statement:
        if isinstance(statement, For):
            kind = SERIAL if id(statement) in self.stored else statement.kind
            return replace(statement, kind=kind, body=self.rewritten(statement.body))
        if isinstance(statement, If):
            then, otherwise = self.rewritten(statement.then), self.rewritten(statement.otherwise)
            return replace(statement, then=then, otherwise=otherwise)
        if isinstance(statement, While):
            return replace(statement, test=self.rewritten(statement.test), body=self.rewritten(statement.body))
        return replace(statement, then=self.rewritten(statement.then)) if isinstance(statement, When) else statement


def _at(place: Place) -> Index:
    """Where in its tile the value is."""
    return linear(tuple(variable(loop.name, 0, loop.extent - 1) for loop in place.loops), place.extents)
