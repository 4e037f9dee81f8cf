"""float16 and bfloat16 in kernels: kept as their bits, in uint16, and computed on in float32.

Numba has no bfloat16, and little for float16. A value is widened before each operation and rounded after it, to the
nearest, ties to even, as XLA:CPU does (its `float-normalization` keeps the rounding between operations of one fusion).
What only moves, selects or looks at bits is done on the bits, so that a NaN keeps its payload.

Where a processor computes on float16 itself, XLA has it do so: float64 is rounded to it once there, not to float32
first, and a product that is added to something is not rounded (LLVM contracts the two).
"""

from __future__ import annotations

from functools import cache
from typing import Any

import jax.numpy as jnp
import llvmlite.binding as llvm
import numpy as np

FLOAT16 = np.dtype(np.float16)

HALVES = (FLOAT16, np.dtype(jnp.bfloat16))


@cache
def computes_on_float16() -> bool:
    """Whether this processor has instructions for sums and products of float16."""
    features = llvm.get_host_cpu_features()
    return bool(features.get("avx512fp16") or features.get("fullfp16"))


def is_half(dtype: Any) -> bool:
    """Whether a dtype is float16 or bfloat16."""
    return dtype in HALVES


def kept_as(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """The dtype in which values of a dtype are kept: of a half its bits."""
    return np.dtype(np.uint16) if is_half(dtype) else dtype


def computed_as(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """The dtype in which values of a dtype are computed on."""
    return np.dtype(np.float32) if is_half(dtype) else dtype


def widened(dtype: np.dtype[Any], source: str) -> str:
    """A value of a dtype as the one that is computed on."""
    return f"widen_{dtype.name}({source})" if is_half(dtype) else source


def narrowed(dtype: np.dtype[Any], source: str) -> str:
    """What was computed, rounded to a dtype."""
    return f"narrow_{dtype.name}({source})" if is_half(dtype) else source
