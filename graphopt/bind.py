"""Binding: what becomes of the arrays that a function has captured, at its first call, when their values are known.

Large ones become operands of the compiled program: the very memory of the arrays is passed at each call, where
`jax.jit` writes their elements into the program. What depends on them alone is computed here (`graphopt.passes.bind`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any
from weakref import WeakValueDictionary

import jax
import numpy as np
from jax import jit as jax_jit
from jax.extend.core import ClosedJaxpr, Var, jaxpr_as_fun, new_jaxpr_eqn

from graphopt.backends.xla.region import LARGE, SMALL_CONSTANT
from graphopt.backends.xla.staging import jaxpr_of
from graphopt.compile import context_for, passes_of
from graphopt.config import Options
from graphopt.ir.graph import Graph
from graphopt.ir.node import Node
from graphopt.ir.op import CONSTANT
from graphopt.passes.bind import Bind
from graphopt.passes.inline import OPTIMIZED_CALL, Inline
from graphopt.rewrite.passes import Context, PassRecord, run_pipeline
from graphopt.trace.jaxpr import graph_of

Bound = tuple[ClosedJaxpr, list[jax.Array]]
"""A program with more operands, which come first, and their values."""


def bind(closed: ClosedJaxpr) -> Bound | None:
    """A program as `graphopt.jit` traced it, with its large constants as operands; None where it has none.

    What spans several devices or lies on another than the default one stays, and so do programs with references.
    """
    call = closed.jaxpr.eqns[0] if len(closed.jaxpr.eqns) == 1 else None
    if call is None or call.primitive.name != OPTIMIZED_CALL or any(hasattr(e, "input") for e in call.effects):
        return None
    from graphopt.jax_internals import calls, tracing

    options: Options = call.params["options"]
    if not any(isinstance(step, Bind) for step in passes_of(options)):
        return None
    values = dict(zip(closed.jaxpr.constvars, closed.consts, strict=True))
    known = [isinstance(v, Var) and v in values and may_be_passed(values[v]) for v in call.invars]
    given = [values[v] for v, k in zip(call.invars, known, strict=True) if k]
    if sum(value.nbytes for value in given) < LARGE:
        return None
    program, _ = bound_program(tracing.with_known(call.params["call_jaxpr"], known, given), options)
    # What is neither large nor small stays a constant, though not one that passes look into.
    program, others = tracing.lift_constants(program, [c.size > SMALL_CONSTANT for c in program.consts])
    inputs = [Var(v.aval) for v in program.jaxpr.invars[: len(others)]]
    rest = [v for v, k in zip(call.invars, known, strict=True) if not k]
    constants = {v: c for v, c in values.items() if v in (*rest, *closed.jaxpr.outvars)}
    constants |= {v: c for v, c in zip(inputs, others, strict=True) if not is_large(c)}
    operands = {v: c for v, c in zip(inputs, others, strict=True) if is_large(c)}
    again = new_jaxpr_eqn(
        [*inputs, *rest],
        call.outvars,
        call.primitive,
        {**call.params, "call_jaxpr": program},
        program.effects,
        call.source_info,
        call.ctx,
    )
    jaxpr = tracing.with_equations(closed.jaxpr, list(constants), list(operands), [again])
    ours = {id(value) for value in _kept.values()}
    aliases = [value if id(value) in ours else calls.alias(value) for value in operands.values()]
    return ClosedJaxpr(jaxpr, list(constants.values())), aliases


def is_large(value: Any) -> bool:
    """Whether an array is to be an operand."""
    return bool(value.nbytes >= LARGE)


def may_be_passed(value: Any) -> bool:
    """Whether a constant is an array that lies where the program will run, and may be an operand of it."""
    if not isinstance(value, jax.Array | np.ndarray) or isinstance(value, jax.core.Tracer):
        return False
    if isinstance(value, np.ndarray):
        return bool(jax.dtypes.canonicalize_dtype(value.dtype) == value.dtype)
    if jax.dtypes.issubdtype(value.dtype, jax.dtypes.extended) or value.is_deleted() or not value.is_fully_addressable:
        return False
    if value.weak_type or (value.committed and _default_device().platform != "cpu"):
        return False
    return bool(value.devices() == {_default_device()} and value.sharding.memory_kind in (None, _default_memory()))


def _default_device() -> jax.Device:
    device = jax.config.jax_default_device  # type: ignore[attr-defined]
    return device if isinstance(device, jax.Device) else jax.local_devices()[0]


def _default_memory() -> str:
    return str(_default_device().default_memory().kind)


def bound_program(closed: ClosedJaxpr, options: Options) -> tuple[ClosedJaxpr, tuple[PassRecord, ...]]:
    """A program whose constants are known, with what depends on them alone computed, and what the passes did.

    The passes up to `bind` are run on it, so that what is simple by itself is not kept. Where nothing is computed, and
    rules need all constants, it is the program as it was, for the passes to see as a whole.
    """
    graph, sources = graph_of(closed)
    bound, records = bound_graph(graph, context_for(options, sources))
    return (closed if bound is graph else jaxpr_of(bound, sources)), records


def bound_graph(graph: Graph, context: Context) -> tuple[Graph, tuple[PassRecord, ...]]:
    """`graph` with what depends on constants alone computed, and what the passes did; itself where all of them stay."""
    steps = passes_of(context.options)
    place = next((k for k, step in enumerate(steps) if isinstance(step, Bind)), None)
    step = None if place is None else steps[place]
    if not isinstance(step, Bind) or not has_internals():
        return graph, ()
    opened = Inline().run(graph, context)
    if sum(node.aval.nbytes for node in _constants(opened)) < LARGE:
        return graph, ()
    before = [other for other in steps[:place] if other.name in BEFORE]
    found, records = run_pipeline(opened, [*before, replace(step, compute=compute)], context)
    unchanged = records[-1].after is records[-1].before
    # Rules may have found what a constant is made of: where it is an operand they would not see it again.
    return (graph, ()) if unchanged and _constants(found) == _constants(opened) else (found, records)


def _constants(graph: Graph) -> set[Node]:
    return {node for node in graph.nodes if is_bound(node)}


def has_internals() -> bool:
    """Whether JAX is as graphopt knows it; if not, captured arrays are written into programs, as `jax.jit` does."""
    try:
        from graphopt.jax_internals import calls, tracing
    except (ImportError, AttributeError):
        return False
    return bool(calls and tracing)


BEFORE = ("inline", "fold", "simplify", "affine")
"""The passes that go before where values are known. Those that roll loops do not: they are for the rest alone."""


def is_bound(node: Node) -> bool:
    """Whether a node is a constant that is not small, and may be an operand."""
    return node.op is CONSTANT and may_be_passed(node.value) and node.aval.size > SMALL_CONSTANT


_kept: WeakValueDictionary[Node, jax.Array] = WeakValueDictionary()
"""What was computed, as long as a program holds it: another program of the same constants takes the same arrays."""


def compute(graph: Graph) -> Sequence[jax.Array]:
    """The results of a graph without parameters, by one XLA program, whose large constants are its operands."""
    nodes = graph.results
    found = [_kept.get(node) for node in nodes]
    if all(value is not None for value in found):
        return [value for value in found if value is not None]
    from graphopt.jax_internals import calls, tracing

    closed = jaxpr_of(graph)
    # As operands all of them: XLA would fold what it finds in a program, more slowly than it computes it.
    program, operands = tracing.lift_constants(closed, [True] * len(closed.consts))
    with jax.ensure_compile_time_eval():
        values: Sequence[jax.Array] = jax_jit(jaxpr_as_fun(program))(*map(calls.alias, operands))
    for node, value in zip(nodes, values, strict=True):
        _kept[node] = value
    return values
