"""Elementwise operations: one result element from the elements at the same position.

`fold` is given only where NumPy's result has the same bits as XLA's: integers, booleans, comparisons, and sums and
products that IEEE 754 rounds in one way only. Where a NaN or a denormal comes in or out it is left to XLA, which on
some platforms flushes denormals that NumPy keeps.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.extend.core import primitives as p

from graphopt.ir.attrs import Attrs
from graphopt.ir.aval import Aval
from graphopt.ir.op import Op, register

Array = np.ndarray[Any, Any]


def one_per_element(attrs: Attrs, ins: Sequence[Aval], outs: Sequence[Aval]) -> int:
    """One operation for each element of the result."""
    return outs[0].size


def _integer_only(function: Callable[..., Any]) -> Callable[..., Array]:
    """`function` on integers and booleans; NotImplemented, which leaves the node alone, on anything else."""

    def fold(attrs: Attrs, *operands: Array) -> Any:
        if any(x.dtype.kind not in "biu" for x in operands):
            return NotImplemented
        with np.errstate(all="ignore"):
            return np.asarray(function(*operands))

    return fold


def _rounded_once(function: Callable[..., Any]) -> Callable[..., Array]:
    """As `_integer_only`, and on floating numbers where operands and result are zero or normal."""
    integers = _integer_only(function)

    def fold(attrs: Attrs, *operands: Array) -> Any:
        if not jnp.issubdtype(operands[0].dtype, np.floating):
            return integers(attrs, *operands)
        # The products of NumPy's half floats and of bfloat16 are rounded from float32, and so are XLA's.
        if operands[0].dtype not in _ROUNDED or not all(map(_is_normal, operands)):
            return NotImplemented
        with np.errstate(all="ignore"):
            result = np.asarray(function(*operands))
        return result if result.dtype == operands[0].dtype and _is_normal(result) else NotImplemented

    return fold


_ROUNDED = tuple(map(np.dtype, (np.float16, jnp.bfloat16, np.float32, np.float64)))


def _is_normal(x: Array) -> bool:
    size = np.abs(x)
    return bool(np.all((size == 0) | ((size >= jnp.finfo(x.dtype).tiny) & (size <= jnp.finfo(x.dtype).max))))


def _compare(function: Callable[..., Any]) -> Callable[..., Array]:
    def fold(attrs: Attrs, x: Array, y: Array) -> Any:
        # Of ml_dtypes' types some have the kind "f" too, without NumPy knowing what a denormal of them is.
        if x.dtype.kind not in "biuf" or x.dtype.isbuiltin != 1 or _has_denormal(x) or _has_denormal(y):
            return NotImplemented
        return np.asarray(function(x, y))

    return fold


def _has_denormal(x: Array) -> bool:
    return x.dtype.kind == "f" and bool(np.any((x != 0) & (np.abs(x) < np.finfo(x.dtype).tiny)))


def _select(attrs: Attrs, which: Array, *cases: Array) -> Any:
    index = which.astype(np.int64)
    if index.size and not (index.min() >= 0 and index.max() < len(cases)):
        return NotImplemented
    if cases[0].shape != index.shape:
        return cases[int(index)]
    return np.take_along_axis(np.stack(cases), index[np.newaxis], axis=0)[0]


def _convert(attrs: Attrs, x: Array) -> Any:
    dtype = attrs["new_dtype"]
    if not isinstance(dtype, np.dtype) or x.dtype.kind not in "biu" or dtype.kind not in "biu":
        return NotImplemented
    return x != 0 if dtype == np.bool_ else x.astype(dtype)


# fmt: off
_COUNTED = [
    "abs", "exp", "exp2", "expm1", "log", "log1p", "log2", "sqrt", "rsqrt", "cbrt", "square", "sign", "floor", "ceil",
    "round",
    "sin", "cos", "tan", "asin", "acos", "atan", "sinh", "cosh", "tanh", "asinh", "acosh", "atanh", "logistic", "erf",
    "erfc", "erf_inv", "lgamma", "digamma", "igamma", "igammac", "div", "rem", "pow", "integer_pow", "atan2", "clamp",
    "nextafter", "is_finite", "reduce_precision", "real", "imag", "complex", "conj", "population_count", "clz",
    "shift_left", "shift_right_logical", "shift_right_arithmetic",
]
# fmt: on
_FOLDED: dict[str, Callable[..., Array]] = {
    "add": _rounded_once(np.add),
    "sub": _rounded_once(np.subtract),
    "mul": _rounded_once(np.multiply),
    "neg": _rounded_once(np.negative),
    "max": _integer_only(np.maximum),
    "min": _integer_only(np.minimum),
    "and": _integer_only(np.bitwise_and),
    "or": _integer_only(np.bitwise_or),
    "xor": _integer_only(np.bitwise_xor),
    "not": _integer_only(np.invert),
    "eq": _compare(np.equal),
    "ne": _compare(np.not_equal),
    "lt": _compare(np.less),
    "le": _compare(np.less_equal),
    "gt": _compare(np.greater),
    "ge": _compare(np.greater_equal),
    "select_n": _select,
    "convert_element_type": _convert,
}

OPS = tuple(
    register(Op(primitive.name, primitive, flops=one_per_element, fold=_FOLDED.get(primitive.name), elementwise=True))
    for primitive in (getattr(p, f"{name}_p", None) for name in (*_COUNTED, *_FOLDED))
    if primitive is not None
)
