"""Chunking without what masks leave out: the same results, also where the mask puts in what counts."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import graphopt
from graphopt.analysis.cost import cost_of
from graphopt.config import Options
from graphopt.ir.check import check
from graphopt.ir.graph import Graph, nested_graphs
from graphopt.passes.chunk import Chunk
from graphopt.passes.pipelines import STANDARD
from graphopt.rewrite.passes import Context, Pass, run_pipeline
from graphopt.trace.jaxpr import trace_function

PASSES: tuple[Pass, ...] = (*STANDARD[:-1], Chunk(large=1 << 12, block=1 << 11, rows=2, gain=0, piece=0))
LEFT_OUT = "without what a mask leaves out"

Mask = Callable[[Any, Any], Any]

MASKS: dict[str, Mask] = {
    "causal": lambda row, column: row >= column,
    "strictly causal": lambda row, column: column < row,
    "anticausal": lambda row, column: row <= column,
    "window": lambda row, column: (row >= column) & (row - column < 9),
    "band": lambda row, column: jnp.abs(row - column) <= 5,
    "blocks": lambda row, column: row // 16 == column // 16,
    "prefix": lambda row, column: (row >= column) | (column < 7),
    "other end": lambda row, column: ~(column > row + 3),
    "as floats": lambda row, column: jnp.where(row >= column, 1.0, 0.0) != 0,
    "as numbers": lambda row, column: (row * 2 - column * 2 >= 0).astype(jnp.int8).astype(bool),
    "none": lambda row, column: (row + column).astype(jnp.float32) < 0,
}


def attention(mask: Mask, fill: float) -> Callable[..., Any]:
    def function(q: Any, k: Any, v: Any) -> Any:
        scores = jnp.einsum("bqd,bkd->bqk", q, k) / 3
        place = jnp.arange(q.shape[1])[:, None], jnp.arange(k.shape[1])[None]
        scores = jnp.where(mask(*place), scores, jnp.asarray(fill, scores.dtype))
        return jnp.einsum("bqk,bkd->bqd", jax.nn.softmax(scores, -1), v)

    return function


def lower_triangle(q: Any, k: Any, v: Any) -> Any:
    weights = jnp.tril(jnp.exp(jnp.einsum("bqd,bkd->bqk", q, k) / 9))
    return jnp.einsum("bqk,bkd->bqd", weights / weights.sum(-1, keepdims=True), v)


def of_jax(q: Any, k: Any, v: Any) -> Any:
    heads = (x[:, :, None] for x in (q, k, v))
    return jax.nn.dot_product_attention(*heads, is_causal=True)


def of_jax_in_a_window(q: Any, k: Any, v: Any) -> Any:
    heads = (x[:, :, None] for x in (q, k, v))
    return jax.nn.dot_product_attention(*heads, local_window_size=(6, 2))


def all_about_it(q: Any, k: Any, v: Any) -> Any:
    """Sums over rows, over columns and over both, the least and the greatest, and what varies along the columns."""
    scores = jnp.einsum("bqd,bkd->bqk", q, k)
    place = jnp.arange(q.shape[1])
    kept = jnp.where(place[:, None] >= place[None], scores, 0.25)
    return kept.sum(2), kept.sum(1), kept.max(2), kept.min(2), (kept @ v).sum(), kept.sum((1, 2)), (kept / 2).sum()


def operands(batch: int, rows: int, columns: int, dtype: Any = np.float32) -> list[Any]:
    random = np.random.default_rng(0)
    return [jnp.asarray(random.normal(size=(batch, n, 8)), dtype) for n in (rows, columns, columns)]


def chunked(function: Callable[..., Any], *arguments: Any) -> tuple[Graph, Graph, list[str]]:
    """The graph before chunking and after, and the notes."""
    graph, sources = trace_function(function, *arguments)
    context = Context(Options(), sources, platforms=("cpu",))
    graph, records = run_pipeline(graph, PASSES, context)
    for inner in nested_graphs(graph):
        check(inner)
    return records[-1].before, graph, context.notes


def gradient(function: Callable[..., Any]) -> Callable[..., Any]:
    def loss(*arguments: Any) -> Any:
        return sum((x.astype(jnp.float32) ** 2).sum() for x in jax.tree.leaves(function(*arguments)))

    return jax.value_and_grad(loss, (0, 1, 2))


def agree(function: Callable[..., Any], arguments: list[Any], tolerance: float = 2e-5) -> None:
    expected = jax.tree.leaves(jax.jit(function)(*arguments))
    found = jax.tree.leaves(graphopt.jit(function, passes=PASSES, backend="xla")(*arguments))
    for a, b in zip(expected, found, strict=True):
        assert (a.dtype, a.shape) == (b.dtype, b.shape)
        x, y = (np.asarray(value).astype(np.float64) for value in (a, b))
        np.testing.assert_array_equal(np.isnan(x), np.isnan(y))
        np.testing.assert_array_equal(np.isinf(x), np.isinf(y))
        x, y = np.nan_to_num(x), np.nan_to_num(y)
        np.testing.assert_allclose(y, x, rtol=tolerance, atol=tolerance * (1e-30 + np.max(np.abs(x), initial=0)))


@pytest.mark.parametrize(
    ("name", "fill"), [*((name, -np.inf) for name in MASKS), ("window", -1e9), ("window", 0.5), ("causal", -1e9)]
)
def test_masks(name: str, fill: float) -> None:
    function = attention(MASKS[name], fill)
    arguments = operands(1, 48, 48)
    before, after, notes = chunked(function, *arguments)
    assert any(LEFT_OUT in note for note in notes), notes
    assert (cost_of(after).flops or 0) < 0.9 * (cost_of(before).flops or 0)
    agree(function, arguments)


@pytest.mark.parametrize("function", [attention(MASKS["window"], -np.inf), of_jax, of_jax_in_a_window])
def test_gradients(function: Callable[..., Any]) -> None:
    arguments = operands(2, 48, 48)
    for of in (function, gradient(function)):
        _, _, notes = chunked(of, *arguments)
        assert any(LEFT_OUT in note for note in notes), notes
        agree(of, arguments)


def test_what_is_multiplied_by_zero_is_there_for_what_is_not_finite() -> None:
    """The derivative multiplies the zeros of the triangle by exponentials, which may be infinite."""
    arguments = operands(2, 48, 48)
    _, _, notes = chunked(lower_triangle, *arguments)
    assert any(LEFT_OUT in note for note in notes), notes
    _, _, notes = chunked(gradient(lower_triangle), *arguments)
    assert any("computed although a mask leaves it out" in note for note in notes), notes
    agree(gradient(lower_triangle), arguments)


def test_all_kinds_of_sums() -> None:
    arguments = operands(1, 48, 48)
    _, _, notes = chunked(all_about_it, *arguments)
    assert any(LEFT_OUT in note for note in notes), notes
    agree(all_about_it, arguments)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize(("operand", "place"), [(0, 5), (1, 46), (2, 46), (1, 3), (2, 3)])
def test_what_is_not_finite_comes_out_where_it_did(operand: int, place: int, value: float) -> None:
    """It is in rows and columns that are left out: the last ones in most of causal attention."""
    arguments = operands(1, 48, 48)
    arguments[operand] = arguments[operand].at[0, place, 2].set(value)
    function = attention(MASKS["causal"], -np.inf)
    agree(lambda q, k, v: jnp.einsum("bqk,bkd->bqd", jnp.tril(jnp.einsum("bqd,bkd->bqk", q, k)), v), arguments)
    if operand == 2:  # XLA:CPU may lose a NaN in a maximum, and a score that is not finite makes one
        agree(function, arguments)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, np.float16])
def test_halves(dtype: Any) -> None:
    arguments = operands(1, 48, 48, dtype)
    for function in (attention(MASKS["causal"], -np.inf), attention(MASKS["window"], 0.25)):
        agree(function, arguments, 8 * float(jnp.finfo(dtype).eps))


def test_a_mask_that_is_given_is_not_known() -> None:
    arguments = [*operands(1, 48, 48), jnp.tri(48, dtype=bool)]

    def function(q: Any, k: Any, v: Any, mask: Any) -> Any:
        scores = jnp.where(mask, jnp.einsum("bqd,bkd->bqk", q, k), -jnp.inf)
        return jnp.einsum("bqk,bkd->bqd", jax.nn.softmax(scores, -1), v)

    _, _, notes = chunked(function, *arguments)
    assert not any(LEFT_OUT in note for note in notes), notes
    agree(function, arguments)


def test_what_depends_on_the_column_is_not_left_out() -> None:
    arguments = operands(1, 48, 48)

    def function(q: Any, k: Any, v: Any) -> Any:
        place = jnp.arange(q.shape[1])
        scores = jnp.einsum("bqd,bkd->bqk", q, k)
        return jnp.where(place[:, None] >= place[None], scores, place[None] / 10) @ v

    _, _, notes = chunked(function, *arguments)
    assert not any(LEFT_OUT in note for note in notes), notes
    agree(function, arguments)


@given(st.integers(1, 3), st.integers(20, 70), st.integers(20, 70), st.sampled_from(sorted(MASKS)), st.integers(8, 12))
@settings(max_examples=4, deadline=None)
def test_sizes(batch: int, rows: int, columns: int, name: str, block: int) -> None:
    function = gradient(attention(MASKS[name], -1e9))
    passes = (*STANDARD[:-1], Chunk(large=1 << 9, block=1 << block, rows=1, gain=0, piece=0))
    arguments = operands(batch, rows, columns)
    expected = jax.tree.leaves(jax.jit(function)(*arguments))
    found = jax.tree.leaves(graphopt.jit(function, passes=passes, backend="xla")(*arguments))
    for a, b in zip(expected, found, strict=True):
        np.testing.assert_allclose(b, a, rtol=1e-4, atol=1e-4 * float(jnp.abs(a).max()))
