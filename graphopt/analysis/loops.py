"""Whole loops in one kernel: `scan` and `while` whose bodies compute on numbers, or element by element on arrays.

What a loop carries has no dimensions, or all of it one shape. Elements do not see each other: a block of them, a tile
for each carried array, runs the loop by itself from its first iteration to its last, and nothing of it is written to
memory in between. A `while` that `jax.vmap` made has a condition for each element: a block goes on until none of its
own elements does.

Body:
    graph @1(%0: i32[], %1: f32[1000]) { ... }
    %2: (i32[], f32[1000]) = scan[jaxpr=@1, length=9](0:i32[], %0)
Loop program:
    parallel i1 < 8:
      vector j2 < 128: tile0[j2] = in0[128 * i1 + j2]
      serial j3 < 9:
        vector j4 < 128: ... tile0[j4] = v9
      vector j10 < 128: out1[128 * i1 + j10] = tile0[j10]
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jax.extend.core import primitives as p

from graphopt.analysis.access import Indices
from graphopt.analysis.arrays_in_loops import declined_arrays, write_arrays_loop
from graphopt.analysis.derive import Derivation
from graphopt.analysis.kernel_time import GUESSED
from graphopt.analysis.reductions import OR
from graphopt.ir.attrs import EMPTY
from graphopt.ir.graph import Graph
from graphopt.ir.index import Index, delinear, linear, variable
from graphopt.ir.loop import (
    SERIAL,
    VECTOR,
    Accumulate,
    Apply,
    Buffer,
    Literal,
    Load,
    Local,
    Position,
    Set,
    Store,
    Value,
)
from graphopt.ir.node import Node
from graphopt.ir.op import CONSTANT, PARAM, PROJECT, op_of
from graphopt.ops.control import COND, SCAN, WHILE, Cond, Scan, While
from graphopt.ops.make import BROADCAST

LOOPS = (SCAN, WHILE)
SELECT, IOTA = op_of(p.select_n_p), op_of(p.iota_p)

BLOCK = 1024
"""Elements of a block at most: what a loop carries of them stays in a core's first cache."""

FEW_BLOCKS = 8
"""Into how many blocks an array is cut at least where each can fill a vector."""

LEAST, APART = 256, 16
"""Elements of a block at least: a step takes some nanoseconds beside its elements, and rows are read in larger pieces.
And where each element has a condition of its own: blocks go on until none of theirs holds."""

OPERATIONS = 400
"""In a body and those in it, at most: each is a statement or more to compile."""

Declines = Callable[[Node], str | None]


def iterations(node: Node) -> int:
    """How often a loop's body runs, or is taken to."""
    return Scan.of(node).length if node.op is SCAN else GUESSED


# ---- which loops


def declined_loop(node: Node, declines: Declines) -> str | None:
    """Why a loop cannot be a kernel; None where it can. declines: why an operation of its body cannot be in one."""
    name = node.op.name
    if node.op is SCAN and not Scan.of(node).length:
        return f"{name} without an iteration"
    if is_of_one_shape(node, declines):
        return None
    why = declined_arrays(node, declines)
    return None if why is None else f"{name} with {why}"


def is_of_one_shape(node: Node, declines: Declines = lambda node: None) -> bool:
    """Whether a loop computes on numbers, or element by element on arrays of one shape."""
    shapes = {shape for shape in _carried_shapes(node) if shape}
    return len(shapes) <= 1 and _declined_inside(node, next(iter(shapes), ()), declines) is None


def _carried_shapes(node: Node) -> list[tuple[int, ...]]:
    """The shapes of what a loop has in one iteration."""
    if node.op is WHILE:
        return [n.aval.shape for n in node.inputs]
    return [n.aval.shape for n in (*Scan.of(node).body.params, *Scan.of(node).body.outputs)]


def _declined_inside(node: Node, shape: tuple[int, ...], declines: Declines) -> str | None:
    if node.op is SCAN:
        return _declined_body(Scan.of(node).body, shape, declines)
    loop = While.of(node)
    carried = loop.body.outputs
    if is_for_each(loop) and any(n.aval.shape != loop.cond.outputs[0].aval.shape for n in carried):
        return "a condition on some axes"
    return _declined_body(loop.body, shape, declines) or _declined_body(loop.cond, shape, declines)


def is_for_each(loop: While) -> bool:
    """Whether there is a condition for each element, as `jax.vmap` makes it: it holds or the element stays the same."""
    return bool(loop.cond.outputs[0].aval.shape)


def _declined_body(body: Graph, shape: tuple[int, ...], declines: Declines) -> str | None:
    if len(body.nodes) > OPERATIONS:
        return "more operations than a kernel should have"
    for node in body.nodes:
        if node.op is PARAM or node.op is PROJECT:
            continue
        if any(aval.shape not in ((), shape) for aval in node.avals):
            return "arrays of several shapes"
        if node.op is CONSTANT:
            if node.attrs["value"].element is None:
                return "an array that is constant"
            continue
        if node.effects or node.context is not None:
            return node.op.name
        if any(n.aval.shape for n in node.inputs) and not all(aval.shape for aval in node.avals):
            return f"{node.op.name} of all elements"
        if node.op in LOOPS:
            if any(n.aval.shape for n in node.inputs) or (node.op is SCAN and _is_stacked(Scan.of(node))):
                return "a loop over arrays inside"
            why = _declined_inside(node, (), declines)
        elif node.op is COND and len({aval.shape for aval in node.avals}) > 1:
            why = "arrays of several shapes"
        elif node.op is COND:
            whys = [_declined_body(branch, shape, declines) for branch in Cond.of(node).branches]
            inside = any(n.op in LOOPS for branch in Cond.of(node).branches for n in branch.nodes)
            why = "a loop in a branch" if inside else next((w for w in whys if w is not None), None)
        elif node.op is BROADCAST:
            (operand,) = node.inputs
            why = None if operand.aval.shape in ((), node.aval.shape) else "arrays of several shapes"
        else:
            why = declines(node) if node.op.elementwise or node.op is IOTA else node.op.name
        if why is not None:
            return why
    return None


def _is_stacked(scan: Scan) -> bool:
    return scan.xs > 0 or len(scan.body.outputs) > scan.carry


# ---- their loop programs


def write_loop(derivation: Derivation, node: Node) -> None:
    """The phase of a loop: blocks of elements side by side."""
    if is_of_one_shape(node):
        _Writer(derivation, node).write()
    else:
        write_arrays_loop(derivation, node)


@dataclass(frozen=True, slots=True)
class _Operands:
    """What a loop is given. number: operand i, which has no dimensions. lane: its element. row: that of its row t."""

    number: Callable[[int], Value]
    lane: Callable[[int, Indices], Value]
    row: Callable[[int, Index, Indices], Value]
    store: Callable[[int, Index, Indices, Value], None]


State = Local | Buffer
"""What is carried: a number, or a tile of an array's elements."""


class _Writer:
    def __init__(self, derivation: Derivation, node: Node) -> None:
        self.d = derivation
        self.node = node
        shapes = [shape for shape in _carried_shapes(node) if shape]
        self.shape = shapes[0] if shapes else ()
        self.size = math.prod(self.shape)
        apart = node.op is WHILE and is_for_each(While.of(node))
        least = APART if apart else 2 * LEAST if node.op is SCAN and _is_stacked(Scan.of(node)) else LEAST
        self.width = min(self.size, BLOCK, max(least, -(-self.size // FEW_BLOCKS)))
        self.block = Index()
        self.goes_on: Buffer | None = None  # where there is a condition for each element, whether it holds

    def write(self) -> None:
        """One phase."""

        def write_block(block: Index) -> None:
            self.block = block
            if self.node.op is WHILE and is_for_each(While.of(self.node)):
                self.goes_on = self.d.new_tile(np.bool_, self.width)
            self.results(self.run(self.node, self.operands()))

        self.d.phase(-(-self.size // self.width), write_block)

    def operands(self) -> _Operands:
        d, inputs = self.d, self.node.inputs
        scan = Scan.of(self.node) if self.node.op is SCAN else None

        def row(i: int, t: Index, at: Indices) -> Value:
            return d.value(inputs[i], (t, *at))

        def store(k: int, t: Index, at: Indices, value: Value) -> None:
            assert scan is not None
            out = scan.carry + k
            place = linear((t, *at), self.node.avals[out].shape)
            self.stored(d.outputs[out], place, value, bool(at))

        return _Operands(lambda i: d.value(inputs[i], ()), lambda i, at: d.value(inputs[i], at), row, store)

    def results(self, states: Sequence[State]) -> None:
        """Writes what is carried at last."""
        outputs = self.d.outputs[: len(states)]

        def lane(at: Indices, place: Index) -> None:
            for state, out in zip(states, outputs, strict=True):
                if isinstance(state, Buffer):
                    value = self.d.let(Load(state, place), state.dtype)
                    self.d.add(Store(out, linear(at, self.shape), value))

        self.lanes(states, lane)
        for state, out in zip(states, outputs, strict=True):
            if isinstance(state, Local):
                self.stored(out, Index(), state, is_lane=False)

    def stored(self, out: Buffer, at: Index, value: Value, is_lane: bool) -> None:
        """A result: what is the same for all blocks is written by the first."""
        if is_lane:
            self.d.add(Store(out, at, value))
        else:
            self.d.condition(((self.block, 0, 1),), lambda: self.d.add(Store(out, at, value)))

    def lanes(self, states: Sequence[Any], write: Callable[[Indices, Index], None]) -> None:
        """A loop over the elements of a block, where there are any: their indices, and their places in tiles."""
        if not any(isinstance(state, Buffer) for state in states):
            return
        first = self.block * self.width
        if self.width == 1:
            write(delinear(first, self.shape), Index())
            return
        name = self.d.name("j")
        lane = variable(name, 0, self.width - 1)
        place = first + lane
        within = ((place, 0, self.size),) if self.size % self.width else ()
        self.d.loop_over(name, self.width, VECTOR, lambda: write(delinear(place, self.shape), lane), within)

    # ---- one loop

    def run(self, node: Node, given: _Operands) -> list[State]:
        """The statements of a loop; returns what it carries at last."""
        if node.op is SCAN:
            scan = Scan.of(node)
            body, consts, carry = scan.body, list(range(scan.consts)), scan.carry
            first = scan.consts
        else:
            loop = While.of(node)
            body, carry = loop.body, len(node.inputs) - loop.cond_consts - loop.body_consts
            consts = list(range(loop.cond_consts, loop.cond_consts + loop.body_consts))
            first = loop.cond_consts + loop.body_consts
        initial = body.params[len(consts) : len(consts) + carry]
        states = self.begun(initial, first, given)
        if node.op is SCAN:
            backwards, length = bool(node.attrs["reverse"]), scan.length

            def step(t: Index) -> None:
                self.step(body, consts, states, given, t * -1 + (length - 1) if backwards else t)

            self.d.loop(length, SERIAL, step)
        else:
            self.d.repeat(
                lambda: self.test(loop, states, given), lambda: self.step(body, consts, states, given, Index())
            )
        return states

    def begun(self, params: Sequence[Node], first: int, given: _Operands) -> list[State]:
        """What is carried, before the first iteration; it is given from operand `first` on."""
        states: list[State] = []
        for k, param in enumerate(params):
            if param.aval.shape:
                states.append(self.d.new_tile(param.aval.dtype, self.width))
            else:
                states.append(self.d.let(given.number(first + k), param.aval.dtype, None, "s"))

        def lane(at: Indices, place: Index) -> None:
            for k, state in enumerate(states):
                if isinstance(state, Buffer):
                    self.d.add(Store(state, place, given.lane(first + k, at)))

        self.lanes(states, lane)
        return states

    def test(self, loop: While, states: Sequence[State], given: _Operands) -> Value:
        """The condition; one on each element holds for a block where it does for any of its elements."""
        consts, d = list(range(loop.cond_consts)), self.d
        (output,) = loop.cond.outputs
        values = self.numbers(loop.cond, consts, states, given, Index())
        if self.goes_on is None:
            found: Value = values[output]
            return found
        result, goes_on = d.let(Literal(np.False_), np.bool_, None, "a"), self.goes_on

        def lane(at: Indices, place: Index) -> None:
            inside = self.of_lane(loop.cond, values, consts, states, given, Index(), at, place)
            d.add(Store(goes_on, place, inside[output]))
            d.add(Accumulate(result, OR, inside[output]))

        self.lanes(states, lane)
        return result

    def step(self, body: Graph, consts: Sequence[int], states: Sequence[State], given: _Operands, t: Index) -> None:
        """One iteration: first what has no dimensions, then all elements of the block; then the numbers change."""
        values = self.numbers(body, consts, states, given, t)
        ys = body.outputs[len(states) :]

        def lane(at: Indices, place: Index) -> None:
            inside = self.of_lane(body, values, consts, states, given, t, at, place)
            for state, new in zip(states, body.outputs, strict=False):
                if isinstance(state, Buffer):
                    self.d.add(Store(state, place, self.kept(inside[new], state, place)))
            for k, y in enumerate(ys):
                if y.aval.shape:
                    given.store(k, t, at, inside[y])

        has_lanes = bool(self.shape) and any(n.aval.shape for n in body.outputs)
        self.lanes([*states, *self.d.outputs] if has_lanes else [], lane)
        for k, y in enumerate(ys):
            if not y.aval.shape:
                given.store(k, t, (), values[y])
        numbers = [(s, values[n]) for s, n in zip(states, body.outputs, strict=False) if isinstance(s, Local)]
        # One may become what another has been: all are copied before the first changes.
        copies = [(s, self.d.let(v, s.dtype) if v in states else v) for s, v in numbers if v is not s]
        for state, value in copies:
            self.d.add(Set(state, value))

    def kept(self, new: Value, state: Buffer, place: Index) -> Value:
        """What an element carries from now on: the same where its own condition does not hold."""
        if self.goes_on is None:
            return new
        goes_on = self.d.let(Load(self.goes_on, place), np.bool_)
        old = self.d.let(Load(state, place), state.dtype)
        return self.d.let(Apply(SELECT, EMPTY, (goes_on, old, new)), state.dtype)

    # ---- values

    def numbers(
        self, graph: Graph, consts: Sequence[int], states: Sequence[State], given: _Operands, t: Index
    ) -> dict[Node, Any]:
        """The values in a sub-graph that have no dimensions."""
        values: dict[Node, Any] = {}
        for k, param in enumerate(graph.params):
            if not param.aval.shape:
                kind, i = self.origin(k, consts, states)
                if kind == "state":
                    values[param] = states[i]
                else:
                    values[param] = given.number(i) if kind == "const" else given.row(i, t, ())
        return self.evaluated(graph, values, None)

    def of_lane(
        self,
        graph: Graph,
        values: dict[Node, Any],
        consts: Sequence[int],
        states: Sequence[State],
        given: _Operands,
        t: Index,
        at: Indices,
        place: Index,
    ) -> dict[Node, Any]:
        """All values in a sub-graph, of one element of the block."""
        values = dict(values)
        for k, param in enumerate(graph.params):
            if param.aval.shape:
                kind, i = self.origin(k, consts, states)
                if kind == "state":
                    state = states[i]
                    assert isinstance(state, Buffer)
                    values[param] = self.d.let(Load(state, place), state.dtype)
                else:
                    values[param] = given.lane(i, at) if kind == "const" else given.row(i, t, at)
        return self.evaluated(graph, values, at)

    @staticmethod
    def origin(k: int, consts: Sequence[int], states: Sequence[State]) -> tuple[str, int]:
        """What parameter k of a body is: the operand of a constant, a state, or the operand of rows."""
        if k < len(consts):
            return "const", consts[k]
        if k < len(consts) + len(states):
            return "state", k - len(consts)
        return "row", k

    def evaluated(self, graph: Graph, values: dict[Node, Any], at: Indices | None) -> dict[Node, Any]:
        """The values of a sub-graph's nodes; without `at` those that have no dimensions, which need no others."""
        for node in graph.nodes:
            if node in values or node.op is PARAM:
                continue
            if node.op is PROJECT:
                if node.inputs[0] in values:
                    values[node] = values[node.inputs[0]][node.attrs["index"]]
            elif at is not None or not any(aval.shape for aval in node.avals):
                values[node] = self.value(node, [values[n] for n in node.inputs], at or ())
        return values

    def value(self, node: Node, operands: list[Any], at: Indices) -> Any:
        """The value of one node, or those of one with several results."""
        d = self.d
        if node.op is CONSTANT:
            return Literal(node.attrs["value"].element)
        if node.op is BROADCAST:
            return operands[0]
        if node.op is IOTA:
            return d.let(Position(at[node.attrs["dimension"]]), node.aval.dtype, node)
        if node.op is COND:
            return self.chosen(node, operands, at)
        if node.op in LOOPS:
            found = self.run(node, _Operands(lambda i: operands[i], _none, _none, _none))
            return found if len(node.avals) > 1 else found[0]
        return d.let(Apply(node.op, node.attrs, tuple(operands)), node.aval.dtype, node)

    def chosen(self, node: Node, operands: list[Any], at: Indices) -> Any:
        """All branches, and of their results those of the one that is taken."""
        which, *given = operands
        every = []
        for branch in Cond.of(node).branches:
            values = self.evaluated(branch, dict(zip(branch.params, given, strict=True)), at)
            every.append([values[n] for n in branch.outputs])
        found: list[Value] = []
        for aval, cases in zip(node.avals, zip(*every, strict=True), strict=True):
            alone = len(cases) == 1
            found.append(cases[0] if alone else self.d.let(Apply(SELECT, EMPTY, (which, *cases)), aval.dtype, node))
        return found if len(node.avals) > 1 else found[0]


def _none(*args: Any) -> Any:
    raise AssertionError("a loop inside of another has numbers only")
