"""Programs for the rules on sorts and on masks that positions make."""

from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import lax

from .example import Example
from .examples_movement import F, bid, cut, on, rev
from .examples_reduction import dot, reduce

N = 300
"""Elements of a row: enough for selecting to pay."""

M = 40
"""Positions of a mask."""


def sort(*operands: Any, axis: int = 0, number: int = 0, keys: int = 1, stable: bool = True) -> Any:
    return lax.sort(operands, dimension=axis, num_keys=keys, is_stable=stable)[number]


def places(x: Any, axis: int = 0, backwards: bool = False) -> Any:
    """The permutation that sorts `x`, or one that sorts it from the other end."""
    count = lax.broadcasted_iota(np.int32, x.shape, axis)
    return (
        sort(rev(x, axis), rev(count, axis), axis=axis, number=1) if backwards else sort(x, count, axis=axis, number=1)
    )


def first_of_shared(x: Any) -> Any:
    return cut(y := sort(x), (0,), (3,)), y


def one_hot(i: Any, dtype: str) -> Any:
    return (i[..., None] == lax.iota(i.dtype, M)).astype(dtype)


def where(mask: Any, x: Any, y: Any) -> Any:
    return lax.select_n(mask, *[jnp.broadcast_to(jnp.asarray(v, x.dtype), mask.shape) for v in (y, x)])


def chosen(i: Any, x: Any, axis: int = -1) -> Any:
    count = lax.broadcasted_iota(i.dtype, x.shape, axis % x.ndim)
    return reduce("sum", where(jnp.expand_dims(i, axis) == count, x, 0), axis % x.ndim)


def chosen_rows(i: Any, x: Any, axis: int = 0) -> Any:
    """x[i] for each i, along an axis, by a sum over it."""
    shape = (*i.shape, *x.shape)
    count = lax.broadcasted_iota(i.dtype, shape, i.ndim + axis)
    mask = lax.broadcast_in_dim(i, shape, range(i.ndim)) == count
    kept = where(mask, lax.broadcast_in_dim(x, shape, range(i.ndim, len(shape))), 0)
    return reduce("sum", kept, i.ndim + axis)


def triangle(rows: int, columns: int, shift: int, dtype: Any, above: bool = False) -> Any:
    """Ones below a diagonal, or above it, as JAX makes them."""
    shape = rows, columns
    mask = lax.broadcasted_iota(np.int32, shape, 0) + shift >= lax.broadcasted_iota(np.int32, shape, 1)
    if not above:
        return mask.astype(dtype)
    return lax.select_n(mask, jnp.ones(shape, dtype), jnp.zeros(shape, dtype))


def before(x: Any, compare: Any, rows: int = M, shift: int = 0) -> Any:
    """For each row the sum of the elements whose places compare so with it."""
    mask = compare(lax.iota(np.int32, x.shape[0])[None], (lax.iota(np.int32, rows) + np.int32(shift))[:, None])
    return reduce("sum", where(mask, x, 0), 1)


def before_in_each_row(x: Any) -> Any:
    shape = x.shape[0], M, M
    mask = bid(lax.iota(np.int32, M)[None] <= lax.iota(np.int32, M)[:, None], shape, (1, 2))
    return reduce("sum", lax.select_n(mask, jnp.zeros(shape, x.dtype), bid(x, shape, (0, 2))), 2)


def end_and_places(x: Any, start: int, stop: int, axis: int = 0) -> Any:
    """Elements of a sorted array, and where all of them were."""
    values, found = lax.sort((x, lax.broadcasted_iota(np.uint32, x.shape, axis)), dimension=axis, num_keys=1)
    return lax.slice_in_dim(values, start, stop, axis=axis), found


SORTS = {
    "end of a sort with places": (
        on(lambda x: end_and_places(x, N - 5, N), ((N,), F)),
        on(lambda x: end_and_places(x, 1, 6), ((N,), "float16")),
        on(lambda x: end_and_places(x, 0, 4, 1), ((3, N), "int32")),
        on(lambda x: end_and_places(x, N - 3, N - 1), ((N, 2), "int8")),
    ),
    "end of a sort": (
        on(lambda x: cut(sort(x), (0,), (5,)), ((N,), F)),
        on(lambda x: cut(sort(x), (N - 5,), (N,)), ((N,), F)),
        on(lambda x: cut(sort(x), (N - 7,), (N - 1,), (2,)), ((N,), "float16")),
        on(lambda x: cut(sort(x), (1,), (6,), (2,)), ((N,), "bfloat16")),
        on(lambda x: cut(sort(x, stable=False), (0,), (5,)), ((N,), "int32")),
        on(lambda x: cut(sort(x), (N - 1,), (N,)), ((N,), "uint32")),
        on(lambda x: cut(sort(x, axis=1), (0, N - 4), (3, N)), ((3, N), "int8")),
        on(lambda x: cut(sort(x, axis=0), (0, 1), (4, 3)), ((N, 3), "uint8")),
        on(lambda x: cut(sort(x, axis=1), (0, 0, 0), (2, 3, 2)), ((2, N, 2), F)),
        on(lambda x: cut(places(x), (0,), (5,)), ((N,), F)),
        on(lambda x: cut(places(x), (N - 5,), (N,)), ((N,), "int16")),
        on(lambda x: cut(places(x, 1, backwards=True), (0, N - 5), (3, N)), ((3, N), F)),
        on(lambda x, y: cut(sort(x, y, number=1), (0,), (5,)), ((N,), F), ((N,), "bool")),
        on(lambda x, y: cut(sort(x, y, number=1, axis=1), (0, 0), (2, 5)), ((2, N), "int8"), ((2, N), "complex64")),
    ),
    "sort by a permutation": (
        on(lambda x: sort(places(x), lax.iota(np.int32, N), number=1), ((N,), F)),
        on(lambda x: places(places(x, 1), 1), ((3, 7), "int8")),
        on(lambda x: places(rev(places(x), 0)), ((7, 3), F)),
        on(lambda x, y: sort(places(x), y, number=1, stable=False), ((9,), F), ((9,), "complex64")),
        on(lambda x, y: sort(places(x, backwards=True), y), ((9,), F), ((9,), F)),
        on(lambda x: places(places(x)), ((1,), F)),
    ),
}

MASKS = {
    "product with one hot rows": (
        on(lambda i, x: one_hot(i, F) @ x, ((6,), "int8"), ((M, 3), F)),
        on(lambda i, x: one_hot(i, F) @ x, ((2, 3), "int32"), ((M,), F), special=False),
        on(
            lambda i, x: dot(x, one_hot(lax.rem(i, np.uint8(50)), "int32"), ((1,), (1,))),
            ((6,), "uint8"),
            ((3, M), "int32"),
        ),
        on(
            lambda i, x: dot(one_hot(lax.rem(i, np.int32(50)), "complex64"), x, ((1,), (1,))),
            ((4,), "int32"),
            ((2, M, 3), "complex64"),
        ),
        on(
            lambda i, x: one_hot(lax.rem(i, np.int32(50)), "bfloat16") @ x,
            ((4,), "int32"),
            ((M, 3), "bfloat16"),
        ),
    ),
    "sum of one chosen": (
        on(chosen, ((6,), "int8"), ((6, M), F)),
        on(lambda i, x: chosen(lax.rem(i, np.int32(50)), x), ((2, 3), "int32"), ((2, 3, M), F)),
        on(lambda i, x: chosen(lax.rem(i, np.uint8(50)), x), ((6,), "uint8"), ((6, M), "int8")),
        on(lambda i, x: chosen(lax.rem(i, np.int32(50)), x, 0), ((6,), "int32"), ((M, 6), "complex64")),
        on(lambda i, x: chosen(lax.rem(i, np.int32(50)), x, 1), ((2, 6), "int32"), ((2, M, 6), "bfloat16")),
        on(lambda i, x: chosen_rows(lax.rem(i, np.int32(50)), x), ((6,), "int32"), ((M, 3), F)),
        on(lambda i, x: chosen_rows(lax.rem(i, np.int32(50)), x, 1), ((2, 3), "int32"), ((4, M, 3), F)),
        on(lambda i, x: chosen_rows(lax.rem(i, np.int32(50)), x), ((), "int32"), ((M, 3), "complex64")),
    ),
    "product with a triangle of ones": (
        on(lambda x: triangle(M, M, 0, x.dtype) @ x, ((M, 3), F)),
        on(lambda x: triangle(M, M, -2, x.dtype) @ x, ((M,), "int8")),
        on(lambda x: triangle(M, M, 3, x.dtype, above=True) @ x, ((M,), F)),
        on(lambda x: x @ triangle(M, M + 9, 0, x.dtype, above=True), ((2, 3, M), F)),
        on(lambda x: triangle(M + 9, M, 4, x.dtype) @ x, ((M, 2), "complex64")),
        on(lambda x: triangle(M - 5, M, -36, x.dtype) @ x, ((M, 2), "uint32")),
        on(lambda x: jnp.asarray(np.tri(M, M, dtype=F)) @ x, ((M, 3), F)),
        on(lambda x: x @ jnp.asarray(np.tri(M, M + 9, -3, dtype="int8")), ((2, M), "int8")),
        on(lambda x: x @ jnp.asarray(1 - np.tri(M, M, 2, dtype="complex64")), ((2, M), "complex64")),
        on(lambda x: jnp.asarray(1 - np.tri(M - 5, M, -1, dtype=F)) @ x, ((M,), F)),
    ),
    "sum within a triangle": (
        on(lambda x: before(x, lax.le), ((M,), F)),
        on(lambda x: before(x, lax.lt, shift=3), ((M,), F)),
        on(lambda x: before(x, lax.gt, rows=M + 7), ((M,), "int8")),
        on(lambda x: before(x, lax.ge, rows=M - 7, shift=4), ((M,), "complex64")),
        on(before_in_each_row, ((3, M), F)),
    ),
}

SQUARES, COUNT_BUT_ONE = jnp.arange(M) ** 2, jnp.arange(M).at[20].set(0)
LOWER_BUT_ONE = jnp.tril(jnp.ones((M, M), bool)).at[20, 3].set(False)
COUNT, LOWER = jnp.arange(M), jnp.tril(jnp.ones((M, M), bool))
LOWER_BACKWARDS, LOWER_OF_NINE = LOWER[::-1], LOWER[:9, :9]

EYE = jnp.eye(M)


def rows_of(x: Any, i: Any, axis: int = 0, mode: Any = "clip") -> Any:
    numbers = lax.GatherDimensionNumbers(
        offset_dims=(i.ndim * (1 - axis),), collapsed_slice_dims=(axis,), start_index_map=(axis,)
    )
    sizes = (M, 1) if axis else (1, M)
    return lax.gather(x, i[..., None], numbers, sizes, mode=mode)


def eye(dtype: Any = F) -> Any:
    return (lax.broadcasted_iota(np.int32, (M, M), 0) == lax.broadcasted_iota(np.int32, (M, M), 1)).astype(dtype)


CAPTURED = {
    "rows of an identity matrix": (
        on(lambda i: rows_of(eye(), i), ((6,), "int32")),
        on(lambda i: rows_of(eye("int8"), i, 1), ((2, 3), "int8")),
        on(lambda i: rows_of(eye("complex64"), i), ((), "int32")),
        on(lambda i: rows_of(EYE, i), ((0,), "int32")),
        on(lambda i: rows_of(EYE, i, 1, "promise_in_bounds"), ((6,), "int16")),
    ),
    "repeated count": (
        on(lambda x: x + COUNT[:, None], ((M, 3), "int32")),
        on(lambda x: x + COUNT.reshape(M, 1), ((M, 3), "int32")),
        on(lambda x: x + lax.slice(COUNT, (3,), (M,), (2,)), ((19,), "int32")),
        on(lambda x: x * jnp.asarray(np.arange(M) * 3 - 7, "int8")[:, None], ((M, 3), "int8")),
        on(lambda x: x * jnp.asarray(np.arange(M) * 2 + 9, "uint8")[None], ((3, M), "uint8")),
        on(lambda x: x * jnp.asarray(np.arange(M)[::-1].copy())[None], ((3, M), "int32")),
    ),
    "combined count": (
        on(lambda x: where(COUNT < 7, x, 2), ((M,), F)),
        on(lambda x: lax.select(x < COUNT, x, -x), ((M,), "int32")),
        on(lambda x: x[None] - jnp.asarray(np.arange(M)[:, None] * -2 + 90, "int8"), ((3,), "int8")),
        on(lambda x: where(jnp.asarray(np.tile(np.arange(M, dtype="uint32"), (3, 1))) == 5, x, 0), ((3, M), F)),
    ),
    "known triangle": (
        on(lambda x: where(LOWER, x, -np.inf), ((M, M), F)),
        on(lambda x: where(jnp.asarray(np.tri(M + 9, M, -4, bool)), x, 0), ((M + 9, M), F)),
        on(lambda x: where(jnp.asarray(~np.tri(M, M + 9, 4, bool)), x, 0), ((M, M + 9), F)),
        on(lambda x: where(jnp.broadcast_to(LOWER[:, None], x.shape), x, 0), ((2, M, 3, M), F)),
        on(lambda x, y: where(LOWER & y, x, 0), ((M, M), F), ((M, M), "bool")),
        on(lambda x: where(~LOWER, x, 0), ((M, M), F)),
        on(lambda x: where(LOWER[:7, 3:9], x, 0), ((7, 6), F)),
        on(lambda x: where(jnp.asarray(np.ones((M, M), bool)), x, 0), ((M, M), F)),
        on(lambda x: where(jnp.asarray(np.tri(M, M, -M, bool)), x, 0), ((M, M), F)),
    ),
}

EXAMPLES: dict[str, tuple[Example, ...]] = {**SORTS, **MASKS, **CAPTURED}

DECLINING: dict[str, tuple[Example, ...]] = {
    "end of a sort with places": (
        on(lambda x: end_and_places(x, 0, N // 2), ((N,), F)),
        on(lambda x: end_and_places(x, 0, 2), ((9,), F)),
        on(lambda x: cut(sort(x), (0,), (5,)), ((N,), F)),
    ),
    "end of a sort": (
        on(lambda x: cut(sort(x), (0,), (9,)), ((100,), F)),  # a short row
        on(lambda x: cut(sort(x), (0,), (150,)), ((N,), F)),  # half of it
        on(first_of_shared, ((N,), F)),
        on(lambda x: cut(sort(x, axis=1), (0, 0), (3, N)), ((9, N), F)),  # whole rows
        on(lambda x, y: cut(sort(x, y, keys=2), (0,), (5,)), ((N,), F), ((N,), F)),
        on(lambda x, y: cut(sort(x, y, number=1, stable=False), (0,), (5,)), ((N,), F), ((N,), F)),
        on(lambda x: cut(sort(x), (0,), (5,)), ((N,), "float64"), x64=True),
        on(lambda x: cut(sort(x), (0,), (5,)), ((N,), "complex64")),
    ),
    "sort by a permutation": (
        on(lambda x, y: sort(sort(y), x, number=1), ((9,), F), ((9,), "int32")),
        on(lambda x: places(places(x, 0), 1), ((3, 3), F)),
        on(lambda x: places(sort(x, 2 * lax.iota(np.int32, 9), number=1)), ((9,), F)),
    ),
    "product with one hot rows": (
        on(lambda i, x: one_hot(i, F)[:, :9] @ x, ((6,), "int32"), ((9, 3), F)),  # few rows
        on(lambda i, x: one_hot(i, F).T @ x, ((6,), "int32"), ((6, 3), F)),
        on(lambda i, x: (i[:, None] <= lax.iota(i.dtype, M)).astype(F) @ x, ((6,), "int32"), ((M, 3), F)),
        on(lambda i, x: (i == lax.iota(i.dtype, M)).astype(F) @ x, ((M,), "int32"), ((M, 3), F)),
        on(lambda i, x: (i[:, None] == lax.iota(np.uint8, 300)).astype(F) @ x, ((6,), "uint8"), ((300, 3), F)),
    ),
    "product with a triangle of ones": (
        on(lambda x: jnp.asarray(2 * np.tri(M, M, dtype=F)) @ x, ((M, 3), F)),
        on(lambda x: jnp.asarray(np.eye(M, dtype=F)) @ x, ((M, 3), F)),
        on(lambda x: jnp.asarray(np.tri(M, M, dtype=F) - np.eye(M, k=-9, dtype=F)) @ x, ((M, 3), F)),
        on(lambda x: jnp.asarray(np.tri(9, 9, dtype=F)) @ x, ((9, 3), F)),
    ),
    "sum within a triangle": (
        on(lambda x: before(x, lax.le), ((M,), "bfloat16")),
        on(lambda x: before(x, lax.eq), ((M,), F)),
        on(lambda x: before(x, lax.le), ((9,), F)),
    ),
    "rows of an identity matrix": (
        on(lambda i: rows_of(eye(), i, mode="fill"), ((6,), "int32")),
        on(lambda i: rows_of(eye(), i), ((6,), "uint32")),
        on(lambda i: rows_of(2 * EYE, i), ((6,), "int32")),
        on(lambda i: rows_of(EYE[::-1], i), ((6,), "int32")),
    ),
    "repeated count": (
        on(lambda x: x + SQUARES[:, None], ((M, 3), "int32")),
        on(lambda x: x + COUNT_BUT_ONE[:, None], ((M, 3), "int32")),
        on(lambda x: x + jnp.arange(M, dtype=F)[:, None], ((M, 3), F)),
        on(lambda x: x + jnp.asarray(np.arange(256), "int8")[:, None], ((256, 3), "int8")),  # it comes round
        on(lambda x: x + jnp.asarray([3, 4, 5])[:, None], ((3, 2), "int32")),  # read by other rules
        on(lambda x: x + jnp.full((M, 1), 5), ((M, 3), "int32")),
        on(lambda x: x + jnp.asarray(np.arange(M)[::-1].copy(), "uint8")[:, None], ((M, 3), "uint8")),  # no step < 0
    ),
    "combined count": (
        on(lambda x: x + COUNT, ((M,), "int32")),  # as fast to read
        on(lambda x: where(COUNT % 7 < 3, x, 2), ((M,), F)),
    ),
    "known triangle": (
        on(lambda x: where(LOWER_BUT_ONE, x, 0), ((M, M), F)),
        on(lambda x: where(LOWER_BACKWARDS, x, 0), ((M, M), F)),
        on(lambda x: where(LOWER_OF_NINE, x, 0), ((9, 9), F)),
        on(lambda x: where(jnp.zeros((0, M), bool), x, 0), ((0, M), F)),
    ),
}
