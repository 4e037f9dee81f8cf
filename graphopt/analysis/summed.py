"""Values that only go into the sum of a loop, where they need not be rounded before they are added."""

from __future__ import annotations

from collections import Counter

from jax.extend.core import primitives as p

from graphopt.analysis.order import blocks_of, reads_of
from graphopt.analysis.reductions import ADD, MUL
from graphopt.ir.loop import Accumulate, Apply, Block, Expression, For, Let, Local, LoopProgram, Value, While
from graphopt.ir.op import op_of

SQUARE = op_of(p.square_p)


def summed(program: LoopProgram) -> tuple[set[str], Counter[str]]:
    """The floating values that are used once, which is in the sum of a loop; and how often each value is used.

    A few terms that are written out one after the other are another matter: what is computed of them in two places, and
    compared, has the same bits.
    """
    found: set[str] = set()
    used: Counter[str] = Counter()

    def visit(block: Block, begun: set[str]) -> None:
        """begun: the values that begin in the loop that the block is in."""
        for statement in block.statements:
            used.update(reads_of(statement, inside=False))
            if isinstance(statement, Let):
                begun.add(statement.local.name)
            elif isinstance(statement, Accumulate) and statement.local.name not in begun:
                is_sum = statement.op is ADD and statement.local.dtype.kind == "f"
                found.update([statement.value.name] if is_sum and isinstance(statement.value, Local) else [])
            for inner in blocks_of(statement):
                visit(inner, set() if isinstance(statement, For | While) else begun)

    for phase in program.phases:
        visit(phase.before, begun := set[str]())
        visit(phase.body, begun)
    return {name for name in found if used[name] == 1}, used


def factors_of(value: Expression) -> tuple[Value, ...]:
    """The two factors of a product; none of anything else."""
    if not isinstance(value, Apply):
        return ()
    return value.values * 2 if value.op is SQUARE else value.values if value.op is MUL else ()
