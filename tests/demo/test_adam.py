"""Adam against Algorithm 1 of Kingma and Ba (2015), written out in NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from graphopt.demo import adam

RATE, BETA1, BETA2, EPSILON = 0.01, 0.8, 0.95, 1e-6


def reference(theta: NDArray[np.float64], gradients: NDArray[np.float64]) -> NDArray[np.float64]:
    m, v = np.zeros_like(theta), np.zeros_like(theta)
    for t, g in enumerate(gradients, start=1):
        m = BETA1 * m + (1 - BETA1) * g
        v = BETA2 * v + (1 - BETA2) * g**2
        m_hat, v_hat = m / (1 - BETA1**t), v / (1 - BETA2**t)
        theta = theta - RATE * m_hat / (np.sqrt(v_hat) + EPSILON)
    return theta


def test_thirty_steps_are_those_of_the_paper() -> None:
    random = np.random.default_rng(0)
    start, gradients = random.normal(size=12), random.normal(size=(30, 12)) * np.logspace(-8, 2, 12)
    gradients[:, 5] = 0
    with jax.enable_x64(True):
        parameters = {"a": jnp.array(start[:4]), "b": (jnp.array(start[4:].reshape(2, 4)),)}
        moments = adam.start(parameters)
        update = jax.jit(lambda p, g, m: adam.update(p, g, m, RATE, (BETA1, BETA2), EPSILON))
        for g in gradients:
            parameters, moments = update(parameters, {"a": g[:4], "b": (g[4:].reshape(2, 4),)}, moments)
        found = np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(parameters)])
    np.testing.assert_allclose(found, reference(start, gradients), rtol=1e-12)
    assert found[5] == start[5]
    assert moments.steps == 30


def test_the_defaults_are_those_of_the_paper_and_types_stay() -> None:
    parameters, gradient = jnp.array([1.0, -2.0, 3.0]), jnp.array([1e-3, -1e3, 0.0])
    moved, moments = adam.update(parameters, gradient, adam.start(parameters), 0.5)
    assert moved.dtype == jnp.float32
    # The bias correction makes the first step g / (|g| + 1e-8) of the rate.
    np.testing.assert_allclose(moved, [0.5, -1.5, 3.0], rtol=2e-5)
    np.testing.assert_allclose(moments.mean, 0.1 * gradient, rtol=1e-6)
    np.testing.assert_allclose(moments.square, 0.001 * gradient**2, rtol=1e-5)
