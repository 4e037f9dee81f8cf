"""The reference: a graph evaluated one operation at a time, through JAX and without the passes; the oracle of tests."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr, Var, jaxpr_as_fun
from jax.extend.core import primitives as p

from graphopt.backends.xla.staging import NO_DEBUG_INFO, constant_value, equation_of
from graphopt.errors import GraphError
from graphopt.ir.aval import Aval
from graphopt.ir.graph import Graph
from graphopt.ir.node import Node, param
from graphopt.ir.op import CONSTANT, PARAM, PROJECT, STATE, op_of
from graphopt.ops.control import COND, SCAN, WHILE, Cond, Scan, While

DIV = op_of(p.div_p)

Apply = Callable[[Node, list[Any]], list[Any]]
"""The results of one operation on arrays."""


def evaluate(graph: Graph, *args: Any, apply: Apply | None = None) -> list[Any]:
    """The results of `graph` on arrays `args`, each operation run by itself and effects in the graph's order.

    apply: runs one operation; by default a loop or a branch is one operation, and `apply_opened` runs what is inside
    one operation at a time too. Raises GraphError if the number of arguments is not the number of parameters.
    """
    if len(args) != len(graph.params):
        raise GraphError(f"the graph has {len(graph.params)} inputs; evaluate got {len(args)}")
    apply = apply or apply_whole
    values: dict[Node, Any] = dict(zip(graph.params, args, strict=True))
    for node in graph.nodes:
        if node.op is PARAM:
            continue
        if node.op is CONSTANT:
            values[node] = constant_value(node)
        elif node.op is STATE:
            values[node] = None
        elif node.op is PROJECT:
            values[node] = values[node.inputs[0]][node.attrs["index"]]
        else:
            results = apply(node, [values[n] for n in node.data_inputs])
            # The state of an effect has no value: it is there to order the operations.
            values[node] = results[0] if len(node.avals) == 1 and results else [*results, *[None] * len(node.avals)]
    return [values[n] for n in graph.results]


def apply_whole(node: Node, operands: list[Any]) -> list[Any]:
    """The results of one operation; a loop, a branch or a call is compiled as a whole."""
    invars = [Var(n.aval.type) for n in node.data_inputs]
    eqn = equation_of(node, invars)
    jaxpr = Jaxpr([], invars, eqn.outvars, [eqn], eqn.effects, NO_DEBUG_INFO)
    return list(jaxpr_as_fun(ClosedJaxpr(jaxpr, []))(*operands))


def apply_divided(node: Node, operands: list[Any]) -> list[Any]:
    """As `apply_whole`, but a quotient by one number for all of an array is a quotient.

    JAX and XLA multiply by the number's reciprocal there, which is rounded.
    """
    if node.op is not DIV:
        return apply_whole(node, operands)
    whole = [jnp.broadcast_to(operand, node.aval.shape) for operand in operands]
    return apply_whole(node.with_inputs((param(0, node.aval), param(1, node.aval))), whole)


def apply_opened(node: Node, operands: list[Any], apply: Apply = apply_divided) -> list[Any]:
    """The results of one operation, with the operations in loops, branches and calls run one at a time by `apply`."""

    def inner(node: Node, operands: list[Any]) -> list[Any]:
        return apply_opened(node, operands, apply)

    def run(graph: Graph, arguments: Sequence[Any]) -> list[Any]:
        return evaluate(graph, *arguments, apply=inner)

    if node.op is SCAN:
        return _scan(node, operands, run)
    if node.op is WHILE:
        return _while(While.of(node), operands, run)
    if node.op is COND:
        branches = Cond.of(node).branches
        return run(branches[min(max(int(operands[0]), 0), len(branches) - 1)], operands[1:])
    if node.op.name in _CALLS:
        return run(node.attrs[_CALLS[node.op.name]].graph, operands)
    return apply(node, operands)


_CALLS = {
    "jit": "jaxpr",
    "remat2": "jaxpr",
    "checkpoint": "jaxpr",
    "custom_jvp_call": "call_jaxpr",
    "custom_vjp_call": "call_jaxpr",
    "closed_call": "call_jaxpr",
    "kernel": "body",
}

Run = Callable[[Graph, Sequence[Any]], list[Any]]


def _scan(node: Node, operands: list[Any], run: Run) -> list[Any]:
    view = Scan.of(node)
    split = view.consts + view.carry
    consts, carry, xs = operands[: view.consts], operands[view.consts : split], operands[split:]
    order = range(view.length)
    rows: dict[int, list[Any]] = {}
    for i in reversed(order) if node.attrs["reverse"] else order:
        results = run(view.body, [*consts, *carry, *[jnp.asarray(x)[i] for x in xs]])
        carry, rows[i] = results[: view.carry], results[view.carry :]
    stacked = node.data_avals[view.carry :]
    ys = [
        jnp.stack([jnp.asarray(rows[i][k]) for i in order]) if view.length else jnp.zeros(aval.shape, aval.dtype)
        for k, aval in enumerate(stacked)
    ]
    return [*carry, *ys]


def _while(view: While, operands: list[Any], run: Run) -> list[Any]:
    split = view.cond_consts + view.body_consts
    tested, consts, carry = operands[: view.cond_consts], operands[view.cond_consts : split], operands[split:]
    while np.any(goes_on := np.asarray(run(view.cond, [*tested, *carry])[0])):
        new = run(view.body, [*consts, *carry])
        # Under vmap there is a condition for each element of the first axes: where it does not hold nothing changes.
        carry = new if goes_on.all() else [_where(goes_on, n, old) for n, old in zip(new, carry, strict=True)]
    return carry


def _where(condition: np.ndarray[Any, Any], new: Any, old: Any) -> Any:
    return jnp.where(condition.reshape(condition.shape + (1,) * (jnp.ndim(new) - condition.ndim)), new, old)


def drawn(aval: Aval, random: np.random.Generator) -> Any:
    """A value of this type: moderate numbers. Raises TypeError where it is no array of numbers."""
    if not aval.is_plain or not isinstance(aval.dtype, np.dtype):
        raise TypeError(f"no value can be drawn for {aval.type}")
    if jnp.issubdtype(aval.dtype, np.integer):
        return random.integers(0, 10, aval.shape).astype(aval.dtype)
    if aval.dtype == np.bool_:
        return random.integers(0, 2, aval.shape).astype(bool)
    return random.normal(size=aval.shape).astype(aval.dtype)
