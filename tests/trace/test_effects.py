"""Effects are values: what happens, how often and in which order, is in the graph."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.experimental import io_callback

from graphopt.backends.xla.staging import jaxpr_of
from graphopt.ir.check import check
from graphopt.ir.graph import Graph
from graphopt.ir.node import Node, first_state
from graphopt.ir.op import STATE
from graphopt.trace.jaxpr import graph_of, trace_function

from .outcomes import compiled, jitted, op_by_op, outcome, traced
from .programs import Program, record, recorded

X = np.float32(1)


def chain(graph: Graph, output: Node) -> list[Node]:
    """The nodes through which a state goes, from the first to `output`."""
    found = []
    state = output
    while state.op is not STATE:
        node = state.inputs[0] if state.op.name == "project" else state
        found.append(node)
        index = state.attrs["index"] - len(node.data_avals) if node is not state else 0
        state = [n for n in node.inputs if n.aval.is_state][index]
    assert state is first_state(output)
    return found[::-1]


def test_ordered_effects_are_one_chain_in_the_order_of_the_program() -> None:
    def function(x: Any) -> Any:
        io_callback(record, None, x, ordered=True)
        y = io_callback(recorded, x, x, ordered=True)
        io_callback(record, None, x, ordered=True)
        return y

    graph, _ = trace_function(function, X)
    check(graph)
    (state,) = (n for n in graph.outputs if n.aval.is_state)
    assert len(graph.results) == 1
    assert graph.out_avals == (graph.in_avals[0],)
    first, second, third = chain(graph, state)
    assert (len(first.data_avals), len(second.data_avals), len(third.data_avals)) == (0, 1, 0)
    assert first is not third  # equal but for the state


def test_each_kind_of_effect_has_a_state_of_its_own() -> None:
    def function(x: Any) -> Any:
        io_callback(record, None, x, ordered=True)
        jax.debug.callback(record, x)
        io_callback(record, None, x)
        jax.debug.callback(record, x)
        jax.debug.print("{}", x, ordered=True)
        return x

    graph, _ = trace_function(function, X)
    states = [n for n in graph.outputs if n.aval.is_state]
    assert graph.outputs[len(graph.results) :] == tuple(states)
    lengths = {type(s.aval.type.effect).__name__: len(chain(graph, s)) for s in states}
    assert sorted(lengths.values()) == [1, 1, 1, 2]
    assert [type(s.aval.type.effect).__name__ for s in states] == sorted(lengths)


def test_what_is_unused_stays_if_it_has_effects() -> None:
    def function(x: Any) -> Any:
        io_callback(recorded, x, x, ordered=True)
        io_callback(recorded, x, x)
        jnp.sin(x)
        jax.pure_callback(np.cos, x, x)
        lax.cond(x > 0, lambda: io_callback(record, None, x + 1, ordered=True), lambda: None)
        jax.jit(lambda y: io_callback(record, None, y * 3, ordered=True))(x)
        return None

    program = Program(function, lambda: (X,))
    closed = traced(program)
    graph, sources = graph_of(closed)
    assert [node.op.name for node in graph.nodes if node.op.name in ("sin", "pure_callback")] == []
    expected = outcome(jax.jit(function), (X,))
    assert sorted(map(str, expected.effects)) == sorted(["[1.0]", "[1.0]", "[2.0]", "[3.0]"])
    assert compiled(graph, sources, (X,)) == expected
    assert op_by_op(graph, (X,)) == jitted(closed, (X,)) == expected


def test_loops_and_branches_carry_the_effects_of_their_bodies() -> None:
    def function(xs: Any) -> Any:
        def step(c: Any, x: Any) -> Any:
            io_callback(record, None, x, ordered=True)
            return c, None

        lax.scan(step, 0, xs)
        lax.fori_loop(0, 3, lambda i, c: (io_callback(record, None, i, ordered=True), c)[1], 0)
        lax.while_loop(lambda n: io_callback(recorded, n, n, ordered=True) < 8, lambda n: n + 1, 0)
        lax.switch(xs[0], [lambda: None, lambda: io_callback(record, None, 7, ordered=True)])
        return xs

    xs = np.arange(1, 4)
    graph, sources = trace_function(function, xs)
    check(graph)
    (state,) = (n for n in graph.outputs if n.aval.is_state)
    links = chain(graph, state)
    assert [node.op.name for node in links] == ["scan", "while", "while", "cond"] or [
        node.op.name for node in links
    ] == [
        "scan",
        "scan",
        "while",
        "cond",
    ]
    expected = outcome(jax.jit(function), (xs,))
    assert expected.effects == [[1], [2], [3], [0], [1], [2], [0], [1], [2], [3], [4], [7]]
    assert compiled(graph, sources, (xs,)) == expected
    assert compiled(graph, None, (xs,)) == expected
    assert op_by_op(graph, (xs,)) == expected


def test_the_jaxpr_has_the_effects_of_the_original() -> None:
    def function(ref: Any, x: Any) -> Any:
        ref[...] += x
        inner = jax.new_ref(x)
        inner[...] = ref[...]
        jax.debug.print("{}", x)
        return jax.jit(lambda r: r[...] * inner[...])(ref)

    closed = jax.make_jaxpr(function)(jax.new_ref(jnp.float32(0)), X)
    back = jaxpr_of(graph_of(closed)[0])

    def described(closed: Any) -> list[tuple[str, int | None]]:
        invars = list(closed.jaxpr.invars)
        places = ((type(e).__name__, getattr(e, "input", None)) for e in closed.effects)
        return sorted((name, invars.index(var) if var in invars else var) for name, var in places)

    assert described(back) == described(closed)
