"""Programs for the rules that move data."""

import jax.numpy as jnp

from .example import Example

F = "float32"

EXAMPLES: dict[str, tuple[Example, ...]] = {
    "transpose of transpose": (
        Example(lambda x: jnp.transpose(jnp.transpose(x)), (((3, 4), F),)),
        Example(lambda x: jnp.transpose(jnp.transpose(x, (1, 2, 0)), (1, 2, 0)), (((2, 3, 4), "int8"),)),
    ),
}

DECLINING: dict[str, tuple[Example, ...]] = {}
