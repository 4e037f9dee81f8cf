"""Programs for the rules on reductions, contractions and indexing."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.extend.core import primitives as p

from .example import Example
from .examples_movement import F, bid, cut, on, pad, reshape, rev, transpose


def reduce(name: str, x: Any, *axes: int) -> Any:
    return {
        "sum": lax.reduce_sum,
        "prod": lax.reduce_prod,
        "max": lax.reduce_max,
        "min": lax.reduce_min,
        "and": lax.reduce_and,
        "or": lax.reduce_or,
        "xor": lax.reduce_xor,
    }[name](x, axes)


def dot(x: Any, y: Any, summed: Any, batch: Any = ((), ()), dtype: Any = None) -> Any:
    return lax.dot_general(x, y, (summed, batch), preferred_element_type=dtype)


def window(name: str, x: Any, size: tuple[int, ...], strides: tuple[int, ...], padding: Any = None) -> Any:
    ones = (1,) * len(size)
    return getattr(p, f"reduce_window_{name}_p").bind(
        x,
        window_dimensions=size,
        window_strides=strides,
        padding=padding or ((0, 0),) * len(size),
        base_dilation=ones,
        window_dilation=ones,
    )


def reduced_each(names: tuple[str, ...], function: Callable[..., Any], *types: Any, **keywords: Any) -> list[Example]:
    """One example for each reduction of what `function` gives: an array and axes."""

    def program(name: str) -> Callable[..., Any]:
        def run(*args: Any) -> Any:
            x, *axes = function(*args)
            return reduce(name, x, *axes)

        return run

    return [on(program(name), *types, **keywords) for name in names]


EXTREMA = ("max", "min")
BITS = ("and", "or", "xor")

REDUCTIONS = {
    "reduction of nothing": (
        *reduced_each(("sum", "prod", *EXTREMA), lambda x: (x, 0), ((0, 3), F)),
        *reduced_each(("sum", "prod", *EXTREMA, *BITS), lambda x: (x, 1), ((2, 0), "int8")),
        *reduced_each((*EXTREMA, *BITS), lambda x: (x, 0), ((0,), "bool")),
        *reduced_each(("sum", "prod", *EXTREMA, *BITS), lambda x: (x, 0), ((0,), "uint8")),
    ),
    "reduction over one element": (
        *reduced_each(("sum", "prod", *EXTREMA), lambda x: (x, 1), ((3, 1), F)),
        *reduced_each(("sum", *EXTREMA, *BITS), lambda x: (x, 0), ((1,), "int8")),
        *reduced_each(("sum",), lambda x: (x, 0, 1), ((1, 1), "bfloat16")),
        *reduced_each(("max",), lambda x: (x,), ((2, 3), F)),
    ),
    "reduction of reduction": (
        on(lambda x: reduce("sum", reduce("sum", x, 1), 0), ((3, 5), F), special=False),
        on(lambda x: reduce("max", reduce("max", x, 0, 2), 0), ((3, 5, 2), F)),
        on(lambda x: reduce("xor", reduce("xor", x, 1), 1), ((3, 5, 2), "int8")),
        on(lambda x: reduce("sum", reduce("sum", x, 1), 0), ((3, 0), "int8")),
    ),
    "reduction of transpose": (
        *reduced_each(("sum", "prod"), lambda x: (transpose(x, 2, 0, 1), 1), ((3, 5, 2), F), special=False),
        *reduced_each(EXTREMA, lambda x: (transpose(x, 2, 0, 1), 0, 2), ((3, 5, 2), F)),
        *reduced_each(BITS, lambda x: (transpose(x, 1, 0), 0), ((3, 5), "int8")),
    ),
    "reduction of reversal": (
        on(lambda x: reduce("sum", rev(x, 0), 0), ((7, 3), F), special=False),
        on(lambda x: reduce("min", rev(x, 0), 0, 1), ((7, 3), "int8")),
    ),
    "reduction of reshape": (
        on(lambda x: reduce("sum", reshape(x, (6,)), 0), ((2, 3), F), special=False),
        on(lambda x: reduce("max", reshape(x, (1, 7, 1, 3)), 1), ((7, 3), F)),
        on(lambda x: reduce("max", x[:, None], 0), ((7,), "int8")),
        on(lambda x: reduce("sum", lax.squeeze(x, (1,)), 1), ((2, 1, 3), "int8")),
    ),
    "reduction of broadcast": (
        *reduced_each(("sum", *EXTREMA), lambda x: (bid(x, (5, 7), (1,)), 0), ((7,), F)),
        *reduced_each(("sum", "prod", *EXTREMA, *BITS), lambda x: (bid(x, (3, 7), (1,)), 0, 1), ((7,), "int8")),
        *reduced_each(("sum", *BITS), lambda x: (bid(x, (4, 7), (0, 1)), 0), ((1, 7), "uint8")),
        *reduced_each(("and", "or", "xor"), lambda x: (bid(x, (4,), ()), 0), ((), "bool")),
        on(lambda x: reduce("sum", bid(x, (3, 5, 7), (0, 2)), 1, 2), ((3, 7), F), special=False),
        on(lambda x: reduce("sum", bid(x, (300,), ()), 0), ((), "int8")),
    ),
    "reduction of padding": (
        on(lambda x: reduce("sum", pad(x, 0, (1, 2, 1)), 0), ((7,), F), special=False),
        on(lambda x: reduce("max", pad(x, -np.inf, (1, 2, 0), (0, 0, 0)), 0), ((7, 3), F)),
        on(lambda x: reduce("or", pad(x, False, (1, 2, 0)), 0), ((7,), "bool")),
    ),
    "slice of reduction": (
        on(lambda x: cut(reduce("sum", x, 1), (1, 0), (4, 2), (2, 1)), ((5, 7, 3), F), special=False),
        on(lambda x: cut(reduce("max", x, 0), (1,), (3,)), ((5, 7), "int8")),
    ),
    "place among equals": (
        on(lambda x: lax.argmax(x, 1, np.int32), ((3, 1), F)),
        on(lambda x: lax.argmin(bid(x, (3, 5), (0,)), 1, np.int32), ((3,), "int8")),
    ),
    "place in transpose": (
        on(lambda x: lax.argmax(transpose(x, 2, 0, 1), 1, np.int32), ((3, 5, 2), F)),
        on(lambda x: lax.argmin(transpose(x, 1, 0), 0, np.int32), ((3, 5), "int8")),
    ),
    "place of negation": (
        on(lambda x: lax.argmax(-x, 0, np.int32), ((9, 3), F)),
        on(lambda x: lax.argmin(-x, 0, np.int32), ((9,), "bfloat16")),
    ),
}

SCALING = {
    "sum of negations": (
        on(lambda x: reduce("sum", -x, 1), ((3, 5), F), special=False),
        on(lambda x: reduce("sum", -x, 0), ((5,), "int8")),
    ),
    "sum of multiples": (
        on(lambda x: reduce("sum", 3 * x, 1), ((3, 5), F)),
        on(lambda x, y: reduce("sum", x * y, 0), ((5,), "int8"), ((), "int8")),
    ),
    "sum of scaled down": (on(lambda x, y: reduce("sum", x / y, 0), ((5,), F), ((), F)),),
    "extremum of negations": (
        on(lambda x: reduce("max", -x, 1), ((3, 5), F)),
        on(lambda x: reduce("min", -x, 0), ((5,), "bfloat16")),
    ),
    "extremum of scaled and shifted": (
        on(lambda x: reduce("max", 3 * x, 1), ((3, 5), F)),
        on(lambda x: reduce("min", x + 2.5, 0), ((5,), "bfloat16")),
        on(lambda x: reduce("max", 0.1 * x, 0), ((5,), "float16")),
    ),
    "all of complements": (
        on(lambda x: reduce("and", ~x, 0), ((5,), "bool")),
        on(lambda x: reduce("or", ~x, 1), ((3, 5), "int8")),
    ),
}

CUMULATIVE = {
    "cumulation of one element": (
        on(lambda x: lax.cumsum(x, 1), ((3, 1), F)),
        on(lambda x: lax.cummax(x, 0), ((0, 3), "int8")),
    ),
    "cumulation twice": (
        on(lambda x: lax.cummax(lax.cummax(x, 0), 0), ((7,), F)),
        on(lambda x: lax.cummin(lax.cummin(x, 1, reverse=True), 1, reverse=True), ((3, 7), "int8")),
    ),
    "reversal of cumulated reversal": (
        on(lambda x: rev(lax.cumsum(rev(x, 0), 0), 0), ((7, 3), F), special=False),
        on(lambda x: rev(lax.cummax(rev(x, 0, 1), 1, reverse=True), 0, 1), ((3, 7), F)),
        on(lambda x: rev(lax.cumprod(rev(x, 0), 0), 0), ((7,), "int8")),
    ),
    "end of cumulation": (
        on(lambda x: cut(lax.cumsum(x, 1), (0, 6), (3, 7)), ((3, 7), F), special=False),
        on(lambda x: cut(lax.cummax(x, 0, reverse=True), (0, 1), (1, 3)), ((7, 3), F)),
        on(lambda x: cut(lax.cumprod(x, 0), (6,), (7,)), ((7,), "int8")),
    ),
    "cumulation of transpose": (
        on(lambda x: lax.cumsum(transpose(x, 1, 0), 0), ((3, 7), F), special=False),
        on(lambda x: lax.cummin(transpose(x, 2, 0, 1), 1), ((3, 7, 2), "int8")),
    ),
}

WINDOWS = {
    "windows of one element": (
        on(lambda x: window("sum", x, (1, 1), (1, 1)), ((3, 5), F)),
        on(lambda x: window("max", x, (1, 1), (2, 3)), ((3, 5), "int8")),
    ),
    "window over everything": (
        on(lambda x: window("sum", x, (1, 7), (1, 7)), ((3, 7), F), special=False),
        on(lambda x: window("max", x, (3, 7), (2, 1)), ((3, 7), F)),
        on(lambda x: window("min", x, (7,), (1,)), ((7,), "int8")),
    ),
    "windows on padding": (
        on(lambda x: window("sum", pad(x, 0, (1, 2, 0)), (3,), (2,)), ((7,), F), special=False),
        on(lambda x: window("max", pad(x, -np.inf, (1, 2, 0)), (3,), (1,), ((1, 0),)), ((7,), F)),
        on(lambda x: window("min", pad(x, np.inf, (0, 2, 0)), (2,), (1,)), ((7,), "float16")),
    ),
    "convolution of padding": (
        on(
            lambda x, w: lax.conv_general_dilated(pad(x, 0, (0, 0, 0), (0, 0, 0), (1, 2, 0)), w, (2,), "VALID"),
            ((2, 3, 7), F),
            ((4, 3, 3), F),
            special=False,
        ),
        on(
            lambda x, w: lax.conv_general_dilated(
                pad(x, 0, (0, 0, 0), (1, 1, 0), (2, 0, 0), (0, 0, 0)),
                w,
                (1, 1),
                [(1, 1), (0, 1)],
                rhs_dilation=(1, 2),
                dimension_numbers=("NHWC", "HWIO", "NHWC"),
            ),
            ((1, 5, 5, 2), F),
            ((3, 3, 2, 3), F),
            special=False,
        ),
    ),
}

CONTRACTIONS = {
    "convolution of points": (
        on(lambda x, y: lax.conv(x, y, (1, 1), "VALID"), ((1, 3, 4, 5), F), ((6, 3, 1, 1), F), special=False),
        on(
            lambda x, y: lax.conv_general_dilated(
                x, y, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"), precision=("high", "highest")
            ),
            ((2, 4, 5, 3), F),
            ((1, 1, 3, 6), F),
            special=False,
        ),
        on(
            lambda x, y: lax.conv_general_dilated(x, y, (1,), "VALID", dimension_numbers=("CWN", "IOW", "WNC")),
            ((3, 4, 2), F),
            ((3, 5, 1), F),
            special=False,
        ),
        on(lambda x, y: lax.conv(x, y, (1, 1), "VALID"), ((2, 3, 5, 7), F), ((4, 3, 1, 1), F), special=False),
        on(lambda x, y: lax.conv(x, y, (2, 3), "VALID"), ((2, 3, 11, 20), F), ((4, 3, 1, 1), F), special=False),
        on(
            lambda x, y: lax.conv_general_dilated(
                x, y, (2, 3), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"), precision=("high", "highest")
            ),
            ((2, 4, 7, 3), F),
            ((1, 1, 3, 6), F),
            special=False,
        ),
    ),
    "convolution of one window": (
        on(lambda x, y: lax.conv(x, y, (1, 1), "VALID"), ((2, 3, 4, 5), F), ((6, 3, 4, 5), F), special=False),
        on(
            lambda x, y: lax.conv_general_dilated(
                x, y, (2, 3), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC"), precision=("high", "highest")
            ),
            ((2, 4, 5, 3), F),
            ((4, 5, 3, 6), F),
            special=False,
        ),
        on(
            lambda x, y: lax.conv_general_dilated(x, y, (1,), "VALID", dimension_numbers=("CWN", "IWO", "CWN")),
            ((3, 4, 2), F),
            ((3, 4, 5), F),
            special=False,
        ),
        on(lambda x, y: lax.conv(x, y, (1, 1), "VALID"), ((2, 3, 4, 1), "bfloat16"), ((6, 3, 4, 1), "bfloat16")),
    ),
    "product over nothing": (
        on(lambda x, y: dot(x, y, ((1,), (0,))), ((3, 0), F), ((0, 5), F)),
        on(lambda x, y: dot(x, y, ((0,), (0,))), ((0,), "int8"), ((0,), "int8")),
    ),
    "product of transpose": (
        on(lambda x, y: dot(transpose(x, 1, 0), y, ((1,), (0,))), ((5, 3), F), ((5, 2), F), special=False),
        on(lambda x, y: dot(x, transpose(y, 1, 0), ((1,), (0,))), ((3, 5), "int8"), ((2, 5), "int8")),
        on(
            lambda x, y: dot(transpose(x, 1, 2, 0), transpose(y, 0, 2, 1), ((2,), (1,)), ((0,), (0,))),
            ((5, 2, 3), F),
            ((2, 7, 5), F),
            special=False,
        ),
    ),
    "product of one matrix pair": (
        on(lambda x, y: dot(x, y, ((2,), (1,)), ((0,), (0,))), ((1, 3, 5), F), ((1, 5, 2), F), special=False),
        on(lambda x, y: dot(x, y, ((0,), (1,)), ((1,), (0,))), ((5, 1), "int8"), ((1, 5), "int8")),
    ),
    "product without a sum": (
        on(lambda x, y: dot(x, y, ((), ())), ((3,), F), ((5,), F)),
        on(lambda x, y: dot(x, y, ((1,), (0,))), ((3, 1), "int8"), ((1, 5), "int8")),
        on(lambda x, y: dot(x, y, ((), ()), ((0, 1), (0, 1))), ((3, 5), F), ((3, 5, 2), F)),
        on(lambda x, y: dot(x, y, ((0,), (0,))), ((1,), "bfloat16"), ((1,), "bfloat16")),
        on(lambda x, y: dot(x, y, ((), ())), ((0,), F), ((5,), F)),
    ),
    "product with one matrix for all": (
        on(
            lambda x, y: dot(x, bid(y, (2, 5, 7), (1, 2)), ((2,), (1,)), ((0,), (0,))),
            ((2, 3, 5), F),
            ((5, 7), F),
            special=False,
        ),
    ),
    "product of repeated rows": (
        on(lambda x, y: dot(bid(x, (3, 5), (1,)), y, ((1,), (0,))), ((5,), F), ((5, 2), F), special=False),
        on(
            lambda x, y: dot(x, bid(y, (2, 5, 4, 7), (0, 1, 3)), ((2,), (1,)), ((0,), (0,))),
            ((2, 3, 5), "int8"),
            ((2, 5, 7), "int8"),
        ),
    ),
    "product with ones": (
        on(lambda y: dot(bid(jnp.float32(1), (3, 5), ()), y, ((1,), (0,))), ((5, 2), F), special=False),
        on(lambda y: dot(y, bid(np.int8(1), (2, 5), ()), ((1,), (1,)), ((0,), (0,))), ((2, 5, 3), "int8")),
    ),
    "product with equal numbers": (
        on(lambda y: dot(bid(jnp.float32(3), (3, 5), ()), y, ((1,), (0,))), ((5, 2), F)),
        on(lambda x, y: dot(y, bid(x, (5,), ()), ((0,), (0,))), ((), "int8"), ((5, 2), "int8")),
    ),
    "product with one number": (
        on(lambda y: dot(bid(jnp.float32(3), (3, 5), ()), y, ((1,), (0,))), ((5, 2), F), special=False),
        on(
            lambda y: dot(y, bid(jnp.float32(0.5), (4, 5, 3), ()), ((2,), (1,)), ((0,), (0,))),
            ((4, 2, 5), F),
            special=False,
        ),
        on(
            lambda x, y: dot(y, bid(x, (5,), ()), ((0,), (0,))), ((), "complex64"), ((5, 2), "complex64"), special=False
        ),
    ),
    "transpose of product": (
        on(lambda x, y: transpose(dot(x, y, ((1,), (0,))), 1, 0), ((3, 5), F), ((5, 2), F), special=False),
        on(
            lambda x, y: transpose(dot(x, y, ((2,), (1,)), ((0,), (0,))), 0, 2, 1),
            ((4, 3, 5), "int8"),
            ((4, 5, 2), "int8"),
        ),
    ),
    "slice of product": (
        on(lambda x, y: cut(dot(x, y, ((1,), (0,))), (0, 1), (1, 3)), ((3, 5), F), ((5, 4), F), special=False),
        on(
            lambda x, y: cut(dot(x, y, ((2,), (1,)), ((0,), (0,))), (1, 0, 0), (4, 3, 2), (2, 1, 1)),
            ((4, 3, 5), "int8"),
            ((4, 5, 2), "int8"),
        ),
    ),
    "product of negations": (
        on(lambda x, y: dot(-x, -y, ((1,), (0,))), ((3, 5), F), ((5, 2), F), special=False),
        on(lambda x, y: dot(-x, -y, ((1,), (0,))), ((3, 5), "int8"), ((5, 2), "int8")),
    ),
    "product of negation": (
        on(lambda x, y: dot(-x, y, ((1,), (0,))), ((3, 5), F), ((5,), F), special=False),
        on(lambda x, y: dot(x, -y, ((1,), (0,))), ((1, 5), "int8"), ((5, 2), "int8")),
    ),
    "product of multiple": (
        on(lambda x, y: dot(2.5 * x, y, ((1,), (0,))), ((3, 5), F), ((5,), F)),
        on(lambda x, y, c: dot(x, y * c, ((1,), (0,))), ((1, 5), "int8"), ((5, 2), "int8"), ((), "int8")),
    ),
    "multiple of product": (
        on(lambda x, y: 2.5 * dot(x, y, ((1,), (1,))), ((7, 2), F), ((5, 2), F)),
        on(lambda x, y, c: c * dot(x, y, ((), ())), ((3,), "int8"), ((5,), "int8"), ((), "int8")),
    ),
    "sum of products": (
        on(
            lambda c, x, y, z: dot(c * x, y, ((1,), (0,))) - dot(x, z, ((1,), (0,))),
            ((), F),
            ((7, 5), F),
            ((5, 5), F),
            ((5, 5), F),
        ),
        on(
            lambda x, y, z: dot(y, np.int8(3) * x, ((1,), (0,))) + dot(z, x * np.int8(-5), ((1,), (0,))),
            ((5, 7), "int8"),
            ((3, 5), "int8"),
            ((3, 5), "int8"),
        ),
        on(
            lambda x, y, z: dot(2 * x, z, ((1,), (0,))) + dot(3 * y, z, ((1,), (0,))),
            ((3, 5), F),
            ((3, 5), F),
            ((5, 2), F),
        ),
        on(lambda x, y, z: dot(x, y, ((1,), (0,))) + dot(x, z, ((1,), (0,))), ((3, 5), F), ((5, 2), F), ((5, 2), F)),
        on(
            lambda x, y, z: dot(y, x, ((1,), (0,))) - dot(z, x, ((1,), (0,))),
            ((5, 2), "int8"),
            ((3, 5), "int8"),
            ((3, 5), "int8"),
        ),
        on(
            lambda c, x, y, z: dot(x, y, ((1,), (0,))) - c * dot(x, z, ((1,), (0,))),
            ((), F),
            ((7, 5), F),
            ((5, 5), F),
            ((5, 5), F),
        ),
        on(
            lambda c, x, y, z: c * dot(y, x, ((1,), (0,))) + dot(z, x, ((1,), (0,))) * c,
            ((), "int8"),
            ((3, 5), "int8"),
            ((4, 3), "int8"),
            ((4, 3), "int8"),
        ),
    ),
    "sum over matrices": (
        on(
            lambda x, y: reduce("sum", dot(x, y, ((2,), (1,)), ((0,), (0,))), 0),
            ((4, 3, 5), F),
            ((4, 5, 2), F),
            special=False,
        ),
    ),
    "sum of rows of a product": (
        on(lambda x, y: reduce("sum", dot(x, y, ((1,), (0,))), 0), ((3, 5), F), ((5, 2), F)),
        on(
            lambda x, y: reduce("sum", dot(x, y, ((2,), (1,)), ((0,), (0,))), 1, 2),
            ((4, 3, 5), "int8"),
            ((4, 5, 2), "int8"),
        ),
    ),
}


def take(x: Any, indices: Any, axis: int, mode: Any = lax.GatherScatterMode.FILL_OR_DROP) -> Any:
    """`numpy.take` along an axis, as one gather."""
    rest = tuple(d for d in range(x.ndim) if d != axis)
    numbers = lax.GatherDimensionNumbers(offset_dims=rest, collapsed_slice_dims=(axis,), start_index_map=(axis,))
    sizes = tuple(1 if d == axis else n for d, n in enumerate(x.shape))
    return lax.gather(x, np.array(indices, np.int32)[:, None], numbers, sizes, mode=mode)


def chosen_rows(x: Any, indices: Any, mode: str) -> Any:
    """Some rows of a matrix, as one gather."""
    return take(x, indices, 0, lax.GatherScatterMode.from_any(mode))


def element_at(x: Any, index: Any) -> Any:
    """Elements of a matrix at pairs of indices, also such as are out of bounds."""
    numbers = lax.GatherDimensionNumbers(offset_dims=(), collapsed_slice_dims=(0, 1), start_index_map=(0, 1))
    return lax.gather(x, index, numbers, (1, 1), mode="fill")


def window_at(x: Any, index: tuple[int, ...], sizes: tuple[int, ...], collapsed: tuple[int, ...]) -> Any:
    offsets = tuple(range(len(sizes) - len(collapsed)))
    numbers = lax.GatherDimensionNumbers(
        offset_dims=offsets, collapsed_slice_dims=collapsed, start_index_map=tuple(range(len(index)))
    )
    return lax.gather(x, np.array(index, np.int32), numbers, sizes)


def scatter(name: str, x: Any, index: Any, update: Any, inserted: tuple[int, ...]) -> Any:
    """A scatter of one window at `index` (an array of one place)."""
    numbers = lax.ScatterDimensionNumbers(
        update_window_dims=tuple(range(update.ndim)),
        inserted_window_dims=inserted,
        scatter_dims_to_operand_dims=tuple(range(index.shape[-1])),
    )
    return {"set": lax.scatter, "add": lax.scatter_add, "mul": lax.scatter_mul}[name](x, index, update, numbers)


def scatter_each(x: Any, indices: Any, update: Any, windows: tuple[int, ...] = ()) -> Any:
    """A sum into rows at indices, each with an update."""
    numbers = lax.ScatterDimensionNumbers(windows, (0,), (0,))
    return lax.scatter_add(x, indices[..., None], update, numbers)


INDEX = "int32"

INDEXING = {
    "dynamic slice at a constant": (
        on(lambda x: lax.dynamic_slice(x, (np.int32(1), np.int32(9)), (2, 3)), ((4, 5), F)),
        on(lambda x, i: lax.dynamic_slice(x, (i, np.int32(2)), (4, 3)), ((4, 5), "int8"), ((), INDEX)),
        on(lambda x, i: lax.dynamic_slice(x, (i,), (4,)), ((4,), "bool"), ((), INDEX)),
    ),
    "start on a whole axis": (
        on(lambda x, i: lax.dynamic_slice(x, (i, i), (4, 3)), ((4, 5), F), ((), INDEX)),
        on(lambda x, y, i: lax.dynamic_update_slice(x, y, (i, i)), ((4, 5), "int8"), ((2, 5), "int8"), ((), INDEX)),
    ),
    "dynamic slice of its update": (
        on(
            lambda x, y, i: lax.dynamic_slice(lax.dynamic_update_slice(x, y, (i,)), (i,), (2,)),
            ((5,), F),
            ((2,), F),
            ((), INDEX),
        ),
    ),
    "update of everything": (
        on(lambda x, y, i: lax.dynamic_update_slice(x, y, (i,)), ((5,), F), ((5,), F), ((), INDEX)),
        on(lambda x, y, i: lax.dynamic_update_slice(x, y, (i,)), ((5,), "int8"), ((0,), "int8"), ((), INDEX)),
        on(
            lambda c, i: lax.dynamic_update_slice(bid(c, (5,), ()), bid(c, (2,), ()), (i,)),
            ((), "bool"),
            ((), INDEX),
        ),
    ),
    "update by what was there": (
        on(lambda x, i: lax.dynamic_update_slice(x, lax.dynamic_slice(x, (i,), (2,)), (i,)), ((5,), F), ((), INDEX)),
    ),
    "update of an update": (
        on(
            lambda x, y, z, i: lax.dynamic_update_slice(lax.dynamic_update_slice(x, y, (i,)), z, (i,)),
            ((5,), F),
            ((2,), F),
            ((2,), F),
            ((), INDEX),
        ),
    ),
    "gather of one window": (
        on(lambda x: window_at(x, (2,), (1, 3), (0,)), ((4, 3), F)),
        on(lambda x: window_at(x, (2, 1), (2, 1), (1,)), ((4, 3), "int8")),
        on(lambda x: take(x, [3], 1), ((4, 5), "bool")),
    ),
    "gather of evenly spaced rows": (
        on(lambda x: take(x, [1, 3, 5], 0), ((6, 3), F)),
        on(lambda x: take(x, [4, 3, 2, 1], 1), ((2, 5), "int8")),
    ),
    "gather of elementwise operation": (
        on(lambda x, y: chosen_rows(jnp.abs(x) + y[:, None], [5, 0, 5], "clip"), ((60, 3), F), ((60,), F)),
        on(lambda x: chosen_rows(x * np.int8(3), [5, -1, 60, 7], "fill"), ((60, 2), "int8")),
        on(lambda x: chosen_rows(-x, [61, 2, -70], "fill"), ((60, 2), "bfloat16")),
        on(lambda x, i: element_at(x > 0.5, i), ((50, 40), F), ((7, 2), INDEX)),
    ),
    "gather of function": (
        on(lambda x: chosen_rows(lax.sin(x), [5, 0, 99], "fill"), ((60, 3), F)),
        on(lambda x, i: element_at(lax.exp(x), i), ((50, 40), F), ((7, 2), INDEX)),
        on(lambda x, y: chosen_rows(x / y, [3, 3], "promise_in_bounds"), ((60, 3), F), ((60, 3), F)),
    ),
    "gather of broadcast": (
        on(
            lambda c, i: lax.gather(
                bid(c, (5,), ()),
                i,
                lax.GatherDimensionNumbers(offset_dims=(), collapsed_slice_dims=(0,), start_index_map=(0,)),
                (1,),
                mode="clip",
            ),
            ((), F),
            ((3, 1), INDEX),
        ),
    ),
    "scatter of nothing": (on(lambda x, y, i: scatter("add", x, i, y, ()), ((5, 3), F), ((5, 0), F), ((1,), INDEX)),),
    "scatter of the neutral element": (
        on(lambda x, i: scatter("add", x, i, jnp.zeros((3,)), (0,)), ((5, 3), F), ((1,), INDEX)),
        on(lambda x, i: scatter("mul", x, i, bid(np.int8(1), (3,), ()), (0,)), ((5, 3), "int8"), ((1,), INDEX)),
    ),
    "scatter of a padded update": (
        on(
            lambda x, i, y: scatter_each(x, i, lax.pad(y, np.float32(0), [(4, 1, 0)])),
            ((9,), F),
            ((8,), INDEX),
            ((3,), F),
        ),
        on(
            lambda x, i, y: scatter_each(x, i, lax.pad(y, np.int8(0), [(0, 3, 1), (0, 0, 0)]), (1,)),
            ((9, 2), "int8"),
            ((8,), INDEX),
            ((3, 2), "int8"),
        ),
        on(
            lambda x, i, y: scatter_each(x, i, lax.pad(y, np.float32(0), [(0, 0, 0), (1, 0, 0)])),
            ((9,), F),
            ((2, 4), INDEX),
            ((2, 3), F),
        ),
    ),
    "scatter of one window": (
        on(lambda x, y: scatter("set", x, np.array([2]), y, (0,)), ((5, 3), F), ((3,), F)),
        on(lambda x, y: scatter("set", x, np.array([2, 1]), y, (0, 1)), ((5, 3), "bool"), ((), "bool")),
        on(lambda x, y: scatter("add", x, np.array([1]), y, ()), ((5, 3), "int8"), ((2, 3), "int8")),
        on(lambda x, y: scatter("add", x, np.array([4]), y, (0,)), ((5, 3), "bfloat16"), ((3,), "bfloat16")),
    ),
}

EXAMPLES: dict[str, tuple[Example, ...]] = {
    **REDUCTIONS,
    **SCALING,
    **CUMULATIVE,
    **WINDOWS,
    **CONTRACTIONS,
    **INDEXING,
}


def and_its_operand(function: Callable[..., Any]) -> Callable[..., Any]:
    """A program in which the inner node, given first by `function`, has a second reader."""

    def program(*args: Any) -> Any:
        inner, outer = function(*args)
        return outer, lax.tanh(inner)

    return program


def sum_of_shared(x: Any) -> Any:
    return (y := 3 * x), reduce("sum", y, 0)


def transpose_of_shared(x: Any, y: Any) -> Any:
    return (z := dot(x, y, ((1,), (0,)))), transpose(z, 1, 0)


DECLINING: dict[str, tuple[Example, ...]] = {
    "update of an update": (
        on(
            lambda x, y, z, i: (
                first := lax.dynamic_update_slice(x, y, (i,)),
                lax.dynamic_update_slice(first, z, (i,)),
            ),
            ((5,), F),
            ((2,), F),
            ((2,), F),
            ((), INDEX),
        ),
    ),
    "convolution of one window": (
        on(lambda x, y: lax.conv(x, y, (1, 1), "VALID"), ((2, 3, 4, 5), F), ((6, 3, 4, 4), F)),
        on(lambda x, y: lax.conv(x, y, (1, 1), "SAME"), ((2, 3, 1, 5), F), ((6, 3, 1, 5), F)),
        on(
            lambda x, y: lax.conv_general_dilated(x, y, (1,), "VALID", feature_group_count=2),
            ((2, 4, 5), F),
            ((6, 2, 5), F),
        ),
        on(
            lambda x, y: lax.conv_general_dilated(x, y, (1,), "VALID", dimension_numbers=("NCW", "WIO", "NCW")),
            ((2, 3, 4), F),
            ((4, 3, 6), F),
        ),
    ),
    "reduction of reduction": (
        on(lambda x: reduce("max", reduce("sum", x, 1), 0), ((3, 5), F)),
        on(lambda x: reduce("prod", reduce("prod", x, 1), 0), ((3, 5), F)),
    ),
    "reduction of reshape": (on(lambda x: reduce("sum", reshape(x, (3, 2)), 0), ((2, 3), F)),),
    "reduction of padding": (
        on(lambda x: reduce("sum", pad(x, 1, (1, 2, 0)), 0), ((5,), F)),
        on(lambda x: reduce("sum", pad(x, 0, (1, 0, 0), (0, 1, 0)), 0), ((5, 3), F)),
        on(lambda x: reduce("sum", pad(x, 0, (-1, 0, 0)), 0), ((5,), F)),
    ),
    "reduction of broadcast": (on(lambda x: reduce("sum", bid(x, (257,), ()), 0), ((), "bfloat16")),),
    "reduction of reversal": (on(lambda x: reduce("sum", rev(x, 0), 1), ((5, 3), F)),),
    "place of negation": (on(lambda x: lax.argmax(-x, 0, np.int32), ((5,), "int8")),),
    "extremum of negations": (on(lambda x: reduce("max", -x, 0), ((5,), "int8")),),
    "extremum of scaled and shifted": (
        on(lambda x: reduce("max", -2.0 * x, 0), ((5,), F)),
        on(lambda x: reduce("max", 2 * x, 0), ((5,), "int8")),
    ),
    "sum of multiples": (
        on(and_its_operand(sum_of_shared), ((5,), F)),
        on(lambda x, y: reduce("sum", x * y, 0), ((5,), F), ((5,), F)),
    ),
    "cumulation twice": (on(lambda x: lax.cummax(lax.cummax(x, 0), 0, reverse=True), ((5,), F)),),
    "end of cumulation": (on(lambda x: cut(lax.cumsum(x, 0), (0,), (1,)), ((5,), F)),),
    "windows of one element": (on(lambda x: window("sum", x, (1,), (1,), ((1, 0),)), ((5,), F)),),
    "window over everything": (on(lambda x: window("sum", x, (2, 5), (1, 1)), ((3, 5), F)),),
    "windows on padding": (on(lambda x: window("max", pad(x, 0, (1, 0, 0)), (2,), (1,)), ((5,), F)),),
    "product of transpose": (
        on(lambda x, y: dot(transpose(x, 1, 0, 2), y, ((2,), (0,))), ((2, 3, 5), F), ((5, 2), F)),
    ),
    "transpose of product": (
        on(lambda x, y: transpose(dot(x, y, ((1,), (0,))), 2, 1, 0), ((3, 5), F), ((5, 2, 4), F)),
        on(and_its_operand(transpose_of_shared), ((3, 5), F), ((5, 2), F)),
    ),
    "product with one matrix for all": (
        on(
            lambda x, y: dot(x, bid(y, (2, 5, 7), (0, 1)), ((2,), (1,)), ((0,), (0,))),
            ((2, 3, 5), F),
            ((2, 5), F),
        ),
    ),
    "multiple of product": (on(lambda x, y: 2.5 * dot(x, y, ((1,), (0,))), ((3, 5), F), ((5, 2), F)),),
    "product of multiple": (on(lambda x, y: dot(2.5 * x, y, ((1,), (0,))), ((3, 2), F), ((2, 5), F)),),
    "gather of elementwise operation": (
        on(lambda x: chosen_rows(jnp.abs(x), [5, 0, 3, 1], "clip"), ((3, 2), F)),
        on(lambda x: (lambda y: (chosen_rows(y, [1, 0, 4], "clip"), y))(jnp.abs(x)), ((60, 2), F)),
        on(lambda x, y: chosen_rows(x + y, [1, 0, 4, 4, 2, 1, 5, 0], "clip"), ((60, 2), F), ((60, 2), F)),
    ),
    "gather of evenly spaced rows": (
        on(lambda x: take(x, [1, 3, 4], 0), ((6, 3), F)),
        on(lambda x: take(x, [4, 6], 0), ((6, 3), F)),
        on(lambda x: take(x, [-1, 0], 0), ((6, 3), F)),
        on(lambda x: take(x, [2, 2], 0), ((6, 3), F)),
    ),
    "gather of one window": (on(lambda x: take(x, [6], 0), ((6, 3), F)),),
    "scatter of one window": (on(lambda x, y: scatter("set", x, np.array([5]), y, (0,)), ((5, 3), F), ((3,), F)),),
}
