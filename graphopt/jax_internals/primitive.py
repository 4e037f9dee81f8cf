"""A call primitive that carries a jaxpr, with every transformation rule."""

from __future__ import annotations

import importlib
import sys
import weakref
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
from jax import jit as jax_jit
from jax._src import checkify, core, util
from jax._src.interpreters import mlir
from jax.extend.core import ClosedJaxpr, Primitive, Var, jaxpr_as_fun

try:  # jax >= 0.11
    from jax.extend.core import register_call_primitive_rules
except ImportError:
    from graphopt.jax_internals.rules import register_call_primitive_rules

LoweringRule = Callable[..., Sequence[Any]]


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
    register_call_primitive_rules(primitive)
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
