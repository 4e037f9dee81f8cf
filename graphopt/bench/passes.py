"""What each pass gains: a program that it is for, with all passes and with all but this one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import PartitionSpec as P

import graphopt
from graphopt.bench import numerics, rewritten, steady, streamed, unrolled
from graphopt.bench.programs import Program, renewed
from graphopt.bench.rewritten import drawn
from graphopt.bench.rows import Row

Make = Callable[[], Program]

OPTIONS: dict[str, dict[str, Any]] = {
    "chunk": {"without": ("stream",)},
    "random bits": {"backend": "numba"},
    "local": {"backend": "numba"},
    "reuse": {"backend": "numba"},
}
"""With which a pass is seen at work, where it is not seen without: before another that does the same, or by itself."""


def measure(program: Program, repeats: int) -> Row:
    """Measure a program without the pass that begins its name, in the place of `jax.jit`, and with it."""
    step, _, _ = program.name.partition(":")
    options = OPTIONS.get(step, {})
    without = (*options.get("without", ()), step)
    alone = partial(graphopt.jit, **options | {"without": without})
    return steady.measure(program, repeats, {"jax": alone, "graphopt": partial(graphopt.jit, **options)})


def _called(a: jax.Array, b: jax.Array, v: jax.Array) -> jax.Array:
    multiply = jax.jit(jnp.matmul)
    product: jax.Array = multiply(multiply(a, b), v)
    return product


def _table(x: jax.Array) -> jax.Array:
    return x * (jnp.arange(200.0) / 199 * 2 - 1)


def _normalized() -> Callable[..., Any]:
    """A layer and its batch norm at inference, of captured weights."""
    random = np.random.default_rng(0)
    weight = random.normal(size=(512, 512)).astype(np.float32)
    mean, scale = (random.normal(size=512).astype(np.float32) for _ in range(2))
    return lambda x: (x @ weight - mean) * scale


def _quantized() -> Callable[..., Any]:
    """A layer whose captured weights are of eight bits, with a scale for each feature."""
    random = np.random.default_rng(0)
    weight = jnp.asarray(random.integers(-127, 128, (1024, 1024)), jnp.int8)
    scale = jnp.asarray(random.normal(size=1024), jnp.float32)
    return lambda x: x @ (weight.astype(jnp.float32) * scale)


def _carried(x: jax.Array, w: jax.Array) -> jax.Array:
    """Of two values that a loop carries one is read by nobody."""
    return lax.scan(lambda c, _: ((jnp.tanh(c[0] * 2), c[1] @ w), None), (x, w), None, length=50)[0][0]


def _stencil(x: jax.Array) -> jax.Array:
    around = jnp.pad(x, 1)
    return 4 * x - around[2:, 1:-1] - around[:-2, 1:-1] - around[1:-1, 2:] - around[1:-1, :-2]


def _dequantized(matrix: jax.Array, v: jax.Array) -> jax.Array:
    return matrix.astype(jnp.float32) @ v


def _bytes_and_vector() -> tuple[Any, ...]:
    random = np.random.default_rng(0)
    matrix = jnp.asarray(random.integers(-127, 128, (4096, 8192)), jnp.int8)
    return matrix, jnp.asarray(random.normal(size=8192), jnp.float32)


def _layer_norm(x: jax.Array) -> jax.Array:
    centred = x - x.mean(-1, keepdims=True)
    return centred * lax.rsqrt((centred * centred).mean(-1, keepdims=True) + 1e-5)


def _weighed(weights: jax.Array, values: jax.Array) -> jax.Array:
    return jnp.einsum("bkd,bqk->bdq", values, weights)


def _dropout(x: jax.Array) -> jax.Array:
    return jnp.where(jax.random.bernoulli(jax.random.key(0), 0.9, x.shape), x / 0.9, 0)


def _on_each_device(x: jax.Array) -> jax.Array:
    mesh = jax.make_mesh((1,), ("i",), axis_types=(jax.sharding.AxisType.Auto,))

    def body(x: jax.Array) -> jax.Array:
        found: jax.Array = jnp.sin(x) * jnp.exp(x) + lax.pmax(x, "i")
        return found

    found: jax.Array = jax.shard_map(body, mesh=mesh, in_specs=P("i"), out_specs=P("i"))(x)
    return found


PASSES: dict[str, Make] = {
    "inline": drawn("A·B·v through calls, 1000", _called, (1000, 1000), (1000, 1000), (1000,)),
    "reroll": unrolled.layers,
    "fold": drawn("a table that is computed, 4000x200", _table, (4000, 200)),
    "simplify": rewritten.SMALLEST,
    "affine": lambda: drawn("batch norm at inference, 64x512", _normalized(), (64, 512))(),
    "bind": lambda: drawn("weights of eight bits, 4x1024", _quantized(), (4, 1024))(),
    "contract": rewritten.PRODUCT,
    "solve": rewritten.SYSTEM,
    "join": rewritten.NARROW,
    "hoist": rewritten.STEPS,
    "dead": drawn("a loop that carries too much, 300", _carried, (300, 300), (300, 300)),
    "stream": lambda: streamed.attention(8, 2048),
    "chunk": lambda: streamed.attention(8, 2048),
    "random bits": drawn("dropout, 4M", _dropout, (2000, 2000)),
    "local": drawn("inside shard_map, 1M", _on_each_device, (1000, 1000)),
    "fuse": numerics.black_scholes,
    "renew": drawn("a row written over, 3000x3000", lambda x: x.at[7].set(1.0), (3000, 3000)),
    "reuse": drawn("a function of a product, 1000", lambda a: jnp.exp(jnp.sin(a @ a)), (1000, 1000)),
    "partition": rewritten.SORTS,
    "orient": drawn("weights that are the second factor, 2x2048x64", _weighed, (2, 2048, 2048), (2, 2048, 64)),
    "tile": drawn("softmax, 2000x1000", jax.nn.softmax, (2000, 1000)),
    "split": numerics.black_scholes,
    "peel": drawn("stencil, 2000x2000", _stencil, (2000, 2000)),
    "jam": lambda: Program("bytes times a vector, 4096x8192", renewed(_dequantized), _bytes_and_vector),
    "bypass": drawn("elementwise, 4M", lambda x: jnp.sin(x) * jnp.exp(x), (4_000_000,)),
    "registers": drawn("distances, 1000x64", lambda x: ((x[:, None] - x[None]) ** 2).sum(-1), (1000, 64)),
    "fetch": drawn("layer norm, 8192x1024", _layer_norm, (8192, 1024)),
    "terms": lambda: streamed.forces(8000, gradient=True),
    "reciprocal": drawn("softmax, 200x1000", jax.nn.softmax, (200, 1000)),
    "cascade": drawn("sums of columns, 4000x2000", lambda x: (x * x).sum(0), (4000, 2000)),
}
"""Of `rematerialize`, which a memory limit asks for, is the suite `limited`."""


def programs() -> list[Program]:
    """The programs, each with its pass before its name."""
    made = {step: make() for step, make in PASSES.items()}
    return [replace(program, name=f"{step}: {program.name}") for step, program in made.items()]
