"""What stands between products, row by row: its loop programs compute what the graph does, and say so where they cannot."""

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from graphopt.analysis import row_blocks as module
from graphopt.analysis.between import between
from graphopt.analysis.order import indices_of
from graphopt.analysis.substitute import block_with
from graphopt.analysis.writing import TooLargeError
from graphopt.backends.interpret import interpret, shaped
from graphopt.backends.numba.engine import NumbaEngine
from graphopt.backends.reference import evaluate
from graphopt.config import Options
from graphopt.ir.graph import Graph
from graphopt.ir.index import variable
from graphopt.ir.loop import Block, Buffer, LoopProgram, Matrix, Product
from graphopt.passes.inline import Inline
from graphopt.passes.simplify import Simplify
from graphopt.rewrite.passes import Context
from graphopt.trace.jaxpr import trace_function

ENGINE = NumbaEngine()
GOLDEN = Path(__file__).parents[1] / "golden" / "kernels"


def drawn(*shape: int, dtype: str = "float32") -> Any:
    return np.random.default_rng(sum(shape)).normal(size=shape).astype(dtype)


def softmax(scores: Any) -> Any:
    """As `jax.nn` has it, without the function of its own that a pass would have inlined."""
    weights = jnp.exp(scores - scores.max(-1, keepdims=True))
    return weights / weights.sum(-1, keepdims=True)


def attention(q: Any, k: Any, v: Any) -> Any:
    return jnp.einsum("bqk,bkd->bqd", softmax(jnp.einsum("bqd,bkd->bqk", q, k) * 0.125), v)


def causal(q: Any, k: Any, v: Any) -> Any:
    place = jnp.arange(q.shape[0])
    scores = jnp.where(place[:, None] >= place[None], q @ k.T, -jnp.inf)
    return softmax(scores) @ v


def masked(q: Any, k: Any, v: Any, mask: Any) -> Any:
    return softmax(jnp.where(mask, q @ k.T, -jnp.inf)) @ v


def grouped(q: Any, k: Any, v: Any) -> Any:
    scores = jnp.einsum("qhgd,khd->hqgk", q, k)
    return jnp.einsum("hqgk,khd->qhgd", softmax(scores), v)


def of_columns(q: Any, k: Any, v: Any) -> Any:
    scores = k @ q.T
    weights = jnp.exp(scores - scores.max(0))
    return jnp.einsum("kq,kd->qd", weights / weights.sum(0), v)


def divided_after(q: Any, k: Any, v: Any) -> Any:
    scores = q @ k.T
    weights = jnp.exp(scores - scores.max(-1, keepdims=True))
    return (weights @ v) / weights.sum(-1, keepdims=True)


def several(q: Any, k: Any, v: Any) -> Any:
    scores = q @ k.T
    return scores.max(-1), jnp.exp(-scores) @ v, jnp.cos(scores) @ jnp.sin(v)


def nothing_between(q: Any, k: Any, v: Any) -> Any:
    return (q @ k.T) @ v


def layers(x: Any, a: Any, b: Any) -> Any:
    return jnp.tanh(x @ a) @ b + 1


def kernel_matrix(x: Any, y: Any, w: Any) -> Any:
    squares = (x * x).sum(1)[:, None] + (y * y).sum(1)[None] - 2 * x @ y.T
    return jnp.exp(-squares) @ w


LAYERS = (drawn(13, 20), drawn(20, 19), drawn(19, 18))


HEADS = (drawn(2, 9, 9), drawn(2, 17, 9), drawn(2, 17, 10))


def gradient(function: Callable[..., Any], count: int = 3) -> Callable[..., Any]:
    return jax.grad(lambda *args: (function(*args) ** 2).sum(), tuple(range(count)))


def pulled_back(q: Any, k: Any, v: Any, given: Any) -> Any:
    return jax.vjp(attention, q, k, v)[1](given)


def of_columns_apart(q: Any, k: Any, v: Any) -> Any:
    scores = q @ k.T
    return (scores - scores.max(0)) @ v, jnp.exp(scores - scores.max(0)) @ v


def added_up_turned(q: Any, k: Any, v: Any) -> Any:
    weights = softmax(jnp.einsum("bqd,bkd->bqk", q, k))
    return weights @ v, jnp.einsum("bqk,bqd->kdb", weights, q * 2) + 1, jnp.exp(jnp.einsum("bqk,bqd->bdk", weights, q))


CASES: dict[str, tuple[Callable[..., Any], tuple[Any, ...]]] = {
    "attention": (attention, (drawn(2, 13, 20), drawn(2, 19, 20), drawn(2, 19, 18))),
    "in float64": (attention, tuple(drawn(1, 19, 17, dtype="float64") for _ in range(3))),
    "more columns than a panel": (attention, (drawn(1, 7, 17), drawn(1, 67, 17), drawn(1, 67, 70))),
    "causal": (causal, tuple(drawn(17, 20) for _ in range(3))),
    "masked": (masked, (drawn(13, 20), drawn(19, 20), drawn(19, 20), drawn(13, 19) > 1)),
    "grouped": (grouped, (drawn(19, 2, 3, 20), drawn(21, 2, 20), drawn(21, 2, 20))),
    "rows of the right factor": (of_columns, (drawn(13, 20), drawn(19, 20), drawn(19, 20))),
    "divided after": (divided_after, (drawn(13, 20), drawn(19, 20), drawn(19, 20))),
    "several results": (several, (drawn(13, 20), drawn(19, 20), drawn(19, 20))),
    "nothing between": (nothing_between, (drawn(13, 20), drawn(19, 20), drawn(19, 20))),
    "layers": (layers, (drawn(13, 20), drawn(20, 19), drawn(19, 18))),
    "kernel matrix": (kernel_matrix, (drawn(13, 20) * 0.1, drawn(19, 20) * 0.1, drawn(19, 20))),
    "thin products": (attention, (drawn(2, 37, 8), drawn(2, 41, 8), drawn(2, 41, 5))),
    "itself and what is made of it": (lambda x, y, z: ((x @ y) @ z, jnp.exp(x @ y) @ z), LAYERS),
    "other columns of the row": (lambda x, y, z: (x @ y + jnp.tanh(x @ y)[:, ::-1]) @ z, LAYERS),
    "the column beside": (lambda x, y, z: (x @ y - jnp.roll(x @ y, 1, axis=1)) @ z, LAYERS),
    "the first column": (lambda x, y, z: (x @ y - (x @ y)[:, :1]) @ z, LAYERS),
    "sums of the row for each column": (lambda x, y, z: (x @ y + ((x @ y)[..., None] * y[:19]).sum(1)) @ z, LAYERS),
    "with itself": (lambda x: softmax(x @ x.T) @ x, (drawn(13, 20),)),
    "an order of columns": (lambda x, y, z: (x @ y)[:, ::-1] @ z, LAYERS),
    "rows of others": (lambda x, y, z: ((x @ y) - (x @ y).max(0)) @ z, LAYERS),
    "three after each other": (lambda x: ((x @ x) @ x) @ x, (drawn(29, 29),)),
    "three layers": (lambda x, a, b, c: jnp.tanh(jnp.tanh(x @ a) @ b) @ c, (*LAYERS, drawn(18, 17))),
    "two factors for each column": (
        lambda x, a, b, c: (jax.nn.sigmoid(x @ a) * (x @ b)) @ c,
        (*LAYERS[:2], drawn(20, 19), LAYERS[2]),
    ),
    "a gradient": (gradient(attention), HEADS),
    "a gradient in float64": (gradient(attention), tuple(drawn(1, 17, 9, dtype="float64") for _ in range(3))),
    "a gradient of one head": (gradient(attention), (drawn(1, 43, 9), drawn(1, 17, 9), drawn(1, 17, 10))),
    "a gradient of many heads": (gradient(attention), (drawn(9, 9, 9), drawn(9, 17, 9), drawn(9, 17, 9))),
    "a gradient that is given": (pulled_back, (*HEADS, drawn(2, 9, 10))),
    "a gradient of a part": (gradient(attention, 1), HEADS),
    "a gradient, more columns than a panel": (
        gradient(attention),
        (drawn(1, 9, 9), drawn(1, 66, 9), drawn(1, 66, 67)),
    ),
    "a gradient, causal": (gradient(causal), tuple(drawn(17, 9) for _ in range(3))),
    "a gradient, masked": (gradient(masked), (drawn(9, 9), drawn(19, 9), drawn(19, 9), drawn(9, 19) > 1)),
    "a gradient, grouped": (gradient(grouped), (drawn(9, 2, 2, 9), drawn(17, 2, 9), drawn(17, 2, 9))),
    "a gradient of layers": (gradient(layers), LAYERS),
    "sums over rows": (of_columns_apart, (*LAYERS[:1], drawn(19, 20), drawn(19, 18))),
    "sums over rows, turned": (added_up_turned, HEADS),
    "there and back": (
        lambda x, y, z: (lambda s: s @ ((s.T @ x) @ z))(jnp.exp(x @ y)),
        (drawn(13, 20) * 0.1, drawn(20, 19) * 0.1, drawn(20, 18)),
    ),
}


def inlined(function: Callable[..., Any], *args: Any) -> Graph:
    graph, sources = trace_function(function, *args)
    context = Context(Options(), sources)
    return Simplify().run(Inline().run(graph, context), context)


def written(function: Callable[..., Any], *args: Any) -> tuple[LoopProgram, list[Any], list[Any]]:
    """The loop program of a function, its results as they are interpreted, and those of the evaluator."""
    return written_of(inlined(function, *args), *args)


def written_of(graph: Graph, *args: Any) -> tuple[LoopProgram, list[Any], list[Any]]:
    """The loop program of a graph, its results as they are interpreted, and those of the evaluator."""
    program = ENGINE.derivation(graph).program
    return program, shaped(interpret(program, *args), graph.out_avals), evaluate(graph, *args)


@pytest.mark.parametrize("name", CASES)
def test_interpreted(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST", 6)
    monkeypatch.setattr(module, "SET", 68)  # a line more behind rows of 17 columns
    function, args = CASES[name]
    with jax.enable_x64(True):
        program, found, expected = written(function, *args)
    assert "@" in str(program)
    for f, e in zip(found, expected, strict=True):
        tolerance = 100 * np.finfo(e.dtype).eps
        assert f.dtype == e.dtype
        np.testing.assert_allclose(f, e, rtol=tolerance, atol=tolerance * np.nanmax(np.abs(e)))


def test_there_is_no_large_array() -> None:
    q, k, v = drawn(1, 1009, 32), drawn(1, 1013, 32), drawn(1, 1013, 32)
    graph, _ = trace_function(attention, q, k, v)
    program = ENGINE.derivation(graph).program
    assert max(buffer.nbytes for buffer in program.buffers) < 1009 * 1013


def test_rows_that_are_masked_and_what_is_not_finite() -> None:
    function, (q, k, v, mask) = CASES["masked"]
    mask[3] = False
    q[5, 2] = np.nan
    v[7, 1], v[9, 3] = np.inf, np.nan
    _, (found,), (expected,) = written(function, q, k, v, mask)
    assert np.isnan(found[3]).all() and np.isnan(found[5]).all()
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_the_text_of_a_program() -> None:
    program, _, _ = written(attention, drawn(2, 29, 20), drawn(2, 35, 20), drawn(2, 35, 18))
    file = GOLDEN / "between.txt"
    if os.environ.get("GRAPHOPT_TEST_UPDATE") == "1":
        file.write_text(f"{program}\n")
    assert file.read_text() == f"{program}\n"


DECLINED: dict[str, tuple[Callable[..., Any], tuple[Any, ...]]] = {
    "one product": (lambda x, y: jnp.exp(x @ y).sum(1), (drawn(13, 20), drawn(20, 19))),
    "sums along rows": (
        lambda x, y, z: jnp.cumsum(x @ y, 1) @ z,
        (drawn(13, 20), drawn(20, 19), drawn(19, 20)),
    ),
    "with sums along rows": (lambda x, y, z: (x @ y + jnp.cumsum(x @ y, 1)) @ z, LAYERS),
    "with its order": (lambda x, y, z: (x @ y - jnp.sort(x @ y, 1)) @ z, LAYERS),
    "a large result": (
        lambda x, y, z: (jnp.exp(x @ y), jnp.exp(x @ y) @ z),
        (drawn(13, 20), drawn(20, 19), drawn(19, 20)),
    ),
    "matrices of others": (
        lambda x, y, z: jnp.einsum("bqk,kd->bqd", jnp.einsum("bqd,bkd->bqk", x, y).cumsum(0), z),
        (drawn(2, 13, 20), drawn(2, 19, 20), drawn(19, 20)),
    ),
    "integers": (
        lambda x, y, z: (x @ y) @ z,
        tuple(drawn(*shape).astype("int32") for shape in ((13, 20), (20, 19), (19, 20))),
    ),
    "rows and columns of others": (
        lambda x, y, z: (lambda s: (s - s.max(0) - s.max(1)[:, None]) @ z)(x @ y),
        (drawn(13, 20), drawn(20, 19), drawn(19, 20)),
    ),
    "what is summed over rows with rows": (
        lambda x, y, z: (lambda s: s @ (s.T @ (s @ z)))(jnp.exp(x @ y)),
        (drawn(13, 20), drawn(20, 19), drawn(19, 18)),
    ),
    "sums over what others keep": (
        gradient(lambda q, k, v: jnp.einsum("bqk,bkd->bqd", softmax(jnp.einsum("bqd,kd->bqk", q, k[0])), v)),
        HEADS,
    ),
    "two types": (
        lambda x, y, z: (x @ y).astype(np.float64) @ z,
        (drawn(13, 20), drawn(20, 19), drawn(19, 20, dtype="float64")),
    ),
}


@pytest.mark.parametrize("name", DECLINED)
def test_declined(name: str) -> None:
    function, args = DECLINED[name]
    with jax.enable_x64(True):
        graph = inlined(function, *args)
    if between(graph) is not None:
        with pytest.raises(TooLargeError):
            ENGINE.derivation(graph)
    assert ENGINE.plan(graph, True) is None


def test_rows_that_no_cache_holds() -> None:
    shapes = ((64, 64), (40_000, 64), (40_000, 64))
    graph, _ = trace_function(CASES["divided after"][0], *(np.zeros(shape, np.float32) for shape in shapes))
    assert between(graph) is not None and ENGINE.plan(graph, True) is None


def test_a_product_with_other_indices() -> None:
    """Of all three matrices: a pass that cuts or moves loops around one must not leave a place behind."""
    i, j, k = (variable(name, 0, 9) for name in "ijk")
    buffers = [Buffer(name, np.dtype(np.float32), 100, "in") for name in ("out0", "in0", "in1")]
    to, left, right = (Matrix(buffer, at, (4, 1)) for buffer, at in zip(buffers, (i, j, k), strict=True))
    block = Block([Product(to, left, right, 2, 2, 2)])
    assert list(indices_of(block)) == [i, j, k]
    moved = block_with(block, lambda at: at + 5)
    assert list(indices_of(moved)) == [i + 5, j + 5, k + 5]
    assert isinstance(moved.statements[0], Product) and moved.statements[0].left == replace(left, at=j + 5)
