"""Scatters as loop programs: interpreted, they compute what the graph does, and no element is shared by two threads."""

import os
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jax import lax

import graphopt
from graphopt.analysis import scattering
from graphopt.analysis.scattering import SCATTERS, declined
from graphopt.backends.interpret import interpret

from .indexing import INDEX_DTYPES, MODES, drawn
from .test_derive import ENGINE, agrees, simplified, whole

METHODS = {
    name: getattr(lax, f"scatter{name}")
    for name in ("", "_add", "_sub", "_mul", "_min", "_max")
    if hasattr(lax, f"scatter{name}")
}
RANDOM = st.integers(0, 2**32 - 1)
quiet = settings(deadline=None, suppress_health_check=list(HealthCheck))


@pytest.fixture(params=[False, True], ids=["as it is", "in small parts"])
def small(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A few updates count as many, and a few bytes as a line."""
    if request.param:
        monkeypatch.setattr(scattering, "MANY", 2)
        monkeypatch.setattr(scattering, "PARTS", 2)
        monkeypatch.setattr(scattering, "LINE", 4)


def test_random_scatters(small: None) -> None:
    @settings(quiet, max_examples=20)
    @given(
        RANDOM, st.sampled_from(INDEX_DTYPES), st.sampled_from(MODES), st.sampled_from(sorted(METHODS)), st.booleans()
    )
    def test(number: int, dtype: str, mode: str, method: str, within: bool) -> None:
        """within: whether producers are in the kernel too."""
        random = np.random.default_rng(number)
        with jax.enable_x64(True):
            indexing = drawn(random, dtype, most=3)
            function = indexing.scatter(METHODS[method], mode)
            called = (lambda x, i, u: function(x + 1, i, u * 2)) if within else function
            updates = whole(*indexing.result, dtype="int32", seed=1)
            agrees(called, whole(*indexing.shape, dtype="int32"), indexing.indices, updates)

    test()


I5 = np.int32([3, 0, 6, 3, 2])
CASES: dict[str, tuple[Callable[..., Any], tuple[Any, ...]]] = {
    "a duplicate: the last one counts": (lambda x, i, u: x.at[i].set(u), (whole(7), I5, whole(5))),
    "rows": (lambda x, i, u: x.at[i].add(u), (whole(7, 3), I5, whole(5, 3))),
    "long rows": (lambda x, i, u: x.at[i].add(u), (whole(7, 70), I5, whole(5, 70))),
    "long rows of an odd length": (lambda x, i, u: x.at[i].set(u), (whole(7, 67), I5, whole(5, 67))),
    "columns": (lambda x, i, u: x.at[:, i].multiply(u), (whole(9, 7), I5, whole(9, 5))),
    "in batches": (
        lambda x, i, u: jax.vmap(lambda x, i, u: x.at[i].add(u))(x, i, u),
        (whole(3, 7), np.stack([I5] * 3), whole(3, 5)),
    ),
    "out of bounds and negative": (lambda x, i, u: x.at[i].min(u), (whole(4), np.int32([-1, 4, -5, 0, 9]), whole(5))),
    "no order among them": (
        lambda x, i, u: x.at[i].set(u, unique_indices=True),
        (whole(7), np.int32([3, 0, 6, 2, 1]), whole(5)),
    ),
    "rows in no order": (
        lambda x, i, u: x.at[i].set(u, unique_indices=True),
        (whole(7, 20), np.int32([3, 0, 6, 2, 1]), whole(5, 20)),
    ),
    "zeros are what it begins as": (lambda i, u: jnp.zeros((7, 3)).at[i].add(u), (I5, whole(5, 3))),
    "rows are what it begins as": (
        lambda y, i, u: (jnp.broadcast_to(y * 2, (7, 3)) + 1).at[i].add(u),
        (whole(3), I5, whole(5, 3)),
    ),
    "one number": (lambda x, i: x.at[i].add(1), (whole(7), np.int32(4))),
    "a gradient": (lambda x, i: jax.grad(lambda x: jnp.sum(x[i] * jnp.arange(5)))(x), (whole(7), I5)),
    "of several axes": (lambda x, i, u: x.at[i, :, i % 2].max(u), (whole(7, 3, 2), I5, whole(5, 3))),
    "a slice of each row": (
        lambda x, i, u: jax.vmap(lambda x, i, u: lax.dynamic_update_slice(x, u, (i,)))(x, i, u),
        (whole(5, 7), I5, whole(5, 3)),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_cases(name: str, small: None) -> None:
    function, args = CASES[name]
    agrees(function, *args)
    agrees(function, *args, grain=1)


def test_every_scatter_is_tried() -> None:
    x, i, u = np.float32([1, 2, 3]), np.int32([[1]]), np.float32([5])
    numbers = lax.ScatterDimensionNumbers((), (0,), (0,))
    tried = {graphopt.trace(lambda *a, m=m: m(*a, numbers))(x, i, u).outputs[0].op for m in METHODS.values()}
    assert tried == set(SCATTERS)


def test_what_combines_with_a_function_of_its_own_is_declined() -> None:
    x, i = np.float32([1, 2, 3]), np.int32([1])
    (node,) = graphopt.trace(lambda x, i: x.at[i].apply(jnp.sin))(x, i).outputs
    assert "a function of its own" in (declined(node) or "")
    (node,) = graphopt.trace(lambda x, i: x.at[i].add(1))(x, i).outputs
    assert declined(node) is None


def phases(function: Callable[..., Any], *args: Any, any_order: bool = True) -> list[int]:
    """How many iterations the phases have."""
    program, _ = ENGINE.program(simplified(function, *args), any_order)
    return [phase.extent for phase in program.phases]


def test_what_is_shared_among_threads() -> None:
    add = lambda x, i, u: x.at[i].add(u)
    f = lambda *shape: np.zeros(shape, np.float32)
    many = np.zeros(1 << 16, np.int32)
    assert phases(add, f(100), many, f(1 << 16)) == [scattering.PARTS, 100]
    assert phases(add, f(100), many, f(1 << 16), any_order=False) == [100, 1]
    assert phases(add, f(100_000), many, f(1 << 16)) == [100_000, 1]  # as many results would be too large
    assert phases(lambda x, i, u: x.at[i].set(u), f(100), many, f(1 << 16)) == [100, 1]
    assert phases(lambda x, i, u: x.at[i].max(u), f(100), many, f(1 << 16), any_order=False) == [scattering.PARTS, 100]
    assert phases(add, f(5000, 256), many, f(1 << 16, 256)) == [5000 * 256, 8]
    assert phases(lambda x, i, u: x.at[:, i].add(u), f(64, 5000), many, f(64, 1 << 16)) == [64 * 5000, 64]
    assert phases(lambda x, i, u: x.at[i].set(u, unique_indices=True), f(100), I5, f(5)) == [100, 5]


def test_negative_zeros_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    """In parts too: what no update goes to keeps its sign, and so does a sum of nothing but -0.0."""
    monkeypatch.setattr(scattering, "MANY", 2)
    i, u = np.zeros(64, np.int32), np.full(64, -0.0, np.float32)
    program = agrees(lambda x, i, u: x.at[i].add(u), np.float32([-0.0, -0.0]), i, u)
    assert len(program.phases) == 2 and program.phases[0].extent == scattering.PARTS


def test_the_order_of_updates_is_that_of_the_evaluator() -> None:
    """Sums of numbers that round differently in another order."""
    random = np.random.default_rng(int(os.environ.get("GRAPHOPT_TEST_SEED", "0")))
    i, u = random.integers(0, 3, 200), random.normal(size=200).astype(np.float32)
    graph = simplified(lambda x, i, u: x.at[i].add(u), np.zeros(3, np.float32), i, u)
    program, _ = ENGINE.program(graph, False)
    expected = np.zeros(3, np.float32)
    for place, update in zip(i, u, strict=True):
        expected[place] += update
    np.testing.assert_array_equal(interpret(program, np.zeros(3, np.float32), i.astype(np.int32), u)[0], expected)
