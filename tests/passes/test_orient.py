"""Orientation: products with their factors exchanged are the same products, where XLA has less to lay out anew."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import lax

import graphopt
from graphopt.backends.agreement import disagreement
from graphopt.config import Options
from graphopt.ir.check import check
from graphopt.ir.graph import Graph, nested_graphs
from graphopt.ops.contract import DOT_GENERAL
from graphopt.passes import orient
from graphopt.passes.orient import Orient, factors_exchanged
from graphopt.rewrite.passes import Context
from graphopt.trace.jaxpr import trace_function

LONG, THIN = (512, 400), (512, 8)


def drawn(*shape: int, dtype: Any = np.float32) -> Any:
    return jnp.asarray(np.random.default_rng(0).normal(size=shape), dtype)


def both(function: Any, *args: Any, numerics: str = "standard", **known: Any) -> tuple[Graph, Graph, Context]:
    graph, sources = trace_function(function, *args)
    context = Context(Options(numerics=numerics), sources, **{"platforms": ("cpu",), **known})
    after = Orient().run(graph, context)
    check(after)
    return graph, after, context


def product(contracted: tuple[Any, Any], batch: tuple[Any, Any] = ((), ()), **more: Any) -> Any:
    return lambda x, y: lax.dot_general(x, y, (contracted, batch), **more)


EXCHANGED = {
    "both across": (product(((0,), (1,))), drawn(512, 8), drawn(400, 512)),
    "the large one first": (product(((0,), (0,))), drawn(512, 400), drawn(512, 4)),
    "matrices side by side": (product(((1,), (2,)), ((0,), (0,))), drawn(3, 256, 8), drawn(3, 200, 256)),
    "axes of one element": (product(((0,), (1,))), drawn(512, 8, 1), drawn(400, 512, 1)),
    "einsum": (lambda w, v: jnp.einsum("bkd,bqk->bdq", v, w), drawn(2, 200, 300), drawn(2, 300, 8)),
    "two precisions": (
        product(((0,), (1,)), precision=(lax.Precision.HIGHEST, lax.Precision.DEFAULT)),
        drawn(512, 8),
        drawn(400, 512),
    ),
}

STAYS = {
    "the first as it should lie": (product(((1,), (0,))), drawn(400, 512), drawn(512, 8)),
    "both beside each other": (product(((1,), (1,))), drawn(8, 512), drawn(400, 512)),
    "the large one second": (product(((0,), (0,))), drawn(512, 4), drawn(512, 400)),
    "a large result": (product(((0,), (1,))), drawn(8, 400), drawn(512, 8)),
    "a vector": (product(((0,), (0,))), drawn(512, 400), drawn(512)),
    "small ones": (product(((0,), (1,))), drawn(64, 2), drawn(32, 64)),
    "integers": (product(((0,), (1,))), jnp.ones((512, 8), np.int32), jnp.ones((400, 512), np.int32)),
}


@pytest.mark.parametrize("name", EXCHANGED)
def test_factors_are_exchanged(name: str) -> None:
    function, *args = EXCHANGED[name]
    before, after, context = both(function, *args)
    assert [firing.rule for firing in context.firings] == [factors_exchanged]
    assert "factors exchanged" in context.notes[-1] and after.out_avals == before.out_avals
    (old,), (new,) = ([n for n in graph.nodes if n.op is DOT_GENERAL] for graph in (before, after))
    assert new.inputs == old.inputs[::-1]
    assert disagreement(before, after, args, "reassociate") is None
    precision = new.attrs["precision"]
    assert precision is None or precision == (lax.Precision.DEFAULT, lax.Precision.HIGHEST)
    again, _ = both(lambda *inner: function(*inner), *args)[1:]
    assert Orient().run(again, context) is again


@pytest.mark.parametrize("name", STAYS)
def test_others_stay(name: str) -> None:
    function, *args = STAYS[name]
    before, after, _ = both(function, *args)
    assert after is before


def test_only_where_it_is_admitted_and_for_a_cpu() -> None:
    function, *args = EXCHANGED["both across"]
    for known in ({"numerics": "exact"}, {"platforms": ("cuda",)}, {"portable": True}, {"differentiable": True}):
        before, after, _ = both(function, *args, **known)
        assert after is before


def test_in_loops_and_branches_too() -> None:
    def function(x: Any, y: Any) -> Any:
        def step(x: Any, _: Any) -> Any:
            found = lax.dot_general(x, y, (((0,), (1,)), ((), ())))
            return x + found.sum(), None

        return lax.scan(step, x, None, length=3)[0]

    args = drawn(512, 8), drawn(400, 512)
    before, after, _ = both(function, *args)
    products = [n for graph in nested_graphs(after) for n in graph.nodes if n.op is DOT_GENERAL]
    assert [n.inputs[0].aval.shape for n in products] == [(400, 512)]
    assert disagreement(before, after, args, "reassociate") is None


@st.composite
def products(draw: Any) -> tuple[Any, Any, Any]:
    """Products of any orders of axes, and their factors."""
    sizes = {kind: draw(st.lists(st.integers(1, 4), max_size=2)) for kind in "bslr"}
    dtype = draw(st.sampled_from([np.float32, jnp.bfloat16, np.float16]))
    sides = []
    for own in "lr":
        labels = [(kind, k) for kind in f"bs{own}" for k in range(len(sizes[kind]))]
        sides.append(draw(st.permutations(labels)))
    places = [[[side.index((kind, k)) for k in range(len(sizes[kind]))] for side in sides] for kind in "sb"]
    shapes = [[sizes[kind][k] for kind, k in side] for side in sides]
    summed, batch = places
    return product((summed[0], summed[1]), (batch[0], batch[1])), *[drawn(*s, dtype=dtype) for s in shapes]


@given(products())
@settings(max_examples=60)
def test_any_product(case: tuple[Any, Any, Any]) -> None:
    function, x, y = case
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(orient, "SMALL", 0)
        before, after, _ = both(function, x, y)
    assert after.out_avals == before.out_avals
    assert disagreement(before, after, (x, y), "reassociate") is None


@pytest.mark.parametrize("dtype", [np.float32, np.float64, jnp.bfloat16, np.float16])
@pytest.mark.parametrize("backend", ["xla", "auto"])
def test_what_xla_computes(dtype: Any, backend: str) -> None:
    """XLA does not take the transpose back into the product, and the numbers are those of jax.jit."""
    with jax.enable_x64(dtype is np.float64):
        x, y = drawn(512, 8, dtype=dtype), drawn(400, 512, dtype=dtype)
        function = product(((0,), (1,)))
        found = graphopt.jit(function, backend=backend)
        bound = 1e-12 if dtype is np.float64 else 1e-4 if dtype is np.float32 else 0.5
        np.testing.assert_allclose(
            np.asarray(found(x, y), np.float64), np.asarray(jax.jit(function)(x, y), np.float64), atol=bound
        )
        if backend == "xla":
            text = found.lower(x, y).compile().as_text()
            assert "lhs_contracting_dims={0}" not in text


@pytest.mark.parametrize("dtype", [jnp.bfloat16, np.float32])
def test_attention_as_jax_writes_it(dtype: Any) -> None:
    """The weights are the second factor there, and lie as a first one should."""
    q, k, v = (drawn(1, 256, 4, 16, dtype=dtype) for _ in range(3))
    found = graphopt.jit(jax.nn.dot_product_attention, backend="xla")
    assert any("factors exchanged" in note for note in found.explain(q, k, v).notes)
    expected = jax.jit(jax.nn.dot_product_attention)(q, k, v)
    bound = 0.05 if dtype is jnp.bfloat16 else 1e-5
    np.testing.assert_allclose(np.asarray(found(q, k, v), np.float32), np.asarray(expected, np.float32), atol=bound)


def test_it_can_be_left_out() -> None:
    function, *args = EXCHANGED["both across"]
    for found in (graphopt.jit(function, backend="xla", without=("orient",)), graphopt.jit(function, passes=())):
        assert not any("factors exchanged" in note for note in found.explain(*args).notes)
