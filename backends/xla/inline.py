"""An optimized call by JAX's public interface alone, for a JAX whose internals are not known here.

The function is traced, rewritten and evaluated equation by equation in the trace that runs, so there is no call
primitive: the passes run before differentiation and batching rather than after, and cannot be sure of the platform.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
from jax.extend.core import ClosedJaxpr, Jaxpr, jaxpr_as_fun

from graphopt.backends.xla.region import Region, RegionCall
from graphopt.backends.xla.target import Rewrite, Target
from graphopt.config import Options


def inline_call(rewrite: Rewrite) -> RegionCall:
    """A call whose program is rewritten by `rewrite` while the caller is traced."""

    def call(function: Callable[..., Any], options: Options, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        region = Region(function, args, kwargs, lambda leaf: isinstance(leaf, jax.core.Tracer))
        operands = region.operands
        closed = jax.make_jaxpr(region.run)(*operands)
        region.forget_arguments()
        captured, closed = closed.consts, _with_constants_as_inputs(closed)
        # What is not known is assumed to be the case that allows least.
        target = Target(
            (jax.default_backend(),), jax.device_count(), for_export=True, symbolic=True, transformable=True
        )
        rewritten = rewrite(closed, options, target)
        return region.results(jaxpr_as_fun(rewritten)(*captured, *operands))

    return call


def _with_constants_as_inputs(closed: ClosedJaxpr) -> ClosedJaxpr:
    jaxpr = closed.jaxpr
    invars = [*jaxpr.constvars, *jaxpr.invars]
    return ClosedJaxpr(Jaxpr([], invars, jaxpr.outvars, jaxpr.eqns, jaxpr.effects, jaxpr.debug_info), [])
