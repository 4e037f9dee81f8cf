"""Operations that move data and compute nothing."""

from __future__ import annotations

from typing import Any

import numpy as np
from jax.extend.core import primitives as p

from graphopt.ir.attrs import Attrs
from graphopt.ir.op import Op, register

Array = np.ndarray[Any, Any]


def _broadcast_in_dim(attrs: Attrs, x: Array, *dynamic_shape: Array) -> Any:
    shape, dimensions = attrs["shape"], attrs["broadcast_dimensions"]
    if dynamic_shape or not all(isinstance(d, int) for d in shape):
        return NotImplemented
    expanded = [1] * len(shape)
    for axis, dimension in enumerate(dimensions):
        expanded[dimension] = x.shape[axis]
    return np.broadcast_to(x.reshape(expanded), shape)


def _reshape(attrs: Attrs, x: Array, *dynamic_shape: Array) -> Any:
    return NotImplemented if dynamic_shape or attrs["dimensions"] is not None else x.reshape(attrs["new_sizes"])


def _squeeze(attrs: Attrs, x: Array) -> Array:
    return x.squeeze(tuple(attrs["dimensions"]))


def _transpose(attrs: Attrs, x: Array) -> Array:
    return x.transpose(attrs["permutation"])


def _slice(attrs: Attrs, x: Array) -> Array:
    strides = attrs["strides"] or (1,) * x.ndim
    return x[tuple(map(slice, attrs["start_indices"], attrs["limit_indices"], strides))]


def _concatenate(attrs: Attrs, *operands: Array) -> Array:
    return np.concatenate(operands, axis=attrs["dimension"])


def _rev(attrs: Attrs, x: Array) -> Array:
    return np.flip(x, attrs["dimensions"])


def _zero_flops(attrs: Attrs, ins: Any, outs: Any) -> int:
    return 0


OPS = tuple(
    register(Op(primitive.name, primitive, flops=_zero_flops, fold=fold))
    for primitive, fold in (
        (p.broadcast_in_dim_p, _broadcast_in_dim),
        (p.reshape_p, _reshape),
        (p.squeeze_p, _squeeze),
        (p.transpose_p, _transpose),
        (p.slice_p, _slice),
        (p.concatenate_p, _concatenate),
        (p.rev_p, _rev),
        (p.iota_p, None),
        (p.pad_p, None),
        (p.copy_p, None),
        (p.bitcast_convert_type_p, None),
        (p.gather_p, None),
        (p.dynamic_slice_p, None),
        (p.dynamic_update_slice_p, None),
        (p.stop_gradient_p if hasattr(p, "stop_gradient_p") else None, None),
    )
    if primitive is not None and isinstance(primitive, type(p.copy_p))
)
