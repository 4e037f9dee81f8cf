"""Copies of statements for several values of a loop variable: indices at them, and locals and tiles of their own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace

from graphopt.analysis.common import statements_of
from graphopt.analysis.order import reads_of, writes_of
from graphopt.analysis.substitute import expression_with
from graphopt.ir.index import Index, variable
from graphopt.ir.loop import (
    Accumulate,
    Apply,
    Block,
    Buffer,
    Bypass,
    Expression,
    For,
    Let,
    Load,
    Local,
    Phase,
    Set,
    Statement,
    Store,
    Value,
)


@dataclass(eq=False, slots=True)
class Copy:
    """What makes statements those of one value of a variable.

    suffix: what is added to the names of locals. own: the names of locals and tiles that depend on the variable. place:
    its value. tiles: those that are replaced. known: locals that are other values now.
    """

    suffix: str
    own: AbstractSet[str]
    variable: str
    place: Index
    tiles: Mapping[Buffer, Buffer] = field(default_factory=dict)
    known: dict[str, Value] = field(default_factory=dict)

    def is_own(self, statement: Statement) -> bool:
        """Whether a statement is another one for another value of the variable."""
        return bool({*reads_of(statement), *writes_of(statement)} & self.own)

    def index(self, at: Index) -> Index:
        """An index at the value."""
        return at.with_variable(self.variable, self.place)

    def statement(self, statement: Statement) -> Statement:
        """A statement at the value: a Let, a Set, an Accumulate, a Store, a Bypass, or a loop around such."""
        if isinstance(statement, Let | Set):
            return replace(statement, local=self.local(statement.local), value=self.expression(statement.value))
        if isinstance(statement, Accumulate):
            return replace(statement, local=self.local(statement.local), value=self.value(statement.value))
        if isinstance(statement, Store):
            buffer, value = self.buffer(statement.buffer), self.value(statement.value)
            return replace(statement, buffer=buffer, at=self.index(statement.at), value=value)
        if isinstance(statement, Bypass):
            return replace(statement, at=self.index(statement.at), tile=self.buffer(statement.tile))
        assert isinstance(statement, For)
        within = tuple((self.index(at), low, high) for at, low, high in statement.within)
        return replace(statement, within=within, body=Block([self.statement(s) for s in statement.body.statements]))

    def expression(self, value: Expression) -> Expression:
        """An expression at the value."""
        if isinstance(value, Apply):
            return replace(value, values=tuple(self.value(v) for v in value.values))
        if isinstance(value, Local):
            return self.value(value)
        found = expression_with(value, self.index)
        return replace(found, buffer=self.buffer(found.buffer)) if isinstance(found, Load) else found

    def value(self, value: Value) -> Value:
        """What stands for a value of the statement."""
        if not isinstance(value, Local):
            return value
        local = self.local(value)
        return self.known.get(local.name, local)

    def local(self, local: Local) -> Local:
        """A local, under a name of its own where it depends on the variable."""
        return replace(local, name=local.name + self.suffix) if local.name in self.own else local

    def buffer(self, buffer: Buffer) -> Buffer:
        """A buffer, or the tile in its place."""
        return self.tiles.get(buffer, buffer)


def depending(block: Block, names: AbstractSet[str]) -> set[str]:
    """`names`, what in a block depends on them, the locals that it changes, and the tiles that are written in it, with
    what depends on these."""
    inside = [s for top in block.statements for s in statements_of(top) if not isinstance(s, For)]
    found = {*names, *(s.buffer.name for s in inside if isinstance(s, Store) and s.buffer.role == "tile")}
    found.update(name for s in inside if isinstance(s, Accumulate | Set) for name in writes_of(s))
    changed = True
    while changed:
        changed = False
        for statement in inside:
            new = set(writes_of(statement)) - found
            if new and found & set(reads_of(statement)):
                found |= new
                changed = True
    return found


def places_in_block(phase: Phase, rows: int) -> list[Index]:
    """Where the rows of a block are, in a phase over blocks of so many."""
    first = variable(phase.name, 0, phase.extent // rows - 1) * rows
    return [first + row for row in range(rows)]


def phases_of_blocks(phase: Phase, rows: int, body: Block) -> Iterator[Phase]:
    """The phase over blocks of rows, with `body` for a block, and beside it one over the rows that are left."""
    blocks, left = divmod(phase.extent, rows)
    yield replace(phase, extent=blocks, grain=max(1, phase.grain // rows), body=body)
    if left:
        rest = Copy("", set(), phase.name, variable(phase.name, 0, left - 1) + blocks * rows)
        alone = Block([rest.statement(s) for s in phase.body.statements])
        yield replace(phase, extent=left, grain=left, body=alone, beside=True)
