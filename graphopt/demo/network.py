"""A small convolutional network in plain JAX: the parameters are a pytree, the layers are functions."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array


class Layer(NamedTuple):
    """The weights of one layer: a kernel, [height, width, in, out] or [in, out], and a bias, [out]."""

    kernel: Array
    bias: Array


class Parameters(NamedTuple):
    """The weights of the network: two convolutions and two dense layers."""

    conv1: Layer
    conv2: Layer
    dense1: Layer
    dense2: Layer


class Prediction(NamedTuple):
    """The most probable digit of each image, i32[n], and the probability of each digit, [n, 10]."""

    digits: Array
    probabilities: Array


def initialize(key: Array, side: int = 8, widths: tuple[int, int, int] = (32, 64, 128)) -> Parameters:
    """Draw the weights for images of `side` by `side` pixels: normal with variance 2 / inputs (He et al., 2015)."""
    first, second, third = widths
    pooled = (side // 2) ** 2
    shapes = ((3, 3, 1, first), (3, 3, first, second), (pooled * second, third), (third, 10))
    draw = jax.nn.initializers.he_normal()
    keys = jax.random.split(key, len(shapes))
    return Parameters(*(Layer(draw(k, shape), jnp.zeros(shape[-1])) for k, shape in zip(keys, shapes, strict=True)))


def logits(parameters: Parameters, images: Array) -> Array:
    """Score images [n, side, side, 1] against the ten digits: [n, 10]."""
    x = jax.nn.relu(_convolve(parameters.conv1, images))
    x = jax.nn.relu(_convolve(parameters.conv2, x))
    x = jax.lax.collapse(_max_pool(x), 1)
    x = jax.nn.relu(_dense(parameters.dense1, x))
    return _dense(parameters.dense2, x)


def loss(parameters: Parameters, images: Array, labels: Array) -> Array:
    """Return the mean cross-entropy between the network's answers and the labels, in nats: a scalar."""
    scores = jax.nn.log_softmax(logits(parameters, images))
    return -jnp.take_along_axis(scores, labels[:, None], axis=1).mean()


def predict(parameters: Parameters, images: Array) -> Prediction:
    """Name the digit in each of the images [n, side, side, 1], with the probabilities behind the choice."""
    probabilities = jax.nn.softmax(logits(parameters, images))
    return Prediction(probabilities.argmax(axis=1).astype(jnp.int32), probabilities)


def _convolve(layer: Layer, x: Array) -> Array:
    """Convolve [n, height, width, in] with zeros around the border: [n, height, width, out]."""
    layout = ("NHWC", "HWIO", "NHWC")
    return jax.lax.conv_general_dilated(x, layer.kernel, (1, 1), "SAME", dimension_numbers=layout) + layer.bias


def _max_pool(x: Array) -> Array:
    """Keep the largest of every 2 by 2 pixels: [n, height, width, c] to [n, height / 2, width / 2, c]."""
    window = (1, 2, 2, 1)
    pooled: Array = jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, window, window, "VALID")
    return pooled


def _dense(layer: Layer, x: Array) -> Array:
    return x @ layer.kernel + layer.bias
