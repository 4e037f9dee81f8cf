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


@pytest.mark.parametrize("numerics", ["exact", "standard", "fast"])
def test_zeros_that_a_program_gives_one_sign_have_it(numerics: str) -> None:
    x, bins = np.array([0, -0.0, 1], np.float32), np.array([0, -0.0, -0.0, -0.0, 0, -0.0], np.float32)
    assert not np.signbit(graphopt.jit(lambda x: jnp.where(x == 0, 0.0, x), numerics=numerics)(x)).any()
    search = lambda bins, x: jnp.searchsorted(bins, x, side="right")
    np.testing.assert_array_equal(graphopt.jit(search, numerics=numerics)(bins, x), [6, 6, 6])
