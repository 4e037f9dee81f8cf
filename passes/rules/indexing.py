"""Rules for slices, updates, gathers and scatters at indices: where the indices are known they are plain slices."""

from __future__ import annotations

import numpy as np
from jax.extend.core import primitives as p
from jax.lax import GatherScatterMode

from graphopt.ir.attrs import EMPTY
from graphopt.ir.node import Node, is_comparable
from graphopt.ir.op import CONSTANT, Op, op_of
from graphopt.ops.make import full, make, scalar
from graphopt.passes.rules.moving import (
    EXACT_OPS,
    FUNCTIONS,
    MOVES,
    PAD,
    ROUNDED,
    Uses,
    applied,
    broadcast,
    integer,
    of_parts,
    reshaped,
    reversed_along,
    sliced,
    uniform,
)
from graphopt.rewrite.pattern import splat
from graphopt.rewrite.rule import AnyRule, rewrites

DYNAMIC_SLICE, DYNAMIC_UPDATE_SLICE = map(op_of, (p.dynamic_slice_p, p.dynamic_update_slice_p))
ADD, SELECT = map(op_of, (p.add_p, p.select_n_p))

GATHERED = 8
"""How many elements are computed in the time in which one is gathered."""

_BIT_EXACT_ON_NUMBERS = {"biu": "exact", "fc": "reassociate"}


@rewrites(p.dynamic_slice_p, safety=MOVES, law="reduction")
def dynamic_slice_at_a_constant(node: Node) -> Node | None:
    """dynamic_slice(x, constant) → slice(x), at the start that fits into x"""
    x, *starts = node.inputs
    shape, counts = x.aval.shape, node.aval.shape
    if len(starts) != len(shape):
        return None
    if shape == counts:
        return x
    known = [0 if n == m else integer(s) for s, n, m in zip(starts, shape, counts, strict=True)]
    if any(start is None for start in known):
        return None
    first = [min(max(start or 0, 0), n - m) for start, n, m in zip(known, shape, counts, strict=True)]
    return sliced(x, first, counts, [1] * len(shape))


@rewrites(p.dynamic_slice_p, p.dynamic_update_slice_p, safety=MOVES, law="reduction")
def start_on_a_whole_axis(node: Node) -> Node | None:
    """dynamic_slice(x, i, j) → dynamic_slice(x, i, 0) where the second axis is taken whole; so for an update"""
    if node.op is DYNAMIC_SLICE:
        sizes, first = node.aval.shape, 1
    else:
        sizes, first = node.inputs[1].aval.shape, 2
    starts = node.inputs[first:]
    if len(starts) != len(sizes):
        return None
    zeros = [
        scalar(0, start.aval.dtype) if n == m and integer(start) != 0 else start
        for start, n, m in zip(starts, node.inputs[0].aval.shape, sizes, strict=True)
    ]
    return None if zeros == list(starts) else applied(node.op, node.attrs, *node.inputs[:first], *zeros)


@rewrites(p.dynamic_slice_p, safety=MOVES, law="inverse")
def dynamic_slice_of_its_update(node: Node) -> Node | None:
    """dynamic_slice(dynamic_update_slice(x, y, i), i) → y"""
    inner = node.inputs[0]
    if inner.op is not DYNAMIC_UPDATE_SLICE or inner.inputs[2:] != node.inputs[1:]:
        return None
    update = inner.inputs[1]
    return update if update.aval.shape == node.aval.shape else None


@rewrites(p.dynamic_update_slice_p, safety=MOVES, law="absorption")
def update_of_everything(node: Node) -> Node | None:
    """dynamic_update_slice(x, y, i) → y where y has the shape of x; x where y is empty, or both are the same number"""
    x, update = node.inputs[:2]
    if x.aval.shape == update.aval.shape:
        return update
    if not update.aval.size:
        return x
    value = uniform(x)
    return x if value is not None and value is (uniform(update) if update.aval.shape else update) else None


@rewrites(p.dynamic_update_slice_p, safety=MOVES, law="inverse")
def update_by_what_was_there(node: Node) -> Node | None:
    """dynamic_update_slice(x, dynamic_slice(x, i), i) → x"""
    x, update = node.inputs[:2]
    if update.op is not DYNAMIC_SLICE or update.inputs[0] is not x:
        return None
    return x if update.inputs[1:] == node.inputs[2:] else None


@rewrites(p.dynamic_update_slice_p, safety=MOVES, law="absorption")
def update_of_an_update(node: Node, uses: Uses) -> Node | None:
    """dynamic_update_slice(dynamic_update_slice(x, y, i), z, i) → dynamic_update_slice(x, z, i)"""
    inner, update = node.inputs[:2]
    if inner.op is not DYNAMIC_UPDATE_SLICE or inner.inputs[2:] != node.inputs[2:]:
        return None
    if uses(inner) > 1:  # then it is there, to be written over, where x would have to be copied again
        return None
    if inner.inputs[1].aval.shape != update.aval.shape:
        return None
    return applied(node.op, node.attrs, inner.inputs[0], *node.inputs[1:])


def _known_indices(indices: Node) -> np.ndarray | None:
    """Constant indices, one row for each place."""
    value = uniform(indices)
    if value is not None:
        number = integer(value)
        return None if number is None else np.full(indices.aval.shape, number, np.int64)
    if indices.op is not CONSTANT or not is_comparable(indices.value):
        return None
    return np.asarray(indices.value).astype(np.int64)


def _place(
    index: np.ndarray, axes: tuple[int, ...], shape: tuple[int, ...], sizes: tuple[int, ...]
) -> list[int] | None:
    """Where a window of these sizes starts in an array of this shape; None where it does not lie within."""
    starts = [0] * len(shape)
    for axis, start in zip(axes, index.reshape(-1), strict=True):
        starts[axis] = int(start)
    inside = all(0 <= s <= n - m for s, n, m in zip(starts, shape, sizes, strict=True))
    return starts if inside else None


@rewrites(p.gather_p, safety=MOVES, law="reduction")
def gather_of_one_window(node: Node) -> Node | None:
    """gather(x, constant) → slice(x) where one window is taken"""
    x, indices = node.inputs
    numbers = node.attrs["dimension_numbers"]
    if numbers.operand_batching_dims or indices.aval.size != len(numbers.start_index_map) or not x.aval.size:
        return None
    known, sizes = _known_indices(indices), tuple(map(int, node.attrs["slice_sizes"]))
    if known is None:
        return None
    starts = _place(known, numbers.start_index_map, x.aval.shape, sizes)
    if starts is None or not node.aval.size:
        return None
    return reshaped(sliced(x, starts, sizes, [1] * len(sizes)), node.aval.shape)


@rewrites(p.gather_p, safety=MOVES, law="reduction")
def gather_of_evenly_spaced_rows(node: Node) -> Node | None:
    """gather(x, constants) → slice(x), or rev(slice(x)), where the indices along one axis are evenly spaced"""
    x, indices = node.inputs
    numbers, shape = node.attrs["dimension_numbers"], x.aval.shape
    if len(numbers.start_index_map) != 1 or len(indices.aval.shape) != 2 or numbers.operand_batching_dims:
        return None
    axis, count = numbers.start_index_map[0], indices.aval.shape[0]
    rest = tuple(d for d in range(len(shape)) if d != axis)
    sizes = tuple(1 if d == axis else n for d, n in enumerate(shape))
    if tuple(numbers.collapsed_slice_dims) != (axis,) or tuple(numbers.offset_dims) != rest or count < 2:
        return None
    known = _known_indices(indices)
    if known is None or tuple(node.attrs["slice_sizes"]) != sizes or known.min() < 0 or known.max() >= shape[axis]:
        return None
    steps = set(np.diff(known[:, 0]).tolist())
    step = steps.pop()
    if steps or step == 0:
        return None
    starts, strides = [0] * len(shape), [1] * len(shape)
    starts[axis], strides[axis] = int(known.min()), abs(step)
    core = sliced(x, starts, node.aval.shape, strides)
    return core if step > 0 else reversed_along(core, [axis])


@rewrites(p.gather_p, safety=MOVES, law="movement")
def gather_of_broadcast(node: Node) -> Node | None:
    """gather(broadcast(c), i) → broadcast(c) where every index is taken to be within"""
    value = uniform(node.inputs[0])
    inside = node.attrs["mode"] in (GatherScatterMode.CLIP, GatherScatterMode.PROMISE_IN_BOUNDS)
    return broadcast(value, node.aval.shape, ()) if inside and value is not None else None


def _gather_earlier(node: Node, uses: Uses, of: tuple[Op, ...]) -> Node | None:
    inner, indices = node.inputs
    if inner.op not in of or node.aval.size >= inner.aval.size or uses(inner) > 1:
        return None
    shape = inner.aval.shape
    if inner.effects or inner.context is not None or not all(n.aval.is_plain for n in inner.inputs):
        return None
    if any(len(n.aval.shape) not in (0, len(shape)) for n in inner.inputs):
        return None
    arrays = sum(bool(n.aval.shape) and uniform(n) is None for n in inner.inputs)
    if (arrays - 1) * GATHERED * node.aval.size > inner.aval.size:
        return None
    fills = node.attrs["mode"] == GatherScatterMode.FILL_OR_DROP
    attrs = node.attrs.replace(fill_value=None)
    if fills:
        attrs = attrs.replace(mode=GatherScatterMode.CLIP)

    def part(n: Node) -> Node:
        return applied(node.op, attrs, broadcast(n, shape, range(len(shape))), indices)

    found = of_parts(inner, node.aval.shape, part)
    return _where_inside(node, found) if fills else found


def _where_inside(node: Node, found: Node) -> Node:
    """What is found where the indices of a gather are within its operand, and elsewhere what it is filled with."""
    x, indices = node.inputs
    everywhere = broadcast(scalar(True, np.bool_), x.aval.shape, ())
    inside = applied(node.op, node.attrs.replace(fill_value=False), everywhere, indices)
    filled = full(np.asarray(node.attrs["fill_value"]).astype(node.aval.dtype).item(), node.aval)
    return make(SELECT, inside, filled, found)


@rewrites(p.gather_p, safety=MOVES, law="movement")
def gather_of_elementwise_operation(node: Node, uses: Uses) -> Node | None:
    """gather(f(x, y), i) → f(gather(x, i), gather(y, i)), and where(inside, ..., filled) where it fills"""
    return _gather_earlier(node, uses, EXACT_OPS)


@rewrites(p.gather_p, safety=ROUNDED, law="movement")
def gather_of_function(node: Node, uses: Uses) -> Node | None:
    """gather(f(x, y), i) → f(gather(x, i), gather(y, i)), for functions that are approximated; as above"""
    return _gather_earlier(node, uses, FUNCTIONS)


@rewrites(p.scatter_p, p.scatter_add_p, p.scatter_mul_p, p.scatter_min_p, p.scatter_max_p, safety=MOVES, law="identity")
def scatter_of_nothing(node: Node) -> Node | None:
    """scatter(x, i, empty) → x"""
    return None if node.inputs[2].aval.size else node.inputs[0]


@rewrites(p.scatter_add_p, p.scatter_mul_p, safety=_BIT_EXACT_ON_NUMBERS, law="identity")
def scatter_of_the_neutral_element(node: Node) -> Node | None:
    """scatter_add(x, i, 0) → x; scatter_mul(x, i, 1) → x"""
    update = node.inputs[2]
    value = uniform(update) if update.aval.shape else update
    found = None if value is None else splat(value)
    neutral = 0 if node.op.name == "scatter-add" else 1
    return node.inputs[0] if found is not None and bool(found == neutral) else None


@rewrites(p.scatter_add_p, safety=_BIT_EXACT_ON_NUMBERS, law="reduction", an_operand=[PAD])
def scatter_of_a_padded_update(node: Node) -> Node | None:
    """scatter_add(x, i, pad(y, 0)) → scatter_add(x, slice(i), y) where the padded axes are those of the indices"""
    x, indices, update = node.inputs
    if update.op is not PAD or splat(update.inputs[1]) != 0 or not update.inputs[0].aval.size:
        return None
    config = update.attrs["padding_config"]
    windows = node.attrs["dimension_numbers"].update_window_dims
    if any(any(edges) for axis, edges in enumerate(config) if axis in windows) or any(min(e) < 0 for e in config):
        return None
    rest = [edges for axis, edges in enumerate(config) if axis not in windows]
    core = update.inputs[0]
    counts = [n for axis, n in enumerate(core.aval.shape) if axis not in windows]
    starts, strides = [low for low, _, _ in rest], [inside + 1 for _, _, inside in rest]
    taken = sliced(indices, [*starts, 0], [*counts, indices.aval.shape[-1]], [*strides, 1])
    return applied(node.op, node.attrs, x, taken, core)


@rewrites(p.scatter_p, p.scatter_add_p, safety={"biufc": "exact"}, law="reduction")
def scatter_of_one_window(node: Node) -> Node | None:
    """scatter(x, constant, y) → dynamic_update_slice(x, y); scatter_add adds the slice that was there"""
    x, indices, update = node.inputs
    numbers = node.attrs["dimension_numbers"]
    axes = tuple(numbers.scatter_dims_to_operand_dims)
    adds = node.op.name == "scatter-add"
    if numbers.operand_batching_dims or indices.aval.size != len(axes) or not update.aval.size:
        return None
    if not adds and node.attrs["update_jaxpr"] is not None:
        return None
    known = _known_indices(indices)
    if known is None:
        return None
    window = iter(update.aval.shape[d] for d in numbers.update_window_dims)
    sizes = tuple(1 if d in numbers.inserted_window_dims else next(window) for d in range(len(x.aval.shape)))
    starts = _place(known, axes, x.aval.shape, sizes)
    if starts is None:
        return None
    part = reshaped(update, sizes)
    if adds:
        part = make(ADD, sliced(x, starts, sizes, [1] * len(sizes)), part)
    return applied(DYNAMIC_UPDATE_SLICE, EMPTY, x, part, *[scalar(start, np.int32) for start in starts])


RULES: tuple[AnyRule, ...] = (
    dynamic_slice_of_its_update,
    dynamic_slice_at_a_constant,
    update_of_everything,
    update_by_what_was_there,
    update_of_an_update,
    start_on_a_whole_axis,
    gather_of_one_window,
    gather_of_evenly_spaced_rows,
    gather_of_broadcast,
    gather_of_elementwise_operation,
    gather_of_function,
    scatter_of_nothing,
    scatter_of_the_neutral_element,
    scatter_of_a_padded_update,
    scatter_of_one_window,
)

_INDICES = "with indices that are not known, nor evenly spaced, it stays: a program would be needed for each index."

DECLINED: dict[str, str] = {
    "dynamic_slice": "dynamic_slice(f(x)) → f(dynamic_slice(x)) holds, and is left to XLA's fusion: in a loop f(x) may "
    "be computed once and sliced often.",
    "dynamic_update_slice": "an update at a constant stays an update: as a concatenation it could not be done in "
    "place.",
    "gather": _INDICES,
    "scatter": _INDICES,
    "scatter-add": _INDICES,
    "scatter-mul": _INDICES,
    "scatter-min": _INDICES,
    "scatter-max": _INDICES,
}
