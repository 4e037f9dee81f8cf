"""How a barrier is lowered: by XLA's own where that lasts until operations are ordered, by a choice on a CPU.

XLA:CPU takes its own barriers out before it merges equal operations (in jax 0.10 always), and then the recomputation is
gone. A choice between `x` and zeros by a condition that holds always, which XLA does not find out, stays: the condition
is read off one element of the value that is waited for. It is exact for all bits, and part of the loop that reads `x`.

A fence is XLA's barrier everywhere: those last until its algebra is done.
"""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
from jax import lax
from jax.interpreters import mlir

from graphopt.ops.barrier import barrier_p, fence_p


def holds(until: Any) -> Any:
    """True, as XLA does not know: whether the highest bits of an element of an array are less than two.

    Which element is found by a branch, for that takes the array as it lies in memory. An element that is cut out of it
    XLA would compute by itself, and early.
    """
    last = lax.slice(until, tuple(n - 1 for n in until.shape), until.shape).reshape(())
    return lax.cond(
        _highest(last) == 0, lambda x: _highest(x[(0,) * x.ndim]) < 2, lambda x: _highest(x[(-1,) * x.ndim]) < 2, until
    )


def _highest(x: Any) -> Any:
    """The highest bit of an element."""
    if jnp.issubdtype(x.dtype, jnp.complexfloating):
        x = lax.real(x)
    if x.dtype == jnp.bool_:
        x = lax.convert_element_type(x, jnp.uint8)
    bits = lax.bitcast_convert_type(x, jnp.dtype(f"uint{8 * x.dtype.itemsize}"))
    return lax.shift_right_logical(bits, jnp.asarray(8 * bits.dtype.itemsize - 1, bits.dtype))


def _choice(x: Any, until: Any, *, id: int) -> Any:
    return lax.select(lax.broadcast(holds(until), x.shape), x, lax.full_like(x, 0))


def _barrier(x: Any, until: Any, *, id: int) -> Any:
    return lax.optimization_barrier((x, until))[0]


mlir.register_lowering(barrier_p, mlir.lower_fun(_barrier, multiple_results=False))
mlir.register_lowering(barrier_p, mlir.lower_fun(_choice, multiple_results=False), platform="cpu")
mlir.register_lowering(fence_p, mlir.lower_fun(lax.optimization_barrier, multiple_results=False))
