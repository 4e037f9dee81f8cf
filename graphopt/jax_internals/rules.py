"""The transformation rules of a call primitive on jax 0.10, modelled on what jax 0.11 registers for `eval_jaxpr_p`."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import compress
from typing import Any

import jax
from jax._src import core, source_info_util, util
from jax._src import linear_util as lu
from jax._src.interpreters import ad, batching, remat
from jax._src.interpreters import partial_eval as pe
from jax._src.state import discharge
from jax._src.state.types import AbstractRef
from jax.extend.core import ClosedJaxpr, Primitive

from graphopt.jax_internals.tracing import input_type


def register_call_primitive_rules(primitive: Primitive) -> None:
    """Give a primitive over `call_jaxpr` its rules, as the function of this name does from jax 0.11 on."""
    primitive.def_effectful_abstract_eval(
        lambda *_, call_jaxpr, **__: (call_jaxpr.out_avals, core.positional_effects(call_jaxpr))
    )
    primitive.to_lojax = partial(_to_lojax, primitive)  # type: ignore[method-assign]
    core.custom_typechecks[primitive] = _typecheck
    ad.primitive_jvps[primitive] = partial(_jvp, primitive)
    ad.primitive_linearizations[primitive] = partial(_linearize, primitive)
    ad.fancy_transposes[primitive] = partial(_transpose, primitive)
    batching.fancy_primitive_batchers[primitive] = partial(_batch, primitive)
    pe.custom_partial_eval_rules[primitive] = partial(_partial_eval, primitive)
    pe.partial_eval_jaxpr_custom_rules[primitive] = pe.partial_eval_jaxpr_custom_rules[core.closed_call_p]
    pe.dce_rules[primitive] = pe.dce_rules[core.closed_call_p]
    remat.rules[primitive] = partial(_remat, primitive)
    discharge.register_discharge_rule(primitive)(partial(_discharge, primitive))


def _typecheck(context: Any, *operands: Any, call_jaxpr: ClosedJaxpr, **_: Any) -> Any:
    return core.custom_typechecks[core.closed_call_p](context, *operands, call_jaxpr=call_jaxpr)


def _jvp(primitive: Primitive, primals: Any, tangents: Any, *, call_jaxpr: ClosedJaxpr, **params: Any) -> Any:
    nonzero = [type(t) is not ad.Zero for t in tangents]
    jvp, nonzero_out = ad.jvp_jaxpr(call_jaxpr, nonzero, False)
    outs = primitive.bind(*primals, *compress(tangents, nonzero), call_jaxpr=jvp, **params)
    primals_out, tangents_out = util.split_list(outs, [len(call_jaxpr.out_avals)])
    return primals_out, _with_zeros(tangents_out, nonzero_out, call_jaxpr)


def _linearize(
    primitive: Primitive, is_vjp: Any, nonzero: Any, *primals: Any, call_jaxpr: ClosedJaxpr, **params: Any
) -> Any:
    primal, n_residuals, nonzero_out, forwarded, tangent = ad.linearize_jaxpr(call_jaxpr, nonzero, is_vjp=is_vjp)
    outs = primitive.bind(*primals, call_jaxpr=primal, **params)
    primals_out, residuals = util.split_list(outs, [len(outs) - n_residuals])
    residuals = util.subs_list(forwarded, [*call_jaxpr.consts, *primals], residuals)

    def tangent_function(residuals: Any, *tangents: Any) -> Any:
        given = [ad.instantiate_zeros(t) for t in compress(tangents, nonzero)]
        return _with_zeros(primitive.bind(*residuals, *given, call_jaxpr=tangent, **params), nonzero_out, call_jaxpr)

    return primals_out, nonzero_out, residuals, tangent_function


def _with_zeros(tangents: Sequence[Any], nonzero: Sequence[bool], closed: ClosedJaxpr) -> list[Any]:
    given = iter(tangents)
    avals = [aval.to_tangent_aval() for aval in closed.out_avals]
    return [next(given) if nz else ad.Zero(aval) for nz, aval in zip(nonzero, avals, strict=True)]


def _transpose(primitive: Primitive, cotangents: Any, *args: Any, call_jaxpr: ClosedJaxpr, **params: Any) -> None:
    accumulators, specs = ad.project_accums(args)
    flat, in_tree = jax.tree.flatten((accumulators, cotangents))
    transposed, out_tree = _transposed_jaxpr(call_jaxpr, in_tree, tuple(map(input_type, flat)), specs)
    outs = jax.tree.unflatten(out_tree, primitive.bind(*flat, call_jaxpr=transposed, **params))
    for accumulator, cotangent in zip(args, outs, strict=True):
        if isinstance(accumulator, ad.ValAccum):
            accumulator.accum(cotangent)


@util.weakref_lru_cache
def _transposed_jaxpr(closed: ClosedJaxpr, in_tree: Any, in_avals: Any, specs: Any) -> tuple[ClosedJaxpr, Any]:
    out_tree = None

    def transposed(*flat: Any) -> Any:
        nonlocal out_tree
        accumulators, cotangents = jax.tree.unflatten(in_tree, flat)
        args = ad.unproject_accums(specs, accumulators)
        ad.backward_pass3(closed.jaxpr, False, closed.consts, args, cotangents)
        outs, out_tree = jax.tree.flatten([x.freeze() if isinstance(x, ad.ValAccum) else None for x in args])
        return outs

    function = lu.wrap_init(transposed, debug_info=closed.jaxpr.debug_info.with_unknown_names())
    jaxpr, _, consts = pe.trace_to_jaxpr_dynamic(function, in_avals)
    return ClosedJaxpr(jaxpr, consts), out_tree


def _batch(primitive: Primitive, axis: Any, args: Any, dims: Any, *, call_jaxpr: ClosedJaxpr, **params: Any) -> Any:
    batched, out_dims = batching.batch_jaxpr2(call_jaxpr, axis, tuple(dims))
    return primitive.bind(*args, call_jaxpr=batched, **params), list(out_dims)


def _partial_eval(primitive: Primitive, trace: Any, *tracers: Any, call_jaxpr: ClosedJaxpr, **params: Any) -> Any:
    unknown = [not t.pval.is_known() for t in tracers]
    known_inputs = [t.pval.get_known() for t in tracers if t.pval.is_known()]
    known, staged, unknown_out, residual_avals, forwarded = pe.partial_eval_jaxpr_nounits_fwd(
        call_jaxpr, unknown, instantiate=False
    )
    outs = primitive.bind(*known_inputs, call_jaxpr=known, **params)
    known_outs, residuals = util.split_list(outs, [len(outs) - len(residual_avals)])
    residuals = util.subs_list(forwarded, [*call_jaxpr.consts, *known_inputs], residuals)
    tracers_in = [*map(trace.new_instantiated_const, residuals), *compress(tracers, unknown)]
    tracers_out = [pe.JaxprTracer(trace, pe.PartialVal.unknown(aval), None) for aval in staged.out_avals]
    effects = core.positional_effects(staged)
    source = source_info_util.current()
    recipe = pe.new_eqn_recipe(
        trace, tracers_in, tracers_out, primitive, {**params, "call_jaxpr": staged}, effects, source
    )
    for tracer in tracers_out:
        tracer.recipe = recipe
    if pe.effects.partial_eval_kept_effects.filter_in(staged.effects):
        trace.effect_handles.append(pe.EffectHandle(tracers_in, recipe))
    return util.merge_lists(unknown_out, known_outs, tracers_out)


def _remat(primitive: Primitive, policy: Any, *args: Any, call_jaxpr: ClosedJaxpr, **params: Any) -> Any:
    forward, again, _ = remat.remat_jaxpr(call_jaxpr, policy)
    outs = primitive.bind(*args, call_jaxpr=forward, **params)
    primals_out, residuals = util.split_list(outs, [len(call_jaxpr.out_avals)])
    return primals_out, partial(primitive.bind, *residuals, call_jaxpr=again, **params)


def _discharge(primitive: Primitive, in_avals: Any, _: Any, *args: Any, call_jaxpr: ClosedJaxpr, **params: Any) -> Any:
    discharged = _discharged(call_jaxpr)
    outs = primitive.bind(*args, call_jaxpr=discharged, **params)
    results, finals = util.split_list(outs, [len(call_jaxpr.out_avals)])
    final = iter(finals)
    return [next(final) if isinstance(a, AbstractRef) else None for a in in_avals], results


@util.weakref_lru_cache
def _discharged(closed: ClosedJaxpr) -> ClosedJaxpr:
    return discharge.discharge_state(closed)


def _to_lojax(primitive: Primitive, *args: Any, call_jaxpr: ClosedJaxpr, **params: Any) -> Any:
    if any(aval.has_qdd for aval in call_jaxpr.in_aval_qdds):
        raise NotImplementedError("a function that graphopt optimizes cannot take a box that JAX mutates")
    lowered = pe.lower_jaxpr2(call_jaxpr)
    low = [x for aval, arg in zip(call_jaxpr.in_avals, args, strict=True) for x in aval.lower_val(arg)]
    outs = iter(primitive.bind(*low, call_jaxpr=lowered, **params))
    return [aval.raise_val(*(next(outs) for _ in aval.lo_ty())) for aval in call_jaxpr.out_avals]
