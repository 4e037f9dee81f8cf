"""A program of every kind, read to a graph and written back, computes the same bits and has the same effects."""

from collections.abc import Iterator

import jax
import pytest
from jax.extend.core import ClosedJaxpr

from graphopt.backends.xla.staging import jaxpr_of
from graphopt.ir.check import check
from graphopt.trace.jaxpr import graph_of

from .outcomes import compiled, op_by_op, outcome, traced
from .programs import PROGRAMS, Program


@pytest.fixture(params=PROGRAMS.values(), ids=PROGRAMS.keys())
def program(request: pytest.FixtureRequest) -> Iterator[Program]:
    chosen: Program = request.param
    with jax.enable_x64(chosen.x64):
        yield chosen


def test_the_graph_keeps_the_rules(program: Program) -> None:
    graph, _ = graph_of(traced(program))
    check(graph)


def test_compiled_it_does_what_jit_does(program: Program) -> None:
    expected = outcome(jax.jit(program.function), program.arguments())
    graph, sources = graph_of(traced(program))
    found = compiled(graph, sources, program.arguments())
    if program.random:
        assert [bits[:2] for bits in found.results] == [bits[:2] for bits in expected.results]
    else:
        assert found == expected


def test_op_by_op_it_does_what_jax_does_op_by_op(program: Program) -> None:
    closed = traced(program)
    graph, _ = graph_of(closed)
    found = op_by_op(graph, program.arguments())
    expected = outcome(jax.extend.core.jaxpr_as_fun(closed), jax.tree.leaves(program.arguments()))
    if program.random:
        assert [bits[:2] for bits in found.results] == [bits[:2] for bits in expected.results]
    else:
        assert found == expected


def test_read_again_it_is_the_same_graph(program: Program) -> None:
    graph, sources = graph_of(traced(program))
    with jax.enable_x64(True):  # where the default is 32 bits, NumPy's constants of 64 bits go out as JAX's
        assert graph_of(jaxpr_of(graph, sources))[0] is graph
        assert graph_of(jaxpr_of(graph))[0] is graph


def test_types_and_weak_types_stay(program: Program) -> None:
    closed = traced(program)
    back = jaxpr_of(graph_of(closed)[0])
    assert isinstance(back, ClosedJaxpr)
    assert (back.in_avals, back.out_avals) == (closed.in_avals, closed.out_avals)
    assert len(back.effects) == len(closed.effects)
