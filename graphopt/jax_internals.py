"""All that graphopt needs of JAX beyond its public interface: the one file that imports `jax._src`.

Tried on jax 0.10.2 (Python 3.11), 0.11.2 (3.12) and 0.12.0 (3.13). What differs between them is how a primitive that
carries a jaxpr gets its transformation rules: by a public function from 0.11 on, written out here for 0.10. On a series
that is not in `graphopt.traceable.TRIED_JAX` the call primitive is not made: see `graphopt.traceable.choose_call`.
"""

from __future__ import annotations

import importlib
import math
import sys
import weakref
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import numpy as np
from jax import jit as jax_jit
from jax._src import api_util, checkify, core, pjit, source_info_util, traceback_util, util
from jax._src import linear_util as lu
from jax._src.interpreters import ad, batching, mlir, remat
from jax._src.interpreters import partial_eval as pe
from jax._src.sharding_impls import UNSPECIFIED, ShardingContext, SPMDAxisContext
from jax._src.state import discharge
from jax._src.state.types import AbstractRef
from jax.extend.core import ClosedJaxpr, Jaxpr, Primitive, Var, jaxpr_as_fun

try:  # jax >= 0.11
    from jax.extend.core import register_call_primitive_rules
except ImportError:
    register_call_primitive_rules = None

LoweringRule = Callable[..., Sequence[Any]]

# ---- tracing -------------------------------------------------------------------------------------------------------


def is_traced_here(value: object) -> bool:
    """Whether `value` is a tracer of the innermost trace, the one that runs now."""
    return isinstance(value, core.Tracer) and value._trace is core.trace_ctx.trace


def is_ref(value: object) -> bool:
    """Whether `value` is a mutable reference, concrete or traced."""
    return isinstance(core.typeof(value), AbstractRef)


def with_cache_miss(jitted: Any, around: Callable[[Callable[..., Any]], Callable[..., Any]]) -> Any:
    """`jitted`, a function made by `jax.jit`, again, with `around(miss)` in place of its `miss`.

    `miss` is the Python function that its C++ part calls when it has no compiled program for the arguments. Programs
    compiled for one of the two are found by both.
    """
    kind: Any = type(jitted)
    again = kind.__new__(kind)
    state = jitted.__getstate__()
    again.__setstate__({**state, "cache_miss": around(state["cache_miss"])})
    again.__dict__.update(jitted.__dict__)
    return again


def cache_miss_of(jitted: Any) -> Callable[..., Any]:
    """The Python function that the C++ part of what `jax.jit` made calls when it has no compiled program."""
    miss: Callable[..., Any] = jitted.__getstate__()["cache_miss"]
    return miss


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
    jaxpr, _, consts = pe.trace_to_jaxpr_dynamic(wrapped, [_input_type(x) for x in operands])
    return ClosedJaxpr(jaxpr, consts)


def _input_type(value: Any) -> Any:
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


# ---- captured arrays as operands of the compiled program -----------------------------------------------------------

Binder = Callable[[ClosedJaxpr], "tuple[ClosedJaxpr, list[Any]] | None"]
"""`bind(closed)`: the program with more operands, which come first, and their values; None where there are none."""


@util.weakref_lru_cache
def _bound(closed: ClosedJaxpr, bind: Binder) -> tuple[ClosedJaxpr, list[Any]] | None:
    return bind(closed)


def with_operands(jitted: Any, bind: Binder) -> Any:
    """`jitted`, a function made by `jax.jit`, again, with the operands that `bind` adds to each program of its.

    They are passed as JAX passes constants that it has hoisted itself
    (https://docs.jax.dev/en/latest/internals/constants.html): the C++ part of the call knows them, so that no call
    passes through Python for them. Inside of other traces the function is as `jax.jit` made it.
    """
    function, info = jitted._fun, jitted._jit_info

    def around(miss: Callable[..., Any]) -> Callable[..., Any]:
        @traceback_util.api_boundary
        def missed(*args: Any, **kwargs: Any) -> Any:
            looks_for_nan = jax.config.jax_debug_nans or jax.config.jax_debug_infs
            if looks_for_nan or jax.config.jax_no_tracing or not core.trace_state_clean():
                return miss(*args, **kwargs)
            params, given = pjit._infer_params(function, info, args, kwargs)
            found = _bound(params.params["jaxpr"], bind)
            if found is None:
                return miss(*args, **kwargs)
            with_more = _with_operands(params, *found)
            outs, flat, tree, _, closed, executable, profiler, hoisted = pjit._run_python_pjit(
                with_more, [*found[1], *given], function, args, kwargs
            )
            consts = [*hoisted, *_placed(executable, found[1], len(hoisted))]
            data = pjit._get_fastpath_data(
                executable, tree, given, flat, closed.effects, closed.consts, profiler, consts
            )
            return outs, data, pjit._need_to_rebuild_with_fdo(profiler)

        return missed

    return with_cache_miss(jitted, around)


def _with_operands(params: Any, closed: ClosedJaxpr, values: Sequence[Any]) -> Any:
    """JAX's parameters of a jitted program with more operands, which come first."""
    more = {
        "jaxpr": closed,
        "in_shardings": (UNSPECIFIED,) * len(values) + tuple(params.params["in_shardings"]),
        "in_layouts": (None,) * len(values) + tuple(params.params["in_layouts"]),
        "donated_invars": (False,) * len(values) + tuple(params.params["donated_invars"]),
    }
    return params._replace(
        params={**params.params, **more},
        in_avals=(*map(core.typeof, values), *params.in_avals),
        arg_names=None if params.arg_names is None else ("",) * len(values) + tuple(params.arg_names),
    )


def _placed(executable: Any, values: Sequence[Any], before: int) -> list[Any]:
    """The values on the devices of a compiled program; those that it does not read, as they are."""
    if executable is None:
        return list(values)
    read = [before + k in executable._kept_var_idx for k in range(len(values))]
    placed = iter(executable.shard_const_args(_select(values, read)) if before == 0 else _select(values, read))
    return [next(placed) if r else value for value, r in zip(values, read, strict=True)]


def alias(value: Any) -> Any:
    """An array of the same memory, where it lies on a CPU: deleting or donating the other leaves this one as it is.

    A NumPy array, which its owner may write to, is copied.
    """
    if not isinstance(value, jax.Array):
        return jax.numpy.array(value, copy=True)
    if value.dtype.itemsize and next(iter(value.devices())).platform == "cpu":
        same = jax.device_put(np.asarray(value))
        if core.typeof(same) == core.typeof(value):
            return same
    return value


# ---- a call primitive that carries a jaxpr -------------------------------------------------------------------------


@util.weakref_lru_cache
def _forwarding(closed: ClosedJaxpr) -> tuple[ClosedJaxpr, tuple[tuple[str, int], ...]] | None:
    """A jaxpr without the results that repeat an input, a constant or an earlier one, and where all are to be found."""
    jaxpr = closed.jaxpr
    source: dict[int, tuple[str, int]] = {id(v): ("given", i) for i, v in enumerate([*jaxpr.constvars, *jaxpr.invars])}
    keep, sources = [], []
    for var in jaxpr.outvars:
        known = source.get(id(var)) if isinstance(var, Var) else None
        keep.append(known is None)
        if known is None:
            known = ("computed", sum(keep) - 1)
            source[id(var)] = known
        sources.append(known)
    if all(keep):
        return None
    outvars = [v for v, k in zip(jaxpr.outvars, keep, strict=True) if k]
    pruned = jaxpr.replace(outvars=outvars, debug_info=_without_result_paths(jaxpr.debug_info))
    return ClosedJaxpr(pruned, closed.consts), tuple(sources)


def _without_result_paths(debug_info: Any) -> Any:
    return debug_info._replace(result_paths=None)


class CallPrimitive(Primitive):
    """A primitive whose parameter `call_jaxpr`, a closed jaxpr, is what it computes.

    Results that are inputs, constants or repeats are never produced by the call: whoever binds it gets the operand
    itself, so that JAX's own forwarding of inputs still avoids a copy and a residual that is a result is stored once.
    """

    multiple_results = True
    skip_canonicalization = True

    def bind_with_trace(self, trace: Any, args: Any, avals: Any, params: Any, /) -> Any:
        """Bind under `trace`, forwarding what needs no computing."""
        closed = params["call_jaxpr"]
        forwarding = _forwarding(closed)
        if forwarding is None:
            return super().bind_with_trace(trace, args, avals, params)
        pruned, sources = forwarding
        computed = []
        if pruned.out_avals or pruned.effects:
            computed = super().bind_with_trace(trace, args, avals, {**params, "call_jaxpr": pruned})
        values = {"given": [*closed.consts, *args], "computed": computed}
        return [values[kind][i] for kind, i in sources]


def call_primitive(name: str, lowering: LoweringRule) -> CallPrimitive:
    """A new primitive over `call_jaxpr`, with every transformation rule; other parameters travel through all of them.

    `lowering(ctx, *values, call_jaxpr, **params)` is its lowering rule for all platforms; it is run at each place where
    the primitive stands, so that what it emits is inlined there.
    """
    primitive = CallPrimitive(name)
    if register_call_primitive_rules is not None:
        register_call_primitive_rules(primitive)
    else:
        _register_call_rules_010(primitive)
    primitive.def_impl(partial(_evaluate, primitive))
    checkify.error_checks[primitive] = partial(_check_errors, primitive)
    mlir.register_lowering(primitive, lowering, cacheable=False)
    return primitive


def _evaluate(primitive: Primitive, *args: Any, call_jaxpr: ClosedJaxpr, **params: Any) -> Any:
    if jax.config.jax_disable_jit or jax.config.jax_debug_nans or jax.config.jax_debug_infs:
        return jaxpr_as_fun(call_jaxpr)(*args)  # equation by equation, so that the one at fault is found
    return _compiled(call_jaxpr, primitive, tuple(params.items()))(*args)


@util.weakref_lru_cache
def _compiled(closed: ClosedJaxpr, primitive: Primitive, params: tuple[tuple[str, Any], ...]) -> Callable[..., Any]:
    # A strong reference to the key would keep the entry alive for ever.
    reference = weakref.ref(closed)

    def call(*args: Any) -> Any:
        return primitive.bind(*args, call_jaxpr=reference(), **dict(params))

    call.__name__ = primitive.name
    return jax_jit(call)


def _check_errors(primitive: Primitive, *given: Any, call_jaxpr: ClosedJaxpr, **params: Any) -> Any:
    # From jax 0.11 on, a context comes first.
    context, given = ((), given) if isinstance(given[0], checkify.Error) else (given[:1], given[1:])
    error, enabled, *operands = given
    error_values, error_tree = jax.tree.flatten(error)
    values = [*error_values, *operands]
    checked, out_tree, _ = checkify.jaxpr_to_checkify_jaxpr(
        *context, call_jaxpr, enabled, error_tree, *map(core.typeof, values)
    )
    return jax.tree.unflatten(out_tree, primitive.bind(*values, call_jaxpr=checked, **params))


def register_experimental_rules(primitive: Primitive) -> None:
    """Give `primitive` its rules in those modules of `jax.experimental` in use that keep tables of their own.

    Importing them takes longer than importing graphopt, so this is called again at each trace: who applies `jet` or
    `sparsify` to an optimized function has to have imported it before the function's first call.
    """
    jet = sys.modules.get("jax.experimental.jet")
    if jet is not None:
        jet.jet_rules[primitive] = partial(_jet, jet.jet)
    sparse = sys.modules.get("jax.experimental.sparse.transform")
    if sparse is not None:
        for rules in (sparse.sparse_rules_bcoo, sparse.sparse_rules_bcsr):
            rules[primitive] = partial(_sparsify, sparse.eval_sparse)
    if jax.config.jax_debug_key_reuse:
        keys = importlib.import_module("jax.experimental.key_reuse._core")
        keys.key_reuse_signatures[primitive] = keys.DynamicKeyReuseSignature(partial(_key_reuse, keys))


def _key_reuse(keys: Any, equation: Any) -> Any:
    return keys.jaxpr_type_signature(equation.params["call_jaxpr"].jaxpr)


def _jet(jet: Callable[..., Any], primals: Any, series: Any, *, call_jaxpr: ClosedJaxpr, **_: Any) -> Any:
    return jet(jaxpr_as_fun(call_jaxpr), tuple(primals), tuple(map(tuple, series)), factorial_scaled=False)


def _sparsify(evaluate: Callable[..., Any], env: Any, *values: Any, call_jaxpr: ClosedJaxpr, **_: Any) -> Any:
    return evaluate(call_jaxpr.jaxpr, call_jaxpr.consts, values, env)


# ---- the rules of such a primitive on jax 0.10 ---------------------------------------------------------------------
# Modelled on those that jax 0.11 registers for its own `eval_jaxpr_p`.


def _register_call_rules_010(primitive: Primitive) -> None:
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
    outs = primitive.bind(*primals, *_select(tangents, nonzero), call_jaxpr=jvp, **params)
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
        given = [ad.instantiate_zeros(t) for t in _select(tangents, nonzero)]
        return _with_zeros(primitive.bind(*residuals, *given, call_jaxpr=tangent, **params), nonzero_out, call_jaxpr)

    return primals_out, nonzero_out, residuals, tangent_function


def _select(values: Sequence[Any], mask: Sequence[bool]) -> list[Any]:
    return [value for value, selected in zip(values, mask, strict=True) if selected]


def _with_zeros(tangents: Sequence[Any], nonzero: Sequence[bool], closed: ClosedJaxpr) -> list[Any]:
    given = iter(tangents)
    avals = [aval.to_tangent_aval() for aval in closed.out_avals]
    return [next(given) if nz else ad.Zero(aval) for nz, aval in zip(nonzero, avals, strict=True)]


def _transpose(primitive: Primitive, cotangents: Any, *args: Any, call_jaxpr: ClosedJaxpr, **params: Any) -> None:
    accumulators, specs = ad.project_accums(args)
    flat, in_tree = jax.tree.flatten((accumulators, cotangents))
    transposed, out_tree = _transposed_jaxpr(call_jaxpr, in_tree, tuple(map(_input_type, flat)), specs)
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
    tracers_in = [*map(trace.new_instantiated_const, residuals), *_select(tracers, unknown)]
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


# ---- lowering ------------------------------------------------------------------------------------------------------


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


# ---- files ---------------------------------------------------------------------------------------------------------


def hide_frames(path: str) -> None:
    """Leave the frames of the files under `path` out of JAX's filtered tracebacks and source locations."""
    traceback_util.register_exclusion(path)
    source_info_util.register_exclusion(path)


# ---- source lines --------------------------------------------------------------------------------------------------


def user_line(source_info: Any) -> str:
    """The line of the user's own code that an equation comes from, as `file:line (function)`; empty if not known."""
    summary = source_info_util.summarize(source_info)
    return "" if summary.startswith("unknown") else summary
