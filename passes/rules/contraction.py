"""Rules for matrix products, and convolutions that are such: what need not be moved or summed is not."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from jax.extend.core import primitives as p

from graphopt.ir.node import Node
from graphopt.ir.op import op_of
from graphopt.ops.contract import DOT_GENERAL
from graphopt.ops.make import BROADCAST, full, make
from graphopt.passes.rules.moving import (
    TRANSPOSE,
    Uses,
    applied,
    bounds,
    broadcast,
    reshaped,
    sliced,
    transposed,
    uniform,
)
from graphopt.rewrite.pattern import splat
from graphopt.rewrite.rule import AnyRule, rewrites
from graphopt.rewrite.safety import kind_of

MUL, SUM = op_of(p.mul_p), op_of(p.reduce_sum_p)

ROW = 32
"""Elements beside each other from which on it is cheap to move them: images before features, where points are last."""

Axes = list[int]

REORDERED = {"biu": "exact", "fc": "reassociate"}
NUMBERS = {"iu": "exact", "f": "reassociate", "c": "nonfinite"}


def axes_of(node: Node) -> tuple[tuple[Axes, Axes], tuple[Axes, Axes], tuple[Axes, Axes]]:
    """The contracted, batch and free axes of a product, each of the left and of the right operand."""
    contracted, batch = node.attrs["dimension_numbers"]
    sides: list[tuple[Axes, Axes, Axes]] = []
    for side in (0, 1):
        summed, batched = [int(a) for a in contracted[side]], [int(a) for a in batch[side]]
        rank = len(node.inputs[side].aval.shape)
        sides.append((summed, batched, [a for a in range(rank) if a not in summed and a not in batched]))
    (ls, lb, lf), (rs, rb, rf) = sides
    return (ls, rs), (lb, rb), (lf, rf)


def product(like: Node, x: Node, y: Node, contracted: Sequence[Sequence[int]], batch: Sequence[Sequence[int]]) -> Node:
    """The product of `x` and `y` over these axes, in the precision of `like`."""
    numbers = (tuple(map(tuple, contracted)), tuple(map(tuple, batch)))
    return applied(DOT_GENERAL, like.attrs.replace(dimension_numbers=numbers), x, y)


def exchanged(node: Node) -> Node:
    """dot(y, x) of dot(x, y)."""
    contracted, batch = node.attrs["dimension_numbers"]
    precision = node.attrs["precision"]
    numbers = (tuple(map(tuple, contracted[::-1])), tuple(map(tuple, batch[::-1])))
    turned = precision[::-1] if isinstance(precision, tuple) else precision
    return applied(DOT_GENERAL, node.attrs.replace(dimension_numbers=numbers, precision=turned), *node.inputs[::-1])


def exchanged_axes(node: Node) -> Axes:
    """The axes of a product, in the order of those of the product with its factors exchanged."""
    _, (shared, _), (left, right) = axes_of(node)
    start, middle, end = len(shared), len(shared) + len(left), len(shared) + len(left) + len(right)
    return [*range(start), *range(middle, end), *range(start, middle)]


def _one_dtype(node: Node) -> bool:
    """Whether both operands and the result have one dtype, of numbers."""
    dtypes = {n.aval.dtype for n in (*node.inputs, node)}
    return len(dtypes) == 1 and kind_of(node.aval.dtype) in "iufc"


@rewrites(p.dot_general_p, safety="exact", law="absorption")
def product_over_nothing(node: Node) -> Node | None:
    """dot(x, y) → 0 where no elements are summed"""
    (summed, _), _, _ = axes_of(node)
    empty = any(node.inputs[0].aval.shape[a] == 0 for a in summed)
    return full(0, node.aval) if empty and kind_of(node.aval.dtype) in "iufc" else None


@rewrites(p.dot_general_p, safety=REORDERED, law="movement")
def product_of_transpose(node: Node) -> Node | None:
    """dot(transpose(x), y) → dot(x, y) along other axes, where the axes left keep their order"""
    contracted, batch, free = axes_of(node)
    operands, summed, batched = list(node.inputs), list(contracted), list(batch)
    for side in (0, 1):
        inner = operands[side]
        if inner.op is TRANSPOSE:
            permutation = inner.attrs["permutation"]
            left = [permutation[a] for a in free[side]]
            if left == sorted(left):
                operands[side] = inner.inputs[0]
                summed[side] = [permutation[a] for a in summed[side]]
                batched[side] = [permutation[a] for a in batched[side]]
    return None if operands == list(node.inputs) else product(node, operands[0], operands[1], summed, batched)


@rewrites(p.transpose_p, safety=REORDERED, law="movement", an_operand=[DOT_GENERAL])
def transpose_of_product(node: Node, uses: Uses) -> Node | None:
    """transpose(dot(x, y)) → dot(y, x)"""
    inner = node.inputs[0]
    if inner.op is not DOT_GENERAL or uses(inner) > 1 or inner.context is not None:
        return None
    precision = inner.attrs["precision"]
    if precision is not None and not isinstance(precision, tuple):
        return None
    return exchanged(inner) if list(node.attrs["permutation"]) == exchanged_axes(inner) else None


@rewrites(p.dot_general_p, safety=NUMBERS, law="reduction")
def product_without_a_sum(node: Node) -> Node | None:
    """dot(x, y) → x * y where one element, or none, is summed"""
    contracted, batch, free = axes_of(node)
    if not _one_dtype(node) or math.prod(node.inputs[0].aval.shape[a] for a in contracted[0]) != 1:
        return None
    shapes: list[list[int]] = []
    for side in (0, 1):
        order = [*batch[side], *free[side]]
        if order != sorted(order):
            return None
        shape = node.inputs[side].aval.shape
        mine, units = [shape[a] for a in free[side]], [1] * len(free[1 - side])
        shapes.append([*(shape[a] for a in batch[side]), *(mine + units if side == 0 else units + mine)])
    x, y = (reshaped(n, shape) for n, shape in zip(node.inputs, shapes, strict=True))
    return make(MUL, x, y)


@rewrites(p.dot_general_p, safety=REORDERED, law="reduction")
def product_of_one_matrix_pair(node: Node) -> Node | None:
    """dot(x, y) → reshape(dot(x, y)) without the batch axes, where they have one element each"""
    contracted, batch, _ = axes_of(node)
    if not batch[0] or any(node.inputs[0].aval.shape[a] != 1 for a in batch[0]):
        return None
    summed = [contracted[side] + batch[side] for side in (0, 1)]
    x, y = node.inputs
    return reshaped(product(node, x, y, summed, ((), ())), node.aval.shape)


@rewrites(p.dot_general_p, safety=REORDERED, law="movement")
def product_of_repeated_rows(node: Node) -> Node | None:
    """dot(broadcast(x), y) → broadcast(dot(x, y)) where the repeated axis is not summed"""
    contracted, batch, free = axes_of(node)
    for side in (0, 1):
        inner = node.inputs[side]
        if inner.op is not BROADCAST or len(inner.inputs) != 1:
            continue
        gone = [a for a in free[side] if a not in inner.attrs["broadcast_dimensions"]]
        if math.prod(inner.aval.shape[a] for a in gone) < 2:
            continue
        core, places = _without(inner, gone)
        operands = [core if k == side else n for k, n in enumerate(node.inputs)]
        summed, batched = (
            [[places[a] for a in axes[k]] if k == side else axes[k] for k in (0, 1)] for axes in (contracted, batch)
        )
        first = len(batch[0]) + (len(free[0]) if side else 0)
        dropped = {first + free[side].index(a) for a in gone}
        kept = [a for a in range(len(node.aval.shape)) if a not in dropped]
        return broadcast(product(node, operands[0], operands[1], summed, batched), node.aval.shape, kept)
    return None


def _without(inner: Node, gone: Sequence[int]) -> tuple[Node, dict[int, int]]:
    """A broadcast without these new axes, and where the other axes are now."""
    kept = [a for a in range(len(inner.aval.shape)) if a not in gone]
    places = {a: k for k, a in enumerate(kept)}
    dimensions = [places[d] for d in inner.attrs["broadcast_dimensions"]]
    return broadcast(inner.inputs[0], [inner.aval.shape[a] for a in kept], dimensions), places


@rewrites(p.dot_general_p, safety=REORDERED, law="movement")
def product_with_one_matrix_for_all(node: Node) -> Node | None:
    """dot(x, broadcast(y)) → dot(x, y) where y is repeated for each matrix of x"""
    contracted, batch, free = axes_of(node)
    inner = node.inputs[1]
    if not batch[1] or inner.op is not BROADCAST or len(inner.inputs) != 1:
        return None
    if any(a in inner.attrs["broadcast_dimensions"] for a in batch[1]):
        return None
    order = [*batch[0], *free[0]]
    if order != sorted(order):
        return None
    core, places = _without(inner, batch[1])
    return product(node, node.inputs[0], core, (contracted[0], [places[a] for a in contracted[1]]), ((), ()))


def _summed(node: Node, side: int) -> Callable[[Node], Node] | None:
    """How an operand is summed over what is contracted, and repeated as the result has it; None if axes would move."""
    contracted, batch, free = axes_of(node)
    first = len(batch[0]) + (len(free[0]) if side else 0)
    places = {a: k for k, a in enumerate(batch[side])}
    places |= {a: first + k for k, a in enumerate(free[side])}
    dimensions = [places[a] for a in range(len(node.inputs[side].aval.shape)) if a in places]
    if dimensions != sorted(dimensions):
        return None

    def summed(x: Node) -> Node:
        total = make(SUM, x, axes=tuple(sorted(contracted[side]))) if contracted[0] else x
        return broadcast(total, node.aval.shape, dimensions)

    return summed


@rewrites(p.dot_general_p, safety=REORDERED, law="reduction")
def product_with_ones(node: Node) -> Node | None:
    """dot(1, y) → broadcast(sum(y))"""
    return _product_with(node, lambda c, y, total: total(y) if splat(c) == 1 else None)


@rewrites(p.dot_general_p, safety={"iu": "exact", "fc": "nonfinite"}, law="reduction")
def product_with_equal_numbers(node: Node) -> Node | None:
    """dot(broadcast(c), y) → c * broadcast(sum(y))"""
    return _product_with(node, lambda c, y, total: make(MUL, c, total(y)))


@rewrites(p.dot_general_p, safety=NUMBERS, law="reduction")
def product_with_one_number(node: Node) -> Node | None:
    """dot(broadcast(c), y) → broadcast(sum(c * y))"""
    # Besides what it saves: XLA:CPU (up to 0.12 at least) computes x @ broadcast(c) + sum(z)[:, None] wrongly.
    return _product_with(node, lambda c, y, total: total(make(MUL, c, y)))


def _product_with(node: Node, of: Callable[[Node, Node, Callable[[Node], Node]], Node | None]) -> Node | None:
    """`of(c, y, total)` for a product of `y` with a number `c` that is repeated; `total(x)`: `x`, summed as `y` is."""
    # A sum of 16 bits would be rounded more often than a product, which is summed in 32 bits.
    if not _one_dtype(node) or (kind_of(node.aval.dtype) == "f" and node.aval.dtype.itemsize < 4):
        return None
    for side in (0, 1):
        scalar = uniform(node.inputs[side])
        total = _summed(node, 1 - side)
        if scalar is not None and total is not None:
            found = of(scalar, node.inputs[1 - side], total)
            if found is not None:
                return found
    return None


@rewrites(p.slice_p, safety=REORDERED, law="movement", an_operand=[DOT_GENERAL])
def slice_of_product(node: Node, uses: Uses) -> Node | None:
    """slice(dot(x, y)) → dot(slice(x), slice(y))"""
    inner = node.inputs[0]
    if inner.op is not DOT_GENERAL or uses(inner) > 1 or inner.context is not None:
        return None
    contracted, batch, free = axes_of(inner)
    parts = list(zip(*bounds(node), strict=True))
    operands: list[Node] = []
    for side in (0, 1):
        first = len(batch[0]) + (len(free[0]) if side else 0)
        mine = dict(zip(batch[side], parts, strict=False)) | dict(zip(free[side], parts[first:], strict=False))
        x = inner.inputs[side]
        taken = [mine.get(a, (0, n, 1)) for a, n in enumerate(x.aval.shape)]
        operands.append(sliced(x, *[[part[k] for part in taken] for k in range(3)]))
    return product(inner, operands[0], operands[1], contracted, batch)


@rewrites(p.conv_general_dilated_p, safety=REORDERED, law="reduction")
def convolution_of_points(node: Node) -> Node | None:
    """conv(x, w) → dot(x, w) where the window is one point, of the points that are read; rows of the result may move"""
    x, w = node.inputs
    attrs, numbers = node.attrs, node.attrs["dimension_numbers"]
    plain = all(s == 1 for s in attrs["lhs_dilation"]) and not any(any(pair) for pair in attrs["padding"])
    one_group = attrs["feature_group_count"] == attrs["batch_group_count"] == 1
    out, into, *space = numbers.rhs_spec
    if not plain or not one_group or not _one_dtype(node) or any(w.aval.shape[a] != 1 for a in space):
        return None
    strides, counts = [1] * len(x.aval.shape), list(x.aval.shape)
    for axis, stride in zip(numbers.lhs_spec[2:], attrs["window_strides"], strict=True):
        strides[axis], counts[axis] = stride, -(-counts[axis] // stride)
    x = sliced(x, [0] * len(counts), counts, strides)
    matrix = reshaped(w, [w.aval.shape[a] for a in sorted((out, into))])
    summed, rank = int(into > out), len(x.aval.shape)
    feature = numbers.lhs_spec[1]
    rest = [a for a in range(rank) if a != feature]
    last = numbers.out_spec[1] == rank - 1
    sides = (x, matrix) if last else (matrix, x)
    contracted = ((feature,), (summed,)) if last else ((summed,), (feature,))
    new = make(
        DOT_GENERAL,
        *sides,
        dimension_numbers=(contracted, ((), ())),
        precision=attrs["precision"] if last or not isinstance(attrs["precision"], tuple) else attrs["precision"][::-1],
        preferred_element_type=attrs["preferred_element_type"],
    )
    # Where each axis of the product belongs: axes of the input by their roles, and the features.
    role = {a: numbers.out_spec[numbers.lhs_spec.index(a)] for a in rest}
    places = [role[a] for a in rest]
    places = [*places, numbers.out_spec[1]] if last else [numbers.out_spec[1], *places]
    order = [places.index(a) for a in range(rank)]
    moved = [a for a in order if new.aval.shape[a] > 1]
    still = next((k for k, (a, b) in enumerate(zip(moved[::-1], sorted(moved)[::-1], strict=True)) if a != b), None)
    # To move single elements of the result costs on some versions of XLA what the product saves; rows do not.
    row = math.prod(new.aval.shape[a] for a in moved[len(moved) - still :]) if still else 1
    return transposed(new, order) if still is None or row >= ROW else None


@rewrites(p.conv_general_dilated_p, safety=REORDERED, law="reduction")
def convolution_of_one_window(node: Node) -> Node | None:
    """conv(x, w) → dot(x, w) where one window is all of x, and the axes of x and w are in one order"""
    x, w = node.inputs
    attrs, numbers = node.attrs, node.attrs["dimension_numbers"]
    (_, feature, *over), (_, into, *space) = numbers.lhs_spec, numbers.rhs_spec
    plain = not any(any(pair) for pair in attrs["padding"]) and attrs["feature_group_count"] == 1
    holes = any(d != 1 for d in (*attrs["lhs_dilation"], *attrs["rhs_dilation"]))
    whole = all(x.aval.shape[a] == w.aval.shape[b] for a, b in zip(over, space, strict=True))
    if not plain or holes or not whole or attrs["batch_group_count"] != 1 or not _one_dtype(node) or not space:
        return None
    pairs = sorted(zip((feature, *over), (into, *space), strict=True))
    if [b for _, b in pairs] != sorted(b for _, b in pairs) or math.prod(w.aval.shape[b] for b in space) == 1:
        return None
    images_first = numbers.out_spec[0] < numbers.out_spec[1]
    summed = [[a for a, _ in pairs], [b for _, b in pairs]]
    precision = attrs["precision"]
    new = make(
        DOT_GENERAL,
        *((x, w) if images_first else (w, x)),
        dimension_numbers=(tuple(map(tuple, summed if images_first else summed[::-1])), ((), ())),
        precision=precision if images_first or not isinstance(precision, tuple) else precision[::-1],
        preferred_element_type=attrs["preferred_element_type"],
    )
    return reshaped(new, node.aval.shape)


RULES: tuple[AnyRule, ...] = (
    convolution_of_points,
    convolution_of_one_window,
    product_over_nothing,
    product_of_transpose,
    product_of_one_matrix_pair,
    product_without_a_sum,
    product_with_one_matrix_for_all,
    product_of_repeated_rows,
    product_with_ones,
    product_with_equal_numbers,
    product_with_one_number,
    transpose_of_product,
    slice_of_product,
)

DECLINED: dict[str, str] = {
    "dot_general": "(x @ y) @ z → x @ (y @ z) belongs to the ordering of contractions; products with identity and "
    "one-hot matrices are not recognized: they are computed from an iota, not written as constants.",
}
