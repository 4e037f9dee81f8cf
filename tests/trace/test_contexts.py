"""What an equation carries besides its parameters is there again when it is lowered."""

import re
from collections import Counter
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental.xla_metadata import set_xla_metadata
from jax.extend.core import ClosedJaxpr, Jaxpr, jaxpr_as_fun

from graphopt.backends.xla.staging import jaxpr_of
from graphopt.config import Options
from graphopt.passes.pipelines import STANDARD
from graphopt.rewrite.passes import Context, run_pipeline
from graphopt.trace.jaxpr import graph_of

from .outcomes import traced
from .programs import PROGRAMS, on_host, one_device

X = np.ones(3, np.float32)


def contexts(closed: ClosedJaxpr) -> Counter[tuple[str, str]]:
    """The primitive and the context of each equation, those of sub-jaxprs included."""
    found: Counter[tuple[str, str]] = Counter()
    stack: list[Any] = [closed.jaxpr]
    while stack:
        for eqn in stack.pop().eqns:
            found[eqn.primitive.name, repr(eqn.ctx)] += 1
            leaves = jax.tree.leaves(list(eqn.params.values()), is_leaf=lambda v: isinstance(v, ClosedJaxpr | Jaxpr))
            stack += [getattr(v, "jaxpr", v) for v in leaves if isinstance(v, ClosedJaxpr | Jaxpr)]
    return found


@pytest.mark.parametrize("name", ["contexts", "sharded", "calls", "scans", "checkpoints"])
def test_every_equation_keeps_its_context(name: str) -> None:
    closed = traced(PROGRAMS[name])
    graph, sources = graph_of(closed)
    # Equal equations are merged, so there may be fewer, but each kind is there.
    for back in (jaxpr_of(graph, sources), jaxpr_of(graph)):
        assert set(contexts(back)) == set(contexts(closed))


def lowered(closed: ClosedJaxpr, **options: bool) -> str:
    return str(jax.jit(jaxpr_as_fun(closed)).lower(X).as_text(**options))


def metadata(closed: ClosedJaxpr) -> list[tuple[str, str]]:
    text = lowered(closed)
    lines = (
        re.search(r"(?:stablehlo|chlo)\.(\w+).*mhlo\.frontend_attributes = \{(.*?)\}", line)
        for line in text.splitlines()
    )
    return sorted((match[1], match[2]) for match in lines if match)


def test_xla_metadata_is_lowered_through_all_passes() -> None:
    def function(x: Any) -> Any:
        with set_xla_metadata(kind="one"):
            y = jnp.sin(x)
            inner = jax.jit(lambda z: jnp.cos(z) * 2)(y)
        with set_xla_metadata(kind="two"):
            return y, jnp.sin(x), inner, jax.lax.scan(lambda c, v: (c + jnp.tanh(v), None), 0.0, x)[0]

    closed = jax.make_jaxpr(function)(X)
    expected = metadata(closed)
    assert {("sine", 'kind = "one"'), ("sine", 'kind = "two"'), ("cosine", 'kind = "one"')} <= set(expected)
    graph, sources = graph_of(closed)
    assert metadata(jaxpr_of(graph, sources)) == expected
    optimized, _ = run_pipeline(graph, STANDARD, Context(Options(), sources))
    after = metadata(jaxpr_of(optimized, sources))
    # A call is an operation of its own, with metadata of its own, until it is inlined.
    assert set(after) == {item for item in expected if item[0] != "call"}


def test_host_computation_is_lowered_through_all_passes() -> None:
    closed = jax.make_jaxpr(on_host(lambda x: jnp.cos(x) * 2))(X)
    graph, sources = graph_of(closed)
    optimized, _ = run_pipeline(graph, STANDARD, Context(Options(), sources))

    for some in (closed, jaxpr_of(graph, sources), jaxpr_of(optimized, sources)):
        assert '_xla_compute_type = "host"' in lowered(some)


def test_a_mesh_is_there_again() -> None:
    mesh = one_device()

    def function(x: Any) -> Any:
        with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
            return jnp.sin(x)

    closed = jax.make_jaxpr(function)(X)
    back = jaxpr_of(graph_of(closed)[0])
    (eqn,) = back.eqns
    assert dict(eqn.ctx.cur_abstract_mesh.shape) == {"i": 1}
    assert eqn.ctx is closed.eqns[0].ctx


def test_named_scopes_are_kept_and_added_to_by_calls() -> None:
    @jax.jit
    def inner(x: Any) -> Any:
        with jax.named_scope("deep"):
            return jnp.cos(x)

    def function(x: Any) -> Any:
        with jax.named_scope("outer"):
            y = jnp.sin(x)
            with jax.named_scope("middle"):
                return inner(y)

    closed = jax.make_jaxpr(function)(X)
    graph, sources = graph_of(closed)

    def scopes(closed: ClosedJaxpr) -> dict[str, str]:
        return {eqn.primitive.name: str(eqn.source_info.name_stack) for eqn in closed.eqns}

    assert scopes(jaxpr_of(graph, sources)) == scopes(closed) == {"sin": "outer", "jit": "outer/middle"}
    optimized, _ = run_pipeline(graph, STANDARD, Context(Options(), sources))
    assert scopes(jaxpr_of(optimized, sources)) == {"sin": "outer", "cos": "outer/middle/jit(inner)/deep"}
    assert "outer/middle/jit(inner)/deep/cos" in lowered(jaxpr_of(optimized, sources), debug_info=True)
