"""The least calls have results of a function's shapes and types, new ones each time, and compute nothing else."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from graphopt.bench.least import JAX, NUMPY, computing, least

X = np.linspace(-1, 1, 12, dtype=np.float32).reshape(3, 4)

CASES: dict[str, tuple[Callable[..., Any], tuple[Any, ...]]] = {
    "elements": (lambda x, y: x + y, (X, X)),
    "of another type": (lambda x: x > 0, (X,)),
    "integers": (lambda x: x ^ 1, (np.arange(5, dtype=np.int32),)),
    "complex": (lambda x: x * 1j, (X,)),
    "a number": (lambda x: x.sum(), (X,)),
    "an operand that is not needed": (lambda x, i: x[:2], (X, np.int32(1))),
    "a tree": (lambda tree: {"a": tree[0].T, "b": (tree[1],)}, ((X, X[0]),)),
}


@pytest.mark.parametrize("name", CASES)
def test_the_results_are_of_the_same_shapes_and_types(name: str) -> None:
    function, args = CASES[name]
    args = jax.tree.map(jnp.asarray, args)
    expected = jax.eval_shape(function, *args)
    calls = least(function, args)
    assert list(calls) == [JAX, NUMPY]
    for call, number in zip(calls.values(), (1, 0), strict=True):
        found = call(*args)
        assert jax.tree.structure(found) == jax.tree.structure(expected)
        for leaf, other in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
            assert (leaf.shape, leaf.dtype) == (other.shape, other.dtype)
            np.testing.assert_array_equal(leaf, np.full(leaf.shape, number, leaf.dtype))


def test_large_results_are_written_by_a_kernel_and_all_operands_are_passed() -> None:
    x = jnp.ones(100_000)
    call: Any = least(lambda x, y: x, (x, jnp.ones(3)))[JAX]
    assert len(call.explain(x, jnp.ones(3)).kernels) == 1
    assert len(call.lower(x, jnp.ones(3)).compile().input_shardings[0]) == 2


def test_without_operands_there_are_none() -> None:
    assert least(lambda: jnp.ones(3), ()) == {}
    assert least(lambda x: x, (jnp.ones((0, 3)),)) == {}


def test_computing_is_what_comes_on_top() -> None:
    assert computing({"graphopt": 9.0, "jax": 50.0, JAX: 7.0, "numpy": 6.0, NUMPY: 1.0}) == (2.0, 5.0)
    assert computing({"graphopt": 9.0, "numpy": 6.0}) is None
