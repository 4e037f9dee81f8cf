"""Rules for what gives the same elements another shape: reshape, squeeze, and broadcasts that only add axes."""

from __future__ import annotations

from jax.extend.core import primitives as p

from graphopt.ir.node import Node
from graphopt.ops.make import BROADCAST
from graphopt.passes.rules.moving import (
    MOVES,
    axes_kept,
    broadcast,
    relabels,
    reshaped,
    uniform,
)
from graphopt.rewrite.rule import AnyRule, rewrites


@rewrites(p.reshape_p, p.squeeze_p, p.broadcast_in_dim_p, safety=MOVES, law="identity")
def reshape_to_its_own_shape(node: Node) -> Node | None:
    """reshape(x) → x where the shape stays; so for squeeze and broadcast"""
    same = node.aval.shape == node.inputs[0].aval.shape
    return node.inputs[0] if same and relabels(node) else None


@rewrites(p.reshape_p, p.squeeze_p, p.broadcast_in_dim_p, safety=MOVES, law="composition")
def reshape_of_reshape(node: Node) -> Node | None:
    """reshape(reshape(x)) → reshape(x); squeeze and broadcasts that only add axes are reshapes too"""
    inner = node.inputs[0]
    if not relabels(inner) or not relabels(node):
        return None
    return reshaped(inner.inputs[0], node.aval.shape)


@rewrites(p.reshape_p, p.squeeze_p, safety=MOVES, law="movement")
def reshape_of_broadcast(node: Node) -> Node | None:
    """reshape(broadcast(x)) → broadcast(x) where x is a scalar, or only axes of size one come and go"""
    inner = node.inputs[0]
    if inner.op is not BROADCAST or not relabels(node):
        return None
    scalar = uniform(inner)
    if scalar is not None:
        return broadcast(scalar, node.aval.shape, ())
    places = axes_kept(inner.aval.shape, node.aval.shape)
    if places is None or relabels(inner):
        return None
    x, dimensions = inner.inputs[0], inner.attrs["broadcast_dimensions"]
    kept = [axis for axis, d in enumerate(dimensions) if d in places]
    core = reshaped(x, [x.aval.shape[axis] for axis in kept])
    return broadcast(core, node.aval.shape, [places[dimensions[axis]] for axis in kept])


RULES: tuple[AnyRule, ...] = (reshape_to_its_own_shape, reshape_of_reshape, reshape_of_broadcast)

DECLINED: dict[str, str] = {
    "reshape": "reshape(transpose(x)) is left alone where axes really move: it stands for a copy in any form.",
    "squeeze": "a squeeze alone is not written as a reshape: both are free.",
}
