"""Register blocks: a few rows and a few terms of their sums at a time, where rows are combined with what all share.

Distances of all pairs, say: with the results of a row side by side in a tile, each term is added to all of them, so
that each is loaded and stored again for every term, and what the rows share is loaded for each row. In a block it is
loaded once for some rows, and the results once for some terms. (Unroll-and-jam; Callahan, Cocke and Kennedy, 1988.)
Terms are added in the same order.

Before:
    parallel i1 < 1000, at least 1 at a time:
      vector l2 < 1008 where 0 <= l2 < 1000:
        tile0[l2] = 0.0
      reduction r3 < 64:
        x4: f32 = in0[64 * i1 + r3]
        vector l2 < 1008 where 0 <= l2 < 1000:
          v5: f32 = tile0[l2]
          x6: f32 = scratch0[1008 * r3 + l2]
          v7: f32 = sub(x4, x6)
          v8: f32 = abs(v7)
          v9: f32 = add(v5, v8)
          tile0[l2] = v9
      vector l2 < 1008 where 0 <= l2 < 1000:
        v10: f32 = tile0[l2]
        out0[1000 * i1 + l2] = v10
After, with two rows and two terms:
    parallel i1 < 500, at least 1 at a time:
      vector l2 < 1008:
        tile0[l2] = 0.0
        tile1[l2] = 0.0
      reduction r3 < 32:
        x4r0t0: f32 = in0[128 * i1 + 2 * r3]
        x4r0t1: f32 = in0[128 * i1 + 2 * r3 + 1]
        x4r1t0: f32 = in0[128 * i1 + 2 * r3 + 64]
        x4r1t1: f32 = in0[128 * i1 + 2 * r3 + 65]
        vector l2 < 1008:
          v5r0t0: f32 = tile0[l2]
          v5r1t0: f32 = tile1[l2]
          x6t0: f32 = scratch0[2016 * r3 + l2]
          v7r0t0: f32 = sub(x4r0t0, x6t0)
          v7r1t0: f32 = sub(x4r1t0, x6t0)
          ...
          x6t1: f32 = scratch0[2016 * r3 + l2 + 1008]
          v7r0t1: f32 = sub(x4r0t1, x6t1)
          v7r1t1: f32 = sub(x4r1t1, x6t1)
          ...
          tile0[l2] = v9r0t1
          tile1[l2] = v9r1t1
      vector l2 < 1008 where 0 <= l2 < 1000:
        v10r0: f32 = tile0[l2]
        out0[2000 * i1 + l2] = v10r0
      vector l2 < 1008 where 0 <= l2 < 1000:
        v10r1: f32 = tile1[l2]
        out0[2000 * i1 + l2 + 1000] = v10r1
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

from graphopt.analysis.columns import TILES
from graphopt.analysis.common import statements_of
from graphopt.analysis.copies import Copy, depending, phases_of_blocks, places_in_block
from graphopt.analysis.kernel_time import Cost
from graphopt.analysis.order import indices_of, reads_of
from graphopt.ir.index import Index, number, variable
from graphopt.ir.loop import (
    REDUCTION,
    Apply,
    Block,
    Buffer,
    Bypass,
    For,
    Let,
    Load,
    LoopProgram,
    Phase,
    Statement,
    Store,
    Value,
)

ROWS, TERMS = 4, 4
"""Rows and terms of a block. On a Zen 5 sums of 64 squares of differences, a million of them, take a core 2.5 ms with
one of each, 2.5 with eight terms, 1.2 with two rows, 0.9 with two terms of four rows, 0.7 with four of four, and 1.3
with eight of four, which fill more than the registers there are."""

LEAST = 16
"""Blocks of rows at least: fewer would be little to share."""

CHEAP = 0.1
"""Nanoseconds of an operation that takes too long for loads and stores to matter: a function has many constants, which
need the registers themselves."""

MOST = 8
"""Statements of the loop over the results of a row at most: more need the registers themselves."""


@dataclass(frozen=True)
class RegisterBlock:
    """Combines rows with what they share in blocks.

    cost: nanoseconds of an element of a scalar operation. rows, terms: of a block. least: blocks at least. most: bytes
    of all tiles of a kernel.
    """

    cost: Cost = field(repr=False)
    rows: int = ROWS
    terms: int = TERMS
    least: int = LEAST
    most: int = TILES
    name = "registers"

    def run(self, program: LoopProgram) -> tuple[LoopProgram, tuple[str, ...]]:
        """The program with blocks, which computes the same bits, and what they are of, as text."""
        tiles = [buffer for buffer in program.buffers if buffer.role == "tile"]
        phases: list[Phase] = []
        said = []
        for phase in program.phases:
            writer = _Writer(self, phase, tiles)
            if not writer.is_worthwhile():
                phases.append(phase)
                continue
            phases += writer.phases()
            tiles += writer.new
            said.append(f"{self.rows} rows, {self.terms} terms of each at a time")
        if not said:
            return program, ()
        others = tuple(buffer for buffer in program.buffers if buffer.role != "tile")
        return replace(program, buffers=(*others, *tiles), phases=tuple(phases)), tuple(said)


class _Writer:
    """The blocks of one phase."""

    def __init__(self, options: RegisterBlock, phase: Phase, tiles: Sequence[Buffer]) -> None:
        """tiles: those that there are."""
        self.options = options
        self.phase = phase
        self.nests = {id(s) for top in phase.body.statements for s in statements_of(top) if self.is_nest(s)}
        head = phase.body.statements[: self.end(phase.body)] if self.nests else []
        self.head = [s for top in head for s in self.before_last(top)]
        touched = {name for s in self.head for name in (*reads_of(s, inside=False), *_written(s))}
        own = [tile for tile in tiles if tile.name in touched]
        self.new: list[Buffer] = []
        names = depending(phase.body, {phase.name})
        self.copies = []
        for row, place in enumerate(places_in_block(phase, options.rows)):
            mine = dict(zip(own, own, strict=True))
            for tile in own if row else ():
                mine[tile] = replace(tile, name=f"tile{len(tiles) + len(self.new)}")
                self.new.append(mine[tile])
            self.copies.append(Copy(f"r{row}", names, phase.name, place, mine))
        self.fits = sum(tile.nbytes for tile in (*tiles, *self.new)) <= options.most

    def before_last(self, top: Statement) -> Iterator[Statement]:
        """The statements in one, itself included, that stand before the last nest of their block, or in it."""
        yield top
        if isinstance(top, For):
            inside = top.body.statements
            end = len(inside) if id(top) in self.nests or not self.has_nest(top) else self.end(top.body)
            for statement in inside[:end]:
                yield from self.before_last(statement)

    def is_worthwhile(self) -> bool:
        """Whether there is something to share, and all that is to be done several times can be."""
        phase = self.phase
        if (
            not self.nests
            or not self.fits
            or phase.before.statements
            or phase.extent < self.options.least * self.options.rows
        ):
            return False
        if not all(
            isinstance(s, Let | Store | For | Bypass) for top in phase.body.statements for s in statements_of(top)
        ):
            return False
        if any(phase.name in at.variables() for s in self.head if isinstance(s, For) for at, _, _ in s.within):
            return False
        names = {s.local.name for top in phase.body.statements for s in statements_of(top) if isinstance(s, Let)}
        if any(names & set(at.variables()) for at in indices_of(phase.body)):
            return False
        return all(self.shares(s) for top in phase.body.statements for s in statements_of(top) if id(s) in self.nests)

    def is_nest(self, loop: Statement) -> bool:
        """Whether a loop adds a term to each element of tiles, one by one, with few and cheap operations."""
        if not isinstance(loop, For) or loop.kind != REDUCTION or loop.within or loop.extent < 2 * self.options.terms:
            return False
        *first, inner = loop.body.statements
        if not isinstance(inner, For) or not all(isinstance(s, Let) for s in first):
            return False
        statements = inner.body.statements
        if len(statements) > MOST or not all(isinstance(s, Let | Store) for s in statements):
            return False
        stored = {s.buffer for s in statements if isinstance(s, Store)}
        lane = variable(inner.name, 0, inner.extent - 1)
        for statement in (*first, *statements):
            value = statement.value if isinstance(statement, Let) else None
            if isinstance(value, Apply) and max(self.options.cost(value.op, v.dtype) for v in value.values) >= CHEAP:
                return False
            if isinstance(value, Load) and value.buffer in stored and (value.at != lane or statement in first):
                return False
            if isinstance(statement, Store) and (statement.buffer.role != "tile" or statement.at != lane):
                return False
        return True

    def shares(self, nest: Statement) -> bool:
        """Whether all rows of a block load the same elements for the results of a row, besides what is in tiles."""
        assert isinstance(nest, For)
        inner = nest.body.statements[-1]
        assert isinstance(inner, For)
        loads = [s.value for s in inner.body.statements if isinstance(s, Let) and isinstance(s.value, Load)]
        places = [load.at for load in loads if load.buffer.role != "tile"]
        return bool(places) and all(len({copy.index(at) for copy in self.copies}) == 1 for at in places)

    def phases(self) -> Iterator[Phase]:
        """The phase over blocks, and beside it one over the rows that are left."""
        return phases_of_blocks(self.phase, self.options.rows, self.block(self.phase.body))

    def has_nest(self, statement: Statement) -> bool:
        return any(id(s) in self.nests for s in statements_of(statement))

    def end(self, block: Block) -> int:
        """How many statements of a block stand before its last nest, that included."""
        return max(k + 1 for k, s in enumerate(block.statements) if self.has_nest(s))

    def block(self, block: Block) -> Block:
        """A block with rows side by side as far as they share something, and one after the other from there."""
        end = self.end(block)
        found: list[Statement] = []
        for statement in block.statements[:end]:
            found += self.together(statement)
        for copy in self.copies:
            found += (copy.statement(s) for s in block.statements[end:])
        return Block(found)

    def together(self, statement: Statement) -> Iterator[Statement]:
        """A statement, of all rows."""
        if isinstance(statement, For) and self.has_nest(statement) and id(statement) not in self.nests:
            yield replace(statement, body=self.block(statement.body))
        elif isinstance(statement, For):
            body = Block([new for s in statement.body.statements for new in self.together(s)])
            whole = _whole(replace(statement, body=body))
            yield from _unrolled(whole, self.options.terms) if id(statement) in self.nests else [whole]
        elif self.copies[0].is_own(statement):
            yield from self.of_each(statement)
        else:
            yield statement

    def of_each(self, statement: Statement) -> Iterator[Statement]:
        """A statement of each row; once where all load the same."""
        first: Let | None = None
        for copy in self.copies:
            new = copy.statement(statement)
            if isinstance(new, Let) and isinstance(new.value, Load) and first is not None and new.value == first.value:
                copy.known[new.local.name] = first.local
                continue
            first = first or (new if isinstance(new, Let) else None)
            yield new


def _written(statement: Statement) -> Iterator[str]:
    if isinstance(statement, Store | Bypass):
        yield statement.buffer.name


def _whole(loop: For) -> For:
    """A loop over all lanes of tiles, also over those that nobody needs, where what it loads for them is there."""
    if not loop.within:
        return loop
    for statement in loop.body.statements:
        if isinstance(statement, Store) and statement.buffer.role != "tile":
            return loop
        load = statement.value if isinstance(statement, Let) else None
        if isinstance(load, Load) and not (load.at.low >= 0 and load.at.high < load.buffer.size):
            return loop
    return replace(loop, within=())


def _unrolled(nest: For, terms: int) -> Iterator[Statement]:
    """A nest with several terms for each element of its tiles at a time."""
    blocks, left = divmod(nest.extent, terms)
    first = variable(nest.name, 0, blocks - 1) * terms
    body = Block(list(_terms(nest, [first + k for k in range(terms)], 0)))
    yield replace(nest, extent=blocks, body=body)
    if left:
        yield from _terms(nest, [number(blocks * terms + k) for k in range(left)], terms)


def _terms(nest: For, places: Sequence[Index], start: int) -> Iterator[Statement]:
    """Terms, each added to what the one before it has left. start: the number of the first one."""
    names = depending(nest.body, {nest.name})
    copies = [Copy(f"t{start + k}", names, nest.name, place) for k, place in enumerate(places)]
    *first, inner = nest.body.statements
    assert isinstance(inner, For)
    for statement in first:
        yield from (copy.statement(statement) for copy in (copies if copies[0].is_own(statement) else copies[:1]))
    body: list[Statement] = []
    kept: dict[Buffer, Value] = {}  # what tiles have now
    stores: dict[Buffer, Store] = {}
    for copy in copies:
        for statement in inner.body.statements:
            if not copy.is_own(statement) and copy is not copies[0]:
                continue
            new = copy.statement(statement)
            if isinstance(new, Store):
                kept[new.buffer], stores[new.buffer] = new.value, new
            elif isinstance(new, Let) and isinstance(new.value, Load) and new.value.buffer in kept:
                copy.known[new.local.name] = kept[new.value.buffer]
            else:
                body.append(new)
    yield replace(inner, body=Block([*body, *stores.values()]))
