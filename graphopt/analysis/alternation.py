"""Stretches whose steps take turns with what they read: several steps are taken as one, for which it is the same.

x = tanh(a @ x)
x = tanh(b @ x)        a step of two operations reads a, b, a, b, …; one of four reads both
x = tanh(a @ x)
…
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain

import numpy as np
import numpy.typing as npt

from graphopt.analysis.repetition import Stretch, Varying, in_order, ways_to_cut
from graphopt.analysis.runs import Run
from graphopt.ir.graph import Graph
from graphopt.ir.node import Node
from graphopt.ir.op import CONSTANT

MOST_TURNS = 8
"""How many steps are taken as one at most."""

LEAST_SHARE = 0.5
"""Of the bytes that differ from step to step the share that is to be the same at least where several are one."""

LEAST_ALIKE = 0.75
"""Of the steps the share in which an operand comes again at least, for it to take turns."""

SMALL = 64
"""Bytes of a constant that costs nothing, wherever it differs."""


def taking_turns(graph: Graph, found: Sequence[Sequence[Stretch]], least_count: int) -> list[list[Stretch]]:
    """The stretches of a graph with several steps as one, where these then read the same; an empty list where that is
    so for none. found: as `stretches` gives them, and so is the result."""
    work = in_order(graph)
    position = {node: i for i, node in enumerate(work)}
    longer: list[list[Stretch]] = []
    some = False
    for ways in found:
        run = _run_of_turns(ways[0], position, least_count)
        wider = [] if run is None else ways_to_cut(work, position, run, least_count)
        some = some or bool(wider)
        longer.append(wider or list(ways))
    return longer if some else []


def _run_of_turns(stretch: Stretch, position: dict[Node, int], least_count: int) -> Run | None:
    """The most steps one after the other that take turns, with those of a turn as one; None where none do."""
    operands = {o.nodes for row in stretch.operands for o in row if isinstance(o, Varying) and not _is_free(o)}
    if not operands:
        return None
    sizes = {nodes: nodes[0].aval.nbytes for nodes in operands}
    numbers = {node: number for number, node in enumerate(dict.fromkeys(chain.from_iterable(operands)))}
    columns = {nodes: np.array([numbers[node] for node in nodes], np.int64) for nodes in operands}
    all_bytes = sum(sizes.values())
    best, most = None, LEAST_SHARE * all_bytes
    for turns in range(2, min(MOST_TURNS, stretch.count // least_count) + 1):
        again = {nodes: column[turns:] == column[:-turns] for nodes, column in columns.items()}
        taken = [nodes for nodes in operands if again[nodes].mean() >= LEAST_ALIKE]
        same = sum(sizes[nodes] for nodes in taken)
        if same < most or (best and same == most):
            continue
        first, stop = _longest(np.logical_and.reduce([again[nodes] for nodes in taken]))
        period, start = len(stretch.rows), position[stretch.rows[0][0]]
        run = Run(start + first * period, turns * period, start + (stop + turns) * period)
        if run.count >= least_count:
            best, most = run, same
    return best


def _is_free(operand: Varying) -> bool:
    return all(node.op is CONSTANT for node in operand.nodes) and operand.nodes[0].aval.nbytes <= SMALL


def _longest(found: npt.NDArray[np.bool_]) -> tuple[int, int]:
    """Where the longest row of True begins and ends."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], found, [False]])))
    if not len(edges):
        return 0, 0
    starts, stops = edges.reshape(-1, 2).T
    best = int(np.argmax(stops - starts))
    return int(starts[best]), int(stops[best])
