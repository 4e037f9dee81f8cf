"""What XLA is said to compute a few rows at a time: it stores no large array there, and does where it is not."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from graphopt.analysis.chunking import CONTRACTIONS
from graphopt.analysis.xla_rows import ROWS, SLOW_SERIES, unstored
from graphopt.analysis.xla_time import SERIES
from graphopt.config import Options
from graphopt.ir.graph import Graph
from graphopt.passes.inline import Inline
from graphopt.passes.simplify import Simplify
from graphopt.rewrite.passes import Context, run_pipeline
from graphopt.trace.jaxpr import trace_function

BATCH, LENGTH, DEPTH = 4, 1024, 16
IN_ONE = pytest.mark.skipif(SERIES in SLOW_SERIES, reason="XLA takes longer for it than for blocks there")
Weights = Callable[[Any], Any]


def softmax(scores: Any) -> Any:
    return jax.nn.softmax(scores, -1)


def normalized(scores: Any) -> Any:
    centred = scores - scores.mean(-1, keepdims=True)
    return centred * lax.rsqrt((centred * centred).mean(-1, keepdims=True) + 1)


def of_one(function: Any) -> Weights:
    return lambda scores: softmax(function(scores))


UNSTORED: dict[str, Weights] = {
    "softmax": softmax,
    "scaled": lambda s: softmax(s / 7),
    "by hand": lambda s: (
        jnp.exp(s - s.max(-1, keepdims=True)) / jnp.exp(s - s.max(-1, keepdims=True)).sum(-1)[..., None]
    ),
    "capped": lambda s: softmax(50 * jnp.tanh(s / 50)),
    "in float32": lambda s: softmax(s.astype(np.float32)),
    "normalized": normalized,
    "along columns": lambda s: jax.nn.softmax(s, 1),
    "relu": of_one(lambda s: jnp.maximum(s, 0)),
    "power": of_one(lambda s: jnp.abs(s) ** 2.5),
    "logistic": of_one(jax.nn.sigmoid),
    **{f.__name__: of_one(f) for f in (jnp.expm1, jnp.log1p, jnp.sqrt, jnp.sin, jnp.cos, jnp.tan, jnp.floor, jnp.sign)},
    "erf": of_one(jax.scipy.special.erf),
}

STORED: dict[str, Weights] = {
    "nothing is reduced": jnp.tanh,
    "a choice": of_one(lambda s: jnp.where(s > 0, s, 0)),
    "a cube root": of_one(jnp.cbrt),
    "a cumulative sum": lambda s: jnp.cumsum(softmax(s), -1),
    "a product of elements": lambda s: s - s.prod(-1, keepdims=True),
}


def attention(weights: Weights) -> Any:
    def function(q: Any, k: Any, v: Any) -> Any:
        scores = jnp.einsum("bqd,bkd->bqk", q, k)
        return jnp.einsum("bqk,bkd->bqd", weights(scores).astype(q.dtype), v)

    return function


def late(q: Any, k: Any, v: Any) -> Any:
    """The sums of the weights are read by what follows the second product."""
    scores = jnp.einsum("bqd,bkd->bqk", q, k)
    weights = jnp.exp(scores - scores.max(-1, keepdims=True))
    return jnp.einsum("bqk,bkd->bqd", weights, v) / weights.sum(-1, keepdims=True)


def read_twice(q: Any, k: Any, v: Any) -> Any:
    weights = softmax(jnp.einsum("bqd,bkd->bqk", q, k))
    return jnp.einsum("bqk,bkd->bqd", weights, v), jnp.einsum("bqk,bkd->bqd", weights, q)


def args_of(dtype: Any, length: int = LENGTH) -> tuple[Any, ...]:
    return (jax.ShapeDtypeStruct((BATCH, length, DEPTH), dtype),) * 3


def simplified(function: Any, dtype: Any, length: int = LENGTH) -> Graph:
    graph, sources = trace_function(function, *args_of(dtype, length))
    return run_pipeline(graph, (Inline(), Simplify()), Context(Options(), sources, platforms=("cpu",)))[0]


def stores(function: Any, dtype: Any, length: int = LENGTH) -> bool:
    """Whether XLA stores an array of all rows by all rows."""
    memory = jax.jit(function).lower(*args_of(dtype, length)).compile().memory_analysis()
    assert memory is not None
    return bool(memory.temp_size_in_bytes >= BATCH * length**2 * np.dtype(dtype).itemsize)


FORMS = {
    **{name: attention(weights) for name, weights in (UNSTORED | STORED).items()},
    "late": late,
    "read twice": read_twice,
}


@pytest.mark.parametrize("dtype", [np.float32, jnp.bfloat16])
@pytest.mark.parametrize("name", FORMS)
def test_it_is_as_xla_does(name: str, dtype: Any) -> None:
    found = unstored(simplified(FORMS[name], dtype))
    if SERIES in SLOW_SERIES:
        assert not found
        return
    assert bool(found) == (name in UNSTORED or name == "late")
    assert bool(found) != stores(FORMS[name], dtype)


@IN_ONE
@pytest.mark.parametrize("length", [LENGTH - 1, LENGTH])
def test_from_so_many_rows_on(length: int) -> None:
    function = attention(softmax)
    assert BATCH * LENGTH == ROWS
    assert bool(unstored(simplified(function, np.float32, length))) == (length == LENGTH)
    assert stores(function, np.float32, length) == (length < LENGTH)


@IN_ONE
def test_what_is_between() -> None:
    graph = simplified(attention(softmax), jnp.bfloat16)
    ((product, between),) = unstored(graph).items()
    first, second = (n for n in graph.nodes if n.op in CONTRACTIONS)
    assert product is first and second not in between
    assert {n.op.name for n in between} >= {"reduce_max", "sub", "exp", "reduce_sum", "div"}
    assert not any(n in between for n in graph.params)


@pytest.mark.parametrize("dtype", [np.float16, np.float64, np.int32])
def test_other_dtypes_are_not(dtype: Any) -> None:
    with jax.enable_x64(dtype is np.float64):
        assert not unstored(simplified(attention(lambda s: s - s.max(-1, keepdims=True)), dtype))
