"""Loops inside each other: those that a few elements are written out of, and those that several reductions share.

Reductions over the same extents accumulate in the same loops, unless one needs what another has come to.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence

from graphopt.analysis.access import Indices, Within, always
from graphopt.analysis.reductions import REDUCTIONS
from graphopt.analysis.writing import LOOP, Nest, Scope, Writer
from graphopt.ir.graph import Graph
from graphopt.ir.index import Index, variable
from graphopt.ir.index import number as number_index
from graphopt.ir.loop import (
    REDUCTION,
    SERIAL,
    Block,
    For,
)
from graphopt.ir.node import Node

SMALL = 8
"""Elements along an axis up to which a loop is written out."""

WRITTEN_OUT = 16
"""Elements of all axes that are written out in one place."""


class NestWriter(Writer):
    """A writer of loops inside each other."""

    def __init__(self, body: Graph, cost: Callable[[Node], float], small: int = SMALL) -> None:
        """cost: of one element of a node, in nanoseconds. small: the elements of an axis that is written out."""
        super().__init__(body, cost)
        self.small = small
        self.above = _reductions_above(body)

    def loops_within(
        self,
        extents: Sequence[int],
        within: Callable[[Indices], Within],
        write: Callable[[Indices, Within], None],
        apart: str = "",
    ) -> None:
        """Loops inside each other, each within the conditions that are about it and no loop inside of it.

        write: what is in the innermost; it gets the conditions on the variable `apart`, which is that of a loop there.
        Small loops that these are about are written out, so that its range is known.
        """
        names = [self.name("r") if extent > 1 else "" for extent in extents]
        at = [variable(name, 0, extent - 1) for name, extent in zip(names, extents, strict=True)]
        first = within(tuple(at))
        conditions = [c for c in first if not always((c,))]
        if 0 in extents or any(always((c,)) is False for c in conditions):
            return
        about = {c: set(c[0].variables()) for c in conditions}
        # From the innermost loop outwards: who is the first with its variable in a condition has it.
        owned: dict[str, Within] = {}
        for name in [apart, *reversed(names)]:
            owned[name] = tuple([c for c in conditions if name in about[c]])
            conditions = [c for c in conditions if c not in owned[name]]
        out = {n for n in names if any(n in about[c] for c in owned[apart]) and not owned[n]}

        def level(number: int) -> None:
            if number == len(extents):
                # Those that were about `apart`; a step that is a number may have taken the variable out of them.
                last = [c for c, was in zip(within(tuple(at)), first, strict=True) if was in owned[apart]]
                last = [c for c in last if not always((c,))]
                if not any(always((c,)) is False for c in last):
                    write(tuple(at), tuple(last))
            elif extents[number] == 1:
                level(number + 1)
            elif names[number] in out and extents[number] <= self.small:
                for step in range(extents[number]):
                    at[number] = number_index(step)
                    level(number + 1)
            else:
                name = names[number]
                self.loop_over(name, extents[number], REDUCTION, lambda: level(number + 1), owned[name])

        self.condition(tuple(conditions), lambda: level(0))

    def loops(self, extents: Sequence[int], write: Callable[[Indices], None], write_out: bool) -> None:
        """Serial loops inside each other. write_out: whether the small ones are innermost, and written out."""
        if 0 in extents:
            return
        large, each = self._written_out(extents, write) if write_out else (tuple(extents), write)

        def inner(done: Indices) -> None:
            if len(done) == len(large):
                each(done)
            else:
                self.loop(large[len(done)], SERIAL, lambda index: inner((*done, index)))

        inner(())

    def _written_out(
        self, extents: Sequence[int], write: Callable[[Indices], None]
    ) -> tuple[tuple[int, ...], Callable[[Indices], None]]:
        """The extents of which there are to be loops, and what is to be written in them."""
        small: set[int] = set()
        for axis in reversed(range(len(extents))):
            if extents[axis] <= self.small and math.prod(extents[k] for k in (*small, axis)) <= WRITTEN_OUT:
                small.add(axis)

        def each(done: Indices) -> None:
            for steps in itertools.product(*(range(extents[axis]) for axis in sorted(small))):
                found, others = iter(steps), iter(done)
                write(tuple(number_index(next(found)) if k in small else next(others) for k in range(len(extents))))

        return tuple(extent for axis, extent in enumerate(extents) if axis not in small), each

    def _nest(
        self,
        extents: Sequence[int],
        write: Callable[[Indices], None],
        after: set[Nest],
        within: Callable[[Index], Within] | None = None,
    ) -> Nest | None:
        """Loops that accumulate: those that are there with these extents, unless `after` has them, or new ones.

        within: conditions on the index of the innermost. None where there is no loop.
        """
        large, each = self._written_out(extents, write)
        if 0 in extents:
            return None
        if not large:
            each(())
            return None
        outer = self._path[-1]
        # What is needed in loops that are being written comes before them.
        late = after.union(self._open, *(self._after(nest) for nest in self._open))
        for nest in outer.nests:
            if nest.extents == large and nest.within == within and nest not in late:
                self._write(nest, each)
                self._shared += [scope.block for scope in (outer, *nest.scopes)]
                return nest
        names = [self.name("r") for _ in large]
        scopes: list[Scope] = []
        for name, extent in zip(names, large, strict=True):
            around = scopes[-1] if scopes else outer
            self._spend(LOOP * around.times / outer.times)
            scopes.append(Scope(Block(), {name}, around.times * extent, name))
        nest = Nest(large, tuple(variable(n, 0, e - 1) for n, e in zip(names, large, strict=True)), scopes, within)
        self._write(nest, each)
        outer.nests.append(nest)
        for around, scope, name, extent in reversed(list(zip((outer, *scopes), scopes, names, large, strict=False))):
            conditions = within(nest.indices[-1]) if within is not None and scope is scopes[-1] else ()
            around.block.statements.append(For(name, extent, REDUCTION, scope.block, conditions))
        return nest

    def _write(self, nest: Nest, each: Callable[[Indices], None]) -> None:
        path = self._path
        self._path = [*path, *nest.scopes]
        self._open.append(nest)
        each(nest.indices)
        self._open.pop()
        self._path = path

    def _loops_before(self, node: Node, again: bool) -> set[Nest]:
        """The loops that must be done before those of a reduction, or those that find its place in its operand."""
        needs = {(n, b) for operand in node.inputs for n in self.above[operand] for b in (False, True)}
        hosts = {nest for key in (*needs, *([(node, False)] if again else [])) for nest in self._hosts.get(key, ())}
        return hosts.union(*(nest.after for nest in hosts))

    def _after(self, nest: Nest) -> set[Nest]:
        """The loops that need the results of `nest`."""
        return {n for nests in self._hosts.values() for n in nests if nest in n.after}

    def _host(self, node: Node, again: bool, nest: Nest) -> None:
        """Notes that a reduction accumulates in `nest`, which comes before what is being written."""
        before = self._loops_before(node, again)
        self._hosts.setdefault((node, again), set()).add(nest)
        for later, earlier in ((nest, before), *((outer, {nest}) for outer in self._open)):
            earlier = earlier.union(*(n.after for n in earlier)) - {later}
            for other in (later, *self._after(later)):
                other.after |= earlier


def _reductions_above(body: Graph) -> dict[Node, frozenset[Node]]:
    """For each node the reductions that it is, or is made of."""
    above: dict[Node, frozenset[Node]] = {}
    for node in body.nodes:
        own = {node} if node.op in REDUCTIONS else set()
        above[node] = frozenset(own).union(*(above[n] for n in node.inputs))
    return above
