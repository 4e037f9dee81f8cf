"""Programs for the rules on elementwise operations."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.scipy.stats import norm

from .example import Example

F, H, B, D = "float32", "float16", "bfloat16", "float64"
INT, I8, U, U8 = "int32", "int8", "uint32", "uint8"

EVEN = lax.RoundingMethod.TO_NEAREST_EVEN


def _number(value: float, like: object) -> np.ndarray:
    """A scalar of the dtype of an array, which JAX leaves a constant."""
    return np.asarray(value).astype(like.dtype)


# What the installed version of JAX has, and older ones do not.
NEWER: dict[str, tuple[Example, ...]] = {}
if hasattr(lax, "one_minus_square"):
    NEWER["one minus a square"] = (
        Example(lambda x: lax.one_minus_square(x), (((7,), F),)),
        Example(jax.grad(lambda x: lax.tanh(x).sum()), (((2, 3), B),)),
        Example(lambda x: lax.one_minus_square(x), (((), I8),)),
    )
if hasattr(lax, "polynomial"):
    NEWER["polynomial by horner"] = (
        Example(lambda x: lax.polynomial(x, [1.0, x, 3.0]), (((7,), F),)),
        Example(lambda x, c: lax.polynomial(x, [c, c]), (((2, 3), F), ((), F))),
        Example(lambda x: lax.polynomial(x, [5, x]), (((3,), INT),)),
    )

EXAMPLES: dict[str, tuple[Example, ...]] = {
    **NEWER,
    "sum of cotangents": (
        Example(jax.grad(lambda x: (lax.sin(x) * x).sum()), (((5,), F),)),
        Example(jax.grad(lambda x: (x * lax.exp(x)).sum()), (((2, 3), B),)),
    ),
    "choice between error functions": (
        Example(lambda p, x, y: lax.select_n(p, 1 + lax.erf(x), lax.erfc(y)), (((5,), "bool"), ((5,), F), ((5,), F))),
        Example(lambda p, x: lax.select_n(p, lax.erfc(x), 2 - lax.erfc(x)), (((), "bool"), ((2, 3), F))),
        Example(
            lambda p, x, y: lax.select_n(p, 1 - lax.erf(x), 2 - lax.erfc(y)),
            (((3,), "bool"), ((3,), D), ((3,), D)),
            x64=True,
        ),
        Example(norm.cdf, (((7,), F),)),
    ),
    "negated constant": (
        Example(lambda x: x + lax.neg(lax.full((3,), 2.5, x.dtype)), (((3,), F),)),
        Example(lambda x: x + lax.neg(lax.full((2, 5), 3, x.dtype)), (((2, 5), I8),)),
        Example(lambda x: x + lax.neg(lax.full((), -0.0, x.dtype)), (((0,), B),)),
    ),
    "quotient by a power of two": (
        Example(lambda x: x / 8, (((7,), F),)),
        Example(lambda x: x / _number(-0.25, x), (((3, 5), B),)),
        Example(lambda x: x / _number(1024, x), (((), H),)),
        Example(lambda x: x / _number(2.0**-60, x), (((2,), D),), x64=True),
    ),
    "quotient by a scalar": (
        Example(lambda x: x / 3, (((7,), F),), special=False),
        Example(lambda x: x / _number(-0.7, x), (((), D),), special=False, x64=True),
        Example(lambda x, y: x / y, (((2, 3), D), ((), D)), special=False, x64=True),
    ),
    "product with a mask": (
        Example(lambda x, y: x * (y > 0).astype(F), (((5,), F), ((5,), F))),
        Example(lambda x, y: y.astype(x.dtype) * x, (((3, 2), I8), ((3, 2), "bool"))),
        Example(lambda x, y: lax.mul(x, y.astype(x.dtype)), (((3, 2), U), ((), "bool"))),
        Example(lambda x, y: x * y.astype(x.dtype), (((0,), B), ((0,), "bool"))),
        Example(lambda x, y: x * lax.broadcast_in_dim(y.astype(F), (3, 4), (0,)), (((3, 4), F), ((3,), "bool"))),
        Example(lambda x, y: lax.mul(jnp.broadcast_to(x, (3, 4)), y.astype(F)), (((1, 4), F), ((3, 4), "bool"))),
        Example(lambda x, y: lax.mul_p.bind(x, y.astype(INT), out_dtype=None), (((), INT), ((1,), "bool"))),
    ),
    "integer quotient of a quotient": (
        Example(lambda x: lax.div(lax.div(x, _number(3, x)), _number(7, x)), (((11,), INT),)),
        Example(lambda x: lax.div(lax.div(x, _number(5, x)), _number(51, x)), (((4,), U8),)),
        Example(lambda x: lax.div(lax.div(x, _number(1, x)), _number(127, x)), (((), I8),)),
    ),
    "sum of constants": (
        Example(lambda x: (x + 2) + 3, (((5,), F),)),
        Example(lambda x: 3 - (1 - x), (((5,), INT),)),
        Example(lambda x: (7 - (x + 100)) - 100, (((2, 3), I8),)),
        Example(lambda x: (x - 200) + 3, (((3,), U),)),
        Example(lambda x: (-2 - x) - 3, (((0,), B),)),
        Example(lambda x: 3 - (x - 1.5), (((), H),)),
    ),
    "sum of opposite constants": (
        Example(lambda x: (x + 2.5) - 1.25, (((5,), D),), special=False, x64=True),
        Example(lambda x: 3.0 - (x + 1.0), (((2, 3), D),), special=False, x64=True),
    ),
    "like terms": (
        Example(lambda x: x * 2 + x * 3, (((5,), F),)),
        Example(lambda x: x - x * -3, (((2, 3), B),)),
        Example(lambda x: x * 2 - x * -2.5, (((3,), F),)),
        Example(lambda x: 5 * x - x, (((7,), I8),)),
        Example(lambda x: x * 3 + x, (((), U),)),
    ),
    "opposite like terms": (
        Example(lambda x: x * 3 - x, (((5,), F),)),
        Example(lambda x: x * 0.5 - x * 0.25, (((0, 2), F),)),
    ),
    "product of constants": (
        Example(lambda x: x * 2 * 3, (((5,), F),)),
        Example(lambda x: x * 100 * 100, (((5,), I8),)),
        Example(lambda x: x * _number(-0.5, x) * _number(0.5, x), (((3,), H),)),
        Example(lambda x: x / 3 / 5, (((2, 3), B),)),
        Example(lambda x: x * 0.5 / 3, (((), F),)),
        Example(lambda x: x / _number(0.3, x) * 7, (((0,), F),)),
    ),
    "product of opposite constants": (
        Example(lambda x: x * 2.0 * 0.3, (((5,), F),)),
        Example(lambda x: x * 3 / 5, (((2, 2), F),)),
        Example(lambda x: x / 3 * 7, (((5,), F),)),
        Example(lambda x: x / 3 / _number(0.3, x), (((5,), B),)),
        Example(lambda x: 3 / (x * 2), (((5,), F),)),
        Example(lambda x: 3 / (x / 2), (((5,), F),)),
        Example(lambda x: (3 / x) * 2, (((5,), F),)),
        Example(lambda x: (3 / x) / 2, (((5,), F),)),
        Example(lambda x: 3 / (2 / x), (((), F),)),
    ),
    "small integer power": (
        Example(lambda x: lax.integer_pow(x, 0), (((5,), F),)),
        Example(lambda x: lax.integer_pow_p.bind(x, y=1), (((2, 3), "complex64"),)),
        Example(lambda x: x**2, (((5,), F),)),
        Example(lambda x: x**2, (((5,), B),)),
        Example(lambda x: x**2, (((0,), I8),)),
    ),
    "even power without sign": (
        Example(lambda x: (-x) ** 4, (((5,), F),)),
        Example(lambda x: lax.abs(x) ** -2, (((), H),)),
        Example(lambda x: (-x) ** 4, (((7,), I8),)),
        Example(lambda x: (-x) ** 6, (((7,), U),)),
    ),
    "power with a whole exponent": (
        Example(lambda x: lax.pow(x, _number(3, x)), (((5,), F),)),
        Example(lambda x: lax.pow(x, _number(16, x)), (((5,), D),), x64=True),
        Example(lambda x: lax.pow(x, _number(7, x)), (((), F),)),
    ),
    "rounding of a whole number": (
        Example(lambda x: lax.floor(lax.ceil(x)), (((5,), F),)),
        Example(lambda x: lax.ceil(lax.round(x)), (((5,), H),)),
        Example(lambda x: lax.round(lax.sign(x), EVEN), (((2, 3), B),)),
        Example(lambda x: lax.round(lax.floor(x)), (((0,), F),)),
    ),
    "rounding of an integer": (
        Example(lambda x: lax.floor(x.astype(F)), (((5,), INT),)),
        Example(lambda x: lax.round(x.astype(B)), (((), "bool"),)),
    ),
    "negated round of a negative": (
        Example(lambda x: -lax.round(-x), (((5,), F),)),
        Example(lambda x: -lax.round(-x, EVEN), (((2, 3), B),)),
    ),
    "precision reduced twice": (
        Example(lambda x: lax.reduce_precision(lax.reduce_precision(x, 5, 3), 5, 10), (((5,), F),)),
        Example(lambda x: lax.reduce_precision(lax.reduce_precision(x, 4, 3), 4, 3), (((), B),)),
    ),
    "precision kept": (
        Example(lambda x: lax.reduce_precision(x, 8, 23), (((5,), F),)),
        Example(lambda x: lax.reduce_precision(x, 8, 23), (((5,), B),)),
        Example(lambda x: lax.reduce_precision(x, 5, 10), (((), H),)),
    ),
    "finite integer": (
        Example(lambda x: lax.is_finite(x.astype(F)), (((5,), INT),)),
        Example(lambda x: lax.is_finite(x.astype(H)), (((5,), I8),)),
        Example(lambda x: lax.is_finite(x.astype(B)), (((0,), "bool"),)),
    ),
    "finite round": (Example(lambda x: lax.is_finite(lax.round(x)), (((5,), F),)),),
    "extremum with an ineffective limit": (
        Example(lambda x: lax.max(x, _number(-np.inf, x)), (((5,), F),)),
        Example(lambda x: lax.min(_number(127, x), x), (((5,), I8),)),
        Example(lambda x: lax.max(x, _number(0, x)), (((2, 3), U),)),
        Example(lambda x: lax.min(x, _number(1, x)), (((3,), "bool"),)),
    ),
    "extremum with a deciding limit": (
        Example(lambda x: lax.max(x, _number(np.inf, x)), (((5,), F),)),
        Example(lambda x: lax.min(x, lax.full((5,), -128, x.dtype)), (((5,), I8),)),
        Example(lambda x: lax.max(x, _number(1, x)), (((), "bool"),)),
    ),
    "extremum of an extremum": (
        Example(lambda x: lax.max(lax.max(x, _number(1, x)), _number(2.5, x)), (((5,), F),)),
        Example(lambda x: lax.min(_number(3, x), lax.min(_number(5, x), x)), (((2, 3), I8),)),
        Example(lambda x: lax.max(lax.max(x, _number(0, x)), _number(-1, x)), (((0,), B),)),
    ),
    "clamp from extrema": (
        Example(lambda x: lax.min(lax.max(x, _number(0, x)), _number(6, x)), (((5,), F),)),
        Example(lambda x: lax.max(lax.min(x, _number(6, x)), _number(6, x)), (((5,), INT),)),
        Example(lambda x: lax.min(lax.max(x, lax.full((3,), -1, x.dtype)), lax.full((3,), 2, x.dtype)), (((3,), B),)),
    ),
    "extremum of a clamp": (
        Example(lambda x: lax.max(lax.clamp(_number(0, x), x, _number(6, x)), _number(3, x)), (((5,), F),)),
        Example(lambda x: lax.min(lax.clamp(_number(0, x), x, _number(6, x)), _number(9, x)), (((2, 3), I8),)),
    ),
    "clamp of a clamp": (
        Example(
            lambda x: lax.clamp(_number(1, x), lax.clamp(_number(0, x), x, _number(6, x)), _number(9, x)), (((5,), F),)
        ),
        Example(
            lambda x: lax.clamp(_number(6, x), lax.clamp(_number(0, x), x, _number(6, x)), _number(9, x)), (((), U8),)
        ),
    ),
    "clamp with an ineffective limit": (
        Example(lambda x: lax.clamp(_number(-np.inf, x), x, _number(6, x)), (((5,), F),)),
        Example(lambda x: lax.clamp(_number(0, x), x, _number(255, x)), (((5,), U8),)),
        Example(lambda x: lax.clamp(_number(0, x), x, _number(np.inf, x)), (((5,), B),)),
    ),
    "double conjugate": (Example(lambda z: lax.conj(lax.conj(z)), (((5,), "complex64"),)),),
    "conjugate of a pair": (
        Example(lambda x, y: lax.conj(lax.complex(x, y)), (((5,), F), ((5,), F))),
        Example(lambda x, y: lax.conj(lax.complex(x, y)), (((), D), ((), D)), x64=True),
    ),
    "part of a conjugate": (
        Example(lambda z: lax.real(lax.conj(z)), (((5,), "complex64"),)),
        Example(lambda z: lax.imag(lax.conj(z)), (((2, 3), "complex64"),)),
        Example(lambda z: lax.abs(lax.conj(z)), (((), "complex128"),), x64=True),
    ),
    "equation with a sum": (
        Example(lambda x: x + 3 == 2, (((5,), I8),)),
        Example(lambda x: 3 - x != 200, (((5,), U8),)),
        Example(lambda x: x - 3 == 7, (((), INT),)),
    ),
}

DECLINING: dict[str, tuple[Example, ...]] = {
    "choice between error functions": (
        Example(lambda p, x, y: lax.select_n(p, 1 + lax.erf(x), y), (((5,), "bool"), ((5,), F), ((5,), F))),
        Example(lambda p, x, y: lax.select_n(p, 2 + lax.erf(x), lax.erfc(y)), (((5,), "bool"), ((5,), F), ((5,), F))),
        Example(
            lambda p, x, y: lax.select_n(p, 1 + lax.erf(x), lax.erfc(y)) * lax.erf(x),
            (((5,), "bool"), ((5,), F), ((5,), F)),
        ),
    ),
    "quotient by a power of two": (
        Example(lambda x: x / 3, (((7,), F),)),
        Example(lambda x: x / _number(2.0**127, x), (((7,), F),)),  # whose reciprocal is denormal
        Example(lambda x: x / 0, (((7,), F),)),
        Example(lambda x: lax.div(x, _number(2, x)), (((7,), INT),)),
    ),
    "quotient by a scalar": (
        Example(lambda x: 1 / x, (((), F),)),
        Example(lambda x, y: x / y, (((3,), F), ((3,), F))),
        Example(lambda x: x / _number(1e-45, x), (((3,), F),)),
    ),
    "product with a mask": (
        Example(lambda x, y: x * y.astype(F), (((3,), F), ((3,), INT))),
        Example(lambda x, y: lax.mul(x, y.astype(F)), (((), F), ((3,), "bool"))),
    ),
    "integer quotient of a quotient": (
        Example(lambda x: lax.div(lax.div(x, _number(5, x)), _number(52, x)), (((4,), U8),)),
        Example(lambda x: lax.div(lax.div(x, _number(-1, x)), _number(7, x)), (((4,), INT),)),
        Example(lambda x: lax.div(lax.div(_number(100, x), x), _number(7, x)), (((4,), INT),)),
    ),
    "sum of constants": (
        Example(lambda x: (x + 2) - 3, (((5,), F),)),
        Example(lambda x: (x + _number(3e38, x)) + _number(3e38, x), (((5,), F),)),
    ),
    "like terms": (Example(lambda x: x * 3 - x, (((5,), F),)), Example(lambda x: x + x, (((5,), F),))),
    "product of constants": (
        Example(lambda x: x * 2 * 0.25, (((5,), F),)),
        Example(lambda x: x * _number(1e30, x) * _number(1e30, x), (((5,), F),)),
        Example(lambda x: 3 / (x * 2), (((5,), F),)),
        Example(lambda x: lax.div(x * 6, _number(3, x)), (((5,), INT),)),
    ),
    "small integer power": (
        Example(lambda x: x**3, (((5,), F),)),
        Example(lambda x: x**2, (((5,), "complex64"),)),
    ),
    "even power without sign": (Example(lambda x: (-x) ** 3, (((5,), F),)), Example(lambda x: x**4, (((5,), F),))),
    "power with a whole exponent": (
        Example(lambda x: lax.pow(x, _number(17, x)), (((5,), F),)),
        Example(lambda x: lax.pow(x, _number(-3, x)), (((5,), F),)),
        Example(lambda x: lax.pow(x, _number(2.5, x)), (((5,), F),)),
    ),
    "rounding of an integer": (Example(lambda x: lax.floor(x.astype(F)), (((5,), H),)),),
    "precision reduced twice": (
        Example(lambda x: lax.reduce_precision(lax.reduce_precision(x, 5, 10), 8, 3), (((5,), F),)),
    ),
    "precision kept": (Example(lambda x: lax.reduce_precision(x, 8, 7), (((5,), F),)),),
    "finite integer": (
        Example(lambda x: lax.is_finite(x.astype(H)), (((5,), INT),)),
        Example(lambda x: lax.is_finite(x.astype(F)), (((5,), H),)),
    ),
    "extremum with an ineffective limit": (
        Example(lambda x: lax.max(x, _number(0, x)), (((5,), F),)),
        Example(lambda x: lax.max(x, _number(np.nan, x)), (((5,), F),)),
    ),
    "extremum of an extremum": (
        Example(lambda x: lax.max(lax.max(x, _number(1, x)), _number(np.nan, x)), (((5,), F),)),
        Example(lambda x: lax.max(lax.min(x, _number(1, x)), _number(2, x)), (((5,), F),)),
    ),
    "clamp from extrema": (
        Example(lambda x: lax.min(lax.max(x, _number(6, x)), _number(0, x)), (((5,), F),)),
        Example(lambda x: lax.min(lax.max(x, _number(np.nan, x)), _number(0, x)), (((5,), F),)),
    ),
    "extremum of a clamp": (
        Example(lambda x: lax.max(lax.clamp(_number(0, x), x, _number(6, x)), _number(7, x)), (((5,), F),)),
    ),
    "clamp of a clamp": (
        Example(
            lambda x: lax.clamp(_number(7, x), lax.clamp(_number(0, x), x, _number(6, x)), _number(9, x)), (((5,), F),)
        ),
        Example(
            lambda x: lax.clamp(_number(0, x), lax.clamp(_number(6, x), x, _number(0, x)), _number(9, x)), (((5,), F),)
        ),
    ),
    "clamp with an ineffective limit": (Example(lambda x: lax.clamp(_number(0, x), x, _number(6, x)), (((5,), F),)),),
    "double conjugate": (Example(lambda x: lax.conj(lax.conj(x)), (((5,), F),)),),
    "part of a conjugate": (Example(lambda x: lax.real(lax.conj(x)), (((5,), F),)),),
    "equation with a sum": (Example(lambda x: x + 3 == 2, (((5,), F),)), Example(lambda x: x < 2, (((5,), INT),))),
}
