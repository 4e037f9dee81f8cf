"""Fetching ahead: while the loops over one row compute, the next row is on its way from memory.

The first loop over a row waits for memory, and those after it find the row in the first cache and leave the memory
idle. A processor fetches ahead by itself where one loop goes on and on, but not across the end of a page, which a row
often is. (Software prefetching; Mowry, Lam and Gupta, 1992.)

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
    parallel i1 < 4096:
      a2: f32 = 0.0
      reduction r3 < 1024:
        x4: f32 = in0[1024 * i1 + r3]
        a2 add= x4
      fetch in0[1024 * i1 + 1024 ...+ 1024]
      serial j5 < 1024:
        ...
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from graphopt.ir.index import Index, Variable
from graphopt.ir.loop import Block, Buffer, Fetch, For, Let, Load, LoopProgram, Phase

LARGE = 1 << 22
"""Bytes of a buffer from which on it is not in the cores' own caches."""

LEAST, MOST = 256, 1 << 14
"""Bytes of a row that is fetched: a few lines come by themselves, and many push the row before out of the cache."""


@dataclass(frozen=True)
class FetchAhead:
    """Fetches rows of operands where several loops go over them. large: bytes of those it is done for."""

    large: int = LARGE
    name = "fetch"

    def run(self, program: LoopProgram) -> tuple[LoopProgram, tuple[str, ...]]:
        """The program with fetches, which computes the same, and what they are of, as text."""
        same = {buffer for pair in program.in_place for buffer in pair}
        phases, said = [], []
        for phase in program.phases:
            found = [fetch for fetch in self.of(phase) if fetch.buffer not in same]
            phases.append(_with(phase, found) if found else phase)
            said += [f"rows of {fetch.count} of {fetch.buffer.name}" for fetch in found]
        return (replace(program, phases=tuple(phases)) if said else program), tuple(said)

    def of(self, phase: Phase) -> Iterator[Fetch]:
        """The next row of what the first loop reads."""
        loops = [s for s in phase.body.statements if isinstance(s, For)]
        if len(loops) < 2 or loops[0].within:
            return
        found: dict[Buffer, Fetch] = {}
        for statement in loops[0].body.statements:
            load = statement.value if isinstance(statement, Let) else None
            if (
                isinstance(load, Load)
                and load.buffer.role == "in"
                and self.is_row(load.buffer, load.at, loops[0], phase)
            ):
                ahead = _start(load.at, loops[0].name) + loops[0].extent
                found.setdefault(load.buffer, Fetch(load.buffer, ahead, loops[0].extent))
        yield from found.values()

    def is_row(self, buffer: Buffer, at: Index, loop: For, phase: Phase) -> bool:
        """Whether a loop goes over one row of a large buffer after the other, as the phase goes on."""
        size = buffer.dtype.itemsize
        if buffer.size * size < self.large or not LEAST <= loop.extent * size <= MOST:
            return False
        steps = (at.coefficient(loop.name), at.coefficient(phase.name))
        return steps == (1, loop.extent) and set(at.variables()) == {loop.name, phase.name}


def _with(phase: Phase, found: list[Fetch]) -> Phase:
    """The phase with these before its second loop."""
    statements = phase.body.statements
    _, second, *_ = (number for number, statement in enumerate(statements) if isinstance(statement, For))
    return replace(phase, body=Block([*statements[:second], *found, *statements[second:]]))


def _start(at: Index, name: str) -> Index:
    """Where a loop over this variable begins."""
    others = ((a, c) for a, c in at.terms if not (isinstance(a, Variable) and a.name == name))
    return Index(tuple(others), at.number)
