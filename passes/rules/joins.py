"""Rules for concatenations and padding."""

from __future__ import annotations

from jax.extend.core import primitives as p

from graphopt.ir.node import Node
from graphopt.ops.make import make
from graphopt.passes.rules.moving import CONCATENATE, MOVES, PAD, SLICE, bounds, broadcast, concatenated, sliced
from graphopt.rewrite.rule import AnyRule, rewrites


@rewrites(p.concatenate_p, safety=MOVES, law="identity")
def concatenation_with_nothing(node: Node) -> Node | None:
    """concatenate(x, empty) → x; concatenate(x) → x"""
    axis = node.attrs["dimension"]
    kept = [n for n in node.inputs if n.aval.shape[axis]] or [node.inputs[0]]
    return concatenated(kept, axis) if len(kept) < len(node.inputs) or len(kept) == 1 else None


@rewrites(p.concatenate_p, safety=MOVES, law="composition")
def concatenation_of_concatenations(node: Node) -> Node | None:
    """concatenate(concatenate(x, y), z) → concatenate(x, y, z)"""
    axis = node.attrs["dimension"]
    nested = [n.op is CONCATENATE and n.attrs["dimension"] == axis for n in node.inputs]
    if not any(nested):
        return None
    parts = [m for n, is_nested in zip(node.inputs, nested, strict=True) for m in (n.inputs if is_nested else (n,))]
    return concatenated(parts, axis)


@rewrites(p.concatenate_p, safety=MOVES, law="inverse")
def concatenation_of_adjacent_slices(node: Node) -> Node | None:
    """concatenate(x[a:b], x[b:c]) → x[a:c]"""
    axis = node.attrs["dimension"]
    parts = [node.inputs[0]]
    for n in node.inputs[1:]:
        joined = _adjacent(parts[-1], n, axis)
        if joined is None:
            parts.append(n)
        else:
            parts[-1] = joined
    return concatenated(parts, axis) if len(parts) < len(node.inputs) else None


def _adjacent(a: Node, b: Node, axis: int) -> Node | None:
    """The slice that is `a` followed by `b`, both slices of one array."""
    if a.op is not SLICE or b.op is not SLICE or a.inputs != b.inputs:
        return None
    (starts, counts, strides), (next_starts, next_counts, next_strides) = bounds(a), bounds(b)
    steps = list(strides)
    for k, (count, next_count) in enumerate(zip(counts, next_counts, strict=True)):
        if k != axis and (starts[k], count, strides[k]) != (next_starts[k], next_count, next_strides[k]):
            return None
    # Of one element the stride says nothing.
    step = strides[axis] if counts[axis] > 1 else next_starts[axis] - starts[axis]
    if counts[axis] < 1 or next_counts[axis] < 1 or step < 1:
        return None
    if next_starts[axis] != starts[axis] + counts[axis] * step or (
        next_counts[axis] > 1 and next_strides[axis] != step
    ):
        return None
    steps[axis] = step
    total = list(counts)
    total[axis] += next_counts[axis]
    return sliced(a.inputs[0], starts, total, steps)


@rewrites(p.pad_p, safety=MOVES, law="identity")
def padding_with_nothing(node: Node) -> Node | None:
    """pad(x, c) → x where nothing is added; broadcast(c) where x is empty"""
    x, value = node.inputs
    config = [tuple(map(int, edges)) for edges in node.attrs["padding_config"]]
    if all(
        not low and not high and (not interior or n < 2)
        for (low, high, interior), n in zip(config, x.aval.shape, strict=True)
    ):
        return x
    return broadcast(value, node.aval.shape, ()) if not x.aval.size else None


@rewrites(p.pad_p, safety=MOVES, law="reduction")
def padding_that_only_cuts(node: Node) -> Node | None:
    """pad(x, c) → slice(x) where the padding is negative"""
    x = node.inputs[0]
    config = [tuple(map(int, edges)) for edges in node.attrs["padding_config"]]
    if not all(low <= 0 and high <= 0 and not interior for low, high, interior in config) or not node.aval.size:
        return None
    return sliced(x, [-low for low, _, _ in config], node.aval.shape, [1] * len(config))


@rewrites(p.pad_p, safety=MOVES, law="composition")
def padding_of_padding(node: Node) -> Node | None:
    """pad(pad(x, c), c) → pad(x, c)"""
    inner, value = node.inputs
    if inner.op is not PAD or inner.inputs[1] is not value:
        return None
    pairs = list(zip(inner.attrs["padding_config"], node.attrs["padding_config"], strict=True))
    if any(outer[2] or (first[2] and min(outer[:2]) < 0) or min(*first[:2], *outer[:2]) < 0 for first, outer in pairs):
        return None
    config = tuple((int(a[0] + b[0]), int(a[1] + b[1]), int(a[2])) for a, b in pairs)
    return make(PAD, inner.inputs[0], value, padding_config=config)


RULES: tuple[AnyRule, ...] = (
    concatenation_with_nothing,
    concatenation_of_concatenations,
    concatenation_of_adjacent_slices,
    padding_with_nothing,
    padding_that_only_cuts,
    padding_of_padding,
)

DECLINED: dict[str, str] = {
    "concatenate": "concatenate(f(x), f(y)) → f(concatenate(x, y)) computes as many elements and keeps the parts from "
    "being read where they are; concatenate(x, constant) and pad stay as they are written.",
    "pad": "padding between elements and cutting at once is merged with nothing: it is too rare to be worth its cases.",
}
