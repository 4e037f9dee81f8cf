"""Results that are written over an operand which nobody needs afterwards: the same memory, and less of it to write.

That is right where each element of the operand is read before the result's element at the same place is written, and
by the same iteration. Of an update of a slice only the slice is written then.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from jax.extend.core import primitives as p

from graphopt.analysis.access import Indices
from graphopt.analysis.derive import Derivation
from graphopt.analysis.indexed import starts_of_update
from graphopt.analysis.order import blocks_of, reads_of, writes_of
from graphopt.ir.index import Index, delinear, linear
from graphopt.ir.loop import Buffer, Let, Load, LoopProgram, Phase, Statement, Store
from graphopt.ir.op import op_of

UPDATE = op_of(p.dynamic_update_slice_p)


def is_update_in_place(derivation: Derivation) -> bool:
    """Whether the only result is an update of a slice of the operand that it is written over."""
    (node, *others) = derivation.body.outputs
    return not others and node.op is UPDATE and node.inputs[0] in derivation.in_place


def write_update(derivation: Derivation) -> None:
    """The phase that writes the slice."""
    (node,), (out,) = derivation.body.outputs, derivation.outputs
    shape = node.inputs[1].aval.shape

    def write(index: Index) -> None:
        def store(inner: Indices) -> None:
            at = (*delinear(index, shape[:-1]), *inner)
            starts = starts_of_update(node, derivation)
            to = linear(tuple(i + s for i, s in zip(at, starts, strict=True)), node.aval.shape)
            derivation.add(Store(out, to, derivation.value(node.inputs[1], at)))

        derivation.loops(shape[-1:], store, False)

    derivation.phase(math.prod(shape[:-1]), write)


def is_right(program: LoopProgram, operand: Buffer, result: Buffer) -> bool:
    """Whether a result may be written over an operand."""
    written = False
    for phase in program.phases:
        statements = list(_statements([*phase.before.statements, *phase.body.statements]))
        stores = {s.at: k for k, s in enumerate(statements) if isinstance(s, Store) and s.buffer == result}
        writes = any(result.name in writes_of(s) for s in statements)
        for number, statement in enumerate(statements):
            if operand.name not in reads_of(statement, inside=False):
                continue
            load = statement.value if isinstance(statement, Let) else None
            # Of what is not loaded element by element, a product's factor say, other iterations may read any.
            is_own = isinstance(load, Load) and stores.get(load.at, -1) >= number and not _is_anywhere(load.at, phase)
            if written or (writes and not is_own):
                return False
        written = written or writes
    return True


def _is_anywhere(at: Index, phase: Phase) -> bool:
    """Whether a place is not one of each iteration's own: it was loaded by the iteration, and two may load the same."""
    return any(isinstance(s, Let) and s.local.name in at.variables() for s in _statements(phase.body.statements))


def _statements(statements: list[Statement]) -> Iterator[Statement]:
    """All statements, in the order of the text."""
    for statement in statements:
        yield statement
        for block in blocks_of(statement):
            yield from _statements(block.statements)
