"""What the tests of the interface share: comparing pytrees, and the three ways to write an optimized function."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import pytest

from graphopt.api import jit, optimize

WAYS: dict[str, Callable[..., Any]] = {
    "jit": jit,
    "optimize": optimize,
    "jit of optimize": lambda f: jax.jit(optimize(f)),
}

each_way = pytest.mark.parametrize("way", WAYS.values(), ids=WAYS.keys())
jit_and_optimize = pytest.mark.parametrize(
    "way", [jit, optimize], ids=["jit", "optimize"]
)  # where there are many cases


def close(found: Any, expected: Any, rtol: float = 2e-5, atol: float = 1e-6) -> None:
    """Both pytrees have the same structure, types and weak types, and nearly the same numbers."""
    found_leaves, found_tree = jax.tree.flatten(found)
    expected_leaves, expected_tree = jax.tree.flatten(expected)
    assert found_tree == expected_tree  # type: ignore[operator]
    for a, b in zip(found_leaves, expected_leaves, strict=True):
        assert jax.typeof(a) == jax.typeof(b)
        assert getattr(a, "weak_type", False) == getattr(b, "weak_type", False)
        if jax.dtypes.issubdtype(a.dtype, jax.dtypes.prng_key):
            a, b = jax.random.key_data(a), jax.random.key_data(b)
        exact = np.dtype(a.dtype).kind in "biuV" and a.dtype != jax.numpy.bfloat16
        if exact:
            np.testing.assert_array_equal(np.asarray(a), np.asarray(b))
        else:
            np.testing.assert_allclose(
                np.asarray(a, dtype=np.complex128), np.asarray(b, dtype=np.complex128), rtol=rtol, atol=atol
            )
