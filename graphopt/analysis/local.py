"""Regions that run on one device each, in a program that is partitioned over several.

Inside `jax.shard_map` over all axes of a mesh, arrays are what one device has of them. Their types say in which mesh,
and along which of its axes they differ. That matters to JAX while it differentiates, and to nothing that computes them.
"""

from __future__ import annotations

from typing import Any

from jax.sharding import AbstractMesh, AxisType, Mesh, Sharding

from graphopt.ir.aval import Aval, array_aval
from graphopt.ir.graph import Graph, nested_graphs
from graphopt.ir.op import Op

# JAX does not export these primitives.
SHARD_MAP, VARY = "shard_map", "pvary"


def is_shard_map(op: Op) -> bool:
    """Whether an operation runs its graph on each device of a mesh."""
    return op.primitive is not None and op.name == SHARD_MAP


def is_same_value(op: Op) -> bool:
    """Whether an operation says of its operand that it may differ from device to device, and does nothing."""
    return op.primitive is not None and op.name == VARY


def is_local(aval: Aval) -> bool:
    """Whether this is the type of an array inside `shard_map` over all axes of a mesh."""
    if aval.is_plain or not aval.is_array or not aval.is_static:
        return False
    sharding = aval.type.sharding
    plain = plain_type(aval).type
    return (
        not sharding.mesh.empty
        and all(kind is AxisType.Manual for kind in sharding.mesh.axis_types)
        and all(part is None for part in sharding.spec)
        and not sharding.spec.unreduced
        and not sharding.spec.reduced
        and aval.type.memory_space == plain.memory_space
        and getattr(aval.type, "layout", None) == getattr(plain, "layout", None)
    )


def plain_type(aval: Aval) -> Aval:
    """The same array, with nothing said of a mesh."""
    return array_aval(aval.shape, aval.dtype, aval.weak_type)


def is_local_sharding(value: Any) -> bool:
    """Whether a parameter of an operation is a sharding that says nothing inside of such a region."""
    if not isinstance(value, Sharding):
        return False
    mesh = getattr(value, "mesh", None)
    spec = getattr(value, "spec", ("?",))
    return (
        mesh is not None
        and all(kind is AxisType.Manual for kind in mesh.axis_types)
        and all(part is None for part in spec)
    )


def devices_in(graph: Graph) -> int:
    """Over how many devices the operations of a graph, and of those below it, ask to be spread; 1 where none asks."""
    found = 1
    for inner in nested_graphs(graph):
        for node in inner.nodes:
            for value in node.attrs.values():
                if isinstance(value, Mesh | AbstractMesh):
                    found = max(found, value.size)
                elif isinstance(value, Sharding):
                    found = max(found, value.num_devices)
    return found


def local_graphs(graph: Graph) -> set[Graph]:
    """The graphs below `graph`, and itself, that run on one device each, and nowhere else."""
    inside: set[Graph] = set()
    outside: set[Graph] = set()
    stack = [(graph, False)]
    while stack:
        current, is_inside = stack.pop()
        is_inside = is_inside or any(is_local(aval) for node in current.nodes for aval in node.avals)
        found = inside if is_inside else outside
        if current not in found:
            found.add(current)
            stack += [(sub.graph, is_inside) for sub in current.subgraphs]
    return inside - outside
