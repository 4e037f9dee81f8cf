"""Data movement in its simplest form: what moves nothing is the operand itself, and a stride of one is not written."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from jax.extend.core import primitives as p
from jax.lax import GatherDimensionNumbers

from graphopt.ir.attrs import Attrs
from graphopt.ir.node import Node, constant, is_comparable
from graphopt.ir.op import CONSTANT, Op, op_of
from graphopt.ops import elementwise
from graphopt.ops.make import BROADCAST, make, with_parameters
from graphopt.rewrite.pattern import splat

MOVES = {"biufco": "exact", "h": "reassociate"}
"""The safety of data movement: every bit stays. But XLA:CPU repeats and pads bfloat16 by way of float32, where some
denormals are flushed, by their place in the array."""

# fmt: off
_ROUNDED_ONCE = frozenset((
    "abs", "add", "and", "ceil", "clamp", "clz", "complex", "conj", "convert_element_type", "eq", "floor", "ge",
    "gt", "imag", "is_finite", "le", "lt", "max", "min", "mul", "ne", "neg", "nextafter", "not", "or",
    "population_count", "real", "reduce_precision", "rem", "round", "select_n", "shift_left", "shift_right_arithmetic",
    "shift_right_logical", "sign", "sqrt", "square", "sub", "xor",
))
# fmt: on
EXACT_OPS = tuple(op for op in elementwise.OPS if op.name in _ROUNDED_ONCE)
"""Operations whose result is the same wherever an element stands."""
FUNCTIONS = tuple(op for op in elementwise.OPS if op.name not in _ROUNDED_ONCE)
"""Functions that XLA approximates, in vectors by another formula than in what is left over at the end of a row.

Division is one of them: XLA multiplies an array by the reciprocal of a scalar, but divides a single number by it.
"""

ROUNDED = {"biu": "exact", "fc": "reassociate"}
"""The safety of moving functions."""

TRANSPOSE, RESHAPE, SQUEEZE, REV = map(op_of, (p.transpose_p, p.reshape_p, p.squeeze_p, p.rev_p))
SLICE, CONCATENATE, PAD, IOTA = map(op_of, (p.slice_p, p.concatenate_p, p.pad_p, p.iota_p))

OF_EACH_ROW = GatherDimensionNumbers(
    offset_dims=(),
    collapsed_slice_dims=(1,),
    start_index_map=(1,),
    operand_batching_dims=(0,),
    start_indices_batching_dims=(0,),
)
"""How elements of each row of a matrix are gathered, by their places in it."""

Shape = tuple[int, ...]
Uses = Callable[[Node], int]
"""How many nodes read a given one."""


def applied(op: Op, attrs: Attrs, *inputs: Node) -> Node:
    """An operation with all its parameters, taken from another node: none is looked up."""
    return with_parameters(op, inputs, attrs)


def transposed(x: Node, permutation: Sequence[int]) -> Node:
    """`x` with its axes in this order."""
    if list(permutation) == list(range(len(permutation))):
        return x
    return make(TRANSPOSE, x, permutation=tuple(permutation))


def reshaped(x: Node, shape: Sequence[int]) -> Node:
    """The elements of `x`, in row-major order, in another shape."""
    shape = tuple(shape)
    if x.aval.shape == shape:
        return x
    if not x.aval.shape:
        return make(BROADCAST, x, shape=shape, broadcast_dimensions=())
    return make(RESHAPE, x, new_sizes=shape, dimensions=None)


def broadcast(x: Node, shape: Sequence[int], dimensions: Sequence[int]) -> Node:
    """`x` repeated: its axis `a` becomes `dimensions[a]` of the result."""
    shape = tuple(shape)
    if x.aval.shape == shape:
        return x
    return make(BROADCAST, x, shape=shape, broadcast_dimensions=tuple(dimensions))


def of_parts(node: Node, shape: Sequence[int], part: Callable[[Node], Node]) -> Node:
    """An elementwise operation of parts of its operands, which have this shape. part: takes it of an array."""
    operands = []
    for n in node.inputs:
        number = uniform(n)
        if number is not None:
            operands.append(broadcast(number, shape, ()))
        else:
            operands.append(part(n) if n.aval.shape else n)
    return applied(node.op, node.attrs, *operands)


def without_axis(x: Node, axis: int, shape: tuple[int, ...]) -> Node | None:
    """An operand of an elementwise operation of this shape, without an axis along which it stays the same."""
    left = [n for k, n in enumerate(shape) if k != axis]
    if not x.aval.shape:
        return broadcast(x, left, ())
    own = [n for k, n in enumerate(x.aval.shape) if k != axis]
    if x.aval.shape[axis] == 1:
        return broadcast(reshaped(x, own), left, range(len(left)))
    if x.op is BROADCAST and len(x.inputs) == 1:
        inner, dimensions = x.inputs[0], x.attrs["broadcast_dimensions"]
        if axis not in dimensions:
            core = broadcast(inner, own, [d - (d > axis) for d in dimensions])
            return broadcast(core, left, range(len(left)))
    return None


def reversed_along(x: Node, axes: Sequence[int]) -> Node:
    """`x` with the order along these axes reversed."""
    axes = tuple(a for a in axes if x.aval.shape[a] > 1)
    return make(REV, x, dimensions=axes) if axes else x


def sliced(x: Node, starts: Sequence[int], counts: Sequence[int], strides: Sequence[int]) -> Node:
    """Of each axis of `x`, `counts` elements from `starts` on, `strides` apart."""
    if tuple(counts) == x.aval.shape:
        return x
    limits = [s + (c - 1) * stride + 1 if c else s for s, c, stride in zip(starts, counts, strides, strict=True)]
    steps = None if all(stride == 1 for stride in strides) else tuple(strides)
    return make(SLICE, x, start_indices=tuple(starts), limit_indices=tuple(limits), strides=steps)


def bounds(node: Node) -> tuple[Shape, Shape, Shape]:
    """Starts, counts and strides of a slice."""
    starts = tuple(map(int, node.attrs["start_indices"]))
    strides = tuple(map(int, node.attrs["strides"] or (1,) * len(starts)))
    return starts, node.aval.shape, strides


def concatenated(operands: Sequence[Node], axis: int) -> Node:
    """These arrays, one after the other along an axis."""
    return operands[0] if len(operands) == 1 else make(CONCATENATE, *operands, dimension=int(axis))


def uniform(x: Node) -> Node | None:
    """The scalar of which an array is made by broadcasting; None where it is not."""
    if x.op is BROADCAST:
        return None if x.inputs[0].aval.shape else x.inputs[0]
    if x.op is CONSTANT and x.aval.shape and is_comparable(x.value):
        value = splat(x)
        return None if value is None else constant(value.reshape(()))
    return None


def integer(x: Node) -> int | None:
    """The value of a constant integer; None for any other node."""
    value = splat(x) if x.op is CONSTANT and not x.aval.shape else None
    return int(value) if value is not None and value.dtype.kind in "iu" else None


def only_expands(x: Node) -> bool:
    """Whether a broadcast adds axes of size one and repeats nothing."""
    inner, dimensions = x.inputs[0].aval.shape, x.attrs["broadcast_dimensions"]
    sizes = dict(zip(dimensions, inner, strict=True))
    return all(sizes.get(axis, 1) == size for axis, size in enumerate(x.aval.shape))


def relabels(x: Node) -> bool:
    """Whether a node gives the same elements in the same (row-major) order another shape."""
    if x.op is RESHAPE:
        return x.attrs["dimensions"] is None and len(x.inputs) == 1
    return x.op is SQUEEZE or (x.op is BROADCAST and only_expands(x))


def without_units(shape: Sequence[int]) -> Shape:
    """A shape without the axes of size one."""
    return tuple(size for size in shape if size != 1)


def axes_kept(before: Shape, after: Shape) -> dict[int, int] | None:
    """From each axis of `before` that is not of size one the axis of `after` that it is; None where the two shapes
    differ by more than axes of size one."""
    if without_units(before) != without_units(after):
        return None
    where = [axis for axis, size in enumerate(after) if size != 1]
    axes = [axis for axis, size in enumerate(before) if size != 1]
    return dict(zip(axes, where, strict=True))


def axes_added_to(before: Shape, after: Shape) -> Shape | None:
    """The axis of `after` that each axis of `before` is, where all others of `after` are of size one; None if not."""
    found: list[int] = []
    for axis, size in enumerate(after):
        if len(found) < len(before) and size == before[len(found)]:
            found.append(axis)
        elif size != 1:
            return None
    return tuple(found) if len(found) == len(before) else None
