"""Rows of a sort: their elements, the keys of those, and what is given where keys are in order."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from jax.extend.core import primitives as p

from graphopt.analysis.access import Indices
from graphopt.analysis.derive import Derivation
from graphopt.analysis.reductions import ADD, Reduction
from graphopt.analysis.sort_keys import (
    CONVERT,
    EQ,
    PLACE,
    apply,
    from_key,
    key_dtype,
    place_of,
    to_key,
    with_place,
)
from graphopt.analysis.writing import Element, Part
from graphopt.ir.aval import is_floating
from graphopt.ir.index import Index, delinear, linear, variable
from graphopt.ir.loop import (
    SERIAL,
    Block,
    Buffer,
    Let,
    Literal,
    Load,
    Local,
    Position,
    Set,
    Store,
    Value,
    When,
)
from graphopt.ir.node import Node
from graphopt.ir.op import op_of

LT, MIN = op_of(p.lt_p), op_of(p.min_p)


class Rows:
    """What is sorted. is_alone: whether nothing but the keys is.

    has_place: whether the place of an element is in its key, so that keys are sorted alone and the rest is fetched.
    """

    def __init__(self, derivation: Derivation, node: Node) -> None:
        self.derivation = derivation
        self.node = node
        self.shape = node.inputs[0].aval.shape
        self.axis = node.attrs["dimension"] % len(self.shape)
        self.count = self.shape[self.axis]
        self.others = (*self.shape[: self.axis], *self.shape[self.axis + 1 :])
        self.rows = math.prod(self.others)
        self.keys = node.inputs[: node.attrs["num_keys"]]
        self.is_alone = len(node.inputs) == 1
        narrow = 8 * key_dtype(self.keys[0]).itemsize <= PLACE
        self.has_place = len(self.keys) == 1 and narrow and not self.is_alone
        self.key_dtype = np.dtype(np.uint64) if self.has_place else key_dtype(self.keys[0])
        self.has_zeros = self.is_alone and is_floating(self.keys[0].aval.dtype)

    def at(self, row: Index, step: Index) -> Indices:
        """The indices of one element of a row."""
        others = delinear(row, self.others)
        return (*others[: self.axis], step, *others[self.axis :])

    def new_places(self) -> Buffer | None:
        """Memory for the places of all elements, where they are not in the keys."""
        needless = self.is_alone or self.has_place
        return None if needless else self.derivation.new_scratch(np.int32, self.rows * self.count)

    def key(self, row: Index, j: Index) -> Value:
        """What an element is sorted by, where there is one key."""
        d, (operand,) = self.derivation, self.keys
        key = to_key(d, d.value(operand, self.at(row, j)))
        return with_place(d, key, j) if self.has_place else key

    def prepare(self, row: Index, j: Index, keys: Buffer, places: Buffer | None) -> None:
        """Stores the key of an element, and its place."""
        d, at = self.derivation, row * self.count + j
        d.add(Store(keys, at, self.key(row, j)))
        if places is not None:
            d.add(Store(places, at, d.let(Position(j), np.int32)))

    def give(self, row: Index, j: Index, keys: Buffer, places: Buffer | None, at: Index) -> None:
        """Stores an element of each result: that whose key is element `at` of the sorted ones."""
        d = self.derivation
        if places is not None:
            self.fetch(row, j, self.loaded(places, at))
            return
        key = d.let(Load(keys, at), keys.dtype, self.node)
        if self.has_place:
            self.fetch(row, j, self.as_index(place_of(d, key)))
        else:
            number = from_key(d, key, self.keys[0].aval.dtype)
            d.add(Store(d.outputs[0], linear(self.at(row, j), self.shape), number))

    def fetch(self, row: Index, j: Index, step: Index) -> None:
        """Stores an element of each result: element `step` of the row."""
        d = self.derivation
        for operand, out in zip(self.node.inputs, d.outputs, strict=True):
            d.add(Store(out, linear(self.at(row, j), self.shape), d.value(operand, self.at(row, step))))

    def loaded(self, places: Buffer, at: Index) -> Index:
        """A place as an index."""
        return self.as_index(self.derivation.let(Load(places, at), np.int32, self.node))

    def as_index(self, place: Local) -> Index:
        """A number that is a place, as an index."""
        self.derivation.bind(place.name)
        return variable(place.name, 0, self.count - 1) if self.count > 1 else Index()

    # ---- zeros

    def zero(self) -> Value:
        """The key of both zeros: no bits but the sign, which is set where a number is not negative."""
        return Literal(self.key_dtype.type(1 << (8 * self.key_dtype.itemsize - 1)))

    def below(self, parts: Sequence[Part]) -> Value:
        """How many of some keys are below that of zero."""
        d = self.derivation

        def counted(key: Element) -> Element:
            return lambda r: apply(d, CONVERT, np.int64, apply(d, LT, np.bool_, key(r), self.zero()))

        return self.sum([(extents, counted(key)) for extents, key in parts])

    def sum(self, parts: Sequence[Part]) -> Value:
        """A sum of integers."""
        return self.derivation.fold(Reduction(ADD, lambda dtype: 0), np.int64, parts, self.node)

    def restore_row(self, row: Index) -> None:
        """As `restore_zeros`, where nothing is known of the row."""
        self.restore_zeros(row, self.below([([self.count], lambda r: self.key(row, r[0]))]))

    def restore_zeros(self, row: Index, first: Value) -> None:
        """-0.0 and 0.0 had one key, and so had denormals where they count as zero.

        Where there are any, they are written once more, in the order of the operand. first: how many keys are below.
        """
        d, (operand,) = self.derivation, self.keys
        (out,) = d.outputs
        place = d.let(first, np.int64, None, "p")
        inside = apply(d, MIN, np.int64, first, Literal(np.int64(self.count - 1)))
        d.bind(inside.name)
        at_place = linear(self.at(row, variable(inside.name, 0, self.count - 1)), self.shape)
        least = d.let(Load(out, at_place), operand.aval.dtype)
        zeros = apply(d, CONVERT, np.int64, apply(d, EQ, np.bool_, to_key(d, least), self.zero()))
        d.bind(zeros.name)

        def restore(j: Index) -> None:
            element = d.value(operand, self.at(row, j))
            then = Block()
            d.add(When(apply(d, EQ, np.bool_, self.key(row, j), self.zero()), then))
            target = variable(place.name, 0, self.count - 1)
            then.statements.append(Store(out, linear(self.at(row, target), self.shape), element))
            following = Local(d.name("v"), place.dtype)
            then.statements.append(Let(following, Position(target + 1)))
            then.statements.append(Set(place, following))

        is_any = ((variable(zeros.name, 0, 1), 1, 2),)
        d.condition(is_any, lambda: d.loop(self.count, SERIAL, restore))
