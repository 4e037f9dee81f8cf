"""The least that a call takes: the same operands, and new results of the same shapes and types, all of one number.

Whatever computes a result has to make it. Beside the times of a program these tell how much of them is computing: of a
call of JAX's some microseconds are not, and large results lie in memory that the system fills with zeros first.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import graphopt

JAX, NUMPY = "least", "numpy's least"
"""What the two are called among the contenders."""


def least(function: Callable[..., Any], args: tuple[Any, ...]) -> dict[str, Callable[..., Any]]:
    """The least calls for a function and its arguments: of a compiled JAX function, and in NumPy.

    In JAX a kernel writes the result, which is faster than XLA's code where memory is new. None without arguments, for
    the number is made of one: what is the same in each call would not be computed.
    """
    results = jax.eval_shape(function, *args)
    leaves = jax.tree.leaves(args)
    if not leaves or not leaves[0].size:
        return {}

    def in_jax(*args: Any) -> Any:
        first = jax.tree.leaves(args)[0].reshape(-1)[:1].reshape(())
        return jax.tree.map(lambda result: jnp.full(result.shape, first != 1, result.dtype), results)

    def in_numpy(*args: Any) -> Any:
        return jax.tree.map(lambda result: _zeros(result.shape, result.dtype), results)

    return {JAX: graphopt.jit(in_jax, backend="numba", keep_unused=True), NUMPY: in_numpy}


def _zeros(shape: tuple[int, ...], dtype: Any) -> Any:
    """Zeros that are written: `np.zeros` leaves large ones to the system until they are read. Written as bytes, which
    takes NumPy half of what other numbers take."""
    made = np.empty(shape, dtype)
    made.reshape(-1).view(np.uint8).fill(0)
    return made


def computing(seconds: Mapping[str, float]) -> tuple[float, float] | None:
    """Seconds of graphopt and of NumPy beyond the least call of each; None where that was not measured."""
    if JAX not in seconds:
        return None
    return seconds["graphopt"] - seconds[JAX], seconds["numpy"] - seconds[NUMPY]
