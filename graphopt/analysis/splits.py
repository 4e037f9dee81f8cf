"""How a kernel's work is cut for several cores, read from its loop program.

BATCH: each iteration has a part of every operand for itself, as data-parallel programs do. RESULT: it has a part of the
results, and there is an operand that all iterations read. OPERATOR: it has a part of what an operation combines, a long
sum, say; what the parts come to is combined after.
"""

from __future__ import annotations

from collections.abc import Iterator

from graphopt.ir.loop import Block, Buffer, For, If, Let, Load, LoopProgram, Set, Statement, Store, When, While

BATCH, RESULT, OPERATOR = "batch", "result", "operator"


def split_of(program: LoopProgram, number: int) -> str:
    """How the parallel loop of a phase cuts the work."""
    phase = program.phases[number]
    statements = [s for block in (phase.before, phase.body) for s in _statements(block)]
    written = {s.buffer for s in statements if isinstance(s, Store) and s.buffer.role != "tile"}
    loads = [s.value for s in statements if isinstance(s, Let | Set) and isinstance(s.value, Load)]
    read = {load.buffer for load in loads if load.buffer.role in ("in", "scratch") and load.buffer.size > 1}
    if _are_partial(written, read):
        return OPERATOR
    cut = {load.buffer for load in loads if phase.name in load.at.variables()}
    return BATCH if read <= cut else RESULT


def _are_partial(written: set[Buffer], read: set[Buffer]) -> bool:
    """Whether what is written is for a later phase, and less than what is read."""
    sizes = [max((b.size for b in buffers), default=0) for buffers in (written, read)]
    return bool(written) and all(b.role == "scratch" for b in written) and sizes[0] < sizes[1]


def _statements(block: Block) -> Iterator[Statement]:
    for statement in block.statements:
        yield statement
        if isinstance(statement, For):
            yield from _statements(statement.body)
        elif isinstance(statement, If):
            yield from _statements(statement.then)
            yield from _statements(statement.otherwise)
        elif isinstance(statement, When):
            yield from _statements(statement.then)
        elif isinstance(statement, While):
            yield from _statements(statement.test)
            yield from _statements(statement.body)
