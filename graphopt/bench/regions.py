"""Regions that engines are compared on: chains, reductions with what is around them, and what XLA is slow at."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.scipy.stats import norm

from graphopt.bench.operation import Operand
from graphopt.bench.programs import Program, renewed


def _affine(x: Any) -> Any:
    return x * 2 + 1


def _chain(x: Any) -> Any:
    return jnp.maximum(x * 2 + 1, 0.5) * x - x / 3 + jnp.abs(x)


def _waves(x: Any) -> Any:
    return jnp.sin(x) * jnp.exp(x) + jnp.tanh(x)


def _numpy_waves(x: Any) -> Any:
    return np.sin(x) * np.exp(x) + np.tanh(x)


def _black_scholes(spot: Any, strike: Any, time: Any, volatility: Any) -> Any:
    spread = volatility * jnp.sqrt(time)
    d1 = (jnp.log(spot / strike) + (0.02 + volatility * volatility / 2) * time) / spread
    return spot * norm.cdf(d1) - strike * jnp.exp(-0.02 * time) * norm.cdf(d1 - spread)


def _layer_norm(x: Any) -> Any:
    centered = x - x.mean(-1, keepdims=True)
    return centered / jnp.sqrt((centered * centered).mean(-1, keepdims=True) + 1e-5)


def _max_pool(x: Any) -> Any:
    return lax.reduce_window(x, -jnp.inf, lax.max, (1, 3, 3, 1), (1, 1, 1, 1), "SAME")


def _dequantized(weights: Any, scales: Any, x: Any) -> Any:
    return (weights.astype(jnp.float32) * scales) @ x


def _scatter_add(target: Any, places: Any, values: Any) -> Any:
    return target.at[places].add(values)


def _distances(x: Any) -> Any:
    return ((x[:, None] - x[None]) ** 2).sum(-1)


def _top(x: Any) -> Any:
    return lax.top_k(x, 10)


def _case(
    name: str, function: Callable[..., Any], *operands: Operand, numpy: Callable[..., Any] | None = None
) -> Program:
    def arguments() -> tuple[Any, ...]:
        random = np.random.default_rng(0)
        return tuple(operand.draw(random) for operand in operands)

    return Program(name, renewed(function), arguments, numpy)


def _quantized() -> tuple[Any, ...]:
    random = np.random.default_rng(0)
    weights = random.integers(-128, 128, (8192, 8192), np.int8)
    return jnp.asarray(weights), jnp.ones((8192, 1), jnp.float32), jnp.ones(8192, jnp.float32)


def _positive(*shape: int) -> Operand:
    return Operand(shape, low=0.1, high=1.1)


CHAINS = {"1k": 1_000, "10k": 10_000, "50k": 50_000, "100k": 100_000, "200k": 200_000}


def programs() -> Sequence[Program]:
    """All of them."""
    million = 1_000_000
    return [
        *(_case(f"x*2+1, {label}", _affine, _positive(n), numpy=_affine) for label, n in CHAINS.items()),
        *(_case(f"chain of eight, {label}", _chain, _positive(n)) for label, n in CHAINS.items()),
        *(_case(f"sin·exp+tanh, {label}", _waves, _positive(n), numpy=_numpy_waves) for label, n in CHAINS.items()),
        _case("sin·exp+tanh, 1M", _waves, _positive(million), numpy=_numpy_waves),
        _case("Black-Scholes, 4M", _black_scholes, *[_positive(4 * million)] * 4),
        _case("x*2+1, 10M", _affine, _positive(10 * million), numpy=_affine),
        _case("x*2+1, 100M", _affine, _positive(100 * million), numpy=_affine),
        _case("softmax, 4096×1024", jax.nn.softmax, _positive(4096, 1024)),
        _case("layer norm, 4096×1024", _layer_norm, _positive(4096, 1024)),
        _case("sort, 1M", jnp.sort, _positive(million), numpy=np.sort),
        _case("argsort, 1M", jnp.argsort, _positive(million)),
        _case("argmax, 1000×1000", lambda x: jnp.argmax(x, 1), _positive(1000, 1000)),
        _case("cumsum, 1M", jnp.cumsum, _positive(million), numpy=np.cumsum),
        _case("top_k 10, 1000×1000", _top, _positive(1000, 1000)),
        _case("max-pool 3×3, 16×56×56×64", _max_pool, _positive(16, 56, 56, 64)),
        Program("int8-dequantized matrix–vector, 8192²", renewed(_dequantized), _quantized),
        _case(
            "scatter-add, 1M into 1k",
            _scatter_add,
            _positive(1000),
            Operand((million,), "int32", 0, 1000),
            _positive(million),
        ),
        _case("pairwise distances, 1000×64", _distances, _positive(1000, 64)),
    ]
