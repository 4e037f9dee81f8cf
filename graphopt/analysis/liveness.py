"""Liveness: which values take memory, in which order they are computed, and how much is needed at once.

An estimate of what XLA does: it fuses elementwise operations into what reads them, so that their results are never in
memory, and orders the rest so that little is live at once. What a program needs is what XLA says when it is compiled;
this is to choose by.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from jax.extend.core import primitives as p

from graphopt.analysis.access import MOVES
from graphopt.analysis.cost import cost_of, node_cost
from graphopt.analysis.reductions import REDUCTIONS
from graphopt.analysis.xla_time import FLOPS, FUNCTIONS, RATE
from graphopt.ir.graph import Graph, nested_graphs
from graphopt.ir.node import Node
from graphopt.ir.op import CONSTANT, OCCURRENCE, PARAM, PROJECT, STATE, op_of
from graphopt.ops.barrier import BARRIER
from graphopt.ops.control import COND, SCAN, WHILE
from graphopt.ops.make import BROADCAST

VIEWS = frozenset(op_of(primitive) for primitive in (p.reshape_p, p.squeeze_p, p.transpose_p))
"""Operations whose results are their operands, seen in another way: XLA reads them as they lie, or as it needs them."""

GENERATED = frozenset((BROADCAST, op_of(p.iota_p)))


@dataclass(eq=False, slots=True)
class Buffer:
    """Memory of a value. value: the node. nbytes: 0 where it is a result of the graph, which is counted in any case.

    is_given: whether it is there before the first step. is_kept: whether it is there to the end.
    """

    value: Node
    nbytes: int
    is_given: bool = False
    is_kept: bool = False


@dataclass(eq=False, slots=True)
class Step:
    """One operation whose results take memory, with all that XLA fuses into it.

    node: the operation. reads, writes: buffers. inner: bytes that it needs while it runs (a loop's body). seconds:
    about what it takes. may_repeat: whether it can be computed twice. recomputed: the number of the recomputation
    that the step belongs to; 0 for those of the program itself.
    """

    node: Node
    reads: list[Buffer]
    writes: list[Buffer]
    inner: int
    seconds: float
    may_repeat: bool
    recomputed: int = 0


@dataclass(frozen=True, slots=True)
class Steps:
    """A graph as steps. order: as the graph has them. by_memory: so that each is the one that frees most. fused: the
    nodes without memory of their own, which are part of each step that reads them."""

    order: list[Step]
    by_memory: list[Step]
    fused: Collection[Node]

    @property
    def peak(self) -> int:
        """Bytes that are live at once, in the order in which that is less."""
        return min(max(live(self.order), default=0), max(live(self.by_memory), default=0))


def steps_of(graph: Graph, inner: Mapping[Graph, int] | None = None) -> Steps:
    """The steps of a graph. inner: bytes that its sub-graphs need; estimated where they are not given."""
    if inner is None:
        inner = inner_bytes(graph)
    fused = fused_nodes(graph)
    outputs = set(graph.outputs)
    parts: dict[Node, list[Node]] = {}
    for node in graph.nodes:
        if node.op is PROJECT:
            parts.setdefault(node.inputs[0], []).append(node)
    buffers: dict[Node, Buffer] = {}
    made_by: dict[Buffer, Step] = {}
    reads_of: dict[Node, dict[Buffer, None]] = {}
    order: list[Step] = []
    for node in graph.nodes:
        if node.op in (PARAM, CONSTANT) or (node.op is STATE and not node.inputs):
            buffers[node] = Buffer(node, 0, is_given=True, is_kept=True)
        if node in buffers:
            reads_of[node] = {buffers[node]: None}
            continue
        reads: dict[Buffer, None] = {}
        for operand in node.inputs:
            reads.update(reads_of[operand])
        reads_of[node] = reads
        if node in fused:
            continue
        results = parts.get(node, []) if len(node.avals) != 1 else [node]
        writes = [Buffer(n, 0 if n in outputs else n.aval.nbytes, is_kept=n in outputs) for n in results]
        step = Step(node, list(reads), writes, _inner(node, inner), _seconds(node, fused), _may_repeat(node))
        order.append(step)
        for buffer in writes:
            buffers[buffer.value] = buffer
            reads_of[buffer.value] = {buffer: None}
            made_by[buffer] = step
    return Steps(order, by_memory(order, made_by), fused)


def peak_bytes(graph: Graph) -> int:
    """About how many bytes the intermediate values of a graph take at once."""
    return steps_of(graph).peak


def inner_bytes(graph: Graph) -> dict[Graph, int]:
    """About how many bytes each graph below this one needs for its intermediate values."""
    found: dict[Graph, int] = {}
    for inner in nested_graphs(graph)[:-1]:
        found[inner] = steps_of(inner, found).peak if len(inner.nodes) > 1 else 0
    return found


def live(order: Sequence[Step]) -> list[int]:
    """Bytes that are live while each step runs."""
    last = last_reads(order)
    total, found = 0, []
    dying: dict[Step, list[Buffer]] = {}
    for buffer, step in last.items():
        if not buffer.is_kept:
            dying.setdefault(step, []).append(buffer)
    for step in order:
        total += sum(buffer.nbytes for buffer in step.writes)
        ends = dying.get(step, ())
        # An elementwise operation writes over an operand that nobody needs afterwards.
        over = (
            max((b.nbytes for b in ends if b.nbytes == step.writes[0].nbytes), default=0) if _writes_over(step) else 0
        )
        found.append(total + step.inner - over)
        total -= sum(buffer.nbytes for buffer in ends)
    return found


def last_reads(order: Sequence[Step]) -> dict[Buffer, Step]:
    """For each buffer that a step writes the last step that reads it: itself where none does."""
    last: dict[Buffer, Step] = {}
    for step in order:
        for buffer in step.reads:
            if buffer in last:
                last[buffer] = step
        for buffer in step.writes:
            last[buffer] = step
    return last


def by_memory(order: Sequence[Step], made_by: Mapping[Buffer, Step]) -> list[Step]:
    """The steps so that of those that can be next each is the one that frees most: list scheduling, as XLA does it."""
    readers: dict[Buffer, int] = {}
    waiting: dict[Step, int] = {}
    users: dict[Step, list[Step]] = {step: [] for step in order}
    number = {step: k for k, step in enumerate(order)}
    for step in order:
        needed = {made_by[b] for b in step.reads if b in made_by}
        waiting[step] = len(needed)
        for other in needed:
            users[other].append(step)
        for buffer in step.reads:
            readers[buffer] = readers.get(buffer, 0) + 1
    ready = [step for step in order if not waiting[step]]
    found: list[Step] = []

    def freed(step: Step) -> tuple[int, int]:
        ends = sum(b.nbytes for b in step.reads if readers[b] == 1 and not b.is_kept)
        return ends - sum(b.nbytes for b in step.writes), -number[step]

    while ready:
        step = max(ready, key=freed)
        ready.remove(step)
        found.append(step)
        for buffer in step.reads:
            readers[buffer] -= 1
        for user in users[step]:
            waiting[user] -= 1
            if not waiting[user]:
                ready.append(user)
    return found


def fused_nodes(graph: Graph) -> set[Node]:
    """The nodes that have no memory of their own: parts of the steps that read them."""
    users, outputs = graph.users(), set(graph.outputs)
    absorbed: dict[Node, bool] = {}
    for node in reversed(graph.nodes):
        reading = users[node]
        absorbed[node] = node not in outputs and all(absorbed[u] if u.op in VIEWS else _takes(u) for u in reading)
    fused: set[Node] = set()
    heavy: set[Node] = set()
    for node in graph.nodes:
        if node in outputs or node.op in (PARAM, CONSTANT, STATE) or node.effects or not users[node]:
            continue
        if node.op in VIEWS:
            fused.add(node)
            continue
        if not (node.op.elementwise or node.op in MOVES or node.op in GENERATED or node.op is BARRIER):
            continue
        costs = node.op in FUNCTIONS or any(n in heavy for n in node.inputs)
        if absorbed[node] and (len(users[node]) == 1 or not costs):
            fused.add(node)
            if costs:
                heavy.add(node)
    return fused


def _takes(node: Node) -> bool:
    """Whether XLA fuses what a node reads into it."""
    return node.op.elementwise or node.op in MOVES or node.op in REDUCTIONS or node.op is BARRIER


def _writes_over(step: Step) -> bool:
    return len(step.writes) == 1 and step.node.op.elementwise


def _inner(node: Node, inner: Mapping[Graph, int]) -> int:
    if node.op not in (SCAN, WHILE, COND):
        return 0
    return max((inner.get(sub.graph, 0) for sub in node.subgraphs), default=0)


def _may_repeat(node: Node) -> bool:
    if node.effects or node.op is STATE or node.op.distinct or OCCURRENCE in node.attrs or node.context is not None:
        return False
    return all(aval.is_plain for aval in node.avals)


def _seconds(node: Node, fused: Collection[Node]) -> float:
    """About what a step takes: its operation and those that are fused into it."""
    costs = {sub.graph: cost_of(sub.graph) for sub in node.subgraphs}
    nodes, stack = {node}, list(node.inputs)
    while stack:
        current = stack.pop()
        if current in fused and current not in nodes:
            nodes.add(current)
            stack.extend(current.inputs)
    own = node_cost(node, costs)
    flops = own.flops + sum(_work(n) for n in nodes if n is not node)
    return (flops / FLOPS + own.bytes / RATE) * 1e-9


def _work(node: Node) -> float:
    times = FLOPS * FUNCTIONS[node.op][0] if node.op in FUNCTIONS else 1.0
    return times * node.aval.size if node.op.elementwise else 0.0
