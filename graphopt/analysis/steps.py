"""How long a step of a loop waits for the one before, where what a step computes goes from loop to loop through memory.

Loops over a few elements, and products of small arrays, each need what the one before has stored: their work may be
little, but none begins before that is there.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from graphopt.analysis.latency import FLOATING, FORWARDED_IN_KERNEL, latency
from graphopt.analysis.order import blocks_of, reads_of, writes_of
from graphopt.ir.loop import REDUCTION, Accumulate, Apply, Block, For, Let, Product, Set, Statement, While

IN_TURN, BESIDE = 16, 0.06
"""Elements of a sum that are added one after the other, and nanoseconds of one of more: they are summed in vectors."""

VECTOR, HELD = 64, 4
"""Bytes of a vector, and rows and vectors of a product that are summed at a time, each sum waiting for itself."""

STAGES = 2
"""Loops and products of a step from which on they wait for each other."""


def step_latency(block: Block) -> float:
    """Nanoseconds of a step of a loop whose stages wait for each other; 0 where it has too few of them.

    All are taken to: of those that need not, most share what a core can do at a time.
    """
    stages = [s for s in block.statements if isinstance(s, For | Product | While)]
    return sum(map(_own, stages)) if len(stages) >= STAGES else 0.0


def _way(statements: Iterable[Statement], given: Iterable[str]) -> float:
    """Nanoseconds of the longest way from what is given to anything that is computed of it."""
    ready = dict.fromkeys(given, 0.0)
    longest = 0.0
    for statement in statements:
        since = [ready[name] for name in reads_of(statement) if name in ready]
        if not since:
            continue
        done = max(since) + _own(statement)
        for name in writes_of(statement):
            ready[name] = max(ready.get(name, 0.0), done)  # several may write parts of one array
        longest = max(longest, done)
    return longest


def _own(statement: Statement) -> float:
    """Nanoseconds from what a statement needs to what it gives."""
    if isinstance(statement, Product):
        vectors = -(-statement.columns * statement.to.buffer.dtype.itemsize // VECTOR)
        return FORWARDED_IN_KERNEL + FLOATING * statement.length * -(-vectors // HELD) * -(-statement.rows // HELD)
    if isinstance(statement, Accumulate):
        return latency(statement.op, statement.local.dtype, in_kernel=True)
    if isinstance(statement, Let | Set):
        value = statement.value
        return latency(value.op, statement.local.dtype, in_kernel=True) if isinstance(value, Apply) else 0.0
    inner = [_way(block.statements, _names(block)) for block in blocks_of(statement)]
    if not isinstance(statement, For):
        return sum(inner)
    if statement.kind == REDUCTION:
        return sum(inner) + FLOATING * min(statement.extent, IN_TURN) + BESIDE * max(0, statement.extent - IN_TURN)
    return FORWARDED_IN_KERNEL + sum(inner)


def _names(block: Block) -> set[str]:
    return {name for statement in _within(block) for name in reads_of(statement, inside=False)}


def _within(block: Block) -> Iterator[Statement]:
    """All statements of a block, those in others too."""
    for statement in block.statements:
        yield statement
        for inner in blocks_of(statement):
            yield from _within(inner)
