"""Sums of products that go into sums of loops: programs before and after as text, interpreted, run, and what is left."""

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
from graphopt.passes.terms import Terms

from .loop_programs import check_files, check_text, program_by

WITHOUT = NumbaEngine(without=frozenset({"terms"}))

A, B, C, D = np.random.default_rng(0).normal(size=(4, 6, 50)).astype(np.float32)

Case = tuple[Callable[..., Any], tuple[Any, ...]]


def without(function: Callable[..., Any], *args: Any) -> LoopProgram:
    return program_by(WITHOUT, function, *args)


def used_twice(a: Any, b: Any, c: Any, d: Any) -> Any:
    total = a * b + c * d
    return total.sum(1), total.max(1)


CASES: dict[str, Case] = {
    "two products": (lambda a, b, c, d: (a * b + c * d).sum(1), (A, B, C, D)),
    "three products and a square": (lambda a, b, c, d: (a * b + (c * d + b * c) + d * d).sum(1), (A, B, C, D)),
    "two sums": (lambda a, b, c, d: ((a * b + c * d).sum(1), (a * c + b * d).sum(1)), (A, B, C, D)),
}

LEFT: dict[str, Case] = {
    "a product and a number": (lambda a, b: (a * b + a).sum(1), (A, B)),
    "used twice": (used_twice, (A, B, C, D)),
    "a difference": (lambda a, b, c, d: (a * b - c * d).sum(1), (A, B, C, D)),
    "the greatest": (lambda a, b, c, d: (a * b + c * d).max(1), (A, B, C, D)),
    "integers": (lambda a, b: (a * b + b * 3).sum(1), (A.astype(np.int32), B.astype(np.int32))),
    "a product used twice": (lambda a, b, c: (a * b + (a * b) * c + jnp.sin(a * b)).sum(1), (A, B, C)),
}


@pytest.mark.parametrize("name", CASES)
def test_the_text_before_and_after(name: str) -> None:
    function, args = CASES[name]
    before = without(function, *args)
    after, said = Terms().run(before)
    for found, expected in zip(interpret(after, *args), interpret(before, *args), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-4)
    check_text("terms", name, before, after, said)


def test_no_text_is_left_over() -> None:
    check_files("terms", CASES)


@pytest.mark.parametrize("name", LEFT)
def test_what_is_left(name: str) -> None:
    function, args = LEFT[name]
    before = without(function, *args)
    assert Terms().run(before) == (before, ())


@settings(max_examples=25)
@given(st.data())
def test_random_sums_of_products(data: st.DataObject) -> None:
    """Also with terms that are no products: whatever is done, the sums are right to a few units of their terms."""
    operands = [A, B, C, D]
    kinds = data.draw(st.lists(st.sampled_from(["product", "square", "alone", "sine"]), min_size=1, max_size=6))
    pairs = [data.draw(st.tuples(st.integers(0, 3), st.integers(0, 3))) for _ in kinds]

    def terms(*xs: Any) -> Any:
        for kind, (i, j) in zip(kinds, pairs, strict=True):
            yield {"product": xs[i] * xs[j], "square": xs[i] ** 2, "alone": xs[i], "sine": jnp.sin(xs[i]) * xs[j]}[kind]

    def function(*xs: Any) -> Any:
        total = 0.0
        for each in terms(*xs):
            total = total + each
        return total.sum(1)

    before = without(function, *operands)
    after, _ = Terms().run(before)
    size = sum(np.abs(np.asarray(each)).sum() for each in terms(*operands))
    for found, expected in zip(interpret(after, *operands), interpret(before, *operands), strict=True):
        np.testing.assert_allclose(found, expected, rtol=0, atol=2e-7 * len(kinds) * 50 * size)
    found = np.asarray(graphopt.jit(function, backend="numba")(*operands))
    np.testing.assert_allclose(found, jax.jit(function)(*operands), rtol=0, atol=2e-7 * len(kinds) * 50 * size)


def test_infinities_and_what_is_no_number() -> None:
    """What a product overflows to is not asked: XLA does not round one of the two either."""

    def function(a: Any, b: Any) -> Any:
        return (a * a + a * b).sum(1)

    a = np.ones((3, 40), np.float32)
    b = np.ones((3, 40), np.float32)
    a[0, 3], b[1, 2], a[2, 5], b[2, 5] = np.inf, np.nan, np.inf, -np.inf
    found, expected = graphopt.jit(function, backend="numba")(a, b), jax.jit(function)(a, b)
    np.testing.assert_array_equal(found, expected)


def test_the_report_says_so() -> None:
    function, args = CASES["two products"]
    report = graphopt.jit(function, backend="numba").explain(*args)
    assert any("terms: 1 sum of products, added" in str(note) for note in report.notes), report.notes
    for options in ({"without": ("terms",)}, {"numerics": "exact"}):
        report = graphopt.jit(function, backend="numba", **options).explain(*args)  # type: ignore[arg-type]
        assert not any("terms:" in str(note) for note in report.notes), report.notes
