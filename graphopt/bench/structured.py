"""Cases of operations that look beyond one position: reductions, windows, contractions, indexing, data movement."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import lax

from graphopt.bench.operation import Operand, Operation, square, vectors

WIDTH = 16
"""Elements of a row of a table that is indexed, and channels of an image."""


def table(*, updates: bool) -> Callable[[int], tuple[Operand, ...]]:
    """A table of rows, indices of as many of them, drawn with repetition, and for `updates` a row for each index."""

    def operands(n: int) -> tuple[Operand, ...]:
        rows = max(n // WIDTH, 1)
        data, indices = Operand((rows, WIDTH)), Operand((rows,), "int32", 0, rows)
        return (data, indices, Operand((rows, WIDTH), "float32", 0.99, 1.01)) if updates else (data, indices)

    return operands


def part(*, update: bool) -> Callable[[int], tuple[Operand, ...]]:
    """A square matrix, where a half of its rows starts, and for `update` those rows."""

    def operands(n: int) -> tuple[Operand, ...]:
        side = math.isqrt(n)
        matrix, start = Operand((side, side)), Operand((), "int32", 0, side - side // 2 + 1)
        return (matrix, start, Operand((side // 2, side))) if update else (matrix, start)

    return operands


def image(n: int) -> tuple[Operand, ...]:
    """A square image of WIDTH channels, and a filter of 3 by 3 pixels to as many channels."""
    side = math.isqrt(max(n // WIDTH, 9))
    return Operand((1, side, side, WIDTH)), Operand((3, 3, WIDTH, WIDTH))


def _reduction(name: str, function: Callable[..., Any], low: float, high: float, numpy: Any, dtype: str) -> Operation:
    return Operation(name, lambda x: function(x, (1,)), square(low, high, dtype), lambda x: numpy(x, axis=1))


def _argument(name: str, function: Callable[..., Any], numpy: Any) -> Operation:
    return Operation(name, lambda x: function(x, 1, np.int32), square(), lambda x: numpy(x, axis=1).astype(np.int32))


def _cumulative(name: str, function: Callable[..., Any], low: float, high: float, numpy: Any) -> Operation:
    return Operation(name, lambda x: function(x, axis=1), square(low, high), lambda x: numpy(x, axis=1))


def _scatter(name: str, method: str, numpy: Any) -> Operation:
    def combined(x: Any, indices: Any, updates: Any) -> Any:
        x = x.copy()
        numpy.at(x, indices, updates)
        return x

    return Operation(
        name,
        lambda x, indices, updates: getattr(x.at[indices], method)(updates),
        table(updates=True),
        combined,
    )


def _pooling(name: str, start: float, function: Callable[..., Any], numpy: Any) -> Operation:
    """Windows of 2 by 2 that do not overlap."""

    def pooled(x: Any) -> Any:
        half = len(x) // 2
        return numpy(x[: 2 * half, : 2 * half].reshape(half, 2, half, 2), axis=(1, 3))

    return Operation(name, lambda x: lax.reduce_window(x, start, function, (2, 2), (2, 2), "VALID"), square(), pooled)


REDUCTIONS = (
    _reduction("reduce_sum", lax.reduce_sum, -1, 1, np.sum, "float32"),
    _reduction("reduce_prod", lax.reduce_prod, 0.99, 1.01, np.prod, "float32"),
    _reduction("reduce_max", lax.reduce_max, -1, 1, np.max, "float32"),
    _reduction("reduce_min", lax.reduce_min, -1, 1, np.min, "float32"),
    _reduction("reduce_and", lax.reduce_and, -(2**31), 2**31, np.bitwise_and.reduce, "int32"),
    _reduction("reduce_or", lax.reduce_or, -(2**31), 2**31, np.bitwise_or.reduce, "int32"),
    _reduction("reduce_xor", lax.reduce_xor, -(2**31), 2**31, np.bitwise_xor.reduce, "int32"),
    _argument("argmax", lax.argmax, np.argmax),
    _argument("argmin", lax.argmin, np.argmin),
    _cumulative("cumsum", lax.cumsum, -1, 1, np.cumsum),
    _cumulative("cumprod", lax.cumprod, 0.99, 1.01, np.cumprod),
    _cumulative("cummax", lax.cummax, -1, 1, np.maximum.accumulate),
    _cumulative("cummin", lax.cummin, -1, 1, np.minimum.accumulate),
    _cumulative("cumlogsumexp", lax.cumlogsumexp, -1, 1, np.logaddexp.accumulate),
    _pooling("reduce_window_sum", 0.0, lax.add, np.sum),
    _pooling("reduce_window_max", -math.inf, lax.max, np.max),
    _pooling("reduce_window_min", math.inf, lax.min, np.min),
    Operation("sort", lambda x: lax.sort(x, dimension=1), square(), lambda x: np.sort(x, axis=1)),
)

CONTRACTIONS = (
    Operation(
        "dot_general",
        lambda x, y: lax.dot(x, y),
        lambda n: (Operand((math.isqrt(n),) * 2), Operand((math.isqrt(n),) * 2)),
        np.matmul,
    ),
    Operation(
        "conv_general_dilated",
        lambda x, kernel: lax.conv_general_dilated(
            x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        ),
        image,
    ),
)


def _written(x: Any, start: Any, rows: Any) -> Any:
    x = x.copy()
    x[int(start) : int(start) + len(rows)] = rows
    return x


INDEXING = (
    Operation("gather", lambda x, indices: x[indices], table(updates=False), lambda x, indices: x[indices]),
    _scatter("scatter-add", "add", np.add),
    _scatter("scatter-mul", "multiply", np.multiply),
    _scatter("scatter-min", "min", np.minimum),
    _scatter("scatter-max", "max", np.maximum),
    Operation(
        "dynamic_slice",
        lambda x, start: lax.dynamic_slice_in_dim(x, start, len(x) // 2),
        part(update=False),
        lambda x, start: x[int(start) : int(start) + len(x) // 2].copy(),
    ),
    Operation(
        "dynamic_update_slice",
        lambda x, start, rows: lax.dynamic_update_slice_in_dim(x, rows, start, 0),
        part(update=True),
        _written,
    ),
)

MOVEMENT = (
    Operation(
        "broadcast_in_dim",
        lambda x: lax.broadcast_in_dim(x, (len(x), len(x)), (1,)),
        lambda n: (Operand((math.isqrt(n),)),),
        lambda x: np.broadcast_to(x, (len(x), len(x))).copy(),
    ),
    Operation("reshape", lambda x: lax.reshape(x, (x.size,)), square(), lambda x: x.reshape(-1).copy()),
    Operation(
        "squeeze", lambda x: lax.squeeze(x, (0,)), lambda n: (Operand((1, n)),), lambda x: x.squeeze(axis=0).copy()
    ),
    Operation("transpose", lambda x: lax.transpose(x, (1, 0)), square(), lambda x: x.T.copy()),
    Operation(
        "slice",
        lambda x: lax.slice(x, (1, 1), (len(x) - 1, len(x) - 1)),
        square(),
        lambda x: x[1:-1, 1:-1].copy(),
    ),
    Operation(
        "concatenate",
        lambda x, y: lax.concatenate([x, y], 1),
        lambda n: (Operand((math.isqrt(n), math.isqrt(n) // 2)),) * 2,
        lambda x, y: np.concatenate([x, y], axis=1),
    ),
    Operation("rev", lambda x: lax.rev(x, (1,)), square(), lambda x: x[:, ::-1].copy()),
    Operation("pad", lambda x: lax.pad(x, 0.0, ((1, 1, 0), (1, 1, 0))), square(), lambda x: np.pad(x, 1)),
    Operation("copy", lambda x: jnp.array(x, copy=True), vectors((-1, 1)), np.copy),
    Operation("iota", lambda n: lax.iota(jnp.int32, n), lambda n: (), lambda n: np.arange(n, dtype=np.int32)),
)

STRUCTURED = (*REDUCTIONS, *CONTRACTIONS, *INDEXING, *MOVEMENT)
