"""Jamming: a few rows that need the same operand are reduced side by side, so that it is loaded once for all of them.

A product of a matrix and a vector goes through the vector again for every row. A long vector fills the first cache, or
more than that, and fetching it holds up the matrix, which comes from memory. (Unroll-and-jam; Callahan, Cocke and
Kennedy, 1988.)

Before:
    parallel i1 < 4096:
      a2: f32 = 0.0
      reduction r3 < 8192:
        x4: f32 = in0[8192 * i1 + r3]
        x5: f32 = in1[r3]
        v6: f32 = mul(x4, x5)
        a2 add= v6
      out0[i1] = a2
After, with two rows:
    parallel i1 < 2048:
      a2r0: f32 = 0.0
      a2r1: f32 = 0.0
      reduction r3 < 8192:
        x4r0: f32 = in0[16384 * i1 + r3]
        x4r1: f32 = in0[16384 * i1 + r3 + 8192]
        x5: f32 = in1[r3]
        v6r0: f32 = mul(x4r0, x5)
        v6r1: f32 = mul(x4r1, x5)
        a2r0 add= v6r0
        a2r1 add= v6r1
      out0[2 * i1] = a2r0
      out0[2 * i1 + 1] = a2r1
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from graphopt.analysis.copies import Copy, depending, phases_of_blocks, places_in_block
from graphopt.analysis.order import indices_of
from graphopt.ir.loop import Accumulate, Block, For, Let, Load, LoopProgram, Phase, Set, Statement, Store

ROWS = 8
"""Rows that are reduced side by side: each has its own vectors of sums, and LLVM makes several of each."""

LONG = 1 << 12
"""Bytes of what the rows share from which on it is worth it: less stays in the first cache, and much in registers."""

LEAST = 32
"""Blocks of rows at least: fewer would be little to share."""

MOST = 12
"""Statements of a loop over a row at most: more need the registers themselves, and hide the loads."""


@dataclass(frozen=True)
class Jam:
    """Reduces rows side by side. rows: how many. long: bytes that they share at least."""

    rows: int = ROWS
    long: int = LONG
    name = "jam"

    def run(self, program: LoopProgram) -> tuple[LoopProgram, tuple[str, ...]]:
        """The program with jammed phases, and what they do, as text. Sums are in the order that loops have anyway."""
        phases: list[Phase] = []
        said = []
        for phase in program.phases:
            shared = self.shared(phase)
            if not shared:
                phases.append(phase)
                continue
            phases += self.jammed(phase)
            said.append(f"{self.rows} rows, which share {', '.join(shared)}")
        return (replace(program, phases=tuple(phases)) if said else program), tuple(said)

    def shared(self, phase: Phase) -> list[str]:
        """What the rows have in common, as text; nothing where they are not to be jammed."""
        loops = [s for s in phase.body.statements if isinstance(s, For)]
        if len(loops) != 1 or phase.before.statements or phase.extent < LEAST * self.rows:
            return []
        (loop,) = loops
        statements = loop.body.statements
        straight = all(isinstance(s, Let | Set | Store) for s in phase.body.statements if s is not loop)
        if loop.within or not straight or len(statements) > MOST:
            return []
        if not all(isinstance(s, Let | Accumulate) for s in statements):
            return []
        places = list(indices_of(phase.body))
        if any(at.divisions(phase.name) or at.coefficient(phase.name) is None for at in places):
            return []
        loads = [s.value for s in statements if isinstance(s, Let) and isinstance(s.value, Load)]
        own = [load for load in loads if phase.name in load.at.variables()]
        if not any(load.at.coefficient(loop.name) == 1 for load in own):
            return []
        return [
            f"{load.buffer.name}[{load.at}]"
            for load in loads
            if phase.name not in load.at.variables()
            and load.at.coefficient(loop.name) == 1
            and loop.extent * load.buffer.dtype.itemsize >= self.long
        ]

    def jammed(self, phase: Phase) -> Iterator[Phase]:
        """The phase over blocks of rows, and beside it one over the rows that are left."""
        own = depending(phase.body, {phase.name})
        copies = [
            Copy(f"r{row}", own, phase.name, place) for row, place in enumerate(places_in_block(phase, self.rows))
        ]
        return phases_of_blocks(phase, self.rows, _side_by_side(phase.body, copies))


def _side_by_side(block: Block, copies: Sequence[Copy]) -> Block:
    """A block with each statement for each row; what does not depend on the row stands there once."""
    found: list[Statement] = []
    for statement in block.statements:
        if isinstance(statement, For):
            found.append(replace(statement, body=_side_by_side(statement.body, copies)))
        elif copies[0].is_own(statement):
            found += (copy.statement(statement) for copy in copies)
        else:
            found.append(statement)
    return Block(found)
