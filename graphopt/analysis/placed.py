"""Places that the steps of a loop find for themselves: what gathers read, and what scatters write."""

from __future__ import annotations

from dataclasses import dataclass

from graphopt.ir.index import Index
from graphopt.ir.loop import Block, If, Let, Statement, Store


@dataclass(frozen=True, slots=True)
class Placed:
    """Of a loop's body: the locals that a step sets, those of loops inside left out, and whether it scatters, which is
    to write to where one of them says."""

    found: frozenset[str] = frozenset()
    scatters: bool = False

    def holds(self, at: Index) -> bool:
        """Whether a step finds this place for itself."""
        return not self.found.isdisjoint(at.variables())


def placed(body: Block) -> Placed:
    """What a loop with this body finds."""
    statements: list[Statement] = []
    blocks = [body]
    while blocks:
        inside = blocks.pop().statements
        statements += inside
        blocks += [block for s in inside if isinstance(s, If) for block in (s.then, s.otherwise)]
    of = Placed(frozenset(s.local.name for s in statements if isinstance(s, Let)))
    return Placed(of.found, any(isinstance(s, Store) and of.holds(s.at) for s in statements))
