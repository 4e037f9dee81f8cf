"""Making a graph anew with some nodes replaced."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import compress

from graphopt.errors import GraphError
from graphopt.ir.attrs import Attrs, SubGraph, map_subgraphs
from graphopt.ir.graph import Graph, make_graph
from graphopt.ir.node import Node, param, project
from graphopt.ir.op import CONSTANT, OCCURRENCE, PARAM, PROJECT
from graphopt.ir.sources import Sources

Visit = Callable[[Node, tuple[Node, ...]], "Node | None"]


def rebuild(graph: Graph, sources: Sources, visit: Visit) -> Graph:
    """`graph` with each node (parameters, constants and projections aside) replaced by `visit(node, new_inputs)`.

    None from `visit` keeps the node, on its new inputs. A replacement has the same number of results, and inherits the
    source lines of the node.
    """
    mapping: dict[Node, Node] = {}
    for node in graph.nodes:
        if node.op is PARAM or node.op is CONSTANT:
            mapping[node] = node
            continue
        inputs = tuple([mapping[n] for n in node.inputs])
        if node.op is PROJECT:
            mapping[node] = project(inputs[0], node.attrs["index"])
        else:
            mapping[node] = visit(node, inputs) or node.with_inputs(inputs)
    new = make_graph(graph.params, [mapping[n] for n in graph.outputs])
    sources.inherit(graph, new, mapping)
    return new


def with_params(graph: Graph, sources: Sources, keep: Sequence[bool]) -> Graph:
    """`graph` without the parameters that are not kept; raises GraphError if one of those is still used."""
    kept = compress(graph.params, keep)
    mapping = {old: param(index, old.aval) for index, old in enumerate(kept)}
    params = tuple(mapping.values())
    for node in graph.nodes[len(graph.params) :]:
        missing = [n for n in node.inputs if n not in mapping]
        if missing:
            raise GraphError(f"cannot drop {missing[0]!r}: {node!r} uses it")
        mapping[node] = node.with_inputs(tuple([mapping[n] for n in node.inputs]))
    new = make_graph(params, [mapping[n] for n in graph.outputs])
    sources.inherit(graph, new, mapping)
    return new


def with_bodies(node: Node, function: Callable[[Graph], Graph]) -> Attrs:
    """The attributes of a node with every sub-graph replaced by `function` of it."""

    def map_one(sub: SubGraph) -> SubGraph:
        body = function(sub.graph)
        return sub if body is sub.graph else SubGraph(body, sub.closed, sub.constvars)

    changed = {name: map_subgraphs(value, map_one) for name, value in node.attrs.items()}
    return node.attrs if all(changed[n] is v for n, v in node.attrs.items()) else Attrs(changed)


class Occurrences:
    """Numbers for distinct operations that are copied into a graph: none is used twice."""

    def __init__(self, graph: Graph) -> None:
        self.next = 1 + max((n.attrs[OCCURRENCE] for n in graph.nodes if OCCURRENCE in n.attrs), default=-1)

    def fresh(self, attrs: Attrs) -> Attrs:
        """The attributes for a copy of a node that has these."""
        self.next += 1
        return attrs.replace(**{OCCURRENCE: self.next - 1})
