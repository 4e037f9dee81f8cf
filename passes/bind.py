"""Binding: what depends on constants alone is computed once, when the function meets its arguments for the first time.

Before:
    %1: f32[2,2] = constant(1.0, 2.0, 3.0, 4.0)
    %2: f32[2,2] = add(%1, %1)
    %3: f32[2,2] = mul(%2, %1)
    %4: f32[2] = reduce_sum[axes=(1,)](%3)
    %5: f32[2] = mul(%4, %0)
After:
    %1: f32[2] = constant(10.0, 50.0)
    %2: f32[2] = mul(%1, %0)
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from jax import Array, lax
from jax.extend.core import primitives as p

from graphopt.analysis.cost import cost_of
from graphopt.analysis.known import known_nodes
from graphopt.ir.graph import Graph, make_graph
from graphopt.ir.node import COMPARED_ELEMENTS, Node, constant
from graphopt.ir.op import CONSTANT, PROJECT
from graphopt.ops.contract import CONVOLUTION, DOT_GENERAL
from graphopt.passes.rules.contraction import axes_of
from graphopt.passes.rules.moving import transposed
from graphopt.rewrite.passes import Context, Pass
from graphopt.rewrite.rebuild import rebuild

Compute = Callable[[Graph], Sequence[Array]]
"""The results of a graph without parameters."""


@dataclass(frozen=True)
class Bind(Pass):
    """Computes subgraphs of constants that are too large to be folded, and lays weights out as they are read.

    The values are computed by the engine that would compute them at each call, and take the place of the nodes as
    constants. A constant operand of a product or a convolution is transposed, where that saves XLA from doing so at
    each call: rows that are summed over come first in a right operand and last in a left one.

    compute: computes them; without it the pass does nothing (as when a program is lowered: its constants are operands
        by then). work: operations and bytes together from which on a value is worth keeping.
    growth: a value that a product or a convolution reads may have so many times the bytes of the constants that it is
        made of (an int8 weight as float32: four); any other no more bytes than those. What is larger is computed at
        each call, from the largest parts that may be kept.
    """

    compute: Compute | None = field(default=None, repr=False)
    work: int = 1 << 18
    growth: int = 4
    name = "bind"

    def run(self, graph: Graph, context: Context) -> Graph:
        """The graph with the values that were computed in place of what they were computed from."""
        if self.compute is None or not any(node.op is CONSTANT for node in graph.nodes):
            return graph
        graph = laid_out(graph, context)
        kept = self.kept(graph, context)
        if not kept:
            return graph
        values = self.compute(make_graph((), kept))
        new = {node: _as_constant(node, value) for node, value in zip(kept, values, strict=True)}
        total = sum(node.aval.nbytes for node in kept)
        context.note(f"computed once from constants: {len(kept)} values of {total:,} bytes, {_names(kept)}")
        return _with_values(graph, new, context)

    def kept(self, graph: Graph, context: Context) -> list[Node]:
        """The nodes whose values are computed once: read by what is not constant, and neither too large nor trivial."""
        known = known_nodes(graph)
        read = dict.fromkeys(known, 0)
        by_contraction: set[Node] = set()
        stack = [n for n in graph.outputs if n in known]
        for node in graph.nodes:
            if node not in known:
                stack += [n for n in node.inputs if n in known]
                if node.op in (DOT_GENERAL, CONVOLUTION):
                    by_contraction.update(node.inputs)
        kept: dict[Node, None] = {}
        done: set[Node] = set()
        while stack:
            node = stack.pop()
            if node in done or node.op is CONSTANT or node not in read:
                continue
            done.add(node)
            if len(node.avals) != 1:  # its results are looked at, one by one
                continue
            made_of = _leaves(node)
            given = sum(leaf.aval.nbytes for leaf in made_of)
            limit = given * (self.growth if node in by_contraction else 1)
            if node.aval.nbytes > limit:
                if math.prod(node.aval.shape) > COMPARED_ELEMENTS and node.op.primitive is not p.broadcast_in_dim_p:
                    context.note(
                        f"{node.op.name} of constants is computed at each call: its result would take "
                        f"{node.aval.nbytes:,} bytes beside the {given:,} that it is made of"
                    )
                stack.extend(node.inputs if node.op is not PROJECT else node.inputs[0].inputs)
                continue
            cost = cost_of(make_graph((), [node]))
            if cost.flops + cost.bytes >= self.work:
                kept[node] = None
        return [node for node in graph.nodes if node in kept]


def laid_out(graph: Graph, context: Context) -> Graph:
    """`graph` with constant operands of products and convolutions transposed to how they are read fastest."""
    known = known_nodes(graph)
    count = 0

    def visit(node: Node, inputs: tuple[Node, ...]) -> Node | None:
        nonlocal count
        if node in known or node.effects or node.context is not None:
            return None
        new = None
        if node.op is DOT_GENERAL:
            sides = [k for k in (0, 1) if node.inputs[k] in known and node.inputs[k].aval.size > COMPARED_ELEMENTS]
            new = _product_laid_out(node, inputs, sides) if sides else None
        elif node.op is CONVOLUTION and node.inputs[1] in known and node.inputs[0] not in known:
            new = _convolution_laid_out(node, inputs)
        count += new is not None
        return new

    found = rebuild(graph, context.sources, visit)
    if count:
        context.note(f"constant operands of {count} products or convolutions are transposed once")
    return found


def _product_laid_out(node: Node, inputs: tuple[Node, ...], sides: list[int]) -> Node | None:
    contracted, batch, free = axes_of(node)
    operands = list(inputs)
    summed, batched = [list(contracted[0]), list(contracted[1])], [list(batch[0]), list(batch[1])]
    for side in sides:
        parts = (batch[side], contracted[side], free[side]) if side else (batch[side], free[side], contracted[side])
        order = [axis for part in parts for axis in part]
        if order == sorted(order) or len(contracted[side]) > 1:
            continue
        place = {axis: k for k, axis in enumerate(order)}
        operands[side] = transposed(inputs[side], tuple(order))
        summed[side] = [place[a] for a in contracted[side]]
        batched[side] = [place[a] for a in batch[side]]
    if operands == list(inputs):
        return None
    numbers = (tuple(map(tuple, summed)), tuple(map(tuple, batched)))
    return node.with_attrs(node.attrs.replace(dimension_numbers=numbers)).with_inputs(tuple(operands))


def _convolution_laid_out(node: Node, inputs: tuple[Node, ...]) -> Node | None:
    """With the window's axes first, then input and output features: what XLA:CPU turns every window into."""
    numbers = node.attrs["dimension_numbers"]
    out, into, *space = numbers.rhs_spec
    order = (*space, into, out)
    if order == tuple(range(len(order))):
        return None
    rank = len(order)
    spec = (rank - 1, rank - 2, *range(rank - 2))
    new = lax.ConvDimensionNumbers(numbers.lhs_spec, spec, numbers.out_spec)
    attrs = node.attrs.replace(dimension_numbers=new)
    return node.with_attrs(attrs).with_inputs((inputs[0], transposed(inputs[1], order)))


def _leaves(node: Node) -> set[Node]:
    """The constants that a node depends on."""
    return {n for n in make_graph((), [node]).nodes if n.op is CONSTANT}


def _as_constant(node: Node, value: Array) -> Node:
    return constant(np.asarray(value) if value.size <= COMPARED_ELEMENTS else value, node.aval)


def _with_values(graph: Graph, values: dict[Node, Node], context: Context) -> Graph:
    """`graph` with constants in place of nodes; what only those needed is gone."""
    mapping: dict[Node, Node] = {}
    for node in graph.nodes:
        value = values.get(node)
        mapping[node] = node.with_inputs(tuple([mapping[n] for n in node.inputs])) if value is None else value
    new = make_graph(graph.params, [mapping[n] for n in graph.outputs])
    context.sources.inherit(graph, new, mapping)
    return new


def _names(nodes: Sequence[Node]) -> str:
    """The operations of some nodes, each once, at most five."""
    names = list(dict.fromkeys(node.op.name if node.op is not PROJECT else node.inputs[0].op.name for node in nodes))
    return ", ".join(names[:5]) + (" …" if len(names) > 5 else "")
