"""What a step of a loop keeps: arrays in memory that stays in the first cache, and how they are computed.

A node stands for each: expressions are made of these nodes, and a derivation finds their elements in memory.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from jax.extend.core import primitives as p

from graphopt.analysis.access import Indices
from graphopt.analysis.columns import TILES
from graphopt.analysis.derive import Derivation
from graphopt.analysis.indexed import starts_of_update
from graphopt.analysis.products import axes_of, sum_of_products
from graphopt.analysis.reductions import REDUCTIONS
from graphopt.analysis.scattering import SCATTERS, write_updates
from graphopt.ir.aval import Aval
from graphopt.ir.index import Index, delinear, linear
from graphopt.ir.loop import SERIAL, VECTOR, Buffer, Literal, Load, Matrix, Product, Store, Value
from graphopt.ir.node import Node, param
from graphopt.ir.op import PARAM, op_of

UPDATE = op_of(p.dynamic_update_slice_p)
UPDATES = (UPDATE, *SCATTERS)

NEAR = 1 << 12
"""Bytes of memory that a thread has for itself, for one array."""

WIDE = 16
"""Elements of a last axis from which on loops over it are for vectors."""

COLUMNS = 8
"""Columns of a product from which on it is computed in vectors of them."""

NAMED = 1 << 20
"""From which number on parameters stand for what is kept in memory."""


@dataclass(frozen=True, slots=True)
class View:
    """Where an array is: its elements, row by row, from `start` on."""

    buffer: Buffer
    start: Index

    def at(self, indices: Indices, shape: tuple[int, ...]) -> Index:
        """The place of an element."""
        return self.start + linear(indices, shape)


class KeptArrays:
    """Arrays and numbers that are kept while a loop is written, by the nodes that stand for them."""

    def __init__(self, derivation: Derivation) -> None:
        self.d = derivation
        self.count = NAMED
        self.views: dict[Node, View] = {}  # of what is kept, arrays
        self.reads: dict[Node, dict[Node, bool]] = {}  # kept arrays that an expression reads; whether at its own place

    def given(self, operand: Node) -> Node:
        """An operand of the loop, kept."""
        if operand.op is PARAM and operand.aval.shape:
            return self.named(operand.aval, View(self.d.inputs[operand], Index()))
        return self.kept(operand)

    def constant(self, node: Node) -> Node:
        """An array that is constant, kept."""
        view, values = self.room(node.aval), np.asarray(node.attrs["value"].array).reshape(-1)
        for place, value in enumerate(values):
            self.d.add(Store(view.buffer, Index((), place), Literal(value)))
        return self.named(node.aval, view)

    def named(self, aval: Aval, view: View) -> Node:
        """A node that stands for an array in memory."""
        node = self.new(aval)
        self.views[node] = view
        self.reads[node] = {node: True}

        def element(at: Indices) -> Value:
            return self.d.let(Load(view.buffer, view.at(at, aval.shape)), aval.dtype, node, "x")

        self.d.combined[node] = element
        return node

    def number(self, aval: Aval, value: Value, above: frozenset[Node] = frozenset()) -> Node:
        """A node that stands for a number. above: the reductions that it is made of, whose loops come before others."""
        node = self.new(aval)
        self.d.above[node] = above
        self.d.combined[node] = lambda at: value
        return node

    def new(self, aval: Aval) -> Node:
        """A node that nothing is known of yet."""
        self.count += 1
        node = param(self.count, aval)
        self.d.above[node] = frozenset()
        self.reads[node] = {}
        return node

    def room(self, aval: Aval) -> View:
        """New memory for an array."""
        is_near = aval.nbytes <= NEAR and sum(tile.nbytes for tile in self.d.tiles) + aval.nbytes <= TILES
        make = self.d.new_tile if is_near else self.d.new_scratch
        return View(make(aval.dtype, aval.size), Index())

    def copied(self, node: Node, to: View | None = None) -> Node:
        """An array, written to memory that is new or given."""
        view = to or self.room(node.aval)
        self.over(node.aval.shape, lambda at: self.store(view, at, node), node in self.reads and self.is_flat(node))
        self.d.apart()
        return self.named(node.aval, view)

    def kept(self, node: Node) -> Node:
        """What is kept of an expression: itself, or a new array or number."""
        if node in self.views:
            return node
        if node.aval.shape:
            return self.copied(node)
        return self.number(node.aval, self.d.value(node, ()), self.d.above[node])

    def store(self, view: View, at: Indices, node: Node) -> Value:
        """Writes one element; returns it."""
        value = self.d.value(node, at)
        self.d.add(Store(view.buffer, view.at(at, node.aval.shape), value))
        return value

    def over(self, shape: Sequence[int], write: Callable[[Indices], object], flat: bool = False) -> None:
        """Loops over the elements of an array. flat: one loop over all of them, row by row."""
        if flat and len(shape) > 1:
            self.over([math.prod(shape)], lambda at: write(delinear(at[0], tuple(shape))))
            return

        def inner(done: Indices) -> None:
            if len(done) == len(shape):
                write(done)
                return
            extent = shape[len(done)]
            wide = len(done) == len(shape) - 1 and extent >= WIDE
            self.d.loop(extent, VECTOR if wide else SERIAL, lambda index: inner((*done, index)))

        inner(())

    def is_flat(self, node: Node) -> bool:
        """Whether an array's elements are computed of those at the same place of arrays that are kept."""
        return bool(self.reads[node]) and all(self.reads[node].values())

    # ---- operations

    def update(self, node: Node, view: View) -> None:
        """Writes the part of an array that an operation changes."""
        if node.op is not UPDATE:
            write_updates(self.d, node, view.buffer)
        else:
            starts = starts_of_update(node, self.d)

            def store(at: Indices) -> None:
                to = view.at(tuple(i + s for i, s in zip(at, starts, strict=True)), node.aval.shape)
                self.d.add(Store(view.buffer, to, self.d.value(node.inputs[1], at)))

            self.over(node.inputs[1].aval.shape, store)
        self.d.apart()

    def expression(self, node: Node, inputs: Sequence[Node]) -> Node:
        """A node of other operands, and what is known of it."""
        new = node.with_inputs(tuple(inputs))
        self.learn(new)
        self.d.origins.setdefault(new, node)
        return new

    def learn(self, node: Node) -> None:
        """Notes what a node of known operands reads, and which reductions it is made of."""
        d = self.d
        if node in self.reads:
            return
        found: dict[Node, bool] = {}
        for operand in node.inputs:
            same = node.op.elementwise and operand.aval.shape == node.aval.shape
            for name, here in self.reads[operand].items():
                found[name] = found.get(name, True) and same and here
        self.reads[node] = found
        own = frozenset({node}) if node.op in REDUCTIONS else frozenset()
        d.above[node] = own.union(*(d.above[n] for n in node.inputs))

    def written_out(self, node: Node, inputs: Sequence[Node]) -> Node:
        """A product as a sum of products."""
        found = sum_of_products(node, tuple(inputs))
        self.d.origins |= {found: node, found.inputs[0]: node}
        stack = [found]
        while stack:
            pending = [n for n in stack[-1].inputs if n not in self.reads]
            if pending:
                stack += pending
            else:
                self.learn(stack.pop())
        return found

    def joined(self, node: Node, inputs: Sequence[Node]) -> Node:
        """What a concatenation puts beside each other, one operand after the other."""
        axis, start, view = node.attrs["dimension"], 0, self.room(node.aval)
        for operand in inputs:

            def store(at: Indices, operand: Node = operand, start: int = start) -> None:
                to = (*at[:axis], at[axis] + start, *at[axis + 1 :])
                self.d.add(Store(view.buffer, view.at(to, node.aval.shape), self.d.value(operand, at)))

            self.over(operand.aval.shape, store)
            self.d.apart()
            start += operand.aval.shape[axis]
        return self.named(node.aval, view)

    def product(self, node: Node, inputs: Sequence[Node]) -> Node | None:
        """A product of matrices whose rows have many columns, in vectors of these; None where it is not one."""
        sides = _sides(node)
        if sides is None:
            return None
        (left, row, step), (right, columns), rows, length = sides
        factors = [self.kept(n) for n in inputs]
        to = self.room(node.aval)
        matrices = [
            Matrix(to.buffer, to.start, (columns, 1)),
            Matrix(self.views[factors[left]].buffer, self.views[factors[left]].start, (row, step)),
            Matrix(self.views[factors[right]].buffer, self.views[factors[right]].start, (columns, 1)),
        ]
        self.d.add(Product(matrices[0], matrices[1], matrices[2], rows, columns, length, False, node))
        return self.named(node.aval, to)


def _sides(node: Node) -> tuple[tuple[int, int, int], tuple[int, int], int, int] | None:
    """How a product is one of matrices in memory: the left factor's number and steps, the right one's and its columns,
    rows, and what is summed over. The right one's last axis is that of the result."""
    axes, shapes = axes_of(node), [n.aval.shape for n in node.inputs]
    dtypes = {n.aval.dtype for n in (*node.inputs, node)}
    if len(dtypes) != 1 or node.aval.dtype not in (np.float32, np.float64):
        return None
    if any(axes.batch) or any(len(s) != 1 for s in axes.summed) or any(len(f) > 1 for f in axes.free):
        return None
    for right in (1, 0):
        left = 1 - right
        if axes.free[right] != (1,) or axes.summed[right] != (0,) or (right == 0 and axes.free[left]):
            continue
        columns, length = shapes[right][1], shapes[right][0]
        if columns < COLUMNS:
            continue
        of_left = shapes[left]
        steps = [math.prod(of_left[k + 1 :]) for k in range(len(of_left))]
        row = steps[axes.free[left][0]] if axes.free[left] else length
        rows = of_left[axes.free[left][0]] if axes.free[left] else 1
        return (left, row, steps[axes.summed[left][0]]), (right, columns), rows, length
    return None
