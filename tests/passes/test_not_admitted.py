"""Rules that the numerics do not admit: the report names those that would save much, and what would admit them."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import graphopt

INDICES, W = np.arange(2000) % 500, np.ones((500, 64), np.float32)


def rows(i: Any, w: Any) -> Any:
    return jax.nn.one_hot(i, 500) @ w


def said(numerics: str, function: Any = rows, *args: Any) -> list[str]:
    notes = graphopt.jit(function, numerics=numerics).explain(*(args or (INDICES, W))).notes
    return [note for note in notes if "needs numerics" in note]


@pytest.mark.parametrize("numerics", ["exact", "standard"])
def test_a_product_with_one_hot_rows(numerics: str) -> None:
    (note,) = said(numerics)
    assert note == "simplify: stays: product with one hot rows, which is 'nonfinite': needs numerics='fast'"


def test_what_is_admitted_is_done_and_not_said() -> None:
    assert said("fast") == []


def test_several_times() -> None:
    (note,) = said("standard", lambda i, w: (rows(i, w), rows(i + 1, w)))
    assert note.startswith("simplify: stays (2 times): ")


def test_nothing_is_said_of_what_saves_little() -> None:
    assert said("standard", rows, INDICES[:5], W[:, :3]) == []
    layers = lambda x: jax.nn.relu(jnp.tanh(x @ x) @ x * 2 - x) @ x
    assert said("standard", layers, np.ones((300, 300), np.float32)) == []


def test_products_with_a_common_factor() -> None:
    (note,) = said("standard", lambda x, y, z: x @ y - x @ z, *np.ones((3, 300, 300), np.float32))
    assert note == "simplify: stays: sum of products, which is 'nonfinite': needs numerics='fast'"


OVERFLOWING: dict[str, tuple[Any, str]] = {
    "log of a sum": (lambda x: jnp.log(jnp.exp(x).sum(-1)), "shares of exponentials, which is 'approximate'"),
    "shares": (
        lambda x: jnp.exp(x) / jnp.exp(x).sum(-1, keepdims=True),
        "shares of exponentials, which is 'approximate'",
    ),
    "log of logistic": (
        lambda x: jnp.log(jax.nn.sigmoid(x)),
        "logarithm of the logistic function, which is 'nonfinite'",
    ),
    "soft maximum": (lambda x: jnp.log(1 + jnp.exp(x)), "soft maximum with zero, which is 'nonfinite'"),
    "variance": (
        lambda x: (x**2).mean(-1) - x.mean(-1) ** 2,
        "mean square less squared mean, which is 'nonfinite'",
    ),
}
STABLE: dict[str, Any] = {
    "logsumexp": lambda x: jax.nn.logsumexp(x, axis=-1),
    "softmax": lambda x: jax.nn.softmax(x) @ x.T,
    "log_softmax": jax.nn.log_softmax,
    "softplus and variance": lambda x: jax.nn.softplus(x).sum() + jnp.var(x),
    "gradient": jax.grad(lambda x: jax.nn.logsumexp(x, axis=-1).sum() + jax.nn.silu(x).sum()),
}


@pytest.mark.parametrize("numerics", ["exact", "standard"])
@pytest.mark.parametrize("form", OVERFLOWING)
def test_what_overflows_or_cancels_is_said_however_small(form: str, numerics: str) -> None:
    function, expected = OVERFLOWING[form]
    x = np.ones((3, 5), np.float32)
    assert said(numerics, function, x) == [f"simplify: stays: {expected}: needs numerics='fast'"]
    assert said("fast", function, x) == []


@pytest.mark.parametrize("form", STABLE)
def test_nothing_is_said_of_what_is_stable(form: str) -> None:
    assert said("standard", STABLE[form], np.ones((3, 5), np.float32)) == []


def test_products_and_scales_under_exact_numerics() -> None:
    square, vector = jnp.ones((99, 99)), jnp.ones(99)
    order = lambda a, b, v: a @ b @ v
    notes = graphopt.jit(order, numerics="exact").explain(square, square, vector).notes
    assert notes == ("contract: ij,jk,k->i stays: another order is 'reassociate' at best",)
    notes = graphopt.jit(order, numerics="exact").explain(square, vector, square).notes
    assert not any(note.startswith("contract") for note in notes)  # it is in the best order
    weights = jnp.asarray(np.random.default_rng(0).uniform(1, 2, (99, 64)), jnp.float32)
    scales = weights[0]
    scaled = lambda x: (x @ weights - 1) / scales
    (note,) = said("exact", scaled, square[:50])
    assert note.startswith("affine: scales of 1 products or convolutions stay: ")
    assert said("standard", scaled, square[:50]) == []


@pytest.mark.parametrize("numerics", ["exact", "standard", "fast"])
def test_zeros_that_a_program_gives_one_sign_have_it(numerics: str) -> None:
    x, bins = np.array([0, -0.0, 1], np.float32), np.array([0, -0.0, -0.0, -0.0, 0, -0.0], np.float32)
    assert not np.signbit(graphopt.jit(lambda x: jnp.where(x == 0, 0.0, x), numerics=numerics)(x)).any()
    search = lambda bins, x: jnp.searchsorted(bins, x, side="right")
    np.testing.assert_array_equal(graphopt.jit(search, numerics=numerics)(bins, x), [6, 6, 6])
