"""Rows are asked for before they are needed: programs before and after as text, and interpreted."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import graphopt
from graphopt.backends.numba.engine import NumbaEngine
from graphopt.ir.loop import LoopProgram
from graphopt.passes.fetch import LARGE, FetchAhead

from .loop_programs import check_before_and_after, check_files, program_by

WITHOUT = NumbaEngine(fetch=FetchAhead(large=1 << 60))
EAGER = FetchAhead(large=0)

X = np.random.default_rng(0).normal(size=(7, 128)).astype(np.float32)


def without(function: Callable[..., Any], *args: Any) -> LoopProgram:
    return program_by(WITHOUT, function, *args)


def centred(x: Any) -> Any:
    return x - x.sum(-1, keepdims=True)


def two_operands(x: Any, y: Any) -> Any:
    return (x - (x * y).sum(-1, keepdims=True)) * y


CASES: dict[str, tuple[Callable[..., Any], tuple[Any, ...]]] = {
    "rows": (centred, (X,)),
    "two operands": (two_operands, (X, X[:, ::-1])),
}


@pytest.mark.parametrize("name", CASES)
def test_the_text_before_and_after(name: str) -> None:
    function, args = CASES[name]
    check_before_and_after(EAGER, name, without(function, *args), *args)


def test_no_text_is_left_over() -> None:
    check_files("fetch", CASES)


LEFT: dict[str, tuple[Callable[..., Any], tuple[Any, ...]]] = {
    "one loop": (lambda x: x * 2 + 1, (X,)),
    "one loop in each row": (lambda x: x.sum(-1), (X,)),
    "short rows": (centred, (X[:, :50],)),
    "long rows": (centred, (np.ones((2, 5000), np.float32),)),
    "rows that lie backwards": (lambda x: centred(lax.rev(x, (0,))).sum(-1), (X,)),
}


@pytest.mark.parametrize("name", LEFT)
def test_what_is_not_fetched(name: str) -> None:
    function, args = LEFT[name]
    before = without(function, *args)
    assert EAGER.run(before) == (before, ())


def test_what_stays_in_a_cache_is_not_fetched() -> None:
    before = without(centred, X)
    assert FetchAhead().run(before) == (before, ())
    assert FetchAhead(large=X.nbytes).run(before)[1]


@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16"])
def test_kernels_that_fetch(dtype: str) -> None:
    """The report says so, loops stay vectorized, the last row asks for what lies beyond the end."""
    with jax.enable_x64(dtype == "float64"):
        x = jnp.asarray(np.random.default_rng(1).normal(size=(LARGE // 1024 + 1, 515)), dtype)
        function = graphopt.jit(jax.nn.softmax, backend="numba")
        report = function.explain(x)
        assert any("fetch: rows of 515 of in0" in str(note) for note in report.notes), report.notes
        (kernel,) = report.kernels
        assert "fetch in0[" in str(kernel.program)
        loops = [loop for loop in kernel.inner_loops() if loop.name != "ahead"]
        assert len(loops) > 1 and all(loop.lanes > 1 for loop in loops), loops
        found, expected = (np.asarray(f(x), np.float64) for f in (function, jax.jit(jax.nn.softmax)))
        tolerance = {"float32": 1e-5, "float64": 1e-13, "bfloat16": 4e-2}[dtype]
        np.testing.assert_allclose(found, expected, rtol=tolerance)
