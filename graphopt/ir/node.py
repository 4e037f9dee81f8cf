"""Nodes: immutable and interned, so that equal subgraphs are one object.

Common subexpressions fold by construction, equality is `is`, and what cannot be reached from a graph's outputs is gone.
"""

from __future__ import annotations

import threading
from typing import Any
from weakref import WeakValueDictionary

import jax
import numpy as np

from graphopt.errors import GraphError
from graphopt.ir.attrs import EMPTY, Attrs, SubGraph
from graphopt.ir.aval import Aval, State, aval_of, dtype_name
from graphopt.ir.op import CONSTANT, PARAM, PROJECT, STATE, Op

NO_EFFECTS: frozenset[Any] = frozenset()

COMPARED_ELEMENTS = 4096
"""Constants of up to this many elements are equal if their bytes are; larger ones only if they are one array."""


class Node:
    """One operation applied to operands.

    op, inputs, attrs: the operation, its operands (data first, then states of effects) and its parameters.
    avals: types of its results (data first, then states). With one result the node is that value; with several (or
        none), `project(node, i)` is result i.
    context: what a JAX equation carries besides its parameters (XLA metadata, `compute_on`, mesh), re-entered when the
        node is lowered; None for the context that surrounds the whole region.
    effects: JAX's effects of the equation, those on a Ref by the position of the operand.
    """

    __slots__ = ("__weakref__", "attrs", "avals", "context", "effects", "inputs", "op")

    op: Op
    inputs: tuple[Node, ...]
    attrs: Attrs
    avals: tuple[Aval, ...]
    context: Any
    effects: frozenset[Any]

    @property
    def aval(self) -> Aval:
        """The type of the only result; raises GraphError where there are several."""
        if len(self.avals) != 1:
            raise GraphError(f"{self!r} has {len(self.avals)} results; take one of them with project(node, index)")
        return self.avals[0]

    @property
    def data_inputs(self) -> tuple[Node, ...]:
        """The operands that are values of the program, without the states of effects."""
        if not self.effects:
            return self.inputs
        return tuple(n for n in self.inputs if not (len(n.avals) == 1 and n.avals[0].is_state))

    @property
    def data_avals(self) -> tuple[Aval, ...]:
        """The types of the results that are values of the program."""
        if not self.effects:
            return self.avals
        return tuple(a for a in self.avals if not a.is_state)

    @property
    def subgraphs(self) -> tuple[SubGraph, ...]:
        """The sub-graphs among the attributes."""
        return self.attrs.subgraphs

    @property
    def value(self) -> Any:
        """The array of a constant node."""
        return self.attrs["value"].array

    def with_inputs(self, inputs: tuple[Node, ...]) -> Node:
        """The same operation on other operands; the same object if they are the same."""
        if inputs == self.inputs:
            return self
        return make_node(self.op, inputs, self.attrs, self.avals, self.context, self.effects)

    def with_attrs(self, attrs: Attrs) -> Node:
        """The same operation with other parameters."""
        return make_node(self.op, self.inputs, attrs, self.avals, self.context, self.effects)

    def __repr__(self) -> str:
        types = ", ".join(dtype_name(a.dtype) + str(list(a.shape)) if a.is_array else str(a.type) for a in self.avals)
        return f"<{self.op.name}: {types}>"

    def __copy__(self) -> Node:
        return self

    def __deepcopy__(self, memo: Any) -> Node:
        return self


# Collecting garbage can run other code in the middle of an insertion, in the same thread: the lock is re-entrant.
_lock = threading.RLock()
_table: WeakValueDictionary[Any, Node] = WeakValueDictionary()


def make_node(
    op: Op,
    inputs: tuple[Node, ...],
    attrs: Attrs,
    avals: tuple[Aval, ...],
    context: Any = None,
    effects: frozenset[Any] = NO_EFFECTS,
) -> Node:
    """The node with these parts: an existing one if there is one. Thread-safe."""
    key = (op, inputs, attrs, avals, context, effects)
    with _lock:
        node = _table.get(key)
        if node is None:
            node = object.__new__(Node)
            node.op, node.inputs, node.attrs, node.avals, node.context, node.effects = key
            _table[key] = node
    return node


class Constant:
    """An array as an attribute; `array` is it, or for a small NumPy array a copy, which nobody can write to.

    Two small arrays are equal if dtype, shape and bytes are, so `0.0`, `-0.0` and each NaN stay apart; NumPy's and
    JAX's stay apart too, and JAX's on different devices. A larger array is equal to itself alone.
    """

    __slots__ = ("_element", "_hash", "_key", "array")

    def __init__(self, array: Any) -> None:
        self.array = array
        self._key: Any = id(array)
        if is_comparable(array):
            host = np.asarray(array)
            place = array.sharding if isinstance(array, jax.Array) else None
            self._key = (place, host.dtype, host.shape, host.tobytes())
            if place is None:
                self.array = np.ndarray(host.shape, host.dtype, self._key[-1])
        self._hash = hash(self._key)
        self._element: Any = _NOT_LOOKED_AT

    @property
    def element(self) -> np.generic | None:
        """The one value that all elements have, to the bit; None where they differ, or are many, or there are none."""
        if self._element is _NOT_LOOKED_AT:
            self._element = _common_element(self.array) if is_comparable(self.array) else None
        return self._element  # type: ignore[no-any-return]

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Constant) and self._key == other._key

    def __repr__(self) -> str:
        return f"Constant({self.array!r})"


_NOT_LOOKED_AT: Any = object()


def _common_element(array: Any) -> np.generic | None:
    host = np.asarray(array)
    if host.size == 0:
        return None
    first: np.generic = host.reshape(-1)[0]
    return first if host.size == 1 or host.tobytes() == first.tobytes() * host.size else None


def is_comparable(array: Any) -> bool:
    """Whether a constant is small and at hand, so that its bytes can be looked at."""
    if isinstance(array, jax.core.Tracer):
        return False
    if isinstance(array, jax.Array):
        if jax.dtypes.issubdtype(array.dtype, jax.dtypes.extended) or array.size > COMPARED_ELEMENTS:
            return False
        return len(array.devices()) == 1 and array.is_fully_addressable and not array.is_deleted()
    return isinstance(array, np.ndarray | np.generic) and array.size <= COMPARED_ELEMENTS


def param(index: int, aval: Aval) -> Node:
    """Input number `index` of a graph."""
    return make_node(PARAM, (), Attrs({"index": index}), (aval,))


def constant(array: Any, aval: Aval | None = None) -> Node:
    """A constant. Of an array without an `aval` the type is taken from the array."""
    if aval is None:
        aval = aval_of(jax.typeof(array))
    return make_node(CONSTANT, (), Attrs({"value": Constant(array)}), (aval,))


def project(node: Node, index: int) -> Node:
    """Result `index` of `node`: the node itself where that is its only one."""
    if len(node.avals) == 1 and index == 0:
        return node
    if not 0 <= index < len(node.avals):
        raise GraphError(f"{node!r} has {len(node.avals)} results; there is no result {index}")
    return make_node(PROJECT, (node,), Attrs({"index": index}), (node.avals[index],))


def result_of(node: Node) -> tuple[Node, int]:
    """The operation whose result a node is, and which of its results."""
    return (node.inputs[0], node.attrs["index"]) if node.op is PROJECT else (node, 0)


def results(node: Node) -> tuple[Node, ...]:
    """All results of a node, the states of effects included."""
    return tuple(project(node, i) for i in range(len(node.avals)))


def effect_state(effect: Any) -> Node:
    """The state of an effect as a graph finds it."""
    return make_node(STATE, (), EMPTY, (aval_of(State(effect)),))


def ref_state(ref: Node) -> Node:
    """The contents of a Ref as a graph finds them."""
    return make_node(STATE, (ref,), EMPTY, (aval_of(State()),))


def first_state(state: Node) -> Node:
    """The state of the same effect or Ref as the graph found it: the beginning of the order that `state` is in."""
    while state.op is not STATE:
        node, index = (state.inputs[0], state.attrs["index"]) if state.op is PROJECT else (state, 0)
        state = [n for n in node.inputs if n.aval.is_state][index - len(node.data_avals)]
    return state
