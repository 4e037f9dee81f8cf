"""Programs of growing depth: from about a hundred equations to some thousands."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from graphopt.demo import photograph, training


@dataclass(frozen=True, slots=True)
class Program:
    """A function and arguments for it.

    make: returns a new function each time, which no cache of JAX's has seen.
    arguments: returns the arguments, made when they are needed.
    numpy: the same function of NumPy arrays, its results in the same order; None where NumPy has not what it takes.
    """

    name: str
    make: Callable[[], Callable[..., Any]]
    arguments: Callable[[], tuple[Any, ...]]
    numpy: Callable[..., Any] | None = None


def renewed(function: Callable[..., Any]) -> Callable[[], Callable[..., Any]]:
    """A `make` of `function`: what it returns calls `function`, but is another object each time."""

    def make() -> Callable[..., Any]:
        return lambda *args: function(*args)

    return make


def perceptron_step(depth: int, width: int = 32) -> Program:
    """A training step of a perceptron with `depth` layers: forward, loss, gradient, momentum."""

    def make() -> Callable[..., Any]:
        def loss(weights: list[jax.Array], x: jax.Array, labels: jax.Array) -> jax.Array:
            for weight in weights[:-1]:
                x = jax.nn.relu(x @ weight)
                x = x / jnp.sqrt(jnp.mean(x**2, axis=-1, keepdims=True) + 1e-5)
            logits = jax.nn.log_softmax(x @ weights[-1])
            return -jnp.mean(jnp.take_along_axis(logits, labels[:, None], axis=1))

        def step(weights: list[jax.Array], momentum: list[jax.Array], x: jax.Array, labels: jax.Array) -> Any:
            value, gradient = jax.value_and_grad(loss)(weights, x, labels)
            momentum = [0.9 * m + g for m, g in zip(momentum, gradient, strict=True)]
            return value, [w - 0.1 * m for w, m in zip(weights, momentum, strict=True)], momentum

        return step

    def arguments() -> tuple[Any, ...]:
        weights = [jnp.eye(width)] * depth
        return weights, weights, jnp.ones((16, width)), jnp.zeros(16, jnp.int32)

    return Program(f"perceptron step, {depth} layers", make, arguments)


def transformer(depth: int, length: int = 16, width: int = 32, heads: int = 4) -> Program:
    """The forward pass of `depth` causal transformer blocks."""

    def make() -> Callable[..., Any]:
        def normalize(x: jax.Array) -> jax.Array:
            centered = x - x.mean(-1, keepdims=True)
            return centered * jax.lax.rsqrt(jnp.mean(centered**2, -1, keepdims=True) + 1e-5)

        def forward(blocks: list[dict[str, jax.Array]], x: jax.Array) -> jax.Array:
            mask = jnp.tril(jnp.ones((length, length), bool))
            for block in blocks:
                q, k, v = jnp.split(normalize(x) @ block["qkv"], 3, axis=-1)
                q, k, v = (y.reshape(length, heads, -1) for y in (q, k, v))
                scores = jnp.einsum("qhd,khd->hqk", q, k) / jnp.sqrt(width / heads)
                weights = jax.nn.softmax(jnp.where(mask, scores, -jnp.inf))
                x = x + jnp.einsum("hqk,khd->qhd", weights, v).reshape(length, width) @ block["out"]
                x = x + jax.nn.gelu(normalize(x) @ block["up"]) @ block["down"]
            return x

        return forward

    def arguments() -> tuple[Any, ...]:
        block = {
            "qkv": jnp.ones((width, 3 * width)),
            "out": jnp.eye(width),
            "up": jnp.ones((width, 4 * width)),
            "down": jnp.ones((4 * width, width)),
        }
        return [block] * depth, jnp.ones((length, width))

    return Program(f"transformer, {depth} blocks", make, arguments)


def integrator(steps: int) -> Program:
    """A Runge-Kutta integration of the Lorenz system, its `steps` steps written out."""

    def make() -> Callable[..., Any]:
        def slope(y: jax.Array) -> jax.Array:
            return jnp.stack([10.0 * (y[1] - y[0]), y[0] * (28.0 - y[2]) - y[1], y[0] * y[1] - 8.0 / 3.0 * y[2]])

        def integrate(y: jax.Array) -> jax.Array:
            h = 0.01
            for _ in range(steps):
                k1 = slope(y)
                k2 = slope(y + h / 2 * k1)
                k3 = slope(y + h / 2 * k2)
                k4 = slope(y + h * k3)
                y = y + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
            return y

        return integrate

    return Program(f"Runge-Kutta, {steps} steps", make, lambda: (jnp.ones(3),))


def elementwise_chain(length: int) -> Program:
    """A long chain of elementwise operations with a branch taken by `where` in each link."""

    def make() -> Callable[..., Any]:
        def chain(x: jax.Array) -> jax.Array:
            for i in range(length):
                x = jnp.where(x > i, jnp.sin(x) * 0.5, jnp.tanh(x) + 0.1)
            return x

        return chain

    return Program(f"elementwise chain, {length} links", make, lambda: (jnp.ones(64),))


def demo_training_step() -> Program:
    """The demo's training step: convolutional network, loss, gradient, Adam."""
    return Program(
        "demo: training step",
        renewed(training.step),
        lambda: (training.start(0), jnp.zeros((64, 8, 8, 1)), jnp.zeros(64, jnp.int32), jnp.float32(1e-3)),
    )


def demo_photographs() -> Program:
    """The demo's image pipeline on two photographs."""
    return Program(
        "demo: two photographs",
        renewed(jax.vmap(photograph.develop)),
        lambda: (jnp.zeros((2, 427, 640, 3), jnp.uint8),),
    )


DEPTHS: tuple[Callable[[], Program], ...] = (
    lambda: perceptron_step(4),
    lambda: perceptron_step(32),
    lambda: perceptron_step(96),
    lambda: transformer(2),
    lambda: transformer(12),
    lambda: integrator(2),
    lambda: integrator(20),
    lambda: elementwise_chain(20),
    lambda: elementwise_chain(300),
    demo_training_step,
    demo_photographs,
)
