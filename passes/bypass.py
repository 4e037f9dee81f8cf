"""Bypassing the caches: rows of a large result are put together in a tile, and go to memory line by line from there.

A store to a line of memory that is in no cache reads the line first, though all of it is written over, and pushes
another line out. What is large is in no cache any more when it is read again. (Non-temporal stores: Intel 64 and IA-32
Architectures Optimization Reference Manual, "Cacheability Control".) On two cores of a Zen 5, x*2+1 takes half the time
on 4 MiB, and seven tenths on 16. On a Zen 4 with 32 MiB of shared cache 4 and 8 MiB take 1.3 to 1.8 times as long, and
together with another that reads the result 1.5 times; 16 take as long or a little less. So it is done for what the
shared cache has no room for.

Before:
    parallel i1 < 4096:
      a2: f32 = 0.0
      reduction r3 < 1024:
        x4: f32 = in0[1024 * i1 + r3]
        a2 add= x4
      serial j5 < 1024:
        x6: f32 = in0[1024 * i1 + j5]
        v7: f32 = sub(x6, a2)
        out0[1024 * i1 + j5] = v7
After:
    tile tile0: f32[1024]
    parallel i1 < 4096:
      a2: f32 = 0.0
      reduction r3 < 1024:
        x4: f32 = in0[1024 * i1 + r3]
        a2 add= x4
      serial j5 < 1024:
        x6: f32 = in0[1024 * i1 + j5]
        v7: f32 = sub(x6, a2)
        tile0[j5] = v7
      out0[1024 * i1 ...+ 1024] = tile0, past the caches
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace

from graphopt.analysis.columns import TILES
from graphopt.analysis.machine import FRESH
from graphopt.analysis.order import reads_of, writes_of
from graphopt.ir.index import Index, Variable, variable
from graphopt.ir.loop import Block, Buffer, Bypass, For, LoopProgram, Statement, Store, While
from graphopt.passes.split import Splitter, is_straight

LARGE = 3 << 22
"""Bytes of a result from which on most shared caches have no room for it and what it is made of. From FRESH on its
memory is new: the system fills each page with zeros just before, and the page is in the caches."""

LEAST, MOST = 512, 1 << 14
"""Bytes of a row: what is written in pieces has many ends, at which lines are written in part, and a long one pushes
what else there is out of the first cache."""

WIDTH = 1024
"""Elements of a block, where a phase has no rows."""


@dataclass(frozen=True)
class BypassCaches:
    """Writes rows of large results past the caches. large, least: bytes of a result and of a row that it is done for.
    width: elements of a row where there are none."""

    large: int = LARGE
    least: int = LEAST
    width: int = WIDTH
    name = "bypass"

    def run(self, program: LoopProgram) -> tuple[LoopProgram, tuple[str, ...]]:
        """The program with rows that bypass the caches, which computes the same bits, and what they are of, as text."""
        wanted = self.wanted(program)
        if not wanted:
            return program, ()
        writer = _Writer(wanted, self.least, [buffer for buffer in program.buffers if buffer.role == "tile"])
        phases = []
        for phase in program.phases:
            stores = [s for s in phase.body.statements if isinstance(s, Store) and s.buffer in wanted]
            if stores and is_straight(phase) and phase.extent >= self.width:
                phase, _ = Splitter(phase, 0, self.width).split([phase.body.statements])
            phases.append(replace(phase, body=writer.block(phase.body)))
        if not writer.said:
            return program, ()
        others = tuple(buffer for buffer in program.buffers if buffer.role != "tile")
        return replace(program, buffers=(*others, *writer.tiles), phases=tuple(phases)), tuple(writer.said)

    def wanted(self, program: LoopProgram) -> set[Buffer]:
        """Large results that one statement writes and none reads."""
        same = {buffer for pair in program.in_place for buffer in pair}
        statements = [s for phase in program.phases for s in (*phase.before.statements, *phase.body.statements)]
        read = {name for s in statements for name in reads_of(s)}
        written = Counter(name for s in statements for name in writes_of(s))
        return {
            buffer
            for buffer in program.buffers
            if buffer.role == "out"
            and self.large <= buffer.nbytes < FRESH
            and buffer not in same
            and buffer.name not in read
            and written[buffer.name] == 1
        }


class _Writer:
    """Blocks with rows that go past the caches."""

    def __init__(self, wanted: set[Buffer], least: int, tiles: list[Buffer]) -> None:
        """wanted: what is written so. least: bytes of a row. tiles: those that there are; more are added."""
        self.wanted = wanted
        self.least = least
        self.tiles = tiles
        self.said: list[str] = []

    def block(self, block: Block) -> Block:
        """A block with what is written past the caches in it."""
        return Block([new for statement in block.statements for new in self.statement(statement)])

    def statement(self, statement: Statement) -> Iterator[Statement]:
        """A statement, and the rows that it has put together."""
        if not isinstance(statement, For):
            yield statement
        elif any(isinstance(s, For | While) for s in statement.body.statements):
            yield replace(statement, body=self.block(statement.body))
        else:
            found = [bypass for s in statement.body.statements if (bypass := self.of(s, statement)) is not None]
            tiles = {bypass.buffer: bypass.tile for bypass in found}
            yield replace(statement, body=Block([_to_tile(s, statement, tiles) for s in statement.body.statements]))
            yield from found

    def of(self, store: Statement, loop: For) -> Bypass | None:
        """What writes a loop's row past the caches, if a statement of it stores one; its tile is new."""
        if not isinstance(store, Store) or store.buffer not in self.wanted:
            return None
        buffer, at, size = store.buffer, store.at, store.buffer.dtype.itemsize
        inside = {name for s in loop.body.statements for name in writes_of(s)}
        is_whole = not loop.within or (loop.within == ((at, 0, buffer.size),) and at.low >= 0)
        is_row = at.coefficient(loop.name) == 1 and is_whole and not inside & set(at.variables())
        if not is_row or not self.least <= loop.extent * size <= MOST:
            return None
        tile = Buffer(f"tile{len(self.tiles)}", buffer.dtype, loop.extent, "tile")
        if sum(each.nbytes for each in (*self.tiles, tile)) > TILES:
            return None
        self.tiles.append(tile)
        self.said.append(f"rows of {loop.extent} of {buffer.name}")
        rest = ((a, c) for a, c in at.terms if not (isinstance(a, Variable) and a.name == loop.name))
        return Bypass(buffer, Index(tuple(rest), at.number), tile, loop.extent)


def _to_tile(statement: Statement, loop: For, tiles: dict[Buffer, Buffer]) -> Statement:
    """A statement of a loop that stores to a tile instead."""
    if isinstance(statement, Store) and statement.buffer in tiles:
        return replace(statement, buffer=tiles[statement.buffer], at=variable(loop.name, 0, loop.extent - 1))
    return statement
