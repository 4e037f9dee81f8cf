"""Rules for slices: they move towards the inputs, so that less is computed."""

from __future__ import annotations

from jax.extend.core import primitives as p

from graphopt.ir.node import Node
from graphopt.ir.op import Op
from graphopt.ops.make import make
from graphopt.passes.rules.moving import (
    CONCATENATE,
    EXACT_OPS,
    FUNCTIONS,
    MOVES,
    PAD,
    RESHAPE,
    REV,
    ROUNDED,
    SLICE,
    SQUEEZE,
    Uses,
    axes_kept,
    bounds,
    broadcast,
    concatenated,
    of_parts,
    reshaped,
    reversed_along,
    sliced,
)
from graphopt.rewrite.rule import AnyRule, rewrites


@rewrites(p.slice_p, safety=MOVES, law="identity")
def whole_slice(node: Node) -> Node | None:
    """slice(x) → x where it takes all of x"""
    return node.inputs[0] if node.aval.shape == node.inputs[0].aval.shape else None


@rewrites(p.slice_p, safety=MOVES, law="composition")
def slice_of_slice(node: Node) -> Node | None:
    """slice(slice(x)) → slice(x)"""
    inner = node.inputs[0]
    if inner.op is not SLICE:
        return None
    (outer_starts, counts, outer_strides), (starts, _, strides) = bounds(node), bounds(inner)
    first = [s + o * stride for s, o, stride in zip(starts, outer_starts, strides, strict=True)]
    steps = [a * b if c > 1 else 1 for a, b, c in zip(strides, outer_strides, counts, strict=True)]
    return sliced(inner.inputs[0], [s if c else 0 for s, c in zip(first, counts, strict=True)], counts, steps)


@rewrites(p.slice_p, safety=MOVES, law="movement")
def slice_of_reversal(node: Node, uses: Uses) -> Node | None:
    """slice(rev(x)) → rev(slice(x))"""
    inner = node.inputs[0]
    if inner.op is not REV or uses(inner) > 1:
        return None
    starts, counts, strides = bounds(node)
    axes, shape = inner.attrs["dimensions"], inner.aval.shape
    first = list(starts)
    for axis in axes:
        taken = starts[axis] + max(counts[axis] - 1, 0) * strides[axis]
        first[axis] = shape[axis] - 1 - taken if counts[axis] else 0
    return reversed_along(sliced(inner.inputs[0], first, counts, strides), axes)


@rewrites(p.slice_p, safety=MOVES, law="movement")
def slice_of_reshape(node: Node) -> Node | None:
    """slice(reshape(x)) → reshape(slice(x)) where the reshape only adds or drops axes of size one; so for squeeze"""
    inner = node.inputs[0]
    if (inner.op is not RESHAPE and inner.op is not SQUEEZE) or not node.aval.size or len(inner.inputs) != 1:
        return None
    x = inner.inputs[0]
    places = axes_kept(x.aval.shape, inner.aval.shape)
    if places is None:
        return None
    starts, counts, strides = bounds(node)
    mine = [
        (starts[places[axis]], counts[places[axis]], strides[places[axis]]) if axis in places else (0, 1, 1)
        for axis in range(len(x.aval.shape))
    ]
    return reshaped(sliced(x, *[[part[k] for part in mine] for k in range(3)]), node.aval.shape)


@rewrites(p.slice_p, safety=MOVES, law="movement")
def slice_of_concatenation(node: Node, uses: Uses) -> Node | None:
    """slice(concatenate(x, y)) → slice(x), or a shorter concatenation"""
    inner = node.inputs[0]
    if inner.op is not CONCATENATE or not node.aval.size:
        return None
    axis = inner.attrs["dimension"]
    starts, counts, strides = bounds(node)
    start, count, stride = starts[axis], counts[axis], strides[axis]
    parts: list[Node] = []
    offset = 0
    for x in inner.inputs:
        size = x.aval.shape[axis]
        # Of the `count` elements, those from `low` to `high` lie in this operand.
        low = max(0, -(-(offset - start) // stride))
        high = min(count, -(-(offset + size - start) // stride))
        if low < high:
            first, many = list(starts), list(counts)
            first[axis], many[axis] = start + low * stride - offset, high - low
            parts.append(sliced(x, first, many, strides))
        offset += size
    if len(parts) > 1 and (len(parts) == len(inner.inputs) or uses(inner) > 1):
        return None
    return concatenated(parts, axis)


@rewrites(p.slice_p, safety=MOVES, law="movement")
def slice_of_padding(node: Node, uses: Uses) -> Node | None:
    """slice(pad(x, c)) → slice(x), or broadcast(c), or less padding"""
    inner = node.inputs[0]
    if inner.op is not PAD or not node.aval.size:
        return None
    x, value = inner.inputs
    config, (starts, counts, strides) = inner.attrs["padding_config"], bounds(node)
    parts: list[tuple[int, int, int]] = []
    left: list[tuple[int, int, int]] = []
    for axis, edges in enumerate(config):
        low, high, interior = map(int, edges)
        start, count, stride, size = starts[axis], counts[axis], strides[axis], x.aval.shape[axis]
        if count == inner.aval.shape[axis]:
            parts.append((0, size, 1))
            left.append((low, high, interior))
            continue
        if interior or low < 0 or high < 0 or (stride != 1 and (low or high)):
            return None
        before = min(max(low - start, 0), count)
        after = min(max(start + (count - 1) * stride + 1 - low - size, 0), count)
        if before + after >= count:
            return broadcast(value, node.aval.shape, ())
        parts.append((max(start - low, 0), count - before - after, stride))
        left.append((before, after, 0))
    core = sliced(x, *[[part[k] for part in parts] for k in range(3)])
    if not any(map(any, left)):
        return core
    return None if uses(inner) > 1 else make(PAD, core, value, padding_config=tuple(left))


def _slice_later(node: Node, uses: Uses, of: tuple[Op, ...]) -> Node | None:
    inner = node.inputs[0]
    if inner.op not in of or node.aval.size >= inner.aval.size or uses(inner) > 1:
        return None
    shape, (starts, counts, strides) = inner.aval.shape, bounds(node)
    if inner.effects or inner.context is not None or any(n.aval.shape not in ((), shape) for n in inner.inputs):
        return None
    if not all(n.aval.is_plain for n in inner.inputs):
        return None
    return of_parts(inner, counts, lambda n: sliced(n, starts, counts, strides))


@rewrites(p.slice_p, safety=MOVES, law="movement")
def slice_of_elementwise_operation(node: Node, uses: Uses) -> Node | None:
    """slice(f(x, y)) → f(slice(x), slice(y))"""
    return _slice_later(node, uses, EXACT_OPS)


@rewrites(p.slice_p, safety=ROUNDED, law="movement")
def slice_of_function(node: Node, uses: Uses) -> Node | None:
    """slice(f(x, y)) → f(slice(x), slice(y)), for functions that are approximated"""
    return _slice_later(node, uses, FUNCTIONS)


RULES: tuple[AnyRule, ...] = (
    whole_slice,
    slice_of_slice,
    slice_of_reversal,
    slice_of_reshape,
    slice_of_concatenation,
    slice_of_padding,
    slice_of_elementwise_operation,
    slice_of_function,
)

DECLINED: dict[str, str] = {
    "slice": "a slice of something that is used whole elsewhere stays: it would be computed twice; "
    "slice(reshape(x)) stays where rows are cut at other places than before.",
}
