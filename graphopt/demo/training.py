"""Training the network: one step, and the loop over steps."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike
from numpy.typing import NDArray

from graphopt.demo import adam, network
from graphopt.demo.digits import Examples, Split, batches


class State(NamedTuple):
    """What a step of training reads and renews. `key` is the source of the random shifts."""

    parameters: network.Parameters
    moments: adam.Moments[network.Parameters]
    key: Array


class Epoch(NamedTuple):
    """How training stood at the end of an epoch: the mean loss of its steps, and the accuracy on the validation set."""

    loss: float
    accuracy: float


Step = Callable[[State, ArrayLike, ArrayLike, ArrayLike], tuple[State, Array]]
Predict = Callable[[network.Parameters, ArrayLike], network.Prediction]


def start(seed: int) -> State:
    """Return the state before the first step."""
    weights_key, shifts_key = jax.random.split(jax.random.key(seed))
    parameters = network.initialize(weights_key)
    return State(parameters, adam.start(parameters), shifts_key)


def step(state: State, images: Array, labels: Array, rate: Array) -> tuple[State, Array]:
    """Take one step on a batch: shift the images at random, differentiate the loss, update. Return state and loss."""
    key, shifts_key = jax.random.split(state.key)
    shifted = shift(images, shifts_key)
    loss, gradient = jax.value_and_grad(network.loss)(state.parameters, shifted, labels)
    parameters, moments = adam.update(state.parameters, gradient, state.moments, rate)
    return State(parameters, moments, key), loss


def shift(images: Array, key: Array) -> Array:
    """Move each image [n, side, side, 1] by -1, 0 or 1 pixels along both axes, filling with zeros.

    A digit is the same digit one pixel further: the network learns it from more places than the data shows.
    """

    def crop(image: Array, corner: Array) -> Array:
        padded = jnp.pad(image, ((1, 1), (1, 1), (0, 0)))
        return jax.lax.dynamic_slice(padded, (corner[0], corner[1], 0), image.shape)

    return jax.vmap(crop)(images, jax.random.randint(key, (len(images), 2), 0, 3, jnp.int32))


def train(
    step: Step, predict: Predict, state: State, data: Split, *, epochs: int, batch: int, rate: np.float32, seed: int
) -> tuple[State, list[Epoch]]:
    """Train with a learning rate that falls from `rate` to zero along a cosine. Return the last state and the curve."""
    from tqdm import tqdm

    random = np.random.default_rng(seed)
    rates = iter(cosine(rate, epochs * (len(data.train.labels) // batch)))
    curve: list[Epoch] = []
    with tqdm(range(epochs), desc="training", unit="epoch", disable=None) as progress:  # None: shown on terminals only
        for _ in progress:
            losses = []
            for images, labels in batches(data.train, batch, random):
                state, loss = step(state, images, labels, next(rates))
                losses.append(loss)
            curve.append(Epoch(float(np.mean(losses)), accuracy(predict, state.parameters, data.validation)))
            progress.set_postfix(loss=f"{curve[-1].loss:.4f}", validation=f"{curve[-1].accuracy:.2%}")
    return state, curve


def cosine(rate: np.float32, steps: int) -> NDArray[np.float32]:
    """Return a learning rate for each step, from `rate` down towards zero (Loshchilov and Hutter, 2017): f32[steps]."""
    return (rate * 0.5 * (1 + np.cos(np.pi * np.arange(steps) / steps))).astype(np.float32)


def accuracy(predict: Predict, parameters: network.Parameters, examples: Examples) -> float:
    """Return the share of the examples whose digit the network names."""
    named = predict(parameters, examples.images).digits
    return float(np.mean(np.asarray(named) == examples.labels))
