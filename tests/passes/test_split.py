"""Loops with many operations are split over blocks: programs before and after as text, and interpreted."""

import os
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st
from jax import lax

import graphopt
from graphopt.backends.interpret import interpret
from graphopt.backends.numba.costs import scalar_cost
from graphopt.backends.numba.engine import NumbaEngine
from graphopt.ir.loop import For, LoopProgram
from graphopt.passes import split
from graphopt.passes.peel import Peel
from graphopt.passes.split import Split

from .loop_programs import check_files, check_text, program_by

SEED = int(os.environ.get("GRAPHOPT_TEST_SEED", "0"))
WHOLE = NumbaEngine(split=Split(scalar_cost, most=0), peel=Peel(least=1 << 60))
EAGER = Split(lambda op, dtype: 1.0, long=2.0, chain=0.0, short=1.0)
"""Each operation has a loop for itself."""

X = np.linspace(-2, 2, 41, dtype=np.float32)


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of a few elements."""
    monkeypatch.setattr(split, "WIDTH", 8)
    monkeypatch.setattr(split, "BLOCKS", 2)


def whole(function: Callable[..., Any], *args: Any) -> LoopProgram:
    return program_by(WHOLE, function, *args)


def same_bits(before: LoopProgram, after: LoopProgram, *args: Any) -> None:
    for grain in (None, 1):
        results = zip(interpret(after, *args, grain=grain), interpret(before, *args), strict=True)
        for found, expected in results:
            np.testing.assert_array_equal(found, expected, strict=True)


def three_functions(x: Any, y: Any) -> Any:
    return lax.erfc(lax.erfc(lax.erfc(x) * y) * y) - x


def several_results(x: Any, y: Any) -> Any:
    a = lax.erfc(x)
    return a, x > y, lax.erfc(a * y) + lax.erfc(lax.tanh(x))


CASES: dict[str, Callable[..., Any]] = {"three functions": three_functions, "several results": several_results}


@pytest.mark.parametrize("name", CASES)
def test_the_text_before_and_after(name: str, short: None) -> None:
    before = whole(CASES[name], X, X[::-1])
    after, said = Split(scalar_cost).run(before)
    same_bits(before, after, X, X[::-1])
    check_text("split", name, before, after, said)


def test_no_text_is_left_over() -> None:
    check_files("split", CASES)


LEFT: dict[str, tuple[Callable[..., Any], tuple[Any, ...]]] = {
    "little": (lambda x: lax.exp(x) + lax.tanh(x), (X,)),
    "what does not need each other": (lambda x: lax.erfc(x) + lax.erfc(x + 1) + lax.erfc(x + 2), (X,)),
    "short": (three_functions, (X[:15], X[:15])),
    "loops inside": (lambda x: lax.erfc(lax.erfc(x - x.sum(1, keepdims=True))), (X[:36].reshape(12, 3, 1),)),
    "conditions": (lambda x: lax.erfc(jnp.pad(x, (2, 3)) * lax.erfc(jnp.pad(lax.tanh(x), (0, 5)))), (X,)),
    "places found by division": (
        lambda x, y: lax.erfc(x * lax.erfc(y)[:, None] * lax.erfc(x + 1)),
        (X[:39].reshape(13, 3), X[:13]),
    ),
}


@pytest.mark.parametrize("name", LEFT)
def test_what_stays_whole(name: str, short: None) -> None:
    function, args = LEFT[name]
    before = whole(function, *args)
    after, said = Split(scalar_cost).run(before)
    if name == "places found by division" and said:  # where the derivation finds rows without one
        same_bits(before, after, *args)
    else:
        assert (after, said) == (before, ())


def test_tiles_are_bounded(short: None) -> None:
    before = whole(three_functions, X, X)
    assert Split(scalar_cost, most=2 * 8 * 4 - 1).run(before) == (before, ())
    after, said = Split(scalar_cost, most=2 * 8 * 4).run(before)
    assert said and sum(buffer.role == "tile" for buffer in after.buffers) == 2
    assert Split(scalar_cost).run(after) == (after, ())


def test_a_tile_is_used_again_when_its_value_is_no_longer_needed(short: None) -> None:
    def chain(x: Any) -> Any:
        y = x
        for _ in range(20):
            y = lax.erfc(y) * x
        return y

    before = whole(chain, X)
    after, _ = EAGER.run(before)
    assert after.phases[0].body and sum(buffer.role == "tile" for buffer in after.buffers) == 2
    same_bits(before, after, X)


STEPS: tuple[Callable[[Any, Any], Any], ...] = (
    lambda x, y: x * y,
    lambda x, y: x - y,
    lambda x, y: jnp.where(x > y, x, -y),
    lambda x, y: x[::-1] + y,
    lambda x, y: (x > y).astype(np.int32) + lax.iota(np.int32, x.size),
    lambda x, y: jnp.maximum(x, y[0]),
)


@seed(SEED)
@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck), derandomize=False)
@given(
    st.lists(st.tuples(st.sampled_from(range(len(STEPS))), st.integers(0, 3), st.integers(0, 3)), max_size=16),
    st.sampled_from([16, 17, 31, 40]),
    st.sampled_from([1.0, 2.0, 4.0]),
)
def test_split_programs_compute_the_same_bits(steps: list[tuple[int, int, int]], size: int, part: float) -> None:
    def function(x: Any, y: Any) -> Any:
        known = [x, y]
        for step, i, j in steps:
            known.append(STEPS[step](known[-1 - i % len(known)], known[-1 - j % len(known)]))
        return known[-1], known[-2]

    args = [np.random.default_rng(k).integers(-9, 10, size).astype(np.int32) for k in range(2)]
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(split, "WIDTH", 8)
        monkeypatch.setattr(split, "BLOCKS", 2)
        before = whole(function, *args)
        after, _ = Split(lambda op, dtype: 1.0, long=2.0, chain=0.0, short=part).run(before)
        same_bits(before, after, *args)


def waves(x: Any, y: Any) -> Any:
    return lax.erfc(lax.erfc(x) * y) + lax.erfc(x - y) * lax.log(abs(y)) / lax.sqrt(abs(x))


def test_the_loops_are_vectorized_and_the_report_names_them() -> None:
    args = [np.linspace(-3, 3, 5003, dtype=np.float32), np.linspace(9, -1, 5003, dtype=np.float32)]
    report = graphopt.jit(waves, backend="numba").explain(*args)
    assert any("split: " in str(note) for note in report.notes), report.notes
    (kernel,) = report.kernels
    loops = kernel.inner_loops()
    assert len(loops) > 1 and all(loop.lanes > 1 for loop in loops), loops


@pytest.mark.parametrize("size", [4096, 4099, 5003])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_kernels_agree_with_jax(size: int, dtype: str) -> None:
    with jax.enable_x64(dtype == "float64"):
        random = np.random.default_rng(SEED)
        x, y = (random.normal(size=size).astype(dtype) for _ in range(2))
        for k, value in enumerate((np.nan, np.inf, -np.inf, 0.0, -0.0, 1e-40, 30.0)):
            x[k], y[-1 - k] = value, value
        found, expected = (np.asarray(f(x, y)) for f in (graphopt.jit(waves, backend="numba"), jax.jit(waves)))
        tolerance = 1e-5 if dtype == "float32" else 1e-13
        np.testing.assert_allclose(found, expected, rtol=tolerance, atol=tolerance)  # a logarithm may be near zero


def test_an_operand_that_dies_is_written_over() -> None:
    """What later loops of a block read again is still there."""
    function = graphopt.jit(lambda x, y: lax.erfc(waves(x, y)) + x, backend="numba")
    x, y = (np.linspace(a, a + 5, 5000, dtype=np.float32) for a in (-2, -1))
    given = jnp.asarray(x) + 0
    donating = graphopt.jit(lambda x, y: lax.erfc(waves(x, y)) + x, backend="numba", donate_argnums=0)
    np.testing.assert_array_equal(donating(given, y), function(x, y))


def test_no_loops_but_those_over_blocks(short: None) -> None:
    after, _ = EAGER.run(whole(three_functions, X, X))
    (phase,) = after.phases
    assert all(isinstance(s, For) and s.extent == 8 for s in phase.body.statements)
    assert phase.extent == 6 and len(phase.body.statements) > 3
