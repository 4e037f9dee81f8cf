"""The k greatest elements of each row, and their places: keys, the k smallest of them, and what belongs to those.

The order is that of `jax.lax.top_k`, which is IEEE 754's total order: a NaN without a sign is above infinity, one with
a sign below minus infinity, and 0.0 above -0.0. Equal elements come in the order of their places.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from jax import lax

from graphopt.analysis.access import Indices
from graphopt.analysis.derive import Derivation
from graphopt.analysis.reductions import AND, XOR, accumulated_as
from graphopt.analysis.sort_keys import BITCAST, SHIFT, apply, key_dtype, to_key
from graphopt.ir.aval import is_floating
from graphopt.ir.index import Index, delinear, linear, variable
from graphopt.ir.loop import SERIAL, Literal, Load, Smallest, Store, Value
from graphopt.ir.node import Node
from graphopt.ir.op import op_of

TOP_K = op_of(lax.top_k_p)

SHARES = 64
"""Into how many shares rows are divided: memory for keys is needed for one row of each."""


def axis_of(node: Node) -> int:
    """The axis along which a top_k goes."""
    axis: int = node.attrs.get("axis", -1)
    return axis % len(node.inputs[0].aval.shape)


def declined(node: Node) -> str | None:
    """Why a top_k cannot be part of a kernel; None where it can."""
    if node.inputs[0].aval.dtype.kind == "c":
        return f"{node.op.name} of {node.inputs[0].aval.dtype}"
    return None if node.avals[1].dtype == np.int32 else f"{node.op.name} with places of {node.avals[1].dtype}"


def top_k(derivation: Derivation, node: Node) -> None:
    """The phase of a top_k."""
    _TopK(derivation, node).write()


class _TopK:
    def __init__(self, derivation: Derivation, node: Node) -> None:
        self.derivation = derivation
        self.node = node
        (self.operand,) = node.inputs
        self.axis = axis_of(node)
        shape = self.operand.aval.shape
        self.count, self.k = shape[self.axis], node.avals[0].shape[self.axis]
        self.others = (*shape[: self.axis], *shape[self.axis + 1 :])

    def write(self) -> None:
        """One phase over shares of the rows."""
        d, rows = self.derivation, math.prod(self.others)
        shares = min(rows, SHARES)
        each, left = divmod(rows, shares)
        keys = d.new_scratch(key_dtype(self.operand), shares * self.count)
        places = d.new_scratch(np.int32, shares * self.k)

        def share(number: Index) -> None:
            def row(index: Index) -> None:
                at = number * self.count
                d.loop(self.count, SERIAL, lambda j: d.add(Store(keys, at + j, self.key(index, j))))
                d.add(Smallest(keys, at, self.count, places, number * self.k, self.k))
                d.loop(self.k, SERIAL, lambda j: self.fetch(index, j, places, number * self.k + j))

            d.loop(each, SERIAL, lambda j: row(number * each + j))
            if left:
                d.condition(((number, 0, left),), lambda: row(number + shares * each))

        d.phase(shares, share)

    def at(self, row: Index, step: Index) -> Indices:
        """The indices of one element of a row."""
        others = delinear(row, self.others)
        return (*others[: self.axis], step, *others[self.axis :])

    def key(self, row: Index, step: Index) -> Value:
        """An unsigned number that is as much smaller as an element is greater."""
        d = self.derivation
        value = d.value(self.operand, self.at(row, step))
        value = d.converted(value, accumulated_as(value.dtype))
        unsigned = key_dtype(self.operand)
        ones = Literal(unsigned.type(np.iinfo(unsigned).max))
        if not is_floating(value.dtype):
            return apply(d, XOR, unsigned, to_key(d, value), ones)
        # The bits of a negative number fall as it rises; those of another one rise, from 0.
        signed = np.dtype(f"i{unsigned.itemsize}")
        bits = apply(d, BITCAST, signed, value)
        sign = apply(d, SHIFT, signed, bits, Literal(signed.type(8 * signed.itemsize - 1)))
        flip = apply(d, XOR, unsigned, apply(d, BITCAST, unsigned, sign), ones)
        low = Literal(unsigned.type(np.iinfo(signed).max))
        return apply(d, XOR, unsigned, apply(d, BITCAST, unsigned, bits), apply(d, AND, unsigned, flip, low))

    def fetch(self, row: Index, j: Index, places: Any, at: Index) -> None:
        """One of the results of a row."""
        d = self.derivation
        place = d.let(Load(places, at), np.int32, self.node)
        d.bind(place.name)
        step = variable(place.name, 0, self.count - 1)
        values, found = d.outputs
        to = linear(self.at(row, j), self.node.avals[0].shape)
        d.add(Store(values, to, d.value(self.operand, self.at(row, step))))
        d.add(Store(found, to, place))
