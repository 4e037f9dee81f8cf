"""Rules for transposes: they merge, cancel, pass broadcasts inwards and what selects elements outwards."""

from __future__ import annotations

from jax.extend.core import primitives as p

from graphopt.ir.node import Node
from graphopt.ops.make import BROADCAST, make
from graphopt.passes.rules.moving import (
    IOTA,
    MOVES,
    PAD,
    REV,
    TRANSPOSE,
    Uses,
    applied,
    bounds,
    broadcast,
    concatenated,
    reshaped,
    reversed_along,
    sliced,
    transposed,
)
from graphopt.rewrite.rule import AnyRule, rewrites


@rewrites(p.transpose_p, safety=MOVES, law="composition")
def transpose_of_transpose(node: Node) -> Node | None:
    """transpose(transpose(x)) → x, or one transpose"""
    inner = node.inputs[0]
    if inner.op is not TRANSPOSE:
        return None
    first, second = inner.attrs["permutation"], node.attrs["permutation"]
    return transposed(inner.inputs[0], [first[axis] for axis in second])


@rewrites(p.transpose_p, safety=MOVES, law="identity")
def transpose_that_moves_nothing(node: Node) -> Node | None:
    """transpose(x) → x, or reshape(x), where only axes of size one change places"""
    x = node.inputs[0]
    order = [axis for axis in node.attrs["permutation"] if x.aval.shape[axis] != 1]
    return reshaped(x, node.aval.shape) if order == sorted(order) else None


@rewrites(p.transpose_p, safety=MOVES, law="movement")
def transpose_of_broadcast(node: Node) -> Node | None:
    """transpose(broadcast(x)) → broadcast(x), or broadcast(transpose(x))"""
    inner = node.inputs[0]
    if inner.op is not BROADCAST or len(inner.inputs) != 1:
        return None
    permutation = node.attrs["permutation"]
    places = [permutation.index(d) for d in inner.attrs["broadcast_dimensions"]]
    order = sorted(range(len(places)), key=places.__getitem__)
    return broadcast(transposed(inner.inputs[0], order), node.aval.shape, sorted(places))


@rewrites(p.transpose_p, safety=MOVES, law="movement")
def transpose_of_iota(node: Node) -> Node | None:
    """transpose(iota) → iota along the axis that the transpose leads to"""
    inner = node.inputs[0]
    if inner.op is not IOTA or inner.inputs:
        return None
    axis = node.attrs["permutation"].index(inner.attrs["dimension"])
    return applied(IOTA, inner.attrs.replace(shape=node.aval.shape, dimension=axis))


@rewrites(p.slice_p, p.rev_p, p.pad_p, safety=MOVES, law="movement")
def selection_of_transpose(node: Node, uses: Uses) -> Node | None:
    """slice(transpose(x)) → transpose(slice(x)), and so for rev and pad"""
    inner = node.inputs[0]
    if inner.op is not TRANSPOSE or uses(inner) > 1:
        return None
    x, permutation = inner.inputs[0], inner.attrs["permutation"]
    places = [permutation.index(axis) for axis in range(len(permutation))]
    if node.op is REV:
        moved = reversed_along(x, [permutation[axis] for axis in node.attrs["dimensions"]])
    elif node.op is PAD:
        config = node.attrs["padding_config"]
        moved = make(PAD, x, node.inputs[1], padding_config=tuple(config[k] for k in places))
    else:
        moved = sliced(x, *[[part[k] for k in places] for part in bounds(node)])
    return transposed(moved, permutation)


@rewrites(p.concatenate_p, safety=MOVES, law="movement")
def concatenation_of_transposes(node: Node, uses: Uses) -> Node | None:
    """concatenate(transpose(x), transpose(y)) → transpose(concatenate(x, y))"""
    first = node.inputs[0]
    if first.op is not TRANSPOSE or len(node.inputs) < 2:
        return None
    if any(n.op is not TRANSPOSE or n.attrs != first.attrs or uses(n) > node.inputs.count(n) for n in node.inputs):
        return None
    permutation = first.attrs["permutation"]
    joined = concatenated([n.inputs[0] for n in node.inputs], permutation[node.attrs["dimension"]])
    return transposed(joined, permutation)


RULES: tuple[AnyRule, ...] = (
    transpose_of_transpose,
    transpose_that_moves_nothing,
    transpose_of_broadcast,
    transpose_of_iota,
    selection_of_transpose,
    concatenation_of_transposes,
)

DECLINED: dict[str, str] = {
    "transpose": "transpose(reshape(x)) → reshape(x) holds where the moved axes are split off one axis, "
    "but then other elements are moved as far: nothing is saved.",
}
