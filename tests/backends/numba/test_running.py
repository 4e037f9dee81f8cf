"""Cumulative log-sum-exps and extrema in kernels: against NumPy in a wider dtype, with what is special, cut in parts."""

from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import graphopt
from graphopt.analysis import parts
from graphopt.analysis.running import running as kept_by
from graphopt.trace.jaxpr import trace_function

SPECIAL = (-np.inf, np.inf, np.nan, 0.0, -0.0, 1e4, -1e4, 3e-39)


def drawn(shape: tuple[int, ...], special: bool, dtype: str = "float32") -> Any:
    random = np.random.default_rng(sum(shape))
    x = (5 * random.standard_normal(shape)).astype(dtype)
    if special:
        where = random.integers(0, 8, shape)
        x = np.where(where == 0, random.choice(np.array(SPECIAL, dtype), shape), x)
    return x


def in_kernel(function: Any, *args: Any) -> Any:
    jitted = graphopt.jit(function, backend="numba")
    assert jitted.explain(*args).kernels
    return np.asarray(jitted(*args))


def logarithms_of_sums(x: Any, axis: int, reverse: bool) -> Any:
    wide = np.asarray(x, np.float64)
    with np.errstate(all="ignore"):
        found = np.logaddexp.accumulate(np.flip(wide, axis) if reverse else wide, axis)
    return np.flip(found, axis) if reverse else found


@pytest.mark.parametrize("special", [False, True])
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize(("shape", "axis"), [((7, 61), 1), ((33, 20), 0), ((2, 3, 40), 1), ((1,), 0), ((300,), 0)])
def test_log_sum_exp(
    shape: tuple[int, ...], axis: int, reverse: bool, special: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parts, "LONG", 200)
    x = drawn(shape, special)
    found = in_kernel(lambda x: lax.cumlogsumexp(x, axis, reverse=reverse), x)
    np.testing.assert_allclose(found, logarithms_of_sums(x, axis, reverse), rtol=2e-6, atol=1e-5)


def test_log_sum_exp_of_halves_is_rounded_once() -> None:
    x = drawn((5, 40), True, "float16")
    found = in_kernel(lambda x: lax.cumlogsumexp(x, 1), x)
    np.testing.assert_allclose(found, logarithms_of_sums(x, 1, False).astype(np.float16), rtol=1e-3, atol=1e-3)


def test_no_exponential_of_a_log_sum_exp_overflows() -> None:
    x = np.array([[1e30, -1e30, 1e30, 3e38], [-3e38, -3e38, -1e38, 0]], np.float32)
    found = in_kernel(lambda x: lax.cumlogsumexp(x, 1), x)
    np.testing.assert_allclose(found, logarithms_of_sums(x, 1, False), rtol=1e-6)


@pytest.mark.parametrize("dtype", ["float16", "float32", "bfloat16"])
@pytest.mark.parametrize("shape", [(3, 5), (2, 64), (1, 259), (9, 100)])
def test_extrema(shape: tuple[int, ...], dtype: str) -> None:
    """A NaN is greater, and less, than all; -0.0 is less than 0.0."""
    x = np.asarray(jnp.asarray(drawn(shape, True), dtype))
    wide = x.astype(np.float32)
    zeros = np.where(drawn(shape, False) > 0, np.float32(0), np.float32(-0.0))
    for of, cumulative, reduced in ((np.maximum, lax.cummax, lax.reduce_max), (np.minimum, lax.cummin, lax.reduce_min)):
        running, most = (
            in_kernel(lambda x, f=cumulative: f(x, axis=1), x),
            in_kernel(lambda x, f=reduced: f(x, (1,)), x),
        )
        assert running.dtype == most.dtype == x.dtype
        np.testing.assert_array_equal(running.astype(np.float32), of.accumulate(wide, 1))
        np.testing.assert_array_equal(most.astype(np.float32), of.reduce(wide, 1))
        negative = np.signbit(zeros).any(1) if of is np.minimum else np.signbit(zeros).all(1)
        np.testing.assert_array_equal(np.signbit(in_kernel(lambda x, f=reduced: f(x, (1,)), zeros)), negative)


def test_extrema_are_of_integers() -> None:
    """What waits for the one before is one instruction."""
    (node,) = (n for n in trace_function(lax.cummax, drawn((4,), False))[0].nodes if n.op.name == "cummax")
    assert kept_by(node).dtypes == (np.dtype(np.int32),)


@pytest.mark.parametrize(("shape", "axis"), [((200_003,), 0), ((3, 5_001), 1), ((65,), 0), ((129, 2), 0)])
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_roundings_of_long_sums_do_not_add_up(shape: tuple[int, ...], axis: int, reverse: bool, dtype: str) -> None:
    x = np.random.default_rng(3).random(shape).astype(jnp.dtype(dtype))
    found = in_kernel(lambda x: lax.cumsum(x, axis, reverse=reverse), x).astype(np.float64)
    wide = np.flip(x, axis) if reverse else x
    expected = np.cumsum(wide.astype(np.float64), axis)
    expected = np.flip(expected, axis) if reverse else expected
    np.testing.assert_allclose(found, expected, rtol=2.5 * float(jnp.finfo(x.dtype).eps))


def test_infinities_and_nans_stay_in_long_sums() -> None:
    x = np.ones(1000, np.float32)
    x[[300, 500, 700]] = np.inf, -np.inf, np.nan
    found = in_kernel(lax.cumsum, x)
    assert np.isfinite(found[:300]).all() and (found[300:500] == np.inf).all() and np.isnan(found[500:]).all()
