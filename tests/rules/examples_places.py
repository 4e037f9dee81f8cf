"""Programs for the rules on places: comparisons of an iota, and what is put on a diagonal."""

import jax
import jax.numpy as jnp
from jax import lax

from .example import Example
from .examples_movement import F, on

N = "int32"


def _diagonal(rows: int, columns: int, offset: int) -> jax.Array:
    """Where the column is as much greater than the row."""
    return lax.broadcasted_iota(N, (rows, columns), 0) + offset == lax.broadcasted_iota(N, (rows, columns), 1)


def _zeros(*shape: int) -> jax.Array:
    return lax.full(shape, 0.0)


def _outer(u: jax.Array, v: jax.Array) -> jax.Array:
    return u[:, None] * v


def _trace(x: jax.Array, first: int = 0, second: int = 1) -> jax.Array:
    """The sum of a diagonal, and over all other axes."""
    equal = lax.broadcasted_iota(N, x.shape, first) == lax.broadcasted_iota(N, x.shape, second)
    return lax.reduce_sum(lax.select(equal, x, lax.full_like(x, 0)), tuple(range(x.ndim)))


EXAMPLES: dict[str, tuple[Example, ...]] = {
    "comparison of places": (
        on(lambda x: jnp.where(lax.iota(N, 5) < 0, x, 2), ((5,), F)),
        on(lambda x: jnp.where(lax.broadcasted_iota(N, (3, 5), 1) >= 5, x, 2), ((3, 5), F)),
        on(lambda x: jnp.where(7 * lax.iota(N, 5) + 1 > 0, x, 2), ((5,), F)),
        on(lambda x: jnp.where(-2 * lax.iota(N, 5) == 1, x, 2), ((5,), F)),
        on(lambda x: jnp.where(3 + lax.iota("int8", 9) != 2, x, 2), ((9,), F)),
        on(lambda x: jnp.where(lax.rem(lax.iota(N, 7), 3) > 2, x, 2), ((7,), F)),
        on(lambda x: jnp.where(lax.iota(N, 5) <= lax.iota(N, 5) + 4, x, 2), ((5,), F)),
        on(lambda x: jnp.where(lax.clamp(2, lax.iota(N, 5) - 3, 4) == 5, x, 2), ((5,), F)),
        on(lambda x, i: jnp.where(lax.clamp(0, i, 4) > 4, x, 2), ((5,), F), ((5,), N)),
        on(lambda x: x[jnp.arange(5)], ((5, 2), F)),
    ),
    "scatter along a diagonal": (
        on(lambda v: jnp.zeros((5, 5)).at[jnp.arange(5), jnp.arange(5)].set(v), ((5,), F)),
        on(lambda v: jnp.full((5, 5), -0.0, F).at[jnp.diag_indices(5)].add(v), ((5,), F)),
        on(lambda v: jnp.ones((3, 3), N).at[jnp.arange(3), jnp.arange(3)].add(v), ((3,), N)),
    ),
    "scatter in steps of a diagonal": (
        on(lambda v: jnp.zeros(25).at[jnp.arange(5) * 6].set(v).reshape(5, 5), ((5,), F)),
        on(lambda v: jnp.ones(9, N).at[4 * jnp.arange(3)].add(v).reshape(3, 3), ((3,), N)),
    ),
    "diagonal of a part": (
        on(lambda a, b: (a @ b)[jnp.arange(4), jnp.arange(4) + 1], ((5, 3), F), ((3, 5), F)),
        on(lambda a, b: (a @ b)[jnp.arange(3) + 2, jnp.arange(3)], ((5, 3), N), ((3, 4), N)),
        on(lambda a, b: (a @ b)[jnp.arange(5), jnp.arange(5)], ((5, 3), F), ((3, 7), F)),
        on(lambda a, b: (a @ b)[:, jnp.arange(4), jnp.arange(4) + 1], ((2, 5, 3), F), ((2, 3, 5), F)),
    ),
    "trace of a part": (
        on(lambda a, b: lax.select(_diagonal(5, 5, 1), a @ b, _zeros(5, 5)).sum(), ((5, 3), F), ((3, 5), F)),
        on(lambda a, b: lax.select(_diagonal(5, 4, -2), a @ b, _zeros(5, 4)).sum(), ((5, 3), F), ((3, 4), F)),
        on(lambda a, b: lax.select(_diagonal(5, 7, 0), a @ b, _zeros(5, 7)).sum(), ((5, 3), F), ((3, 7), F)),
    ),
    "trace of broadcasts": (
        on(lambda u, v: _trace(_outer(u, v)), ((5,), F), ((5,), F)),
        on(lambda u, v: _trace(_outer(u, v)), ((5,), "int8"), ((5,), "int8")),
        on(lambda u: _trace(jnp.exp(u[:, None] - 2 * u)), ((5,), F), special=False),
        on(lambda u, v: _trace(lax.max(u[None], v[:, None])), ((1,), F), ((1,), F)),
        on(lambda u, v: _trace(_outer(u, v) * 3 + u.max()), ((4,), F), ((4,), F), special=False),
        on(lambda u: _trace(lax.broadcast_in_dim(u, (3, 5, 5), (0, 1)), 1, 2), ((3, 5), F), special=False),
        on(lambda u, v: _trace(u[:, None, :] + v[:, :, None], 2, 1), ((3, 5), F), ((3, 5), F), special=False),
        on(lambda u, v: _trace(u[None, :, :] - v[:, :, None], 0, 2), ((3, 5), N), ((5, 3), N)),
    ),
}

DECLINING: dict[str, tuple[Example, ...]] = {
    "comparison of places": (
        on(lambda x: jnp.where(lax.iota(N, 5) < 1, x, 2), ((5,), F)),
        on(lambda x: jnp.where(lax.iota(N, 5) == 4, x, 2), ((5,), F)),
        on(lambda x: jnp.where(lax.iota(N, 5) <= lax.iota(N, 5) + 3, x, 2), ((5,), F)),
        on(lambda x, i: jnp.where(abs(i) >= 0, x, 2), ((5,), F), ((5,), N)),  # the least number has no opposite
        on(lambda x: jnp.where(100 * lax.iota("int8", 9) < 0, x, 2), ((9,), F)),  # they wrap around
        on(lambda x: jnp.where(lax.iota(F, 5) < 0, x, 2), ((5,), F)),
    ),
    "scatter along a diagonal": (
        on(lambda x, v: x.at[jnp.arange(5), jnp.arange(5)].set(v), ((5, 5), F), ((5,), F)),
        on(lambda v: jnp.zeros((5, 6)).at[jnp.arange(5), jnp.arange(5)].set(v), ((5,), F)),
        on(lambda v: jnp.zeros((5, 5)).at[jnp.arange(4), jnp.arange(4)].set(v), ((4,), F)),
        on(lambda v, i: jnp.zeros((5, 5)).at[i, i].set(v), ((5,), F), ((5,), N)),
    ),
    "scatter in steps of a diagonal": (
        on(lambda v: jnp.diagflat(v, 1), ((5,), F)),
        on(lambda v: jnp.zeros(25).at[jnp.arange(5) * 5].set(v).reshape(5, 5), ((5,), F)),
    ),
    "diagonal of a part": (
        on(lambda a: a[jnp.arange(4), jnp.arange(4) + 1], ((5, 5), F)),
        on(lambda a, b: (a @ b)[jnp.arange(5), jnp.arange(5)], ((5, 3), F), ((3, 5), F)),
        on(lambda a, b, i: (a @ b)[i, i + 1], ((5, 3), F), ((3, 5), F), ((3,), N)),
        on(lambda a, b: (a @ b)[jnp.arange(3) + 3, jnp.arange(3)], ((5, 3), F), ((3, 5), F)),  # one is outside
    ),
    "trace of a part": (
        on(lambda a: lax.select(_diagonal(5, 5, 1), a, _zeros(5, 5)).sum(), ((5, 5), F)),
        on(lambda a, b: lax.select(_diagonal(5, 5, 0), a @ b, _zeros(5, 5)).sum(), ((5, 3), F), ((3, 5), F)),
        on(lambda a, b: lax.select(_diagonal(5, 5, 5), a @ b, _zeros(5, 5)).sum(), ((5, 3), F), ((3, 5), F)),
        on(lambda a, b: lax.select(_diagonal(5, 5, 1), a @ b, a @ b + 1).sum(), ((5, 3), F), ((3, 5), F)),
        on(lambda a, b: lax.select(_diagonal(5, 5, 1), a @ b, _zeros(5, 5)).sum(0), ((5, 3), F), ((3, 5), F)),
    ),
    "trace of broadcasts": (
        on(lambda u, a: _trace(u[:, None] * a), ((5,), F), ((5, 5), F)),
        on(lambda a: _trace(a), ((5, 5), F)),
        on(lambda u, v: lax.select(_diagonal(5, 5, 1), _outer(u, v), _zeros(5, 5)).sum(), ((5,), F), ((5,), F)),
        on(lambda u, v: lax.select(_diagonal(5, 5, 0), _outer(u, v), _zeros(5, 5)).sum(1), ((5,), F), ((5,), F)),
        on(lambda u, v: lax.select(_diagonal(5, 5, 0), _outer(u, v), _zeros(5, 5) + 1).sum(), ((5,), F), ((5,), F)),
        on(lambda u, v: _trace(jnp.cumsum(_outer(u, v), 0)), ((5,), F), ((5,), F)),
    ),
}
