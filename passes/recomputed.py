"""Writing a graph with values that are computed again: each time behind barriers, so that it is done late.

XLA orders operations by itself, and merges equal ones. So what is computed again reads its operands through barriers,
until something is known that comes shortly before it is needed. One of an operation's operands is enough; all those
that are read by what is fused into it, of which the copies would else be merged with the first ones.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from graphopt.analysis.liveness import VIEWS, Buffer, Step, Steps, last_reads
from graphopt.analysis.products import DOT
from graphopt.analysis.recomputation import Plan
from graphopt.ir.graph import Graph, make_graph
from graphopt.ir.node import Node, project
from graphopt.ir.op import CONSTANT, PARAM, PROJECT, STATE
from graphopt.ir.sources import Sources
from graphopt.ops.barrier import barrier, may_be_held, may_be_waited_for

SHARE = 64
"""What is less than this share of the peak is not held back."""

NEAREST = 4
"""So many steps before a recomputation are looked at for what it waits for, where what is read with it is older."""


def with_recomputation(graph: Graph, steps: Steps, plan: Plan, sources: Sources) -> Graph:
    """The graph that computes what a plan says again, each time behind barriers."""
    writer = _Writer(steps.fused, plan)
    new = make_graph(graph.params, writer.outputs(graph))
    sources.inherit(graph, new, writer.first)
    return new


class _Expression:
    """What one step computes: its operation and those that are fused into it, on new operands."""

    def __init__(self, leaves: Mapping[Node, Node], fused: Collection[Node]) -> None:
        self.known = dict(leaves)
        self.fused = fused

    def of(self, node: Node) -> Node:
        """The new node for a node that the step reads."""
        stack = [node]
        while stack:
            current = stack[-1]
            if current in self.known:
                stack.pop()
                continue
            missing = [n for n in current.inputs if n not in self.known]
            if missing:
                stack += missing
                continue
            stack.pop()
            inputs = tuple([self.known[n] for n in current.inputs])
            is_part = current.op is PROJECT
            self.known[current] = project(inputs[0], current.attrs["index"]) if is_part else current.with_inputs(inputs)
        return self.known[node]


class _Writer:
    """Makes new nodes, step by step."""

    def __init__(self, fused: Collection[Node], plan: Plan) -> None:
        self.fused = fused
        self.order = plan.order
        self.large = plan.peak // SHARE
        self.again = {again.number: again.buffer for again in plan.chosen}
        self.made: dict[Buffer, Node] = {}
        self.barriers: dict[tuple[Node, Node], Node] = {}
        self.until: dict[int, Buffer | None] = {}
        self.depth = depths(plan.order)
        self.maker = {b: k for k, step in enumerate(plan.order) for b in step.writes}
        self.seen: set[Node] = set()
        """What was fused into a step that is written."""
        self.after: list[int] = []
        """For each step that is written those that are surely done before it, as bits."""
        self.first: dict[Node, Node] = {}
        """The new nodes of what the program itself computes."""

    def outputs(self, graph: Graph) -> list[Node]:
        """The new outputs of a graph."""
        last = last_reads(self.order)
        ending: Buffer | None = None
        for number, step in enumerate(self.order):
            if step.recomputed and step.recomputed not in self.until:
                self.until[step.recomputed] = self.waits_for(number)
            self.after.append(1 << number)
            for buffer in step.reads:
                self.add_dependence(number, buffer)
            if ending is not None and sum(b.nbytes for b in step.writes) < self.large:
                waits = None
            else:
                waits, ending = ending, None
            node = self.written(number, step, waits)
            if not step.recomputed:
                self.first[step.node] = node
            for buffer in step.writes:
                is_part = buffer.value.op is PROJECT
                new = project(node, buffer.value.attrs["index"]) if is_part else node
                self.made[buffer] = new
                if not step.recomputed:
                    self.first[buffer.value] = new
            if any(last.get(b) is step and b.nbytes >= self.large and not b.is_kept for b in step.reads):
                ending = next((b for b in step.writes if may_be_waited_for(b.value)), ending)
        given = {n: n for n in graph.nodes if n.op in (PARAM, CONSTANT) or (n.op is STATE and not n.inputs)}
        rest = _Expression({**given, **self.first}, self.fused)
        return [rest.of(n) for n in graph.outputs]

    def add_dependence(self, number: int, buffer: Buffer) -> None:
        if buffer in self.maker:
            self.after[number] |= self.after[self.maker[buffer]]

    def written(self, number: int, step: Step, ending: Buffer | None) -> Node:
        """The new node of a step. ending: what was computed when something large was read for the last time: XLA might
        else run this step before that one, and have both in memory."""
        leaves = {b.value: b.value if b.is_given else self.made[b] for b in step.reads}
        inputs = self.operands(step, leaves)
        until = self.until.get(step.recomputed)
        if until is not None:
            inputs = self.late(step, leaves, until, inputs, only_seen=False)
            self.add_dependence(number, until)
        recent = max((b for b in step.reads if b in self.maker), key=lambda b: self.maker[b], default=None)
        if until is None and recent is not None and may_be_waited_for(recent.value):
            inputs = self.late(step, leaves, recent, inputs, only_seen=True)
        if ending is not None and not self.after[number] >> self.maker[ending] & 1:
            inputs = self.one_late(step, inputs, self.made[ending])
            self.add_dependence(number, ending)
        for operand in step.node.inputs:
            self.see(operand, leaves)
        return step.node.with_inputs(tuple(inputs))

    def operands(self, step: Step, leaves: Mapping[Node, Node]) -> list[Node]:
        expression = _Expression(leaves, self.fused)
        return [expression.of(n) for n in step.node.inputs]

    def late(
        self, step: Step, leaves: Mapping[Node, Node], until: Buffer, inputs: list[Node], only_seen: bool
    ) -> list[Node]:
        """The operands of a step with what is fused into it behind barriers.

        only_seen: of that only what was fused into an earlier step too, which XLA would find to be the same, and keep.
        """
        known = self.made[until]
        done = self.after[self.maker[until]]
        own = {b.value for b in step.reads if b in self.maker and not self.is_older(b, step, until)}
        others = [b for b in step.reads if b.value not in own and may_be_held(b.value)]
        behind = {b.value: self.barrier(leaves[b.value], known) for b in others}
        late = _Expression({**leaves, **behind}, self.fused)
        found = list(inputs)
        for k, operand in enumerate(step.node.inputs):
            # What is read as it lies in memory would be copied behind a barrier.
            as_it_lies = (operand if only_seen else seen(operand)) in leaves and not is_copied(step.node, k)
            if not as_it_lies and (not only_seen or self.is_shared(operand, leaves)):
                found[k] = late.of(operand)
        depends = any(b.value in own for b in step.reads) or found != inputs
        return found if only_seen or depends or not done else self.one_late(step, inputs, known)

    def is_older(self, buffer: Buffer, step: Step, until: Buffer) -> bool:
        """Whether a buffer was there before what is waited for: not one that belongs to the same recomputation."""
        maker = self.order[self.maker[buffer]]
        return self.maker[buffer] < self.maker[until] and not (step.recomputed and maker.recomputed == step.recomputed)

    def one_late(self, step: Step, inputs: list[Node], until: Node) -> list[Node]:
        """The operands of a step with one, that costs least, behind a barrier."""
        possible = [k for k, n in enumerate(inputs) if may_be_held(n) and n.op is not CONSTANT]
        if not possible:
            return inputs
        number = min(possible, key=lambda k: inputs[k].aval.nbytes)
        return [self.barrier(n, until) if k == number else n for k, n in enumerate(inputs)]

    def barrier(self, node: Node, until: Node) -> Node:
        """A node behind a barrier, one for each that is waited for."""
        if (node, until) not in self.barriers:
            self.barriers[node, until] = barrier(node, until, len(self.barriers) + 1)
        return self.barriers[node, until]

    def is_shared(self, operand: Node, leaves: Mapping[Node, Node]) -> bool:
        """Whether something large that is fused into a step, or copied for it, was read by an earlier one."""
        return any(n in self.seen and n.aval.nbytes >= self.large for n in parts_of(operand, leaves))

    def see(self, operand: Node, leaves: Mapping[Node, Node]) -> None:
        """Remembers what a step reads, and what is fused into it."""
        self.seen.update(parts_of(operand, leaves))

    def waits_for(self, number: int) -> Buffer | None:
        """What step `number`, the first of a recomputation, waits for: of what is read with its result what is known
        last, or what was computed just before it."""
        own = self.order[number].recomputed
        pause = max(k for k, s in enumerate(self.order[:number]) if self.again[own].value in _values(s))
        reader = next(s for s in self.order[number:] if s.recomputed != own)
        since = [s for s in self.order[pause + 1 : number] if s.recomputed != own]
        read = [(self.depth[s], b) for s in since for b in s.writes if b in reader.reads]
        near = [(self.depth[s], b) for s in since[-NEAREST:] for b in s.writes]
        for candidates in (read, near):
            possible = [(depth, b) for depth, b in candidates if may_be_waited_for(b.value)]
            if possible:
                return max(possible, key=lambda pair: pair[0])[1]
        return None


def _values(step: Step) -> set[Node]:
    return {buffer.value for buffer in (*step.reads, *step.writes)}


def parts_of(operand: Node, leaves: Mapping[Node, Node]) -> set[Node]:
    """What is fused into a step that reads an operand: itself, if it is a leaf."""
    found = {operand}
    stack = [operand]
    while stack:
        node = stack.pop()
        inputs = () if node in leaves else [n for n in node.inputs if n not in found and n not in leaves]
        found.update(inputs)
        stack += inputs
    return found


def is_copied(node: Node, number: int) -> bool:
    """Whether XLA:CPU copies an operand to have it in another order: of a product the one that is not summed over its
    last axes on the left, its first ones on the right."""
    if node.op is not DOT:
        return False
    contracted, batch = (axes[number] for axes in node.attrs["dimension_numbers"])
    rank, batches = len(node.inputs[number].aval.shape), len(batch)
    first = batches if number else rank - len(contracted)
    return tuple(batch) != tuple(range(batches)) or tuple(contracted) != tuple(range(first, first + len(contracted)))


def seen(node: Node) -> Node:
    """What a node is a view of."""
    while node.op in VIEWS:
        node = node.inputs[0]
    return node


def depths(order: Sequence[Step]) -> dict[Step, int]:
    """How many steps each step needs at least before it, one after the other."""
    depth: dict[Buffer, int] = {}
    found: dict[Step, int] = {}
    for step in order:
        found[step] = 1 + max((depth.get(b, 0) for b in step.reads), default=0)
        depth.update(dict.fromkeys(step.writes, found[step]))
    return found
