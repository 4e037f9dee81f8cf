"""Re-rolling: the steps of a loop that Python unrolled while it was traced become the iterations of a `scan`.

Before:
    %2: f32[4] = sin(%0)
    %3: f32[4] = mul(%2, %1)
    %4: f32[4] = sin(%3)
    %5: f32[4] = mul(%4, %1)
    …
After:
    graph @1(%0: f32[4], %1: f32[4]) {        the body: a constant operand and a carried value
      %2: f32[4] = sin(%1)
      %3: f32[4] = mul(%2, %0)
      return %3
    }
    %2: f32[4] = scan[jaxpr=@1, length=100, ...](%1, %0)
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from jax.extend.core import primitives as p

from graphopt.analysis.alternation import taking_turns
from graphopt.analysis.growth import Source, source_of, whole
from graphopt.analysis.refs import uses_refs
from graphopt.analysis.repetition import Earlier, Fixed, Numbering, Stretch, Varying, delays, goes_on, stretches
from graphopt.analysis.residuals import computed_again, recompute_cheap
from graphopt.analysis.rolling import LEAST_SECONDS, Machine, compile_seconds, machine_of, price
from graphopt.ir.graph import Graph, make_graph
from graphopt.ir.node import Node, project
from graphopt.ir.op import CONSTANT, PARAM, PROJECT, op_of
from graphopt.ir.sources import merge
from graphopt.passes.rolled import Loop, roll
from graphopt.passes.rules.moving import concatenated, reshaped, sliced, transposed
from graphopt.rewrite.passes import Context, Pass
from graphopt.rewrite.rebuild import rebuild, with_bodies

CONCATENATE = op_of(p.concatenate_p)

SMALL = 4096
"""Bytes of a value for each step that are stacked, not chosen."""

FEW = 2
"""Of so many steps a cheap value is computed again outside of a loop."""

MANY = 16
"""So many parts of a loop's arrays that are read by themselves are worth that their code is the same."""


TOLD_STEPS, TOLD = 8, 14
"""Of so many steps, and operations beyond those of one step, the report says that they stay, though there is little to
gain from a loop."""


@dataclass(frozen=True)
class Reroll(Pass):
    """Rolls repeated stretches of a graph, and of the graphs in it, into loops.

    least_steps: how many steps it takes. least_saved: how many operations there must be beyond those of one step.
    any_cost: whether loops are made even where they run slower or take longer to compile.

    Each operation is computed as it was, on the same values; XLA fuses a loop's body in its own way, as it does any
    program. Operations with effects stay, and so does what would run slower as a loop: the report says why.
    """

    least_steps: int = 4
    least_saved: int = 64
    any_cost: bool = False
    name = "reroll"

    def run(self, graph: Graph, context: Context) -> Graph:
        """The graph with loops for repeated stretches."""
        if context.portable or context.differentiable:
            return graph
        if uses_refs(graph):
            context.note("a program with Refs is not re-rolled")
            return graph
        done: dict[Graph, Graph] = {}

        def roll_graph(current: Graph) -> Graph:
            if current not in done:
                inner = _inside(current, context, roll_graph)
                done[current] = _Reroller(self, context).graph(inner)
            return done[current]

        return roll_graph(graph)


def _inside(graph: Graph, context: Context, function: Callable[[Graph], Graph]) -> Graph:
    """The graph with the function of those that it holds."""
    if not any(node.subgraphs for node in graph.nodes):
        return graph

    def visit(node: Node, inputs: tuple[Node, ...]) -> Node | None:
        return node.with_attrs(with_bodies(node, function)).with_inputs(inputs) if node.subgraphs else None

    return rebuild(graph, context.sources, visit)


class _Reroller:
    """Rolls the stretches of one graph."""

    def __init__(self, options: Reroll, context: Context) -> None:
        self.options = options
        self.context = context
        self.machine = machine_of(context.platforms)

    def graph(self, graph: Graph) -> Graph:
        is_short = not self.options.any_cost and compile_seconds(len(graph.nodes)) < LEAST_SECONDS
        if is_short or len(graph.nodes) < self.options.least_saved:
            self.tell(graph)
            return graph
        opened, mapping = pieces_apart(graph, self.options.least_steps)
        numbering = Numbering()
        repeated = stretches(opened, numbering, self.options.least_steps, self.options.least_saved)
        if not repeated:
            self.tell(graph)
            return graph
        ways = [taking_turns(opened, repeated, self.options.least_steps), repeated]
        choices = [self.choice(opened, way, numbering) for way in ways if way]
        self.context.sources.inherit(graph, opened, mapping)
        # Where none is worth it, the first says why: not that it copies what it would not have to.
        for choice in sorted(choices, key=lambda choice: (bool(choice.found), choice.gain), reverse=True):
            try:
                found = choice.found
                new = _Rewriting(opened, found, self.context, self.machine).graph_with_loops() if found else graph
            except Entangled:
                continue
            for note in choice.notes:
                self.context.note(note)
            return new
        self.context.note("repeated stretches stay, for each needs what the other one computes")
        return graph

    def tell(self, graph: Graph) -> None:
        """Notes the longest repetition that a reader would see as a loop, where a loop would save too little."""
        if not self.context.timed:
            return  # nobody reads it, and looking takes a millisecond or two
        found = [ways[0] for ways in stretches(graph, Numbering(), TOLD_STEPS, TOLD) if goes_on(ways[0])]
        if found:
            longest = max(found, key=lambda stretch: len(stretch.columns))
            nodes, saved = len(graph.nodes), (longest.count - 1) * len(longest.rows)
            seconds = compile_seconds(nodes) - compile_seconds(nodes - saved)
            self.context.note(
                f"{longest.count} steps of {len(longest.rows)} operations stay: "
                f"a loop would save XLA about {seconds:.2g} s of compilation"
            )

    def choice(self, graph: Graph, repeated: Sequence[Sequence[Stretch]], numbering: Numbering) -> _Choice:
        """Of the stretches in which steps go on from each other those that are faster to compile as loops and no slower
        to run."""
        found = whole(graph, repeated, numbering, self.options.least_steps)
        for stretch in found:
            recompute_cheap(stretch, [other for other in found if other is not stretch])
        choice = _Choice([], [], 0.0)
        for group in linked(found):
            rewriting = _Rewriting(graph, group, self.context, self.machine)
            rewriting.read_uses()
            written = {stretch: rewriting.written(stretch) for stretch in group}
            kernels = self.context.options.backend != "xla" and self.context.platforms == ("cpu",)
            found_price = price(len(graph.nodes), group, written, rewriting.singles, self.machine, kernels)
            what = " and ".join(f"{stretch.count} steps of {len(stretch.rows)} operations" for stretch in group)
            if found_price.declined and not self.options.any_cost:
                choice.notes.append(f"{what} stay: {found_price.declined}")
            else:
                choice.notes.append(f"{what}: {'a loop' if len(group) == 1 else 'loops'}")
                choice.found.extend(group)
                choice.gain += found_price.gain(min(stretch.count for stretch in group))
        return choice


@dataclass(slots=True)
class _Choice:
    """Stretches that become loops, what there is to say of those and of the others, and what is gained, in seconds."""

    found: list[Stretch]
    notes: list[str]
    gain: float


def linked(found: Sequence[Stretch]) -> list[list[Stretch]]:
    """The stretches in groups that read each other's values."""
    groups: list[list[Stretch]] = []
    for stretch in found:
        operands = [o for row in stretch.operands for o in row if isinstance(o, Varying)]
        near = [g for g in groups if any(source_of(operand.nodes, g) for operand in operands)]
        groups = [g for g in groups if g not in near]
        groups.append([*(s for g in near for s in g), stretch])
    return groups


def pieces_apart(graph: Graph, least: int) -> tuple[Graph, dict[Node, Node]]:
    """The graph with each piece of a `split` or `unstack` of many cut out by itself, as one step reads it; and what
    became of each node."""
    mapping: dict[Node, Node] = {}
    many = {node for node in graph.nodes if node.op.name in ("unstack", "split") and len(node.avals) >= 2 * least}
    if not many:
        return graph, mapping
    for node in graph.nodes:
        if node.op is PARAM or node.op is CONSTANT:
            mapping[node] = node
        elif node.op is PROJECT and node.inputs[0] in many:
            mapping[node] = _piece(node.inputs[0], node.attrs["index"], mapping[node.inputs[0].inputs[0]])
        elif node.op is PROJECT:
            mapping[node] = project(mapping[node.inputs[0]], node.attrs["index"])
        else:
            mapping[node] = node.with_inputs(tuple([mapping[n] for n in node.inputs]))
    return make_graph(graph.params, [mapping[n] for n in graph.outputs]), mapping


def _piece(node: Node, index: int, whole: Node) -> Node:
    axis = node.attrs["axis"]
    sizes = node.attrs.get("sizes", (1,) * len(node.avals))
    shape = whole.aval.shape
    starts = [int(sum(sizes[:index])) if a == axis else 0 for a in range(len(shape))]
    piece = sliced(
        whole, starts, [int(sizes[index]) if a == axis else n for a, n in enumerate(shape)], (1,) * len(shape)
    )
    return reshaped(piece, node.avals[index].shape)


class Entangled(Exception):
    """Two stretches each need what the other one computes."""


class _Rewriting:
    """A graph made anew with loops for its stretches."""

    def __init__(self, graph: Graph, found: Sequence[Stretch], context: Context, machine: Machine) -> None:
        self.old = graph
        self.context = context
        self.machine = machine
        self.owner = {node: stretch for stretch in found for node in stretch.columns}
        self.found = found
        self.stacked: dict[Stretch, set[int]] = defaultdict(set)
        self.before: dict[Stretch, set[int]] = defaultdict(set)
        self.singles: dict[Stretch, dict[int, set[int]]] = defaultdict(lambda: defaultdict(set))
        self.loops: dict[Stretch, Loop] = {}
        self.mapping: dict[Node, Node] = {}
        self.infos: dict[Node, tuple[Any, ...]] = {}

    def graph_with_loops(self) -> Graph:
        """The new graph.

        Loops and nodes are made when all that they need is there; raises Entangled where loops need each other."""
        self.read_uses()
        todo: list[Node] = list(reversed(self.old.outputs))
        waiting: set[Node | Stretch] = set()
        while todo:
            node = todo[-1]
            owner = self.owner.get(node)
            missing = [] if self.is_there(node) else [n for n in self.needs(node, owner) if not self.is_there(n)]
            if missing:
                what = owner or node
                if what in waiting:
                    raise Entangled
                waiting.add(what)
                todo.extend(missing)
                continue
            todo.pop()
            if owner is None:
                if node not in self.mapping:
                    self.mapping[node] = self.renewed(node)
            elif owner not in self.loops:
                self.roll(owner)
        new = make_graph(self.old.params, [self.value(n) for n in self.old.outputs])
        self.context.sources.inherit(self.old, new, self.mapping)
        self.context.sources.record(new, self.infos)
        return new

    def is_there(self, node: Node) -> bool:
        owner = self.owner.get(node)
        return node in self.mapping if owner is None else owner in self.loops

    def needs(self, node: Node, owner: Stretch | None) -> Sequence[Node]:
        return node.inputs if owner is None else list(owner.outside)

    def read_uses(self) -> None:
        """Finds which values of the stretches are read outside of them, all together or one by one."""
        for node in self.old.nodes:
            if node not in self.owner:
                self.read_by(node)
        for stretch in self.found:
            for operand in {o for row in stretch.operands for o in row}:
                if isinstance(operand, Fixed):
                    self.single(operand.node)
                elif isinstance(operand, Earlier):
                    for node in operand.firsts:
                        self.single(node)
                elif isinstance(operand, Varying):
                    source = source_of(operand.nodes, self.found)
                    if source is not None:
                        self.read_together(source)
                    else:
                        for node in operand.nodes:
                            self.single(node)
        for node in self.old.outputs:
            self.single(node)

    def read_by(self, node: Node) -> None:
        if node.op is CONCATENATE or node.op.name == "stack":
            for part in self.parts(node.inputs):
                if isinstance(part, Node):
                    self.single(part)
                else:
                    self.read_together(part)
            return
        for operand in node.inputs:
            self.single(operand)

    def read_together(self, source: Source) -> None:
        where = self.before if source.from_the_beginning else self.stacked
        where[source.stretch].add(source.row)

    def single(self, node: Node) -> None:
        owner = self.owner.get(node)
        if owner is not None:
            row, step = owner.columns[node]
            self.singles[owner][row].add(step)

    def parts(self, nodes: Sequence[Node]) -> Iterator[Node | Source]:
        """Nodes one after the other, values of the same row of following steps together."""
        at = 0
        while at < len(nodes):
            owner = self.owner.get(nodes[at])
            stop = at + 1
            if owner is not None and at + 1 < len(nodes) and self.owner.get(nodes[at + 1]) is owner:
                row, first = owner.columns[nodes[at]]
                move = owner.columns[nodes[at + 1]][1] - first
                while (
                    move in (1, -1)
                    and stop < len(nodes)
                    and owner.columns.get(nodes[stop]) == (row, first + move * (stop - at))
                ):
                    stop += 1
                if stop - at > 2:
                    yield Source(owner, row, first, move, stop - at)
                    at = stop
                    continue
            yield nodes[at]
            at += 1

    def renewed(self, node: Node) -> Node:
        if node.op is PARAM or node.op is CONSTANT:
            return node
        if node.op is PROJECT:
            return project(self.mapping[node.inputs[0]], node.attrs["index"])
        if node.op is CONCATENATE or node.op.name == "stack":
            parts = list(self.parts(node.inputs))
            if len(parts) < len(node.inputs):
                return self.joined(node, parts)
        return node.with_inputs(tuple([self.value(n) for n in node.inputs]))

    def joined(self, node: Node, parts: Sequence[Node | Source]) -> Node:
        """A concatenation, or stack, of loops' arrays and other nodes."""
        axis = node.attrs["dimension"] if node.op is CONCATENATE else node.attrs["axis"]
        pieces = []
        for part in parts:
            if isinstance(part, Node):
                piece = self.value(part)
                if node.op is not CONCATENATE:
                    shape = piece.aval.shape
                    piece = reshaped(piece, (*shape[:axis], 1, *shape[axis:]))
            else:
                piece = self.loops[part.stretch].part(part)
                rank = len(piece.aval.shape)
                piece = transposed(piece, [*range(1, axis + 1), 0, *range(axis + 1, rank)])
                if node.op is CONCATENATE:
                    shape = piece.aval.shape
                    piece = reshaped(piece, (*shape[:axis], shape[axis] * shape[axis + 1], *shape[axis + 2 :]))
            pieces.append(piece)
        return concatenated(pieces, axis)

    def value(self, node: Node) -> Node:
        found = self.mapping.get(node)
        if found is None:
            loop = self.loops[self.owner[node]]
            if loop.has(node):
                found = loop.value(node)
            else:
                found = node.with_inputs(tuple([n if n.op is CONSTANT else self.value(n) for n in node.inputs]))
            self.mapping[node] = found
        return found

    def written(self, stretch: Stretch) -> list[int]:
        """The rows of which the loop writes all steps' values: not those of which only last steps are read that are
        carried anyway, nor those of which a step or two are read that are as well computed again from others."""
        count = stretch.count
        carried = {row: set(range(max(count - delay, 0), count)) for row, delay in delays(stretch).items()}
        singles = {row: steps - carried.get(row, {count - 1}) for row, steps in self.singles[stretch].items()}
        singles = {row: steps for row, steps in singles.items() if steps}
        few = {row for row, steps in singles.items() if len(steps) <= FEW} - self.stacked[stretch]
        kept = self.stacked[stretch] | singles.keys()
        return sorted(kept - computed_again(stretch, sorted(few), kept))

    def roll(self, stretch: Stretch) -> None:
        last = stretch.count - 1
        singles = self.singles[stretch]
        stacked = self.written(stretch)
        lasts = sorted(row for row, steps in singles.items() if last in steps and row not in stacked)
        before = sorted(self.before[stretch])
        apart = sum(len(singles[row]) for row in stacked)
        numbered = self.machine.chooses and apart >= MANY
        loop, inside = roll(stretch, stacked, lasts, before, self.value, self.loops, self.picked, numbered)
        self.loops[stretch] = loop
        infos = self.context.sources.infos.get(self.old, {})
        body = loop.node.attrs["jaxpr"].graph
        self.context.sources.record(body, {new: infos[old] for old, new in inside.items() if old in infos})
        lines: tuple[Any, ...] = ()
        for row in stretch.rows:
            lines = merge(lines, infos.get(row[0], ()))
        self.infos[loop.node] = lines

    def picked(self, operand: Varying) -> bool:
        """Whether the steps' values are chosen from in the body rather than stacked."""
        return operand.nodes[0].aval.nbytes > SMALL and self.machine.chooses
