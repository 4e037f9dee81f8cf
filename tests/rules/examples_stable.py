"""Programs for the rules that put stable forms in the place of others."""

from typing import Any

import jax.numpy as jnp
from jax import lax

from .example import Example

F = "float32"


def on(function: Any, *types: tuple[tuple[int, ...], str], **keywords: Any) -> Example:
    return Example(function, types, **keywords)


def masked(x: Any, y: Any, other: float = 0) -> Any:
    return lax.select_n(y > 0, jnp.exp(x), jnp.full(x.shape, other, x.dtype))


EXAMPLES: dict[str, tuple[Example, ...]] = {
    "sum of squares less squared sum": (
        on(lambda x: lax.square(x).sum(1) - lax.square(x.sum(1)) / 5, ((3, 5), F)),
        on(lambda x: lax.square(x).sum() - 15 * lax.square(x.sum() / 15), ((3, 5), F)),
        on(
            lambda x: lax.square(x).sum((0, 2)) - lax.square(x.sum((0, 2))) * 0.125,
            ((2, 3, 4), "float64"),
            x64=True,
        ),
    ),
    "mean square less squared mean": (
        on(lambda x: jnp.mean(lax.square(x), 1) - lax.square(jnp.mean(x, 1)), ((3, 5), F)),
        on(lambda x: jnp.sum(lax.square(x)) / 15 - lax.square(jnp.sum(x) / 15), ((3, 5), F)),
        on(
            lambda x: lax.square(x).sum((0, 2)) * 0.125 - lax.square(x.sum((0, 2)) * 0.125),
            ((2, 3, 4), "float64"),
            x64=True,
        ),
    ),
    "shares of exponentials": (
        on(lambda x: jnp.log(jnp.exp(x).sum(1)), ((3, 5), "float64"), x64=True),
        on(lambda x: jnp.log(jnp.exp(x).sum()), ((3, 1), F)),
        on(lambda x: jnp.exp(x) / jnp.exp(x).sum((0, 2), keepdims=True), ((2, 3, 4), "float64"), x64=True),
        on(lambda x, y: (jnp.exp(x) @ y) / jnp.exp(x).sum(1)[:, None], ((3, 5), F), ((5, 2), F), special=False),
        on(lambda x: 2 * jnp.log(lax.square(jnp.exp(x).sum(0)) * 3), ((4, 2), F), special=False),
        on(
            lambda x, y: jnp.log(lax.select_n(y > 0, jnp.zeros((3, 5)), jnp.exp(x)).sum(1)),
            ((3, 5), F),
            ((3, 5), F),
            special=False,
        ),
        on(lambda x, y: masked(x, y) / masked(x, y).sum(1)[:, None], ((3, 5), F), ((3, 5), F), special=False),
        on(lambda x: jnp.log(lax.convert_element_type(jnp.exp(x), "float64").sum(1)), ((3, 5), F), x64=True),
        on(lambda x: jnp.exp(x) / jnp.exp(x).astype(F).sum(1).astype("bfloat16")[:, None], ((3, 5), "bfloat16")),
    ),
}

DECLINING: dict[str, tuple[Example, ...]] = {
    "sum of squares less squared sum": (
        on(lambda x: lax.square(x).sum(1) - lax.square(x.sum(1)) / 4, ((3, 5), F)),
        on(lambda x: lax.square(x).sum(0) - lax.square(x.sum(1)) / 3, ((3, 3), F)),
        on(lambda x, y: lax.square(x).sum() - lax.square(y.sum()) / 3, ((3,), F), ((3,), F)),
        on(lambda x: lax.square(x).sum() - lax.square(x.sum()) / (1 << 17), ((1 << 17,), F)),  # a long row
    ),
    "mean square less squared mean": (
        on(lambda x: jnp.sum(lax.square(x)) / 14 - lax.square(jnp.sum(x) / 15), ((3, 5), F)),
        on(lambda x: jnp.mean(lax.square(x), 0) - lax.square(jnp.mean(x, 1)), ((3, 3), F)),
        on(lambda x, y: jnp.mean(lax.square(x)) - lax.square(jnp.mean(y)), ((3,), F), ((3,), F)),
        on(lambda x: jnp.mean(lax.square(x)) - lax.square(jnp.mean(x)), ((1 << 17,), F)),  # a long row
    ),
    "shares of exponentials": (
        on(lambda x: jnp.exp(x) * jnp.exp(x).sum(), ((5,), F)),
        on(lambda x: jnp.log(jnp.exp(x).sum() + 1), ((5,), F)),
        on(lambda x: jnp.log(jnp.exp(x - x.max()).sum()), ((5,), F)),  # shifted already
        on(lambda x, y: masked(x, y).sum() / jnp.exp(x), ((5,), F), ((5,), F)),  # also what the mask leaves out
        on(lambda x, y: jnp.log(masked(x, y, 1).sum()), ((5,), F), ((5,), F)),
        on(lambda x, y: (y @ jnp.exp(x)) / jnp.exp(x).sum(1), ((5, 5), F), ((5,), F)),
    ),
}
