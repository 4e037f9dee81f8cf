"""Terms: a sum of products that only goes into the sum of a loop is added to it product by product.

Each product is then added by the instruction that multiplies it. Its own rounding, and that of the sum of products, are
exchanged for that of the addition; terms that are no products would be rounded as they are not now, and stay together.

Before:
    reduction r3 < 1000:
      ...
      v8: f32 = mul(x4, x5)
      v9: f32 = mul(x6, x7)
      v10: f32 = add(v8, v9)
      a2 add= v10
After:
    reduction r3 < 1000:
      ...
      v8: f32 = mul(x4, x5)
      v9: f32 = mul(x6, x7)
      a2 add= v8
      a2 add= v9
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from graphopt.analysis.reductions import ADD
from graphopt.analysis.substitute import with_blocks
from graphopt.analysis.summed import factors_of, summed
from graphopt.ir.loop import (
    Accumulate,
    Apply,
    Block,
    Let,
    Local,
    LoopProgram,
    Phase,
    Statement,
    Value,
)
from graphopt.rewrite.passes import counted


@dataclass(frozen=True)
class Terms:
    """Adds the products of which a sum is made one by one."""

    name = "terms"

    def run(self, program: LoopProgram) -> tuple[LoopProgram, tuple[str, ...]]:
        """The program with more terms in its sums, in another order, and how many sums it has less, as text."""
        found, used = summed(program)
        writer = _Writer(found, used)
        phases = tuple([writer.phase(phase) for phase in program.phases])
        if not writer.gone:
            return program, ()
        said = f"{counted(writer.gone, 'sum')} of products, added product by product"
        return replace(program, phases=phases), (said,)


@dataclass(slots=True)
class _Writer:
    """found: values that only go into a sum. used: how often each value is. gone: sums that are not needed."""

    found: set[str]
    used: Counter[str]
    gone: int = field(default=0, init=False)

    def phase(self, phase: Phase) -> Phase:
        return replace(phase, before=self.block(phase.before), body=self.block(phase.body))

    def block(self, block: Block) -> Block:
        lets = {s.local.name: s for s in block.statements if isinstance(s, Let)}
        statements: list[Statement] = []
        gone: set[str] = set()
        for statement in block.statements:
            if not isinstance(statement, Accumulate):
                statements.append(with_blocks(statement, self.block))
                continue
            parts = self.parts(statement.value, lets) if _name(statement.value) in self.found else []
            products = [each for each in parts if factors_of(each.value)]
            gone |= {each.local.name for each in parts if not factors_of(each.value)}
            terms = [replace(statement, value=each.local, node=each.node) for each in products]
            statements += terms or [statement]
        self.gone += len(gone)
        return Block([s for s in statements if not (isinstance(s, Let) and s.local.name in gone)])

    def parts(self, value: Value, lets: Mapping[str, Let]) -> list[Let]:
        """A sum of products, that is the sums and the products in it; nothing where it is of anything else."""
        if not isinstance(value, Local) or value.name not in lets or self.used[value.name] > 1:
            return []
        let = lets[value.name]
        if factors_of(let.value):
            return [let]
        if not isinstance(let.value, Apply) or let.value.op is not ADD:
            return []
        sides = [self.parts(side, lets) for side in let.value.values]
        return [*sides[0], *sides[1], let] if all(sides) else []


def _name(value: Value) -> str | None:
    return value.name if isinstance(value, Local) else None
