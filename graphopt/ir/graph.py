"""Graphs: closed pure functions from parameters to outputs, interned like nodes."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Sequence
from typing import Any, TypeVar
from weakref import WeakValueDictionary

import networkx

from graphopt.errors import GraphError
from graphopt.ir.attrs import SubGraph
from graphopt.ir.aval import Aval
from graphopt.ir.node import Node
from graphopt.ir.op import PARAM
from graphopt.ir.text import format_graph


class Graph:
    """A pure function: `outputs` computed from `params`, and from nothing else.

    params: nodes of the operation `param`, numbered from 0. outputs: data first, then the final state of each effect.
    Interned, so equality is `is`. `str(graph)` is text that `graphopt.ir.parse.parse` reads back to this object.
    """

    __slots__ = ("__weakref__", "_nodes", "_places", "outputs", "params")

    params: tuple[Node, ...]
    outputs: tuple[Node, ...]
    _nodes: tuple[Node, ...] | None
    _places: dict[Node, int] | None

    @property
    def nodes(self) -> tuple[Node, ...]:
        """All nodes, operands before users: the parameters first, then in the order in which the outputs need them."""
        if self._nodes is None:
            self._nodes = topological(self.params, self.outputs)
        return self._nodes

    def in_order(self, some: Iterable[Node]) -> list[Node]:
        """Some of the nodes, operands before users, as in `nodes`; in time for as many as they are."""
        if self._places is None:
            self._places = {node: place for place, node in enumerate(self.nodes)}
        return sorted(some, key=self._places.__getitem__)

    @property
    def results(self) -> tuple[Node, ...]:
        """The outputs that are values of the program, without the final states of effects."""
        return tuple(n for n in self.outputs if not n.aval.is_state)

    @property
    def in_avals(self) -> tuple[Aval, ...]:
        """Types of the parameters."""
        return tuple(p.aval for p in self.params)

    @property
    def out_avals(self) -> tuple[Aval, ...]:
        """Types of the results."""
        return tuple(n.aval for n in self.results)

    @property
    def subgraphs(self) -> Iterator[SubGraph]:
        """The sub-graphs that this graph's nodes hold (not those inside them), once for each node that holds one."""
        return (s for node in self.nodes for s in node.subgraphs)

    def count(self) -> int:
        """Number of operations, sub-graphs included: parameters, constants, projections and states do not count."""
        total = 0
        for graph in nested_graphs(self):
            total += sum(node.op.primitive is not None for node in graph.nodes)
        return total

    def users(self) -> dict[Node, list[Node]]:
        """For each node the nodes that read it (twice where it is two operands); outputs are not users."""
        users: dict[Node, list[Node]] = {node: [] for node in self.nodes}
        for node in self.nodes:
            for operand in node.inputs:
                users[operand].append(node)
        return users

    def nx(self) -> networkx.DiGraph[Node]:
        """The graph for networkx: an edge from operand to user, with the operand's positions in `operands`."""
        view: networkx.DiGraph[Node] = networkx.DiGraph()
        view.add_nodes_from(self.nodes)
        for node in self.nodes:
            for position, operand in enumerate(node.inputs):
                before = view.edges[operand, node]["operands"] if view.has_edge(operand, node) else ()
                view.add_edge(operand, node, operands=(*before, position))
        return view

    def __len__(self) -> int:
        return len(self.nodes)

    def __str__(self) -> str:
        return format_graph(self)

    def __repr__(self) -> str:
        return f"<Graph: {len(self.params)} inputs, {len(self.nodes)} nodes, {len(self.outputs)} outputs>"

    def __copy__(self) -> Graph:
        return self

    def __deepcopy__(self, memo: Any) -> Graph:
        return self


_lock = threading.RLock()
_table: WeakValueDictionary[tuple[tuple[Node, ...], tuple[Node, ...]], Graph] = WeakValueDictionary()


def make_graph(params: Iterable[Node], outputs: Iterable[Node]) -> Graph:
    """The graph of these parameters and outputs: an existing one if there is one. Thread-safe.

    Raises GraphError if the parameters are not numbered 0, 1, 2, ….
    """
    key = (tuple(params), tuple(outputs))
    for index, node in enumerate(key[0]):
        if node.op is not PARAM or node.attrs["index"] != index:
            raise GraphError(f"parameter {index} of a graph is {node!r}, not param[index={index}]")
    with _lock:
        graph = _table.get(key)
        if graph is None:
            graph = object.__new__(Graph)
            graph.params, graph.outputs = key
            graph._nodes = graph._places = None
            _table[key] = graph
    return graph


def live_graphs() -> list[Graph]:
    """Every graph that something in this process still holds."""
    with _lock:
        return list(_table.values())


def topological(params: tuple[Node, ...], outputs: Sequence[Node], leaves: Collection[Node] = ()) -> tuple[Node, ...]:
    """`params` and all that `outputs` need, operands before users; depth is not bounded by Python's stack.

    leaves: nodes behind which it does not look.
    """
    seen = set(params)
    order = list(params)
    stack: list[tuple[Node, bool]] = [(node, False) for node in reversed(outputs)]
    while stack:
        node, entered = stack.pop()
        if entered:
            order.append(node)
        elif node not in seen:
            seen.add(node)
            stack.append((node, True))
            if node not in leaves:
                stack.extend((operand, False) for operand in reversed(node.inputs) if operand not in seen)
    return tuple(order)


Item = TypeVar("Item", bound=Hashable)


def depth_first(starts: Sequence[Item], needs: Callable[[Item], Iterable[Item]]) -> list[Item]:
    """`starts` and all that they need, each after what it needs itself; depth is not bounded by Python's stack."""
    order: list[Item] = []
    seen: set[Item] = set()
    stack = [(item, False) for item in reversed(starts)]
    while stack:
        item, entered = stack.pop()
        if entered:
            order.append(item)
        elif item not in seen:
            seen.add(item)
            stack.append((item, True))
            stack.extend((other, False) for other in needs(item) if other not in seen)
    return order


def nested_graphs(graph: Graph) -> list[Graph]:
    """`graph` and every graph below it, each once, those that are held before those that hold them."""
    return depth_first((graph,), lambda current: [sub.graph for sub in current.subgraphs])
