"""Comparing results and timing calls."""

import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from graphopt.demo.compare import Difference, Pair, difference

NAN, INF = np.nan, np.inf


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16", "int8", "uint32", "bool", "complex64"])
def test_equal_results_have_no_difference(dtype: str) -> None:
    values = jnp.array([0, 1, 1, 0, 1], dtype)
    for same in (values, values[:0], values[0], {"a": [values], "b": None}, ()):
        assert difference(same, same) == Difference(0.0, True)


@pytest.mark.parametrize(
    ("ours", "theirs", "largest"),
    [
        ([1.0, 2.5, -3.0], [1.0, 2.0, -4.0], 1.0),
        ([0.0, 1.0], [-0.0, 1.0], 0.0),
        ([NAN, INF, 1.0], [NAN, INF, 1.25], 0.25),
        ([NAN], [1.0], INF),
        ([1.0], [NAN], INF),
        ([INF], [1.0], INF),
        ([INF], [-INF], INF),
        ([INF], [NAN], INF),
        ([True, False], [True, True], 1.0),
        ([3 + 4j], [0j], 5.0),
        ([complex(NAN, 1)], [complex(1, 1)], INF),
        ([2**31 - 1, 0], [-(2**31), 0], 2.0**32 - 1),
    ],
)
def test_the_largest_difference(ours: list[Any], theirs: list[Any], largest: float) -> None:
    a, b = jnp.array(ours), jnp.array(theirs)
    assert difference((a, jnp.ones(2)), (b, jnp.ones(2))) == Difference(largest, False)


def test_bfloat16_differs_by_its_numbers() -> None:
    a, b = jnp.array([1, 2], jnp.bfloat16), jnp.array([1, 2.5], jnp.bfloat16)
    assert difference(a, b) == Difference(0.5, False)


def test_random_keys_are_compared_by_their_words() -> None:
    assert difference(jax.random.key(5), jax.random.key(5)) == Difference(0.0, True)
    assert difference(jax.random.key(5), jax.random.key(6)) == Difference(1.0, False)


@pytest.mark.parametrize(
    ("ours", "theirs", "message"),
    [
        ((jnp.ones(2),), [jnp.ones(2)], "structures"),
        (jnp.ones(2), jnp.ones(3), r"float32\(2,\) and float32\(3,\)"),
        (jnp.ones(2), jnp.ones(2, int), r"float32\(2,\) and int32\(2,\)"),
        (jnp.ones(()), jnp.ones((1,)), r"float32\(\) and float32\(1,\)"),
    ],
)
def test_results_of_other_types_are_refused(ours: object, theirs: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        difference(ours, theirs)


def slow(function: Any, seconds: float) -> Any:
    def call(*args: Any) -> Any:
        time.sleep(seconds)
        return function(*args)

    return call


def test_times_are_those_of_the_calls() -> None:
    pair = Pair(jnp.sin, slow(jnp.sin, 0.001), slow(jnp.sin, 0.02))
    args = (jnp.ones(3),)
    for times in (pair.first_calls(args), pair.later_calls(args, seconds=0.05)):
        # A lower bound holds on any machine, however busy.
        assert times.ours >= 0.001
        assert times.theirs >= 0.02


def test_later_calls_take_turns() -> None:
    calls: list[str] = []

    def record(name: str) -> Any:
        def call(x: jax.Array) -> jax.Array:
            calls.append(name)
            return x

        return call

    Pair(jnp.sin, record("ours"), record("theirs")).later_calls((jnp.ones(3),), seconds=0.0)
    assert len(calls) == 2 * (1 + 5)
    assert all(set(turn) == {"ours", "theirs"} for turn in zip(calls[::2], calls[1::2], strict=True))
    assert {calls[2], calls[4]} == {"ours", "theirs"}


def test_the_pair_compares_the_results_of_both() -> None:
    pair = Pair(jnp.sin, jax.jit(jnp.sin), jax.jit(lambda x: jnp.sin(x) + 0.5))
    found = pair.difference((jnp.zeros(3),))
    assert found == Difference(0.5, False)
