"""Rules for broadcasts: they merge, and what is done to a broadcast is done to what is broadcast."""

from __future__ import annotations

from jax.extend.core import primitives as p

from graphopt.ir.node import Node
from graphopt.ir.op import CONSTANT
from graphopt.ops.make import BROADCAST, full
from graphopt.passes.rules.moving import (
    IOTA,
    MOVES,
    RESHAPE,
    SQUEEZE,
    applied,
    axes_added_to,
    axes_kept,
    bounds,
    broadcast,
    reversed_along,
    sliced,
    uniform,
)
from graphopt.rewrite.rule import AnyRule, rewrites


@rewrites(p.broadcast_in_dim_p, safety=MOVES, law="composition")
def broadcast_of_broadcast(node: Node) -> Node | None:
    """broadcast(broadcast(x)) → broadcast(x)"""
    inner = node.inputs[0]
    if inner.op is not BROADCAST or len(node.inputs) != 1 or len(inner.inputs) != 1:
        return None
    outer = node.attrs["broadcast_dimensions"]
    return broadcast(inner.inputs[0], node.aval.shape, [outer[d] for d in inner.attrs["broadcast_dimensions"]])


@rewrites(p.broadcast_in_dim_p, safety=MOVES, law="composition", all_operands=(CONSTANT,))
def broadcast_of_equal_numbers(node: Node) -> Node | None:
    """broadcast(a constant array of one number) → broadcast(the number)"""
    value = uniform(node.inputs[0])
    return None if value is None else broadcast(value, node.aval.shape, ())


@rewrites(p.broadcast_in_dim_p, safety=MOVES, law="composition")
def broadcast_of_reshape(node: Node) -> Node | None:
    """broadcast(reshape(x)) → broadcast(x) where the reshape only adds axes of size one"""
    inner = node.inputs[0]
    if inner.op is not RESHAPE or len(inner.inputs) != 1 or len(node.inputs) != 1:
        return None
    places = axes_added_to(inner.inputs[0].aval.shape, inner.aval.shape)
    if places is None:
        return None
    outer = node.attrs["broadcast_dimensions"]
    return broadcast(inner.inputs[0], node.aval.shape, [outer[axis] for axis in places])


@rewrites(p.broadcast_in_dim_p, safety=MOVES, law="composition")
def broadcast_of_squeeze(node: Node) -> Node | None:
    """broadcast(squeeze(x)) → broadcast(x) where the broadcast has new axes where the squeeze took them"""
    inner = node.inputs[0]
    if inner.op is not SQUEEZE or len(node.inputs) != 1:
        return None
    x, outer = inner.inputs[0], node.attrs["broadcast_dimensions"]
    gone = {axis % len(x.aval.shape) for axis in inner.attrs["dimensions"]}
    places = dict(zip([a for a in range(len(x.aval.shape)) if a not in gone], outer, strict=True))
    free = iter(d for d in range(len(node.aval.shape)) if d not in outer)
    dimensions: list[int] = []
    for axis in range(len(x.aval.shape)):
        last = dimensions[-1] if dimensions else -1
        place = places[axis] if axis in places else next((d for d in free if d > last), None)
        if place is None or place <= last:
            return None
        dimensions.append(place)
    return broadcast(x, node.aval.shape, dimensions)


@rewrites(p.slice_p, safety=MOVES, law="movement")
def slice_of_broadcast(node: Node) -> Node | None:
    """slice(broadcast(x)) → broadcast(slice(x))"""
    inner = node.inputs[0]
    if inner.op is not BROADCAST or len(inner.inputs) != 1:
        return None
    x, dimensions = inner.inputs[0], inner.attrs["broadcast_dimensions"]
    starts, counts, strides = (list(part) for part in bounds(node))
    mine: list[tuple[int, int, int]] = []
    for axis, d in enumerate(dimensions):
        repeated = x.aval.shape[axis] != inner.aval.shape[d]
        mine.append((0, 1, 1) if repeated else (starts[d], counts[d], strides[d]))
    core = sliced(x, *[[part[k] for part in mine] for k in range(3)])
    return broadcast(core, node.aval.shape, dimensions)


@rewrites(p.rev_p, safety=MOVES, law="movement")
def reversal_of_broadcast(node: Node) -> Node | None:
    """rev(broadcast(x)) → broadcast(rev(x)), or broadcast(x) where only repeated axes are reversed"""
    inner = node.inputs[0]
    if inner.op is not BROADCAST or len(inner.inputs) != 1:
        return None
    x, dimensions = inner.inputs[0], inner.attrs["broadcast_dimensions"]
    axes = [dimensions.index(d) for d in node.attrs["dimensions"] if d in dimensions]
    core = reversed_along(x, axes)
    return broadcast(core, node.aval.shape, dimensions)


@rewrites(p.concatenate_p, safety=MOVES, law="movement")
def concatenation_of_broadcasts(node: Node) -> Node | None:
    """concatenate(broadcast(x), broadcast(x)) → broadcast(x) where the axis joined is a repeated one"""
    first = node.inputs[0]
    if first.op is not BROADCAST or len(first.inputs) != 1:
        return None
    x, dimensions, axis = first.inputs[0], first.attrs["broadcast_dimensions"], node.attrs["dimension"]
    if axis in dimensions and x.aval.shape[dimensions.index(axis)] != 1:
        return None
    for n in node.inputs:
        if n.op is not BROADCAST or n.inputs != first.inputs or n.attrs["broadcast_dimensions"] != dimensions:
            return None
    return broadcast(x, node.aval.shape, dimensions)


@rewrites(p.pad_p, safety=MOVES, law="idempotence")
def padding_of_the_same_value(node: Node) -> Node | None:
    """pad(broadcast(c), c) → broadcast(c)"""
    value = uniform(node.inputs[0])
    return broadcast(value, node.aval.shape, ()) if value is not None and value is node.inputs[1] else None


@rewrites(p.dynamic_slice_p, safety=MOVES, law="movement")
def dynamic_slice_of_broadcast(node: Node) -> Node | None:
    """dynamic_slice(broadcast(c), i) → broadcast(c)"""
    value = uniform(node.inputs[0])
    return None if value is None else broadcast(value, node.aval.shape, ())


@rewrites(p.iota_p, safety={"iufc": "exact"}, law="reduction")
def iota_of_one(node: Node) -> Node | None:
    """iota → broadcast(0) where its axis has one element"""
    if node.inputs or node.aval.shape[node.attrs["dimension"]] != 1:
        return None
    return full(0, node.aval)


@rewrites(p.squeeze_p, p.reshape_p, p.slice_p, safety=MOVES, law="movement")
def part_of_iota(node: Node) -> Node | None:
    """slice(iota), squeeze(iota), reshape(iota) → iota, where the axis that counts starts at zero and is whole"""
    inner = node.inputs[0]
    if inner.op is not IOTA or inner.inputs:
        return None
    axis = inner.attrs["dimension"]
    if "start_indices" in node.attrs:
        starts, _, strides = bounds(node)
        if starts[axis] != 0 or strides[axis] != 1:
            return None
    else:
        places = axes_kept(inner.aval.shape, node.aval.shape)
        if places is None or axis not in places:
            return None
        axis = places[axis]
    return applied(inner.op, inner.attrs.replace(shape=node.aval.shape, dimension=axis))


RULES: tuple[AnyRule, ...] = (
    broadcast_of_broadcast,
    broadcast_of_equal_numbers,
    broadcast_of_reshape,
    broadcast_of_squeeze,
    slice_of_broadcast,
    reversal_of_broadcast,
    concatenation_of_broadcasts,
    padding_of_the_same_value,
    dynamic_slice_of_broadcast,
    iota_of_one,
    part_of_iota,
)

DECLINED: dict[str, str] = {
    "broadcast_in_dim": "op(x, broadcast(y)) → op(x, y) for a y with axes of size one is left: "
    "XLA reads y in place either way.",
    "iota": "iota + c and slices of iota that start later are not written as one another: neither is cheaper.",
}
