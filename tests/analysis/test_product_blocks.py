"""Products of matrices, a block at a time: loop programs compute what the graph does, whatever lies how in memory."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, seed
from hypothesis import strategies as st

from graphopt.analysis import product_blocks as module
from graphopt.analysis.product_blocks import product_of
from graphopt.backends.numba.engine import NumbaEngine
from graphopt.ir.graph import Graph
from graphopt.ir.loop import LoopProgram
from graphopt.trace.jaxpr import trace_function

from .test_between import drawn, inlined, written_of

ENGINE = NumbaEngine()
GOLDEN = Path(__file__).parents[1] / "golden" / "kernels" / "product.txt"
SEED = int(os.environ["GRAPHOPT_TEST_SEED"])


def einsum(text: str) -> Callable[..., Any]:
    return lambda *args: jnp.einsum(text, *args)


def check(function: Callable[..., Any], *args: Any) -> LoopProgram:
    with jax.enable_x64(True):
        return check_graph(inlined(function, *args), *args)


def check_graph(graph: Graph, *args: Any) -> LoopProgram:
    assert product_of(graph) is not None
    program, found, expected = written_of(graph, *args)
    assert "@" in str(program)
    for f, e in zip(found, expected, strict=True):
        assert f.dtype == e.dtype
        if not jnp.issubdtype(e.dtype, jnp.floating):
            np.testing.assert_array_equal(f, e)
            continue
        tolerance = 100 * float(jnp.finfo(e.dtype).eps)
        f, e = (np.asarray(values).astype(np.float64) for values in (f, e))
        np.testing.assert_allclose(f, e, rtol=tolerance, atol=tolerance * np.max(np.abs(e[np.isfinite(e)])))
    return program


MATRICES = drawn(19, 23), drawn(23, 17)

CASES: dict[str, tuple[Callable[..., Any], tuple[Any, ...]]] = {
    "rows by columns": (lambda x, y: x @ y, MATRICES),
    "in float64": (lambda x, y: x @ y, tuple(x.astype("float64") for x in MATRICES)),
    "more columns than a panel": (lambda x, y: x @ y, (drawn(7, 17), drawn(17, 131))),
    "more rows than a block": (lambda x, y: x @ y, (drawn(101, 17), drawn(17, 6))),
    "whole blocks": (lambda x, y: x @ y, (drawn(48, 17), drawn(17, 64))),
    "a sum of sums": (lambda x, y: x @ y, (drawn(6, 1031), drawn(1031, 17))),
    "the first turned": (einsum("ki,kj->ij"), (drawn(23, 19), drawn(23, 17))),
    "the second turned": (einsum("ik,jk->ij"), (drawn(99, 19), drawn(17, 19))),
    "the second turned, of many columns": (einsum("ik,jk->ij"), (drawn(9, 19), drawn(99, 19))),
    "both turned": (einsum("ki,jk->ij"), (drawn(23, 19), drawn(17, 23))),
    "side by side": (einsum("bik,bkj->bij"), (drawn(3, 19, 23), drawn(3, 23, 17))),
    "heads": (einsum("qhd,khd->hqk"), (drawn(19, 3, 17), drawn(21, 3, 17))),
    "several rows, sums and columns": (einsum("bicd,cdjk->bijk"), (drawn(2, 5, 3, 7), drawn(3, 7, 4, 9))),
    "with itself": (lambda x: x @ x.T, (drawn(19, 23),)),
    "a layer": (lambda x, w, b: jnp.tanh(x @ w + b), (*MATRICES, drawn(17))),
    "a layer, turned": (lambda x, w, b: jnp.tanh(x @ w.T + b), (drawn(9, 23), drawn(99, 23), drawn(99))),
    "heads, masked": (
        lambda q, k: jnp.where(jnp.tril(jnp.ones((19, 21), bool)), jnp.einsum("qhd,khd->hqk", q, k), -jnp.inf),
        (drawn(19, 3, 17), drawn(21, 3, 17)),
    ),
    "of which both are needed": (lambda x, w: (lambda y: (y, jnp.exp(y), y > 0))(x @ w), MATRICES),
    "of several types": (lambda x, w: (x @ w).astype(jnp.bfloat16), MATRICES),
    "of one row for each column": (lambda x, w, c: (x @ w) * c[:, None] - jnp.arange(17.0), (*MATRICES, drawn(19))),
}


@pytest.mark.parametrize("name", CASES)
def test_interpreted(name: str) -> None:
    function, args = CASES[name]
    check(function, *args)


@seed(SEED)
@given(st.data())
def test_any_product(data: st.DataObject) -> None:
    """Factors whose axes lie in any order, those that are one in the product side by side."""
    groups = {kind: data.draw(st.lists(st.integers(1, 3), max_size=2)) for kind in "bijk"}
    for kind in "ijk":
        groups[kind].insert(
            data.draw(st.integers(0, len(groups[kind]))), data.draw(st.integers(17 if kind == "k" else 5, 19))
        )
    sides = []
    for free in "ij":
        parts = [[("b", n)] for n in range(len(groups["b"]))]
        parts += [[(kind, n) for n in range(len(groups[kind]))] for kind in (free, "k")]
        sides.append([axis for part in data.draw(st.permutations(parts)) for axis in part])
    summed, batch = (
        tuple(tuple(side.index((kind, n)) for n in range(len(groups[kind]))) for side in sides) for kind in "kb"
    )
    args = [drawn(*(groups[kind][n] for kind, n in side)) for side in sides]
    graph, _ = trace_function(lambda x, y: jax.lax.dot_general(x, y, (summed, batch)), *args)
    check_graph(graph, *args)


def test_what_is_not_finite() -> None:
    x, y = drawn(19, 23), drawn(23, 70)
    x[3, 4], x[7, 1], x[9, 0], y[5, 6] = np.nan, np.inf, -0.0, -np.inf
    graph, _ = trace_function(lambda x, y: x @ y, x, y)
    _, (found,), (expected,) = written_of(graph, x, y)
    np.testing.assert_array_equal(np.isfinite(found), np.isfinite(expected))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_columns_are_copied_where_they_are_apart() -> None:
    """Those of the second factor, or of the first where that is less; else nothing is."""

    def copied(function: Callable[..., Any], *args: Any) -> list[int]:
        return [buffer.size for buffer in check(function, *args).buffers if buffer.role == "scratch"]

    assert copied(lambda x, y: x @ y, drawn(20, 30), drawn(30, 20)) == []
    assert copied(einsum("ki,kj->ij"), drawn(30, 20), drawn(30, 20)) == []
    assert copied(einsum("ik,jk->ij"), drawn(99, 30), drawn(20, 30)) == [20 * 30]
    assert copied(einsum("ik,jk->ij"), drawn(20, 30), drawn(99, 30)) == [20 * 30]
    assert copied(einsum("ki,jk->ij"), drawn(30, 20), drawn(99, 30)) == []


@pytest.mark.parametrize("rows", [18, 24, 29, 53])
def test_rows_that_lie_far_apart_are_copied(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def tiles(*args: Any) -> list[int]:
        return [buffer.size for buffer in check(einsum("bki,bkj->bij"), *args).buffers if buffer.role == "tile"]

    args = drawn(2, 20, rows), drawn(2, 20, 17)
    assert tiles(*args) == []
    monkeypatch.setattr(module, "FAR", rows * 4)
    (size,) = tiles(*args)
    assert size % 20 == 0
    monkeypatch.setattr(module, "KEPT", size * 4 - 1)
    assert tiles(*args) == []


def test_the_text_of_a_program() -> None:
    graph, _ = trace_function(lambda x, w, b: x @ w + b, drawn(100, 512), drawn(512, 10), drawn(10))
    program = ENGINE.derivation(graph).program
    if os.environ.get("GRAPHOPT_TEST_UPDATE") == "1":
        GOLDEN.write_text(f"{program}\n")
    assert GOLDEN.read_text() == f"{program}\n"
    assert "out0[10 * v4 + j3]" in (module.__doc__ or "")


DECLINED: dict[str, tuple[Callable[..., Any], tuple[Any, ...]]] = {
    "of integers": (lambda x, y: x @ y, tuple(x.astype("int32") for x in MATRICES)),
    "of complex numbers": (lambda x, y: x @ y, tuple(x.astype("complex64") for x in MATRICES)),
    "of narrow numbers": (lambda x, y: x @ y, tuple(x.astype(jnp.bfloat16) for x in MATRICES)),
    "of two types": (
        lambda x, y: jax.lax.dot(x, y, preferred_element_type=jnp.float64),
        MATRICES,
    ),
    "thin": (lambda x, y: x @ y, (drawn(4, 300), drawn(300, 300))),
    "rows that are apart": (
        lambda x, y: jax.lax.dot_general(x, y, (((1,), (0,)), ((), ()))),
        (drawn(9, 23, 7), drawn(23, 17)),
    ),
}


@pytest.mark.parametrize("name", DECLINED)
def test_declined(name: str) -> None:
    function, args = DECLINED[name]
    with jax.enable_x64(True):
        graph, _ = trace_function(function, *args)
    assert product_of(graph) is None


def test_what_is_made_of_other_elements_is_no_such_body() -> None:
    for function in (
        lambda x, y: (x @ y).sum(1),
        lambda x, y: (x @ y).T,
        lambda x, y: (x @ y)[::-1] + 1,
        lambda x, y: jnp.cumsum(x @ y, 1),
        lambda x, y: jnp.tanh(x) @ y,
    ):
        graph, _ = trace_function(function, *MATRICES)
        assert product_of(graph) is None
