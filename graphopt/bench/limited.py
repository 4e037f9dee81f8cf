"""Programs that may take no more than a share of the memory that they take under `jax.jit`."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import jax

import graphopt
from graphopt.bench import models, steady
from graphopt.bench.programs import Program
from graphopt.bench.rows import Row

SHARE = 0.6
"""Of the bytes that XLA says jax.jit's program needs: the `memory_limit`."""

LIMITED: tuple[Callable[[], Program], ...] = (models.transformer_backward, models.cnn_step)


def measure(program: Program, repeats: int) -> Row:
    """Measure a program within its limit; a row with an error where the limit is not met.

    What that costs is seen beside the row of the same program in the suite `programs`, which has no limit.
    """
    needed = steady.needed_bytes(jax.jit(program.make()).lower(*program.arguments()).compile())
    if needed is None:
        return Row(program.name, error="XLA does not say what memory the program needs")
    limited = partial(graphopt.jit, memory_limit=int(SHARE * needed))
    return steady.measure(program, repeats, steady.JITS | {"graphopt": limited})
