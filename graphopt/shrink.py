"""The smallest graph that still shows a fault: parts of a graph are cut off as long as the fault stays.

After A. Zeller and R. Hildebrandt, "Simplifying and Isolating Failure-Inducing Input", IEEE TSE 28 (2002): what can be
taken away without losing the fault had nothing to do with it. Here a node is taken away by putting a parameter with
the node's value in its place.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from graphopt.backends.reference import apply_opened, drawn, evaluate
from graphopt.ir.graph import Graph, make_graph, topological
from graphopt.ir.node import Node, param
from graphopt.ir.op import CONSTANT, PARAM

Shows = Callable[[Graph, Sequence[Any]], bool]
"""Whether a graph, on these arguments, shows the fault."""

TRIES = 200
"""How many graphs are tried at most; each is rewritten and evaluated."""


@dataclass(frozen=True, slots=True)
class Sample:
    """A graph and arguments for it."""

    graph: Graph
    args: tuple[Any, ...]


def shrink(sample: Sample, shows: Shows) -> Sample:
    """The smallest graph found that shows the fault, and arguments for it; `sample` where nothing can be taken away.

    A graph with effects or Refs is returned as it is: its parts cannot be run by themselves.
    """
    if any(node.effects for node in sample.graph.nodes):
        return sample
    for output in sample.graph.outputs:
        alone = part([output], (), sample)
        if shows(alone.graph, alone.args):
            sample = alone
            break
    sample = _cut_behind(sample, shows)
    sample = _cut_at_depth(sample, shows)
    return _cut_one_by_one(sample, shows)


def around(node: Node, args: Sequence[Any] | None, seed: int = 0) -> Sample:
    """The graph that computes `node`, on `args` for its parameters, or on drawn ones where those are not known."""
    graph = part([node], (), None).graph
    if args is not None and all(p.attrs["index"] < len(args) for p in _params([node])):
        return Sample(graph, tuple(args[p.attrs["index"]] for p in _params([node])))
    random = np.random.default_rng(seed)
    return Sample(graph, tuple(drawn(aval, random) for aval in graph.in_avals))


def part(outputs: Sequence[Node], leaves: Collection[Node], sample: Sample | None) -> Sample:
    """The graph that computes `outputs`, with each of `leaves` replaced by a parameter that has its value.

    Without a sample there are no values.
    """
    mapping: dict[Node, Node] = {}
    held: list[Node] = []
    for node in topological((), outputs, leaves):
        if node in leaves or node.op is PARAM:
            mapping[node] = param(len(held), node.aval)
            held.append(node)
        else:
            mapping[node] = node if node.op is CONSTANT else node.with_inputs(tuple(mapping[n] for n in node.inputs))
    graph = make_graph([mapping[n] for n in held], [mapping[n] for n in outputs])
    if sample is None:
        return Sample(graph, ())
    wanted = make_graph(sample.graph.params, held)
    return Sample(graph, tuple(evaluate(wanted, *sample.args, apply=apply_opened)))


def _params(outputs: Sequence[Node]) -> list[Node]:
    return [node for node in topological((), outputs) if node.op is PARAM]


def _can_be_leaf(node: Node) -> bool:
    return len(node.avals) == 1 and node.aval.is_array and node.op is not PARAM and node.op is not CONSTANT


def _cut_behind(sample: Sample, shows: Shows) -> Sample:
    """With the first node that shows the fault as the only output: found by bisection of the order of nodes."""
    nodes = [node for node in sample.graph.nodes if _can_be_leaf(node)]
    good, bad = 0, len(nodes)
    while bad - good > 1:
        middle = (good + bad) // 2
        first = part(nodes[:middle], (), sample)
        if shows(first.graph, first.args):
            bad = middle
        else:
            good = middle
    if not nodes:
        return sample
    alone = part([nodes[bad - 1]], (), sample)
    smaller = len(alone.graph.nodes) < len(sample.graph.nodes)
    return alone if smaller and shows(alone.graph, alone.args) else sample


def _cut_at_depth(sample: Sample, shows: Shows) -> Sample:
    """With only the nodes that are nearest to the output, as few layers of them as show the fault."""
    layer = set(sample.graph.outputs)
    for _ in range(8):
        layer = {operand for node in layer for operand in node.inputs}
        leaves = {node for node in layer if _can_be_leaf(node)} - set(sample.graph.outputs)
        if not leaves:
            break
        smaller = part(sample.graph.outputs, leaves, sample)
        if len(smaller.graph.nodes) < len(sample.graph.nodes) and shows(smaller.graph, smaller.args):
            return smaller
    return sample


def _cut_one_by_one(sample: Sample, shows: Shows) -> Sample:
    tries, again = 0, True
    while again and tries < TRIES:
        again = False
        for node in reversed(sample.graph.nodes):
            if not _can_be_leaf(node) or node in sample.graph.outputs:
                continue
            tries += 1
            smaller = part(sample.graph.outputs, {node}, sample)
            if len(smaller.graph.nodes) < len(sample.graph.nodes) and shows(smaller.graph, smaller.args):
                sample, again = smaller, True
                break
            if tries >= TRIES:
                break
    return sample
