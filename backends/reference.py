"""The reference: a graph evaluated one operation at a time, through JAX and without the passes; the oracle of tests."""

from __future__ import annotations

from typing import Any

from jax.extend.core import ClosedJaxpr, Jaxpr, Var, jaxpr_as_fun

from graphopt.backends.xla.staging import NO_DEBUG_INFO, constant_value, equation_of
from graphopt.errors import GraphError
from graphopt.ir.graph import Graph
from graphopt.ir.node import Node
from graphopt.ir.op import CONSTANT, PARAM, PROJECT, STATE


def evaluate(graph: Graph, *args: Any) -> list[Any]:
    """The results of `graph` on arrays `args`, each operation run by itself and effects in the graph's order.

    Raises GraphError if the number of arguments is not the number of parameters.
    """
    if len(args) != len(graph.params):
        raise GraphError(f"the graph has {len(graph.params)} inputs; evaluate got {len(args)}")
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


def apply(node: Node, operands: list[Any]) -> list[Any]:
    """The results of one operation on arrays."""
    invars = [Var(n.aval.type) for n in node.data_inputs]
    eqn = equation_of(node, invars)
    jaxpr = Jaxpr([], invars, eqn.outvars, [eqn], eqn.effects, NO_DEBUG_INFO)
    return list(jaxpr_as_fun(ClosedJaxpr(jaxpr, []))(*operands))
