"""Programs as people write them that one pass each is for: their cost is in the order or the kind of what they do."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from graphopt.bench.programs import Program, renewed

CHAIN = (700, 40, 900, 30, 1100, 20, 600)
"""Rows of the factors of a chain, and the columns of the last one."""


def drawn(name: str, function: Callable[..., Any], *shapes: tuple[int, ...]) -> Callable[[], Program]:
    """A program of arrays of these shapes, drawn from a normal distribution and scaled to sums of about one."""

    def arguments() -> tuple[Any, ...]:
        random = np.random.default_rng(0)
        return tuple(jnp.asarray(random.normal(size=shape, scale=shape[-1] ** -0.5), "float32") for shape in shapes)

    return lambda: Program(name, renewed(function), arguments)


def _sums_before(x: jax.Array) -> jax.Array:
    place = jnp.arange(x.size)
    return jnp.where(place[:, None] >= place[None], x[None], 0).sum(1)


def _steps(matrix: jax.Array, x: jax.Array) -> jax.Array:
    """Steps each of which makes its propagator anew."""

    def step(x: jax.Array, _: None) -> tuple[jax.Array, None]:
        propagator = jnp.eye(x.size) - 0.01 * jnp.exp(-jnp.abs(matrix))
        return propagator @ x, None

    return lax.scan(step, x, None, length=100)[0]


PRODUCT = drawn("A·B·v, 1000", lambda a, b, v: a @ b @ v, (1000, 1000), (1000, 1000), (1000,))
NARROW = drawn("four narrow products, 2048x256", lambda x, *ws: [x @ w for w in ws], (2048, 256), *[(256, 4)] * 4)
SYSTEM = drawn("inv(A)·b, 500", lambda a, b: jnp.linalg.inv(a + 3 * jnp.eye(500)) @ b, (500, 500), (500,))
SMALLEST = drawn("the ten smallest by a sort, 1M", lambda x: jnp.sort(x)[:10], (1_000_000,))
STEPS = drawn("steps with a matrix made anew, 300", _steps, (300, 300), (300,))
SORTS = drawn("four sorts, 20k", lambda *xs: [jnp.sort(x) for x in xs], *[(20_000,)] * 4)

REWRITTEN: tuple[Callable[[], Program], ...] = (
    PRODUCT,
    drawn("chain of six matrices", lambda a, b, c, d, e, f: a @ b @ c @ d @ e @ f, *pairwise(CHAIN)),
    drawn("trace(A·B), 1000", lambda a, b: jnp.trace(a @ b), (1000, 1000), (1000, 1000)),
    NARROW,
    SYSTEM,
    SMALLEST,
    drawn("ranks by two sorts, 100k", lambda x: jnp.argsort(jnp.argsort(x)), (100_000,)),
    drawn("sums of all before by a mask, 2000", _sums_before, (2000,)),
    STEPS,
    SORTS,
)
"""For contract (three), join, solve, simplify (three), hoist (which XLA does as well) and partition."""
