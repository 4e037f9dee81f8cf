"""Reciprocals: what a loop divides by the same number each time, it multiplies by that number's reciprocal.

Processors divide about a tenth as often as they multiply. XLA does the same wherever a divisor is broadcast (its
algebraic simplifier): results have the bits of its results, each rounded twice, and nothing is left of a quotient by
what has no reciprocal that is a normal number.

Before:
    parallel i1 < 8:
      ...
      serial j5 < 100:
        x6: f32 = in0[100 * i1 + j5]
        v7: f32 = div(x6, a2)
        out0[100 * i1 + j5] = v7
After:
    parallel i1 < 8:
      ...
      v8: f32 = div(1.0, a2)
      serial j5 < 100:
        x6: f32 = in0[100 * i1 + j5]
        v7: f32 = mul(x6, v8)
        out0[100 * i1 + j5] = v7
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from jax.extend.core import primitives as p

from graphopt.analysis.order import blocks_of, writes_of
from graphopt.analysis.substitute import with_blocks
from graphopt.ir.attrs import EMPTY
from graphopt.ir.loop import Apply, Block, For, Let, Literal, Local, LoopProgram, Phase, Statement
from graphopt.ir.op import op_of
from graphopt.ops.make import BROADCAST
from graphopt.rewrite.passes import counted

DIV, MUL = op_of(p.div_p), op_of(p.mul_p)

DTYPES = (np.dtype(np.float32), np.dtype(np.float64))
"""Those of less digits would lose too many of them, and complex numbers divide in another way."""


@dataclass(frozen=True)
class Reciprocal:
    """Computes reciprocals before the loops that divide by what was broadcast to what they go over."""

    name = "reciprocal"

    def run(self, program: LoopProgram) -> tuple[LoopProgram, tuple[str, ...]]:
        """The program with quotients that are rounded as XLA's, and how many there are, as text."""
        numbers = re.findall(r"\b(?:[aijlrvx]|tile)(\d+)", str(program))
        writer = _Writer(1 + max(map(int, numbers), default=0))
        phases = tuple([writer.phase(phase) for phase in program.phases])
        if not writer.done:
            return program, ()
        said = f"{counted(writer.done, 'division')} by the same number each time, made a product by its reciprocal"
        return replace(program, phases=phases), (said,)


@dataclass(slots=True)
class _Writer:
    """number: of the next new name. done: divisions that are gone."""

    number: int
    done: int = field(default=0, init=False)

    def phase(self, phase: Phase) -> Phase:
        """A phase: what stands before its iterations is the same in all of them."""
        before = self.block(phase.before, {})
        lets, known = self.reciprocals(phase.body, {})
        return replace(phase, before=Block([*before.statements, *lets]), body=self.block(phase.body, known))

    def block(self, block: Block, known: Mapping[str, Local]) -> Block:
        """A block with a reciprocal before each loop that divides by what it does not change.

        known: reciprocals by the names of their numbers.
        """
        statements: list[Statement] = []
        for statement in block.statements:
            lets, inside = self.reciprocals(statement.body, known) if isinstance(statement, For) else ([], known)
            new = self.quotient(statement, known) if isinstance(statement, Let) else statement
            statements += [*lets, with_blocks(new, lambda inner, inside=inside: self.block(inner, inside))]  # type: ignore[misc]
        return Block(statements)

    def reciprocals(self, body: Block, known: Mapping[str, Local]) -> tuple[list[Let], dict[str, Local]]:
        """What is to be computed before a loop with such a body, and the reciprocals that are known in it."""
        changed = {name for statement in body.statements for name in writes_of(statement)}
        found = {name: local for name, local in known.items() if name not in changed}
        lets: list[Let] = []
        for let, divisor in _divisions(body):
            if divisor.name not in changed and divisor.name not in found:
                found[divisor.name] = local = Local(f"v{self.number}", divisor.dtype)
                self.number += 1
                one = Literal(divisor.dtype.type(1))
                lets.append(Let(local, Apply(DIV, EMPTY, (one, divisor)), let.node))
        return lets, found

    def quotient(self, let: Let, known: Mapping[str, Local]) -> Let:
        """A division, by the reciprocal if that is known."""
        divisor = _divisor(let)
        if divisor is None or divisor.name not in known:
            return let
        self.done += 1
        return replace(let, value=Apply(MUL, EMPTY, (let.value.values[0], known[divisor.name])))  # type: ignore[union-attr]


def _divisions(block: Block) -> Iterator[tuple[Let, Local]]:
    """The divisions in a block, and in what is inside of it, by what was broadcast."""
    for statement in block.statements:
        if isinstance(statement, Let) and (divisor := _divisor(statement)) is not None:
            yield statement, divisor
        for inner in blocks_of(statement):
            yield from _divisions(inner)


def _divisor(let: Let) -> Local | None:
    """What is divided by in a division by what was broadcast; None of all else."""
    if not isinstance(let.value, Apply) or let.value.op is not DIV or let.local.dtype not in DTYPES:
        return None
    divisor, node = let.value.values[1], let.node
    if node is None or node.op is not DIV or not isinstance(divisor, Local):
        return None
    by = node.inputs[1]
    return divisor if by.op is BROADCAST or by.aval.size < node.aval.size else None
