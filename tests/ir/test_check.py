"""Each rule of a graph, broken once: the error names the node and the reason and shows the place."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import pytest
from jax.extend.core import Primitive, primitives

from graphopt.errors import GraphError
from graphopt.ir.attrs import EMPTY, Attrs, SubGraph
from graphopt.ir.aval import array_aval
from graphopt.ir.check import check
from graphopt.ir.graph import Graph, make_graph
from graphopt.ir.node import Constant, Node, constant, effect_state, make_node, param, project, results
from graphopt.ir.op import CONSTANT, PROJECT, Op, op_of
from graphopt.trace.jaxpr import graph_of, trace_function

from ..trace.outcomes import traced
from ..trace.programs import PROGRAMS, Program

F32 = array_aval((3,), np.dtype(np.float32))
ADD, SIN, QR_OP, JIT = (op_of(getattr(primitives, f"{name}_p")) for name in ("add", "sin", "qr", "jit"))
ACCURACY = Attrs({"accuracy": None})
X, Y = param(0, F32), param(1, F32)
ALIEN = param(7, F32)


def sine(x: Node, aval: Any = F32) -> Node:
    return make_node(SIN, (x,), ACCURACY, (aval,))


def plus(x: Node, y: Node) -> Node:
    return make_node(ADD, (x, y), EMPTY, (F32,))


def chain(node: Node) -> Graph:
    """A graph with `node` in its middle."""
    return make_graph((X, Y), (sine(sine(node)), sine(sine(plus(X, Y)))))


def pair() -> Node:
    return make_node(QR_OP, (SQUARE,), QR, (SQUARE.aval, SQUARE.aval))


def effectful(*states: Node, results: int | None = None, data: tuple[Any, ...] = ()) -> Node:
    avals = tuple(s.aval for s in states)[: results if results is not None else len(states)]
    return make_node(op_of(LOGGED), states, EMPTY, (*data, *avals), effects=frozenset({"an effect"}))


LOGGED = Primitive("logged")
START = effect_state("an effect")
QR = Attrs({"full_matrices": False, "pivoting": False, "use_magma": None})
SQUARE = constant(np.eye(3, dtype=np.float32))


def without_the_last_output(program: Program) -> Graph:
    graph, _ = graph_of(traced(program))
    return make_graph(graph.params, graph.outputs[:-1])


BROKEN: dict[str, tuple[Callable[[], Graph], str, str]] = {
    "a parameter of another graph": (
        lambda: chain(plus(X, ALIEN)),
        "<param: f32[3]>",
        "input 7 is not an input of this graph",
    ),
    "a constant of another shape": (
        lambda: chain(make_node(CONSTANT, (), Attrs({"value": Constant(np.zeros(2, np.float32))}), (F32,))),
        "<constant: f32[3]>",
        "the constant has shape (2,), its type (3,)",
    ),
    "a result that there is not": (
        lambda: chain(make_node(PROJECT, (pair(),), Attrs({"index": 2}), (F32,))),
        "<project: f32[3]>",
        "there is no result 2 among 2",
    ),
    "a result of a node that has one": (
        lambda: chain(make_node(PROJECT, (sine(X),), Attrs({"index": 0}), (F32,))),
        "<project: f32[3]>",
        "there is no result 0 among 1",
    ),
    "a result with another type": (
        lambda: chain(make_node(PROJECT, (pair(),), Attrs({"index": 1}), (F32,))),
        "<project: f32[3]>",
        "result 1 has the type Aval(float32[3,3])",
    ),
    "an operand with two results": (
        lambda: chain(sine(pair())),
        "<sin: f32[3]>",
        "operand 0 has 2 results; take one of them",
    ),
    "an operation without a primitive": (
        lambda: chain(make_node(Op("kernel"), (X,), EMPTY, (F32,))),
        "<kernel: f32[3]>",
        "the operation has no primitive: it can be neither evaluated nor lowered",
    ),
    "another shape than JAX infers": (
        lambda: chain(sine(X, array_aval((4,), np.dtype(np.float32)))),
        "<sin: f32[4]>",
        "result 0 is float32[3] by the operation's rule, but the node says float32[4]",
    ),
    "another dtype than JAX infers": (
        lambda: chain(sine(X, array_aval((3,), np.dtype(np.float16)))),
        "<sin: f16[3]>",
        "result 0 is float32[3] by the operation's rule, but the node says float16[3]",
    ),
    "fewer results than JAX infers": (
        lambda: chain(make_node(QR_OP, (SQUARE,), QR, (SQUARE.aval,))),
        "<qr: f32[3, 3]>",
        "the operation has 2 results, but the node says 1",
    ),
    "operands that JAX rejects": (
        lambda: chain(plus(X, constant(np.zeros(5, np.float32)))),
        "<add: f32[3]>",
        "JAX rejects it: TypeError add got incompatible shapes for broadcasting: (3,), (5,).",
    ),
    "parameters that JAX rejects": (
        lambda: chain(make_node(op_of(primitives.reduce_sum_p), (X,), Attrs({"axes": (5,)}), (F32,))),
        "<reduce_sum: f32[3]>",
        "JAX rejects it: ",
    ),
    "an output with two results": (
        lambda: make_graph((X,), (sine(X), pair())),
        "<qr: f32[3, 3], f32[3, 3]>",
        "output 1 has 2 results; an output is one value",
    ),
    "a value after a state": (
        lambda: make_graph((X,), (effectful(START), sine(X))),
        "<sin: f32[3]>",
        "output 1: states of effects come after all other outputs",
    ),
    "a state used twice": (
        lambda: make_graph((), results(effectful(START, START))),
        "<logged: ",
        "this state of an effect was used already, by <logged: ",
    ),
    "a state that goes on": (
        lambda: make_graph((), (effectful(effectful(START)), effectful(START))),
        "<logged: ",
        "an output is a state that is not the last one: <logged: ",
    ),
    "a lost effect": (
        lambda: make_graph((), (sine(project(effectful(START, data=(F32,)), 0)),)),
        "<logged: f32[3]",
        "its last state is not among the outputs, so an effect would be lost",
    ),
    "a lost write to a Ref": (
        lambda: without_the_last_output(PROGRAMS["reference_argument"]),
        "<swap: f32[]",
        "its last state is not among the outputs, so an effect would be lost",
    ),
    "a state that ends": (
        lambda: make_graph((), (effectful(START, results=0, data=(F32,)),)),
        "<logged: f32[3]>",
        "it takes the states [Aval(State(effect='an effect'))] and returns the states []",
    ),
    "a state out of nothing": (
        lambda: make_graph((X,), (make_node(op_of(LOGGED), (X,), EMPTY, (START.aval,), effects=frozenset({"e"})),)),
        "<logged: ",
        "it takes the states [] and returns the states [Aval(State(effect='an effect'))]",
    ),
}


@pytest.mark.parametrize(("make", "node", "reason"), BROKEN.values(), ids=BROKEN.keys())
def test_a_broken_rule(make: Callable[[], Graph], node: str, reason: str) -> None:
    graph = make()
    with pytest.raises(GraphError) as caught:
        check(graph)
    first, *shown, place = str(caught.value).split("\n")
    assert f"at {__file__}:" in place
    assert first.startswith("<")
    assert node in first
    assert reason in first
    assert len(shown) == min(5, len(str(graph).splitlines()))
    (marked,) = (line for line in shown if line.startswith("> "))
    op = node.split(":")[0].lstrip("<")
    assert op in marked or marked.startswith("> graph @main(")
    assert [line[2:] in str(graph).splitlines() for line in shown] == [True] * len(shown)


def test_the_place_is_shown() -> None:
    with pytest.raises(GraphError) as caught:
        check(chain(plus(X, ALIEN)))
    assert str(caught.value).split("\n")[:-1] == [
        "<param: f32[3]>: input 7 is not an input of this graph",
        "  graph @main(%0: f32[3], %1: f32[3]) {",
        ">   %2: f32[3] = param[index=7]()",
        "    %3: f32[3] = add(%0, %2)",
        "    %4: f32[3] = sin[accuracy=None](%3)",
        "    %5: f32[3] = sin[accuracy=None](%4)",
    ]


def test_sub_graphs_are_checked_too() -> None:
    body = make_graph((X,), (plus(X, ALIEN),))
    call = make_node(JIT, (X,), Attrs({"jaxpr": SubGraph(body), "name": "f"}), (F32,))
    with pytest.raises(GraphError, match="input 7 is not an input of this graph"):
        check(make_graph((X,), (call,)))


def test_the_state_of_a_ref_that_the_graph_makes_may_end() -> None:
    def function(x: Any) -> Any:
        ref = jax.new_ref(x)
        ref[0] = 2.0
        return ref[1]

    graph, _ = trace_function(function, np.ones(3, np.float32))
    assert not any(node.aval.is_state for node in graph.outputs)
    check(graph)
