"""What is taken out of loops, where the loops are those of gradients."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

import graphopt


@jax.custom_vjp
def scaled(x: Any, w: Any) -> Any:
    return x * jnp.exp(w).sum()


def scaled_forward(x: Any, w: Any) -> Any:
    return scaled(x, w), w


def scaled_backward(w: Any, cotangent: Any) -> Any:
    return cotangent * jnp.exp(w).sum(), jnp.zeros_like(w)


scaled.defvjp(scaled_forward, scaled_backward)


def test_of_a_gradient() -> None:
    """JAX describes a scan's operands by trees, from 0.11 on, which are of other kinds where it has made the loop."""

    def powers(x: Any, w: Any) -> Any:
        return lax.scan(lambda c, _: (scaled(c, w), c[:1]), x, None, length=4)

    def gradient(x: Any, w: Any) -> Any:
        return jax.grad(lambda x: powers(x, w)[0].sum())(x)

    def of_less(x: Any, w: Any) -> Any:
        """Its loop has lost some of what it took."""
        return jax.grad(lambda x: jax.grad(lambda x: (powers(x, w)[1] ** 2).sum())(x).sum())(x)

    x, w = jnp.arange(3.0), jnp.linspace(-1, 1, 7)
    for function in (gradient, of_less):
        for passes in (("hoist",), ("dead", "hoist"), None):
            jitted = graphopt.jit(function, backend="xla", passes=passes)
            np.testing.assert_allclose(jitted(x, w), function(x, w), rtol=1e-5)
            if passes:
                assert any("computed before the loop" in note for note in jitted.explain(x, w).notes)
