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

from graphopt.analysis.common import statements_of
from graphopt.analysis.order import indices_of, reads_of, writes_of
from graphopt.analysis.substitute import expression_with
from graphopt.ir.index import Index, variable
from graphopt.ir.loop import (
    Accumulate,
    Apply,
    Block,
    Expression,
    For,
    Let,
    Load,
    Local,
    LoopProgram,
    Phase,
    Set,
    Statement,
    Store,
    Value,
)

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
        blocks, left = divmod(phase.extent, self.rows)
        steps = variable(phase.name, 0, blocks - 1) * self.rows
        body = _Jammer(phase, [steps + k for k in range(self.rows)]).block(phase.body)
        yield replace(phase, extent=blocks, grain=max(1, phase.grain // self.rows), body=body)
        if left:
            place = variable(phase.name, 0, left - 1) + blocks * self.rows
            yield replace(phase, extent=left, grain=left, body=_Jammer(phase, [place]).block(phase.body), beside=True)


class _Jammer:
    """Copies of the statements of a phase, one for each of some rows."""

    def __init__(self, phase: Phase, rows: Sequence[Index]) -> None:
        self.variable = variable(phase.name, 0, phase.extent - 1)
        self.rows = rows
        self.name = phase.name
        self.own = _own(phase.body, {phase.name})

    def block(self, block: Block) -> Block:
        """What does not depend on the row stands there once."""
        found: list[Statement] = []
        for statement in block.statements:
            if isinstance(statement, For):
                found.append(replace(statement, body=self.block(statement.body)))
            elif {*reads_of(statement), *writes_of(statement)} & self.own:
                found += (self.of(statement, row) for row in range(len(self.rows)))
            else:
                found.append(statement)
        return Block(found)

    def of(self, statement: Statement, row: int) -> Statement:
        """A statement of one row."""
        if isinstance(statement, Store):
            return replace(statement, at=self.at(statement.at, row), value=self.value(statement.value, row))
        if isinstance(statement, Accumulate):
            return replace(statement, local=self.local(statement.local, row), value=self.value(statement.value, row))
        assert isinstance(statement, Let | Set)
        return replace(statement, local=self.local(statement.local, row), value=self.expression(statement.value, row))

    def expression(self, value: Expression, row: int) -> Expression:
        if isinstance(value, Apply):
            return replace(value, values=tuple(self.value(v, row) for v in value.values))
        if isinstance(value, Local):
            return self.local(value, row)
        return expression_with(value, lambda at: self.at(at, row))

    def value(self, value: Value, row: int) -> Value:
        return self.local(value, row) if isinstance(value, Local) else value

    def local(self, local: Local, row: int) -> Local:
        single = len(self.rows) == 1 or local.name not in self.own
        return local if single else replace(local, name=f"{local.name}r{row}")

    def at(self, at: Index, row: int) -> Index:
        factor = at.coefficient(self.name)
        assert factor is not None
        return at - self.variable * factor + self.rows[row] * factor


def _own(block: Block, names: set[str]) -> set[str]:
    """`names`, and the locals of a block that each row has for itself: they depend on these, or are changed."""
    straight = [s for top in block.statements for s in statements_of(top) if not isinstance(s, For)]
    changed = True
    found = set(names)
    while changed:
        changed = False
        for statement in straight:
            new = set(writes_of(statement)) - found
            if new and (isinstance(statement, Accumulate | Set) or found & set(reads_of(statement))):
                found |= new
                changed = True
    return found
