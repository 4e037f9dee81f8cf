"""Factors of small matrices and solutions with them, as loops of one thread in the step of a loop.

LU is right-looking, with the greatest element of a column as the pivot, the first of equal ones, and leaves a column
whose pivot is zero as it is, as LAPACK's getrf does (G. Golub, C. Van Loan, "Matrix Computations", 4th edition,
algorithm 3.4.1). Triangular systems are solved row by row (algorithms 3.1.1 and 3.1.2).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from jax.extend.core import primitives as p

from graphopt.analysis.access import Indices
from graphopt.analysis.derive import INT64, NE, SELECT
from graphopt.analysis.folds import GT
from graphopt.analysis.kept_arrays import KeptArrays, View
from graphopt.analysis.reductions import MUL
from graphopt.ir.attrs import EMPTY
from graphopt.ir.graph import Graph
from graphopt.ir.index import Index, linear, variable
from graphopt.ir.loop import SERIAL, Apply, Literal, Load, Position, Set, Store, Value
from graphopt.ir.node import Node
from graphopt.ir.op import Op, op_of

LU, TRIANGULAR, LINEAR_SOLVE = map(op_of, (p.lu_p, p.triangular_solve_p, p.linear_solve_p))
ABS, DIV, SUB = map(op_of, (p.abs_p, p.div_p, p.sub_p))

SOLVES = (LU, TRIANGULAR)

SIDE = 16
"""Rows of a matrix at most: what is larger is factored in blocks."""


def declined(node: Node) -> str | None:
    """Why a factorization or a triangular solve is not for the step of a loop; None where it is."""
    shape, dtype = node.inputs[0].aval.shape, node.avals[0].dtype
    if dtype not in (np.float32, np.float64):
        return f"{node.op.name} of {dtype}"
    if shape[-1] != shape[-2] or shape[-1] > SIDE:
        return f"{node.op.name} of a matrix that is not square or not small"
    return None


def solving_body(node: Node) -> tuple[Graph, list[int]]:
    """The graph by which a system of equations is solved, and which operands its parameters are."""
    lengths = node.attrs["const_lengths"]
    first = lengths.matvec + lengths.vecmat
    right = range(sum(lengths), len(node.inputs))
    return node.attrs["jaxprs"].solve.graph, [*range(first, first + lengths.solve), *right]


class _Matrix:
    """One matrix of some side by side, in memory."""

    def __init__(self, kept: KeptArrays, view: View, batch: Index, shape: tuple[int, ...]) -> None:
        """batch: which one. shape: of all."""
        self.d = kept.d
        self.buffer, self.columns = view.buffer, shape[-1]
        self.start = view.start + batch * math.prod(shape[-2:])

    def load(self, i: Index, j: Index) -> Value:
        return self.d.let(Load(self.buffer, self.start + i * self.columns + j), self.buffer.dtype)

    def store(self, i: Index, j: Index, value: Value) -> None:
        self.d.add(Store(self.buffer, self.start + i * self.columns + j, value))

    def apply(self, op: Op, *values: Value, dtype: object = None) -> Value:
        return self.d.let(Apply(op, EMPTY, values), dtype or self.buffer.dtype)

    def after(self, k: Index, write: Callable[[Index], None]) -> None:
        """A loop over what comes behind place k."""
        name = self.d.name("j")
        i = variable(name, 0, self.columns - 1)
        self.d.loop_over(name, self.columns, SERIAL, lambda: write(i), ((i - k, 1, self.columns),), opaque=True)


def factored(kept: KeptArrays, node: Node, operand: Node) -> list[Node]:
    """The factors of a matrix, its pivots, and the permutation that they make."""
    d, shape = kept.d, operand.aval.shape
    size = shape[-1]
    factors = kept.copied(operand)
    pivots, order = (kept.room(aval) for aval in node.avals[1:])

    def of_one(at: Indices) -> None:
        batch = linear(at, shape[:-2])
        matrix = _Matrix(kept, kept.views[factors], batch, shape)
        first = batch * size
        of_order, of_pivots = (view.buffer.dtype for view in (order, pivots))
        d.loop(size, SERIAL, lambda i: d.add(Store(order.buffer, first + i, d.let(Position(i), of_order))), opaque=True)

        def column(k: Index) -> None:
            best = d.let(matrix.apply(ABS, matrix.load(k, k)), matrix.buffer.dtype, None, "s")
            found = d.let(Position(k), INT64, None, "s")

            def compare(i: Index) -> None:
                value = matrix.apply(ABS, matrix.load(i, k))
                is_more = matrix.apply(GT, value, best, dtype=np.bool_)
                place = d.let(Position(i), INT64)
                d.add(Set(best, Apply(SELECT, EMPTY, (is_more, best, value))))
                d.add(Set(found, Apply(SELECT, EMPTY, (is_more, found, place))))

            matrix.after(k, compare)
            place = d.let(found, INT64)
            d.bind(place.name)
            row = variable(place.name, 0, size - 1)
            d.add(Store(pivots.buffer, first + k, d.converted(place, of_pivots)))
            exchange = (d.let(Load(order.buffer, first + i), of_order) for i in (k, row))
            for i, value in zip((row, k), list(exchange), strict=True):
                d.add(Store(order.buffer, first + i, value))

            def exchanged(j: Index) -> None:
                one, other = matrix.load(k, j), matrix.load(row, j)
                matrix.store(k, j, other)
                matrix.store(row, j, one)

            d.loop(size, SERIAL, exchanged, opaque=True)
            pivot = matrix.load(k, k)
            is_some = matrix.apply(NE, pivot, Literal(matrix.buffer.dtype.type(0)), dtype=np.bool_)

            def eliminate(i: Index) -> None:
                value = matrix.load(i, k)
                factor = matrix.apply(SELECT, is_some, value, matrix.apply(DIV, value, pivot))
                matrix.store(i, k, factor)

                def less(j: Index) -> None:
                    product = matrix.apply(MUL, factor, matrix.load(k, j))
                    matrix.store(i, j, matrix.apply(SUB, matrix.load(i, j), product))

                matrix.after(k, less)

            matrix.after(k, eliminate)

        d.loop(size, SERIAL, column, opaque=True)

    kept.over(shape[:-2], of_one)
    d.apart()
    return [factors, kept.named(node.avals[1], pivots), kept.named(node.avals[2], order)]


def solved(kept: KeptArrays, node: Node, matrix: Node, right: Node) -> Node:
    """The solution of triangular systems that share a matrix, which stands on the left or on the right of it."""
    d, shape, sides = kept.d, matrix.aval.shape, right.aval.shape
    size, attrs = shape[-1], node.attrs
    on_left = bool(attrs["left_side"])
    others = sides[-1] if on_left else sides[-2]
    is_turned = bool(attrs["transpose_a"]) == on_left  # x A = b is A^T x^T = b^T
    is_lower = bool(attrs["lower"]) != is_turned
    factors, result = kept.views[kept.kept(matrix)], kept.copied(right)

    def of_one(at: Indices) -> None:
        batch = linear(at, shape[:-2])
        a, x = _Matrix(kept, factors, batch, shape), _Matrix(kept, kept.views[result], batch, sides)

        def of(i: Index, j: Index) -> Value:
            return a.load(j, i) if is_turned else a.load(i, j)

        def place(i: Index, c: Index) -> tuple[Index, Index]:
            return (i, c) if on_left else (c, i)

        def row(s: Index) -> None:
            i = s if is_lower else s * -1 + (size - 1)

            def number(c: Index) -> None:
                total = d.let(x.load(*place(i, c)), x.buffer.dtype, None, "s")
                name = d.name("j")
                before = variable(name, 0, size - 1)

                def less() -> None:
                    j = before if is_lower else before * -1 + (size - 1)
                    product = x.apply(MUL, of(i, j), x.load(*place(j, c)))
                    d.add(Set(total, Apply(SUB, EMPTY, (total, product))))

                d.loop_over(name, size, SERIAL, less, ((s - before, 1, size),), opaque=True)
                value: Value = total if attrs["unit_diagonal"] else x.apply(DIV, total, of(i, i))
                x.store(*place(i, c), value)

            d.loop(others, SERIAL, number, opaque=True)

        d.loop(size, SERIAL, row, opaque=True)

    kept.over(shape[:-2], of_one)
    d.apart()
    return result
