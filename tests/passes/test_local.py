"""Local regions: inside shard_map over all axes of a mesh, what kernels can take is on plain arrays."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import PartitionSpec as P

import graphopt
from graphopt.analysis.local import is_local, local_graphs
from graphopt.backends.numba.lowering import ENGINE
from graphopt.config import Options
from graphopt.ir.check import check
from graphopt.ir.graph import Graph, nested_graphs
from graphopt.ops.local import RETYPE, as_given, retyped
from graphopt.passes.local import Local
from graphopt.rewrite.passes import Context
from graphopt.trace.jaxpr import trace_function

X = np.arange(12, dtype=np.float32).reshape(3, 4)
MESH = jax.make_mesh((1,), ("i",), axis_types=(jax.sharding.AxisType.Auto,))


def mapped(function: Any, **options: Any) -> Any:
    return jax.shard_map(function, mesh=MESH, in_specs=P("i"), out_specs=P("i"), **options)


def localized(function: Any) -> tuple[Graph, Graph]:
    graph, sources = trace_function(function, X)
    after = Local(ENGINE).run(graph, Context(Options(), sources, platforms=("cpu",)))
    check(after)
    return graph, after


def names(graph: Graph) -> list[str]:
    return [n.op.name for n in graph.nodes if n.op.primitive is not None]


def test_all_but_collectives_is_on_plain_arrays() -> None:
    before, after = localized(mapped(lambda x: jnp.sin(x) * lax.psum(jnp.cos(x), "i")))
    (outer,) = [n for n in after.nodes if n.subgraphs]
    body = outer.subgraphs[0].graph
    for node in body.nodes:
        if node.op.name in ("sin", "cos", "mul"):
            assert node.aval.is_plain and node.context is None
        elif "psum" in node.op.name:
            assert is_local(node.aval) and node.context is not None and as_given(node.inputs[0]).op.name == "cos"
    (old,) = [n for n in before.nodes if n.subgraphs]
    assert body.in_avals == old.subgraphs[0].graph.in_avals and body.out_avals == old.subgraphs[0].graph.out_avals
    assert "pvary" not in names(body) and names(body).count("mul") == 1


def test_loops_inside_are_taken_whole_where_they_can_be() -> None:
    _, after = localized(mapped(lambda x: lax.fori_loop(0, 3, lambda _, c: jnp.sin(c) * 2, x)))
    loops = [n for inner in nested_graphs(after) for n in inner.nodes if n.op.name in ("scan", "while")]
    assert loops and all(aval.is_plain for n in loops for aval in n.avals)


def test_loops_with_collectives_have_plain_arrays_in_their_bodies() -> None:
    def step(c: Any, _: Any) -> Any:
        return jnp.sin(c) + lax.psum(c, "i") * 0.1, None

    function = mapped(lambda x: lax.scan(step, x, None, length=3)[0], check_vma=False)
    _, after = localized(function)
    (loop,) = [n for inner in nested_graphs(after) for n in inner.nodes if n.op.name == "scan"]
    assert all(is_local(aval) for aval in loop.avals)
    (sine,) = [n for n in loop.subgraphs[0].graph.nodes if n.op.name == "sin"]
    assert sine.aval.is_plain
    np.testing.assert_allclose(graphopt.jit(function, backend="numba")(X), jax.jit(function)(X), rtol=1e-5)


def test_what_is_nowhere_local_stays_as_it_is() -> None:
    before, after = localized(lambda x: lax.scan(lambda c, _: (c * 2, c), x, None, length=2))
    assert after is before and not local_graphs(before)


def test_the_same_value_under_its_own_type_is_itself() -> None:
    before, _ = localized(mapped(jnp.sin))
    (outer,) = [n for n in before.nodes if n.subgraphs]
    (given,) = outer.subgraphs[0].graph.params
    plain = retyped(given, before.params[0].aval)
    assert plain.op is RETYPE and retyped(plain, given.aval) is given and as_given(plain) is given
