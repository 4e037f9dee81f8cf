"""Attributes of a node: an immutable mapping with an exact notion of equality.

JAX's parameters are arbitrary Python values. Two attributes are equal only if they mean the same in every case: `1`,
`True` and `1.0` stay apart, and so do `0.0`, `-0.0` and each NaN; an object without a hash is equal to itself alone.
"""

from __future__ import annotations

import struct
from collections.abc import Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np


class Attrs(Mapping[str, Any]):
    """Attributes by name, in the order of their names. Hashable; values are returned as they were given."""

    __slots__ = ("_hash", "_key", "_values", "subgraphs")

    subgraphs: tuple[SubGraph, ...]
    """The sub-graphs among the values, in the order of their names."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        names = sorted(values)
        self._values = {name: values[name] for name in names}
        self._key = (*names, *map(freeze, self._values.values()))
        self._hash = hash(self._key)
        self.subgraphs = tuple(subgraphs_in(self._values.values()))

    def __getitem__(self, name: str) -> Any:
        return self._values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __contains__(self, name: object) -> bool:
        return name in self._values

    def __len__(self) -> int:
        return len(self._values)

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        return self is other or (isinstance(other, Attrs) and self._key == other._key)

    def __repr__(self) -> str:
        return f"Attrs({self._values})"

    def replace(self, **values: Any) -> Attrs:
        """These attributes with some values changed."""
        return Attrs({**self._values, **values})


@dataclass(frozen=True, slots=True)
class SubGraph:
    """A graph held by a node: a loop's body, a branch, the function of a call.

    graph: the Graph. closed: whether JAX holds it as a closed jaxpr (False only for the open `Jaxpr` of jax 0.10).
    constvars: how many of the graph's leading inputs an open jaxpr lists as constants.
    """

    graph: Any
    closed: bool = True
    constvars: int = 0


class _Identity:
    """Equal to another only if both hold the same object."""

    __slots__ = ("held",)

    def __init__(self, held: object) -> None:
        self.held = held

    def __hash__(self) -> int:
        return id(self.held)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Identity) and self.held is other.held


def freeze(value: Any) -> Hashable:
    """A hashable key that is equal for two values only if they cannot be told apart."""
    kind = type(value)
    if kind is str or value is None:
        return value  # type: ignore[no-any-return]
    if kind is int or kind is bool:
        return (kind, value)
    if isinstance(value, tuple | list):
        return (kind, *map(freeze, value))
    if kind is dict:
        return (kind, tuple((freeze(k), freeze(v)) for k, v in value.items()))
    if kind is frozenset:
        return (kind, frozenset(map(freeze, value)))
    if isinstance(value, np.ndarray | np.generic):
        return (kind, value.dtype, value.shape, value.tobytes())
    if isinstance(value, float | complex):
        return (kind, struct.pack("2d", value.real, value.imag))
    try:
        hash(value)
    except TypeError:
        return _Identity(value)
    return (kind, value)


def subgraphs_in(values: Iterable[Any]) -> list[SubGraph]:
    """The sub-graphs among `values`, and in tuples among them."""
    found = []
    for value in values:
        if isinstance(value, SubGraph):
            found.append(value)
        elif isinstance(value, tuple | list) and value:
            found += subgraphs_in(value)
    return found


def map_subgraphs(value: Any, function: Any) -> Any:
    """`value` with every SubGraph in it replaced by `function(subgraph)`; the same object where nothing changed."""
    if isinstance(value, SubGraph):
        return function(value)
    if isinstance(value, tuple | list):
        mapped = [map_subgraphs(v, function) for v in value]
        if all(new is old for new, old in zip(mapped, value, strict=True)):
            return value
        return type(value)(*mapped) if hasattr(value, "_fields") else type(value)(mapped)
    return value


EMPTY = Attrs({})
