"""Each operation knows the user's lines that it comes from, also after the passes."""

import inspect
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.extend.core import ClosedJaxpr

import graphopt
from graphopt.backends.xla.staging import jaxpr_of
from graphopt.explain import Report
from graphopt.ir.graph import Graph, nested_graphs
from graphopt.ir.sources import KEPT, merge
from graphopt.trace.jaxpr import graph_of

X = np.ones(3, np.float32)


def line_of(function: Callable[..., Any], text: str) -> str:
    """Where `text` stands in the source of `function`, as a report writes it."""
    lines, first = inspect.getsourcelines(function)
    (offset,) = (i for i, line in enumerate(lines) if text in line and "line_of" not in line)
    return f"{__file__}:{first + offset}"


def report(function: Callable[..., Any], *arguments: Any) -> Report:
    return graphopt.jit(function).explain(*arguments)  # type: ignore[attr-defined, no-any-return]


def lines(report: Report, op: str, graph: Graph | None = None) -> list[tuple[str, ...]]:
    """`file:line` for each source of each node of the operation, without columns and functions."""
    nodes = (node for node in (graph or report.graph).nodes if node.op.name == op)
    return [tuple(":".join(line.split(":")[:2]) for line in report.lines(node, graph)) for node in nodes]


def test_the_line_and_the_function_of_an_operation() -> None:
    def function(x: Any) -> Any:
        y = jnp.sin(x)  # the sine
        return jnp.cos(y)

    found = report(function, X)
    (sine,) = (node for node in found.graph.nodes if node.op.name == "sin")
    (line,) = found.lines(sine)
    assert line.startswith(line_of(function, "the sine"))
    assert line.endswith("(test_the_line_and_the_function_of_an_operation.<locals>.function)")


def test_merged_operations_have_the_lines_of_all() -> None:
    def function(x: Any) -> Any:
        one = jnp.sin(x)  # the first
        two = jnp.sin(x)  # the second
        return one + two

    assert lines(report(function, X), "sin") == [(line_of(function, "the first"), line_of(function, "the second"))]


def test_inlined_operations_have_their_own_line_and_that_of_the_call() -> None:
    @jax.jit
    def inner(x: Any) -> Any:
        return jnp.sin(x)  # within

    def function(x: Any) -> Any:
        return inner(x) * 2  # the call

    assert lines(report(function, X), "sin") == [(line_of(inner, "# within"), line_of(function, "# the call"))]


def test_operations_in_loops_keep_their_lines_through_all_passes() -> None:
    """Something is dropped from the loop, so its body is made anew."""

    @jax.jit
    def inner(x: Any) -> Any:
        return jnp.tanh(x)  # within

    def function(x: Any) -> Any:
        def step(carry: Any, v: Any) -> Any:
            unused = jnp.cos(carry[1])
            return (jnp.sin(carry[0]), unused), inner(v)  # the step

        return lax.scan(step, (x[0], x[1]), x)[1]

    found = report(function, X)
    (body,) = (graph for graph in nested_graphs(found.graph) if graph is not found.graph)
    assert {node.op.name for node in body.nodes if node.op.primitive} == {"tanh"}
    assert lines(found, "tanh", body) == [(line_of(inner, "# within"), line_of(function, "# the step"))]
    assert lines(found, "scan") == [(line_of(function, "lax.scan"),)]


def test_folded_constants_leave_the_lines_of_others_alone() -> None:
    def function(x: Any) -> Any:
        n = lax.add(np.int32(2), np.int32(3))  # folded
        return x * n.astype(np.float32)  # kept

    found = report(function, X)
    assert lines(found, "mul") == [(line_of(function, "# kept"),)]
    assert "add" not in {node.op.name for node in found.graph.nodes}


def test_equations_carry_the_source_of_the_first() -> None:
    def function(x: Any) -> Any:
        return jnp.sin(x), jnp.cos(x)

    closed = jax.make_jaxpr(function)(X)
    graph, sources = graph_of(closed)
    back = jaxpr_of(graph, sources)
    assert [eqn.source_info for eqn in back.eqns] == [eqn.source_info for eqn in closed.eqns]
    assert [eqn.source_info.traceback for eqn in back.eqns] == [eqn.source_info.traceback for eqn in closed.eqns]


def test_arguments_keep_their_names_and_results_their_places() -> None:
    def function(first: Any, second: Any) -> Any:
        return {"sum": first + second}

    closed = jax.make_jaxpr(function)(X, X)
    graph, sources = graph_of(closed)
    debug = jaxpr_of(graph, sources).jaxpr.debug_info
    assert debug.arg_names == ("first", "second")
    assert debug.func_name == "function"
    assert debug == closed.jaxpr.debug_info


def test_an_unchanged_body_is_the_very_jaxpr_that_it_came_from() -> None:
    closed = jax.make_jaxpr(lambda x: lax.scan(lambda c, v: (c + v, c), x[0], x))(X)
    graph, sources = graph_of(closed)

    def body(closed: ClosedJaxpr) -> Any:
        (scan,) = (eqn for eqn in closed.eqns if eqn.primitive.name == "scan")
        return scan.params["jaxpr"]

    assert body(jaxpr_of(graph, sources)) is body(closed)
    assert body(jaxpr_of(graph)) is not body(closed)


def test_no_more_sources_are_kept_than_anybody_reads() -> None:
    # fmt: off
    def function(x: Any) -> Any:
        return (
            jnp.sin(x),
            jnp.sin(x),
            jnp.sin(x),
            jnp.sin(x),
            jnp.sin(x),
            jnp.sin(x),
            jnp.sin(x),
            jnp.sin(x),
            jnp.sin(x),
            jnp.sin(x),
        )
    # fmt: on

    graph, sources = graph_of(jax.make_jaxpr(function)(X))
    (node,) = (node for node in graph.nodes if node.op.name == "sin")
    assert len(sources.of(graph, node)) == KEPT
    assert sources.of(graph, graph.params[0]) == ()
    assert merge((1, 2), (2, 3)) == (1, 2, 3)
