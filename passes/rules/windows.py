"""Rules for reductions over windows and for the padding before windows and convolutions."""

from __future__ import annotations

import math

from jax.extend.core import primitives as p

from graphopt.ir.node import Node
from graphopt.ir.op import Op, op_of
from graphopt.ops.make import make
from graphopt.passes.rules.moving import PAD, applied, reshaped, sliced
from graphopt.passes.rules.reductions import REORDERED
from graphopt.rewrite.pattern import splat
from graphopt.rewrite.rule import AnyRule, rewrites
from graphopt.rewrite.safety import kind_of

WINDOW_SUM, WINDOW_MAX = op_of(p.reduce_window_sum_p), op_of(p.reduce_window_max_p)
WINDOW_MIN = op_of(p.reduce_window_min_p)
WINDOWS: dict[Op, Op] = {
    WINDOW_SUM: op_of(p.reduce_sum_p),
    WINDOW_MAX: op_of(p.reduce_max_p),
    WINDOW_MIN: op_of(p.reduce_min_p),
}
"""The reduction that each operation does in its windows."""


def _is_plain(node: Node) -> bool:
    """Whether windows lie on the elements themselves, without padding or holes."""
    attrs = node.attrs
    dilations = (*attrs["base_dilation"], *attrs["window_dilation"])
    return all(d == 1 for d in dilations) and all(low == 0 == high for low, high in attrs["padding"])


@rewrites(*WINDOWS, safety=REORDERED, law="identity")
def windows_of_one_element(node: Node) -> Node | None:
    """reduce_window(x) → x, or slice(x), where each window has one element"""
    if math.prod(node.attrs["window_dimensions"]) != 1 or not _is_plain(node):
        return None
    strides = node.attrs["window_strides"]
    return sliced(node.inputs[0], [0] * len(strides), node.aval.shape, [int(s) for s in strides])


@rewrites(*WINDOWS, safety={"iu": "exact", "f": "reassociate"}, law="reduction")
def window_over_everything(node: Node) -> Node | None:
    """reduce_window(x) → reduce(x) where each axis has one window over all of it, or windows of one element"""
    x, sizes = node.inputs[0], node.attrs["window_dimensions"]
    if not _is_plain(node):
        return None
    axes = [axis for axis, size in enumerate(sizes) if size != 1]
    whole = all(sizes[axis] == x.aval.shape[axis] for axis in axes)
    strided = any(s != 1 for axis, s in enumerate(node.attrs["window_strides"]) if axis not in axes)
    if not axes or not whole or strided or not node.aval.size:
        return None
    return reshaped(make(WINDOWS[node.op], x, axes=tuple(axes)), node.aval.shape)


def _outer_padding(inner: Node) -> list[tuple[int, int]] | None:
    """The padding around an array that adds nothing between elements and cuts nothing off."""
    config = [tuple(map(int, edges)) for edges in inner.attrs["padding_config"]]
    if any(low < 0 or high < 0 or between for low, high, between in config):
        return None
    return [(low, high) for low, high, _ in config]


@rewrites(*WINDOWS, safety=REORDERED, law="composition")
def windows_on_padding(node: Node) -> Node | None:
    """reduce_window(pad(x, c)) → reduce_window(x) with this padding, where c is the neutral element"""
    inner = node.inputs[0]
    if inner.op is not PAD or any(d != 1 for d in node.attrs["base_dilation"]):
        return None
    value, edges = splat(inner.inputs[1]), _outer_padding(inner)
    if value is None or edges is None or kind_of(inner.aval.dtype) != "f":
        return None
    neutral = {WINDOW_SUM: 0.0, WINDOW_MAX: -math.inf}.get(node.op, math.inf)
    if float(value) != neutral:
        return None
    padding = tuple((int(a + c), int(b + d)) for (a, b), (c, d) in zip(edges, node.attrs["padding"], strict=True))
    return applied(node.op, node.attrs.replace(padding=padding), inner.inputs[0])


@rewrites(p.conv_general_dilated_p, safety={"f": "reassociate"}, law="composition")
def convolution_of_padding(node: Node) -> Node | None:
    """conv(pad(x, 0), w) → conv(x, w) with this padding"""
    inner, weights = node.inputs
    if inner.op is not PAD:
        return None
    value, edges = splat(inner.inputs[1]), _outer_padding(inner)
    if value is None or value != 0 or edges is None:
        return None
    batch, feature, *spatial = node.attrs["dimension_numbers"].lhs_spec
    if edges[batch] != (0, 0) or edges[feature] != (0, 0):
        return None
    if any(d != 1 and edges[axis] != (0, 0) for axis, d in zip(spatial, node.attrs["lhs_dilation"], strict=True)):
        return None
    old = node.attrs["padding"]
    padding = tuple(
        (int(a + edges[axis][0]), int(b + edges[axis][1])) for axis, (a, b) in zip(spatial, old, strict=True)
    )
    return applied(node.op, node.attrs.replace(padding=padding), inner.inputs[0], weights)


RULES: tuple[AnyRule, ...] = (
    windows_of_one_element,
    window_over_everything,
    windows_on_padding,
    convolution_of_padding,
)

_WINDOWS = "windows of windows are not merged: padding and strides rarely let them, and the sums would overlap."

DECLINED: dict[str, str] = {
    "reduce_window_sum": _WINDOWS,
    "reduce_window_max": _WINDOWS,
    "reduce_window_min": _WINDOWS,
    "conv_general_dilated": "a convolution by a kernel of one point stays where single elements of the matrix "
    "product would have to be moved; factors pulled out of convolutions belong to the choice of how a contraction is "
    "computed.",
}
