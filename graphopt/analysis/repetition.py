"""Repeated stretches of a graph: steps that compute alike, each with what the one before it has computed.

A traced Python loop leaves such a stretch. Its *steps* are its iterations; a *row* is one operation of the loop's body,
as the nodes that it became, one for each step.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import chain, pairwise
from typing import Any

import numpy as np
from jax.extend.core import primitives as p

from graphopt.analysis.runs import Run, periodic_runs
from graphopt.ir.graph import Graph
from graphopt.ir.node import Node
from graphopt.ir.op import CONSTANT, OCCURRENCE, PARAM, op_of

SLICE, PAD = op_of(p.slice_p), op_of(p.pad_p)
BARRIER = "optimization_barrier"

MOST_DELAY = 4
"""How many steps back a step may read."""


MOST_WAYS = 4
"""In how many ways a stretch is cut into steps, to see which of them gives the most."""


@dataclass(frozen=True, slots=True)
class Same:
    """An operand that the step itself computes, in another row."""

    row: int


@dataclass(frozen=True, slots=True)
class Earlier:
    """An operand that the step `delay` steps before has computed.

    firsts: what the first step reads in its place, and what would have been before that, as far back as steps read.
    """

    row: int
    delay: int
    firsts: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Fixed:
    """An operand that is the same in each step, and comes from outside."""

    node: Node


@dataclass(frozen=True, slots=True)
class Varying:
    """An operand that comes from outside, for each step another node (some may be the same)."""

    nodes: tuple[Node, ...]


Operand = Same | Earlier | Fixed | Varying


@dataclass(eq=False, slots=True)
class Stretch:
    """A repeated stretch.

    rows: the nodes of each operation of a step, in the order of the steps. operands: those of each row.
    columns: of each node the row and the step. beginnings: for rows that steps read of the step before them what the
    first step reads; None where that is not one node.
    """

    rows: list[tuple[Node, ...]]
    operands: list[tuple[Operand, ...]]
    columns: dict[Node, tuple[int, int]] = field(default_factory=dict)
    beginnings: dict[int, Node | None] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.columns = {node: (r, i) for r, row in enumerate(self.rows) for i, node in enumerate(row)}
        self._begin(chain.from_iterable(self.operands))

    @property
    def count(self) -> int:
        """The number of steps."""
        return len(self.rows[0])

    @property
    def outside(self) -> set[Node]:
        """The nodes outside of it that it reads."""
        found: set[Node] = set()
        for operand in chain.from_iterable(self.operands):
            if isinstance(operand, Fixed):
                found.add(operand.node)
            elif isinstance(operand, Varying):
                found.update(operand.nodes)
            elif isinstance(operand, Earlier):
                found.update(operand.firsts)
        return found

    def step_of(self, node: Node, row: int) -> int | None:
        """The step that computes `node` in this row, -1 for what the first step reads of it; None where none does."""
        place = self.columns.get(node)
        if place is not None:
            return place[1] if place[0] == row else None
        return -1 if self.beginnings.get(row) is node else None

    def _begin(self, operands: Iterable[Operand]) -> None:
        for operand in operands:
            if isinstance(operand, Earlier):
                first = operand.firsts[0]
                self.beginnings[operand.row] = first if self.beginnings.get(operand.row, first) is first else None

    def between(self, first: int, stop: int) -> Stretch:
        """The steps from `first` to the one before `stop`."""
        if (first, stop) == (0, self.count):
            return self
        return Stretch(
            [row[first:stop] for row in self.rows],
            [tuple([self._cut(operand, first, stop) for operand in row]) for row in self.operands],
        )

    def _cut(self, operand: Operand, first: int, stop: int) -> Operand:
        if isinstance(operand, Varying):
            return from_outside(operand.nodes[first:stop])
        if isinstance(operand, Earlier):
            values = (*operand.firsts[::-1], *self.rows[operand.row])
            last = first + operand.delay
            return Earlier(operand.row, operand.delay, values[first:last][::-1])
        return operand

    def append(self, nodes: tuple[Node, ...], operands: tuple[Operand, ...], again: bool = False) -> int:
        """Adds a row; its number. again: another stretch computes these nodes too, and for what lies outside."""
        number = len(self.rows)
        self.rows.append(nodes)
        self.operands.append(operands)
        self._begin(operands)
        if not again:
            self.columns.update((node, (number, i)) for i, node in enumerate(nodes))
        return number

    @property
    def is_sound(self) -> bool:
        """Whether each node that it reads from outside is one value that it does not compute itself."""
        return all(len(node.avals) == 1 and node not in self.columns for node in self.outside)


def from_outside(nodes: tuple[Node, ...]) -> Fixed | Varying:
    """The operand that is these nodes, one for each step."""
    return Fixed(nodes[0]) if all(node is nodes[0] for node in nodes) else Varying(nodes)


class Numbering:
    """Numbers for nodes: equal where two compute alike, whatever their operands are, and slice wherever they do."""

    def __init__(self) -> None:
        self.numbers: dict[Any, int] = {}
        self.of: dict[Node, int] = {}

    def __call__(self, node: Node) -> int:
        """The number of a node."""
        number = self.of.get(node)
        if number is None:
            key = self.key(node)
            number = self.of[node] = self.numbers.setdefault(key, len(self.numbers))
        return number

    def repeats(self, node: Node) -> bool:
        """Whether an operation may be one of a loop's body: it has no effects and is not one of a kind."""
        if node.effects or node.op is PARAM or node.op is CONSTANT or (node.op.primitive is None and not node.inputs):
            return False
        if node.op.name != BARRIER and (node.op.distinct or OCCURRENCE in node.attrs):
            return False
        return all(aval.is_plain for n in (node, *node.inputs) for aval in n.avals)

    def key(self, node: Node) -> Any:
        """What two nodes have in common that compute alike; the node itself where none does."""
        if not self.repeats(node):
            return node
        kind: Any = node.attrs
        if node.op.name == BARRIER:
            kind = None
        elif place_of(node) is not None:
            kind = (node.op, "anywhere")
        return (node.op, kind, node.avals, node.context, *[n.avals for n in node.inputs])


def place_of(node: Node) -> tuple[int, ...] | None:
    """Where a slice begins, or where what is padded comes to lie: it may vary from step to step; None for others."""
    if node.context is not None:
        return None
    if node.op is SLICE and (node.attrs["strides"] is None or all(n == 1 for n in node.attrs["strides"])):
        return tuple(map(int, node.attrs["start_indices"]))
    if node.op is PAD and all(low >= 0 and high >= 0 and not gap for low, high, gap in node.attrs["padding_config"]):
        return tuple([int(low) for low, _, _ in node.attrs["padding_config"]])
    return None


def steps_between(places: Sequence[tuple[int, ...]]) -> tuple[int, ...] | None:
    """By how much places move in each step; None where they do not move evenly."""
    array = np.asarray(places, np.int64)
    moves = np.diff(array, axis=0)
    return None if (moves != moves[:1]).any() else tuple(moves[0].tolist())


def stretches(graph: Graph, numbering: Numbering, least_count: int, least_saved: int) -> list[list[Stretch]]:
    """The repeated stretches of a graph, in its order, each in the ways in which it can be cut into steps best; no node
    is in two of them."""
    work = in_order(graph)
    if len(work) < least_saved:
        return []
    position = {node: i for i, node in enumerate(work)}
    runs = periodic_runs([numbering(node) for node in work], least_count, least_saved)
    found = [ways_to_cut(work, position, run, least_count) for run in sorted(runs, key=lambda run: run.start)]
    return [ways for ways in found if ways]


def in_order(graph: Graph) -> list[Node]:
    """The operations of a graph, in which repetition is looked for."""
    return [node for node in graph.nodes if node.op is not PARAM and node.op is not CONSTANT]


def ways_to_cut(work: Sequence[Node], position: dict[Node, int], run: Run, least_count: int) -> list[Stretch]:
    """The stretches that a run of the operations is, cut into steps where it is best; empty where it is none."""
    ways = [_read(work, position, phase, least_count) for phase in _best_phases(work, position, run)]
    return [way for way in ways if way is not None]


def _distances(work: Sequence[Node], position: dict[Node, int], run: Run) -> list[list[int]]:
    """For each operation of a step, for each operand how far before it in the sequence it is computed; 0 for one from
    outside. Read off where two neighbouring steps in the middle agree."""
    middle = run.start + (run.count // 2 - 1) * run.period
    found = []
    for here in range(middle, middle + run.period):
        row = []
        for one, other in zip(work[here].inputs, work[here + run.period].inputs, strict=True):
            place = position.get(one, -1)
            far = here - place
            same = place >= run.start and position.get(other, -1) == place + run.period
            row.append(far if same else 0)
        found.append(row)
    return found


def _best_phases(work: Sequence[Node], position: dict[Node, int], run: Run) -> list[Run]:
    """The run cut into steps where the fewest bytes go from one step to the next."""
    last = [0] * run.period  # for each operation how much later its last reader comes
    for here, distances in enumerate(_distances(work, position, run)):
        for far in distances:
            if far:
                last[(here - far) % run.period] = max(last[(here - far) % run.period], far)
    changes = np.zeros(max(last, default=0) + 2 * run.period + 2, np.int64)
    for here, far in enumerate(last):
        node = work[run.start + here]
        size = node.aval.nbytes if len(node.avals) == 1 else 1 << 40  # several results stay in one step
        changes[here + 1] += size
        changes[here + 1 + far] -= size
    live = np.cumsum(changes)
    live = np.pad(live, (0, -len(live) % run.period)).reshape(-1, run.period).sum(axis=0)
    return [
        Run(run.start + phase, run.period, run.stop)
        for phase in np.flatnonzero(live == live.min())[:MOST_WAYS].tolist()
    ]


def _read(work: Sequence[Node], position: dict[Node, int], run: Run, least_count: int) -> Stretch | None:
    """The stretch at a run: those of its steps that read alike; None where these are too few."""
    if run.count < least_count:
        return None
    distances = _distances(work, position, run)
    if any(
        far > here and (far - here - 1) // run.period >= MOST_DELAY for here, row in enumerate(distances) for far in row
    ):
        return None
    first, stop, edge = _alike(work, position, run, distances)
    if edge:
        first -= 1
    if stop - first < least_count:
        return None
    begin, end = run.start + first * run.period, run.start + stop * run.period
    rows = [tuple(work[begin + offset : end : run.period]) for offset in range(run.period)]
    all_operands = []
    for offset, row in enumerate(distances):
        operands: list[Operand] = []
        for index, far in enumerate(row):
            read = tuple([node.inputs[index] for node in rows[offset]])
            delay = -((offset - far) // run.period)
            if not far:
                operands.append(from_outside(read))
            elif not delay:
                operands.append(Same(offset - far))
            else:
                operands.append(Earlier((offset - far) % run.period, delay, read[:delay][::-1]))
        all_operands.append(tuple(operands))
    stretch = Stretch(rows, all_operands)
    return stretch if stretch.is_sound else None


def _alike(
    work: Sequence[Node], position: dict[Node, int], run: Run, distances: list[list[int]]
) -> tuple[int, int, bool]:
    """The most steps one after the other that read alike, as the first and the one behind the last, and whether the
    step before them differs only in that it reads other things where they read what an earlier step has computed."""
    alike, edges = np.ones(run.count, bool), np.ones(run.count, bool)
    least = 0
    for offset, row in enumerate(distances):
        for index, far in enumerate(row):
            for step in range(run.count):
                here = run.start + step * run.period + offset
                place = position.get(work[here].inputs[index], -1)
                if far:
                    if place != here - far:
                        alike[step] = False
                        edges[step] &= far > offset and place < run.start + step * run.period
                elif place >= run.start:
                    # Computed once, in one of the first steps: these stay as they are.
                    owner = (place - run.start) // run.period
                    if owner < run.count // 2:
                        least = max(least, owner + 1)
                    else:
                        alike[step] = edges[step] = False
    best, begin = (0, 0), None
    for step in range(run.count + 1):
        if step < run.count and alike[step] and step >= least:
            begin = step if begin is None else begin
        elif begin is not None:
            best = max(best, (begin, step), key=lambda pair: pair[1] - pair[0])
            begin = None
    first, stop = best
    return first, stop, bool(stop and first > least and edges[first - 1])


def affine(columns: Iterable[int]) -> tuple[int, int] | None:
    """Of numbers that go up or down by one the first and the step, 1 or -1; None for others."""
    numbers = list(columns)
    step = numbers[1] - numbers[0]
    if step not in (1, -1) or any(b - a != step for a, b in pairwise(numbers)):
        return None
    return numbers[0], step


def goes_on(stretch: Stretch) -> bool:
    """Whether steps read what earlier steps have computed."""
    return any(isinstance(operand, Earlier) for row in stretch.operands for operand in row)


def delays(stretch: Stretch) -> dict[int, int]:
    """How many steps back its steps read, for the rows of which they read earlier steps."""
    found: dict[int, int] = {}
    for operand in chain.from_iterable(stretch.operands):
        if isinstance(operand, Earlier):
            found[operand.row] = max(found.get(operand.row, 0), operand.delay)
    return found


def descendants(graph: Graph, stretch: Stretch, others: Sequence[Stretch]) -> set[Node]:
    """The nodes outside of a stretch that are computed from what it computes; of the other stretches all if any is."""
    owner = {node: other for other in others for node in other.columns}
    owner.update(dict.fromkeys(stretch.columns))  # type: ignore[arg-type]
    behind: set[Stretch | None] = {None}
    found: set[Node] = set()
    while True:
        known = len(behind)
        for node in graph.nodes:
            if node not in found and any(n in found or owner.get(n, stretch) in behind for n in node.inputs):
                if node in owner:
                    behind.add(owner[node])
                else:
                    found.add(node)
        if len(behind) == known:
            behind.remove(None)
            return found.union(*[other.columns for other in behind if other is not None])
