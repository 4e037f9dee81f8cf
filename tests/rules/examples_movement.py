"""Programs for the rules that move data."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import lax

from graphopt.ir.aval import DTYPES

from .example import Example

F = "float32"


def on(function: Callable[..., Any], *types: tuple[tuple[int, ...], str], **keywords: Any) -> Example:
    return Example(function, types, **keywords)


def bid(x: Any, shape: tuple[int, ...], dims: tuple[int, ...]) -> Any:
    return lax.broadcast_in_dim_p.bind(x, shape=shape, broadcast_dimensions=dims, sharding=None)


def reshape(x: Any, shape: tuple[int, ...]) -> Any:
    return lax.reshape_p.bind(x, new_sizes=shape, dimensions=None, sharding=None)


def transpose(x: Any, *permutation: int) -> Any:
    return lax.transpose_p.bind(x, permutation=permutation)


def cut(x: Any, starts: tuple[int, ...], limits: tuple[int, ...], strides: tuple[int, ...] | None = None) -> Any:
    return lax.slice_p.bind(x, start_indices=starts, limit_indices=limits, strides=strides)


def pad(x: Any, value: Any, *config: tuple[int, int, int]) -> Any:
    return lax.pad_p.bind(x, jnp.asarray(value, x.dtype), padding_config=config)


def convert(x: Any, *dtypes: str) -> Any:
    for dtype in dtypes:
        x = lax.convert_element_type_p.bind(x, new_dtype=jnp.dtype(dtype), weak_type=False, sharding=None)
    return x


def concatenate(*operands: Any, axis: int = 0) -> Any:
    return lax.concatenate_p.bind(*operands, dimension=axis)


def rev(x: Any, *axes: int) -> Any:
    return lax.rev_p.bind(x, dimensions=axes)


def bits(x: Any, dtype: str) -> Any:
    return lax.bitcast_convert_type_p.bind(x, new_dtype=np.dtype(dtype))


def cast_text(kind: str, operand: str, dtype: str, weak: bool = False) -> Example:
    """A cast that JAX would not trace: of a parameter to its own type, or of a constant, added to the parameter.

    weak: whether the cast has a weak type.
    """
    shape = kind[kind.index("[") :]
    cast = f"convert_element_type[new_dtype=dtype({dtype}), sharding=None, weak_type={weak}]"
    if operand == "%0":
        body = f"%1: {kind} = {cast}(%0)\n  return %1"
    else:
        body = f"%1: {operand}\n  %2: {dtype}[]{'~' * weak} = {cast}(%1)\n  %3: {kind} = add(%0, %2)\n  return %3"
    sizes = tuple(int(size) for size in shape[1:-1].split(",") if size)
    return Example(abs, ((sizes, str(DTYPES[dtype])),), text=f"graph @main(%0: {kind}) {{\n  {body}\n}}")


TRANSPOSES = {
    "transpose of transpose": (
        on(lambda x: transpose(transpose(x, 1, 0), 1, 0), ((3, 4), F)),
        on(lambda x: transpose(transpose(x, 1, 2, 0), 1, 2, 0), ((2, 3, 4), "int8")),
        on(lambda x: transpose(transpose(x, 1, 0), 1, 0), ((0, 4), "complex64")),
    ),
    "transpose that moves nothing": (
        on(lambda x: transpose(x, 0, 1), ((3, 4), "bfloat16")),
        on(lambda x: transpose(x, 1, 0), ((1, 5), F)),
        on(lambda x: transpose(x, 2, 0, 1), ((3, 7, 1), "bool")),
        on(lambda x: transpose(x), ((), "int8")),
    ),
    "transpose of broadcast": (
        on(lambda x: transpose(bid(x, (2, 3, 5), (0, 2)), 2, 1, 0), ((2, 5), F)),
        on(lambda x: transpose(bid(x, (2, 3), (1,)), 1, 0), ((3,), "complex64")),
        on(lambda x: transpose(bid(x, (2, 3), (0, 1)), 1, 0), ((2, 1), "bfloat16"), special=False),
        on(lambda x: transpose(bid(x, (2, 0), ()), 1, 0), ((), "int8")),
    ),
    "transpose of iota": (
        on(lambda x: x + transpose(lax.broadcasted_iota("int32", (2, 3, 5), 1), 2, 0, 1), ((5, 2, 3), "int32")),
        on(lambda x: x + transpose(lax.broadcasted_iota(F, (2, 3), 0), 1, 0), ((3, 2), F)),
    ),
    "selection of transpose": (
        on(lambda x: cut(transpose(x, 2, 0, 1), (1, 0, 0), (5, 1, 3), (2, 1, 1)), ((2, 3, 5), F)),
        on(lambda x: rev(transpose(x, 2, 0, 1), 0, 1), ((2, 3, 5), "int8")),
        on(
            lambda x: pad(transpose(x, 2, 0, 1), 1, (1, 2, 1), (0, 0, 0), (-1, 3, 0)),
            ((2, 3, 5), "bfloat16"),
            special=False,
        ),
        on(lambda x: cut(transpose(x, 1, 0), (0, 0), (0, 2)), ((2, 3), "bool")),
    ),
    "concatenation of transposes": (
        on(
            lambda x, y: concatenate(transpose(x, 2, 0, 1), transpose(y, 2, 0, 1), axis=1),
            ((2, 3, 5), F),
            ((1, 3, 5), F),
        ),
        on(lambda x: concatenate(transpose(x, 1, 0), transpose(x, 1, 0)), ((2, 3), "int8")),
    ),
}

RESHAPES = {
    "reshape to its own shape": (
        on(lambda x: reshape(x, (3, 4)), ((3, 4), F)),
        on(lambda x: lax.squeeze_p.bind(x, dimensions=()), ((3, 0), "complex64")),
    ),
    "reshape of reshape": (
        on(lambda x: reshape(reshape(x, (4, 3)), (2, 6)), ((3, 4), F)),
        on(lambda x: lax.squeeze_p.bind(x[:, None], dimensions=(1,)), ((7,), "bfloat16")),
        on(lambda x: bid(reshape(x, (12,)), (1, 12), (1,)), ((3, 4), "int8")),
        on(lambda x: reshape(bid(x, (1, 1), ()), ()), ((), "bool")),
    ),
    "reshape of broadcast": (
        on(lambda x: reshape(bid(x, (2, 3), ()), (6,)), ((), F)),
        on(lambda x: lax.squeeze_p.bind(bid(x, (5, 1, 3), (1, 2)), dimensions=(1,)), ((1, 3), "int8")),
        on(lambda x: reshape(bid(x, (5, 3), (0, 1)), (1, 5, 1, 3)), ((1, 3), "complex64")),
        on(lambda x: reshape(bid(x, (0, 1, 3), (2,)), (0, 3)), ((3,), "bfloat16"), special=False),
    ),
}

BROADCASTS = {
    "broadcast of broadcast": (
        on(lambda x: bid(bid(x, (3, 4), (0,)), (2, 3, 5, 4), (1, 3)), ((3,), F)),
        on(lambda x: bid(bid(x, (1, 4), (1,)), (3, 4), (0, 1)), ((4,), "int8")),
        on(lambda x: bid(bid(x, (0,), ()), (3, 0), (1,)), ((), "bool")),
    ),
    "broadcast of equal numbers": (
        on(lambda x: x * bid(np.full(3, -0.0, F), (2, 3), (1,)), ((2, 3), F)),
        on(lambda x: x & bid(np.ones((1, 3), bool), (5, 3), (0, 1)), ((5, 3), "bool")),
        on(lambda x: x + bid(np.full((2, 3), 7, np.int8), (2, 4, 3), (0, 2)), ((2, 4, 3), "int8")),
    ),
    "broadcast of reshape": (
        on(lambda x: bid(reshape(x, (1, 3)), (2, 3), (0, 1)), ((3,), F)),
        on(lambda x: bid(reshape(x, (1, 3, 1)), (2, 3, 5), (0, 1, 2)), ((1, 3), "bfloat16"), special=False),
    ),
    "broadcast of squeeze": (
        on(lambda x: bid(lax.squeeze(x, (1,)), (3, 5), (0,)), ((3, 1), F)),
        on(lambda x: bid(lax.squeeze(x, (0,)), (5, 2, 3), (2,)), ((1, 3), "int8")),
    ),
    "slice of broadcast": (
        on(lambda x: cut(bid(x, (5, 7), (1,)), (1, 2), (4, 7), (1, 2)), ((7,), F)),
        on(lambda x: cut(bid(x, (5, 7), (0, 1)), (1, 2), (4, 7)), ((5, 1), "complex64")),
        on(lambda x: cut(bid(x, (5, 7), (0, 1)), (1, 2), (1, 2)), ((1, 7), "bool")),
    ),
    "reversal of broadcast": (
        on(lambda x: rev(bid(x, (5, 7), (1,)), 0, 1), ((7,), F)),
        on(lambda x: rev(bid(x, (5, 7), ()), 0), ((), "int8")),
        on(lambda x: rev(bid(x, (5, 7), (0, 1)), 0), ((1, 7), "bfloat16"), special=False),
    ),
    "concatenation of broadcasts": (
        on(lambda x: concatenate(bid(x, (2, 3), (1,)), bid(x, (5, 3), (1,))), ((3,), F)),
        on(lambda x: concatenate(bid(x, (2, 3), (0, 1)), bid(x, (2, 4), (0, 1)), axis=1), ((2, 1), "int8")),
    ),
    "padding of the same value": (
        on(lambda x: pad(jnp.zeros((2, 3), x.dtype), 0, (1, 2, 1), (-1, 0, 0)) + x, ((6, 2), F)),
        on(lambda x: lax.pad_p.bind(bid(x, (3,), ()), x, padding_config=((1, 0, 0),)), ((), "complex64")),
    ),
    "dynamic slice of broadcast": (
        on(lambda x, i: lax.dynamic_slice(bid(x, (4, 5), ()), (i, i), (2, 3)), ((), F), ((), "int32")),
        on(lambda x, i: lax.dynamic_slice(bid(x, (5,), ()), (i,), (0,)), ((), "int8"), ((), "int32")),
    ),
    "iota of one": (on(lambda x: x + lax.broadcasted_iota(F, (1, 3), 0), ((1, 3), F)),),
    "part of iota": (
        on(lambda x: x + cut(lax.broadcasted_iota("int32", (5, 7), 1), (1, 0), (3, 4)), ((2, 4), "int32")),
        on(lambda x: x + lax.squeeze(lax.broadcasted_iota(F, (5, 1), 0), (1,)), ((5,), F)),
        on(lambda x: x + reshape(lax.iota("int8", 3), (1, 3, 1)), ((1, 3, 1), "int8")),
    ),
}

SLICES = {
    "whole slice": (
        on(lambda x: cut(x, (0, 0), (3, 4), (1, 1)), ((3, 4), F)),
        on(lambda x: cut(x, (0,), (1,), (3,)), ((1,), "bool")),
        on(lambda x: cut(x, (0, 0), (0, 2)), ((0, 2), "int8")),
    ),
    "slice of slice": (
        on(lambda x: cut(cut(x, (1,), (16,), (2,)), (1,), (7,), (3,)), ((17,), F)),
        on(lambda x: cut(cut(x, (2, 1), (5, 7), (1, 3)), (1, 0), (2, 2)), ((7, 7), "complex64")),
        on(lambda x: cut(cut(x, (2,), (5,)), (1,), (1,)), ((7,), "int8")),
    ),
    "slice of reversal": (
        on(lambda x: cut(rev(x, 0), (1, 0), (6, 2), (2, 1)), ((7, 3), F)),
        on(lambda x: cut(rev(x, 0, 1), (0, 2), (3, 3)), ((5, 3), "bfloat16")),
        on(lambda x: cut(rev(x, 0), (2,), (2,)), ((5,), "bool")),
    ),
    "slice of reshape": (
        on(lambda x: cut(lax.squeeze(x, (0,)), (1, 0), (3, 2)), ((1, 5, 3), F)),
        on(lambda x: cut(reshape(x, (5, 1, 3)), (1, 0, 0), (5, 1, 2), (2, 1, 1)), ((1, 5, 3), "int8")),
    ),
    "slice of concatenation": (
        on(lambda x, y: cut(concatenate(x, y), (3,), (6,)), ((3,), F), ((5,), F)),
        on(lambda x, y: cut(concatenate(x, y, x), (1,), (8,), (2,)), ((3,), F), ((5,), F)),
        on(lambda x, y: cut(concatenate(x, y, axis=1), (1, 0), (2, 2)), ((2, 3), "int8"), ((2, 5), "int8")),
        on(lambda x, y: cut(concatenate(x, y, x), (2,), (11,), (5,)), ((3,), "bool"), ((5,), "bool")),
    ),
    "slice of padding": (
        on(lambda x: cut(pad(x, 1, (2, 3, 0), (0, 0, 1)), (2, 0), (5, 5)), ((3, 3), F), special=False),
        on(lambda x: cut(pad(x, 1, (2, 3, 0), (1, 1, 0)), (1, 1), (6, 4)), ((3, 3), F)),
        on(lambda x: cut(pad(x, 1, (2, 3, 0)), (1,), (3,)), ((3,), "int8")),
        on(lambda x: cut(pad(x, 1, (2, 3, 0)), (0,), (2,)), ((3,), "bfloat16"), special=False),
        on(lambda x: cut(pad(x, 1, (2, 3, 0)), (6,), (8,)), ((3,), "bfloat16"), special=False),
        on(lambda x: cut(pad(x, 1, (2, 3, 0), (0, 0, 0)), (2, 0), (5, 5), (1, 2)), ((3, 5), "bool")),
    ),
    "slice of elementwise operation": (
        on(lambda x, y: cut(x * y, (1, 0), (3, 2)), ((4, 3), F), ((4, 3), F)),
        on(lambda x, y: cut(x * y, (1,), (3,)), ((4,), "int8"), ((), "int8")),
        on(
            lambda x, y: cut(lax.select(x, y, bid(jnp.float32(0), (5,), ())), (1,), (5,), (3,)),
            ((5,), "bool"),
            ((5,), F),
        ),
    ),
    "slice of function": (
        on(lambda x, y: cut(x / y, (2,), (3,)), ((3,), F), ((), F)),
        on(lambda x, y: cut(x / y, (1, 0), (3, 2)), ((4, 3), "complex64"), ((4, 3), "complex64")),
        on(lambda x, y: cut(lax.div(x, y), (1,), (3,)), ((4,), "int8"), ((), "int8")),
        on(lambda x: cut(lax.tanh(x), (1,), (8,), (3,)), ((9,), "bfloat16")),
        on(lambda x: cut(lax.exp(x), (5,), (37,)), ((37,), F)),
    ),
}

JOINS = {
    "concatenation with nothing": (
        on(lambda x, y: concatenate(x, y, axis=1), ((3, 0), F), ((3, 2), F)),
        on(lambda x: concatenate(x), ((3,), "int8")),
        on(lambda x, y: concatenate(x, y, x), ((0,), "bool"), ((0,), "bool")),
        on(lambda x, y: concatenate(x, y, x), ((2,), "bool"), ((0,), "bool")),
    ),
    "concatenation of concatenations": (
        on(lambda x, y: concatenate(y, concatenate(x, y)), ((3,), F), ((2,), F)),
        on(lambda x, y: concatenate(concatenate(x, y, axis=1), y, axis=1), ((3, 2), "int8"), ((3, 1), "int8")),
    ),
    "concatenation of adjacent slices": (
        on(lambda x: concatenate(x[:2], x[2:5], x[5:]), ((7,), F)),
        on(lambda x: concatenate(x[1:2], x[3:4], x[5:7]), ((7,), "int8")),
        on(lambda x: concatenate(x[:, 0:3:2], x[:, 4:7:2], x, axis=1), ((2, 7), "complex64")),
        on(lambda x: concatenate(x[2:4], x[2:5], x[5:6]), ((7,), "bfloat16")),
    ),
    "padding with nothing": (
        on(lambda x: pad(x, 1, (0, 0, 0), (0, 0, 3)), ((3, 1), F)),
        on(lambda x: pad(x, 1, (2, 1, 0)), ((0,), "int8")),
        on(lambda x: pad(x, 1), ((), "bool")),
    ),
    "padding that only cuts": (
        on(lambda x: pad(x, 1, (-1, 0, 0), (0, -2, 0)), ((3, 5), F)),
        on(lambda x: pad(x, 1, (-1, -1, 0)), ((3,), "complex64")),
    ),
    "padding of padding": (
        on(lambda x: pad(pad(x, 1, (1, 0, 0), (0, 2, 1)), 1, (2, 3, 0), (1, 1, 0)), ((3, 5), F)),
        on(lambda x: pad(pad(x, 1, (1, 0, 0)), 1, (2, 3, 0)), ((0,), "int8")),
    ),
}

ORDERS = {
    "reversal of one element": (
        on(lambda x: rev(x, 0), ((1, 3), F)),
        on(lambda x: rev(x, 0, 1), ((1, 3), "int8")),
        on(lambda x: rev(x, 0), ((0, 3), "bool")),
    ),
    "reversal of reversal": (
        on(lambda x: rev(rev(x, 0), 0), ((5,), F)),
        on(lambda x: rev(rev(x, 0, 1), 1, 2), ((2, 3, 5), "complex64")),
    ),
    "reversal of concatenated reversals": (
        on(lambda x, y: rev(concatenate(rev(x, 0), rev(y, 0)), 0), ((5,), F), ((3,), F)),
    ),
}

CASTS = {
    "cast to the same type": (
        cast_text("f32[3]", "%0", "f32"),
        cast_text("bool[]", "%0", "bool"),
        cast_text("bf16[0]", "%0", "bf16"),
    ),
    "cast of integer cast": (
        on(lambda x: convert(x, "int32", "int8"), ((9,), "int8")),
        on(lambda x: convert(x, "int16", "int8"), ((9,), "int32")),
        on(lambda x: convert(x, "uint16", "int8"), ((9,), "int32")),
        on(lambda x: convert(x, "int32", "uint16"), ((9,), "int8")),
        on(lambda x: convert(x, "int64", "int32"), ((9,), "int32"), x64=True),
        on(lambda x: convert(x, "int32", F), ((9,), "int8")),
        on(lambda x: convert(x, "int32", F), ((9,), "bool")),
        on(lambda x: convert(x, "uint8", "bool"), ((9,), "bool")),
    ),
    "cast of lossless cast": (
        on(lambda x: convert(x, F, "bfloat16"), ((99,), "bfloat16")),
        on(lambda x: convert(x, F, "float16"), ((99,), "float16")),
        on(lambda x: convert(x, F, "bfloat16"), ((99,), "float16")),
        on(lambda x: convert(x, F, "float64"), ((99,), "bfloat16"), x64=True),
        on(lambda x: convert(x, F, "int8"), ((9,), "int8")),
        on(lambda x: convert(x, F, "int32"), ((9,), "uint8")),
        on(lambda x: convert(x, "float64", "int32"), ((9,), "int32"), x64=True),
        on(lambda x: convert(x, "float64", "float32"), ((9,), "int32"), x64=True),
        on(lambda x: convert(x, F, "bool"), ((9,), "bool")),
        on(lambda x: convert(x, F, "int32"), ((99,), "bfloat16")),
        on(lambda x: convert(x, F, "int8"), ((99,), "float16")),
    ),
    "cast of widened float": (
        on(lambda x: convert(x, "float64", F), ((99,), F), x64=True),
        on(lambda x: convert(x, "float64", "bfloat16"), ((99,), F), x64=True),
        on(lambda x: convert(x, "complex128", "complex64"), ((99,), "complex64"), x64=True),
    ),
    "cast of constant": (
        cast_text("f32[3]", "i32[] = constant(3)", "f32"),
        cast_text("bf16[3]", "bool[] = constant(true)", "bf16"),
        cast_text("c64[3]", "f32[] = constant(0.5)", "c64"),
        cast_text("i8[3]", "f32[] = constant(-7.0)", "i8"),
        cast_text("f16[3]", "f32[] = constant(-0.0)", "f16"),
        cast_text("f32[3]", "f32[] = constant(2.0)", "f32", weak=True),
    ),
    "cast of iota": (
        on(lambda x: x + convert(lax.iota("int32", 7), F), ((7,), F)),
        on(lambda x: x + convert(lax.iota("int32", 127), "bfloat16"), ((127,), "bfloat16")),
        on(lambda x: x + convert(lax.iota("int32", 127), "int8"), ((127,), "int8")),
        on(lambda x: x + convert(lax.iota(F, 7), "int8"), ((7,), "int8")),
    ),
    "bitcast of bitcast": (
        on(lambda x: bits(bits(x, "int32"), F), ((9,), F)),
        on(lambda x: bits(bits(x, "int32"), "uint32"), ((9,), F)),
        on(lambda x: bits(x, "int32"), ((9,), "int32")),
        on(lambda x: bits(bits(x, "int8"), F), ((9,), F)),
    ),
    "copy within a program": (on(lambda x: lax.copy_p.bind(x), ((3,), F)),),
    "stop gradient after differentiation": (on(lambda x: lax.stop_gradient(x), ((3,), F)),),
    "reduction to its own precision": (
        on(lambda x: lax.reduce_precision(x, 8, 23), ((9,), F)),
        on(lambda x: lax.reduce_precision(x, 8, 10), ((9,), "bfloat16")),
    ),
    "reduction of precision twice": (
        on(lambda x: lax.reduce_precision(lax.reduce_precision(x, 5, 10), 5, 10), ((9,), F)),
    ),
}

OUTWARD = {
    "broadcast past elementwise operation": (
        on(lambda x, y: bid(x, (5, 7), (1,)) + bid(y, (5, 7), (1,)), ((7,), F), ((7,), F)),
        on(lambda x: 2 * bid(x, (5, 7), (0, 1)), ((1, 7), "int8")),
        on(lambda x: bid(x, (5, 7), ()) * 3, ((), "complex64")),
        on(
            lambda x, y: lax.select(bid(x, (5, 7), (0,)), jnp.ones((5, 7)), bid(y, (5, 7), (0,))),
            ((5,), "bool"),
            ((5,), F),
        ),
        on(lambda x: lax.clamp(jnp.float32(0), bid(x, (3, 5), (1,)), jnp.float32(1)), ((5,), F)),
        on(lambda x: convert(bid(x, (3, 5), (1,)), F), ((5,), "int8")),
        on(lambda x, y: bid(x, (0, 7), (1,)) * bid(y, (0, 7), ()), ((7,), F), ((), F)),
        on(lambda x: -bid(x, (2, 3), (1,)), ((3,), "bfloat16"), special=False),
    ),
    "broadcast past function": (
        on(lambda x: lax.exp(bid(x, (5, 7), (1,))), ((7,), F)),
        on(lambda x: lax.erf(bid(x, (5, 99), (0, 1))), ((1, 99), F)),
        on(lambda x: lax.integer_pow(bid(x, (2, 3), (1,)), 3), ((3,), "int8")),
        on(lambda x, y: lax.pow(bid(x, (2, 3), (1,)), y), ((3,), F), ((), F)),
    ),
    "scalar operand": (
        on(lambda x, y: x * bid(y, (5, 7), ()), ((5, 7), F), ((), F)),
        on(lambda x, y: bid(y, (5,), ()) < x, ((5,), "int8"), ((), "int8")),
        on(lambda x, y: lax.select(bid(y, (5,), ()), x, x + 1), ((5,), "int8"), ((), "bool")),
        on(lambda x, y: lax.clamp(bid(y, (5,), ()), x, x + 1), ((5,), F), ((), F)),
    ),
    "transpose past elementwise operation": (
        on(lambda x, y: transpose(x, 1, 0) + transpose(y, 1, 0), ((3, 5), F), ((3, 5), F)),
        on(lambda x: 2 * transpose(x, 2, 0, 1), ((2, 3, 5), "int8")),
        on(
            lambda x, y: lax.select(transpose(y, 1, 0), transpose(x, 1, 0), jnp.zeros((3, 2))),
            ((2, 3), F),
            ((2, 3), "bool"),
        ),
        on(lambda x: convert(transpose(x, 1, 0), "bfloat16"), ((2, 3), F)),
    ),
    "transpose past function": (on(lambda x: lax.tanh(transpose(x, 1, 0)), ((3, 33), F)),),
    "reshape past elementwise operation": (
        on(lambda x, y: reshape(x, (6,)) + reshape(y, (6,)), ((2, 3), F), ((2, 3), F)),
        on(lambda x: 2 * lax.squeeze(x, (1,)), ((3, 1), "int8")),
        on(lambda x: -reshape(x, (0, 7)), ((7, 0), "bfloat16")),
    ),
    "reshape past function": (on(lambda x: lax.log(reshape(x, (3, 33))), ((99,), F)),),
}

EXAMPLES: dict[str, tuple[Example, ...]] = {
    **TRANSPOSES,
    **RESHAPES,
    **BROADCASTS,
    **SLICES,
    **JOINS,
    **ORDERS,
    **CASTS,
    **OUTWARD,
}


def shared(function: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """A program in which the inner node has a second reader."""

    def program(x: Any) -> Any:
        inner, outer = function(x)
        return outer, lax.tanh(inner)

    return program


def selected(x: Any) -> Any:
    inner = transpose(x, 1, 0)
    return inner, cut(inner, (0, 0), (1, 1))


DECLINING: dict[str, tuple[Example, ...]] = {
    "transpose that moves nothing": (on(lambda x: transpose(x, 1, 0), ((2, 3), F)),),
    "selection of transpose": (on(shared(selected), ((2, 3), F)),),
    "reshape of broadcast": (on(lambda x: reshape(bid(x, (3, 2), (0,)), (6,)), ((3,), F)),),
    "broadcast of squeeze": (on(lambda x: bid(lax.squeeze(x, (1,)), (3, 3), (1,)), ((3, 1), F)),),
    "broadcast of reshape": (on(lambda x: bid(reshape(x, (2, 3)), (5, 2, 3), (1, 2)), ((3, 2), F)),),
    "concatenation of broadcasts": (
        on(lambda x: concatenate(bid(x, (2, 3), (1,)), bid(x, (2, 3), (1,)), axis=1), ((3,), F)),
        on(lambda x, y: concatenate(bid(x, (2,), ()), bid(y, (2,), ())), ((), F), ((), F)),
    ),
    "concatenation of adjacent slices": (
        on(lambda x: concatenate(x[:2], x[3:5]), ((7,), F)),
        on(lambda x: concatenate(x[2:4], x[:2]), ((7,), F)),
        on(lambda x: concatenate(x[:4:2], x[4:6]), ((7,), F)),
        on(lambda x: concatenate(x[:2, :3], x[2:, 1:4]), ((7, 5), F)),
    ),
    "padding of padding": (
        on(lambda x: pad(pad(x, 1, (1, 0, 0)), 2, (2, 3, 0)), ((3,), F)),
        on(lambda x: pad(pad(x, 1, (1, 0, 0)), 1, (-2, 3, 0)), ((3,), F)),
    ),
    "slice of padding": (on(lambda x: cut(pad(x, 1, (1, 1, 1)), (1,), (3,)), ((3,), F)),),
    "slice of reshape": (on(lambda x: cut(reshape(x, (6,)), (1,), (3,)), ((2, 3), F)),),
    "part of iota": (on(lambda x: x + cut(lax.iota("int32", 5), (1,), (3,)), ((2,), "int32")),),
    "cast of integer cast": (
        on(lambda x: convert(x, "int8", "int32"), ((9,), "int32")),
        on(lambda x: convert(x, "int8", "uint32"), ((9,), "uint8")),
        on(lambda x: convert(x, "bool", "int32"), ((9,), "int32")),
    ),
    "cast of lossless cast": (
        on(lambda x: convert(x, "bfloat16", F), ((9,), F)),
        on(lambda x: convert(x, "float16", "bfloat16"), ((9,), "bfloat16")),
        on(lambda x: convert(x, F, "int32"), ((9,), "int32")),
        on(lambda x: convert(x, F, "int8"), ((9,), "uint8")),
        on(lambda x: convert(x, "int32", F), ((9,), F)),
    ),
    "cast of constant": (cast_text("bf16[3]", "f32[] = constant(0.1)", "bf16"),),
    "cast of iota": (on(lambda x: x + convert(lax.iota("int32", 300), "bfloat16"), ((300,), "bfloat16")),),
    "reduction to its own precision": (on(lambda x: lax.reduce_precision(x, 8, 10), ((9,), F)),),
    "transpose past elementwise operation": (
        on(lambda x, y: transpose(x, 1, 0) + y, ((3, 5), F), ((5, 3), F)),
        on(lambda x, y: transpose(x, 1, 0, 2) + transpose(y, 2, 1, 0), ((3, 3, 3), F), ((3, 3, 3), F)),
        on(lambda x: convert(transpose(x, 1, 0), F), ((3, 5), "int8")),
    ),
    "broadcast past elementwise operation": (
        on(lambda x, y: bid(x, (3, 5), (0,)) + bid(y, (3, 5), (1,)), ((3,), F), ((5,), F)),
        on(lambda x, y: x[:, None] + y[None, :], ((3,), F), ((5,), F)),
    ),
}
