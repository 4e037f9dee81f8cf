"""Chunking: what stands between contractions is computed in blocks, with the same results and without the large arrays."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import graphopt
from graphopt.config import Options
from graphopt.ir.check import check
from graphopt.ir.graph import Graph, nested_graphs
from graphopt.ir.sources import Sources
from graphopt.ops.control import SCAN
from graphopt.passes.chunk import Chunk
from graphopt.passes.pipelines import STANDARD
from graphopt.rewrite.passes import Context, Pass, run_pipeline
from graphopt.trace.jaxpr import trace_function

PASSES: tuple[Pass, ...] = (*STANDARD[:-1], Chunk(large=1 << 12, block=1 << 11, rows=4, gain=0))
LEFT_OUT = "without what a mask leaves out"


def attention(q: Any, k: Any, v: Any) -> Any:
    scores = jnp.einsum("bqd,bkd->bqk", q, k) / 4
    return jnp.einsum("bqk,bkd->bqd", jax.nn.softmax(scores, -1), v)


def by_hand(q: Any, k: Any, v: Any) -> Any:
    scores = q @ k.swapaxes(1, 2)
    weights = jnp.exp(scores - scores.max(-1, keepdims=True))
    return (weights / weights.sum(-1, keepdims=True)) @ v


def causal(q: Any, k: Any, v: Any) -> Any:
    scores = jnp.einsum("bqd,bkd->bqk", q, k) / 4
    place = jnp.arange(q.shape[1])
    scores = jnp.where(place[:, None] >= place[None], scores, -jnp.inf)
    return jnp.einsum("bqk,bkd->bqd", jax.nn.softmax(scores, -1), v)


def biased(q: Any, k: Any, v: Any) -> Any:
    place = jnp.arange(q.shape[1])
    bias = -jnp.abs(place[:, None] - place[None]) * 0.1
    scores = jnp.einsum("bqd,bkd->bqk", q, k) + bias
    return jnp.einsum("bqk,bkd->bqd", jax.nn.softmax(scores, -1), v)


def capped(q: Any, k: Any, v: Any) -> Any:
    scores = 5 * jnp.tanh(jnp.einsum("bqd,bkd->bqk", q, k) / 5)
    return jnp.einsum("bqk,bkd->bqd", jax.nn.softmax(scores, -1), v)


def grouped(q: Any, k: Any, v: Any) -> Any:
    heads = q.reshape(q.shape[0], q.shape[1], 2, -1)
    keys = k[..., : heads.shape[-1]]
    scores = jnp.einsum("bqhd,bkd->bhqk", heads, keys)
    return jnp.einsum("bhqk,bkd->bqhd", jax.nn.softmax(scores, -1), v)


def of_jax(q: Any, k: Any, v: Any) -> Any:
    return jax.nn.dot_product_attention(q[:, :, None], k[:, :, None], v[:, :, None], is_causal=True)


def linear_kernel(q: Any, k: Any, v: Any) -> Any:
    distances = (q**2).sum(-1)[..., None] + (k**2).sum(-1)[:, None] - 2 * q @ k.swapaxes(1, 2)
    return jnp.exp(-distances).sum(-1), jnp.argmin(distances, -1), v


def next_to_a_sum(q: Any, k: Any, v: Any) -> Any:
    """The largest of each column is a maximum over what is cut."""
    scores = jnp.einsum("bqd,bkd->bqk", q, k)
    return scores.max(1), scores.min(2), jnp.einsum("bqk,bqd->bkd", jnp.cos(scores), v)


def largest_of_all(q: Any, k: Any, v: Any) -> Any:
    """Its derivative asks which scores are the largest: they must not be computed again, and rounded otherwise."""
    scores = jnp.einsum("bqd,bkd->bqk", q, k)
    return (scores.max((1, 2), keepdims=True) * jnp.cos(scores)) @ v


def through_a_projection(q: Any, k: Any, v: Any) -> Any:
    return jnp.tanh(attention(q, k, v) @ v[0, : v.shape[-1]].T)


FORMS = [
    attention,
    by_hand,
    causal,
    biased,
    capped,
    grouped,
    of_jax,
    linear_kernel,
    next_to_a_sum,
    largest_of_all,
    through_a_projection,
]


def operands(batch: int, length: int, width: int, dtype: Any = np.float32) -> list[Any]:
    random = np.random.default_rng(0)
    return [jnp.asarray(random.normal(size=(batch, length, width)), dtype) for _ in range(3)]


def chunked(function: Callable[..., Any], *arguments: Any) -> tuple[Graph, Context]:
    graph, sources = trace_function(function, *arguments)
    context = Context(Options(), sources, platforms=("cpu",))
    graph, _ = run_pipeline(graph, PASSES, context)
    for inner in nested_graphs(graph):
        check(inner)
    return graph, context


def largest(graph: Graph) -> int:
    """Elements of the largest array that any operation makes."""
    return max(a.size for inner in nested_graphs(graph) for n in inner.nodes for a in n.avals if n.inputs)


def same(expected: Any, found: Any, tolerance: float) -> None:
    for a, b in zip(jax.tree.leaves(expected), jax.tree.leaves(found), strict=True):
        assert a.dtype == b.dtype
        x, y = (np.asarray(value).astype(np.float64) for value in (a, b))
        np.testing.assert_allclose(y, x, rtol=tolerance, atol=tolerance * (1e-30 + np.max(np.abs(x), initial=0)))


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.__name__)
@pytest.mark.parametrize("sizes", [(1, 61, 8), (3, 37, 6)], ids=str)
def test_forms_and_their_gradients(form: Callable[..., Any], sizes: tuple[int, int, int]) -> None:
    arguments = operands(*sizes)

    def loss(*arguments: Any) -> Any:
        return sum((x.astype(jnp.float32) ** 2).sum() for x in jax.tree.leaves(form(*arguments)))

    for function in (form, jax.grad(loss, (0, 1, 2))):
        graph, context = chunked(function, *arguments)
        if form not in (next_to_a_sum, largest_of_all) or function is form:
            assert any("in blocks: " in note or LEFT_OUT in note for note in context.notes), context.notes
        same(jax.jit(function)(*arguments), graphopt.jit(function, passes=PASSES)(*arguments), 2e-5)
    graph, _ = chunked(form, *arguments)
    assert largest(graph) < sizes[0] * sizes[1] * sizes[1]


@pytest.mark.parametrize("dtype", [jnp.bfloat16, np.float16, np.float32])
def test_dtypes(dtype: Any) -> None:
    arguments = operands(2, 97, 8, dtype)
    _, context = chunked(causal, *arguments)
    assert any(LEFT_OUT in note for note in context.notes)
    tolerance = 4 * float(jnp.finfo(dtype).eps)
    same(jax.jit(causal)(*arguments), graphopt.jit(causal, passes=PASSES)(*arguments), tolerance)


def test_integers_wrap_around_in_sums_of_blocks() -> None:
    x = np.random.default_rng(0).integers(-(2**31), 2**31, (64, 40)).astype(np.int32)

    def function(x: Any) -> Any:
        products = x @ x.T
        return products.sum(0), products.max(1), products @ x

    graph, _ = chunked(function, x)
    assert any(node.op is SCAN for node in graph.nodes)
    for a, b in zip(jax.jit(function)(x), graphopt.jit(function, passes=PASSES)(x), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, -0.0, 1e-42])
def test_what_is_not_finite_comes_out_where_it_did(value: float) -> None:
    arguments = operands(2, 61, 8)
    arguments[0] = arguments[0].at[0, 3, 1].set(value)
    arguments[2] = arguments[2].at[1, 60].set(value)
    for form in (attention, causal):  # XLA:CPU may lose a NaN in a maximum, so others cannot be compared
        expected = jax.jit(form)(*arguments)
        found = graphopt.jit(form, passes=PASSES)(*arguments)
        for a, b in zip(jax.tree.leaves(expected), jax.tree.leaves(found), strict=True):
            np.testing.assert_array_equal(np.isnan(a), np.isnan(b))
            np.testing.assert_array_equal(np.isinf(a), np.isinf(b))
            same(jnp.nan_to_num(a), jnp.nan_to_num(b), 2e-5)


def test_in_a_loop_and_in_a_branch() -> None:
    arguments = operands(2, 61, 8)

    def function(q: Any, k: Any, v: Any) -> Any:
        looped = jax.lax.fori_loop(0, 3, lambda _, x: attention(x, k, v), q)
        return jax.lax.cond(q[0, 0, 0] > 0, lambda: causal(looped, k, v), lambda: looped)

    graph, _ = chunked(function, *arguments)
    assert largest(graph) < 2 * 61 * 61
    same(jax.jit(function)(*arguments), graphopt.jit(function, passes=PASSES)(*arguments), 2e-5)


def test_in_what_a_checkpoint_computes_again() -> None:
    def gradient(*args: Any) -> Any:
        return jax.grad(lambda *args: (jax.checkpoint(causal)(*args) ** 2).sum(), (0, 1, 2))(*args)

    args = operands(2, 61, 18)
    graph, _ = chunked(gradient, *args)
    (again,) = [n.subgraphs[0].graph for inner in nested_graphs(graph) for n in inner.nodes if "remat" in n.op.name]
    assert largest(again) < 2 * 61 * 61
    same(jax.jit(gradient)(*args), graphopt.jit(gradient, passes=PASSES)(*args), 1e-4)


def test_all_transformations_outside() -> None:
    arguments = operands(2, 61, 8)
    compiled = graphopt.jit(attention, passes=PASSES)

    def loss(function: Callable[..., Any]) -> Callable[..., Any]:
        return lambda *arguments: (function(*arguments) ** 2).sum()

    same(jax.grad(loss(attention))(*arguments), jax.grad(loss(compiled))(*arguments), 2e-5)
    batched = [jnp.stack([x, x + 1]) for x in arguments]
    same(jax.vmap(attention)(*batched), jax.vmap(compiled)(*batched), 2e-5)
    same(jax.jvp(attention, arguments, arguments)[1], jax.jvp(compiled, arguments, arguments)[1], 2e-5)


def test_cross_entropy_of_many_classes() -> None:
    random = np.random.default_rng(0)
    weights, hidden = (jnp.asarray(random.normal(size=shape), np.float32) for shape in ((3, 301), (60, 3)))
    labels = jnp.asarray(random.integers(0, 301, 60))

    def loss(weights: Any, hidden: Any) -> Any:
        logs = jax.nn.log_softmax(hidden @ weights)
        return -jnp.take_along_axis(logs, labels[:, None], 1).mean()

    for function in (loss, jax.grad(loss, (0, 1))):
        graph, context = chunked(function, weights, hidden)
        assert any(node.op is SCAN for node in graph.nodes), context.notes
        same(jax.jit(function)(weights, hidden), graphopt.jit(function, passes=PASSES)(weights, hidden), 2e-5)


def test_the_report_says_what_was_done_and_what_was_not() -> None:
    arguments = operands(2, 64, 8)
    _, context = chunked(attention, *arguments)
    assert any("in blocks: dot_general f32[2, 64, 64] of 0 MB: 1 of 2 at a time" in note for note in context.notes)
    _, context = chunked(lambda q, k, v: jnp.einsum("bqd,bkd->bqk", q, k), *arguments)
    assert any(note.startswith("not in blocks: ") for note in context.notes)
    wide, narrow = jnp.ones((64, 2048)), jnp.ones((64, 64))
    graph, sources = trace_function(lambda x, y: jnp.tanh(jnp.einsum("ik,jk->ij", x, x)) @ y, wide, narrow)
    context = Context(Options(), sources, platforms=("cpu",))
    Chunk(large=1 << 12, block=1 << 11).run(graph, context)
    assert any("would gain" in note and note.startswith("not in blocks") for note in context.notes), context.notes


def test_a_large_result_is_written_once_and_in_one_piece() -> None:
    """Only half of what is large between them could be saved, and it would be filled with zeros for that."""
    graph, sources = trace_function(lambda x, y: jnp.tanh(x @ y), jnp.ones((1000, 3)), jnp.ones((3, 64)))
    context = Context(Options(), sources, platforms=("cpu",))
    assert Chunk(large=1 << 12, block=1 << 11).run(graph, context) is graph
    assert any("would gain 0%" in note for note in context.notes), context.notes


def test_left_alone_elsewhere() -> None:
    arguments = operands(2, 64, 8)
    graph, sources = trace_function(attention, *arguments)
    for platforms, portable, differentiable in ((("cuda",), False, False), (("cpu",), True, False), ((), False, False)):
        context = Context(Options(), sources, differentiable, portable, platforms)
        assert PASSES[-1].run(graph, context) is graph
    exact = Context(Options(numerics="exact"), Sources(), platforms=("cpu",))
    assert PASSES[-1].run(graph, exact) is graph
    assert exact.notes


@given(
    st.integers(1, 4), st.integers(20, 70), st.integers(20, 70), st.integers(1, 9), st.booleans(), st.integers(8, 12)
)
@settings(max_examples=5, deadline=None)
def test_sizes(batch: int, queries: int, keys: int, width: int, masked: bool, block: int) -> None:
    random = np.random.default_rng(0)
    q, k, v = (jnp.asarray(random.normal(size=(batch, n, width)), np.float32) for n in (queries, keys, keys))
    mask = jnp.asarray(random.random((batch, 1, keys)) < 0.7)

    def function(q: Any, k: Any, v: Any) -> Any:
        scores = jnp.einsum("bqd,bkd->bqk", q, k)
        scores = jnp.where(mask, scores, -1e9) if masked else scores
        return jnp.einsum("bqk,bkd->bqd", jax.nn.softmax(scores, -1), v)

    passes = (*STANDARD[:-1], Chunk(large=1 << 9, block=1 << block, rows=1, gain=0))
    grad = jax.grad(lambda *a: (function(*a) ** 2).sum(), (0, 1, 2))
    same(jax.jit(grad)(q, k, v), graphopt.jit(grad, passes=passes)(q, k, v), 1e-4)
