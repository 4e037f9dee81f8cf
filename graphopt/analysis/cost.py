"""Cost: operations and bytes of a graph, by the operations' own counts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from graphopt.ir.graph import Graph, nested_graphs
from graphopt.ir.node import Node
from graphopt.ops.control import COND, SCAN, WHILE, Scan
from graphopt.ops.linalg import LINEAR_SOLVE, solve_of
from graphopt.ops.local import RETYPE


@dataclass(frozen=True, slots=True)
class Cost:
    """What running a graph once takes.

    flops: arithmetic operations of the operations that say how many. bytes: operands read and results written, each
    operation by itself (fusion reads and writes less). uncounted: how many operations say nothing of their arithmetic.
    unbounded: whether a `while` was counted as one iteration, for nobody knows how many it makes.
    """

    flops: int = 0
    bytes: int = 0
    uncounted: int = 0
    unbounded: bool = False

    def __add__(self, other: Cost) -> Cost:
        return Cost(
            self.flops + other.flops,
            self.bytes + other.bytes,
            self.uncounted + other.uncounted,
            self.unbounded or other.unbounded,
        )

    def __mul__(self, times: int) -> Cost:
        return Cost(self.flops * times, self.bytes * times, self.uncounted * times, self.unbounded)


def cost_of(graph: Graph) -> Cost:
    """The cost of one run of `graph`: loops by their iterations, of branches the costliest."""
    costs: dict[Graph, Cost] = {}
    for current in nested_graphs(graph):
        costs[current] = sum((node_cost(node, costs) for node in current.nodes), Cost())
    return costs[graph]


def node_cost(node: Node, costs: Mapping[Graph, Cost] = MappingProxyType({})) -> Cost:
    """The cost of one node. costs: of its sub-graphs."""
    if node.op.primitive is None or node.op is RETYPE:
        return Cost()
    if node.op is SCAN:
        scan = Scan.of(node)
        return costs[scan.body] * scan.length
    if node.op is COND:
        return max((costs[sub.graph] for sub in node.subgraphs), key=lambda c: (c.flops, c.bytes))
    if node.op is WHILE:
        return sum((costs[sub.graph] for sub in node.subgraphs), Cost(unbounded=True))
    if node.op is LINEAR_SOLVE:
        return costs[solve_of(node)]
    ins, outs = [n.aval for n in node.data_inputs], node.data_avals
    moved = sum(aval.nbytes for aval in (*ins, *outs))
    if node.op.flops is not None:
        static = all(aval.is_static for aval in (*ins, *outs))
        return Cost(node.op.flops(node.attrs, ins, outs) if static else 0, moved, int(not static))
    if node.subgraphs:
        return sum((costs[sub.graph] for sub in node.subgraphs), Cost())
    return Cost(0, moved, 1)
