"""Rules for reductions over axes: what is moved or repeated before is reduced where it is."""

from __future__ import annotations

import math

import numpy as np
from jax.extend.core import primitives as p

from graphopt.ir.node import Node
from graphopt.ir.op import op_of
from graphopt.ops.make import BROADCAST, full, make, scalar
from graphopt.passes.rules.moving import (
    PAD,
    REV,
    TRANSPOSE,
    Uses,
    applied,
    axes_kept,
    bounds,
    broadcast,
    relabels,
    reshaped,
    sliced,
    transposed,
)
from graphopt.rewrite.pattern import splat
from graphopt.rewrite.rule import AnyRule, rewrites
from graphopt.rewrite.safety import kind_of

SUM, PROD, MAX, MIN = map(op_of, (p.reduce_sum_p, p.reduce_prod_p, p.reduce_max_p, p.reduce_min_p))
AND, OR, XOR = map(op_of, (p.reduce_and_p, p.reduce_or_p, p.reduce_xor_p))
REDUCTIONS = (SUM, PROD, MAX, MIN, AND, OR, XOR)
MUL, INTEGER_POW = op_of(p.mul_p), op_of(p.integer_pow_p)

REORDERED = {"biu": "exact", "fc": "reassociate"}
"""The order of adding changes, or a zero its sign; a denormal that a comparison flushed is kept."""


def reduced(like: Node, x: Node, axes: list[int]) -> Node:
    """`x` reduced over these axes by the operation of `like`."""
    return applied(like.op, like.attrs.replace(axes=tuple(sorted(axes))), x) if axes else x


def neutral_element(node: Node) -> complex | bool:
    """What a reduction gives of no elements."""
    dtype = node.inputs[0].aval.dtype
    kind = kind_of(dtype)
    if node.op is SUM or node.op is XOR or node.op is OR:
        return False if kind == "b" else 0
    if node.op is PROD:
        return 1
    if kind == "b":
        return node.op is AND or node.op is MIN
    if node.op is AND:
        return -1 if kind == "i" else int(np.iinfo(dtype).max)
    if kind in "iu":
        return int(np.iinfo(dtype).min if node.op is MAX else np.iinfo(dtype).max)
    return -math.inf if node.op is MAX else math.inf


@rewrites(*REDUCTIONS, safety="exact", law="reduction")
def reduction_of_nothing(node: Node) -> Node | None:
    """reduce(empty) → the neutral element"""
    x = node.inputs[0]
    if x.aval.size or not node.aval.size or kind_of(x.aval.dtype) == "o":
        return None
    return full(neutral_element(node), node.aval)


@rewrites(*REDUCTIONS, safety=REORDERED, law="identity")
def reduction_over_one_element(node: Node) -> Node | None:
    """reduce(x) → reshape(x) where each reduced axis has one element"""
    x = node.inputs[0]
    if any(x.aval.shape[axis] != 1 for axis in node.attrs["axes"]):
        return None
    return reshaped(x, node.aval.shape)


@rewrites(*REDUCTIONS, safety={"biu": "exact", "f": "reassociate"}, law="composition")
def reduction_of_reduction(node: Node) -> Node | None:
    """reduce(reduce(x)) → reduce(x) over the axes of both"""
    inner = node.inputs[0]
    if inner.op is not node.op or node.op is PROD:
        return None
    first = set(inner.attrs["axes"])
    left = [axis for axis in range(len(inner.inputs[0].aval.shape)) if axis not in first]
    return reduced(node, inner.inputs[0], [*first, *[left[axis] for axis in node.attrs["axes"]]])


@rewrites(*REDUCTIONS, safety=REORDERED, law="movement")
def reduction_of_transpose(node: Node) -> Node | None:
    """reduce(transpose(x)) → reduce(x), or its transpose"""
    inner = node.inputs[0]
    if inner.op is not TRANSPOSE:
        return None
    permutation, gone = inner.attrs["permutation"], node.attrs["axes"]
    kept = [axis for k, axis in enumerate(permutation) if k not in gone]
    order = sorted(kept)
    core = reduced(node, inner.inputs[0], [permutation[axis] for axis in gone])
    return transposed(core, [order.index(axis) for axis in kept])


@rewrites(*REDUCTIONS, safety=REORDERED, law="movement")
def reduction_of_reversal(node: Node) -> Node | None:
    """reduce(rev(x)) → reduce(x) where the reversed axes are reduced"""
    inner = node.inputs[0]
    if inner.op is not REV or not set(inner.attrs["dimensions"]) <= set(node.attrs["axes"]):
        return None
    return applied(node.op, node.attrs, inner.inputs[0])


@rewrites(*REDUCTIONS, safety=REORDERED, law="movement")
def reduction_of_reshape(node: Node) -> Node | None:
    """reduce(reshape(x)) → reduce(x) where all is reduced, or only axes of size one come and go"""
    inner = node.inputs[0]
    if not relabels(inner):
        return None
    x = inner.inputs[0]
    if not node.aval.shape:
        return reduced(node, x, list(range(len(x.aval.shape)))) if x.aval.shape else None
    places = axes_kept(inner.aval.shape, x.aval.shape)
    if places is None:
        return None
    axes = [places[axis] for axis in node.attrs["axes"] if axis in places]
    return reshaped(reduced(node, x, axes), node.aval.shape) if axes else None


@rewrites(*REDUCTIONS, safety=REORDERED, law="reduction")
def reduction_of_broadcast(node: Node) -> Node | None:
    """reduce(broadcast(x)) → broadcast(x * n) for a sum over n copies, x ** n for a product, x for max, min, and, or"""
    inner = node.inputs[0]
    if inner.op is not BROADCAST or len(inner.inputs) != 1 or not inner.aval.size:
        return None
    x, dimensions, axes = inner.inputs[0], inner.attrs["broadcast_dimensions"], node.attrs["axes"]
    mine = [axis for axis, d in enumerate(dimensions) if d in axes]
    copies = math.prod(inner.aval.shape[d] for d in axes) // math.prod(x.aval.shape[axis] for axis in mine)
    if copies == 1 and len(mine) == len(axes):
        return None
    core = _repeated(node, reduced(node, x, mine), copies)
    kept = [d for d in range(len(inner.aval.shape)) if d not in axes]
    places = [kept.index(d) for axis, d in enumerate(dimensions) if axis not in mine]
    return None if core is None else broadcast(core, node.aval.shape, places)


def _repeated(node: Node, x: Node, copies: int) -> Node | None:
    """So many copies of `x`, reduced; None where the dtype has not this number."""
    if copies == 1 or node.op in (MAX, MIN, AND, OR):
        return x
    if node.op is XOR:
        return x if copies % 2 else full(False if kind_of(x.aval.dtype) == "b" else 0, x.aval)
    if node.op is PROD:
        return make(INTEGER_POW, x, y=copies) if copies <= 4 and kind_of(x.aval.dtype) in "iu" else None
    dtype = x.aval.dtype
    number = np.asarray(copies).astype(dtype)
    if kind_of(dtype) in "fc" and complex(number) != copies:
        return None
    return make(MUL, x, scalar(number.item(), dtype))


@rewrites(p.reduce_sum_p, p.reduce_max_p, p.reduce_min_p, p.reduce_or_p, safety=REORDERED, law="identity")
def reduction_of_padding(node: Node) -> Node | None:
    """reduce(pad(x, c)) → reduce(x) where c is the neutral element and all padded axes are reduced"""
    inner = node.inputs[0]
    if inner.op is not PAD:
        return None
    value, config = splat(inner.inputs[1]), inner.attrs["padding_config"]
    if value is None or bool(value != neutral_element(node)) or any(min(edges) < 0 for edges in config):
        return None
    padded = {axis for axis, edges in enumerate(config) if any(edges)}
    return applied(node.op, node.attrs, inner.inputs[0]) if padded <= set(node.attrs["axes"]) else None


@rewrites(p.slice_p, safety=REORDERED, law="movement", an_operand=REDUCTIONS)
def slice_of_reduction(node: Node, uses: Uses) -> Node | None:
    """slice(reduce(x)) → reduce(slice(x))"""
    inner = node.inputs[0]
    if inner.op not in REDUCTIONS or uses(inner) > 1 or inner.context is not None:
        return None
    x, gone = inner.inputs[0], inner.attrs["axes"]
    places = iter(zip(*bounds(node), strict=True))
    parts = [(0, size, 1) if axis in gone else next(places) for axis, size in enumerate(x.aval.shape)]
    return applied(inner.op, inner.attrs, sliced(x, *[[part[k] for part in parts] for k in range(3)]))


@rewrites(p.argmax_p, p.argmin_p, safety={"biuf": "exact"}, law="absorption")
def place_among_equals(node: Node) -> Node | None:
    """argmax(x) → 0 where the axis has one element, or x is repeated along it"""
    x, (axis,) = node.inputs[0], node.attrs["axes"]
    alone = x.aval.shape[axis] == 1
    if x.op is BROADCAST and not alone and x.aval.size:
        source, dimensions = x.inputs[0], x.attrs["broadcast_dimensions"]
        alone = axis not in dimensions or source.aval.shape[dimensions.index(axis)] == 1
    return full(0, node.aval) if alone else None


@rewrites(p.argmax_p, p.argmin_p, safety={"biuf": "exact"}, law="movement")
def place_in_transpose(node: Node) -> Node | None:
    """argmax(transpose(x)) → argmax(x), or its transpose"""
    inner, (axis,) = node.inputs[0], node.attrs["axes"]
    if inner.op is not TRANSPOSE:
        return None
    permutation = inner.attrs["permutation"]
    kept = [a for a in permutation if a != permutation[axis]]
    order = sorted(kept)
    core = applied(node.op, node.attrs.replace(axes=(permutation[axis],)), inner.inputs[0])
    return transposed(core, [order.index(a) for a in kept])


@rewrites(p.argmax_p, p.argmin_p, safety={"f": "exact"}, law="reduction")
def place_of_negation(node: Node) -> Node | None:
    """argmax(-x) → argmin(x), and the reverse"""
    inner = node.inputs[0]
    if inner.op.name != "neg":
        return None
    other = op_of(p.argmin_p if node.op.name == "argmax" else p.argmax_p)
    return applied(other, node.attrs, inner.inputs[0])


RULES: tuple[AnyRule, ...] = (
    reduction_of_nothing,
    reduction_over_one_element,
    reduction_of_broadcast,
    reduction_of_reduction,
    reduction_of_transpose,
    reduction_of_reversal,
    reduction_of_reshape,
    reduction_of_padding,
    slice_of_reduction,
    place_among_equals,
    place_in_transpose,
    place_of_negation,
)

_MONOTONE = "max(f(x)) → f(max(x)) for a monotone f holds in real numbers; a rounded f is not always monotone."
_BITS = "reductions of masked or shifted bits are not pulled apart: they are not written."

DECLINED: dict[str, str] = {
    "reduce_sum": "sum(x * y) → dot(x, y) changes the engine and not the cost; sum(concatenate(x, y)) → sum(x) + "
    "sum(y) and sums of sums of different arrays stay in the program's order.",
    "reduce_prod": "prod(prod(x)) and prod(c * x) may overflow on the way where the other order does not; "
    "the product of many copies is a power only for up to four of them, on integers.",
    "reduce_max": _MONOTONE,
    "reduce_min": _MONOTONE,
    "reduce_and": _BITS,
    "reduce_or": _BITS,
    "reduce_xor": _BITS,
    "argmax": "argmax(f(x)) → argmax(x) for a monotone f is wrong where rounding makes two elements equal.",
    "argmin": "argmin(f(x)) → argmin(x) for a monotone f is wrong where rounding makes two elements equal.",
}
