"""The network against NumPy and SciPy, and its gradient against finite differences."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import Array
from jax.flatten_util import ravel_pytree
from numpy.typing import NDArray
from scipy.signal import correlate2d
from scipy.special import softmax

from graphopt.demo import network


def reference_logits(parameters: network.Parameters, images: Array) -> NDArray[Any]:
    x = np.asarray(images)
    for layer in (parameters.conv1, parameters.conv2):
        kernel, bias = np.asarray(layer.kernel), np.asarray(layer.bias)
        x = np.array(
            [
                [
                    sum(correlate2d(image[..., i], kernel[..., i, o], mode="same") for i in range(kernel.shape[2]))
                    for o in range(kernel.shape[3])
                ]
                for image in x
            ]
        )
        x = np.maximum(x.transpose(0, 2, 3, 1) + bias, 0)
    n, height, width, channels = x.shape
    x = x.reshape(n, height // 2, 2, width // 2, 2, channels).max(axis=(2, 4)).reshape(n, -1)
    x = np.maximum(x @ np.asarray(parameters.dense1.kernel) + np.asarray(parameters.dense1.bias), 0)
    return np.asarray(x @ np.asarray(parameters.dense2.kernel) + np.asarray(parameters.dense2.bias))


def tiny_case() -> tuple[network.Parameters, Array, Array]:
    """A network of 179 weights, none of them zero, and five images. In float64 where that is enabled."""
    random = np.random.default_rng(3)
    parameters = network.initialize(jax.random.key(3), side=4, widths=(2, 3, 4))
    parameters = jax.tree.map(lambda w: w + 0.1 * random.normal(size=w.shape).astype(w.dtype), parameters)
    images = random.uniform(size=(5, 4, 4, 1)).astype(parameters.conv1.kernel.dtype)
    return parameters, jnp.asarray(images), jnp.array([0, 3, 9, 3, 7], jnp.int32)


def test_logits_and_loss_are_those_of_numpy() -> None:
    with jax.enable_x64(True):
        parameters, images, labels = tiny_case()
        expected = reference_logits(parameters, images)
        np.testing.assert_allclose(jax.jit(network.logits)(parameters, images), expected, rtol=1e-12)
        cross_entropy = -np.log(softmax(expected, axis=1))[np.arange(len(labels)), labels].mean()
        np.testing.assert_allclose(jax.jit(network.loss)(parameters, images, labels), cross_entropy, rtol=1e-12)


def test_predict_gives_the_most_probable_digit_and_the_probabilities() -> None:
    parameters, images, _ = tiny_case()
    digits, probabilities = jax.jit(network.predict)(parameters, images)
    assert digits.dtype == jnp.int32
    np.testing.assert_allclose(probabilities, softmax(reference_logits(parameters, images), axis=1), rtol=1e-5)
    np.testing.assert_array_equal(digits, reference_logits(parameters, images).argmax(axis=1))


@pytest.mark.parametrize("batch", [0, 1, 7])
def test_any_batch_can_be_served(batch: int) -> None:
    digits, probabilities = jax.jit(network.predict)(
        network.initialize(jax.random.key(0)), np.ones((batch, 8, 8, 1), "f")
    )
    assert digits.shape == (batch,)
    assert probabilities.shape == (batch, 10)
    np.testing.assert_allclose(probabilities.sum(axis=1), np.ones(batch), rtol=1e-6)


def test_gradient_is_that_of_finite_differences() -> None:
    with jax.enable_x64(True):
        parameters, images, labels = tiny_case()
        weights, restore = ravel_pytree(parameters)

        def loss(w: Array) -> Array:
            return network.loss(restore(w), images, labels)

        steps = 1e-6 * jnp.eye(len(weights))
        differences = jax.jit(jax.vmap(lambda step: (loss(weights + step) - loss(weights - step)) / 2e-6))(steps)
        gradient = jax.jit(jax.grad(loss))(weights)
        assert gradient.dtype == jnp.float64
        assert np.count_nonzero(gradient) > 100  # or there would be little to check
        np.testing.assert_allclose(gradient, differences, rtol=1e-6, atol=1e-8)


def test_initial_weights_have_the_variance_of_he() -> None:
    kernel = np.asarray(network.initialize(jax.random.key(1)).dense1.kernel)
    assert kernel.shape == (4 * 4 * 64, 128)
    np.testing.assert_allclose(kernel.var(), 2 / kernel.shape[0], rtol=0.02)
