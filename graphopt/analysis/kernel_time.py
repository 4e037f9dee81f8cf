"""How long a kernel takes, predicted from its loop program: operations, loads by stride, loops too short for vectors.

Where the code is of a kind whose speed is hard to know (conditions, quotients in indices, columns read one by one) the
prediction is on the slow side: in doubt a kernel must not be chosen.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jax.extend.core import primitives as p

from graphopt.analysis.access import Within
from graphopt.analysis.latency import FORWARDED_IN_KERNEL, FUNCTIONS, Computed, chain, latency
from graphopt.analysis.machine import FRESH, Machine, threads_for
from graphopt.analysis.order import blocks_of
from graphopt.analysis.placed import Placed, placed
from graphopt.analysis.reductions import MAX, MIN
from graphopt.analysis.sorting_time import sorting_time
from graphopt.analysis.steps import step_latency
from graphopt.ir.index import Index, Variable
from graphopt.ir.loop import (
    SERIAL,
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
    Literal,
    Load,
    Local,
    LoopProgram,
    Phase,
    Position,
    Product,
    Set,
    Smallest,
    Sort,
    SortStep,
    Statement,
    Store,
    Value,
    While,
)
from graphopt.ir.loop import VECTOR as VECTOR_LOOP
from graphopt.ir.op import Op, op_of

SQRT, DIV, REM, POW, MUL = (op_of(primitive) for primitive in (p.sqrt_p, p.div_p, p.rem_p, p.pow_p, p.mul_p))

Cost = Callable[[Op, np.dtype[Any]], float]
"""Nanoseconds that a core takes for one element of a scalar operation, in a loop that is vectorized."""

VECTOR = 64
"""Bytes of a vector."""

MOVE = 0.008
"""Nanoseconds of a byte that is loaded or stored, in a loop that is vectorized."""

NEAR, AGAIN, MOVE_NEAR = 1 << 19, 8, 0.005
"""Bytes of a buffer that stays in a core's caches, how often each of its elements is read for that, and what takes the
place of MOVE then."""

MOVE_AGAIN = 0.002
"""And where the loop around the innermost one reads the same elements with each step: they stay in the first cache."""

BYPASSED = 0.5
"""What a byte that is written past the caches takes of one that is not: its line is not read first. 16 MB read and 16
written take 0.6 ms, and 0.9 as usual."""

IN_REGISTERS = 0.5
"""What operations take in a loop that reads nothing else, of what they take where memory is waited for."""

SCALAR = 8.0
"""What an operation takes in a loop that is not vectorized, of what it takes in one that is; float32."""

LEFT = 6.0
"""And an element that is left where a short vectorized loop is run again and again: 24 gates take as long as 48."""

GATHERED, MISSED = 0.6, 2.5
"""Nanoseconds of an element loaded from another line than the one before: in a core's caches, and outside of them."""

ACROSS, TILE = 0.1, 1 << 15
"""And of one from the next row of a tile of up to so many bytes."""

DIVIDED = 1.0
"""Nanoseconds of a quotient or remainder in an index."""

BRANCH, FORESEEN = 0.7, 0.1
"""Nanoseconds of a condition, and of one on loop variables alone: it holds for a stretch of steps."""

LOOKED_UP, LOOKED_FAR, FOUND_AGAIN = (0.4, 0.2), 1.2, 0.12
"""Nanoseconds of an element loaded from where a step has found that it is: of an operand in a core's caches, in vectors
and one by one, and outside of them; and of what is written there again."""

CHECKED = 0.05
"""Nanoseconds of asking whether such a place is in bounds, which it nearly always is."""

ONE_BY_ONE, SIMPLE = 3.0, 0.02
"""What an operation takes in a loop that writes to such places, and is in no vectors, of what it takes in one that is,
where that is up to so many nanoseconds of four bytes; others take SCALAR."""

CHAINED = 2.5
"""Nanoseconds of a greatest or least number of two, where each waits for the one before."""

LOOP = 4.0
"""Nanoseconds of beginning and ending a loop."""

SHORT_LOOP, SHORT = 1.5, 64
"""And of an innermost one that is always as long, of up to so many steps: LLVM writes it out."""

GUESSED = 10
"""How often what is repeated under a condition is taken to run: nobody knows."""

FETCHED = 0.15
"""Nanoseconds of a line of memory that is asked for before it is needed."""

BY_A_NUMBER = 8
"""As how many operations one counts that divides integers by a known number: a compiler makes products and shifts."""


@dataclass(frozen=True, slots=True)
class Work:
    """What one run of a loop program does.

    flops: scalar operations. core: nanoseconds on one core. bytes: of operands, results and scratch, each once.
    """

    flops: int
    core: float
    bytes: int


def work_of(program: LoopProgram, cost: Cost, machine: Machine) -> Work:
    """The work of all phases together."""
    phases = [_phase(phase, cost, machine) for phase in program.phases]
    size = sum(buffer.nbytes for buffer in program.buffers)
    return Work(sum(p.flops for p in phases), sum(p.core for p in phases), size)


def core_times(program: LoopProgram, cost: Cost, machine: Machine) -> list[float]:
    """Nanoseconds that each phase takes on one core."""
    return [_phase(phase, cost, machine).core for phase in program.phases]


def kernel_time(program: LoopProgram, cost: Cost, machine: Machine) -> float:
    """Nanoseconds that one run is expected to take with all threads, its call included."""
    total = machine.call
    core = dict(zip(map(id, program.phases), core_times(program, cost, machine), strict=True))
    for stage in program.stages:
        times = [core[id(phase)] for phase in stage]
        threads = [_threads(phase, time, machine) for phase, time in zip(stage, times, strict=True)]
        together = max(time / count for time, count in zip(times, threads, strict=True))
        most = min(machine.threads, sum(threads))
        total += max(together, sum(times) / most) + (machine.wake if most > 1 else 0.0)
    past = _bypassed(program)
    sizes = [BYPASSED * buffer.nbytes if buffer in past else buffer.nbytes for buffer in program.buffers]
    total = max(total, machine.moving(round(sum(sizes)), machine.threads))
    fresh = sum(b.nbytes for b in program.buffers if b.role in ("out", "scratch"))
    return total + (fresh / machine.huge_rate if fresh >= FRESH else 0.0)


def _bypassed(program: LoopProgram) -> set[Buffer]:
    """What is written past the caches."""
    found: set[Buffer] = set()
    blocks = [phase.body for phase in program.phases]
    while blocks:
        statements = blocks.pop().statements
        found |= {statement.buffer for statement in statements if isinstance(statement, Bypass)}
        blocks += [inner for statement in statements for inner in blocks_of(statement)]
    return found


def product_time(statement: Product, machine: Machine) -> float:
    """Nanoseconds in which two tiles are multiplied."""
    size = statement.to.buffer.dtype.itemsize
    lanes = VECTOR // size * -(-statement.columns * size // VECTOR)
    return machine.multiplying(2 * statement.rows * statement.length * lanes, size)


def phase_threads(program: LoopProgram, cost: Cost, machine: Machine) -> tuple[float, ...]:
    """How many threads share each phase."""
    pairs = zip(program.phases, core_times(program, cost, machine), strict=True)
    return tuple(_threads(phase, core, machine) for phase, core in pairs)


def _threads(phase: Phase, core: float, machine: Machine) -> float:
    return min(threads_for(core, machine), max(1.0, phase.extent / max(phase.grain, 1)))


def _phase(phase: Phase, cost: Cost, machine: Machine) -> Work:
    walk = _Walk(cost, machine, phase.extent == 1)
    walk.block(phase.before, -(-phase.extent // max(phase.grain, 1)), "", 1)
    walk.around.append(phase.name)
    walk.placed = placed(phase.body)
    walk.block(phase.body, phase.extent, phase.name, phase.extent)
    return Work(round(walk.flops), walk.core, 0)


class _Walk:
    def __init__(self, cost: Cost, machine: Machine, is_alone: bool = False) -> None:
        """is_alone: whether a phase has one iteration, whose loops may wait for each other's results."""
        self.cost = cost
        self.machine = machine
        self.is_alone = is_alone
        self.flops = 0.0
        self.core = 0.0
        self.share = 1.0
        self.carries = False  # whether the steps around wait for each other, through memory
        self.around: list[str] = []  # the loop variables, from the outermost one to the innermost one
        self.placed = Placed()  # what a step of the innermost one finds

    def block(self, block: Block, times: float, variable: str, extent: int) -> None:
        """Adds what a block takes that is run so often. variable: of the innermost loop around it, of that extent."""
        waited = _waited(block, variable)
        is_innermost = not waited and not any(
            isinstance(s, For | Sort | SortStep | Smallest | Product | While) for s in block.statements
        )
        loads = [s.value for s in block.statements if isinstance(s, Let) and isinstance(s.value, Load)]
        is_near = is_innermost and all(_is_read_again(load.buffer, times) for load in loads)
        outside, self.share = self.share, IN_REGISTERS if is_near and loads else 1.0
        before, forwarded, carried = self.core, _forwarded(block, variable), self.carries
        self.carries = carried or forwarded > 0.0
        for statement in block.statements:
            self.statement(statement, times, variable, extent, is_innermost)
        self.core = max(self.core, before + times * max(waited, forwarded))
        self.share, self.carries = outside, carried

    def statement(self, statement: Statement, times: float, variable: str, extent: int, vectors: bool) -> None:
        if isinstance(statement, For):
            self.core += times * (SHORT_LOOP if _is_written_out(statement) else LOOP)
            self.around.append(statement.name)
            outside, self.placed = self.placed, placed(statement.body)
            steps = max(1, round(statement.extent * _share(statement.within)))
            before = self.core
            self.block(statement.body, times * steps, statement.name, steps)
            if self.is_alone and statement.kind == SERIAL:
                self.core = max(self.core, before + times * steps * step_latency(statement.body))
            self.around.pop()
            self.placed = outside
        elif isinstance(statement, If):
            foreseen = all(set(at.variables()) <= set(self.around) for at, _, _ in statement.within)
            in_bounds = all(set(at.variables()) <= self.placed.found for at, _, _ in statement.within)
            self.core += times * (CHECKED if in_bounds else FORESEEN if foreseen else BRANCH)
            for at, _, _ in statement.within:
                self.divided(at, times, variable, extent)
            share = 1.0 if in_bounds else _share(statement.within) if foreseen else 0.5
            for block, part in ((statement.then, share), (statement.otherwise, 1 - share)):
                self.block(block, times * part, variable, extent)
        elif isinstance(statement, While):
            before = self.core
            for block in (statement.test, statement.body):
                self.block(block, times * GUESSED, variable, extent)
            if self.is_alone:
                self.core = max(self.core, before + times * GUESSED * step_latency(statement.body))
        elif isinstance(statement, Sort | SortStep | Smallest):
            self.core += times * sorting_time(statement)
        elif isinstance(statement, Product):
            self.flops += times * 2 * statement.rows * statement.columns * statement.length
            self.core += times * product_time(statement, self.machine)
        elif isinstance(statement, Fetch):
            self.core += times * FETCHED * statement.count * statement.buffer.dtype.itemsize / VECTOR
        elif isinstance(statement, Bypass):
            self.core += times * MOVE_NEAR * statement.count * statement.buffer.dtype.itemsize
        elif isinstance(statement, Let | Set):
            self.expression(statement.value, statement.local.dtype, times, variable, extent, vectors)
        elif isinstance(statement, Accumulate):
            self.apply(statement.op, statement.local.dtype, times, extent, vectors)
            if statement.op in (MAX, MIN) and statement.local.dtype.kind == "f":
                # Interleaved four times; what is left over waits for one comparison after the other.
                left = extent % (4 * VECTOR // statement.local.dtype.itemsize)
                self.core += times / extent * left * CHAINED
        elif isinstance(statement, Store):
            self.memory(statement.at, statement.buffer, times, variable, extent, vectors)
        else:
            self.core += times * BRANCH
            self.block(statement.then, times / 2, variable, extent)

    def expression(
        self, value: Expression, dtype: np.dtype[Any], times: float, variable: str, extent: int, vectors: bool
    ) -> None:
        if isinstance(value, Load):
            self.memory(value.at, value.buffer, times, variable, extent, vectors, is_load=True)
        elif isinstance(value, Apply):
            of = value.values[-1].dtype if value.values else dtype
            if value.op is POW and _is_half(value.values[1]):
                self.apply(SQRT, dtype, times, extent, vectors)
                self.apply(DIV, dtype, times, extent, vectors)
                return
            if is_by_a_number(value):
                self.apply(MUL, dtype, BY_A_NUMBER * times, extent, vectors)
                return
            self.apply(value.op, max(of, dtype, key=lambda d: d.itemsize), times, extent, vectors)
        elif isinstance(value, Position):
            self.divided(value.at, times, variable, extent)

    def divided(self, at: Index, times: float, variable: str, extent: int) -> None:
        """Quotients and remainders in an index: those without the innermost loop's variable are found before it."""
        inside = at.divisions(variable)
        self.core += DIVIDED * times * (inside + (at.divisions() - inside) / max(extent, 1))

    def apply(self, op: Op, dtype: np.dtype[Any], times: float, extent: int, vectors: bool) -> None:
        self.flops += times
        share = 1.0 if self.carries and op in FUNCTIONS else self.share
        cost = self.cost(op, dtype)
        if vectors and self.placed.scatters:
            slowdown = ONE_BY_ONE if cost <= SIMPLE * dtype.itemsize / 4 else _slowdown(dtype, extent, False, False)
        else:
            slowdown = _slowdown(dtype, extent, vectors, self.carries)
        self.core += times * share * cost * slowdown

    def memory(
        self, at: Index, buffer: Buffer, times: float, variable: str, extent: int, vectors: bool, is_load: bool = False
    ) -> None:
        """One element loaded or stored."""
        dtype, size = buffer.dtype, buffer.size
        self.divided(at, times, variable, extent)
        if is_load and self.placed.holds(at):
            far = LOOKED_FAR if buffer.nbytes > NEAR else LOOKED_UP[self.placed.scatters]
            self.core += times * (far if buffer.role == "in" else FOUND_AGAIN)
            return
        step = abs(_stride(at, variable))
        near = MOVE_AGAIN if len(self.around) > 1 and self.around[-2] not in at.variables() else MOVE_NEAR
        move = (near if _is_read_again(buffer, times) else MOVE) * dtype.itemsize
        # What one thread goes through again and again stays in the first cache, in whatever order.
        if step <= 1 or (self.is_alone and buffer.nbytes <= TILE):
            self.core += times * move * _slowdown(dtype, extent, vectors, self.carries)
        elif step * move < GATHERED and vectors and extent >= VECTOR // dtype.itemsize:
            # A vector is put together from `step` others, most of which its neighbours need too.
            self.core += times * move * step
        elif buffer.role == "tile" and buffer.nbytes <= TILE and vectors:
            self.core += times * ACROSS * _slowdown(dtype, extent, vectors, self.carries)
        else:
            # Of a few columns the lines of one step of the loop around are there for the next one.
            beside = len(self.around) > 1 and extent <= SHORT and abs(_stride(at, self.around[-2])) == 1
            lies_far = step * dtype.itemsize >= VECTOR and size * dtype.itemsize > (1 << 19) and not beside
            self.core += times * (MISSED if lies_far else GATHERED)


def _share(within: Within) -> float:
    """Of how many iterations conditions hold, where each is on one loop variable; 1 where they are on several."""
    share = 1.0
    for at, low, high in within:
        if len(at.terms) == 1 and isinstance(at.terms[0][0], Variable):
            factor = abs(at.terms[0][1])
            share *= max(0, min(at.high, high - 1) - max(at.low, low) + factor) / (at.high - at.low + factor)
    return share


def _is_read_again(buffer: Buffer, times: float) -> bool:
    """Whether a buffer is in a core's caches for most of the reads of a statement that is run so often."""
    return buffer.nbytes <= NEAR and times >= AGAIN * buffer.size


def _slowdown(dtype: np.dtype[Any], extent: int, vectors: bool, again: bool) -> float:
    """What an operation takes of what it takes in a long vectorized loop: more where vectors are not filled.

    again: whether the loop is run again and again, so that its beginnings are hidden behind the ends before them: it is
    known of floating numbers.
    """
    lanes = VECTOR // max(dtype.itemsize, 4)
    if again and vectors and extent >= lanes and dtype.kind == "f" and dtype.itemsize >= 4:
        return 1.0 + (LEFT - 1.0) * (extent % lanes) / extent
    if not vectors:
        return SCALAR * 4 / max(dtype.itemsize, 4)
    return SCALAR * 4 / max(dtype.itemsize, 4) if extent < lanes else 1.0 + lanes / extent


def _waited(block: Block, variable: str) -> float:
    """Nanoseconds that a step waits for the one before: of the longest way to a local that it sets, from one."""
    names = {s.local.name for s in block.statements if isinstance(s, Set)}
    return chain(_computed(block.statements, variable), [(name, name) for name in names]) if names else 0.0


def _forwarded(block: Block, variable: str) -> float:
    """And of the longest way to a place in a tile that it writes, from one, through vectors of elements.

    variable: of the loop whose steps these are.
    """
    statements: list[Statement] = []
    for statement in block.statements:
        is_vector = isinstance(statement, For) and statement.kind == VECTOR_LOOP
        statements += statement.body.statements if isinstance(statement, For) and is_vector else [statement]
    steps = list(_computed(statements, variable))
    places = {result for result, _, _ in steps if isinstance(result, tuple)}
    return chain(steps, [(place, place) for place in places]) if places else 0.0


def _computed(statements: Sequence[Statement], variable: str) -> Iterator[Computed]:
    """What some statements compute: locals by their names, places in tiles that are the same in each step."""
    for statement in statements:
        if isinstance(statement, Store):
            if statement.buffer.role == "tile" and variable not in statement.at.variables():
                yield (statement.buffer, statement.at), _names((statement.value,)), FORWARDED_IN_KERNEL
        elif isinstance(statement, Let | Set):
            value, dtype = statement.value, statement.local.dtype
            if isinstance(value, Apply):
                yield statement.local.name, _names(value.values), latency(value.op, dtype, in_kernel=True)
            elif isinstance(value, Load):
                yield statement.local.name, ((value.buffer, value.at),), 0.0
            else:
                yield statement.local.name, _names((value,)), 0.0


def _names(values: Iterable[object]) -> list[str]:
    return [value.name for value in values if isinstance(value, Local)]


def _is_written_out(loop: For) -> bool:
    """Whether a loop is short, always as long, and has none in it."""
    return loop.extent <= SHORT and not loop.within and not any(isinstance(s, For) for s in loop.body.statements)


def is_by_a_number(value: Apply) -> bool:
    """Whether integers are divided by a known number, or the remainder of that is taken."""
    return value.op in (DIV, REM) and value.values[0].dtype.kind in "iu" and isinstance(value.values[1], Literal)


def _is_half(exponent: Value) -> bool:
    """Whether a power with this exponent is a root and a few products."""
    return isinstance(exponent, Literal) and abs(float(exponent.value)) in (0.5, 1.5, 2.5)


def _stride(at: Index, variable: str) -> int:
    """By how many elements an index moves with a loop variable; a quotient or remainder in it counts as far."""
    for atom, coefficient in at.terms:
        if isinstance(atom, Variable):
            if atom.name == variable:
                return coefficient
        elif variable in atom.of.variables():
            return 1 << 16
    return 0
