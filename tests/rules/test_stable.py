"""Forms that people write and that overflow: under "fast" numerics they are computed as in float64, derivatives too."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from graphopt.api import jit

RANDOM = np.random.default_rng(0)


def logsumexp(x: Any) -> Any:
    return jnp.log(jnp.exp(x).sum(-1))


def log_mean_exp_of_columns(x: Any) -> Any:
    return jnp.log(jnp.mean(jnp.exp(x), 0, keepdims=True))


def logsumexp_of_all(x: Any) -> Any:
    return jnp.log(jnp.sum(jnp.exp(x)))


def softmax(x: Any) -> Any:
    return jnp.exp(x) / jnp.exp(x).sum(-1, keepdims=True)


def log_of_softmax(x: Any) -> Any:
    return jnp.log(softmax(x))


def log_softmax(x: Any) -> Any:
    return x - jnp.log(jnp.exp(x).sum(-1, keepdims=True))


def cross_entropy(x: Any) -> Any:
    return -(log_softmax(x)[:, 1]).mean()


def attention(x: Any) -> Any:
    weights = jnp.exp(x)
    return (weights @ jnp.sin(jnp.arange(15.0, dtype=x.dtype)).reshape(5, 3)) / weights.sum(1)[:, None]


def softplus(x: Any) -> Any:
    return jnp.log(1 + jnp.exp(x))


def softplus_by_log1p(x: Any) -> Any:
    return jnp.log1p(jnp.exp(x))


def log_sigmoid(x: Any) -> Any:
    return jnp.log(1 / (1 + jnp.exp(-x)))


def log_of_one_less_sigmoid(x: Any) -> Any:
    return jnp.log(1 - jax.nn.sigmoid(x))


def log_of_softmax_of_jax(x: Any) -> Any:
    return jnp.log(jax.nn.softmax(x))


MASK = np.arange(20).reshape(4, 5) % 3 > 0


def masked_logsumexp(x: Any) -> Any:
    return jnp.log(jnp.where(MASK, jnp.exp(x), 0).sum(-1))


def masked_softmax(x: Any) -> Any:
    weights = jnp.exp(x) * MASK
    return weights / weights.sum(-1, keepdims=True)


def entropy(x: Any) -> Any:
    shares = jax.nn.softmax(x)
    return -(shares * jnp.log(shares)).sum(-1)


VALUES: dict[Callable[..., Any], Callable[..., Any]] = {
    logsumexp: lambda x: jax.nn.logsumexp(x, -1),
    log_mean_exp_of_columns: lambda x: jax.nn.logsumexp(x, 0, keepdims=True) - jnp.log(x.shape[0]),
    logsumexp_of_all: jax.nn.logsumexp,
    softmax: jax.nn.softmax,
    log_of_softmax: jax.nn.log_softmax,
    log_of_softmax_of_jax: jax.nn.log_softmax,
    masked_logsumexp: lambda x: jax.nn.logsumexp(x, -1, where=MASK),
    masked_softmax: lambda x: jax.nn.softmax(x, -1, where=MASK),
    entropy: lambda x: -(jax.nn.softmax(x) * jax.nn.log_softmax(x)).sum(-1),
    log_softmax: jax.nn.log_softmax,
    cross_entropy: lambda x: -jax.nn.log_softmax(x)[:, 1].mean(),
    attention: lambda x: jax.nn.softmax(x) @ jnp.sin(jnp.arange(15.0)).reshape(5, 3),
    softplus: jax.nn.softplus,
    softplus_by_log1p: jax.nn.softplus,
    log_sigmoid: jax.nn.log_sigmoid,
    log_of_one_less_sigmoid: lambda x: jax.nn.log_sigmoid(-x),
}
"""What each computes, in a form that does not overflow."""

WITHOUT_DERIVATIVES = (log_of_one_less_sigmoid, masked_logsumexp, masked_softmax)
"""Derivatives read the exponentials of what a mask leaves out as well: these are not shifted."""

ARGUMENTS = {
    "small": RANDOM.normal(size=(4, 5)),
    "large": RANDOM.normal(size=(4, 5)) * 10 + 200,
    "very negative": RANDOM.normal(size=(4, 5)) * 10 - 300,
}


def close(found: Any, expected: Any) -> None:
    scale = max(1.0, float(np.abs(expected).max()))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=3e-6 * scale)


def in_float64(function: Callable[..., Any], x: Any) -> Any:
    with jax.enable_x64(True):
        return jax.tree.map(np.asarray, function(np.asarray(x, np.float64)))


@pytest.mark.parametrize("kind", ARGUMENTS)
@pytest.mark.parametrize("function", VALUES, ids=lambda f: str(f.__name__))
def test_value(function: Callable[..., Any], kind: str) -> None:
    x = ARGUMENTS[kind].astype(np.float32)
    found = jit(function, numerics="fast")(x)
    assert np.isfinite(found).all()
    close(found, in_float64(VALUES[function], x))


@pytest.mark.parametrize("kind", ARGUMENTS)
@pytest.mark.parametrize("function", [f for f in VALUES if f not in WITHOUT_DERIVATIVES], ids=lambda f: str(f.__name__))
def test_value_and_gradient(function: Callable[..., Any], kind: str) -> None:
    x = ARGUMENTS[kind].astype(np.float32)

    def total(f: Callable[..., Any]) -> Callable[..., Any]:
        return jax.value_and_grad(lambda x: (f(x) * jnp.cos(jnp.arange(f(x).size).reshape(f(x).shape))).sum())

    value, gradient = jit(total(function), numerics="fast")(x)
    expected, expected_gradient = in_float64(total(VALUES[function]), x)
    close(value, expected)
    close(gradient, expected_gradient)


def test_rows_of_infinities() -> None:
    x = np.array([[-np.inf, -np.inf], [np.inf, 1], [np.nan, 1], [-np.inf, 1]], np.float32)
    for function in (logsumexp, softmax, log_softmax):
        np.testing.assert_array_equal(jit(function, numerics="fast")(x), jax.jit(function)(x))


def test_standard_numerics_leave_them() -> None:
    x = ARGUMENTS["large"].astype(np.float32)
    assert np.isinf(jit(logsumexp)(x)).all()
