"""Large results go past the caches: programs before and after as text, interpreted, and compiled."""

import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import graphopt
from graphopt.backends.interpret import interpret
from graphopt.backends.numba.compiling import text_of
from graphopt.backends.numba.engine import NumbaEngine
from graphopt.backends.numba.names import function_of
from graphopt.ir.loop import LoopProgram
from graphopt.passes import split
from graphopt.passes.bypass import LARGE, BypassCaches

from .loop_programs import check_before_and_after, check_files, program_by

WITHOUT = NumbaEngine(bypass=BypassCaches(large=1 << 60))
EAGER = BypassCaches(large=0, least=0, width=16)

X = np.random.default_rng(0).normal(size=(7, 13)).astype(np.float32)


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few elements are enough."""
    monkeypatch.setattr(split, "WIDTH", 8)
    monkeypatch.setattr(split, "BLOCKS", 2)


def without(function: Callable[..., Any], *args: Any) -> LoopProgram:
    return program_by(WITHOUT, function, *args)


def centred(x: Any) -> Any:
    return x - x.sum(-1, keepdims=True)


CASES: dict[str, tuple[Callable[..., Any], tuple[Any, ...]]] = {
    "rows": (centred, (X,)),
    "elements": (lambda x: x * 2 + 1, (X,)),
    "several results": (lambda x: (centred(x), x > 0, lax.exp(x)), (X,)),
}


@pytest.mark.parametrize("name", CASES)
def test_the_text_before_and_after(name: str) -> None:
    function, args = CASES[name]
    check_before_and_after(EAGER, name, without(function, *args), *args)


def test_no_text_is_left_over() -> None:
    check_files("bypass", CASES)


LEFT: dict[str, tuple[Callable[..., Any], tuple[Any, ...]]] = {
    "numbers": (lambda x: x.sum(-1), (X,)),
    "what is read again": (lambda x: x.at[jnp.array([1, 1])].add(x[:2]), (X,)),
    "what is found by division": (lambda x: jnp.tile(x, 3)[:, :5].reshape(5, 7) * 2, (X,)),
}


@pytest.mark.parametrize("name", LEFT)
def test_what_is_written_as_usual(name: str) -> None:
    function, args = LEFT[name]
    before = without(function, *args)
    assert EAGER.run(before) == (before, ())


def test_what_stays_in_a_cache_is_written_as_usual() -> None:
    before = without(centred, X)
    assert BypassCaches().run(before) == (before, ())
    assert BypassCaches(large=X.nbytes, least=0).run(before)[1]
    assert BypassCaches(large=X.nbytes).run(before) == (before, ())


@pytest.mark.parametrize("size", [16, 17, 31, 33, 91, 1009])
def test_the_end_of_a_result_is_not_passed(size: int) -> None:
    x = np.arange(size, dtype=np.float32)
    before = without(lambda x: x * 2 + 1, x)
    after, said = EAGER.run(before)
    assert said
    for grain in (None, 1):
        np.testing.assert_array_equal(interpret(after, x, grain=grain)[0], x * 2 + 1)


@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16", "int8", "bool", "complex64"])
@pytest.mark.parametrize("rows", ["whole lines", "odd", "none"])
def test_kernels(dtype: str, rows: str) -> None:
    """Rows that begin within a line of memory, and end in one; loops stay vectorized, and lines are stored whole."""
    size = LARGE // jnp.dtype(dtype).itemsize
    shape = {"whole lines": (size // 1024 + 1, 1024), "odd": (size // 1021 + 1, 1021), "none": (size + 17,)}[rows]
    with jax.enable_x64(dtype == "float64"):
        random = np.random.default_rng(1)
        x = jnp.asarray(random.integers(-4, 5, shape) * (random.random(shape) < 0.01), dtype)

        def shifted(x: Any) -> Any:
            if rows == "none":
                return x != 0 if dtype == "bool" else x * 3
            return (x != x.any(-1, keepdims=True)) if dtype == "bool" else x - x.sum(-1, keepdims=True, dtype=x.dtype)

        function = graphopt.jit(shifted, backend="numba")
        report = function.explain(x)
        assert any("bypass: rows of" in str(note) for note in report.notes), report.notes
        found, expected = np.asarray(function(x)), np.asarray(jax.jit(shifted)(x))
    np.testing.assert_array_equal(found, expected, strict=True)  # sums of a few small whole numbers are exact
    source = next(kernel.source for kernel in report.kernels if "bypass(" in kernel.source)
    text = text_of(function_of(source))
    assert re.search(r"store <16 x i32> .*align 64, !nontemporal", text)
    assert "fence seq_cst" in text
    if dtype != "complex64":
        loops = [loop for kernel in report.kernels for loop in kernel.inner_loops() if loop.name != "ahead"]
        assert loops and all(loop.lanes > 1 for loop in loops), loops


def test_special_values_are_written_as_they_are() -> None:
    x = np.tile(np.array([np.nan, np.inf, -np.inf, -0.0, 1e-40, 3.0, 5.0], np.float32), LARGE // 28 + 1)
    function = graphopt.jit(lambda x: -x, backend="numba")
    assert any("bypass" in str(note) for note in function.explain(x).notes)
    np.testing.assert_array_equal(np.asarray(function(x)).view(np.uint32), (-x).view(np.uint32))
