"""Local: what runs on one device of many is computed on plain arrays, so that kernels can be made of it.

Inside `jax.shard_map` over all axes of a mesh nothing is left for the partitioner to do. What an engine can take there
gets plain types; collectives, and all else that it cannot take, keep the types that JAX gave them.

Before:
    %1: f32[10,100]{V:i} = sin(%0) context ...
    %2: f32[10,100]{V:i} = mul(%1, %1) context ...
    %3: f32[10,100] = psum_invariant[axes=('i',)](%2) context ...
After:
    %1: f32[10,100] = retype[type=f32[10,100]](%0)
    %2: f32[10,100] = sin(%1)
    %3: f32[10,100] = mul(%2, %2)
    %4: f32[10,100]{V:i} = retype[type=f32[10,100]{V:i}](%3)
    %5: f32[10,100] = psum_invariant[axes=('i',)](%4) context ...
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from graphopt.analysis.engine import Engine
from graphopt.analysis.local import is_local, is_local_sharding, is_same_value, is_shard_map, local_graphs, plain_type
from graphopt.ir.attrs import Attrs, SubGraph, map_subgraphs
from graphopt.ir.graph import Graph, make_graph
from graphopt.ir.node import NO_EFFECTS, Node, constant, make_node, param, project
from graphopt.ir.op import CONSTANT, PARAM, PROJECT, STATE
from graphopt.jax_internals.lowering import differs_by_mesh_only
from graphopt.ops.local import retyped
from graphopt.passes.fuse import RUNS_ITS_GRAPHS
from graphopt.rewrite.passes import Context, Pass, counted
from graphopt.rewrite.rebuild import rebuild, with_bodies


@dataclass(frozen=True)
class Local(Pass):
    """Gives plain types to what an engine can take inside of `shard_map` over all axes of a mesh."""

    engine: Engine = field(repr=False)
    name = "local"

    def run(self, graph: Graph, context: Context) -> Graph:
        """The graph whose local regions are of plain arrays."""
        inside = local_graphs(graph)
        if not inside:
            return graph
        localizer = _Localizer(self.engine, context, inside)
        new = localizer.graph(graph)
        if localizer.plain:
            context.note(f"{counted(localizer.plain, 'operation')} inside of shard_map on plain arrays")
        for name, count in localizer.left.items():
            context.note(f"inside of shard_map as it was: {name}" + (f" ({count} times)" if count > 1 else ""))
        return new


class _Localizer:
    def __init__(self, engine: Engine, context: Context, inside: set[Graph]) -> None:
        self.engine = engine
        self.context = context
        self.inside = inside
        self.exact = context.options.numerics == "exact"
        self.done: dict[Graph, Graph] = {}
        self.plain = 0
        self.left: Counter[str] = Counter()  # by name, the operations that keep their types

    def graph(self, graph: Graph) -> Graph:
        """A graph, and those below it, with plain arrays where it runs on one device."""
        if graph not in self.done:
            self.done[graph] = self.opened(graph) if graph in self.inside else self.in_bodies(graph)
        return self.done[graph]

    def in_bodies(self, graph: Graph) -> Graph:
        return rebuild(graph, self.context.sources, lambda node, _: node.with_attrs(self.bodies(node)))

    def bodies(self, node: Node) -> Attrs:
        runs = node.op in RUNS_ITS_GRAPHS or is_shard_map(node.op)
        return with_bodies(node, self.graph) if runs else node.attrs

    def opened(self, graph: Graph) -> Graph:
        """A graph that runs on one device; its parameters and outputs keep their types."""
        new: dict[Node, Node] = {}
        for node in graph.nodes:
            if node.op is PARAM:
                new[node] = node
            elif node.op is CONSTANT:
                new[node] = _plain_constant(node)
            elif node.op is PROJECT:
                new[node] = project(new[node.inputs[0]], node.attrs["index"])
            elif is_same_value(node.op) and is_local(node.aval):
                new[node] = retyped(new[node.inputs[0]], plain_type(node.aval))
            else:
                new[node] = self.taken(node, new) or self.kept(node, new)
        outputs = [retyped(new[n], n.aval) for n in graph.outputs]
        made = make_graph(graph.params, outputs)
        self.context.sources.inherit(graph, made, new)
        return made

    def taken(self, node: Node, new: dict[Node, Node]) -> Node | None:
        """A node on plain arrays; None where the engine cannot take it so."""
        inputs = tuple([retyped(new[n], plain_type(n.aval)) if is_local(n.aval) else new[n] for n in node.inputs])
        found = plain_node(node, inputs)
        reason = "" if found is None else self.engine.declines(found, self.exact)
        if reason is not None:
            self.left[reason or node.op.name] += 1
            return None
        self.plain += 1
        return found

    def kept(self, node: Node, new: dict[Node, Node]) -> Node:
        """A node with the types that it has."""
        inputs = tuple([new[n] if n.aval.is_state else retyped(new[n], n.aval) for n in node.inputs])
        return node.with_attrs(self.bodies(node)).with_inputs(inputs)


def plain_node(node: Node, inputs: tuple[Node, ...]) -> Node | None:
    """A node of plain arrays on these operands; None where that cannot be."""
    if node.effects or node.op is STATE or not all(is_local(aval) or aval.is_plain for aval in node.avals):
        return None
    if node.context is not None and not differs_by_mesh_only(node.context):
        return None
    values: dict[str, Any] = {}
    for name, value in node.attrs.items():
        if is_local_sharding(value):
            values[name] = None
            continue
        try:
            values[name] = map_subgraphs(value, _plain_body)
        except _NotPlainError:
            return None
    avals = tuple([plain_type(aval) for aval in node.avals])
    return make_node(node.op, inputs, Attrs(values), avals, None, NO_EFFECTS)


class _NotPlainError(Exception):
    """A sub-graph has something in it that is not of plain arrays."""


def _plain_constant(node: Node) -> Node:
    return constant(node.value, plain_type(node.aval)) if is_local(node.aval) else node


def _plain_body(sub: SubGraph) -> SubGraph:
    graph: Graph = sub.graph
    new: dict[Node, Node] = {}
    for node in graph.nodes:
        inputs = tuple([new[n] for n in node.inputs])
        if node.op is PARAM and (is_local(node.aval) or node.aval.is_plain):
            new[node] = param(node.attrs["index"], plain_type(node.aval))
        elif node.op is CONSTANT:
            new[node] = _plain_constant(node)
        elif node.op is PROJECT:
            new[node] = project(inputs[0], node.attrs["index"])
        elif is_same_value(node.op):
            (new[node],) = inputs
        elif (made := plain_node(node, inputs)) is not None:
            new[node] = made
        else:
            raise _NotPlainError
    made_graph = make_graph([new[p] for p in graph.params], [new[n] for n in graph.outputs])
    return SubGraph(made_graph, sub.closed, sub.constvars)
