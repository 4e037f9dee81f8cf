"""Programs with one array that is much larger than all that goes in and comes out.

All queries by all keys, all points by all points: XLA makes that array, and it can be computed piece by piece.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from graphopt.bench.programs import Program, renewed


def _attention(query: jax.Array, key: jax.Array, value: jax.Array, causal: bool) -> jax.Array:
    scores = jnp.einsum("bqd,bkd->bqk", query, key) / math.sqrt(query.shape[-1])
    if causal:
        place = jnp.arange(query.shape[1])
        scores = jnp.where(place[:, None] >= place[None], scores, -jnp.inf)
    return jnp.einsum("bqk,bkd->bqd", jax.nn.softmax(scores, axis=-1), value)


def _gradient(function: Callable[..., jax.Array], count: int) -> Callable[..., Any]:
    """Of the sum of squares, by the first `count` arguments."""
    return jax.grad(lambda *args: jnp.sum(function(*args) ** 2), tuple(range(count)))


def attention(batch: int, length: int, width: int = 64, causal: bool = False, gradient: bool = False) -> Program:
    """Attention of one head for each element of a batch."""

    def function(query: jax.Array, key: jax.Array, value: jax.Array) -> jax.Array:
        return _attention(query, key, value, causal)

    def arguments() -> tuple[Any, ...]:
        keys = jax.random.split(jax.random.key(0), 3)
        return tuple(jax.random.normal(key, (batch, length, width)) for key in keys)

    kind = f"{', causal' if causal else ''}{', gradient' if gradient else ''}"
    make = renewed(_gradient(function, 3) if gradient else function)
    return Program(f"attention {batch}x{length}x{width}{kind}", make, arguments)


def _forces(x: jax.Array) -> jax.Array:
    apart = x[:, None] - x[None]
    squared = (apart * apart).sum(-1) + 1e-3
    return (apart * (squared**-1.5)[..., None]).sum(1)


def _nearest(x: jax.Array, y: jax.Array) -> jax.Array:
    return ((x[:, None] - y[None]) ** 2).sum(-1).min(1)


def _points(count: int, coordinates: int, sets: int) -> tuple[Any, ...]:
    keys = jax.random.split(jax.random.key(0), sets)
    return tuple(jax.random.normal(key, (count, coordinates)) for key in keys)


def forces(count: int, gradient: bool = False) -> Program:
    """The forces between all of `count` points in space, by the inverse square of their distance."""
    make = renewed(_gradient(_forces, 1) if gradient else _forces)
    return Program(f"forces, {count} points{', gradient' if gradient else ''}", make, lambda: _points(count, 3, 1))


def nearest(count: int, gradient: bool = False) -> Program:
    """For each of `count` points in space the distance to the nearest of as many others."""
    make = renewed(_gradient(_nearest, 2) if gradient else _nearest)
    name = f"nearest of {count} points{', gradient' if gradient else ''}"
    return Program(name, make, lambda: _points(count, 3, 2))


def distances(count: int = 1000, coordinates: int = 64) -> Program:
    """The distances of all points from each other, a large result."""

    def function(x: jax.Array) -> jax.Array:
        return jnp.sqrt(((x[:, None] - x[None]) ** 2).sum(-1))

    def numpy(x: Any) -> Any:
        return np.sqrt(((x[:, None] - x[None]) ** 2).sum(-1))

    return Program(
        f"distances, {count}x{coordinates}", renewed(function), lambda: _points(count, coordinates, 1), numpy
    )


STREAMED: tuple[Callable[[], Program], ...] = (
    lambda: attention(8, 2048),
    lambda: attention(2, 8192),
    lambda: attention(8, 2048, causal=True),
    lambda: attention(8, 2048, gradient=True),
    lambda: forces(8000),
    lambda: forces(8000, gradient=True),
    lambda: nearest(8000),
    lambda: nearest(8000, gradient=True),
    distances,
)
