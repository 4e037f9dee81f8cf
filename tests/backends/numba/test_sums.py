"""Sums of products in kernels: what is rounded once, and what has the same bits wherever it is computed."""

import os
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import graphopt

SEED = int(os.environ["GRAPHOPT_TEST_SEED"])


def drawn(*shape: int) -> Any:
    return np.random.default_rng(SEED).normal(size=shape).astype(np.float32)


def source(function: Any, *args: Any, **options: Any) -> str:
    return "\n".join(str(k.source) for k in graphopt.jit(function, backend="numba", **options).explain(*args).kernels)


def distances(x: Any) -> Any:
    apart = x[:, None] - x
    return jnp.sqrt((apart * apart).sum(-1)).sum(1)


def weighted(x: Any, y: Any) -> Any:
    return (jnp.exp(x) * y).sum(1)


def test_a_product_that_only_goes_into_the_sum_of_a_loop() -> None:
    x, y = drawn(30, 500), drawn(500)
    assert source(weighted, x, y).count("mul_to_add") == 1
    expected = np.sum(np.exp(x.astype(np.float64)) * y, 1)
    np.testing.assert_allclose(graphopt.jit(weighted, backend="numba")(x, y), expected, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("name", ["used twice", "exact", "written out", "integers"])
def test_other_products_are_rounded(name: str) -> None:
    def twice(x: Any, y: Any) -> Any:
        product = jnp.exp(x) * y
        return product.sum(1), product.max(1)

    of: dict[str, Any] = {
        "used twice": source(twice, drawn(30, 500), drawn(500)),
        "exact": source(weighted, drawn(30, 500), drawn(500), numerics="exact"),
        "written out": source(distances, drawn(300, 3)),
        "integers": source(lambda x, y: (x * y + 1).sum(1), np.ones((30, 500), np.int32), np.ones(500, np.int32)),
    }
    assert "def kernel" in of[name] and "mul_to_add" not in of[name]


def test_scores_are_the_same_bits_in_two_kernels() -> None:
    """The derivative of a maximum compares each score with it, which another kernel has found."""

    def function(x: Any, *weights: Any) -> Any:
        query, key = (x @ w for w in weights)
        weights = jax.nn.softmax(query @ key.T * 0.3 + jnp.sin(jnp.arange(64.0)))
        return weights.max(-1).sum()

    args = drawn(64, 4), drawn(4, 4), drawn(2, 4, 4)[1]
    gradient = jax.grad(function, (0, 1, 2))
    found = graphopt.jit(gradient, backend="numba")(*args)
    for a, b in zip(found, jax.jit(gradient)(*args), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
