"""Whole loops in one kernel whose bodies compute small arrays of several shapes: filters, recurrent cells, searches.

One thread runs them from the first step to the last. What a step computes is kept array by array, in memory that stays
in the first cache: element by element where operations are elementwise, those of one shape in the same loops; what only
moves data is read where it is. Arrays that are carried have memory of their own, from which a step reads, and which is
written at its end; one of which a step only writes a part is updated there. A branch that is not taken is not computed.

Body:
    graph @1(%0: f32[4,4], %1: f32[4]) { %2 = dot_general(%0, %1); %3 = tanh(%2); return %3 }
    %2: f32[4] = scan[jaxpr=@1, length=9](%0, %1)
Loop program:
    parallel i1 < 1:
      serial j2 < 4: tile0[j2] = in1[j2]
      serial j3 < 9:
        serial j4 < 4: ... tile1[j4] = v9
        serial j10 < 4: tile0[j10] = tile1[j10]
      serial j12 < 4: out0[j12] = tile0[j12]
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jax.extend.core import primitives as p

from graphopt.analysis.access import MOVES, Indices
from graphopt.analysis.derive import EQ, IOTA, Derivation
from graphopt.analysis.indexed import GATHER, INDEXED
from graphopt.analysis.kept_arrays import NEAR, UPDATES, KeptArrays, View
from graphopt.analysis.products import DOT
from graphopt.analysis.products import declined as declined_product
from graphopt.analysis.reductions import REDUCE, REDUCTIONS
from graphopt.analysis.scattering import SCATTERS
from graphopt.analysis.small_solves import LINEAR_SOLVE, LU, SOLVES, TRIANGULAR, factored, solved, solving_body
from graphopt.ir.attrs import EMPTY
from graphopt.ir.aval import Aval, array_aval
from graphopt.ir.graph import Graph, nested_graphs
from graphopt.ir.index import Index
from graphopt.ir.loop import SERIAL, Apply, Literal, Load, Local, Set, Store, Value
from graphopt.ir.node import Node
from graphopt.ir.op import CONSTANT, PARAM, PROJECT, op_of
from graphopt.ops.control import COND, SCAN, WHILE, Cond, Scan, While
from graphopt.ops.make import BROADCAST

LOOPS = (SCAN, WHILE)
CONCATENATE, PAD = op_of(p.concatenate_p), op_of(p.pad_p)

OPERATIONS = 400
"""In a body and those in it, at most: each is a statement or more to compile."""

LARGE = 1 << 14
"""Elements of what a step computes, at most: more had better be shared by several threads."""

CONSTANTS = 64
"""Elements of constant arrays, at most: each is a statement."""


def declined_arrays(node: Node, declines: Callable[[Node], str | None]) -> str | None:
    """Why a loop cannot be a kernel of this kind; None where it can. declines: why an operation cannot be in one."""
    if node.op is SCAN and not Scan.of(node).length:
        return "no iteration"
    if node.op is WHILE and While.of(node).cond.outputs[0].aval.shape:
        return "a condition for each element beside arrays of several shapes"
    graphs = [graph for sub in node.subgraphs for graph in nested_graphs(sub.graph)]
    if sum(len(graph.nodes) for graph in graphs) > OPERATIONS:
        return "more operations than a kernel should have"
    bodies = [sub.graph for sub in node.subgraphs]
    while bodies:
        body = bodies.pop()
        for inner in body.nodes:
            why = _declined_inside(inner, declines)
            if why is not None:
                return why
            bodies += [sub.graph for sub in inner.subgraphs] if inner.op in (*LOOPS, COND) else []
            bodies += [solving_body(inner)[0]] if inner.op is LINEAR_SOLVE else []
    return None


def _declined_inside(node: Node, declines: Callable[[Node], str | None]) -> str | None:
    if node.op is PARAM or node.op is PROJECT:
        return None
    if node.op is CONSTANT:
        small = node.attrs["value"].element is not None or node.aval.size <= CONSTANTS
        return None if small else "a large array that is constant"
    if node.effects or node.context is not None:
        return node.op.name
    if node.op is COND:
        plain = all(aval.is_plain for n in (node, *node.inputs) for aval in n.avals)
        return None if plain else f"{node.op.name} of a type that says more than shape and dtype"
    if node.op is LINEAR_SOLVE:
        return None
    if node.op in LOOPS:
        whole = node.op is WHILE and While.of(node).cond.outputs[0].aval.shape
        return "a condition for each element in a loop inside" if whole else declines_shape(node)
    if node.op not in UPDATES and any(aval.size > LARGE for aval in node.avals):
        return f"{node.op.name} of many elements"
    if node.op in SOLVES:
        return declines(node)
    if node.op is DOT:
        return declined_product(node) or declines(node)
    known = node.op.elementwise or node.op in MOVES or node.op in INDEXED or node.op in SCATTERS or node.op is IOTA
    if not known and (node.op not in REDUCTIONS or node.op is REDUCE):
        return node.op.name
    return declines(node)


def declines_shape(node: Node) -> str | None:
    """Why a loop inside of another cannot be in a kernel, its body apart."""
    return "a loop inside without an iteration" if node.op is SCAN and not Scan.of(node).length else None


def write_arrays_loop(derivation: Derivation, node: Node) -> None:
    """The phase of a loop."""
    _Writer(derivation).write(node)


@dataclass(eq=False, slots=True)
class _Step:
    """What is known while one graph is written.

    of: by node of the graph, what it is in terms of what is kept. parts: results of operations with several. pending:
    arrays of one shape that are to be written in the same loops, what stands for each and what it is computed of.
    """

    of: dict[Node, Node]
    parts: dict[Node, list[Node]]
    pending: list[tuple[Node, Node]]


class _Writer(KeptArrays):
    def __init__(self, derivation: Derivation) -> None:
        super().__init__(derivation)
        self.constants: dict[Node, Node] = {}

    def write(self, node: Node) -> None:
        """One phase."""

        def whole(_: Index) -> None:
            for graph in nested_graphs(self.d.body):
                for constant in graph.nodes:
                    if constant.op is CONSTANT and constant.attrs["value"].element is None and graph is not self.d.body:
                        self.constants.setdefault(constant, self.constant(constant))
            inputs = [self.given(operand) for operand in node.inputs]
            views = [View(buffer, Index()) for buffer in self.d.outputs]
            self.loop(node, inputs, views)

        self.d.phase(1, whole, opaque=True)

    # ---- loops

    def loop(self, node: Node, inputs: Sequence[Node], views: Sequence[View] | None = None) -> list[Node]:
        """The statements of a loop; its results, in `views` where these are given. inputs: what is kept."""
        if node.op is SCAN:
            scan = Scan.of(node)
            body, carry, consts, test_consts = scan.body, scan.carry, inputs[: scan.consts], inputs[:0]
            first = scan.consts
        else:
            loop = While.of(node)
            body, first = loop.body, loop.cond_consts + loop.body_consts
            carry, consts = len(inputs) - first, inputs[loop.cond_consts : first]
            test_consts = inputs[: loop.cond_consts]
        states: list[View | Local] = []
        for k, initial in enumerate(inputs[first : first + carry]):
            if not initial.aval.shape:
                states.append(self.d.let(self.d.value(initial, ()), initial.aval.dtype, None, "s"))
                continue
            large = views is not None and initial.aval.nbytes > NEAR
            view = views[k] if large and views is not None else self.room(initial.aval)
            self.copied(initial, view)
            states.append(view)
        rows = [views[k] if views is not None else self.room(aval) for k, aval in enumerate(node.avals) if k >= carry]
        if node.op is SCAN:
            backwards, length = bool(node.attrs["reverse"]), scan.length

            def step(t: Index) -> None:
                t = t * -1 + (length - 1) if backwards else t
                self.step(body, consts, states, [self.row(n, t) for n in inputs[first + carry :]], rows, t)

            self.d.loop(length, SERIAL, step, opaque=True)
        else:

            def test() -> Value:
                of = self.graph(loop.cond, [*test_consts, *self.current(states, node.avals)])
                return self.d.value(of[loop.cond.outputs[0]], ())

            self.d.repeat(test, lambda: self.step(body, consts, states, [], [], Index()), opaque=True)
        self.d.apart()
        results = self.current(states, node.avals)
        for k, result in enumerate(results):
            if views is not None and self.views.get(result) != views[k]:
                self.copied(result, views[k])
        return [*results, *(self.named(aval, view) for aval, view in zip(node.avals[carry:], rows, strict=True))]

    def current(self, states: Sequence[View | Local], avals: Sequence[Aval]) -> list[Node]:
        """What is carried, as it is now."""
        return [
            self.named(aval, state) if isinstance(state, View) else self.number(aval, state)
            for state, aval in zip(states, avals, strict=False)
        ]

    def row(self, node: Node, t: Index) -> Node:
        """One row of an array that is kept."""
        aval, view = array_aval(node.aval.shape[1:], node.aval.dtype, node.aval.weak_type), self.views[node]
        start = view.start + t * aval.size
        if aval.shape:
            return self.named(aval, View(view.buffer, start))
        return self.number(aval, self.d.let(Load(view.buffer, start), aval.dtype, None, "x"))

    def step(
        self,
        body: Graph,
        consts: Sequence[Node],
        states: Sequence[View | Local],
        given: Sequence[Node],
        rows: Sequence[View],
        t: Index,
    ) -> None:
        """One iteration: all is computed, then rows are written, then what is carried changes.

        Parts of arrays, which may be computed of what else is carried, do so before whole arrays, which have been.
        """
        d, carry = self.d, len(states)
        current = self.current(states, [n.aval for n in body.outputs])
        bound = [*consts, *current, *given]
        updates = {
            k: _updates(body, k, body.params[len(consts) + k])
            for k, state in enumerate(states)
            if isinstance(state, View)
        }
        later = {node for chain in updates.values() for node in chain}
        of = self.graph(body, bound, later)
        new = [of.get(output) for output in body.outputs]
        numbers = [
            (state, d.value(found, ()))
            for state, found, now in zip(states, new, current, strict=False)
            if isinstance(state, Local) and found is not None and found is not now
        ]
        for view, found in zip(rows, new[carry:], strict=True):
            assert found is not None
            start = view.start + t * found.aval.size
            if found.aval.shape:
                self.copied(found, View(view.buffer, start))
            else:
                d.add(Store(view.buffer, start, d.value(found, ())))
        # One may become what another has been: these are copied before the first changes.
        arrays = []
        for k, (state, found, now) in enumerate(zip(states, new, current, strict=False)):
            if isinstance(state, View) and not updates[k] and found is not now:
                assert found is not None
                arrays.append((state, self.copied(found) if found in current else found))
        changed = frozenset(now for k, now in enumerate(current) if updates.get(k))
        chains = [
            (state, [self.operands(node, of, current[k], changed) for node in updates[k]])
            for k, state in enumerate(states)
            if isinstance(state, View) and updates[k]
        ]
        values = {s for s in states if isinstance(s, Local)}
        copies = [(s, d.let(v, s.dtype) if v in values else v) for s, v in numbers]
        for state, chain in chains:
            for node in chain:
                self.update(node, state)
        for state, found in arrays:
            self.copied(found, state)
        for state, value in copies:
            d.add(Set(state, value))

    def operands(self, node: Node, of: Mapping[Node, Node], state: Node, changed: frozenset[Node]) -> Node:
        """An update with its operands as they are before anything is written. changed: arrays that are updated."""
        new = [state]
        for operand in node.inputs[1:]:
            found = of[operand]
            if not found.aval.shape:
                found = self.kept(found)
            elif not changed.isdisjoint(self.reads[found]):
                found = self.copied(found)
            new.append(found)
        return self.expression(node, new)

    # ---- graphs

    def graph(self, graph: Graph, bound: Sequence[Node], later: set[Node] | None = None) -> dict[Node, Node]:
        """What the nodes of a graph are, computed where it has to be kept. bound: what its parameters are.

        later: nodes that are not computed here.
        """
        step = _Step(dict(zip(graph.params, bound, strict=True)), {}, [])
        users, outputs = graph.users(), set(graph.outputs)
        for node in graph.nodes:
            if node in step.of or (later and node in later):
                continue
            if node.op is PROJECT:
                step.of[node] = step.parts[node.inputs[0]][node.attrs["index"]]
            elif node.op is CONSTANT:
                step.of[node] = self.constants.get(node, node)
                self.reads.setdefault(node, {})
                self.d.above.setdefault(node, frozenset())
            elif node.op in SOLVES or node.op is LINEAR_SOLVE:
                self.flush(step)
                found = self.solution(node, [step.of[n] for n in node.inputs])
                step.parts[node] = found
                if len(node.avals) == 1:
                    step.of[node] = found[0]
            elif node.op in LOOPS or node.op is COND:
                self.flush(step)
                given = [self.kept(step.of[n]) for n in node.inputs]
                found = self.loop(node, given) if node.op in LOOPS else self.chosen(node, given)
                step.parts[node] = found
                if len(node.avals) == 1:
                    step.of[node] = found[0]
            else:
                self.operation(node, step, _is_kept(node, users[node], node in outputs))
        self.flush(step)
        return step.of

    def operation(self, node: Node, step: _Step, is_kept: bool) -> None:
        """One operation."""
        inputs = [step.of[n] for n in node.inputs]
        special = node.op in (CONCATENATE, PAD, DOT, *UPDATES)
        if special:
            self.flush(step)
            if node.op is DOT and (found := self.product(node, inputs)) is not None:
                step.of[node] = found
                return
            if node.op in UPDATES:
                first = self.copied(inputs[0])
                self.update(self.expression(node, [first, *inputs[1:]]), self.views[first])
                step.of[node] = self.named(node.aval, self.views[first])
                return
            if node.op is CONCATENATE:
                step.of[node] = self.joined(node, inputs)
                return
        new = self.written_out(node, inputs) if node.op is DOT else self.expression(node, inputs)
        pending = {name for name, _ in step.pending}
        across = any(name in pending and not same for name, same in self.reads[new].items())
        if not node.aval.shape:
            if across:
                self.flush(step)
            # What reads arrays does so now, before they change.
            step.of[node] = new if node.op.elementwise and node.op not in MOVES else self.kept(new)
            return
        if not is_kept:
            step.of[node] = new
            return
        # A loop over elements in their order is for vectors, where none is summed or looked up on the way.
        alike = [n.aval.shape == node.aval.shape and self.is_flat(e) == self.is_flat(new) for n, e in step.pending]
        if across or not all(alike):
            self.flush(step)
        name = self.named(node.aval, self.room(node.aval))
        step.pending.append((name, new))
        step.of[node] = name

    def solution(self, node: Node, inputs: Sequence[Node]) -> list[Node]:
        """The results of a factorization, or of a system of equations."""
        if node.op is LU:
            return factored(self, node, inputs[0])
        if node.op is TRIANGULAR:
            return [solved(self, node, inputs[0], inputs[1])]
        body, consts = solving_body(node)
        of = self.graph(body, [self.kept(inputs[k]) for k in consts])
        return [self.kept(of[output]) for output in body.outputs]

    def flush(self, step: _Step) -> None:
        """Writes what is pending, in the same loops."""
        if not step.pending:
            return
        pending, step.pending = step.pending, []

        def write(at: Indices) -> None:
            for name, node in pending:
                self.d.know((name, at), self.store(self.views[name], at, node))

        self.over(pending[0][0].aval.shape, write, all(self.is_flat(node) for _, node in pending))
        self.d.apart()

    def chosen(self, node: Node, inputs: Sequence[Node]) -> list[Node]:
        """The results of the branch that is taken."""
        d, branches = self.d, Cond.of(node).branches
        which = d.value(inputs[0], ())
        homes: list[View | Local] = [
            self.room(aval) if aval.shape else d.let(Literal(np.zeros((), aval.dtype)[()]), aval.dtype, None, "s")
            for aval in node.avals
        ]
        for number, branch in enumerate(branches):

            def write(branch: Graph = branch) -> None:
                of = self.graph(branch, inputs[1:])
                for home, output in zip(homes, branch.outputs, strict=True):
                    if isinstance(home, View):
                        self.copied(of[output], home)
                    else:
                        d.add(Set(home, d.value(of[output], ())))

            dtype = which.dtype
            given = Literal(np.asarray(number).astype(dtype)[()])
            d.when(d.let(Apply(EQ, EMPTY, (which, given)), np.bool_), write)
        d.apart()
        return self.current(homes, node.avals)


def _is_kept(node: Node, users: Sequence[Node], is_output: bool) -> bool:
    """Whether an array is written to memory, and not computed anew where it is read."""
    if is_output or node.op in (PAD, GATHER) or node.op in REDUCTIONS or node.op is DOT:
        return True
    if node.op in MOVES or node.op in INDEXED or node.op in (IOTA, BROADCAST):
        return False
    if len(users) > 1:
        return True
    return not all((u.op.elementwise and u.aval.shape == node.aval.shape) or u.op in REDUCTIONS for u in users)


def _updates(body: Graph, number: int, state: Node) -> list[Node]:
    """Operations that give a result of a body by changing parts of what is carried, first to last; nothing where it is
    not made so, or where something in between is needed elsewhere."""
    users, node = body.users(), body.outputs[number]
    found: list[Node] = []
    while node is not state:
        is_last = not found
        if node.op not in UPDATES or len(node.avals) != 1:
            return []
        wanted = (body.outputs.count(node), len(users[node]))
        if wanted != ((1, 0) if is_last else (0, 1)):
            return []
        found.insert(0, node)
        node = node.inputs[0]
    return found
