"""Operations: what a node does. The identity of an operation is the object, never its name."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jax.extend.core import Primitive, primitives

from graphopt.ir.attrs import Attrs
from graphopt.ir.aval import Aval


@dataclass(frozen=True, eq=False, slots=True, weakref_slot=True)
class Op:
    """One operation.

    name: what text calls it.
    primitive: JAX's primitive, by which it is evaluated and lowered; None for the four operations of the graph itself.
    distinct: whether each occurrence is a value of its own, so that equal nodes must not be merged.
    flops: floating-point or integer operations, from attributes, operand types and result types; None: not counted.
    fold: its value on constant NumPy arrays, bit for bit what XLA computes; None where that is not known.
    elementwise: whether each element of the result depends on the operands' elements at its position alone.
    """

    name: str
    primitive: Primitive | None = None
    distinct: bool = False
    flops: Callable[[Attrs, Sequence[Aval], Sequence[Aval]], int] | None = None
    fold: Callable[..., np.ndarray[Any, Any]] | None = None
    elementwise: bool = False

    def __repr__(self) -> str:
        return f"Op({self.name})"

    def __copy__(self) -> Op:
        return self

    def __deepcopy__(self, memo: Any) -> Op:
        return self


PARAM = Op("param")
"""An input of the graph: attribute `index`."""

CONSTANT = Op("constant")
"""A value known in advance: attribute `value`, a `Constant`."""

PROJECT = Op("project")
"""One result of a node that has several: attribute `index`."""

STATE = Op("state")
"""The first state of an effect (no operand), or of the Ref that is its operand."""

OCCURRENCE = "occurrence"
"""Attribute that numbers the occurrences of a distinct operation in a graph, so that equal ones are not merged."""

_ops: dict[Primitive, Op] = {}
_own = {op.name: op for op in (PARAM, CONSTANT, PROJECT, STATE)}
_public = {value.name: value for value in vars(primitives).values() if isinstance(value, Primitive)}
_in_use: dict[str, Op] = {}


def register(op: Op) -> Op:
    """Makes `op` the operation of its primitive. Raises ValueError if the primitive has one already."""
    assert op.primitive is not None
    if op.primitive in _ops:
        raise ValueError(f"primitive {op.primitive} has an operation already")
    _ops[op.primitive] = _in_use[op.name] = op
    return op


def op_of(primitive: Primitive) -> Op:
    """The operation of a JAX primitive: the described one, or an opaque one, which keeps primitive and parameters."""
    op = _ops.get(primitive)
    if op is None:
        # Refs and the random bits of `rng_uniform` are new with each occurrence; a barrier keeps equal values apart.
        distinct = getattr(primitive, "ref_allocating", False) or primitive.name in _DISTINCT
        op = _ops.setdefault(primitive, Op(primitive.name, primitive, distinct=distinct))
        _in_use.setdefault(op.name, op)
    return op


def ops_of(names: Iterable[str]) -> dict[str, Op]:
    """The operations of JAX's public primitives of these names, without those that not every supported JAX has."""
    return {
        name: op_of(getattr(primitives, f"{name}_p"))
        for name in names
        if name not in _NEWER or hasattr(primitives, f"{name}_p")
    }


_NEWER = frozenset({"log2"})
_DISTINCT = frozenset({"optimization_barrier", "rng_uniform", "new_ref", "empty_ref", "create_token", "infeed"})


def op_named(name: str) -> Op | None:
    """The operation that text calls `name`: one of the graph's own, of JAX's public primitives, or the first in use."""
    if name in _own:
        return _own[name]
    return op_of(_public[name]) if name in _public else _in_use.get(name)
