"""Programs for the rules on bits, comparisons and choices."""

import numpy as np
from jax import lax

from .example import Example

F, H, B = "float32", "float16", "bfloat16"
INT, I8, I16, U, U8 = "int32", "int8", "int16", "uint32", "uint8"
FLAG = "bool"


def _number(value: float, like: object) -> np.ndarray:
    """A scalar of the dtype of an array, which JAX leaves a constant."""
    return np.asarray(value).astype(like.dtype)


def _ones(like: object) -> np.ndarray:
    """All bits set."""
    return np.invert(np.zeros((), like.dtype))


EXAMPLES: dict[str, tuple[Example, ...]] = {
    "operation with all ones": (
        Example(lambda x: x & _ones(x), (((5,), INT),)),
        Example(lambda x: _ones(x) | x, (((2, 3), U8),)),
        Example(lambda x: x ^ _ones(x), (((0,), FLAG),)),
        Example(lambda x: x ^ lax.full((3,), -1, x.dtype), (((3,), I8),)),
    ),
    "operation with its complement": (
        Example(lambda x: x | ~x, (((5,), INT),)),
        Example(lambda x: ~x ^ x, (((2, 3), FLAG),)),
        Example(lambda x: x | ~x, (((), U8),)),
    ),
    "masks of a chain": (
        Example(lambda x: (x & _number(6, x)) & _number(12, x), (((5,), INT),)),
        Example(lambda x: _number(6, x) ^ (x ^ _number(12, x)), (((2, 3), U8),)),
        Example(lambda x: (x | _number(6, x)) | _number(-2, x), (((0,), I8),)),
    ),
    "masks that absorb": (
        Example(lambda x: (x | _number(6, x)) & _number(9, x), (((5,), INT),)),
        Example(lambda x: (x & _number(0xF7, x)) | _number(0x18, x), (((5,), U8),)),
        Example(lambda x: (x & _number(-2, x)) | _number(1, x), (((), I8),)),
    ),
    "shift of everything": (
        Example(lambda x: x << _number(32, x), (((5,), INT),)),
        Example(lambda x: lax.shift_right_logical(x, _number(200, x)), (((2, 3), U8),)),
        Example(lambda x: x << _number(-1, x), (((), I8),)),
    ),
    "shift of a shift": (
        Example(lambda x: (x << _number(3, x)) << _number(4, x), (((5,), INT),)),
        Example(lambda x: (x << _number(5, x)) << _number(4, x), (((5,), U8),)),
        Example(
            lambda x: lax.shift_right_logical(lax.shift_right_logical(x, _number(7, x)), _number(7, x)), (((5,), I16),)
        ),
        Example(lambda x: (x >> _number(5, x)) >> _number(4, x), (((7,), I8),)),
        Example(
            lambda x: lax.shift_right_arithmetic(lax.shift_right_arithmetic(x, _number(5, x)), _number(4, x)),
            (((7,), U8),),
        ),
    ),
    "shift back": (
        Example(lambda x: lax.shift_right_logical(x << _number(3, x), _number(3, x)), (((5,), INT),)),
        Example(lambda x: lax.shift_right_logical(x, _number(7, x)) << _number(7, x), (((5,), U8),)),
        Example(lambda x: lax.shift_right_logical(x, _number(1, x)) << _number(1, x), (((0,), I8),)),
    ),
    "comparison with a limit": (
        Example(lambda x: x >= _number(0, x), (((5,), U),)),
        Example(lambda x: lax.gt(_number(0, x), x), (((5,), U8),)),
        Example(lambda x: x <= _number(-128, x), (((2, 3), I8),)),
        Example(lambda x: x < _number(127, x), (((7,), I8),)),
        Example(lambda x: x > _number(2**31 - 1, x), (((), INT),)),
        Example(lambda x: x <= _number(1, x), (((3,), FLAG),)),
        Example(lambda x: x > _number(0, x), (((3,), FLAG),)),
    ),
    "comparison with infinity": (
        Example(lambda x: x > _number(np.inf, x), (((5,), F),)),
        Example(lambda x: x < _number(-np.inf, x), (((2, 3), B),)),
        Example(lambda x: lax.lt(_number(np.inf, x), x), (((), H),)),
    ),
    "comparison of a negative": (
        Example(lambda x: -x < 2, (((5,), F),)),
        Example(lambda x: lax.ge(_number(0, x), -x), (((2, 3), B),)),
        Example(lambda x: -x == 0, (((0,), F),)),
    ),
    "comparison of a choice": (
        Example(lambda p: lax.select_n(p, _full(p, 2.0), _full(p, 3.0)) == 3, (((5,), FLAG),)),
        Example(lambda p: lax.select_n(p, _full(p, 2), _full(p, 3)) < 3, (((2, 3), FLAG),)),
        Example(lambda p: lax.select_n(p, _full(p, np.nan), _full(p, 3.0)) != 5, (((3,), FLAG),)),
        Example(lambda p: p.astype(INT) == 0, (((3,), FLAG),)),
        Example(lambda p: lax.lt(_number(0.5, np.zeros(0, F)), p.astype(F)), (((), FLAG),)),
        Example(lambda p: p.astype(B) > 1, (((0,), FLAG),)),
    ),
    "choice by a constant": (
        Example(lambda x, y: lax.select_n(np.bool_(True), x, y), (((5,), F), ((5,), F))),
        Example(lambda x, y: lax.select_n(np.zeros(3, bool), x, y), (((3,), I8), ((3,), I8))),
        Example(lambda x, y: lax.select_n(np.int32(2), x, x, y), (((2, 3), "complex64"), ((2, 3), "complex64"))),
    ),
    "choice between equal cases": (
        Example(lambda p, x: lax.select_n(p, x, x), (((5,), FLAG), ((5,), F))),
        Example(lambda p, x: lax.select_n(p % 3, x, x, x), (((5,), INT), ((5,), I8))),
        Example(lambda p: lax.select_n(p, np.zeros(3, F), lax.full((3,), 0.0, F)), (((3,), FLAG),)),
    ),
    "choice by a broadcast scalar": (
        Example(lambda p, x, y: lax.select_n(lax.broadcast(p, (5,)), x, y), (((), FLAG), ((5,), F), ((5,), F))),
        Example(lambda p, x, y: lax.select_n(lax.broadcast(p, (0, 2)), x, y), (((), FLAG), ((0, 2), U), ((0, 2), U))),
    ),
    "choice of the greater": (
        Example(lambda x, y: lax.select_n(x > y, y, x), (((5,), F), ((5,), F))),
        Example(lambda x, y: lax.select_n(x >= y, x, y), (((5,), I8), ((5,), I8))),
        Example(lambda x, y: lax.select_n(x < y, x, y), (((2, 3), U), ((2, 3), U))),
        Example(lambda x: lax.select_n(x > 0, _full(x, 0.0), x), (((5,), F),)),
        Example(lambda x: lax.select_n(x <= 6, lax.full((0,), 6, B), x), (((0,), B),)),
    ),
    "choice of the absolute value": (
        Example(lambda x: lax.select_n(x < 0, x, -x), (((5,), F),)),
        Example(lambda x: lax.select_n(x >= 0, -x, x), (((5,), I8),)),
        Example(lambda x: lax.select_n(lax.lt(_number(0, x), x), -x, x), (((2, 3), B),)),
    ),
    "choice of the sign": (
        Example(lambda x: lax.select_n(x > 0, lax.abs(x), -lax.abs(x)), (((5,), F),)),
        Example(lambda x: lax.select_n(x >= 0, -lax.abs(x), lax.abs(x)), (((5,), I8),)),
        Example(lambda x: lax.select_n(lax.lt(_number(0, x), x), lax.abs(x), -lax.abs(x)), (((2, 3), B),)),
        Example(lambda x: lax.select_n(x <= 0, -lax.abs(x), lax.abs(x)), (((), F),)),
    ),
    "choice between what is equal": (
        Example(lambda x, y: lax.select_n(x == y, y, x), (((5,), F), ((5,), F))),
        Example(lambda x, y: lax.select_n(x == y, x, y), (((5,), I8), ((5,), I8))),
        Example(lambda x, y: lax.select_n(x != y, x, y), (((), U), ((), U))),
        Example(lambda x: lax.select_n(x != 0, x, _full(x, 0)), (((5,), INT),)),
        Example(lambda x: lax.select_n(x != 2, _full(x, 2.0), x), (((5,), F),)),
    ),
}


def _full(like: object, value: float) -> object:
    dtype = INT if isinstance(value, int) else F
    return lax.full(like.shape, value, dtype)


DECLINING: dict[str, tuple[Example, ...]] = {
    "masks that absorb": (
        Example(lambda x: (x | _number(6, x)) & _number(10, x), (((5,), INT),)),
        Example(lambda x: (x & _number(6, x)) | _number(10, x), (((5,), INT),)),
    ),
    "shift of everything": (
        Example(lambda x: x << _number(31, x), (((5,), INT),)),
        Example(lambda x, y: x << y, (((5,), INT), ((5,), INT))),
    ),
    "shift of a shift": (
        Example(lambda x: (x << _number(3, x)) >> _number(4, x), (((5,), INT),)),
        Example(lambda x, y: (x << y) << _number(4, x), (((5,), INT), ((5,), INT))),
    ),
    "shift back": (
        Example(lambda x: lax.shift_right_logical(x << _number(3, x), _number(4, x)), (((5,), INT),)),
        Example(lambda x: (x << _number(3, x)) >> _number(3, x), (((5,), INT),)),
    ),
    "comparison with a limit": (
        Example(lambda x: x >= _number(0, x), (((5,), INT),)),
        Example(lambda x: x >= 0, (((5,), F),)),
    ),
    "comparison with infinity": (
        Example(lambda x: x < _number(np.inf, x), (((5,), F),)),
        Example(lambda x: x >= _number(-np.inf, x), (((5,), F),)),
    ),
    "comparison of a negative": (Example(lambda x: -x < 2, (((5,), INT),)),),
    "comparison of a choice": (
        Example(lambda p: lax.select_n(p, _full(p, 1e-40), _full(p, 3.0)) == 0, (((5,), FLAG),)),
        Example(lambda p, x: lax.select_n(p, _full(p, 2.0), x) == 0, (((5,), FLAG), ((5,), F))),
        Example(lambda n: n.astype(F) == 0, (((5,), INT),)),
    ),
    "choice between equal cases": (Example(lambda p: lax.select_n(p, _full(p, 0.0), _full(p, -0.0)), (((3,), FLAG),)),),
    "choice of the greater": (
        Example(lambda x, y: lax.select_n(x == y, y, x), (((5,), F), ((5,), F))),
        Example(lambda x: lax.select_n(x > 0, _full(x, -0.0), x), (((5,), F),)),
    ),
    "choice of the absolute value": (
        Example(lambda x: lax.select_n(x < 1, x, -x), (((5,), F),)),
        Example(lambda x: lax.select_n(x > 0, x, -x), (((5,), F),)),
    ),
    "choice of the sign": (
        Example(lambda x: lax.select_n(x > 1, lax.abs(x), -lax.abs(x)), (((5,), F),)),
        Example(lambda x: lax.select_n(x > 0, lax.abs(x), lax.abs(-x) + 1), (((5,), F),)),
    ),
    "choice between what is equal": (
        Example(lambda x, y: lax.select_n(x == y, y + 1, x), (((5,), F), ((5,), F))),
        Example(lambda x: lax.select_n(x == 0, x, _full(x, 0.0)), (((5,), F),)),
        Example(lambda x: lax.select_n(x != 0, _full(x, 0.0), x), (((5,), F),)),
    ),
}
