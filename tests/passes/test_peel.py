"""Loops without conditions on their variables: programs before and after as text, and interpreted."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from jax import lax

import graphopt
from graphopt.backends.interpret import interpret
from graphopt.backends.numba.engine import NumbaEngine
from graphopt.ir.loop import LoopProgram
from graphopt.passes.peel import MOST, Peel

from .loop_programs import check_before_and_after, check_files, program_by

WITHOUT = NumbaEngine(peel=Peel(least=1 << 60))
EAGER = Peel(least=1)

X = np.random.default_rng(0).normal(size=(7, 50)).astype(np.float32)


def without(function: Callable[..., Any], *args: Any) -> LoopProgram:
    return program_by(WITHOUT, function, *args)


def joined(x: Any) -> Any:
    return jnp.concatenate([x[:, 10:], x * 2], 1)


def blurred(x: Any) -> Any:
    padded = jnp.pad(x, 1)
    height, width = x.shape
    return sum(padded[i : i + height, j : j + width] for i in range(3) for j in range(3)) / 9


def steps(x: Any) -> Any:
    return jnp.roll(x, 3, 0) - x


CASES: dict[str, tuple[Callable[..., Any], tuple[Any, ...]]] = {
    "joined": (joined, (X,)),
    "rows and columns": (lambda x: lax.pad(x, np.float32(0), [(1, 2, 0), (3, 0, 0)]) * 2, (X,)),
    "elements": (lambda x: lax.rev(jnp.pad(x, (2, 3)), (0,)) + 1, (X[0],)),
}


@pytest.mark.parametrize("name", CASES)
def test_the_text_before_and_after(name: str) -> None:
    function, args = CASES[name]
    check_before_and_after(EAGER, name, without(function, *args), *args)


def test_no_text_is_left_over() -> None:
    check_files("peel", CASES)


LEFT: dict[str, tuple[Callable[..., Any], tuple[Any, ...]]] = {
    "no conditions": (lambda x: x * 2 + 1, (X,)),
    "many parts": (lambda x: jnp.concatenate([x[i : i + 2] for i in range(MOST + 1)]) + 1, (X[0],)),
    "conditions on two variables": (lambda x: jnp.tril(x), (X,)),
}


@pytest.mark.parametrize("name", LEFT)
def test_what_is_not_peeled(name: str) -> None:
    function, args = LEFT[name]
    before = without(function, *args)
    assert EAGER.run(before) == (before, ())


def test_short_loops_are_left() -> None:
    before = without(joined, X[:, :20])
    assert Peel().run(before) == (before, ())


@settings(max_examples=25)
@given(st.data())
def test_pads_and_joins_of_any_kind(data: st.DataObject) -> None:
    """What is padded, also by less than nothing and between elements, cut, turned and joined: the same bits."""
    amounts = st.tuples(st.integers(-2, 3), st.integers(-2, 3), st.integers(0, 2))
    configs = data.draw(st.lists(st.tuples(amounts, amounts), min_size=1, max_size=3))
    axis = data.draw(st.integers(0, 1))
    turned = data.draw(st.booleans())
    x = X[: data.draw(st.integers(3, 7)), : data.draw(st.integers(3, 12))]

    def function(x: Any) -> Any:
        parts = [lax.pad(x, np.float32(-1), config) for config in configs]
        sides = [min(p.shape[k] for p in parts) for k in range(2)]
        parts = [p[: sides[0], : sides[1]] for p in parts]
        found = lax.concatenate([*parts, *(p * 2 for p in parts)], axis)
        return (lax.rev(found, (axis,)) if turned else found) * parts[0].sum(axis, keepdims=True)

    assume(jax.eval_shape(function, x).size > 0)
    before = without(function, x)
    after, _ = EAGER.run(before)
    for found, expected in zip(interpret(after, x), interpret(before, x), strict=True):
        np.testing.assert_array_equal(found, expected)


def test_a_part_of_one_element() -> None:
    """A part may be so short that its variable is a number, and conditions with quotients of it are known."""
    x = jnp.arange(125, dtype=jnp.int8)[None]
    dimensions = lax.ScatterDimensionNumbers((0,), (1,), (1,))

    def function(x: Any, update: Any) -> Any:
        return lax.scatter(x, np.array([0]), update, dimensions, unique_indices=True, mode="fill")

    ours = graphopt.jit(function, backend="numba")
    np.testing.assert_array_equal(ours(x, x[0, 5:6]), jax.jit(function)(x, x[0, 5:6]))


@pytest.mark.parametrize("function", [joined, blurred, steps, lambda x: jnp.gradient(x)[1]])
def test_kernels_of_peeled_loops(function: Callable[..., Any]) -> None:
    """The longest loops are vectorized, and the kernel gives what XLA does."""
    x = jnp.asarray(np.random.default_rng(1).normal(size=(301, 517)), jnp.float32).at[3, 5].set(jnp.nan)
    ours = graphopt.jit(function, backend="numba")
    (kernel,) = ours.explain(x).kernels
    assert any("peel" in str(note) for note in ours.explain(x).notes)
    assert any(loop.lanes > 1 for loop in kernel.inner_loops()), kernel.inner_loops()
    np.testing.assert_allclose(ours(x), jax.jit(function)(x), rtol=1e-5, atol=1e-6)
