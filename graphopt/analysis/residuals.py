"""What one loop keeps of its steps for another: less, where the other one computes it again as fast as it reads it."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from itertools import chain

from graphopt.analysis.growth import SMALL, Row, Source, source_of
from graphopt.analysis.repetition import Earlier, Operand, Same, Stretch, Varying, from_outside, place_of
from graphopt.ir.node import Node
from graphopt.ir.op import CONSTANT, ops_of

# fmt: off
CHEAP = frozenset(ops_of((
    "abs", "add", "and", "broadcast_in_dim", "convert_element_type", "copy", "div", "eq", "ge", "gt", "integer_pow",
    "le", "lt", "max", "min", "mul", "ne", "neg", "not", "or", "reshape", "select_n", "sign", "square", "squeeze",
    "sub", "transpose", "xor",
)).values())
# fmt: on
"""Operations that take no longer than to read what they give."""

MOST_OPERATIONS = 4
"""How many operations one value is computed with again at most, without those that only move values."""

Kept = tuple[Stretch, int, bool]
"""An array that a loop writes: of a stretch, a row, from the step before the first one or not."""


def recompute_cheap(stretch: Stretch, others: Sequence[Stretch]) -> None:
    """Lets the steps compute again what they read of other stretches, where that is cheap and less is kept for it.

    What is kept anyway may be read for it, also as it is in another step.
    """
    reads: dict[Kept, dict[Row, None]] = {}
    for operand in chain.from_iterable(stretch.operands):
        source = source_of(operand.nodes, others) if isinstance(operand, Varying) else None
        if isinstance(operand, Varying) and source is not None:
            reads.setdefault(_kept(source), {})[operand.nodes] = None
    again = _Again(stretch, others, set(reads))
    for kept in sorted(reads, key=lambda kept: kept[1]):
        again.try_to_drop(kept, list(reads[kept]))
    for row, operands in enumerate(stretch.operands):
        stretch.operands[row] = tuple([again.made.get(o.nodes, o) if isinstance(o, Varying) else o for o in operands])


def computed_again(stretch: Stretch, rows: Collection[int], kept: Collection[int]) -> set[int]:
    """Of these rows those of which a value is cheap to compute from the others of `kept` in the same step, and from
    what lies outside."""
    found: set[int] = set()
    needed: set[int] = set()
    for row in rows:
        bases = None if row in needed else _bases(stretch, row, set(kept) - found - {row})
        if bases is not None:
            found.add(row)
            needed |= bases
    return found


def _bases(stretch: Stretch, row: int, kept: Collection[int]) -> set[int] | None:
    """The kept rows from which a row is computed by few cheap operations; None where it is not."""
    bases: set[int] = set()
    formula, todo = {row}, [row]
    while todo:
        current = todo.pop()
        if _is_long([stretch.rows[number] for number in formula]) or not _is_cheap(stretch.rows[current]):
            return None
        for operand in stretch.operands[current]:
            if isinstance(operand, Earlier):
                return None
            if isinstance(operand, Same) and operand.row in kept:
                bases.add(operand.row)
            elif isinstance(operand, Same) and operand.row not in formula:
                formula.add(operand.row)
                todo.append(operand.row)
    return bases


class _Again:
    """What a stretch computes again of what others have computed.

    kept: what it reads of theirs. pinned: what of that is read to compute others again. made: the operand that computes
    nodes again.
    """

    def __init__(self, stretch: Stretch, others: Sequence[Stretch], kept: set[Kept]) -> None:
        self.stretch = stretch
        self.others = others
        self.kept = kept
        self.pinned: set[Kept] = set()
        self.known = {o.nodes for o in chain.from_iterable(stretch.operands) if isinstance(o, Varying)}
        self.made: dict[Row, Operand] = {}

    def try_to_drop(self, kept: Kept, reads: Sequence[Row]) -> None:
        """Compute all of `reads`, which are of one row of another stretch, again, if that is worth it."""
        if kept in self.pinned:
            return
        self.kept.remove(kept)
        found = [self.formula(nodes) for nodes in reads]
        read = {leaf: None for one in found if one is not None for leaf in one[1]}
        size = reads[0][0].aval.nbytes
        new = {source for source in map(self.source, read) if source is not None and source not in self.kept}
        added = sum(stretch.rows[row][0].aval.nbytes for stretch, row, _ in new)
        added += sum(nodes[0].aval.nbytes for nodes in read if self.source(nodes) is None and nodes not in self.known)
        operations = max((len(one[0]) for one in found if one is not None), default=0)
        if None in found or kept in new or added > size or (added == size and operations > 1):
            self.kept.add(kept)
            return
        self.kept |= new
        self.pinned |= {source for source in map(self.source, read) if source is not None}
        for nodes, one in zip(reads, found, strict=True):
            assert one is not None
            self.made[nodes] = Same(self.add(nodes, one[0], {}))

    def source(self, nodes: Row) -> Kept | None:
        source = source_of(nodes, self.others)
        return None if source is None else _kept(source)

    def formula(self, nodes: Row) -> tuple[set[Row], list[Row]] | None:
        """The operations that compute these nodes again, and what they read from outside; None where they are many or
        need what is not there."""
        formula: set[Row] = set()
        leaves: list[Row] = []
        todo = [nodes]
        while todo:
            current = todo.pop()
            first = current[0]
            if current in formula or first.op is CONSTANT or all(node is first for node in current):
                continue
            source = self.source(current)
            is_there = current in self.known if source is None else source in self.kept
            if current is not nodes and is_there:
                leaves.append(current)
            elif _is_cheap(current):
                formula.add(current)
                todo.extend(_inputs(current))
            elif current is not nodes and (source is not None or first.aval.nbytes <= SMALL):
                leaves.append(current)
            else:
                return None
            if _is_long(formula) or len(todo) > MOST_OPERATIONS:
                return None
        return formula, leaves

    def add(self, nodes: Row, formula: set[Row], made: dict[Row, int]) -> int:
        """The number of a new row of these nodes."""
        if nodes not in made:
            operands: list[Operand] = []
            for inputs in _inputs(nodes):
                if inputs in formula:
                    operands.append(Same(self.add(inputs, formula, made)))
                else:
                    operands.append(from_outside(inputs))
                    self.known.add(inputs)
            made[nodes] = self.stretch.append(nodes, tuple(operands), again=True)
        return made[nodes]


def _kept(source: Source) -> Kept:
    return source.stretch, source.row, source.from_the_beginning


def _is_long(formula: Iterable[Row]) -> bool:
    """Whether these are many operations, without those that only move values."""
    return sum(row[0].op.elementwise for row in formula) > MOST_OPERATIONS


def _inputs(nodes: tuple[Node, ...]) -> list[tuple[Node, ...]]:
    return [tuple(inputs) for inputs in zip(*[node.inputs for node in nodes], strict=True)]


def _is_cheap(nodes: tuple[Node, ...]) -> bool:
    first = nodes[0]
    if first.op not in CHEAP or place_of(first) is not None:
        return False
    return all(n.op is first.op and n.attrs == first.attrs and n.avals == first.avals for n in nodes)
