"""Reductions of operands that lie across each other: in blocks they compute what the graph does, and are chosen."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

import graphopt
from graphopt.analysis import crossed, tiled
from graphopt.analysis.crossed import crossed_reductions
from graphopt.analysis.products import DOT, is_crossed
from graphopt.trace.jaxpr import trace_function

from .test_columns import ENGINE, GOLDEN, SEED, programs, whole

CASES: dict[str, tuple[Callable[..., Any], tuple[Any, ...]]] = {
    "both axes": (lambda x, y: (x * y.T).sum(), (whole(9, 10), whole(10, 9))),
    "whole blocks": (lambda x, y: (x * y.T).sum(), (whole(8, 12), whole(12, 8))),
    "the last axis": (lambda x, y: (x - y.T).max(1), (whole(9, 10), whole(10, 9))),
    "the first axis": (lambda x, y: (x - y.T).min(0), (whole(9, 10), whole(10, 9))),
    "of one operand": (lambda x: abs(x - x.T).max() * 2, (whole(11, 11),)),
    "in batches": (lambda x, y: (x * y.transpose(0, 2, 1)).sum((1, 2)), (whole(3, 9, 10), whole(3, 10, 9))),
    "and over them": (lambda x, y: (x * y.transpose(0, 2, 1)).sum((0, 1)), (whole(3, 9, 10), whole(3, 10, 9))),
    "between them": (lambda x, y: (x * y.transpose(2, 1, 0)).sum(2), (whole(9, 3, 10), whole(10, 3, 9))),
    "many blocks in parts": (lambda x, y: (x * y.T).sum(0), (whole(90, 5), whole(5, 90))),
    "a result that others need": (lambda x, y: x + (x * y.T).sum(0), (whole(9, 10), whole(10, 9))),
    "integers": (lambda x, y: (x * y.T).sum(), (whole(9, 10, dtype="int32"), whole(10, 9, dtype="int32"))),
    "any": (lambda x, y: ((x > 3) & (y.T > 3)).any(1), (whole(9, 10), whole(10, 9))),
    "more operands than tiles": (
        lambda a, b, c, d, e, f: (a + b.T + c.T + d.T + e.T + f.T).sum(),
        (whole(10, 9), *(whole(9, 10) for _ in range(5))),
    ),
}


@pytest.fixture(params=[16, 2], ids=["in parts", "whole"])
def small(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiled, "SIDE", 4)
    monkeypatch.setattr(crossed, "SIDE", 4)
    monkeypatch.setattr(crossed, "ENOUGH", request.param)


@pytest.mark.parametrize("name", CASES)
def test_in_blocks(name: str, small: None) -> None:
    function, args = CASES[name]
    found = programs(function, *args)
    blocks = [p for p in found if sum(b.role == "tile" for b in p.buffers) > 1 and "scratch" in str(p)]
    assert bool(blocks) == (name != "more operands than tiles")


LEFT: dict[str, Callable[..., Any]] = {
    "nothing transposed": lambda x, y: (x * y).sum(),
    "places": lambda x, y: jnp.argmax(x - y.T, 1),
    "two reductions": lambda x, y: (x - y.T).sum(1) + (x * y.T).max(1),
    "a few columns": lambda x, y: (x[:, :5] * y.T[:, :5]).sum(),
}


@pytest.mark.parametrize("name", LEFT)
def test_what_is_not_in_blocks(name: str) -> None:
    graph, _ = trace_function(LEFT[name], whole(40, 40), whole(40, 40))
    assert not list(crossed_reductions(graph))


EINSUMS = {"ij,ji->": True, "ij,ji->i": True, "ij,ji->j": True, "ij,ij->": False, "ij,jk->ik": False, "i,i->": False}


@pytest.mark.parametrize("spec", EINSUMS)
def test_products_that_are_crossed(spec: str) -> None:
    shapes = [(40,) * len(factor) for factor in spec.split("->")[0].split(",")]
    graph, _ = trace_function(lambda x, y: jnp.einsum(spec, x, y), *map(np.ones, shapes))
    products = [node for node in graph.nodes if node.op is DOT]
    assert [is_crossed(node) for node in products] == [EINSUMS[spec]] * len(products)


CHOSEN: dict[str, Callable[..., Any]] = {
    "trace": lambda x, y: jnp.trace(x @ y),
    "sum": lambda x, y: (x * y.T).sum(),
    "rows": lambda x, y: jnp.einsum("ij,ji->i", x, y),
    "columns": lambda x, y: ((x - y.T) ** 2).sum(0),
    "mean of both": lambda x, y: (x + x.T) / 2,
}


@pytest.mark.parametrize("name", CHOSEN)
def test_what_lies_across_leaves_xla(name: str) -> None:
    """And what is not finite, or a zero with a sign, is as in XLA."""
    random = np.random.default_rng(0)
    x, y = (random.normal(size=(1000, 1000)).astype(np.float32) for _ in range(2))
    ours = graphopt.jit(CHOSEN[name])
    (kernel,) = ours.explain(x, y).kernels
    assert any(loop.lanes > 1 for loop in kernel.inner_loops())
    np.testing.assert_allclose(ours(x, y), jax.jit(CHOSEN[name])(x, y), rtol=1e-3, atol=0.5)
    for value in (np.nan, np.inf, -0.0, 1e-42):
        x[3, 7] = value
        np.testing.assert_allclose(ours(x, y), jax.jit(CHOSEN[name])(x, y), rtol=1e-3, atol=0.5)


@seed(SEED)
@settings(max_examples=10, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.tuples(st.integers(30, 140), st.integers(30, 140)),
    st.sampled_from(["float32", "float64", "int32", "bfloat16", "int8"]),
    st.sampled_from([(0,), (1,), (0, 1)]),
    st.sampled_from(["sum", "max", "min"]),
)
def test_kernels_drawn(shape: tuple[int, int], dtype: str, axes: tuple[int, ...], reduction: str) -> None:
    with jax.enable_x64(dtype == "float64"):
        x, y = (jnp.asarray(whole(*s), dtype) for s in (shape, shape[::-1]))
        wide = jnp.float32 if dtype == "bfloat16" else x.dtype

        def function(x: Any, y: Any) -> Any:
            return getattr(jnp, reduction)(x.astype(wide) * y.T.astype(wide), axes)

        ours = graphopt.jit(function, backend="numba")
        np.testing.assert_array_equal(ours(x, y), jax.jit(function)(x, y))


def test_the_text_of_a_program() -> None:
    graph, _ = trace_function(lambda x, y: (x * y.T).sum(), *(np.zeros((1000, 1000), np.float32) for _ in range(2)))
    text = f"{ENGINE.program(graph)[0]}\n"
    file: Path = GOLDEN / "crossed.txt"
    if os.environ.get("GRAPHOPT_TEST_UPDATE") == "1":
        file.write_text(text)
    assert text == file.read_text()
