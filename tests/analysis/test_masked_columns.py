"""Columns that a mask leaves nothing of: blocks leave them out where that changes nothing, NaN and infinities included."""

import os
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import graphopt
from graphopt.analysis.between import between
from graphopt.analysis.masked_columns import Band, masked_columns
from graphopt.config import Options
from graphopt.passes.chunk import Chunk
from graphopt.passes.inline import Inline
from graphopt.passes.pipelines import STANDARD
from graphopt.passes.simplify import Simplify
from graphopt.rewrite.passes import Context
from graphopt.trace.jaxpr import trace_function

PASSES = (*STANDARD[:-1], Chunk(large=1 << 12))  # so that few rows are many

SEED = int(os.environ["GRAPHOPT_TEST_SEED"])

Mask = Callable[[Any, Any], Any]

KEPT: dict[str, Mask] = {
    "causal": lambda row, column: row >= column,
    "the other way": lambda row, column: column <= row,
    "a window": lambda row, column: (row >= column) & (row - column < 50),
    "a window on both sides": lambda row, column: jnp.abs(row - column) < 40,
    "behind the diagonal": lambda row, column: column >= row,
    "later keys": lambda row, column: row + 64 >= column,
    "none of the first rows": lambda row, column: row >= column + 3,
    "rows without columns": lambda row, column: row >= column + 100,
    "a diagonal of blocks": lambda row, column: row // 100 == column // 100,
    "apart from the rows": lambda row, column: column < 100 + 0 * row,
}
ALL: dict[str, Mask] = {
    "nearly all": lambda row, column: row + 290 >= column,
    "other places": lambda row, column: (row * column) % 3 < 2,
}


def attention(mask: Mask, q: Any, k: Any, v: Any, fill: float = -jnp.inf) -> Any:
    scores = jnp.einsum("...qd,...kd->...qk", q, k) * 0.3
    row, column = jnp.arange(q.shape[-2])[:, None], jnp.arange(k.shape[-2])[None]
    weights = jax.nn.softmax(jnp.where(mask(row, column), scores, fill), axis=-1)
    return jnp.einsum("...qk,...kd->...qd", weights, v)


def drawn(*shapes: tuple[int, ...], dtype: str = "float32") -> list[Any]:
    rng = np.random.default_rng(SEED)
    return [rng.normal(size=shape).astype(dtype) for shape in shapes]


def columns_of(function: Callable[..., Any], *args: Any) -> Band | None:
    """What is kept of the columns of the first product's rows, 24 at a time."""
    traced, sources = trace_function(function, *args)
    context = Context(Options(), sources)
    graph = Simplify().run(Inline().run(traced, context), context)
    found = between(graph)
    assert found is not None
    masked = masked_columns(graph, found, 24, 64)
    return None if masked is None else masked[1]


def check(function: Callable[..., Any], *args: Any) -> None:
    compiled = graphopt.jit(function, backend="numba", passes=PASSES)
    (kernel,) = compiled.explain(*args).kernels
    assert "@" in str(kernel.program)
    expected = np.asarray(jax.jit(function)(*args))
    found = np.asarray(compiled(*args))
    np.testing.assert_allclose(found, expected, rtol=3e-5, atol=3e-6)


@pytest.mark.parametrize("name", [*KEPT, *ALL])
@pytest.mark.parametrize("rows, columns", [(300, 300), (257, 331), (320, 256)])
def test_masks(name: str, rows: int, columns: int) -> None:
    mask = (KEPT | ALL)[name]
    check(lambda q, k, v: attention(mask, q, k, v), *drawn((2, rows, 16), (2, columns, 16), (2, columns, 8)))


@pytest.mark.parametrize(
    "fill", [-1e9, np.finfo("float32").min, -0.7 * np.finfo("float32").max, -2.0, 0.0, 1.5, np.inf]
)
@pytest.mark.parametrize("name", ["causal", "a window", "rows without columns", "a diagonal of blocks"])
def test_what_masks_put_in(name: str, fill: float) -> None:
    """Where that is not far below the scores, or a row has nothing else, the columns that are left out count."""
    check(lambda q, k, v: attention(KEPT[name], q, k, v, fill), *drawn((300, 16), (300, 16), (300, 8)))


def test_scores_below_what_a_mask_puts_in() -> None:
    """A row from which nothing is left out does not have that number."""
    q, k, v = drawn((300, 16), (300, 16), (300, 8))
    check(lambda q, k, v: attention(KEPT["causal"], q, k, v, -100.0), np.full_like(q, 60.0), -np.abs(k), v)


def test_rows_whose_sum_is_too_large() -> None:
    q, k, v = drawn((300, 16), (300, 16), (300, 8))
    v[:] = 1e38
    check(lambda q, k, v: attention(KEPT["causal"], q, k, v, 1.0), q, k, v)


@pytest.mark.parametrize("name", KEPT)
def test_columns_are_left_out(name: str) -> None:
    band = columns_of(lambda *args: attention(KEPT[name], *args), *drawn((300, 16), (300, 16), (300, 8)))
    assert band is not None


@pytest.mark.parametrize("name", ALL)
def test_all_columns_are_kept(name: str) -> None:
    assert columns_of(lambda *args: attention(ALL[name], *args), *drawn((300, 16), (300, 16), (300, 8))) is None


def test_half_of_the_products_are_left_out() -> None:
    """Every product of a causal mask's kernel is in a loop over the panels that its block needs."""
    args = drawn((512, 16), (512, 16), (512, 8))
    (kernel,) = (
        graphopt.jit(lambda *a: attention(KEPT["causal"], *a), backend="numba", passes=PASSES).explain(*args).kernels
    )
    text = kernel.program.phases[-1].body.lines()
    loops = [line for line in text if "serial" in line and "< 8 where" in line]
    assert len(loops) >= 4, "\n".join(text)
    band = columns_of(lambda *a: attention(KEPT["causal"], *a), *args)
    assert band is not None and (band.first <= -480, band.last) == (True, 24)


@pytest.mark.parametrize("fill", [-np.inf, -1e9, 0.5])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 3e38])
@pytest.mark.parametrize("which", range(3))
@pytest.mark.parametrize("name", ["causal", "a window", "none of the first rows"])
def test_what_is_not_finite(name: str, which: int, value: float, fill: float) -> None:
    """Also where its weight is 0: that times a number that is not finite is NaN."""
    args = drawn((300, 16), (300, 16), (300, 8))
    for row in (0, 150, 299):
        changed = [array.copy() for array in args]
        changed[which][row, 3] = value
        with np.errstate(all="ignore"):
            check(lambda q, k, v: attention(KEPT[name], q, k, v, fill), *changed)


def other_users(q: Any, k: Any, v: Any) -> Any:
    scores = q @ k.T
    place = jnp.arange(300)
    masked = jnp.where(place[:, None] >= place, scores, -jnp.inf)
    return jax.nn.softmax(masked) @ v, scores.sum(-1)


def sum_of_weights_before(q: Any, k: Any, v: Any) -> Any:
    place = jnp.arange(300)
    weights = jnp.exp(jnp.where(place[:, None] >= place, q @ k.T, -jnp.inf))
    return (weights @ v) / weights.sum(-1, keepdims=True)


def of_other_rows(q: Any, k: Any, v: Any) -> Any:
    place = jnp.arange(300)
    masked = jnp.where(place[:, None] >= place, q @ k.T, -jnp.inf)
    return jnp.exp(masked - q.max(-1, keepdims=True)) @ v


def what_is_behind_is_read(q: Any, k: Any, v: Any) -> Any:
    place = jnp.arange(300)
    masked = jnp.where(place[:, None] >= place, q @ k.T, -jnp.inf)
    return (jax.nn.softmax(masked) + 1) @ v


@pytest.mark.parametrize("function", [other_users, sum_of_weights_before, of_other_rows, what_is_behind_is_read])
def test_declined(function: Callable[..., Any]) -> None:
    """What a softmax of masked scores is not, or what else needs all columns."""
    args = drawn((300, 16), (300, 16), (300, 8))
    assert columns_of(function, *args) is None
    expected = jax.tree.map(np.asarray, jax.jit(function)(*args))
    found = graphopt.jit(function, backend="numba", passes=PASSES)(*args)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6 * np.abs(b).max())


def divided_after(q: Any, k: Any, v: Any) -> Any:
    place = jnp.arange(300)
    scores = jnp.where(place[:, None] >= place, q @ k.T, -1e9)
    weights = jnp.exp(scores - scores.max(-1, keepdims=True))
    return (weights @ v) / weights.sum(-1, keepdims=True)


def of_two_values(q: Any, k: Any, v: Any) -> Any:
    place = jnp.arange(300)
    weights = jax.nn.softmax(jnp.where(place[:, None] >= place, q @ k.T, -1e9))
    return weights @ v, weights @ jnp.sin(v)


def of_jax(q: Any, k: Any, v: Any) -> Any:
    return jax.nn.dot_product_attention(q[:, None], k[:, None], v[:, None], is_causal=True)


def of_an_axis_of_one(q: Any, k: Any, v: Any) -> Any:
    place = jnp.arange(300)
    weights = jax.nn.softmax(jnp.where(place[:, None] >= place, q @ k.T, -1.0))
    return jnp.einsum("qk,kad->qad", weights, v[:, None]), jnp.einsum("qk,kda->aqd", weights, v[:, :, None])


@pytest.mark.parametrize("function", [divided_after, of_two_values, of_jax, of_an_axis_of_one])
def test_other_forms(function: Callable[..., Any]) -> None:
    args = drawn((300, 16), (300, 16), (300, 16))
    assert columns_of(function, *args) is not None
    expected = jax.jit(function)(*args)
    found = graphopt.jit(function, backend="numba", passes=PASSES)(*args)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def test_double_precision_and_heads() -> None:
    with jax.enable_x64(True):
        args = drawn((2, 3, 130, 8), (2, 3, 130, 8), (2, 3, 130, 5), dtype="float64")
        function = lambda q, k, v: attention(KEPT["causal"], q, k, v)
        found = graphopt.jit(function, backend="numba", passes=PASSES)(*args)
        expected = jax.jit(function)(*args)
        np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-13)


def test_a_triangle_of_ones() -> None:
    def function(q: Any, k: Any, v: Any) -> Any:
        mask = jnp.tril(jnp.ones((300, 300), bool))
        return jax.nn.softmax(jnp.where(mask, q @ k.T, -jnp.inf)) @ v

    args = drawn((300, 16), (300, 16), (300, 8))
    assert columns_of(function, *args) is not None
    check(function, *args)
