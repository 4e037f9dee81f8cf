"""Cascades: long sums become sums of sums, so that none is much larger than what is added to it.

A number of many digits loses those of the small ones that are added to it: of n terms that are added one after the
other up to n - 1 roundings remain, of a sum of sums as many as a term goes through. Vectors have a sum in each of their
lanes, which is enough for some thousands. (N. J. Higham, "The accuracy of floating point summation", SIAM Journal on
Scientific Computing 14, 1993, section 3: pairwise summation; here in blocks.)

Before:
    parallel i1 < 20:
      a2: f32 = 0.0
      reduction r3 < 50:
        reduction r4 < 1000:
          x5: f32 = in0[50000 * i1 + 1000 * r3 + r4]
          a2 add= x5
      out0[i1] = a2
After:
    parallel i1 < 20:
      a2: f32 = 0.0
      reduction r3 < 50:
        a6: f32 = -0.0
        reduction r4 < 1000:
          x5: f32 = in0[50000 * i1 + 1000 * r3 + r4]
          a6 add= x5
        a2 add= a6
      out0[i1] = a2
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jax.extend.core import primitives as p

from graphopt.analysis.columns import TILES
from graphopt.analysis.common import statements_of
from graphopt.analysis.order import blocks_of, reads_of, writes_of
from graphopt.analysis.substitute import block_with, with_blocks
from graphopt.ir.attrs import EMPTY
from graphopt.ir.index import Index, variable
from graphopt.ir.loop import (
    REDUCTION,
    VECTOR,
    Accumulate,
    Apply,
    Block,
    Buffer,
    For,
    Let,
    Literal,
    Load,
    Local,
    LoopProgram,
    Phase,
    Statement,
    Store,
    While,
)
from graphopt.ir.op import op_of
from graphopt.rewrite.safety import kind_of

ADD = op_of(p.add_p)

LANES = 1 << 14
"""Terms of a sum that a loop may have in the lanes of some vectors: 64 lanes get 256 each."""

TERMS = 64
"""And terms that may be added one after the other."""

ROW = 64
"""Terms from which on those of one iteration are a sum of their own."""


@dataclass(frozen=True)
class Cascade:
    """Makes sums of sums, of floating and complex numbers.

    lanes: terms of a sum that may be spread over lanes. terms: that may be added one after the other. row: of an
    iteration, from which on they are a sum of their own. most: bytes of all tiles of a kernel.
    """

    lanes: int = LANES
    terms: int = TERMS
    row: int = ROW
    most: int = TILES
    name = "cascade"

    def run(self, program: LoopProgram) -> tuple[LoopProgram, tuple[str, ...]]:
        """The program with sums of sums, in another order, and what they are of, as text."""
        writer = _Writer(self, program)
        phases = tuple([writer.phase(phase) for phase in program.phases])
        if not writer.said:
            return program, ()
        return replace(program, buffers=(*program.buffers, *writer.tiles), phases=phases), tuple(writer.said)


@dataclass(frozen=True, slots=True)
class _Sum:
    """What terms are added to: a local, or each element of a tile, in vector loops over `width` of them."""

    target: Local | Buffer
    width: int = 1
    node: Any = None

    @property
    def name(self) -> str:
        return self.target.name

    @property
    def is_tile(self) -> bool:
        return isinstance(self.target, Buffer)


class _Writer:
    def __init__(self, options: Cascade, program: LoopProgram) -> None:
        self.options = options
        numbers = re.findall(r"\b(?:[aijlrvx]|tile)(\d+)", str(program))
        self.number = 1 + max(map(int, numbers), default=0)
        self.room = options.most - sum(buffer.nbytes for buffer in program.buffers if buffer.role == "tile")
        self.tiles: list[Buffer] = []
        self.said: list[str] = []

    def phase(self, phase: Phase) -> Phase:
        said = len(self.said)
        new = replace(phase, before=self.block(phase.before), body=self.block(phase.body))
        return new if len(self.said) > said else phase

    def block(self, block: Block) -> Block:
        """A block with sums of sums in all of its loops."""
        return Block([self.statement(statement) for statement in block.statements])

    def statement(self, statement: Statement) -> Statement:
        if isinstance(statement, For):
            sums = list(_sums_of(statement)) if statement.kind == REDUCTION and not statement.within else []
            if sums:
                return self.loop(statement, sums)
        return with_blocks(statement, self.block)

    def loop(self, loop: For, sums: Sequence[_Sum]) -> For:
        """A loop with sums of sums, where it adds many terms to `sums`."""
        tiled = any(each.is_tile for each in sums)
        limit = self.options.terms if tiled else self.options.lanes
        each = max(_terms(loop.body, of) for of in sums)
        terms = each * loop.extent
        if terms <= limit or not self.has_room(sums, terms):
            return replace(loop, body=self.block(loop.body))
        self.said.append(f"sums of {terms} terms")
        if each < (self.options.terms // 2 if tiled else self.options.row):
            return self.in_blocks(replace(loop, body=self.block(loop.body)), limit // each, sums)
        apart = replace(loop, body=self.apart(sums, lambda renamed: self.block(renamed(loop.body))))
        return apart if loop.extent <= self.options.terms else self.in_blocks(apart, self.options.terms, sums)

    def in_blocks(self, loop: For, size: int, sums: Sequence[_Sum]) -> For:
        """A loop over blocks of at most `size` iterations of a loop, each with sums of its own."""
        count = -(-loop.extent // size)
        size = -(-loop.extent // count)
        name = self.new("r")
        place = variable(name, 0, count - 1) * size + variable(loop.name, 0, size - 1)
        within = ((place, 0, loop.extent),) if loop.extent % size else ()

        def change(at: Index) -> Index:
            return at.with_variable(loop.name, place)

        def inner(renamed: Callable[[Block], Block]) -> Block:
            body = block_with(renamed(loop.body), change)
            return Block([replace(loop, extent=size, body=body, within=within)])

        outer = For(name, count, REDUCTION, self.apart(sums, inner))
        return outer if count <= self.options.terms else self.in_blocks(outer, self.options.terms, sums)

    def apart(self, sums: Sequence[_Sum], inner: Callable[[Callable[[Block], Block]], Block]) -> Block:
        """What begins new sums, what adds terms to these instead, and what adds them to `sums`.

        inner: that in the middle, of a function that puts the names of the new sums into a block.
        """
        new = [self.another(each) for each in sums]
        targets = {old.name: each.target for old, each in zip(sums, new, strict=True)}
        middle = inner(lambda block: _renamed(block, targets)).statements
        begun = [self.begun(each) for each in new]
        return Block([*begun, *middle, *(self.added(old, each) for old, each in zip(sums, new, strict=True))])

    def another(self, old: _Sum) -> _Sum:
        """A sum like another one."""
        if isinstance(old.target, Local):
            return replace(old, target=Local(self.new("a"), old.target.dtype))
        tile = replace(old.target, name=self.new("tile"))
        self.tiles.append(tile)
        self.room -= tile.nbytes
        return replace(old, target=tile)

    def begun(self, new: _Sum) -> Statement:
        """A new sum, which begins with what changes nothing: -0.0."""
        zero = Literal(_nothing(new.target.dtype))
        if isinstance(new.target, Local):
            return Let(new.target, zero, new.node)
        return self.over(new, lambda lane: [Store(new.target, lane, zero, new.node)])  # type: ignore[arg-type]

    def added(self, old: _Sum, new: _Sum) -> Statement:
        """A new sum, added to the one that it is a part of."""
        if isinstance(old.target, Local) and isinstance(new.target, Local):
            return Accumulate(old.target, ADD, new.target, old.node)
        dtype = old.target.dtype
        sides = [Local(self.new("v"), dtype), Local(self.new("v"), dtype)]
        total = Local(self.new("v"), dtype)

        def add(lane: Index) -> list[Statement]:
            loads = [Let(v, Load(each.target, lane)) for v, each in zip(sides, (old, new), strict=True)]  # type: ignore[arg-type]
            return [*loads, Let(total, Apply(ADD, EMPTY, tuple(sides))), Store(old.target, lane, total, old.node)]  # type: ignore[arg-type]

        return self.over(old, add)

    def over(self, of: _Sum, body: Callable[[Index], list[Statement]]) -> For:
        """A loop over the elements of a tile."""
        name = self.new("l")
        return For(name, of.width, VECTOR, Block(body(variable(name, 0, of.width - 1))))

    def has_room(self, sums: Sequence[_Sum], terms: int) -> bool:
        """Whether there is room for another tile of each, in each block of blocks of so many terms."""
        levels = math.ceil(math.log(terms, max(2, self.options.terms)))
        return levels * sum(each.target.nbytes for each in sums if isinstance(each.target, Buffer)) <= self.room

    def new(self, letters: str) -> str:
        """A new name."""
        self.number += 1
        return f"{letters}{self.number - 1}"


def _nothing(dtype: np.dtype[Any]) -> Any:
    """What a sum begins with that is to be added to another one: -0.0, of which also the sign is nothing."""
    return dtype.type(complex(-0.0, -0.0) if kind_of(dtype) == "c" else -0.0)


def _sums_of(loop: For) -> Iterator[_Sum]:
    """The sums that a loop adds terms to, and does nothing else with; those of floating and complex numbers."""
    inner = [statement for statement in statements_of(loop) if statement is not loop]
    unknown = {name for s in inner if isinstance(s, While) for name in (*reads_of(s), *writes_of(s))}
    own = {s.local.name for s in inner if isinstance(s, Let)}
    found: dict[str, _Sum] = {}
    for statement in inner:
        if isinstance(statement, Accumulate):
            found.setdefault(statement.local.name, _Sum(statement.local, 1, statement.node))
        elif isinstance(statement, Store) and statement.buffer.role == "tile":
            found.setdefault(statement.buffer.name, _Sum(statement.buffer, statement.buffer.size, statement.node))
    for name, of in found.items():
        if kind_of(of.target.dtype) in "fc" and name not in unknown | own:
            added = _is_added_to(inner, of.target) if isinstance(of.target, Local) else _is_tile_added_to(inner, name)
            if added:
                yield of


def _is_added_to(statements: Sequence[Statement], local: Local) -> bool:
    """Whether statements do nothing with a local but to add to it."""
    for statement in statements:
        if isinstance(statement, Accumulate) and statement.local == local:
            if statement.op is not ADD or statement.value == local:
                return False
        elif local.name in reads_of(statement, inside=False) or _writes(statement, local.name):
            return False
    return True


def _writes(statement: Statement, name: str) -> bool:
    """Whether a statement itself, not what is in it, writes something."""
    return not blocks_of(statement) and name in writes_of(statement)


def _is_tile_added_to(statements: Sequence[Statement], name: str) -> bool:
    """Whether statements do nothing with a tile but to add to its elements, in loops over these."""
    loops = [s for s in statements if isinstance(s, For) and s.kind == VECTOR and _chain(s, name)]
    alone = [inner for loop in loops for inner in loop.body.statements]
    touching = [s for s in statements if name in reads_of(s, inside=False) or _writes(s, name)]
    return bool(loops) and all(any(s is each for each in alone) for s in touching)


def _chain(loop: For, name: str) -> int:
    """How many terms a loop adds to each element of a tile; 0 where it does anything else with it."""
    lane = variable(loop.name, 0, loop.extent - 1)
    kept: list[str] = []  # what the element comes to, term by term, which nothing but the next term may read
    stored = False
    for statement in loop.body.statements:
        if isinstance(statement, Let) and isinstance(statement.value, Load) and statement.value.buffer.name == name:
            if kept or statement.value.at != lane:
                return 0
            kept.append(statement.local.name)
        elif isinstance(statement, Store) and statement.buffer.name == name:
            if stored or statement.at != lane or getattr(statement.value, "name", "") not in kept[-1:]:
                return 0
            stored = True
        elif read := [each for each in reads_of(statement) if each in kept]:
            is_sum = isinstance(statement, Let) and isinstance(statement.value, Apply) and statement.value.op is ADD
            if stored or read != kept[-1:] or not is_sum:
                return 0
            kept += writes_of(statement)
        elif name in (*reads_of(statement), *writes_of(statement)):
            return 0
    return len(kept) - 1 if stored else 0


def _terms(block: Block, of: _Sum) -> int:
    """How many terms a block adds to a sum, or to each element of a tile, at most."""
    total = 0
    for statement in block.statements:
        if isinstance(statement, Accumulate):
            total += statement.local == of.target
        elif isinstance(statement, For):
            is_lanes = of.is_tile and statement.kind == VECTOR
            total += _chain(statement, of.name) if is_lanes else statement.extent * _terms(statement.body, of)
        else:
            total += sum(_terms(inner, of) for inner in blocks_of(statement))
    return total


def _renamed(block: Block, targets: dict[str, Local | Buffer]) -> Block:
    """A block that adds to other sums."""
    return Block([_with(statement, targets) for statement in block.statements])


def _with(statement: Statement, targets: dict[str, Local | Buffer]) -> Statement:
    if isinstance(statement, Accumulate) and statement.local.name in targets:
        return replace(statement, local=targets[statement.local.name])  # type: ignore[arg-type]
    if isinstance(statement, Let) and isinstance(statement.value, Load) and statement.value.buffer.name in targets:
        return replace(statement, value=replace(statement.value, buffer=targets[statement.value.buffer.name]))  # type: ignore[arg-type]
    if isinstance(statement, Store) and statement.buffer.name in targets:
        return replace(statement, buffer=targets[statement.buffer.name])  # type: ignore[arg-type]
    return with_blocks(statement, lambda block: _renamed(block, targets))
