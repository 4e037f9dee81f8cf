"""Adam, the optimizer of Kingma and Ba (2015), Algorithm 1, on pytrees."""

from __future__ import annotations

from typing import Generic, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

Tree = TypeVar("Tree")


class Moments(NamedTuple, Generic[Tree]):
    """Running means of the gradient and of its square, shaped like the parameters, and the number of steps taken."""

    mean: Tree
    square: Tree
    steps: Array


def start(parameters: Tree) -> Moments[Tree]:
    """Return the moments before the first step: all zero."""
    zeros = jax.tree.map(jnp.zeros_like, parameters)
    return Moments(zeros, zeros, jnp.zeros((), jnp.int32))


def update(
    parameters: Tree,
    gradient: Tree,
    moments: Moments[Tree],
    rate: ArrayLike,
    decay: tuple[float, float] = (0.9, 0.999),
    epsilon: float = 1e-8,
) -> tuple[Tree, Moments[Tree]]:
    """Take one step of size `rate` against the gradient; return the new parameters and moments."""
    first, second = decay
    steps = moments.steps + 1
    mean = jax.tree.map(lambda m, g: first * m + (1 - first) * g, moments.mean, gradient)
    square = jax.tree.map(lambda v, g: second * v + (1 - second) * g * g, moments.square, gradient)

    def descend(p: Array, m: Array, v: Array) -> Array:
        # Both means start at zero; the divisions take that bias out.
        return p - rate * (m / (1 - first**steps)) / (jnp.sqrt(v / (1 - second**steps)) + epsilon)

    return jax.tree.map(descend, parameters, mean, square), Moments(mean, square, steps)
