"""How a kernel stands in the XLA program: a custom call of the one handler, with the kernel's key."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
from jax.interpreters import mlir

from graphopt.backends.numba.engine import NumbaEngine, compile_kernel
from graphopt.backends.numba.objects import TARGET, register_handler
from graphopt.ops.kernel import kernel_p

ENGINE = NumbaEngine()


def _lower(ctx: Any, *operands: Any, body: Any, key: int, engine: str, in_place: Any = ()) -> Any:
    register_handler()
    compile_kernel(key)
    return jax.ffi.ffi_lowering(TARGET, operand_output_aliases=dict(in_place) or None)(
        ctx, *operands, kernel=np.uint64(key)
    )


mlir.register_lowering(kernel_p, _lower, platform="cpu")
