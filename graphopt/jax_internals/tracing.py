"""Tracing a function, jaxprs with their binders regrouped, and the user's own lines."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
from jax._src import api_util, core, source_info_util, traceback_util
from jax._src import linear_util as lu
from jax._src.interpreters import partial_eval as pe
from jax._src.state.types import AbstractRef
from jax.extend.core import ClosedJaxpr, Jaxpr, Var


def is_traced_here(value: object) -> bool:
    """Whether `value` is a tracer of the innermost trace, the one that runs now."""
    return isinstance(value, core.Tracer) and value._trace is core.trace_ctx.trace


def is_ref(value: object) -> bool:
    """Whether `value` is a mutable reference, concrete or traced."""
    return isinstance(core.typeof(value), AbstractRef)


def argument_names(function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[str, ...]:
    """The path of every leaf of `(args, kwargs)` in the words of `function`'s signature, as in JAX's own errors."""
    names = api_util.debug_info("jit", function, args, kwargs).arg_names
    return names if names is not None else ("",) * len(jax.tree.leaves((args, kwargs)))


def trace_to_jaxpr(
    flat: Callable[..., Sequence[Any]],
    operands: Sequence[Any],
    function: Callable[..., Any],
    names: Sequence[str],
    result_paths: Callable[[], tuple[str, ...]],
) -> ClosedJaxpr:
    """Trace `flat` on tracers of the types of `operands`; all of its results must be tracers of that trace.

    `function` is the user's own function and `names` its arguments' names, for JAX's error messages; `result_paths` is
    called after the trace and gives the places of the results in what `function` returned.
    """
    source = api_util.fun_sourceinfo(function)
    debug_info = core.DebugInfo("jit", source, tuple(names), None)
    wrapped = lu.wrap_init(flat, debug_info=debug_info)
    wrapped.debug_info = debug_info._replace(result_paths=result_paths)
    jaxpr, _, consts = pe.trace_to_jaxpr_dynamic(wrapped, [input_type(x) for x in operands])
    return ClosedJaxpr(jaxpr, consts)


def input_type(value: Any) -> Any:
    """The type of a value as an input of a jaxpr."""
    aval = core.typeof(value)
    # jax 0.10 keeps the state of a mutable "box" next to its type.
    return core.AvalQDD(aval, core.cur_qdd(value)) if getattr(aval, "has_qdd", False) else aval


def lift_constants(closed: ClosedJaxpr, lift: Sequence[bool]) -> tuple[ClosedJaxpr, list[Any]]:
    """Turn the constants marked in `lift` into leading inputs; also returns their values, in that order."""
    constvars, consts = closed.jaxpr.constvars, closed.consts
    kept = [(v, c) for v, c, lifted in zip(constvars, consts, lift, strict=True) if not lifted]
    moved = [(v, c) for v, c, lifted in zip(constvars, consts, lift, strict=True) if lifted]
    invars = [*(v for v, _ in moved), *closed.jaxpr.invars]
    jaxpr = rebuild(closed.jaxpr, [v for v, _ in kept], invars, closed.jaxpr.outvars, [""] * len(moved))
    return ClosedJaxpr(jaxpr, [c for _, c in kept]), [c for _, c in moved]


def rebuild(
    jaxpr: Jaxpr, constvars: Sequence[Var], invars: Sequence[Var], outvars: Sequence[Any], new_names: Sequence[str]
) -> Jaxpr:
    """`jaxpr` with its binders regrouped; effects that point at an input by number are counted anew."""
    debug_info = jaxpr.debug_info
    if debug_info.arg_names is not None:
        debug_info = debug_info._replace(arg_names=(*new_names, *debug_info.arg_names))
    effects = pe.make_jaxpr_effects(constvars, invars, outvars, jaxpr.eqns)
    return core.Jaxpr(constvars, invars, outvars, jaxpr.eqns, effects, debug_info, jaxpr.is_high)


def with_known(closed: ClosedJaxpr, known: Sequence[bool], values: Sequence[Any]) -> ClosedJaxpr:
    """`closed` with the inputs marked in `known` as constants of these values."""
    jaxpr, names = closed.jaxpr, closed.jaxpr.debug_info.arg_names
    given = [v for v, k in zip(jaxpr.invars, known, strict=True) if k]
    constvars = [*given, *jaxpr.constvars]
    invars = [v for v, k in zip(jaxpr.invars, known, strict=True) if not k]
    debug_info = jaxpr.debug_info
    if names is not None:
        debug_info = debug_info._replace(arg_names=tuple(n for n, k in zip(names, known, strict=True) if not k))
    effects = pe.make_jaxpr_effects(constvars, invars, jaxpr.outvars, jaxpr.eqns)
    new = core.Jaxpr(constvars, invars, jaxpr.outvars, jaxpr.eqns, effects, debug_info, jaxpr.is_high)
    return ClosedJaxpr(new, [*values, *closed.consts])


def with_equations(jaxpr: Jaxpr, constvars: Sequence[Var], new_inputs: Sequence[Var], eqns: Sequence[Any]) -> Jaxpr:
    """`jaxpr` with these equations, and with more inputs, which come first."""
    again = jaxpr.replace(eqns=list(eqns))
    return rebuild(again, constvars, [*new_inputs, *jaxpr.invars], jaxpr.outvars, [""] * len(new_inputs))


def hide_frames(path: str) -> None:
    """Leave the frames of the files under `path` out of JAX's filtered tracebacks and source locations."""
    traceback_util.register_exclusion(path)
    source_info_util.register_exclusion(path)


def user_line(source_info: Any) -> str:
    """The line of the user's own code that an equation comes from, as `file:line (function)`; empty if not known."""
    summary = source_info_util.summarize(source_info)
    return "" if summary.startswith("unknown") else summary
