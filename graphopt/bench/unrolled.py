"""Programs whose loops Python unrolls while they are traced: layers, time steps, blocks with weights of their own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from graphopt.bench.models import Tree, transformer_arguments, transformer_block
from graphopt.bench.programs import Program, renewed


def layers(count: int = 300, width: int = 64) -> Program:
    """Layers with the same weights, each with its number in it, and a norm of the whole array."""

    def forward(x: jax.Array, weight: jax.Array, slope: jax.Array) -> jax.Array:
        for number in range(count):
            x = jnp.tanh(x @ weight + number * slope)
            x = x / (1 + jnp.abs(x).sum())
        return x

    def arguments() -> tuple[Any, ...]:
        keys = jax.random.split(jax.random.key(0))
        x, weight = (jax.random.normal(key, (width, width)) for key in keys)
        return x, weight * width**-0.5, jnp.full((width, width), 1e-3)

    return Program(f"{count} layers, unrolled", renewed(forward), arguments)


def recurrent_gradient(steps: int = 16, batch: int = 16, features: int = 32, width: int = 128) -> Program:
    """The gradient of an LSTM by its weights, its time steps written out."""

    def loss(p: Tree, xs: jax.Array) -> jax.Array:
        h = c = jnp.zeros((batch, width))
        states = []
        for step in range(steps):
            gates = xs[step] @ p["input"] + h @ p["state"] + p["bias"]
            enter, forget, new, leave = jnp.split(gates, 4, axis=-1)
            c = jax.nn.sigmoid(forget) * c + jax.nn.sigmoid(enter) * jnp.tanh(new)
            h = jax.nn.sigmoid(leave) * jnp.tanh(c)
            states.append(h)
        return jnp.mean(jnp.stack(states) ** 2)

    def arguments() -> tuple[Any, ...]:
        data, entering, state = jax.random.split(jax.random.key(0), 3)
        p = {
            "input": jax.random.normal(entering, (features, 4 * width)) * features**-0.5,
            "state": jax.random.normal(state, (width, 4 * width)) * width**-0.5,
            "bias": jnp.zeros(4 * width),
        }
        return p, jax.random.normal(data, (steps, batch, features))

    return Program(f"LSTM, gradient, {steps} steps, unrolled", renewed(jax.grad(loss)), arguments)


def blocks_gradient(depth: int = 24, batch: int = 4, length: int = 64, width: int = 128, heads: int = 4) -> Program:
    """Value and gradient of a stack of transformer blocks in a Python loop, with a list of the blocks' weights."""

    def loss(blocks: list[Tree], x: jax.Array) -> jax.Array:
        for p in blocks:
            x = transformer_block(p, x, heads)
        return jnp.mean(x**2)

    def arguments() -> tuple[Any, ...]:
        p, x = transformer_arguments(batch, length, width)
        blocks = [jax.tree.map(lambda w, scale=1 - 0.01 * number: w * scale, p) for number in range(depth)]
        return blocks, x

    return Program(f"{depth} transformer blocks, gradient, unrolled", renewed(jax.value_and_grad(loss)), arguments)


UNROLLED: tuple[Callable[[], Program], ...] = (layers, recurrent_gradient, blocks_gradient)
