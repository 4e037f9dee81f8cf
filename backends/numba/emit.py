"""A loop program as Numba source: one function, with the user's line beside each statement that comes from one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from graphopt.analysis.access import Within
from graphopt.analysis.order import blocks_of
from graphopt.analysis.reductions import ADD, MUL
from graphopt.analysis.summed import factors_of, summed
from graphopt.backends.numba.scalar import CONVERT, applied, expression, is_float, value_source
from graphopt.ir.attrs import EMPTY
from graphopt.ir.index import Index, Quotient, Variable
from graphopt.ir.loop import (
    SORT_STEPS,
    VECTOR,
    Accumulate,
    Apply,
    Block,
    Buffer,
    Bypass,
    Expression,
    Fetch,
    For,
    If,
    Let,
    Load,
    LoopProgram,
    Phase,
    Position,
    Product,
    Set,
    Sort,
    SortStep,
    Statement,
    Store,
    Test,
    When,
    While,
    table_size,
)
from graphopt.ir.node import Node

INDENT = "    "

LINE = 64
"""Bytes of a line of memory."""

SHORT = 64
"""Steps of a vector loop that LLVM would unroll before it makes vectors, and then makes none, if it knew how many."""


def source_of(program: LoopProgram, any_order: bool, place: Callable[[Node], str] = lambda node: "") -> str:
    """The source of `kernel(buffers, phase, start, stop)`, which runs iterations start to stop of a phase.

    any_order: whether the sums and products of a reduction may be reordered, which lets it be vectorized.
    place: the user's line that a node comes from, or nothing.
    """
    lines = ["def kernel(buffers, phase, start, stop):"]
    over = {operand.name for operand, _ in program.in_place}
    for number, buffer in enumerate(program.buffers):
        if buffer.name in over:
            continue
        if buffer.role == "tile":
            lines.append(f"{INDENT}{buffer.name} = tile_{buffer.dtype.name}({buffer.size})")
        else:
            lines.append(f"{INDENT}{buffer.name} = buffer(buffers, {number})")
    # One name for one memory: LLVM needs no check of whether the two overlap.
    lines += [f"{INDENT}{operand.name} = {result.name}" for operand, result in program.in_place]
    writer = _Writer(any_order, place, over, summed(program)[0] if any_order else set())
    for number, phase in enumerate(program.phases):
        test = f"{INDENT}{'if' if number == 0 else 'elif'} phase == {number}:"
        lines += [test, *(2 * INDENT + line for line in writer.phase(phase))]
    return "\n".join([*lines, f"{INDENT}return np.uint64(0)", ""])


class _Writer:
    def __init__(self, any_order: bool, place: Callable[[Node], str], over: set[str], summed: set[str]) -> None:
        self.any_order = any_order
        self.over = over  # operands that are written over
        self.summed = summed  # values that only go into a sum
        self.place = place

    def phase(self, phase: Phase) -> Iterator[str]:
        yield from self.statements(phase.before)
        yield f"for {phase.name} in range(start, stop):"
        yield from self.block(phase.body)
        if _has_bypass(phase.body):
            yield "drain()"

    def block(self, block: Block) -> Iterator[str]:
        yield from (INDENT + line for line in self.statements(block))
        if not block.statements:
            yield INDENT + "pass"

    def statements(self, block: Block) -> Iterator[str]:
        for statement in block.statements:
            yield from self.statement(statement)

    def statement(self, statement: Statement) -> Iterator[str]:
        if isinstance(statement, Let | Set | Accumulate | Store):
            place = self.place(statement.node) if statement.node is not None else ""
            yield f"{self.simple(statement)}  # {place}" if place else self.simple(statement)
        elif isinstance(statement, For):
            yield f"for {statement.name} in range({bounds(statement)}):"
            yield from self.block(statement.body)
        elif isinstance(statement, If):
            yield from self.condition(statement)
        elif isinstance(statement, While):
            yield "while True:"
            yield from self.block(statement.test)
            yield f"{INDENT}if not {value_source(statement.condition)}:"
            yield 2 * INDENT + "break"
            yield from self.block(statement.body)
        elif isinstance(statement, When):
            yield f"if {value_source(statement.condition)}:"
            yield from self.block(statement.then)
        elif isinstance(statement, Sort):
            yield self.sort(statement)
        elif isinstance(statement, SortStep):
            yield self.sort_step(statement)
        elif isinstance(statement, Product):
            yield self.product(statement)
        elif isinstance(statement, Fetch):
            size = statement.buffer.dtype.itemsize
            yield f"for ahead in range({-(-statement.count * size // LINE)}):"
            yield f"{INDENT}fetch({statement.buffer.name}, {index(statement.at * size)} + {LINE} * ahead)"
        elif isinstance(statement, Bypass):
            yield self.bypass(statement)
        else:
            keys, places = statement.keys, statement.places
            ranges = f"{index(statement.at)}, {statement.count}, {places.name}, {index(statement.to)}, {statement.k}"
            yield f"smallest_{keys.dtype.name}({keys.name}, {ranges})"

    def simple(self, statement: Let | Set | Accumulate | Store) -> str:
        if isinstance(statement, Store):
            buffer = statement.buffer
            return f"write_{buffer.dtype.name}({buffer.name}, {index(statement.at)}, {value_source(statement.value)})"
        if isinstance(statement, Accumulate):
            return f"{statement.local.name} = {self.accumulated(statement)}"
        if statement.local.name in self.summed and (factors := factors_of(statement.value)):
            return f"{statement.local.name} = mul_to_add({', '.join(map(value_source, factors))})"
        return f"{statement.local.name} = {self.expression(statement.value, statement.local.dtype)}"

    def product(self, statement: Product) -> str:
        matrices = (statement.to, statement.left, statement.right)
        where = [f"{matrix.buffer.name}, {index(matrix.at)}" for matrix in matrices]
        steps = [statement.to.steps[0], *statement.left.steps, statement.right.steps[0]]
        numbers = [statement.rows, statement.columns, statement.length, *steps, int(statement.adds)]
        place = self.place(statement.node) if statement.node is not None else ""
        source = f"product_{statement.to.buffer.dtype.name}({', '.join([*where, *map(str, numbers)])})"
        return f"{source}  # {place}" if place else source

    @staticmethod
    def bypass(statement: Bypass) -> str:
        buffer, at, size = statement.buffer, statement.at, statement.buffer.dtype.itemsize
        count = str(statement.count * size)
        if at.high + statement.count > buffer.size:
            count = f"min({count}, {index(at * -size + buffer.size * size)})"
        return f"bypass({buffer.name}, {index(at * size)}, {statement.tile.name}, {count})"

    @staticmethod
    def sort(statement: Sort) -> str:
        keys, places = statement.keys, statement.places
        if statement.lanes > 1:
            name = f"sort_{'rows' if statement.by_rows else 'beside'}_{keys.dtype.name}"
            return f"{name}({keys.name}, {index(statement.at)}, {statement.count})"
        name = f"sort_{keys.dtype.name}" if places is None else f"sort_places_{keys.dtype.name}"
        return f"{name}({keys.name}, {(places or keys).name}, {index(statement.at)}, {statement.count})"

    @staticmethod
    def sort_step(statement: SortStep) -> str:
        pairs = [statement.keys.name]
        name = statement.step
        if name in SORT_STEPS[2:]:  # keys are moved, and what goes with them
            name += "_places" if statement.places is not None else ""
            of = (statement.keys, statement.places, statement.to_keys, statement.to_places)
            pairs = [(buffer or statement.keys).name for buffer in of]
        if statement.step == SORT_STEPS[3]:  # from where the one before has put them
            pairs = [*pairs[2:], *pairs[:2]]
        row = f"{index(statement.row * statement.count)}, {statement.count}"
        table = f"{statement.table.name}, {index(statement.row * table_size(statement.shares))}"
        share = f"{index(statement.share)}, {statement.shares}"
        return f"{name}_{statement.keys.dtype.name}({', '.join(pairs)}, {row}, {table}, {share})"

    def condition(self, statement: If) -> Iterator[str]:
        yield f"if {' and '.join(tests_of(statement.within))}:"
        yield from self.block(statement.then)
        if statement.otherwise.statements:
            yield "else:"
            yield from self.block(statement.otherwise)

    def accumulated(self, statement: Accumulate) -> str:
        local, value = statement.local, value_source(statement.value)
        if self.any_order and is_float(local.dtype) and statement.op in (ADD, MUL):
            name = "add_any_order" if statement.op is ADD else "mul_any_order"
            return f"{name}({local.name}, {value})"
        if self.any_order and local.dtype.kind == "c" and statement.op is ADD:
            return f"complex_add_any_order({local.name}, {value})"
        return applied(Apply(statement.op, EMPTY, (local, statement.value)), local.dtype)

    def expression(self, value: Expression, dtype: np.dtype[Any]) -> str:
        if isinstance(value, Load):
            return self.load(value.buffer, value.at)
        if isinstance(value, Apply):
            return applied(value, dtype)
        if isinstance(value, Position):
            return self.converted(index(value.at), np.dtype(np.int64), dtype)
        if isinstance(value, Test):
            return " & ".join(f"({test})" for test in tests_of(value.within)) or "True"
        return value_source(value)

    @staticmethod
    def converted(source: str, of: np.dtype[Any], to: np.dtype[Any]) -> str:
        found = expression(CONVERT, EMPTY, (of,), to, (source,))
        assert found is not None, (of, to)
        return found

    def load(self, buffer: Buffer, at: Index) -> str:
        kind = "input" if buffer.role == "in" and buffer.name not in self.over else "read"
        return f"{kind}_{buffer.dtype.name}({buffer.name}, {index(at)})"


def _has_bypass(block: Block) -> bool:
    return any(isinstance(s, Bypass) or any(map(_has_bypass, blocks_of(s))) for s in block.statements)


def tests_of(within: Within) -> list[str]:
    """Conditions as source, without those that always hold."""
    tests = []
    for at, low, high in within:
        text = index(at)
        if at.low < low:
            tests.append(f"{text} >= {low}")
        if at.high >= high:
            tests.append(f"{text} < {high}")
    return tests


def bounds(loop: For) -> str:
    """The values of a loop's variable that its conditions allow, as the arguments of `range`."""
    starts, stops = [], []
    for at, low, high in loop.within:
        factor = at.coefficient(loop.name)
        assert factor, loop.within
        rest = Index(tuple((a, c) for a, c in at.terms if a != Variable(loop.name, a.low, a.high)), at.number)
        if factor > 0:
            least, end = rest * -1 + (low + factor - 1), rest * -1 + (high + factor - 1)
        else:
            least, end = rest - (high + factor), rest - (low + factor)
        starts.append(least // abs(factor))
        stops.append(end // abs(factor))
    start = ", ".join(index(at) for at in starts if at.high > 0)
    stop = ", ".join(index(at) for at in stops if at.low < loop.extent)
    to = f"min({loop.extent}, {stop})" if stop else str(loop.extent)
    if loop.kind == VECTOR and loop.extent <= SHORT:
        to = f"opaque({to})"
    return f"max(0, {start}), {to}" if start else to


def index(at: Index) -> str:
    """An index expression as source."""
    parts = []
    for atom, coefficient in at.terms:
        if isinstance(atom, Variable):
            text = atom.name
        else:
            text = f"(({index(atom.of)}) {'//' if isinstance(atom, Quotient) else '%'} {atom.by})"
        parts.append(text if coefficient == 1 else f"{coefficient} * {text}")
    if at.number or not parts:
        parts.append(str(at.number))
    return " + ".join(parts)
