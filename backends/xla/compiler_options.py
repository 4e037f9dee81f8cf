"""Options of XLA's compiler that are worth a measurement on CPUs. Beside speed they change the order of sums."""

from __future__ import annotations

from functools import cache

import jax
import numpy as np

CompilerOption = tuple[str, str | bool]

MEASURED: tuple[CompilerOption, ...] = (
    ("xla_cpu_experimental_ynn_fusion_type", ""),  # see graphopt.analysis.swallowed
    ("xla_cpu_experimental_ynn_fusion_type", "LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT"),
    ("xla_cpu_prefer_vector_width", "512"),
    ("xla_cpu_enable_concurrency_optimized_scheduler", True),
    ("xla_cpu_enable_concurrency_optimized_scheduler", False),
    ("xla_cpu_scheduler_type", "CPU_SCHEDULER_TYPE_MEMORY_OPTIMIZED"),
)
"""Names and values, which not every version of XLA knows."""


@cache
def is_accepted(option: CompilerOption) -> bool:
    """Whether the installed XLA knows an option and this value of it: it is asked to compile a sum."""
    name, value = option
    try:
        jax.jit(lambda x: x + 1).lower(np.float32(1)).compile(compiler_options={name: value})
    except (jax.errors.JaxRuntimeError, ValueError):
        return False
    return True


def accepted_options() -> tuple[CompilerOption, ...]:
    """Those that the installed XLA knows."""
    return tuple(option for option in MEASURED if is_accepted(option))
