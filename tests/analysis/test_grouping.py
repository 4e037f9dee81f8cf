"""Which operations share a kernel: on random graphs no kernels wait for each other, and none is larger than it may be."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import networkx as nx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jax import lax

import graphopt
from graphopt.analysis.grouping import LIMIT, Group, groups_of, is_repeated, is_worth_a_kernel
from graphopt.analysis.reductions import CUMULATIVE
from graphopt.ir.graph import Graph
from graphopt.ir.node import Node, constant
from graphopt.ir.op import CONSTANT, PARAM

X = np.ones((3, 4), np.float32)


def takes(node: Node) -> bool:
    """All but sin, which stands for what an engine declines."""
    return node.op.primitive is not None and node.op.name != "sin"


def grouped(function: Callable[..., Any], *args: Any) -> tuple[Graph, list[Group]]:
    graph = graphopt.trace(function)(*args)
    return graph, groups_of(graph, takes)


def names(groups: list[Group]) -> list[list[str]]:
    return sorted(sorted(node.op.name for node in group.members) for group in groups)


def order_is_possible(graph: Graph, groups: list[Group]) -> bool:
    """Whether each kernel can run when all that it needs is there."""
    unit = {node: number for number, group in enumerate(groups) for node in group.members}
    between: nx.DiGraph = nx.DiGraph()
    for node in graph.nodes:
        for operand in node.inputs:
            a, b = unit.get(operand, operand), unit.get(node, node)
            if a != b:
                between.add_edge(a, b)
    return bool(nx.is_directed_acyclic_graph(between))


def well_made(graph: Graph, groups: list[Group]) -> None:
    users = graph.users()
    seen: set[Node] = set()
    for group in groups:
        assert not group.members & seen
        seen |= group.members
        assert set(group.results) <= group.members and len(group.results) == len(set(group.results))
        assert len({result.aval.shape for result in group.results}) == 1
        assert len(group.members) <= LIMIT
        needed = {n for n in group.members if n in graph.outputs or any(u not in group.members for u in users[n])}
        assert needed == set(group.results)
        assert not any(n.op in CUMULATIVE for n in group.members - set(group.results))
        assert len(group.results) == 1 or not any(n.op in CUMULATIVE for n in group.results)
    assert seen == {n for n in graph.nodes if n.op not in (PARAM, CONSTANT) and takes(n)}
    assert order_is_possible(graph, groups)


def test_producers_go_into_their_only_consumer() -> None:
    graph, groups = grouped(lambda x: (x + 1) * (x - 2), X)
    assert names(groups) == [["add", "mul", "sub"]]
    graph, groups = grouped(lambda x: lax.mul(lax.sin(x + 1), x), X)
    assert names(groups) == [["add"], ["mul"]]
    well_made(graph, groups)


def test_what_is_needed_outside_too_is_one_more_result() -> None:
    graph, groups = grouped(lambda x: (y := x + 1, y * x), X)
    assert names(groups) == [["add", "mul"]] and len(groups[0].results) == 2
    graph, groups = grouped(lambda x: (y := x + 1, jnp.sum(y)), X)  # of another shape: a kernel of its own
    assert names(groups) == [["add"], ["reduce_sum"]]
    well_made(graph, groups)


def test_no_kernel_waits_for_itself() -> None:
    """The sum is needed in the product both directly and through what is declined."""
    graph, groups = grouped(lambda x: (y := x + 1) * lax.sin(y), X)
    assert names(groups) == [["add"], ["mul"]]
    assert order_is_possible(graph, groups)
    graph, groups = grouped(lambda x: (y := x + 1) * lax.sin(y * 2) - lax.sin(lax.abs(y)), X)
    well_made(graph, groups)


def test_two_kernels_do_not_wait_for_each_other() -> None:
    def function(x: Any) -> Any:
        a, b = x + 1, x * 3
        return a - lax.sin(b), b - lax.sin(a), a * b

    well_made(*grouped(function, X))


def test_a_cumulative_operation_ends_its_kernel() -> None:
    graph, groups = grouped(lambda x: lax.cumsum(x + 1, 1) * 2, X)
    assert names(groups) == [["add", "cumsum"], ["mul"]]
    graph, groups = grouped(lambda x: (lax.cumsum(y := x + 1, 1), y), X)
    well_made(graph, groups)


def test_a_long_chain_is_cut() -> None:
    def chain(x: Any) -> Any:
        for k in range(2 * LIMIT):
            x = lax.neg(x) if k % 2 else x * x
        return x

    graph, groups = grouped(chain, X)
    assert sorted(len(group.members) for group in groups) == [LIMIT, LIMIT]
    well_made(graph, groups)


def test_a_node_may_be_cut_off() -> None:
    graph = graphopt.trace(lambda x: x - jnp.sum(x + 1, 1, keepdims=True))(X)
    (total,) = [node for node in graph.nodes if node.op.name == "reduce_sum"]
    groups = groups_of(graph, takes, {total})
    assert names(groups) == [["add", "reduce_sum"], ["broadcast_in_dim", "sub"]]
    assert any(group.results == [total] for group in groups)


def test_sums_that_are_made_of_the_same_pieces_are_one_kernel() -> None:
    def forces(x: Any, y: Any) -> Any:
        dx, dy = x[:, None] - x, y[:, None] - y
        near = jnp.exp(-dx * dx - dy * dy)
        return (dx * near).sum(1), (dy * near).sum(1), (dx * near).sum()

    graph = graphopt.trace(forces)(X[0], X[1])
    pieces = {node for node in graph.nodes if node.op.name != "reduce_sum"}
    groups = groups_of(graph, takes, (), pieces)
    assert sorted(len(group.results) for group in groups) == [1, 2]  # a number is not made in the loops of the others
    (both,) = (group for group in groups if len(group.results) == 2)
    assert [result.op.name for result in both.results] == ["reduce_sum"] * 2
    assert order_is_possible(graph, groups_of(graph, takes, (), pieces))


def test_what_only_moves_data_is_not_worth_a_kernel() -> None:
    _, (moving,) = grouped(lambda x: jnp.transpose(x)[::2], X)
    _, (computing,) = grouped(lambda x: jnp.transpose(x) * 2, X)
    assert not is_worth_a_kernel(moving) and is_worth_a_kernel(computing)


def test_a_constant_of_one_number_is_repeated() -> None:
    assert is_repeated(constant(np.float32(3))) and is_repeated(constant(np.full(4, 7)))
    assert not is_repeated(constant(np.arange(4)))
    graph = graphopt.trace(lambda x: x + 1)(X)
    assert not is_repeated(graph.params[0])


steps = st.lists(st.tuples(st.integers(0, 7), st.integers(0, 30), st.integers(0, 30)), min_size=1, max_size=60)


@given(steps, st.lists(st.integers(0, 60), min_size=1, max_size=4))
def test_random_graphs(drawn: list[tuple[int, int, int]], outputs: list[int]) -> None:
    def function(x: Any, y: Any) -> list[Any]:
        known = [x, y]
        for kind, i, j in drawn:
            a, b = known[-1 - i % len(known)], known[-1 - j % len(known)]
            if kind <= 1 and a.shape == b.shape:
                known.append(lax.add(a, b) if kind else lax.mul(a, b))
            elif kind == 2:
                known.append(lax.sin(a))
            elif kind == 3 and a.ndim == 2:
                known.append(jnp.max(a, 1))
            elif kind == 4 and a.ndim == 1:
                known.append(lax.broadcast_in_dim(a, (3, 4), (0,)))
            elif kind == 5:
                known.append(lax.cumsum(a, 0))
            else:
                known.append(lax.neg(a))
        return [known[k % len(known)] for k in outputs]

    graph = graphopt.trace(function)(X, X[:, 0])
    well_made(graph, groups_of(graph, takes))
    cut = {node for node in graph.nodes if node.op.name == "reduce_max"}
    groups = groups_of(graph, takes, cut)
    well_made(graph, groups)
    assert all(node in group.results for group in groups for node in group.members & cut)


@pytest.mark.parametrize("depth", [300])
def test_a_deep_graph_takes_no_deep_stack(depth: int) -> None:
    def function(x: Any) -> Any:
        for _ in range(depth):
            x = lax.sin(x + 1) * x
        return x

    with jax.disable_jit(False):
        graph, groups = grouped(function, X)
    assert order_is_possible(graph, groups)
