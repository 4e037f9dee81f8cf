"""Splitting: a loop with many operations becomes several, over blocks, with tiles for what one hands to the next.

The operations of an element wait for each other, and a processor looks ahead over a few hundred instructions: in a long
body it finds little else to do meanwhile. In a short one it finds the elements that follow. (Loop distribution; Kennedy
and McKinley, 1990.) A block's elements stay in the first cache.

Before:
    parallel i1 < 5000:
      x2: f32 = in0[i1]
      v3: f32 = erfc(x2)
      x4: f32 = in1[i1]
      v5: f32 = mul(v3, x4)
      v6: f32 = erfc(v5)
      out0[i1] = v6
After:
    tile tile0: f32[256]
    parallel i1 < 20:
      vector i1l < 256 where 0 <= 256 * i1 + i1l < 5000:
        x2: f32 = in0[256 * i1 + i1l]
        v3: f32 = erfc(x2)
        tile0[i1l] = v3
      vector i1l < 256 where 0 <= 256 * i1 + i1l < 5000:
        v3: f32 = tile0[i1l]
        x4: f32 = in1[256 * i1 + i1l]
        v5: f32 = mul(v3, x4)
        v6: f32 = erfc(v5)
        out0[256 * i1 + i1l] = v6
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from graphopt.analysis.columns import TILES
from graphopt.analysis.kernel_time import BY_A_NUMBER, MOVE_NEAR, MUL, Cost, is_by_a_number
from graphopt.analysis.order import reads_of
from graphopt.ir.index import Index, variable
from graphopt.ir.loop import (
    VECTOR,
    Apply,
    Block,
    Buffer,
    For,
    Let,
    Load,
    LoopProgram,
    Phase,
    Position,
    Statement,
    Store,
    Test,
)

LONG, SHORT = 1.2, 0.5
"""Nanoseconds of a body from which on it is split, and of one that it becomes, at most, unless one operation takes
longer. Measured on Black-Scholes, of 1.5 by these counts: 1.0 in four parts, 1.1 in three and whole."""

CHAIN = 0.55
"""Nanoseconds, of operations that each need the one before, from which on a body is split. Four sines and cosines that
do not need each other are 2.2 and take 3.0 whole, 3.1 in parts: there is enough to do in one element."""

WIDTH = 256
"""Elements of a block."""

BLOCKS = 8
"""Blocks of a loop at least: fewer would be little to share."""

MOST = 1500
"""Statements of a loop at most: how it is split takes the square of their number to find."""


@dataclass(frozen=True)
class Split:
    """Splits the phases whose bodies do much to each element, and nothing else.

    cost: nanoseconds of an element of a scalar operation. long, chain: of what is split, and of operations in it that
    need each other. short: of what it becomes. most: bytes of all tiles of a kernel.
    """

    cost: Cost = field(repr=False)
    long: float = LONG
    chain: float = CHAIN
    short: float = SHORT
    most: int = TILES
    name = "split"

    def run(self, program: LoopProgram) -> tuple[LoopProgram, tuple[str, ...]]:
        """The program with split phases, which computes the same bits, and what they do, as text."""
        tiles = [buffer for buffer in program.buffers if buffer.role == "tile"]
        phases, said = [], []
        for phase in program.phases:
            parts = self.parts(phase) if is_straight(phase) else []
            found = Splitter(phase, len(tiles), WIDTH).split(parts) if len(parts) > 1 else None
            if found is None or sum(tile.nbytes for tile in (*tiles, *found[1])) > self.most:
                phases.append(phase)
                continue
            tiles += found[1]
            phases.append(found[0])
            said.append(f"{len(parts)} loops over blocks of {WIDTH}, {len(found[1])} tiles")
        if not said:
            return program, ()
        others = tuple(buffer for buffer in program.buffers if buffer.role != "tile")
        return replace(program, buffers=(*others, *tiles), phases=tuple(phases)), tuple(said)

    def parts(self, phase: Phase) -> list[list[Statement]]:
        """The statements of each loop: as few of them as possible, and little to hand over from one to the next."""
        statements = phase.body.statements
        times = [self.time(statement) for statement in statements]
        if len(statements) > MOST or sum(times) < self.long or _chain(statements, times) < self.chain:
            return []
        handed = _handed(statements)
        best: list[tuple[float, int]] = [(0.0, 0)]  # of all statements up to one, and where their last part begins
        for end in range(1, len(statements) + 1):
            start, total, found = end - 1, times[end - 1], (best[end - 1][0] + handed[end - 1], end - 1)
            while start > 0 and total + times[start - 1] <= self.short:
                start -= 1
                total += times[start]
                found = min(found, (best[start][0] + handed[start], start))
            best.append(found)
        parts: list[list[Statement]] = []
        end = len(statements)
        while end > 0:
            start = best[end][1]
            parts.insert(0, statements[start:end])
            end = start
        return parts

    def time(self, statement: Statement) -> float:
        """Nanoseconds of one element."""
        value = statement.value if isinstance(statement, Let) else None
        if not isinstance(value, Apply):
            return 0.0
        widest = max((v.dtype for v in value.values), key=lambda dtype: dtype.itemsize)
        return BY_A_NUMBER * self.cost(MUL, widest) if is_by_a_number(value) else self.cost(value.op, widest)


def is_straight(phase: Phase) -> bool:
    """Whether a phase computes values and stores them, each in its place, and finds no place by division."""
    if phase.extent < BLOCKS * WIDTH:
        return False
    stored = {s.buffer for s in phase.body.statements if isinstance(s, Store)}
    for statement in phase.body.statements:
        value = statement.value if isinstance(statement, Let | Store) else None
        if value is None or (isinstance(value, Load) and value.buffer in stored):
            return False
        at = statement.at if isinstance(statement, Store) else value.at if isinstance(value, Load | Position) else None
        if at is not None and (at.divisions() or not set(at.variables()) <= {phase.name}):
            return False
        if isinstance(value, Test):
            return False
    return True


class Splitter:
    """One phase, as blocks."""

    def __init__(self, phase: Phase, tiles: int, width: int) -> None:
        """tiles: how many there are already. width: elements of a block."""
        self.phase = phase
        self.number = tiles
        self.width = width
        self.tiles: dict[str, Buffer] = {}  # by the name of the value in it; of several, one after the other
        self.lane = f"{phase.name}l"
        self.blocks = -(-phase.extent // width)
        self.step = variable(self.lane, 0, width - 1)
        self.at = variable(phase.name, 0, self.blocks - 1) * width + self.step
        self.within = ((self.at, 0, phase.extent),) if phase.extent % width else ()

    def split(self, parts: Sequence[Sequence[Statement]]) -> tuple[Phase, tuple[Buffer, ...]]:
        """The phase with a loop for each part, and the tiles that it has: the same for values not needed together."""
        lets = {s.local.name: s for part in parts for s in part if isinstance(s, Let)}
        own = [{s.local.name for s in part if isinstance(s, Let)} for part in parts]
        needed = [list(dict.fromkeys(name for s in part for name in reads_of(s) if name in lets)) for part in parts]
        handed = {n: k for k, names in enumerate(needed) for n in names if n not in own[k] and not _is_load(lets[n])}
        tiles: list[Buffer] = []
        free: list[Buffer] = []
        for number, here in enumerate(own):
            free += [self.tiles[name] for name, last in handed.items() if last == number - 1]
            for name in (name for name in lets if name in here and name in handed):
                dtype = lets[name].local.dtype
                tile = next((tile for tile in free if tile.dtype == dtype), None)
                if tile is None:
                    tile = Buffer(f"tile{self.number + len(tiles)}", dtype, self.width, "tile")
                    tiles.append(tile)
                else:
                    free.remove(tile)
                self.tiles[name] = tile
        block = Block()
        for part, names, here in zip(parts, needed, own, strict=True):
            body = Block([self.again(lets[name]) for name in names if name not in here])
            for statement in part:
                body.statements.append(self.moved(statement))
                if isinstance(statement, Let) and statement.local.name in self.tiles:
                    tile = self.tiles[statement.local.name]
                    body.statements.append(Store(tile, self.step, statement.local, statement.node))
            block.statements.append(For(self.lane, self.width, VECTOR, body, self.within))
        grain = max(1, self.phase.grain // self.width)
        phase = replace(self.phase, extent=self.blocks, grain=grain, body=block)
        return phase, tuple(tiles)

    def again(self, let: Let) -> Let:
        """A value of another part: loaded again, or from its tile."""
        tile = self.tiles.get(let.local.name)
        if tile is not None:
            return Let(let.local, Load(tile, self.step))
        assert isinstance(let.value, Load)
        return replace(let, value=Load(let.value.buffer, self.index(let.value.at)))

    def moved(self, statement: Statement) -> Statement:
        """A statement of the phase, at an element of the block."""
        if isinstance(statement, Store):
            return replace(statement, at=self.index(statement.at))
        assert isinstance(statement, Let)
        if isinstance(statement.value, Load | Position):
            return replace(statement, value=replace(statement.value, at=self.index(statement.value.at)))
        return statement

    def index(self, at: Index) -> Index:
        """An index of the phase, at an element of the block."""
        factor = at.coefficient(self.phase.name)
        assert factor is not None
        return self.at * factor + at.number


def _is_load(let: Let) -> bool:
    return isinstance(let.value, Load)


def _chain(statements: Sequence[Statement], times: Sequence[float]) -> float:
    """The longest time of operations that each need the one before."""
    ends: dict[str, float] = {}
    for statement, time in zip(statements, times, strict=True):
        if isinstance(statement, Let):
            before = max((ends.get(name, 0.0) for name in reads_of(statement)), default=0.0)
            ends[statement.local.name] = before + time
    return max(ends.values(), default=0.0)


def _handed(statements: Sequence[Statement]) -> list[float]:
    """For each statement nanoseconds of storing and loading what is computed before it and needed from there on."""
    last: dict[str, int] = {}
    for number, statement in enumerate(statements):
        last |= dict.fromkeys(reads_of(statement), number)
    found = [0.0] * len(statements)
    for number, statement in enumerate(statements):
        if isinstance(statement, Let) and not isinstance(statement.value, Load):
            for between in range(number + 1, last.get(statement.local.name, -1) + 1):
                found[between] += 2 * MOVE_NEAR * statement.local.dtype.itemsize
    return found
