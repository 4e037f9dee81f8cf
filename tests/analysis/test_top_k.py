"""Sorts and top_k as loop programs: interpreted, they compute what the graph does."""

import os
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from graphopt.analysis import top_k

from ..rules.drawing import values
from .test_derive import agrees, whole

SEED = int(os.environ.get("GRAPHOPT_TEST_SEED", "0"))
SPECIAL = np.array([1, np.nan, -0.0, 0.0, np.inf, -np.inf, 0.0, -0.0, 3, 1, np.nan], np.float32)


def special(dtype: str, *shape: int) -> Any:
    """Numbers of a dtype, among them NaNs, infinities, both zeros and the least and greatest; many of them twice."""
    few = values(np.random.default_rng(SEED), dtype, (7,), True)
    return np.random.default_rng(SEED).choice(few, shape)


@pytest.mark.parametrize("dtype", ["bool", "int8", "uint8", "int32", "uint32", "float32", "int64", "uint64", "float64"])
def test_dtypes(dtype: str) -> None:
    with jax.enable_x64(True):
        x = special(dtype, 3, 13)
        agrees(lambda x: lax.top_k(x, 5), x)
        agrees(lambda x: lax.sort([x, jnp.arange(13) + jnp.zeros((3, 1), "int32")], num_keys=1), x)
        agrees(lambda x: lax.sort(x, dimension=0), x)


@pytest.mark.parametrize("k", [1, 2, 11])
def test_special_values(k: int) -> None:
    agrees(lambda x: lax.top_k(x, k), SPECIAL)
    agrees(lambda x: lax.top_k(x + 1, k), SPECIAL)


def test_axes_and_producers() -> None:
    x = whole(5, 3, 7)
    for axis, k in ((0, 4), (1, 2), (2, 7)):
        agrees(lambda x, axis=axis, k=k: lax.top_k(x * 2 + 1, k, axis=axis), x)
    agrees(lambda x: lax.top_k(jnp.sum(x, 2), 2), x)


def test_shares_of_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(top_k, "SHARES", 3)
    for rows in (1, 3, 5, 7):
        program = agrees(lambda x: lax.top_k(x, 2), whole(rows, 9))
        assert program.phases[0].extent == min(rows, 3)
        assert max(b.size for b in program.buffers if b.role == "scratch") == min(rows, 3) * 9
