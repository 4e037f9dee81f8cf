"""Where and for what code is lowered."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from jax._src import core
from jax._src.interpreters import mlir
from jax._src.sharding_impls import ShardingContext, SPMDAxisContext
from jax._src.state import discharge
from jax.extend.core import ClosedJaxpr


def lowering_platforms(ctx: Any) -> tuple[str, ...]:
    """The platforms that the code being lowered is for."""
    return tuple(ctx.platforms or ctx.module_context.platforms)


def lowering_devices(ctx: Any) -> int:
    """How many devices the partitioner may spread the code being lowered over: 1 where every mesh axis is manual."""
    axes = ctx.module_context.axis_context
    if isinstance(axes, ShardingContext):
        return axes.num_devices
    if isinstance(axes, SPMDAxisContext):
        free = [size for name, size in axes.mesh.shape.items() if name not in axes.manual_axes]
        return math.prod(free)
    return 1


def differs_by_mesh_only(context: Any) -> bool:
    """Whether what an equation carries besides its parameters says in which mesh it runs, and nothing else."""
    here = core.JaxprEqnContext()
    names = set(type(context).__slots__) - {"cur_abstract_mesh", "configs", "__weakref__"}
    return all(getattr(context, name) == getattr(here, name) for name in names)


def is_lowering_for_export(ctx: Any) -> bool:
    """Whether the module is to be serialized."""
    return bool(ctx.module_context.lowering_parameters.for_export)


def has_symbolic_dimensions(ctx: Any) -> bool:
    """Whether a dimension of the module's arguments is a symbol rather than a number."""
    state = ctx.module_context.shape_poly_state
    return len(state.dim_vars) > int(state.has_platform_index_argument)  # the index stands among the dimensions


def is_alone(ctx: Any, values: Sequence[Any]) -> bool:
    """Whether what is lowered for `values` seems to be all of its program, to which no argument's memory is given.

    It takes all arguments and has the results' shapes; nothing comes before it. What comes after it is not known.
    """
    block = mlir.ir.InsertionPoint.current.block
    main: Any = block.owner
    is_main = "sym_name" in main.attributes and mlir.ir.StringAttr(main.attributes["sym_name"]).value == "main"
    if not is_main or len(block.operations) > 0 or len(block.arguments) != len(values):
        return False
    if not all(argument in values for argument in block.arguments):
        return False
    donated = any(name in attrs for attrs in main.arg_attrs for name in ("jax.buffer_donor", "tf.aliasing_output"))
    shapes = [tuple(getattr(kind, "shape", ())) for kind in main.type.results]
    return not donated and shapes == [getattr(aval, "shape", None) for aval in ctx.avals_out]


def lower_inline(ctx: Any, closed: ClosedJaxpr, *values: Any) -> Sequence[Any]:
    """Lower the equations of `closed` at the place that `ctx` describes; references made inside become plain values."""
    if any(isinstance(effect, core.InternalMutableArrayEffect) for effect in closed.effects):
        closed = discharge.discharge_state(closed)
    module = ctx.module_context if ctx.platforms is None else ctx.module_context.replace(platforms=ctx.platforms)
    outs, tokens = mlir.jaxpr_subcomp(
        module,
        closed.jaxpr,
        ctx.name_stack,
        ctx.tokens_in,
        mlir.ir_consts(closed.consts, [v.aval for v in closed.jaxpr.constvars]),
        *values,
        dim_var_values=ctx.dim_var_values,
        const_lowering=ctx.const_lowering,
        outer_traceback=ctx.traceback,
    )
    ctx.set_tokens_out(tokens)
    return outs
