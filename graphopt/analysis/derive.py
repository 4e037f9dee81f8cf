"""From a kernel's body to its loop program, by access maps.

The body is asked for one element of each output at symbolic indices. What that element needs is asked for in turn, at
the indices that the access maps give, down to loads from the kernel's operands. Each value is computed in the outermost
loop that has all the variables of its indices: what does not depend on an inner loop stands before it, so a row's
maximum is computed once a row. A reduction is an accumulator and loops around its operand's element. Reductions over
the same extents that do not need each other share their loops, and with them the values in them. Loops over a few
elements are written out, so that what is around them can be vectorized.

Body:
    %1: f32[8] = reduce_max[axes=(1,)](%0)
    %2: f32[8,100] = broadcast_in_dim[broadcast_dimensions=(0,), shape=(8, 100)](%1)
    %3: f32[8,100] = sub(%0, %2)
Loop program:
    parallel i1 < 8:
      a2: f32 = -inf
      reduction r3 < 100:
        x4: f32 = in0[100 * i1 + r3]
        a2 max= x4
      serial j5 < 100:
        x6: f32 = in0[100 * i1 + j5]
        v7: f32 = sub(x6, a2)
        out0[100 * i1 + j5] = v7
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from jax.extend.core import primitives as p

from graphopt.analysis.access import MOVES, Given, Indices, Read, Within, always, elementwise
from graphopt.analysis.folds import Fold, fold_of
from graphopt.analysis.indexed import INDEXED
from graphopt.analysis.nests import SMALL, NestWriter
from graphopt.analysis.ordered import Accumulator, accumulator
from graphopt.analysis.reductions import MIN, OR, REDUCE, REDUCTIONS, Reduction, axes_of, is_arg
from graphopt.analysis.symmetry import in_order, symmetries
from graphopt.analysis.windows import SELECTED, WINDOWS, window_fold
from graphopt.analysis.writing import CHAINED, Element, Part
from graphopt.ir.attrs import EMPTY
from graphopt.ir.aval import is_floating
from graphopt.ir.graph import Graph
from graphopt.ir.index import Index, delinear, linear, variable
from graphopt.ir.index import number as number_index
from graphopt.ir.loop import (
    Accumulate,
    Apply,
    Buffer,
    Literal,
    Load,
    Local,
    Position,
    Set,
    Store,
    Test,
    Value,
)
from graphopt.ir.node import Node
from graphopt.ir.op import CONSTANT, PARAM, PROJECT, op_of

IOTA = op_of(p.iota_p)
SELECT, EQ, NE, CLAMP = (op_of(primitive) for primitive in (p.select_n_p, p.eq_p, p.ne_p, p.clamp_p))

INT64 = np.dtype(np.int64)

DEEP = 32
"""Operations that each need the one before, from which on Python's stack is kept from growing with them."""


class Derivation(NestWriter):
    """Writes the loop programs of one body: what its nodes' elements are computed from."""

    def __init__(self, body: Graph, cost: Callable[[Node], float], small: int = SMALL) -> None:
        """cost: of one element of a node, in nanoseconds. small: the elements of an axis that is written out."""
        super().__init__(body, cost, small)
        self.combined: dict[Node, Callable[[Indices], Value]] = {}  # how else elements of a node are found
        self.folds: dict[Node, Callable[[Indices], Fold]] = {}  # what is left of a reduction that was done in parts
        # Where operands are with their last two axes exchanged, and the shape they have there.
        self.turned: dict[Node, tuple[Buffer, tuple[int, ...]]] = {}
        self.within: dict[Node, Callable[[Index], Within]] = {}  # conditions on what reductions go over
        self.symmetries = symmetries(body)
        self.depths: dict[Node, int] = {}  # operations that each need the one before, elementwise and of one shape
        for node in body.nodes:
            if _is_elementwise(node):
                inner = (self.depths.get(n, 0) for n in node.inputs if n.aval.shape == node.aval.shape)
                self.depths[node] = 1 + max(inner, default=0)
        self._deep: set[Indices] = set()  # places of which what is deep is being written

    def value(self, node: Node, at: Indices) -> Value:
        """One element of a node, computed in the outermost block that it can be computed in."""
        if node in self.symmetries:
            at = in_order(at, self.symmetries[node])
        if self.depths.get(node, 0) >= DEEP and at not in self._deep and not self._is_found(node, at):
            self._deep.add(at)
            here = tuple(read if size != 1 else Index() for read, size in zip(at, node.aval.shape, strict=True))
            for operand in self._made_of(node, here):
                self.value(operand, here)
            self._deep.remove(at)
        return self.once((node, at), at, lambda: self._compute(node, at))

    def _made_of(self, node: Node, at: Indices) -> list[Node]:
        """What an element is computed from at the same place, in the order in which it is written."""
        found: list[Node] = []
        seen: set[Node] = set()
        stack = [(operand, False) for operand in reversed(node.inputs)]
        while stack:
            current, is_done = stack.pop()
            if is_done:
                found.append(current)
            elif current not in seen and self.depths.get(current) and current.aval.shape == node.aval.shape:
                seen.add(current)
                if not self._is_found(current, at):
                    stack.append((current, True))
                    stack += [(operand, False) for operand in reversed(current.inputs)]
        return found

    def _is_found(self, node: Node, at: Indices) -> bool:
        """Whether an element is known, or found otherwise than from those of operands."""
        kept = self.columns if self._path[-1].vector else None
        elsewhere = node in self.symmetries or node in self.turned or node in self.combined or node in self.folds
        return elsewhere or self.is_known((node, at)) or (kept is not None and kept.keeps(node, at))

    def _compute(self, node: Node, at: Indices) -> Value:
        kept = self.columns if self._path[-1].vector and node not in self.combined else None
        if kept is not None and kept.keeps(node, at):
            return kept.element(node, at)
        self.evaluated(node)
        if node in self.turned:
            turned, shape = self.turned[node]
            place = linear((*at[:-2], at[-1], at[-2]), shape)
            return self.let(Load(turned, place), node.aval.dtype, node, "x")
        if node.op is PARAM and node not in self.combined:
            return self.let(Load(self.inputs[node], linear(at, node.aval.shape)), node.aval.dtype, node, "x")
        if node.op is CONSTANT:
            return Literal(node.attrs["value"].element)
        if node.op in MOVES:
            return self._moved(node, list(MOVES[node.op](node, at)))
        if node.op in INDEXED:
            self.spend(node)
            return self._moved(node, list(INDEXED[node.op](node, at, self)))
        if node.op is IOTA:
            return self.let(Position(at[node.attrs["dimension"]]), node.aval.dtype, node)
        if node in self.combined:
            return self.combined[node](at)
        if node.op in REDUCTIONS and node not in self.folds:
            return self.reduction(node, at)
        if is_fold(node):
            source, number = kept_by(node)
            found = self.once(("fold", source, at), at, lambda: self.folded(self.fold_for(source, at), source))
            return self.converted(found[number], node.aval.dtype)
        operands = tuple(self.value(node.inputs[read.operand], read.at) for read in elementwise(node, at))
        return self.let(Apply(node.op, node.attrs, operands), node.aval.dtype, node)

    def _moved(self, node: Node, reads: Sequence[Read | Given]) -> Value:
        """What the first read gives whose conditions hold."""
        reads = [r for r in reads if isinstance(r, Given) or always(r.within) is not False]
        first = reads[0]
        if isinstance(first, Given):
            return Literal(first.value)
        if always(first.within):
            return self.value(node.inputs[first.operand], first.at)
        if first.anywhere and isinstance(reads[1], Given):
            found = self.value(node.inputs[first.operand], first.at)
            inside, other = self._inside_of(first.within), Literal(reads[1].value)
            return self.let(Apply(SELECT, EMPTY, (inside, other, found)), node.aval.dtype, node)
        result = self.let(Literal(np.zeros((), node.aval.dtype)[()]), node.aval.dtype, node)
        self._choose(node, reads, result)
        return result

    def _choose(self, node: Node, reads: Sequence[Read | Given], result: Local) -> None:
        first = reads[0]
        if isinstance(first, Given):
            self.add(Set(result, Literal(first.value), node))
            return
        if len(reads) == 1 or always(first.within):
            self.add(Set(result, self.value(node.inputs[first.operand], first.at), node))
            return
        alone = [Read(first.operand, first.at)]
        self.condition(
            first.within, lambda: self._choose(node, alone, result), lambda: self._choose(node, reads[1:], result)
        )

    def _inside_of(self, within: Within) -> Value:
        """Whether conditions hold."""
        return self.once(within, tuple(at for at, _, _ in within), lambda: self.let(Test(within), np.bool_))

    def index(self, operand: Node, at: Indices, dtype: Any, high: int | None = None) -> Index:
        """One element of a node, of integers, as a variable of indices: converted, and clamped where `high` is."""
        known = ("index", operand, at, np.dtype(dtype), high)
        return self.once(known, at, lambda: self._looked_up(self.value(operand, at), np.dtype(dtype), high))

    def _looked_up(self, value: Value, dtype: np.dtype[Any], high: int | None) -> Index:
        low, most = int(np.iinfo(dtype).min), int(np.iinfo(dtype).max)
        if high is not None:
            low, most = max(low, 0), min(most, high)
        if isinstance(value, Literal):
            given = int(np.asarray(value.value).astype(dtype))
            return number_index(given if high is None else min(max(given, low), most))
        if value.dtype != dtype:
            value = self.converted(value, dtype)
        if high is not None:
            least, greatest = Literal(dtype.type(low)), Literal(dtype.type(most))
            value = self.let(Apply(CLAMP, EMPTY, (least, value, greatest)), dtype)
        if dtype != INT64:
            value = self.converted(value, INT64)
        assert isinstance(value, Local)
        if most > np.iinfo(INT64).max:  # what is too large becomes negative
            low, most = int(np.iinfo(INT64).min), int(np.iinfo(INT64).max)
        self.bind(value.name)
        return variable(value.name, low, most)

    # ---- reductions

    def reduction(self, node: Node, at: Indices) -> Value:
        """One element of a reduction, by loops over what it goes over."""
        axes, shape = axes_of(node), node.inputs[0].aval.shape
        extents = [shape[axis] for axis in axes]
        return self.reduce(node, [(extents, lambda r: merged(at, axes, r))])

    def reduce(self, node: Node, places: Sequence[tuple[Sequence[int], Callable[[Indices], Indices]]]) -> Value:
        """A reduction over all of `places`: loops of these extents, and the operand's indices in them."""
        best = self.best(node, [(extents, self._operand(node, place)) for extents, place in places])
        if not is_arg(node):
            return best
        return self.first(node, [(extents, self.candidate(node, best, place)) for extents, place in places])

    def _operand(self, node: Node, place: Callable[[Indices], Indices]) -> Element:
        return lambda r: self.value(node.inputs[0], place(r))

    def best(self, node: Node, parts: Sequence[Part]) -> Value:
        """The operand's elements in `parts` combined: for argmax the greatest of them."""
        dtype = node.inputs[0].aval.dtype
        return self.converted(self.fold(REDUCTIONS[node.op], dtype, parts, node), dtype)

    def first(self, node: Node, parts: Sequence[Part]) -> Value:
        """The least of `parts`, which are places."""
        last = Reduction(MIN, lambda dtype: self.last(node))
        return self.fold(last, node.attrs["index_dtype"], parts, node, again=True)

    def last(self, node: Node) -> int:
        """The greatest place that an argmax or argmin can give."""
        (axis,) = axes_of(node)
        return max(0, int(node.inputs[0].aval.shape[axis]) - 1)

    def candidate(self, node: Node, best: Value, place: Callable[[Indices], Indices]) -> Element:
        """The place of an element that is `best`, or is no number (`best` is none either then); else the last place."""
        operand, dtype = node.inputs[0], np.dtype(node.attrs["index_dtype"])
        (axis,) = axes_of(node)
        last = Literal(np.asarray(self.last(node)).astype(dtype)[()])

        def element(r: Indices) -> Value:
            at = place(r)
            found = self.value(operand, at)
            same: Value = self.let(Apply(EQ, EMPTY, (found, best)), np.bool_)
            if is_floating(operand.aval.dtype):
                none = self.let(Apply(NE, EMPTY, (found, found)), np.bool_)
                same = self.let(Apply(OR, EMPTY, (same, none)), np.bool_)
            position = self.let(Position(at[axis]), dtype, node)
            return self.let(Apply(SELECT, EMPTY, (same, last, position)), dtype)

        return element

    def fold(self, reduction: Reduction, dtype: Any, parts: Sequence[Part], node: Node, again: bool = False) -> Value:
        """The elements of `parts` combined, in the dtype that `dtype` is accumulated as.

        again: whether an element needs what `node` has been reduced to before.
        """
        kept = accumulator(reduction, dtype)

        def taken(element: Element) -> Element:
            return lambda r: kept.taken(self, element(r))

        found = self.reduced([(extents, taken(element)) for extents, element in parts], kept, node, again)
        return kept.given(self, found)

    def reduced(self, parts: Sequence[Part], kept: Accumulator, node: Node, again: bool = False) -> Local:
        """An accumulator of what is taken of elements, and for each of `parts` loops."""
        result = self.let(kept.start, kept.dtype, None, "a")
        for extents, element in parts:

            def write(r: Indices, element: Element = element) -> None:
                self.add(Accumulate(result, kept.reduction.combine, element(r), node))
                self.spend(node)

            nest = self._nest(extents, write, self._loops_before(node, again), self.within.get(node))
            if nest is not None:
                self._host(node, again, nest)
        return result

    def fold_for(self, node: Node, at: Indices) -> Fold:
        """What is left to do for one element of a reduction: all of it, or to combine the parts that there are."""
        if node in self.folds:
            return self.folds[node](at)
        if node.op in WINDOWS:
            return window_fold(node, at)
        axes, shape = axes_of(node), node.inputs[0].aval.shape
        return fold_of(node, [shape[axis] for axis in axes], lambda r: merged(at, axes, r))

    def folded(self, fold: Fold, node: Node) -> list[Local]:
        """What a fold keeps in the end, in local values."""
        starts = fold.starts(self)
        kept = [self.let(start, dtype, None, "a") for start, dtype in zip(starts, fold.dtypes, strict=True)]

        def write(r: Indices, _: Within) -> None:
            new = fold.combine(self, list(kept), fold.elements(self, r))
            for local, value in zip(kept, new, strict=True):
                self.add(Set(local, value, node))
            self._spend(CHAINED + self.cost(node))

        self.loops_within(fold.extents, fold.within, write)
        return kept


def _is_elementwise(node: Node) -> bool:
    """Whether an element of a node is computed from those of its operands at the same place."""
    return node.op.elementwise and node.op not in MOVES and node.op not in INDEXED and node.op is not IOTA


def is_fold(node: Node) -> bool:
    """Whether an element of a node is what a fold keeps in the end."""
    return node.op in REDUCTIONS or kept_by(node)[0].op in (REDUCE, SELECTED, *WINDOWS)


def kept_by(node: Node) -> tuple[Node, int]:
    """The node whose fold keeps the elements of a node, and which of what it keeps they are."""
    return (node.inputs[0], node.attrs["index"]) if node.op is PROJECT else (node, -1)


def merged(kept: Indices, axes: Sequence[int], reduced: Indices) -> Indices:
    """The indices of a reduction's operand: those of its result, with `reduced` at `axes`."""
    of = dict(zip(axes, reduced, strict=True))
    rest = iter(kept)
    return tuple(of[axis] if axis in of else next(rest) for axis in range(len(kept) + len(axes)))


def write_outputs(derivation: Derivation, parallel: int, inside: int = 0) -> None:
    """One phase over the first `parallel` axes, which all outputs have in common, that computes and stores them all.

    inside: how many of those are not gone through by the phase but in it, for each of its iterations.
    """
    body = derivation.body
    leading = body.outputs[0].aval.shape[inside:parallel]

    def rest_of(node: Node) -> tuple[int, ...]:
        return node.aval.shape[:inside] + node.aval.shape[parallel:]

    def write(index: Index) -> None:
        row = delinear(index, leading)
        for rest in sorted({rest_of(n) for n in body.outputs}, key=lambda rest: (len(rest), rest)):

            def store(inner: Indices, rest: tuple[int, ...] = rest) -> None:
                for node, buffer in zip(body.outputs, derivation.outputs, strict=True):
                    if rest_of(node) == rest:
                        at = (*inner[:inside], *row, *inner[inside:])
                        derivation.add(Store(buffer, linear(at, node.aval.shape), derivation.value(node, at), node))

            derivation.loops(rest, store, math.prod(leading) > 1)

    derivation.phase(math.prod(leading), write)
