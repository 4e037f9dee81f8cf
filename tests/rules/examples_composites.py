"""Programs for the rules that write operations out as several others."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from .example import Example

F = "float32"


def on(function: Any, *types: tuple[tuple[int, ...], str], **keywords: Any) -> Example:
    return Example(function, types, **keywords)


EXAMPLES: dict[str, tuple[Example, ...]] = {
    "part of an array": (
        on(lambda x: jnp.split(x, 3), ((6, 2), F)),
        on(lambda x: lax.split(x, (1, 0, 4), 1)[::-1], ((2, 5), "int8")),
        on(lambda x: lax.split(x, (5,), 0), ((5,), "complex64")),
        on(lambda x: tuple(jnp.unstack(x)), ((3, 2), "bfloat16")),
        on(lambda x: jnp.unstack(x, axis=1)[1], ((3, 2, 0), "bool")),
        on(lambda x: jnp.unstack(x, axis=-1), ((3, 1), F)),
        on(lambda x: sum(jnp.unstack(x)), ((7,), F)),
    ),
    "stack of arrays": (
        on(lambda x, y: jnp.stack([x, y, x]), ((3, 2), F), ((3, 2), F)),
        on(lambda x, y: jnp.stack([x, y], 1), ((3, 2), "bool"), ((3, 2), "bool")),
        on(lambda x, y: jnp.stack([x, y], -1), ((0, 2), "complex64"), ((0, 2), "complex64")),
        on(lambda x, y: jnp.stack([x, y]), ((), "int8"), ((), "int8")),
        on(lambda x: jnp.stack([x]), ((3,), "bfloat16")),
        on(lambda x: jax.grad(lambda x: sum(jnp.sin(row).sum() for row in jnp.unstack(x)))(x), ((3, 2), F)),
    ),
    "tiles": (
        on(lambda x: jnp.tile(x, (2, 3)), ((3, 2), F)),
        on(lambda x: jnp.tile(x, 3), ((2, 1, 2), "int8")),
        on(lambda x: jnp.tile(x, (2, 1)), ((4,), "bfloat16"), special=False),
        on(lambda x: jnp.tile(x, (0, 2)), ((4, 1), "complex64")),
    ),
    "array put anywhere": (
        on(lambda x: jax.device_put(x) + x, ((3,), F)),
        on(lambda x, y: jax.device_put((x, y)), ((3,), F), ((), "bool")),
    ),
}

DECLINING: dict[str, tuple[Example, ...]] = {
    "array put anywhere": (
        on(lambda x: jax.device_put(x, may_alias=False), ((3,), F)),
        on(lambda x: jax.device_put(x, jax.devices()[0]), ((3,), F)),
    ),
}
