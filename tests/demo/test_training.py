"""Training: a step learns, shifts move images by one pixel at most, the rate falls along a cosine."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.typing import ArrayLike

from graphopt.demo import adam, digits, network, training


def test_steps_on_one_batch_bring_its_loss_down() -> None:
    random = np.random.default_rng(0)
    images, labels = random.uniform(size=(16, 8, 8, 1)).astype("f"), np.arange(16, dtype=np.int32) % 10
    state, step, losses = training.start(0), jax.jit(training.step), []
    for _ in range(60):
        state, loss = step(state, images, labels, np.float32(2e-3))
        losses.append(float(loss))
    assert losses[-1] < 0.3 * losses[0]
    assert state.moments.steps == 60
    assert jax.tree.map(jax.typeof, state) == jax.tree.map(jax.typeof, training.start(0))


def test_a_step_is_its_parts() -> None:
    parameters = network.initialize(jax.random.key(1), side=4, widths=(2, 3, 4))
    state = training.State(parameters, adam.start(parameters), jax.random.key(2))
    images, labels = jax.random.uniform(jax.random.key(3), (4, 4, 4, 1)), jnp.array([1, 2, 3, 4])
    after, loss = jax.jit(training.step)(state, images, labels, jnp.float32(1e-3))
    key, shifts_key = jax.random.split(state.key)
    shifted = training.shift(images, shifts_key)
    np.testing.assert_array_equal(jax.random.key_data(after.key), jax.random.key_data(key))
    expected_loss, gradient = jax.jit(jax.value_and_grad(network.loss))(parameters, shifted, labels)
    np.testing.assert_allclose(loss, expected_loss, rtol=1e-6)
    expected, moments = adam.update(parameters, gradient, state.moments, 1e-3)
    assert after.moments.steps == moments.steps == 1
    for found, wanted in zip(jax.tree.leaves(after.moments), jax.tree.leaves(moments), strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-8)
    for new, wanted, g in zip(*map(jax.tree.leaves, (after.parameters, expected, gradient)), strict=True):
        # Where the gradient is almost zero, its rounding decides the direction of Adam's first step.
        np.testing.assert_allclose(np.where(abs(g) > 1e-6, new - wanted, 0), 0, atol=1e-6)


def test_shift_moves_by_at_most_one_pixel_and_fills_with_zeros() -> None:
    image = np.arange(1, 37, dtype=np.float32).reshape(6, 6, 1)
    padded = np.pad(image, ((1, 1), (1, 1), (0, 0)))
    moved = {padded[i : i + 6, j : j + 6].tobytes() for i in range(3) for j in range(3)}
    shifted = training.shift(jnp.stack([image] * 100), jax.random.key(0))
    assert {np.asarray(one).tobytes() for one in shifted} == moved


def test_the_rate_falls_along_a_cosine() -> None:
    rates = training.cosine(np.float32(0.5), 8)
    assert rates.dtype == np.float32
    assert rates[0] == 0.5
    np.testing.assert_allclose(rates[4], 0.25, rtol=1e-6)
    np.testing.assert_allclose(rates[1:] + rates[:0:-1], 0.5, rtol=1e-6)
    assert (np.diff(rates) < 0).all()


def test_training_learns_the_digits() -> None:
    pytest.importorskip("sklearn")
    pytest.importorskip("tqdm")
    data = digits.split(digits.load_digits(), seed=0)
    predict, rate = jax.jit(network.predict), np.float32(2e-3)
    state, curve = training.train(
        jax.jit(training.step), predict, training.start(0), data, epochs=4, batch=64, rate=rate, seed=0
    )
    assert len(curve) == 4
    assert state.moments.steps == 4 * (len(data.train.labels) // 64)
    assert curve[-1].loss < 0.6 * curve[0].loss
    assert curve[-1].accuracy == training.accuracy(predict, state.parameters, data.validation) > 0.8


def test_accuracy_counts_the_digits_named_rightly() -> None:
    examples = digits.Examples(np.zeros((4, 8, 8, 1), "f"), np.array([3, 1, 3, 3], np.int32))

    def always_three(parameters: network.Parameters, images: ArrayLike) -> network.Prediction:
        return network.Prediction(jnp.full(4, 3), jnp.ones((4, 10)))

    assert training.accuracy(always_three, training.start(0).parameters, examples) == 0.75
