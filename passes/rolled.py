"""The loop that takes the place of a repeated stretch.

Steps become iterations of a `scan`. What a step reads of earlier ones is carried; what is the same for all is a
constant operand; what differs is an array of all steps' values that the scan goes through, or, where these are arrays
that it would take time to bring together, chosen in the body by the number of the step. Slices that lie elsewhere in
each step become dynamic slices.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from jax.extend.core import primitives as p

from graphopt.analysis.growth import Source, source_of
from graphopt.analysis.repetition import (
    PAD,
    Earlier,
    Fixed,
    Same,
    Stretch,
    Varying,
    place_of,
    steps_between,
)
from graphopt.ir.attrs import EMPTY
from graphopt.ir.aval import Aval, array_aval
from graphopt.ir.graph import Graph, depth_first, make_graph
from graphopt.ir.node import Node, constant, is_comparable, param, project
from graphopt.ir.op import CONSTANT, PROJECT, op_of
from graphopt.ops.control import Cond, make_scan
from graphopt.ops.make import fit, full, make, scalar, with_parameters
from graphopt.passes.numbered import at_number, numbers_after
from graphopt.passes.rules.moving import broadcast, concatenated, reshaped, reversed_along, sliced

DYNAMIC_SLICE, DYNAMIC_UPDATE = op_of(p.dynamic_slice_p), op_of(p.dynamic_update_slice_p)
ADD, DIV, MUL, SUB = map(op_of, (p.add_p, p.div_p, p.mul_p, p.sub_p))

BRANCHES = 32
"""How many arrays a choice has at most; of more, first a group is chosen, then one in it."""

Row = tuple[Node, ...]


@dataclass(eq=False, slots=True)
class Loop:
    """A stretch as a loop.

    stretch: what it computes. node: the scan. reverse: whether its arrays hold the last step's values first.
    stacks: for rows that are read from outside, the array of all steps' values. lasts: for rows, the last step's value,
    and those of the steps before it that are carried as well, the last one first.
    before: for rows, the array of what each step reads of the step before it. numbers: where each of an array's
    elements lies, as values that XLA does not know; none where few are read by themselves.
    """

    stretch: Stretch
    node: Node
    reverse: bool
    stacks: dict[int, Node]
    lasts: dict[int, list[Node]]
    before: dict[int, Node]
    numbers: tuple[Node, ...]

    def has(self, node: Node) -> bool:
        """Whether a value that the stretch computes is there outside of the loop."""
        row, step = self.stretch.columns[node]
        return row in self.stacks or self.stretch.count - 1 - step < len(self.lasts.get(row, ()))

    def value(self, node: Node) -> Node:
        """A value that the stretch computes, outside of the loop."""
        row, step = self.stretch.columns[node]
        back = self.stretch.count - 1 - step
        if back < len(self.lasts.get(row, ())):
            return self.lasts[row][back]
        if self.numbers:
            stack, place, _ = self.find(Source(self.stretch, row, step, 1, 1))
            return at_number(stack, self.numbers[place])
        return reshaped(self.part(Source(self.stretch, row, step, 1, 1)), node.aval.shape)

    def find(self, source: Source) -> tuple[Node, int, int]:
        """The array that has what it has computed, the index of the first value, and 1 or -1."""
        early = source.from_the_beginning
        stack = self.before[source.row] if early else self.stacks[source.row]
        first = source.first + early
        return (stack, self.stretch.count - 1 - first, -source.move) if self.reverse else (stack, first, source.move)

    def part(self, source: Source) -> Node:
        """What it has computed, stacked."""
        stack, start, move = self.find(source)
        if move < 0:
            start -= source.count - 1
        shape = stack.aval.shape
        found = sliced(stack, (start, *[0] * (len(shape) - 1)), (source.count, *shape[1:]), (1,) * len(shape))
        return reversed_along(found, (0,)) if move < 0 else found


@dataclass(slots=True)
class _Body:
    """Operands of the scan, collected: constants, what it goes through, and carried values with their beginnings."""

    consts: dict[Node, int] = field(default_factory=dict)
    xs: dict[Node, int] = field(default_factory=dict)
    chains: list[tuple[int, list[Node]]] = field(default_factory=list)

    def const(self, node: Node) -> int:
        return self.consts.setdefault(node, len(self.consts))

    def stacked(self, node: Node) -> int:
        return self.xs.setdefault(node, len(self.xs))


def roll(
    stretch: Stretch,
    stacked: Iterable[int],
    lasts: Iterable[int],
    before: Iterable[int],
    value: Callable[[Node], Node],
    loops: Mapping[Stretch, Loop],
    picked: Callable[[Varying], bool],
    numbered: bool,
) -> tuple[Loop, dict[Node, Node]]:
    """The loop of a stretch, and for each of the stretch's nodes of the first step the node of the body.

    stacked, lasts, before: the rows of which all steps' values, the last step's, or what each step reads of the step
    before it, are read outside. value: the new nodes of what lies
    outside. loops: those that were made before. picked: of what differs from step to step whether it is chosen in the
    body rather than stacked. numbered: whether many elements of its arrays are read by themselves.
    """
    return _Roller(stretch, value, loops, picked, numbered).run(list(stacked), list(lasts), list(before))


class _Roller:
    def __init__(
        self,
        stretch: Stretch,
        value: Callable[[Node], Node],
        loops: Mapping[Stretch, Loop],
        picked: Callable[[Varying], bool],
        numbered: bool,
    ) -> None:
        self.numbered = numbered
        self.stretch = stretch
        self.value = value
        self.loops = loops
        self.picked = picked
        self.count = stretch.count
        self.body = _Body()
        self.reverse = self.is_reversed()
        order = range(self.count)
        self.order = order[::-1] if self.reverse else order
        self.recipes: dict[Fixed | Varying, Callable[[], Node]] = {}
        self.new: set[Node] = set()  # beginnings that are not of the old graph
        self.picks: dict[Varying, int] = {}
        self.picks_made: list[Node] = []
        self.starts: dict[Row, list[Callable[[], Node]]] = {}

    def is_reversed(self) -> bool:
        """Whether what it reads of other loops' arrays is there in the order from the last step to the first."""
        for operands in self.stretch.operands:
            for operand in operands:
                source = source_of(operand.nodes, list(self.loops)) if isinstance(operand, Varying) else None
                if source is not None:
                    return (source.move < 0) != self.loops[source.stretch].reverse
        return False

    def run(self, stacked: list[int], lasts: list[int], before: list[int]) -> tuple[Loop, dict[Node, Node]]:
        rows = self.stretch.rows
        for row, operands in zip(rows, self.stretch.operands, strict=True):
            for operand in operands:
                if isinstance(operand, Earlier):
                    self.chain(operand)
                elif isinstance(operand, Varying) and operand not in self.recipes:
                    self.recipes[operand] = self.varying(operand)
                elif isinstance(operand, Fixed) and operand not in self.recipes:
                    self.recipes[operand] = self.fixed(operand.node)
            self.places(row)
        started = {row for row, _ in self.body.chains}
        for last in lasts:
            if last not in started:
                zeros = full(0, rows[last][0].aval)
                self.new.add(zeros)
                self.body.chains.append((last, [zeros]))
        body, inside = self.make_body(stacked, before)
        firsts = [self.value_of(first) for _, chain in self.body.chains for first in chain]
        firsts += [scalar(0, np.int32)] * self.numbered
        node = make_scan(body, self.count, list(self.body.consts), firsts, list(self.body.xs), self.reverse)
        ends: dict[int, list[Node]] = {}
        place = 0
        for number, chain in self.body.chains:
            if len(chain) > len(ends.get(number, ())):
                ends[number] = [project(node, place + back) for back in range(len(chain))]
            place += len(chain)
        numbers = numbers_after(project(node, place), self.count) if self.numbered else ()
        place += self.numbered
        arrays = [project(node, place + number) for number in range(len(stacked) + len(before))]
        stacks = dict(zip(stacked, arrays, strict=False))
        earlier = dict(zip(before, arrays[len(stacked) :], strict=True))
        return Loop(self.stretch, node, self.reverse, stacks, ends, earlier, numbers), inside

    def value_of(self, node: Node) -> Node:
        return node if node.op is CONSTANT or node in self.new else self.value(node)

    def chain(self, operand: Earlier) -> None:
        """Carries what an operand needs of earlier steps."""
        for row, firsts in self.body.chains:
            common = min(len(firsts), operand.delay)
            if row == operand.row and tuple(firsts[:common]) == operand.firsts[:common]:
                firsts.extend(operand.firsts[common:])
                return
        self.body.chains.append((operand.row, list(operand.firsts)))

    def fixed(self, node: Node) -> Callable[[], Node]:
        if node.op is CONSTANT and is_comparable(node.value):
            return lambda: node
        if node.op is CONSTANT or len(node.avals) == 1:
            number = self.body.const(self.value_of(node))
            return lambda: fit(self.consts[number], node.aval)
        raise AssertionError(f"{node!r} has several results")

    def varying(self, operand: Varying) -> Callable[[], Node]:
        aval = operand.nodes[0].aval
        source = source_of(operand.nodes, list(self.loops))
        if source is not None:
            return self.of_loop(source, aval)
        if not self.picked(operand):
            number = self.body.stacked(self.stack(operand))
            return lambda: fit(self.xs[number], aval)
        self.counter()
        for node in operand.nodes:
            self.body.const(self.value_of(node))
        number = self.picks.setdefault(operand, len(self.picks))
        return lambda: self.picks_made[number]

    def of_loop(self, source: Source, aval: Aval) -> Callable[[], Node]:
        """An operand that another loop has computed."""
        stack, start, moves = self.loops[source.stretch].find(source)
        if [start + moves * step for step in self.order] == list(range(stack.aval.shape[0])):
            number = self.body.stacked(stack)
            return lambda: fit(self.xs[number], aval)
        number = self.body.const(stack)
        starts = [self.start([start + moves * step for step in range(self.count)])]
        starts += [self.start([0] * self.count)] * len(aval.shape)

        def make_it() -> Node:
            indices = [make_one() for make_one in starts]
            found = make(DYNAMIC_SLICE, self.consts[number], *indices, slice_sizes=(1, *aval.shape))
            return fit(reshaped(found, aval.shape), aval)

        return make_it

    def counter(self) -> int:
        """The number of the step, as something to go through."""
        return self.body.stacked(constant(np.array(self.order, np.int32)))

    def start(self, numbers: Sequence[int]) -> Callable[[], Node]:
        """An index that has these values in the steps."""
        first, moves = numbers[0], steps_between([(number,) for number in numbers])
        if moves is None:
            number = self.body.stacked(constant(np.array([numbers[step] for step in self.order], np.int32)))
            return lambda: self.xs[number]
        (move,) = moves
        if move == 0:
            return lambda: constant(np.array(first, np.int32))
        number = self.counter()

        def make_it() -> Node:
            index = self.xs[number]
            if move != 1:
                index = make(MUL, index, constant(np.array(move, np.int32)))
            return index if first == 0 else make(ADD, index, constant(np.array(first, np.int32)))

        return make_it

    def places(self, row: Row) -> None:
        """Notes where in each step a slice lies."""
        found = [place for place in map(place_of, row) if place is not None]
        if found and any(place != found[0] for place in found):
            self.starts[row] = [self.start(numbers) for numbers in zip(*found, strict=True)]

    def stack(self, operand: Varying) -> Node:
        """All steps' values in one array, in the order of the loop's arrays."""
        nodes = [operand.nodes[step] for step in self.order]
        if all(node.op is CONSTANT and is_comparable(node.value) for node in nodes):
            return constant(np.stack([np.asarray(node.value) for node in nodes]))
        shape = nodes[0].aval.shape
        return concatenated([reshaped(self.value_of(node), (1, *shape)) for node in nodes], 0)

    def make_body(self, stacked: list[int], before: list[int]) -> tuple[Graph, dict[Node, Node]]:
        """The graph of one step, and its nodes by those of the first step."""
        rows = self.stretch.rows
        firsts = [first for _, chain in self.body.chains for first in chain]
        firsts += [scalar(0, np.int32)] * self.numbered
        elements = [array_aval(n.aval.shape[1:], n.aval.dtype, n.aval.weak_type) for n in self.body.xs]
        avals = [*[n.aval for n in self.body.consts], *[n.aval for n in firsts], *elements]
        params = [param(index, aval) for index, aval in enumerate(avals)]
        self.consts = params[: len(self.body.consts)]
        self.carry = params[len(self.consts) : len(self.consts) + len(firsts)]
        self.xs = params[len(self.consts) + len(firsts) :]
        if self.picks:
            step = self.xs[self.counter()]
            arrays = [[self.consts[self.body.const(self.value_of(n))] for n in pick.nodes] for pick in self.picks]
            self.picks_made = [
                fit(node, pick.nodes[0].aval) for node, pick in zip(choose(step, arrays), self.picks, strict=True)
            ]
        made: dict[int, Node] = {}
        for row in self.in_order():
            inputs = tuple([self.inside(operand, made) for operand in self.stretch.operands[row]])
            made[row] = self.make(rows[row], inputs)
        carried: list[Node] = []
        earlier: dict[int, Node] = {}
        place = 0
        for row, chain in self.body.chains:
            carried += [made[row], *self.carry[place : place + len(chain) - 1]]
            earlier.setdefault(row, self.carry[place])
            place += len(chain)
        if self.numbered:
            carried.append(make(ADD, self.carry[place], scalar(1, np.int32)))
        body = make_graph(params, [*carried, *[made[row] for row in stacked], *[earlier[row] for row in before]])
        return body, {rows[row][0]: node for row, node in made.items()}

    def in_order(self) -> list[int]:
        """The rows, operands before users."""
        operands = self.stretch.operands
        return depth_first(
            range(len(self.stretch.rows)), lambda row: [o.row for o in operands[row] if isinstance(o, Same)]
        )

    def inside(self, operand: object, made: Mapping[int, Node]) -> Node:
        if isinstance(operand, Same):
            return made[operand.row]
        if isinstance(operand, Earlier):
            place = 0
            for row, chain in self.body.chains:
                if row == operand.row and tuple(chain[: operand.delay]) == operand.firsts:
                    return self.carry[place + operand.delay - 1]
                place += len(chain)
        assert isinstance(operand, Fixed | Varying)
        return self.recipes[operand]()

    def make(self, row: Row, inputs: tuple[Node, ...]) -> Node:
        """A step's node on the body's operands."""
        first = row[0]
        starts = self.starts.get(row)
        if starts is None:
            return project(inputs[0], first.attrs["index"]) if first.op is PROJECT else first.with_inputs(inputs)
        indices = [make_one() for make_one in starts]
        if first.op is PAD:
            zeros = broadcast(inputs[1], first.aval.shape, ())
            return fit(with_parameters(DYNAMIC_UPDATE, (zeros, inputs[0], *indices), EMPTY), first.aval)
        return fit(make(DYNAMIC_SLICE, inputs[0], *indices, slice_sizes=first.aval.shape), first.aval)


def choose(index: Node, arrays: Sequence[Sequence[Node]]) -> list[Node]:
    """Of each list of arrays, all equally long, the one with this number (an i32 scalar)."""
    count = len(arrays[0])
    size = 1 if count <= BRANCHES else math.ceil(math.sqrt(count))
    operands = list(dict.fromkeys(node for group in arrays for node in group))
    inner = {node: param(number + 1, node.aval) for number, node in enumerate(operands)}
    params = [param(0, index.aval), *inner.values()]
    branches = []
    for first in range(0, count, size):
        groups = [[inner[node] for node in group[first : first + size]] for group in arrays]
        if size == 1:
            branches.append(make_graph(params, [group[0] for group in groups]))
        else:
            rest = make(SUB, params[0], constant(np.array(first, np.int32)))
            branches.append(make_graph(params, choose(rest, groups)))
    outer = make(DIV, index, constant(np.array(size, np.int32))) if size > 1 else index
    node = Cond.make(outer, [index, *operands], branches)
    return [project(node, number) for number in range(len(arrays))]
