"""What is computed once from constants: the same results, whatever depends on them."""

import jax
import numpy as np
from hypothesis import HealthCheck, given, note, settings
from hypothesis import strategies as st

from graphopt.backends.reference import apply_opened, evaluate
from graphopt.bind import compute
from graphopt.config import Options
from graphopt.ir.check import check
from graphopt.ir.graph import Graph, make_graph
from graphopt.ir.node import Node, constant, param
from graphopt.ir.op import CONSTANT, PARAM
from graphopt.ir.sources import Sources
from graphopt.passes.bind import Bind
from graphopt.passes.inline import Inline
from graphopt.passes.simplify import Simplify
from graphopt.rewrite.passes import Context
from graphopt.trace.jaxpr import graph_of

from ..fuzz.programs import Program, programs
from ..fuzz.test_passes import interpreted, outcome


def with_constants(graph: Graph, values: list[jax.Array], known: list[bool]) -> Graph:
    """`graph` with some of its parameters as constants; the others are counted anew."""
    mapping: dict[Node, Node] = {}
    params: list[Node] = []
    for node, value, is_known in zip(graph.params, values, known, strict=True):
        mapping[node] = constant(value, node.aval) if is_known else param(len(params), node.aval)
        params += [] if is_known else [mapping[node]]
    for node in graph.nodes:
        if node.op is not PARAM:
            mapping[node] = node.with_inputs(tuple([mapping[n] for n in node.inputs]))
    return make_graph(params, [mapping[n] for n in graph.outputs])


@given(programs(), st.data())
@settings(max_examples=5, suppress_health_check=list(HealthCheck))
def test_same_bits_and_effects(program: Program, data: st.DataObject) -> None:
    values = program.values()
    graph, sources = graph_of(jax.make_jaxpr(program)(*values))
    known = data.draw(st.lists(st.booleans(), min_size=len(values), max_size=len(values)))
    given = [value for value, k in zip(values, known, strict=True) if not k]
    context = Context(Options(numerics="exact"), sources)
    before = Inline().run(with_constants(graph, values, known), context)
    note(str(before))
    by_operation = Bind(lambda inner: evaluate(inner, apply=apply_opened), work=0, growth=1000)
    after = by_operation.run(before, context)
    check(after)
    assert after.in_avals == before.in_avals
    assert outcome(interpreted, after, given) == outcome(interpreted, before, given)


def bound(function: object, *args: object, known: int) -> tuple[Graph, Context, Graph, list[jax.Array]]:
    values = [jax.numpy.asarray(x) for x in args]
    graph, sources = graph_of(jax.make_jaxpr(function)(*values))  # type: ignore[arg-type]
    given = [k < known for k in range(len(values))]
    context = Context(Options(), sources)
    before = Simplify().run(Inline().run(with_constants(graph, values, given), context), context)
    return before, context, Bind(compute).run(before, context), values[known:]


def test_weights_are_laid_out_as_they_are_read() -> None:
    random = np.random.default_rng(0)
    w, k = random.random((300, 300), np.float32), random.random((8, 64, 30, 30), np.float32)
    x, y = random.random((4, 300), np.float32), random.random((2, 64, 40, 40), np.float32)
    before, context, after, given = bound(
        lambda w, k, x, y: (x @ w.T, w.T @ x.T, jax.lax.conv(y, k, (1, 1), "VALID")), w, k, x, y, known=2
    )
    assert "constant operands of 3 products or convolutions are transposed once" in context.notes
    for node in after.nodes:
        if node.op.name == "dot_general":
            summed, _ = node.attrs["dimension_numbers"]
            assert all(axes == (1 - side,) for side, axes in enumerate(summed) if node.inputs[side].op is CONSTANT)
        if node.op.name == "conv_general_dilated":
            assert node.attrs["dimension_numbers"].rhs_spec == (3, 2, 0, 1)
    for a, b in zip(evaluate(after, *given), evaluate(before, *given), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5)


def test_effects_happen_at_each_call() -> None:
    def f(w: jax.Array, x: jax.Array) -> object:
        jax.debug.print("{}", w[0, 0])
        return jax.numpy.sin(w) + x

    _, _, after, _ = bound(f, np.ones((300, 300), np.float32), np.float32(1), known=1)
    names = [node.op.name for node in after.nodes]
    assert any("callback" in name or "print" in name for name in names) and "sin" not in names


def test_nothing_happens_where_no_values_can_be_computed() -> None:
    graph, _ = graph_of(jax.make_jaxpr(lambda x: x + np.arange(3.0))(np.ones(3)))
    assert Bind().run(graph, Context(Options(), Sources())) is graph
