"""Graphs of a hundred thousand nodes: nothing recurses, nothing is left behind."""

import gc

import numpy as np
from jax.extend.core import primitives

from graphopt.ir import node as node_module
from graphopt.ir.attrs import EMPTY, Attrs, SubGraph
from graphopt.ir.aval import array_aval
from graphopt.ir.check import check
from graphopt.ir.graph import Graph, live_graphs, make_graph, nested_graphs
from graphopt.ir.node import Node, make_node, param, project
from graphopt.ir.op import op_of
from graphopt.ir.parse import parse
from graphopt.ir.sources import Sources
from graphopt.rewrite.rebuild import rebuild

NODES = 100_000
AVAL = array_aval((8,), np.dtype(np.float32))
SIN, COS, CONCATENATE, JIT = (op_of(getattr(primitives, f"{n}_p")) for n in ("sin", "cos", "concatenate", "jit"))
ACCURACY = Attrs({"accuracy": None})


def chain(length: int) -> Graph:
    x = y = param(0, AVAL)
    for i in range(length):
        y = make_node(SIN if i % 2 else COS, (y,), ACCURACY, (AVAL,))
    return make_graph((x,), (y,))


def sines_to_cosines(node: Node, inputs: tuple[Node, ...]) -> Node | None:
    return make_node(COS, inputs, node.attrs, node.avals) if node.op is SIN else None


def alive() -> tuple[int, int]:
    gc.collect()
    return len(node_module._table), len(live_graphs())


def test_a_long_chain_is_built_walked_rewritten_printed_parsed_and_dropped() -> None:
    before = alive()
    graph = chain(NODES)
    assert chain(NODES) is graph
    assert len(graph.nodes) == NODES + 1
    assert graph.count() == NODES
    rewritten = rebuild(graph, Sources(), sines_to_cosines)
    assert len(rewritten.nodes) == NODES + 1
    assert all(node.op is COS for node in rewritten.nodes[1:])

    text = str(rewritten)
    assert text.count("\n") == NODES + 2
    assert parse(text) is rewritten
    del graph, rewritten
    assert alive() == before
    again = parse(text)  # the nodes are new ones
    assert str(again) == text
    del again
    assert alive() == before


def test_many_operands_and_many_outputs() -> None:
    before = alive()
    avals = tuple(array_aval((i % 5 + 1,), np.dtype(np.float32)) for i in range(NODES // 5))
    params = tuple(param(i, aval) for i, aval in enumerate(avals))
    total = sum(aval.shape[0] for aval in avals)
    joined = make_node(CONCATENATE, params, Attrs({"dimension": 0}), (array_aval((total,), np.dtype(np.float32)),))
    graph = make_graph(params, (joined, *params))
    check(graph)
    assert parse(str(graph)) is graph
    many = make_node(JIT, params, EMPTY, avals)
    results = make_graph(params, [project(many, i) for i in range(len(avals))])
    assert len(results.nodes) == 2 * len(params) + 1
    assert parse(str(results)) is results
    del avals, params, joined, graph, many, results
    assert alive() == before


def test_graphs_within_graphs() -> None:
    """Thousands of levels, each of which calls the next one twice: shared, they are not walked twice."""
    before = alive()
    depth = 3_000
    x = param(0, AVAL)
    graph = make_graph((x,), (make_node(SIN, (x,), ACCURACY, (AVAL,)),))
    for _ in range(depth):
        call = make_node(JIT, (x,), Attrs({"jaxpr": SubGraph(graph)}), (AVAL,))
        graph = make_graph((x,), (make_node(JIT, (call,), Attrs({"jaxpr": SubGraph(graph)}), (AVAL,)),))
    assert len(nested_graphs(graph)) == depth + 1
    check(graph)
    assert graph.count() == 2 * depth + 1
    assert parse(str(graph)) is graph
    del x, call, graph
    assert alive() == before


def test_some_nodes_of_many_come_in_the_order_of_all() -> None:
    graph = chain(NODES)
    some = {graph.nodes[k] for k in (0, 7, 5, NODES, 99, 3)}
    assert graph.in_order(some) == [node for node in graph.nodes if node in some]
    assert graph.in_order([]) == []
