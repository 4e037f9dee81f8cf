"""Repeated stretches made whole: what lies beside a stretch in the graph and belongs to its steps is added to them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

from graphopt.analysis.extension import extended
from graphopt.analysis.repetition import (
    Earlier,
    Fixed,
    Numbering,
    Operand,
    Same,
    Stretch,
    Varying,
    affine,
    descendants,
    from_outside,
    goes_on,
    place_of,
    steps_between,
)
from graphopt.ir.graph import Graph
from graphopt.ir.node import Node, project
from graphopt.ir.op import CONSTANT

SMALL = 4096
"""Bytes of a value for each step that are stacked without a second thought."""

Row = tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Source:
    """Values that steps of a stretch have computed, in order: of a row, those of the step `first` and of the ones after
    it, or before it (`move` is 1 or -1), `count` in all. Step -1 is what the first step reads of the one before."""

    stretch: Stretch
    row: int
    first: int
    move: int
    count: int

    @property
    def from_the_beginning(self) -> bool:
        """Whether it has what the first step reads of the one before."""
        return -1 in (self.first, self.first + self.move * (self.count - 1))


def whole(graph: Graph, found: Sequence[Sequence[Stretch]], numbering: Numbering, least_count: int) -> list[Stretch]:
    """The stretches in which steps go on from each other, with the steps that they have in common, and with what is
    computed for or from each of their steps alone. found: as `stretches` gives them."""
    found = [ways for ways in found if goes_on(ways[0])]
    stretches: list[Stretch] = []
    for number, ways in enumerate(found):
        others = [*stretches, *chain.from_iterable(found[number + 1 :])]
        longer = [extended(graph, stretch, others, numbering) for stretch in ways]
        stretches.append(max(longer, key=lambda stretch: stretch.count))
    stretches = _trimmed(stretches, least_count)
    stretches = _joined(graph, stretches, least_count)
    users = graph.users() if stretches else {}
    for stretch in stretches:
        others = [other for other in stretches if other is not stretch]
        _Growth(graph, stretch, others, numbering, users).run()
    return stretches


def source_of(nodes: Row, stretches: Sequence[Stretch]) -> Source | None:
    """Where the steps of another stretch have computed these nodes; None where not."""
    for stretch in stretches:
        place = stretch.columns.get(nodes[len(nodes) // 2])
        if place is not None:
            found = steps_of(nodes, stretch, place[0])
            steps = [step for step in found if step is not None]
            order = affine(steps) if len(steps) == len(nodes) else None
            return None if order is None else Source(stretch, place[0], *order, len(nodes))
    return None


def steps_of(nodes: Row, stretch: Stretch, row: int) -> list[int | None]:
    """For each node the step that computes it, in this row; -1 for what the first step reads of the one before, but
    not where the last step's value is there too: no array of the loop holds both."""
    steps = [stretch.step_of(node, row) for node in nodes]
    return [None if step == -1 else step for step in steps] if stretch.count - 1 in steps else steps


def _trimmed(stretches: Sequence[Stretch], least_count: int) -> list[Stretch]:
    """The stretches without first or last steps that read what a step computes that is no longer in a stretch."""
    done: list[Stretch] = []
    for stretch in stretches:
        stretch = _cut_to(stretch, done)
        if stretch.count >= least_count:
            done.append(stretch)
    return done


def _cut_to(stretch: Stretch, others: Sequence[Stretch]) -> Stretch:
    """The steps of a stretch that read what the steps of others compute, where most of them do."""
    first, stop = 0, stretch.count
    for operand in (o for row in stretch.operands for o in row if isinstance(o, Varying)):
        for other in others:
            place = other.columns.get(operand.nodes[(first + stop) // 2])
            if place is not None:
                steps = steps_of(operand.nodes[first:stop], other, place[0])
                inside = [first + i for i, step in enumerate(steps) if step is not None]
                if 4 * len(inside) >= 3 * (stop - first):
                    first, stop = inside[0], inside[-1] + 1
    return stretch.between(first, stop)


def _joined(graph: Graph, stretches: Sequence[Stretch], least_count: int) -> list[Stretch]:
    """The stretches, one in the place of two where the steps of the second only go on with what those of the first
    compute: sums over the steps, say."""
    done: list[Stretch] = []
    for index, stretch in enumerate(stretches):
        for number, before in enumerate(done):
            others = [other for other in (*done, *stretches[index + 1 :]) if other is not before]
            both = _join(graph, before, stretch, others, least_count)
            if both is not None:
                done[number] = both
                break
        else:
            done.append(stretch)
    return done


def _join(graph: Graph, one: Stretch, two: Stretch, others: Sequence[Stretch], least_count: int) -> Stretch | None:
    two = _cut_to(two, [one])
    found = [source_of(o.nodes, [one]) for row in two.operands for o in row if isinstance(o, Varying)]
    sources = [source for source in found if source is not None]
    if not sources or any(source.move != 1 for source in sources):
        return None
    offset = max(source.first for source in sources)
    first, stop = max(offset, 0), min(one.count, offset + two.count)
    if stop - first < least_count:
        return None
    one, two = one.between(first, stop), two.between(first - offset, stop - offset)
    both = Stretch(list(one.rows), list(one.operands))
    for row, operands in zip(two.rows, two.operands, strict=True):
        both.append(row, tuple([_moved(operand, one) for operand in operands]))
    behind = descendants(graph, one, others)
    if not both.is_sound or any(node in behind and node not in two.columns for node in both.outside):
        return None
    return both


def _moved(operand: Operand, before: Stretch) -> Operand:
    """An operand in a stretch whose rows now come after those of another one, which computes it, may be."""
    if isinstance(operand, Same):
        return Same(operand.row + len(before.rows))
    if isinstance(operand, Earlier):
        return Earlier(operand.row + len(before.rows), operand.delay, operand.firsts)
    source = source_of(operand.nodes, [before]) if isinstance(operand, Varying) else None
    if source is None or source.first not in (0, -1):
        return operand
    assert isinstance(operand, Varying)
    return Same(source.row) if source.first == 0 else Earlier(source.row, 1, operand.nodes[:1])


class _Growth:
    """Adds rows to one stretch: what only its steps read, and what is computed from one step's values."""

    def __init__(
        self,
        graph: Graph,
        stretch: Stretch,
        others: Sequence[Stretch],
        numbering: Numbering,
        users: Mapping[Node, Sequence[Node]],
    ) -> None:
        self.graph = graph
        self.stretch = stretch
        self.others = others
        self.numbering = numbering
        self.users = users
        self.outputs = set(graph.outputs)
        self.taken = {node for other in others for node in other.columns}
        self.known = {o.nodes for row in stretch.operands for o in row if isinstance(o, Varying)}
        self.behind: set[Node] = set()

    def run(self) -> None:
        stretch = self.stretch
        row = 0
        while row < len(stretch.rows):
            self.towards_operands(row)
            row += 1
        self.behind = descendants(self.graph, stretch, self.others)
        self.projections()
        row = 0
        while row < len(stretch.rows):
            self.towards_users(row)
            row += 1
        self.projections()

    def projections(self) -> None:
        """Takes in each result that is read of operations with several."""
        for row, nodes in enumerate(list(self.stretch.rows)):
            if len(nodes[0].avals) == 1:
                continue
            for index in range(len(nodes[0].avals)):
                parts = tuple([project(node, index) for node in nodes])
                if any(p in self.users for p in parts) and not any(p in self.stretch.columns for p in parts):
                    self.stretch.append(parts, (Same(row),))

    def towards_operands(self, row: int) -> None:
        """Takes in what only the steps read, where that makes them read no more from outside."""
        operands = list(self.stretch.operands[row])
        for index, operand in enumerate(operands):
            if isinstance(operand, Varying):
                size = operand.nodes[0].aval.nbytes
                mark = len(self.stretch.rows)
                added = self.computed_inside(operand.nodes)
                if added is not None and sum(map(self.size, self.stretch.operands[added])) > size:
                    self.undo(mark)
                elif added is not None:
                    operands[index] = Same(added)
        self.stretch.operands[row] = tuple(operands)

    def size(self, operand: Operand) -> int:
        """Bytes that a step reads anew from outside."""
        if not isinstance(operand, Varying) or source_of(operand.nodes, self.others):
            return 0
        return operand.nodes[0].aval.nbytes

    def computed_inside(self, nodes: Row) -> int | None:
        """The row that computes these nodes in the steps that read them, added; None where others read them too."""
        for step, node in enumerate(nodes):
            if node in self.taken or node in self.stretch.columns or node in self.outputs:
                return None
            if any(self.stretch.columns.get(user, (0, -1))[1] != step for user in self.users.get(node, ())):
                return None
        if not self.are_alike(nodes) or any(len(n.avals) != 1 for n in nodes[0].inputs):
            return None
        return self.stretch.append(nodes, tuple(from_outside(inputs) for inputs in self.inputs_of(nodes)))

    def are_alike(self, nodes: Row) -> bool:
        """Whether nodes, all different, are the same operation, which may be one of a loop."""
        number = self.numbering(nodes[0])
        if not self.numbering.repeats(nodes[0]) or any(self.numbering(node) != number for node in nodes):
            return False
        return len(set(nodes)) == len(nodes)

    def inputs_of(self, nodes: Row) -> list[Row]:
        return [tuple(inputs) for inputs in zip(*[node.inputs for node in nodes], strict=True)]

    def towards_users(self, row: int) -> None:
        """Takes in what each step's value of a row is used for, where that needs little from outside."""
        columns = [self.candidates(node) for node in self.stretch.rows[row]]
        for key, users in columns[0].items():
            if len(users) != 1 or any(len(column.get(key, ())) != 1 for column in columns):
                continue
            nodes = tuple([column[key][0] for column in columns])
            mark = len(self.stretch.rows)
            if not self.are_alike(nodes) or not self.add(nodes):
                self.undo(mark)

    def candidates(self, node: Node) -> dict[tuple[int, int], list[Node]]:
        found: dict[tuple[int, int], list[Node]] = {}
        for user in dict.fromkeys(self.users.get(node, ())):
            if user not in self.stretch.columns and user not in self.taken:
                found.setdefault((self.numbering(user), user.inputs.index(node)), []).append(user)
        return found

    def add(self, nodes: Row) -> bool:
        """Adds a row with all it needs; False where it needs what cannot be had, or too much."""
        number = self.stretch.append(nodes, ())
        operands = []
        for inputs in self.inputs_of(nodes):
            operand = self.operand(inputs)
            if operand is None:
                return False
            operands.append(operand)
        self.stretch.operands[number] = tuple(operands)
        return True

    def operand(self, nodes: Row) -> Operand | None:
        columns = self.stretch.columns
        if nodes[0] in columns:
            row = columns[nodes[0]][0]
            return Same(row) if all(columns.get(n) == (row, step) for step, n in enumerate(nodes)) else None
        if any(node in columns or node in self.behind or len(node.avals) != 1 for node in nodes):
            return None
        outside = from_outside(nodes)
        if isinstance(outside, Fixed) or nodes in self.known or source_of(nodes, self.others):
            return outside
        mark = len(self.stretch.rows)
        inside = self.computed_inside(nodes)
        if inside is not None:
            operands = [self.operand(inputs) for inputs in self.inputs_of(nodes)]
            if all(operand is not None for operand in operands) and self.may_move(nodes):
                self.stretch.operands[inside] = tuple(operand for operand in operands if operand is not None)
                return Same(inside)
            self.undo(mark)
        small = nodes[0].aval.is_plain and nodes[0].aval.nbytes <= SMALL
        return outside if small or all(node.op is CONSTANT for node in nodes) else None

    def may_move(self, nodes: Row) -> bool:
        """Whether slices and the like lie where a loop's counter finds them."""
        places = [place_of(node) for node in nodes]
        return places[0] is None or steps_between([place for place in places if place is not None]) is not None

    def undo(self, mark: int) -> None:
        """Drops the rows that were added since there were `mark` of them."""
        for row in self.stretch.rows[mark:]:
            for node in row:
                del self.stretch.columns[node]
        del self.stretch.rows[mark:], self.stretch.operands[mark:]
