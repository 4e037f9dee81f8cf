"""Peeling: a loop with conditions on its variable becomes several, in each of which they are known.

Where arrays are padded, shifted or joined, the edges ask for other elements than the inside. A loop over all of them
asks of each where it is, and loads what it needs under a mask; one over the inside alone only loads. Conditions on the
variable of a parallel loop choose between two bodies once for each row, or cut it into parts side by side. (Index-set
splitting; Wolfe, 1989.)

Before:
    parallel i1 < 7:
      serial j2 < 90:
        v3: f32 = 0.0
        if 0 <= j2 < 40:
          x4: f32 = in0[50 * i1 + j2 + 10]
          v3 := x4
        else:
          x5: f32 = in0[50 * i1 + j2 - 40]
          v6: f32 = mul(x5, 2.0)
          v3 := v6
        out0[90 * i1 + j2] = v3
After:
    parallel i1 < 7:
      serial j2 < 90 where 0 <= j2 < 40:
        x4: f32 = in0[50 * i1 + j2 + 10]
        v3: f32 = x4
        out0[90 * i1 + j2] = v3
      serial j2 < 90 where 40 <= j2 < 90:
        x5: f32 = in0[50 * i1 + j2 - 40]
        v6: f32 = mul(x5, 2.0)
        v3: f32 = v6
        out0[90 * i1 + j2] = v3
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from graphopt.analysis.access import always
from graphopt.analysis.order import blocks_of, indices_of, reads_of, writes_of
from graphopt.analysis.substitute import block_with
from graphopt.ir.index import Index, variable
from graphopt.ir.loop import Block, For, If, Let, Literal, LoopProgram, Phase, Set, Statement, Test, When, While

LEAST = 32
"""Iterations of the longest part of a loop that is worth it."""

MOST = 8
"""Parts of a loop at most."""

STATEMENTS = 400
"""Statements of a phase at most, when it is peeled: each takes time to compile."""

Range = tuple[int, int]
Known = Mapping[str, Range]
"""By variable from where to where it goes."""


@dataclass(frozen=True)
class Peel:
    """Cuts loops where conditions on their variables change. least: iterations of the longest part."""

    least: int = LEAST
    name = "peel"

    def run(self, program: LoopProgram) -> tuple[LoopProgram, tuple[str, ...]]:
        """The program with peeled loops, which does the same to each element in the same order, and what they are."""
        phases: list[Phase] = []
        said: list[str] = []
        for phase in program.phases:
            found: list[str] = []
            has_loops = any(isinstance(statement, For) for statement in phase.body.statements)
            new = [self.rows(phase, found)] if has_loops else list(self.elements(phase, found))
            if found and sum(_size(each.body) for each in new) <= STATEMENTS:
                phases += new
                said += found
            else:
                phases.append(phase)
        return (replace(program, phases=tuple(phases)) if said else program), tuple(said)

    def elements(self, phase: Phase, said: list[str]) -> Iterator[Phase]:
        """The parts of a phase whose body has no loops, side by side."""
        parts = _parts(phase.name, phase.extent, phase.body)
        linear = all(at.coefficient(phase.name) is not None for at in indices_of(phase.body))
        if self.longest(parts) is None or not linear or phase.before.statements:
            yield phase
            return
        said.append(f"{len(parts)} parts of {phase.extent} elements")
        whole = variable(phase.name, 0, phase.extent - 1)
        for number, (start, end) in enumerate(parts):

            def change(at: Index, start: int = start, end: int = end) -> Index:
                factor = at.coefficient(phase.name) or 0
                return at - whole * factor + (variable(phase.name, 0, end - start - 1) + start) * factor

            # What divides the variable may be known, too, where there are few values of it.
            body = _known(block_with(_known(phase.body, {phase.name: (start, end)}), change), {})
            grain, beside = min(phase.grain, end - start), phase.beside or number > 0
            yield replace(phase, extent=end - start, grain=grain, body=body, beside=beside)

    def rows(self, phase: Phase, said: list[str]) -> Phase:
        """The phase with its inside apart, where its rows have conditions, and with peeled loops."""
        loops = Block([statement for statement in phase.body.statements if isinstance(statement, For)])
        parts = _parts(phase.name, phase.extent, loops)
        inside = self.longest(parts)
        if inside is None:
            return replace(phase, body=self.block(phase.body, {}, said))
        edges = [part for part in parts if part != inside]
        known = {phase.name: edges[0]} if len(edges) == 1 else {}
        within = ((variable(phase.name, 0, phase.extent - 1), *inside),)
        said.append(f"rows {inside[0]} to {inside[1]} of {phase.extent} apart")
        blocks = [self.block(phase.body, {phase.name: inside}, said), _known(phase.body, known)]
        return replace(phase, body=Block([If(within, *blocks)]))

    def block(self, block: Block, known: Known, said: list[str]) -> Block:
        """A block with peeled loops, where so much is known."""
        found: list[Statement] = []
        for statement in _known(block, known).statements:
            found += self.loop(statement, said) if isinstance(statement, For) else [statement]
        return Block(found)

    def loop(self, loop: For, said: list[str]) -> Iterator[Statement]:
        """The parts of a loop, one after the other, peeled in turn."""
        parts = _parts(loop.name, loop.extent, loop.body) if not loop.within else []
        if self.longest(parts) is None:
            yield replace(loop, body=self.block(loop.body, {}, said))
            return
        said.append(f"{len(parts)} loops over {loop.extent} elements")
        at = variable(loop.name, 0, loop.extent - 1)
        for part in parts:
            yield replace(loop, body=self.block(loop.body, {loop.name: part}, said), within=((at, *part),))

    def longest(self, parts: Sequence[Range]) -> Range | None:
        """The part with the most iterations, where there are some and it is long."""
        if not 1 < len(parts) <= MOST:
            return None
        longest = max(parts, key=lambda part: part[1] - part[0])
        return longest if longest[1] - longest[0] >= self.least else None


def _parts(name: str, extent: int, block: Block) -> list[Range]:
    """The ranges of a variable in which the conditions in a block that are on it alone do not change."""
    ends = {0, extent}
    for at, low, high in _conditions(block):
        if tuple(at.variables()) == (name,) and not at.divisions():
            ends |= {end for end in _range(at, low, high) if 0 < end < extent}
    ordered = sorted(ends)
    return list(pairwise(ordered))


def _range(at: Index, low: int, high: int) -> Range:
    """From where to where the one variable of an index goes while `low <= at < high`."""
    ((_, factor),) = at.terms
    if factor > 0:
        return -((at.number - low) // factor), -((at.number - high) // factor)
    return (at.number - high) // -factor + 1, (at.number - low) // -factor + 1


def _conditions(block: Block) -> Iterator[tuple[Index, int, int]]:
    for statement in block.statements:
        if isinstance(statement, If):
            yield from statement.within
        elif isinstance(statement, Let | Set) and isinstance(statement.value, Test):
            yield from statement.value.within
        for inner in blocks_of(statement):
            yield from _conditions(inner)


def _known(block: Block, known: Known) -> Block:
    """A block without the conditions that are known to hold or not to hold."""
    found: list[Statement] = []
    for statement in block.statements:
        if isinstance(statement, If):
            within = _open(statement.within, known)
            if within:
                then, otherwise = _known(statement.then, known), _known(statement.otherwise, known)
                found.append(If(within, then, otherwise))
            else:
                taken = statement.otherwise if within is None else statement.then
                found += _known(taken, known).statements
        elif isinstance(statement, Let | Set) and isinstance(statement.value, Test):
            within = _open(statement.value.within, known)
            found.append(replace(statement, value=Test(within) if within else Literal(np.bool_(within is not None))))
        elif isinstance(statement, While):
            found.append(replace(statement, test=_known(statement.test, known), body=_known(statement.body, known)))
        elif isinstance(statement, For):
            found.append(replace(statement, body=_known(statement.body, known)))
        elif isinstance(statement, When):
            found.append(replace(statement, then=_known(statement.then, known)))
        else:
            found.append(statement)
    return Block(_set_at_once(found))


def _open(within: tuple[tuple[Index, int, int], ...], known: Known) -> tuple[tuple[Index, int, int], ...] | None:
    """Those of some conditions that are not known to hold; None where one is known not to."""
    found = []
    for at, low, high in within:
        holds = always(((at, low, high),))
        if holds is False:
            return None
        if holds:
            continue
        names = tuple(at.variables())
        if len(names) != 1 or names[0] not in known or at.divisions():
            found.append((at, low, high))
            continue
        start, end = _range(at, low, high)
        first, last = known[names[0]]
        if end <= first or last <= start:
            return None
        if first < start or end < last:
            found.append((at, low, high))
    return tuple(found)


def _set_at_once(statements: Sequence[Statement]) -> list[Statement]:
    """The statements with each local that is given a number first, and something else before it is read, given that."""
    found: list[Statement | None] = list(statements)
    numbers: dict[str, int] = {}
    for place, statement in enumerate(statements):
        if isinstance(statement, Let) and isinstance(statement.value, Literal):
            numbers[statement.local.name] = place
            continue
        if isinstance(statement, Set) and statement.local.name in numbers:
            found[numbers[statement.local.name]] = None
            found[place] = Let(statement.local, statement.value, statement.node)
        if numbers:
            for name in (*reads_of(statement), *writes_of(statement)):
                numbers.pop(name, None)
    return [statement for statement in found if statement is not None]


def _size(block: Block) -> int:
    return sum(1 + sum(map(_size, blocks_of(statement))) for statement in block.statements)
