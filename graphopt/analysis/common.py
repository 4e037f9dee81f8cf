"""Values that loops beside each other compute alike: the same operations on the same elements.

Values are numbered (local value numbering; Cocke and Schwartz, 1970): two that have one number are equal. The variable
of a loop counts by its depth, its extent and the conditions on it, whatever its name.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from graphopt.analysis.access import Within
from graphopt.analysis.order import blocks_of, writes_of
from graphopt.ir.index import Atom, Index, Quotient, Variable
from graphopt.ir.loop import (
    Accumulate,
    Apply,
    Expression,
    For,
    Let,
    Literal,
    Load,
    Local,
    Position,
    Set,
    Statement,
    Store,
)

Key = tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Place:
    """A value in loops that always run as often. key: what it has in common with equal ones in loops as long."""

    let: Let
    loops: tuple[For, ...]
    key: Key

    @property
    def name(self) -> str:
        """The value's."""
        return self.let.local.name

    @property
    def extents(self) -> tuple[int, ...]:
        """Of the loops, from the outermost one."""
        return tuple(loop.extent for loop in self.loops)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Place) and self.let is other.let

    def __hash__(self) -> int:
        return id(self.let)


class Numbering:
    """The numbers of values in the loops of one block.

    An operand that a result is written over counts as other memory: where that is right, all reads come before.
    """

    def __init__(self) -> None:
        self.numbers: dict[Key, int] = {}
        self.written: Counter[str] = Counter()  # how often locals and buffers were, so far
        self.known: dict[str, Key] = {}  # what stands for a name of the loop that is gone through
        self.own: set[str] = set()  # names that begin or are written in it
        self.changing: set[str] = set()  # locals that have more than one value in it

    def places(self, loop: For) -> Iterator[Place]:
        """The values in a loop of the block, but for those under conditions on anything but the loops around them."""
        inside = list(statements_of(loop))
        self.own = {*writes_of(loop), *(s.name for s in inside if isinstance(s, For))} - _written_over(loop)
        self.changing = {s.local.name for s in inside if isinstance(s, Set | Accumulate)}
        self.known = {}
        yield from self._inside((loop,))

    def passed(self, statement: Statement) -> None:
        """Notes what a statement of the block writes."""
        self.written.update(set(writes_of(statement)))

    def _inside(self, loops: tuple[For, ...]) -> Iterator[Place]:
        loop = loops[-1]
        self.known[loop.name] = ("loop", len(loops), loop.extent)
        conditions = self._conditions(loop.within)
        if conditions is None:
            return
        self.known[loop.name] = ("loop", len(loops), loop.extent, *conditions)
        for statement in loops[-1].body.statements:
            if isinstance(statement, Let):
                key = None if statement.local.name in self.changing else self._expression(statement.value)
                if key is not None:
                    key = (statement.local.dtype, *key)
                    self.known[statement.local.name] = ("value", self.numbers.setdefault(key, len(self.numbers)))
                    extents = tuple(loop.extent for loop in loops)
                    yield Place(statement, loops, (extents, *self.known[statement.local.name]))
            elif isinstance(statement, For):
                yield from self._inside((*loops, statement))

    def _name(self, name: str) -> Key | None:
        """What a name stands for; None where that changes within the loop."""
        if name in self.known:
            return self.known[name]
        return None if name in self.own else ("outside", name, self.written[name])

    def _expression(self, value: Expression) -> Key | None:
        if isinstance(value, Load):
            memory, at = self._name(value.buffer.name), self._index(value.at)
            return None if memory is None or at is None else ("load", memory, at)
        if isinstance(value, Apply):
            operands = [self._expression(operand) for operand in value.values]
            return None if None in operands else (value.op, value.attrs, *operands)
        if isinstance(value, Position):
            at = self._index(value.at)
            return None if at is None else ("position", at)
        if isinstance(value, Local):
            return self._name(value.name)
        if isinstance(value, Literal):
            return "literal", value.dtype, value.value.tobytes()
        tests = self._conditions(value.within)
        return None if tests is None else ("test", *tests)

    def _conditions(self, within: Within) -> Key | None:
        conditions = tuple((self._index(at), low, high) for at, low, high in within)
        return None if any(at is None for at, _, _ in conditions) else conditions

    def _index(self, index: Index) -> Key | None:
        terms = [(self._atom(atom), factor) for atom, factor in index.terms]
        return None if any(atom is None for atom, _ in terms) else (index.number, frozenset(terms))

    def _atom(self, atom: Atom) -> Key | None:
        if isinstance(atom, Variable):
            return self._name(atom.name)
        of = self._index(atom.of)
        return None if of is None else (isinstance(atom, Quotient), of, atom.by)


def _written_over(loop: For) -> set[str]:
    """The buffers of which a loop writes elements over, each after it has read it, and reads no other ones."""
    found: dict[str, Index | None] = {}
    for statement in loop.body.statements:
        if isinstance(statement, Store):
            name = statement.buffer.name
            own = name not in found and statement.at.coefficient(loop.name)
            found[name] = statement.at if own and statement.at.divisions() == 0 else None
    for inner in statements_of(loop):
        value = inner.value if isinstance(inner, Let | Set) else None
        if isinstance(value, Load) and value.buffer.name in found and value.at != found[value.buffer.name]:
            found[value.buffer.name] = None
    nested = {name for s in loop.body.statements if not isinstance(s, Store) for name in writes_of(s)}
    reads = [s.value.buffer.name for s in _after_first_store(loop) if isinstance(s.value, Load)]
    return {name for name, at in found.items() if at is not None} - nested - set(reads)


def _after_first_store(loop: For) -> list[Let]:
    """The values of a loop behind the first element that it writes."""
    statements = loop.body.statements
    first = next((k for k, statement in enumerate(statements) if isinstance(statement, Store)), len(statements))
    return [inner for s in statements[first:] for inner in statements_of(s) if isinstance(inner, Let)]


def statements_of(statement: Statement) -> Iterator[Statement]:
    """A statement and those in it."""
    yield statement
    for block in blocks_of(statement):
        for inner in block.statements:
            yield from statements_of(inner)
