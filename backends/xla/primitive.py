"""The call primitive that an optimized function becomes.

Its parameter is the function's jaxpr, so grad, vmap, scan and the other transformations work on the program as it was
written; its lowering rule runs the passes on what is finally lowered, knowing the platform.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.extend.core import ClosedJaxpr

from graphopt.analysis.regular import sequence_of, triangle_of
from graphopt.backends.xla.region import LARGE, SMALL_CONSTANT, Region, RegionCall
from graphopt.backends.xla.target import Rewrite, Target
from graphopt.config import Options
from graphopt.errors import PassError
from graphopt.jax_internals import lowering, tracing
from graphopt.jax_internals.primitive import call_primitive, register_experimental_rules

# The user's own frames are what tracebacks and source locations should show.
_PACKAGE = Path(__file__).parents[2]
for _path in ("api.py", "jitted.py", "traceable.py", "jax_internals", "backends"):
    tracing.hide_frames(str(_PACKAGE / _path))

NAME = "optimized_call"


def optimized_call(rewrite: Rewrite) -> RegionCall:
    """A call whose program `rewrite` rewrites when it is lowered; to be made once a process for each `rewrite`."""

    def lower(ctx: Any, *values: Any, call_jaxpr: ClosedJaxpr, options: Options) -> Sequence[Any]:
        rewritten = rewrite(call_jaxpr, options, _target(ctx, values))
        _check_same_types(call_jaxpr, rewritten)
        return lowering.lower_inline(ctx, rewritten, *values)

    primitive = call_primitive(NAME, lower)

    def call(function: Callable[..., Any], options: Options, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        register_experimental_rules(primitive)
        region = Region(function, args, kwargs, tracing.is_traced_here)
        names = region.names(tracing.argument_names)
        operands = region.operands
        closed = tracing.trace_to_jaxpr(region.run, operands, function, names, region.result_paths)
        region.forget_arguments()
        # Left inside, a captured tracer would lose its outer gradient and a Ref its identity.
        closed, captured = tracing.lift_constants(closed, [_must_be_operand(c) for c in closed.consts])
        computed = primitive.bind(*captured, *operands, call_jaxpr=closed, options=options)  # type: ignore[no-untyped-call]
        return region.results(computed)

    return call


def _must_be_operand(constant: Any) -> bool:
    if isinstance(constant, jax.core.Tracer) or tracing.is_ref(constant):
        return True
    if isinstance(constant, jax.Array) and len(constant.sharding.device_set) > 1:
        return True
    if int(getattr(constant, "size", 1)) <= SMALL_CONSTANT:
        return False
    # What the passes find to be made of places alone is not read by the program.
    large = getattr(constant, "nbytes", LARGE) >= LARGE
    return large or (sequence_of(constant) is None and not _is_triangular(constant))


def _is_triangular(constant: Any) -> bool:
    return bool(constant.dtype == np.bool_) and triangle_of(constant) is not None


def _target(ctx: Any, values: Sequence[Any]) -> Target:
    return Target(
        platforms=lowering.lowering_platforms(ctx),
        num_devices=lowering.lowering_devices(ctx),
        for_export=lowering.is_lowering_for_export(ctx),
        symbolic=lowering.has_symbolic_dimensions(ctx),
        alone=lowering.is_alone(ctx, values),
    )


def _check_same_types(before: ClosedJaxpr, after: ClosedJaxpr) -> None:
    for what, old, new in (("inputs", before.in_avals, after.in_avals), ("results", before.out_avals, after.out_avals)):
        if [a.strip_weak_type() for a in old] != [a.strip_weak_type() for a in new]:
            raise PassError(f"the passes changed the {what} of a program from {old} to {new}; please report this")
