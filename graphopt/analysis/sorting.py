"""Sorts as loop programs: keys made into unsigned integers of the same order, sorted, and what belongs to them fetched.

The order is that of `jax.lax.sort`: -0.0 and 0.0 are equal, NaNs are equal and last. Rows are sorted side by side.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from jax.extend.core import primitives as p

from graphopt.analysis.access import Indices
from graphopt.analysis.derive import Derivation
from graphopt.analysis.reductions import ADD, OR, XOR, Reduction, accumulated_as
from graphopt.ir.attrs import EMPTY
from graphopt.ir.aval import is_floating
from graphopt.ir.index import Index, delinear, linear, variable
from graphopt.ir.loop import (
    SERIAL,
    Apply,
    Block,
    Buffer,
    Let,
    Literal,
    Load,
    Local,
    Position,
    Set,
    Sort,
    Store,
    Value,
    When,
)
from graphopt.ir.loop import VECTOR as VECTORS
from graphopt.ir.node import Node
from graphopt.ir.op import op_of

SORT = op_of(p.sort_p)
CONVERT, BITCAST, SELECT, EQ, NE, LT, SHIFT, MIN = (
    op_of(primitive)
    for primitive in (
        p.convert_element_type_p,
        p.bitcast_convert_type_p,
        p.select_n_p,
        p.eq_p,
        p.ne_p,
        p.lt_p,
        p.shift_right_arithmetic_p,
        p.min_p,
    )
)


BESIDE, MOST = 16, 1 << 13
"""Rows from which on they are sorted side by side, and elements of one up to which: comparisons grow faster than with
the length."""

VECTOR = 64
"""Bytes of a vector."""

SHARES = 16
"""Into how many shares blocks of rows are divided, each with memory for the keys of one."""


def declined_sort(node: Node) -> str | None:
    """Why no kernel is made of a sort; None where one is.

    Kernels sort stably. An unstable sort may give what belongs to equal keys in any order, but one program is to have
    one result: it stays with the engine whose order its author has seen.
    """
    keys = node.attrs["num_keys"]
    if any(n.aval.dtype.kind == "c" for n in node.inputs[:keys]):
        return "sort by complex keys"
    if not node.attrs["is_stable"] and keys < len(node.inputs):
        return "an unstable sort of more than its keys, in which the order of equal keys is XLA's"
    return None


def sort(derivation: Derivation, node: Node) -> None:
    """The phase of a sort of any number of operands by the first `num_keys` of them."""
    _Sort(derivation, node).write()


class _Sort:
    def __init__(self, derivation: Derivation, node: Node) -> None:
        self.derivation = derivation
        self.node = node
        self.shape = node.inputs[0].aval.shape
        self.axis = node.attrs["dimension"] % len(self.shape)
        self.count = self.shape[self.axis]
        self.others = (*self.shape[: self.axis], *self.shape[self.axis + 1 :])
        self.rows = math.prod(self.others)
        alone = len(node.inputs) == 1 and self.rows >= BESIDE and 1 < self.count <= MOST
        self.lanes = VECTOR // key_dtype(node.inputs[0]).itemsize if alone else 1

    def write(self) -> None:
        """One phase over the rows, or over blocks of as many as there are in a vector."""
        if self.lanes > 1:
            self.sort_beside()
            return
        keys = self.node.inputs[: self.node.attrs["num_keys"]]
        buffers = {dtype: self.derivation.new_scratch(dtype, self.rows * self.count) for dtype in map(key_dtype, keys)}
        alone = len(self.node.inputs) == 1
        places = None if alone else self.derivation.new_scratch(np.int32, self.rows * self.count)

        def row(index: Index) -> None:
            if places is None:
                self.sort_alone(index, buffers[key_dtype(keys[0])])
            else:
                self.sort_places(index, keys, buffers, places)

        self.derivation.phase(self.rows, row)

    def at(self, row: Index, step: Index) -> Indices:
        """The indices of one element of a row."""
        others = delinear(row, self.others)
        return (*others[: self.axis], step, *others[self.axis :])

    def sort_alone(self, row: Index, keys: Buffer) -> None:
        """Keys are sorted and made into numbers again; then the zeros get their signs, in the order of the operand."""
        d, operand = self.derivation, self.node.inputs[0]
        (out,) = d.outputs
        d.loop(self.count, SERIAL, lambda j: self.store_key(keys, row, j, d.value(operand, self.at(row, j))))
        d.add(Sort(keys, None, row * self.count, self.count))

        def back(j: Index) -> None:
            loaded = d.let(Load(keys, row * self.count + j), keys.dtype, self.node)
            d.add(Store(out, linear(self.at(row, j), self.shape), from_key(d, loaded, operand.aval.dtype)))

        d.loop(self.count, SERIAL, back)
        if is_floating(operand.aval.dtype):
            self.restore_zeros(row, out)

    def sort_beside(self) -> None:
        """Blocks of rows, in which an element of each is in one vector. Memory for keys is needed for few of them."""
        d, operand = self.derivation, self.node.inputs[0]
        (out,) = d.outputs
        blocks = -(-self.rows // self.lanes)
        shares = min(blocks, SHARES)
        keys = d.new_scratch(key_dtype(operand), shares * self.count * self.lanes)

        def block(number: Index, start: Index) -> None:
            lane = variable(d.name("l"), 0, self.lanes - 1)
            (name,) = lane.variables()
            row = number * self.lanes + lane
            within = ((row, 0, self.rows),) if self.rows % self.lanes else ()

            def beside(write: Callable[[Index, Index], None]) -> None:
                def step(j: Index) -> None:
                    d.loop_over(name, self.lanes, VECTORS, lambda: write(j, start + j * self.lanes + lane), within)

                d.loop(self.count, SERIAL, step)

            def store(j: Index, at: Index) -> None:
                d.add(Store(keys, at, to_key(d, d.value(operand, self.at(row, j)))))

            def back(j: Index, at: Index) -> None:
                loaded = d.let(Load(keys, at), keys.dtype, self.node)
                d.add(Store(out, linear(self.at(row, j), self.shape), from_key(d, loaded, operand.aval.dtype)))

            beside(store)
            d.add(Sort(keys, None, start, self.count, self.lanes))
            beside(back)
            if is_floating(operand.aval.dtype):
                d.loop_over(name, self.lanes, SERIAL, lambda: self.restore_zeros(row, out), within)

        def share(number: Index) -> None:
            def one(j: Index) -> None:
                of_share = j * shares + number
                start = number * (self.count * self.lanes)
                d.condition(((of_share, 0, blocks),), lambda: block(of_share, start))

            d.loop(-(-blocks // shares), SERIAL, one)

        d.phase(shares, share)

    def restore_zeros(self, row: Index, out: Buffer) -> None:
        """-0.0 and 0.0 had one key, and so had denormals where they count as zero.

        Where there are any, they are written once more, in the order of the operand.
        """
        d, operand = self.derivation, self.node.inputs[0]
        zero = to_key(d, Literal(np.zeros((), operand.aval.dtype)[()]))

        def key(j: Index) -> Value:
            return to_key(d, d.value(operand, self.at(row, j)))

        def below(r: Indices) -> Value:
            less = apply(d, LT, np.bool_, key(r[0]), zero)
            return apply(d, CONVERT, np.int64, less)

        first = d.fold(Reduction(ADD, lambda dtype: 0), np.int64, [([self.count], below)], self.node)
        place = d.let(first, np.int64, None, "p")
        inside = apply(d, MIN, np.int64, first, Literal(np.int64(self.count - 1)))
        d.bind(inside.name)
        at_place = linear(self.at(row, variable(inside.name, 0, self.count - 1)), self.shape)
        least = d.let(Load(out, at_place), operand.aval.dtype)
        zeros = apply(d, CONVERT, np.int64, apply(d, EQ, np.bool_, to_key(d, least), zero))
        d.bind(zeros.name)

        def restore(j: Index) -> None:
            element = d.value(operand, self.at(row, j))
            then = Block()
            d.add(When(apply(d, EQ, np.bool_, key(j), zero), then))
            target = variable(place.name, 0, self.count - 1)
            then.statements.append(Store(out, linear(self.at(row, target), self.shape), element))
            following = Local(d.name("v"), place.dtype)
            then.statements.append(Let(following, Position(target + 1)))
            then.statements.append(Set(place, following))

        is_any = ((variable(zeros.name, 0, 1), 1, 2),)
        d.condition(is_any, lambda: d.loop(self.count, SERIAL, restore))

    def sort_places(self, row: Index, keys: tuple[Node, ...], buffers: dict[Any, Buffer], places: Buffer) -> None:
        """Places are sorted by the last key, then by the one before it, and so on: each sort keeps equals in order."""
        d = self.derivation
        start = row * self.count
        for number, key in enumerate(reversed(keys)):
            buffer = buffers[key_dtype(key)]

            def prepare(j: Index, key: Node = key, buffer: Buffer = buffer, first: bool = number == 0) -> None:
                if first:
                    d.add(Store(places, start + j, d.let(Position(j), np.int32)))
                    step = j
                else:
                    step = self.loaded(places, start + j)
                self.store_key(buffer, row, j, d.value(key, self.at(row, step)))

            d.loop(self.count, SERIAL, prepare)
            d.add(Sort(buffer, places, start, self.count))

        def fetch(j: Index) -> None:
            step = self.loaded(places, start + j)
            for operand, out in zip(self.node.inputs, d.outputs, strict=True):
                d.add(Store(out, linear(self.at(row, j), self.shape), d.value(operand, self.at(row, step))))

        d.loop(self.count, SERIAL, fetch)

    def loaded(self, places: Buffer, at: Index) -> Index:
        """A place as an index."""
        place = self.derivation.let(Load(places, at), np.int32, self.node)
        self.derivation.bind(place.name)
        return variable(place.name, 0, self.count - 1) if self.count > 1 else Index()

    def store_key(self, buffer: Buffer, row: Index, j: Index, value: Value) -> None:
        self.derivation.add(Store(buffer, row * self.count + j, to_key(self.derivation, value)))


def key_dtype(node: Node) -> Any:
    """The dtype of the keys that a node's elements become."""
    return np.dtype(np.uint64 if node.aval.dtype.itemsize == 8 else np.uint32)


def apply(d: Derivation, op: Any, dtype: Any, *values: Value) -> Local:
    """A scalar operation as a new local value."""
    return d.let(Apply(op, EMPTY, values), dtype)


def _top(dtype: Any) -> Literal:
    return Literal(np.dtype(dtype).type(1 << (8 * np.dtype(dtype).itemsize - 1)))


def to_key(d: Derivation, value: Value) -> Value:
    """An unsigned number that is as much greater as `value` is in the order of sorting."""
    value = d.converted(value, accumulated_as(value.dtype))
    kind, wide = value.dtype.kind, value.dtype.itemsize == 8
    unsigned, signed = (np.uint64, np.int64) if wide else (np.uint32, np.int32)
    if kind in "bu":
        return value if value.dtype == unsigned else apply(d, CONVERT, unsigned, value)
    if kind == "i":
        widened = value if value.dtype == signed else apply(d, CONVERT, signed, value)
        return apply(d, XOR, unsigned, apply(d, BITCAST, unsigned, widened), _top(unsigned))
    zero = Literal(np.zeros((), value.dtype)[()])
    number = apply(d, SELECT, value.dtype, apply(d, EQ, np.bool_, value, zero), value, zero)
    bits = apply(d, BITCAST, signed, number)
    sign = apply(d, SHIFT, signed, bits, Literal(np.dtype(signed).type(8 * value.dtype.itemsize - 1)))
    flip = apply(d, OR, unsigned, apply(d, BITCAST, unsigned, sign), _top(unsigned))
    key = apply(d, XOR, unsigned, apply(d, BITCAST, unsigned, bits), flip)
    last = Literal(np.dtype(unsigned).type(np.iinfo(unsigned).max))
    return apply(d, SELECT, unsigned, apply(d, NE, np.bool_, value, value), key, last)


def from_key(d: Derivation, key: Value, dtype: Any) -> Value:
    """The number of a dtype that a key was made of; 0.0 for both zeros, and one NaN for all."""
    if accumulated_as(dtype) != dtype:
        return d.converted(from_key(d, key, accumulated_as(dtype)), dtype)
    dtype, unsigned = np.dtype(dtype), key.dtype
    signed = np.dtype(f"i{unsigned.itemsize}")
    if dtype.kind in "bu":
        return key if dtype == unsigned else apply(d, CONVERT, dtype, key)
    if dtype.kind == "i":
        number = apply(d, BITCAST, signed, apply(d, XOR, unsigned, key, _top(unsigned)))
        return number if dtype == signed else apply(d, CONVERT, dtype, number)
    # Where the highest bit is set the number was not negative: then only that bit was flipped, else all.
    shift = Literal(signed.type(8 * unsigned.itemsize - 1))
    positive = apply(d, SHIFT, signed, apply(d, BITCAST, signed, key), shift)
    negative = apply(d, XOR, signed, positive, Literal(signed.type(-1)))
    flip = apply(d, OR, unsigned, apply(d, BITCAST, unsigned, negative), _top(unsigned))
    return apply(d, BITCAST, dtype, apply(d, XOR, unsigned, key, flip))
