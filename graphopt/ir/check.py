"""Checking a graph: every rule that nodes and graphs keep, stated where it is broken."""

from __future__ import annotations

from typing import NoReturn

import numpy as np

from graphopt.errors import GraphError
from graphopt.ir.aval import aval_of
from graphopt.ir.graph import Graph, nested_graphs
from graphopt.ir.node import Node, first_state, results
from graphopt.ir.op import CONSTANT, PARAM, PROJECT, STATE


def check(graph: Graph) -> None:
    """Checks `graph` and its sub-graphs. Raises GraphError, with five lines of the graph, where one breaks these rules:

    parameters are the graph's own; a projection takes a result that exists, with its type; a node of a JAX primitive
    has the result types that JAX infers; each state of an effect or a Ref is used at most once (an order has no
    branches), and the last one of each is an output, except of a Ref that the graph makes itself.
    """
    for current in nested_graphs(graph):
        _check_nodes(current)
        _check_states(current)


def _check_nodes(graph: Graph) -> None:
    params = set(graph.params)
    for node in graph.nodes:
        if node.op is PARAM:
            if node not in params:
                _fail(graph, node, f"input {node.attrs['index']} is not an input of this graph")
        elif node.op is CONSTANT:
            if node.aval.is_array and np.shape(node.value) != node.aval.shape:
                _fail(graph, node, f"the constant has shape {np.shape(node.value)}, its type {node.aval.shape}")
        elif node.op is PROJECT:
            source, index = node.inputs[0], node.attrs["index"]
            if len(source.avals) == 1 or not 0 <= index < len(source.avals):
                _fail(graph, node, f"there is no result {index} among {len(source.avals)}")
            if source.avals[index] is not node.aval:
                _fail(graph, node, f"result {index} has the type {source.avals[index]}")
        elif node.op is not STATE:
            _check_operation(graph, node)
    states = False
    for position, node in enumerate(graph.outputs):
        if len(node.avals) != 1:
            _fail(graph, node, f"output {position} has {len(node.avals)} results; an output is one value")
        if states and not node.aval.is_state:
            _fail(graph, node, f"output {position}: states of effects come after all other outputs")
        states = node.aval.is_state


def _check_operation(graph: Graph, node: Node) -> None:
    for position, operand in enumerate(node.inputs):
        if len(operand.avals) != 1:
            _fail(graph, node, f"operand {position} has {len(operand.avals)} results; take one of them")
    primitive = node.op.primitive
    if primitive is None:
        _fail(graph, node, "the operation has no primitive: it can be neither evaluated nor lowered")
    states_in = [n.aval for n in node.inputs if n.aval.is_state]
    states_out = [aval for aval in node.avals if aval.is_state]
    if states_in != states_out:
        _fail(graph, node, f"it takes the states {states_in} and returns the states {states_out}")
    # Operations with sub-graphs are typed by what holds them together, not by a rule on types; a mesh or another
    # context would have to be entered first.
    plain = all(n.aval.is_plain for n in node.data_inputs)
    if node.subgraphs or node.effects or node.context is not None or not plain or node.op.distinct:
        return
    try:
        inferred, _ = primitive.abstract_eval(*(n.aval.type for n in node.inputs), **node.attrs)
    except NotImplementedError:
        return
    except (TypeError, ValueError, AttributeError, LookupError, ArithmeticError, AssertionError) as error:
        _fail(graph, node, f"JAX rejects it: {' '.join([type(error).__name__, *str(error).splitlines()[:1]])}")
    found = tuple(inferred) if primitive.multiple_results else (inferred,)
    for index, (aval, stated) in enumerate(zip(found, node.avals, strict=False)):
        if aval_of(aval).shape != stated.shape or aval_of(aval).dtype != stated.dtype:
            _fail(graph, node, f"result {index} is {aval} by the operation's rule, but the node says {stated.type}")
    if len(found) != len(node.avals):
        _fail(graph, node, f"the operation has {len(found)} results, but the node says {len(node.avals)}")


def _check_states(graph: Graph) -> None:
    used: dict[Node, Node | None] = {}
    for node in graph.nodes:
        for operand in node.inputs:
            if len(operand.avals) == 1 and operand.aval.is_state:
                if operand in used:
                    _fail(graph, node, f"this state of an effect was used already, by {used[operand]!r}")
                used[operand] = node
    finals = [n for n in graph.outputs if n.aval.is_state]
    for node in finals:
        if node in used:
            _fail(graph, node, f"an output is a state that is not the last one: {used[node]!r} uses it")
        used[node] = None
    for node in graph.nodes:
        if node.op is PROJECT:
            continue
        for result in results(node):
            if result.aval.is_state and result not in used:
                first = first_state(result)
                if not (first.inputs and first.inputs[0].op.distinct):
                    _fail(graph, node, "its last state is not among the outputs, so an effect would be lost")


def _fail(graph: Graph, node: Node, reason: str) -> NoReturn:
    lines = str(graph).splitlines()
    here = [i for i, line in enumerate(lines) if line.startswith("graph @main")][-1]
    position = list(graph.nodes).index(node) - len(graph.params)
    at = here if position < 0 else here + 1 + position
    start = max(0, min(at - 2, len(lines) - 5))
    shown = [f"{'>' if i == at else ' '} {lines[i]}" for i in range(start, min(start + 5, len(lines)))]
    raise GraphError(f"{node!r}: {reason}\n" + "\n".join(shown))
