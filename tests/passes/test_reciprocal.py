"""Divisions by the same number each time: programs before and after as text, interpreted, run, and what is left."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import graphopt
from graphopt.backends.interpret import interpret
from graphopt.backends.numba.engine import NumbaEngine
from graphopt.ir.loop import LoopProgram
from graphopt.passes.reciprocal import Reciprocal

from .loop_programs import check_files, check_text, program_by

WITHOUT = NumbaEngine(without=frozenset({"reciprocal"}))

X, Y = np.random.default_rng(0).normal(size=(2, 6, 50)).astype(np.float32)
S = np.abs(X[:, 0]) + 1

Case = tuple[Callable[..., Any], tuple[Any, ...]]


def without(function: Callable[..., Any], *args: Any) -> LoopProgram:
    return program_by(WITHOUT, function, *args)


def of_two_loops(x: Any, y: Any, s: Any) -> Any:
    return (x / s[:, None]).sum(1), jnp.sin(y) / s[:, None]


CASES: dict[str, Case] = {
    "rows": (jax.nn.softmax, (X,)),
    "a number": (lambda x, s: jnp.exp(x) / (s[0] + 1), (X, S)),
    "two loops": (of_two_loops, (X, Y, S)),
    "numbers of loops in each other": (lambda x, s: (x / s[0])[:, None] / s[:, None, None], (X, S)),
}

LEFT: dict[str, Case] = {
    "another number each time": (lambda x, y: x / y, (X, Y)),
    "a number in the innermost loop": (lambda x, s: x / s[:50], (X, np.resize(S, 50))),
    "a constant": (lambda x: jnp.sin(x) / 7, (X,)),
    "integers": (lambda x, s: jax.lax.div(x, s[:, None] * jnp.ones_like(x)), (X.astype(np.int32), S.astype(np.int32))),
    "short floats": (lambda x, s: x / s[:, None], (X.astype(np.float16), S.astype(np.float16))),
    "complex numbers": (lambda x, s: x / s[:, None], (X.astype(np.complex64), S.astype(np.complex64))),
    "numbers that are divided": (lambda x, s: s[:, None] / x, (X, S)),
}


@pytest.mark.parametrize("name", CASES)
def test_the_text_before_and_after(name: str) -> None:
    function, args = CASES[name]
    before = without(function, *args)
    after, said = Reciprocal().run(before)
    for found, expected in zip(interpret(after, *args), interpret(before, *args), strict=True):
        np.testing.assert_array_max_ulp(found, expected, maxulp=6)
    check_text("reciprocal", name, before, after, said)


def test_no_text_is_left_over() -> None:
    check_files("reciprocal", CASES)


@pytest.mark.parametrize("name", LEFT)
def test_what_is_left(name: str) -> None:
    function, args = LEFT[name]
    before = without(function, *args)
    assert Reciprocal().run(before) == (before, ())


EXTREME = [0.0, -0.0, np.inf, -np.inf, np.nan, 1e-40, 3e38, 2.0**127, 1e-38, 1.0, -3.0, 7.0]


@settings(max_examples=25)
@given(st.data())
def test_the_bits_of_one_of_two(data: st.DataObject) -> None:
    """Of any numbers, in any loops: a quotient, or a product by a reciprocal, whichever it is."""
    dtype = data.draw(st.sampled_from([np.float32, np.float64]))
    shape = data.draw(st.tuples(st.integers(1, 9), st.integers(1, 70), st.integers(1, 5)))
    kept = [data.draw(st.booleans()) for _ in shape]
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    x = rng.normal(size=shape).astype(dtype)
    s = rng.normal(size=[n if keep else 1 for n, keep in zip(shape, kept, strict=True)]).astype(dtype)
    for array in data.draw(st.lists(st.sampled_from([x, s]), max_size=8)):
        array.flat[data.draw(st.integers(0, array.size - 1))] = data.draw(st.sampled_from(EXTREME))
    with jax.enable_x64(True):
        found = np.asarray(graphopt.jit(jnp.divide, backend="numba")(x, s))
        quotient = np.asarray(jax.jit(jnp.divide)(x, np.broadcast_to(s, shape)))
        product = np.asarray(jax.jit(jnp.multiply)(x, jax.jit(jnp.divide)(np.ones_like(s), s)))
    np.testing.assert_array_equal(found, np.where(_same(found, product), product, quotient))


def _same(a: Any, b: Any) -> Any:
    return (a == b) | (np.isnan(a) & np.isnan(b))


def test_the_bits_of_xla() -> None:
    found, expected = (jit(lambda x, s: x / s[:, None])(X, S) for jit in (graphopt.jit(backend="numba"), jax.jit))
    np.testing.assert_array_equal(found, expected)
    assert (np.asarray(found) != X / S[:, None]).any()


def test_the_report_says_so() -> None:
    function, args = CASES["rows"]
    report = graphopt.jit(function, backend="numba").explain(*args)
    assert any("reciprocal: 1 division by the same number" in str(note) for note in report.notes), report.notes
    for options in ({"without": ("reciprocal",)}, {"numerics": "exact"}):
        report = graphopt.jit(function, backend="numba", **options).explain(*args)  # type: ignore[arg-type]
        assert not any("reciprocal:" in str(note) for note in report.notes), report.notes
