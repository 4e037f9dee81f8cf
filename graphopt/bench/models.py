"""Neural networks: training steps, layers forward and backward. Weights are drawn as they are for training."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from graphopt.bench.programs import Program, renewed
from graphopt.demo import adam

Tree = Any
LAYOUT = ("NHWC", "HWIO", "NHWC")


def cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """The mean cross-entropy of scores [n, classes] and labels [n]."""
    scores = jax.nn.log_softmax(logits)
    return -jnp.mean(jnp.take_along_axis(scores, labels[:, None], axis=1))


def cross_entropy_gradient(logits: Any, labels: Any) -> tuple[Any, Any]:
    """In NumPy: `cross_entropy`, and its gradient by the scores."""
    rows = np.arange(len(labels))
    shifted = logits - logits.max(axis=1, keepdims=True)
    exponentials = np.exp(shifted)
    sums = exponentials.sum(axis=1, keepdims=True)
    value = np.mean(np.log(sums[:, 0]) - shifted[rows, labels])
    gradient = exponentials / sums
    gradient[rows, labels] -= 1
    return value, gradient / np.float32(len(labels))


def draw_batch(key: jax.Array, shape: tuple[int, ...], classes: int) -> tuple[jax.Array, jax.Array]:
    """Inputs of the shape, and for each a label."""
    inputs, labels = jax.random.split(key)
    return jax.random.normal(inputs, shape), jax.random.randint(labels, shape[:1], 0, classes)


def mlp_step(batch: int = 128, widths: tuple[int, ...] = (784, 512, 512, 10)) -> Program:
    """A perceptron's training step: forward, cross-entropy, gradient, gradient descent."""

    def loss(layers: Tree, x: jax.Array, labels: jax.Array) -> jax.Array:
        for weight, bias in layers[:-1]:
            x = jax.nn.relu(x @ weight + bias)
        weight, bias = layers[-1]
        return cross_entropy(x @ weight + bias, labels)

    def step(layers: Tree, x: jax.Array, labels: jax.Array) -> Any:
        value, gradient = jax.value_and_grad(loss)(layers, x, labels)
        return value, jax.tree.map(lambda p, g: p - 0.1 * g, layers, gradient)

    def numpy(layers: Tree, x: Any, labels: Any) -> Any:
        activations = [x]
        for weight, bias in layers[:-1]:
            activations.append(np.maximum(activations[-1] @ weight + bias, 0))
        value, gradient = cross_entropy_gradient(activations[-1] @ layers[-1][0] + layers[-1][1], labels)
        renewed_layers = []
        for (weight, bias), inputs in zip(layers[::-1], activations[::-1], strict=True):
            renewed_layers.append((weight - 0.1 * (inputs.T @ gradient), bias - 0.1 * gradient.sum(axis=0)))
            gradient = (gradient @ weight.T) * (inputs > 0)
        return value, renewed_layers[::-1]

    def arguments() -> tuple[Any, ...]:
        data, *keys = jax.random.split(jax.random.key(0), len(widths))
        draw = jax.nn.initializers.he_normal()
        pairs = zip(keys, widths[:-1], widths[1:], strict=True)
        layers = [(draw(key, (fan_in, fan_out)), jnp.zeros(fan_out)) for key, fan_in, fan_out in pairs]
        return layers, *draw_batch(data, (batch, widths[0]), widths[-1])

    return Program("MLP training step", renewed(step), arguments, numpy)


def cnn_step(
    batch: int = 32, side: int = 28, channels: tuple[int, int] = (32, 64), dense: int = 128, classes: int = 10
) -> Program:
    """A convolutional network's training step: two convolutions with pooling, two dense layers, momentum."""

    def convolve(x: jax.Array, kernel: jax.Array, bias: jax.Array) -> jax.Array:
        x = jax.nn.relu(lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=LAYOUT) + bias)
        pooled: jax.Array = lax.reduce_window(x, -jnp.inf, lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")
        return pooled

    def loss(layers: Tree, x: jax.Array, labels: jax.Array) -> jax.Array:
        x = convolve(convolve(x, *layers[0]), *layers[1])
        x = jax.nn.relu(lax.collapse(x, 1) @ layers[2][0] + layers[2][1])
        return cross_entropy(x @ layers[3][0] + layers[3][1], labels)

    def step(layers: Tree, momentum: Tree, x: jax.Array, labels: jax.Array) -> Any:
        value, gradient = jax.value_and_grad(loss)(layers, x, labels)
        momentum = jax.tree.map(lambda m, g: 0.9 * m + g, momentum, gradient)
        return value, jax.tree.map(lambda p, m: p - 0.01 * m, layers, momentum), momentum

    def arguments() -> tuple[Any, ...]:
        first, second = channels
        flat = (side // 4) ** 2 * second
        shapes = ((3, 3, 1, first), (3, 3, first, second), (flat, dense), (dense, classes))
        data, *keys = jax.random.split(jax.random.key(0), 5)
        draw = jax.nn.initializers.he_normal()
        layers = [(draw(key, shape), jnp.zeros(shape[-1])) for key, shape in zip(keys, shapes, strict=True)]
        return layers, jax.tree.map(jnp.zeros_like, layers), *draw_batch(data, (batch, side, side, 1), classes)

    return Program("CNN training step", renewed(step), arguments)


def layer_norm(x: jax.Array, scale: jax.Array, bias: jax.Array) -> jax.Array:
    """`x` with mean 0 and variance 1 along its last axis, scaled and shifted."""
    centered = x - x.mean(-1, keepdims=True)
    return centered * lax.rsqrt(jnp.mean(centered**2, -1, keepdims=True) + 1e-5) * scale + bias


def transformer_block(p: Tree, x: jax.Array, heads: int) -> Any:
    """A causal transformer block with the norms in front, on x [batch, length, width]."""
    batch, length, width = x.shape
    qkv = layer_norm(x, *p["norm1"]) @ p["qkv"]
    q, k, v = (y.reshape(batch, length, heads, -1) for y in jnp.split(qkv, 3, axis=-1))
    scores = jnp.einsum("bqhd,bkhd->bhqk", q, k) * (width / heads) ** -0.5
    weights = jax.nn.softmax(jnp.where(jnp.tril(jnp.ones((length, length), bool)), scores, -jnp.inf))
    x = x + jnp.einsum("bhqk,bkhd->bqhd", weights, v).reshape(batch, length, width) @ p["out"]
    return x + jax.nn.gelu(layer_norm(x, *p["norm2"]) @ p["up"]) @ p["down"]


def transformer_block_in_numpy(p: Tree, x: Any, heads: int) -> Any:
    """`transformer_block` in NumPy."""
    batch, length, width = x.shape

    def norm(x: Any, scale: Any, bias: Any) -> Any:
        centered = x - x.mean(-1, keepdims=True)
        return centered / np.sqrt(np.mean(centered**2, -1, keepdims=True) + np.float32(1e-5)) * scale + bias

    qkv = np.split(norm(x, *p["norm1"]) @ p["qkv"], 3, axis=-1)
    q, k, v = (y.reshape(batch, length, heads, -1).transpose(0, 2, 1, 3) for y in qkv)
    scores = q @ k.transpose(0, 1, 3, 2) * (width / heads) ** -0.5
    scores = np.where(np.tril(np.ones((length, length), bool)), scores, np.float32(-np.inf))
    exponentials = np.exp(scores - scores.max(-1, keepdims=True))
    weights = exponentials / exponentials.sum(-1, keepdims=True)
    x = x + (weights @ v).transpose(0, 2, 1, 3).reshape(batch, length, width) @ p["out"]
    y = norm(x, *p["norm2"]) @ p["up"]
    y = 0.5 * y * (1 + np.tanh((2 / np.pi) ** 0.5 * (y + 0.044715 * y * y * y)))
    return x + y @ p["down"]


def transformer_arguments(batch: int, length: int, width: int) -> tuple[Any, ...]:
    """Weights of a block, and an input."""
    shapes = {
        "qkv": (width, 3 * width),
        "out": (width, width),
        "up": (width, 4 * width),
        "down": (4 * width, width),
    }
    data, *keys = jax.random.split(jax.random.key(0), 5)
    draw = jax.nn.initializers.glorot_normal()
    p: Tree = {name: draw(key, shape) for key, (name, shape) in zip(keys, shapes.items(), strict=True)}
    p |= {name: (jnp.ones(width), jnp.zeros(width)) for name in ("norm1", "norm2")}
    return p, jax.random.normal(data, (batch, length, width))


def transformer_forward(batch: int = 4, length: int = 128, width: int = 256, heads: int = 8) -> Program:
    """A transformer block."""
    return Program(
        "transformer block, forward",
        renewed(lambda p, x: transformer_block(p, x, heads)),
        lambda: transformer_arguments(batch, length, width),
        lambda p, x: transformer_block_in_numpy(p, x, heads),
    )


def transformer_backward(batch: int = 4, length: int = 128, width: int = 256, heads: int = 8) -> Program:
    """A transformer block and its gradient, by weights and input."""

    def loss(p: Tree, x: jax.Array) -> jax.Array:
        return jnp.mean(transformer_block(p, x, heads) ** 2)

    return Program(
        "transformer block, forward and backward",
        renewed(jax.value_and_grad(loss, argnums=(0, 1))),
        lambda: transformer_arguments(batch, length, width),
    )


def lstm(length: int = 64, batch: int = 32, inputs: int = 128, width: int = 128) -> Program:
    """A layer of long short-term memory (Hochreiter and Schmidhuber, 1997), with forget gates, over a sequence."""

    def forward(p: Tree, xs: jax.Array) -> Any:
        def step(state: tuple[jax.Array, jax.Array], x: jax.Array) -> Any:
            hidden, cell = state
            i, f, g, o = jnp.split(x @ p["input"] + hidden @ p["hidden"] + p["bias"], 4, axis=-1)
            cell = jax.nn.sigmoid(f) * cell + jax.nn.sigmoid(i) * jnp.tanh(g)
            hidden = jax.nn.sigmoid(o) * jnp.tanh(cell)
            return (hidden, cell), hidden

        zeros = jnp.zeros((batch, width))
        return lax.scan(step, (zeros, zeros), xs)

    def numpy(p: Tree, xs: Any) -> Any:
        def sigmoid(x: Any) -> Any:
            return 1 / (1 + np.exp(-x))

        hidden = cell = np.zeros((batch, width), np.float32)
        outputs = []
        for x in xs:
            i, f, g, o = np.split(x @ p["input"] + hidden @ p["hidden"] + p["bias"], 4, axis=-1)
            cell = sigmoid(f) * cell + sigmoid(i) * np.tanh(g)
            hidden = sigmoid(o) * np.tanh(cell)
            outputs.append(hidden)
        return (hidden, cell), np.stack(outputs)

    def arguments() -> tuple[Any, ...]:
        data, first, second = jax.random.split(jax.random.key(0), 3)
        bias = jnp.zeros(4 * width).at[width : 2 * width].set(1)
        p = {
            "input": jax.nn.initializers.glorot_normal()(first, (inputs, 4 * width)),
            "hidden": jax.nn.initializers.orthogonal()(second, (width, 4 * width)),
            "bias": bias,
        }
        return p, jax.random.normal(data, (length, batch, inputs))

    return Program("LSTM", renewed(forward), arguments, numpy)


def resnet_block(batch: int = 8, side: int = 28, channels: int = 64) -> Program:
    """A residual block (He et al., 2016): two convolutions, each with batch normalization, and the sum; training."""

    def normalize(x: jax.Array, scale: jax.Array, bias: jax.Array) -> jax.Array:
        mean, variance = jnp.mean(x, (0, 1, 2)), jnp.var(x, (0, 1, 2))
        return (x - mean) * lax.rsqrt(variance + 1e-5) * scale + bias

    def forward(p: Tree, x: jax.Array) -> jax.Array:
        y = lax.conv_general_dilated(x, p["conv1"], (1, 1), "SAME", dimension_numbers=LAYOUT)
        y = jax.nn.relu(normalize(y, *p["norm1"]))
        y = lax.conv_general_dilated(y, p["conv2"], (1, 1), "SAME", dimension_numbers=LAYOUT)
        return jax.nn.relu(normalize(y, *p["norm2"]) + x)

    def arguments() -> tuple[Any, ...]:
        data, first, second = jax.random.split(jax.random.key(0), 3)
        draw, shape = jax.nn.initializers.he_normal(), (3, 3, channels, channels)
        p: Tree = {"conv1": draw(first, shape), "conv2": draw(second, shape)}
        p |= {name: (jnp.ones(channels), jnp.zeros(channels)) for name in ("norm1", "norm2")}
        return p, jax.random.normal(data, (batch, side, side, channels))

    return Program("ResNet block", renewed(forward), arguments)


def softmax_regression(batch: int = 1024, features: int = 784, classes: int = 10) -> Program:
    """A step of softmax regression with Adam."""

    def loss(p: Tree, x: jax.Array, labels: jax.Array) -> jax.Array:
        return cross_entropy(x @ p["weight"] + p["bias"], labels)

    def step(p: Tree, moments: Any, x: jax.Array, labels: jax.Array) -> Any:
        value, gradient = jax.value_and_grad(loss)(p, x, labels)
        return value, *adam.update(p, gradient, moments, 1e-3)

    def numpy(p: Tree, moments: Any, x: Any, labels: Any) -> Any:
        value, scores = cross_entropy_gradient(x @ p["weight"] + p["bias"], labels)
        gradient = {"weight": x.T @ scores, "bias": scores.sum(axis=0)}
        steps = moments.steps + 1
        mean = {k: 0.9 * moments.mean[k] + 0.1 * g for k, g in gradient.items()}
        square = {k: 0.999 * moments.square[k] + 0.001 * g * g for k, g in gradient.items()}
        rates = np.float32(1e-3 / (1 - 0.9**steps)), np.float32(1 - 0.999**steps)
        p = {k: p[k] - rates[0] * mean[k] / (np.sqrt(square[k] / rates[1]) + 1e-8) for k in p}
        return value, p, adam.Moments(mean, square, steps)

    def arguments() -> tuple[Any, ...]:
        weight, data, moments = jax.random.split(jax.random.key(0), 3)
        p = {"weight": 0.01 * jax.random.normal(weight, (features, classes)), "bias": jnp.zeros(classes)}
        # As after some steps: the first is decided by the gradient's signs alone, and those of zero by rounding.
        noise = {"weight": 0.01 * jax.random.normal(moments, (features, classes)), "bias": jnp.full(classes, 0.01)}
        state = adam.Moments(noise, jax.tree.map(lambda m: m**2 + 1e-4, noise), jnp.int32(10))
        return p, state, *draw_batch(data, (batch, features), classes)

    return Program("softmax regression with Adam", renewed(step), arguments, numpy)


MODELS: tuple[Callable[[], Program], ...] = (
    mlp_step,
    cnn_step,
    transformer_forward,
    transformer_backward,
    lstm,
    resnet_block,
    softmax_regression,
)
