"""Parts of a kernel that do not need each other: their parallel loops run side by side.

The first loops of all parts are one stage, the second ones the next, and so on; what a thread takes next may be of any
of a stage's loops. Each part is written as if it were alone.

Body:
    %2: f32[1000] = cumsum[axis=0, reverse=False](%0)
    %3: i32[70] = argmax[axes=(1,), index_dtype=int32](%1)
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import replace

import networkx

from graphopt.analysis.derive import Derivation
from graphopt.analysis.grouping import is_alone
from graphopt.ir.graph import Graph, make_graph
from graphopt.ir.loop import Phase
from graphopt.ir.node import Node
from graphopt.ir.op import CONSTANT, PARAM, PROJECT

LEAST = 3_000.0
"""Nanoseconds of work that another thread may as well do: less is done before it has begun."""

Part = tuple[Graph, tuple[int, ...]]
"""What computes some of the results, and their numbers."""


def parts_apart(body: Graph) -> list[Part]:
    """The parts of a body that are to be written apart: those that have no operation in common.

    One part where all results have one shape, so that one loop over their elements computes them all.
    """
    joined: networkx.Graph[Node] = networkx.Graph()
    inner = [n for n in body.nodes if n.op is not PARAM and n.op is not CONSTANT]
    joined.add_nodes_from(inner)
    joined.add_edges_from((operand, n) for n in inner for operand in n.inputs if operand in joined)
    found: list[tuple[int, ...]] = []
    for nodes in networkx.connected_components(joined):
        found.append(tuple(k for k, n in enumerate(body.outputs) if n in nodes))
    covered = sorted(itertools.chain(*found)) == list(range(len(body.outputs)))
    alone = any(is_alone(n) for n in inner if n.op is not PROJECT)
    if not covered or not (alone or len({n.aval.shape for n in body.outputs}) > 1):
        return [(body, tuple(range(len(body.outputs))))]
    return [(make_graph(body.params, [body.outputs[k] for k in numbers]), numbers) for numbers in sorted(found)]


def write_beside(derivation: Derivation, parts: Sequence[tuple[Part, Callable[[Derivation], None]]]) -> None:
    """The phases of all parts, in stages. Each part comes with what writes it."""
    whole, outputs = derivation.body, derivation.outputs
    derivation.parts = len(parts)
    written: list[list[tuple[Phase, float]]] = []
    for (body, numbers), write in parts:
        derivation.body, derivation.outputs = body, [outputs[k] for k in numbers]
        before = len(derivation.phases)
        write(derivation)
        written.append(list(zip(derivation.phases[before:], derivation.works[before:], strict=True)))
    derivation.body, derivation.outputs = whole, outputs
    stages = [[p for p in stage if p is not None] for stage in itertools.zip_longest(*written)]
    derivation.phases = [phase for stage in stages for phase in _stage(stage)]


def _stage(phases: Sequence[tuple[Phase, float]]) -> list[Phase]:
    """Phases, those with the most work first, each beside the one before it where there is enough to do."""
    ordered = sorted(phases, key=lambda known: -known[1])
    rest = sum(work for _, work in ordered[1:])
    return [replace(phase, beside=k > 0 and rest >= LEAST) for k, (phase, _) in enumerate(ordered)]
