"""The oracle of fuzzing: every operation by itself, in loops, branches and calls too, so that nothing is fused."""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp

from graphopt.backends.reference import apply
from graphopt.backends.xla.staging import constant_value
from graphopt.ir.graph import Graph
from graphopt.ir.node import Node
from graphopt.ir.op import CONSTANT, PARAM, PROJECT, STATE
from graphopt.ops.control import COND, SCAN, WHILE, Cond, Scan, While

CALLS = {"jit": "jaxpr", "remat2": "jaxpr", "custom_jvp_call": "call_jaxpr", "custom_vjp_call": "call_jaxpr"}


def interpret(graph: Graph, arguments: Sequence[Any]) -> list[Any]:
    """The results of `graph`; the same as `graphopt.backends.reference.evaluate`, which compiles a loop as a whole."""
    values: dict[Node, Any] = dict(zip(graph.params, arguments, strict=True))
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
            results = operation(node, [values[n] for n in node.data_inputs])
            values[node] = results[0] if len(node.avals) == 1 and results else [*results, *[None] * len(node.avals)]
    return [values[n] for n in graph.results]


def operation(node: Node, operands: list[Any]) -> list[Any]:
    if node.op is SCAN:
        return scan(node, operands)
    if node.op is WHILE:
        return loop(While.of(node), operands)
    if node.op is COND:
        return interpret(Cond.of(node).branches[int(operands[0])], operands[1:])
    if node.op.name in CALLS:
        return interpret(node.attrs[CALLS[node.op.name]].graph, operands)
    return apply(node, operands)


def scan(node: Node, operands: list[Any]) -> list[Any]:
    view = Scan.of(node)
    split = view.consts + view.carry
    consts, carry, xs = operands[: view.consts], operands[view.consts : split], operands[split:]
    order = range(view.length)
    rows: dict[int, list[Any]] = {}
    for i in reversed(order) if node.attrs["reverse"] else order:
        results = interpret(view.body, [*consts, *carry, *[jnp.asarray(x)[i] for x in xs]])
        carry, rows[i] = results[: view.carry], results[view.carry :]
    stacked = node.data_avals[view.carry :]
    ys = [
        jnp.stack([jnp.asarray(rows[i][k]) for i in order]) if view.length else jnp.zeros(aval.shape, aval.dtype)
        for k, aval in enumerate(stacked)
    ]
    return [*carry, *ys]


def loop(view: While, operands: list[Any]) -> list[Any]:
    split = view.cond_consts + view.body_consts
    tested, consts, carry = operands[: view.cond_consts], operands[view.cond_consts : split], operands[split:]
    while bool(interpret(view.cond, [*tested, *carry])[0]):
        carry = interpret(view.body, [*consts, *carry])
    return carry
