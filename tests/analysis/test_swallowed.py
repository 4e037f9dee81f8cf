"""Products that XLA computes inside of a reduction of their results: seen in what it compiles, and kept apart."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.core.primitives import reduce_max_p

import graphopt
from graphopt.analysis import swallowed
from graphopt.analysis.swallowed import SERIES, swallowed_time

here = ".".join(jax.__version__.split(".")[:2])
RANDOM = np.random.default_rng(0)


def normal(*shape: int) -> Any:
    return RANDOM.normal(0, 0.05, shape).astype(np.float32)


def perceptron(x: Any, *weights: Any, last: Callable[..., Any] = jax.nn.softmax) -> Any:
    for number, w in enumerate(weights):
        x = x @ w
        if number + 1 < len(weights):
            x = jnp.tanh(x + 1)
    return last(x)


SQUARE = (normal(8, 1024), *(normal(1024, 1024) for _ in range(3)))
NARROWING = (normal(16, 784), normal(784, 512), normal(512, 512), normal(512, 10))
MANY_ROWS = (normal(40, 1024), *SQUARE[1:])
ONE_LAYER = SQUARE[:2]

LASTS = {
    "softmax": jax.nn.softmax,
    "log_softmax": jax.nn.log_softmax,
    "greatest": lambda z: z.max(-1),
    "sums of squares": lambda z: (z * z).sum(-1),
}


def together(compiled: Any) -> int:
    """The most products in one fusion of a compiled program."""
    bodies = [body for body in compiled.as_text().split("\n}\n") if "ENTRY" not in body]
    return max(int(body.count(" dot(")) for body in bodies)


@pytest.mark.skipif(here not in SERIES, reason="this XLA does not do so")
@pytest.mark.parametrize("last", LASTS)
def test_xla_does_so_and_the_choice_keeps_it_from_that(last: str) -> None:
    def function(x: Any, *weights: Any) -> Any:
        return perceptron(x, *weights, last=LASTS[last])

    plain, jitted = jax.jit(function), graphopt.jit(function)
    assert together(plain.lower(*SQUARE).compile()) >= 2
    assert together(jitted.lower(*SQUARE).compile()) <= 1
    (kernel,) = jitted.explain(*SQUARE).kernels
    assert any(node.op.name.startswith("reduce") for node in kernel.body.nodes)
    np.testing.assert_allclose(jitted(*SQUARE), plain(*SQUARE), rtol=1e-4, atol=1e-5)


@pytest.mark.skipif(here not in SERIES, reason="this XLA does not do so")
def test_the_compiler_option_forbids_it() -> None:
    lowered = jax.jit(perceptron).lower(*SQUARE)
    assert together(lowered.compile(compiler_options={"xla_cpu_experimental_ynn_fusion_type": ""})) == 0


@pytest.mark.parametrize("args", [NARROWING, MANY_ROWS, ONE_LAYER], ids=["narrowing", "many rows", "one layer"])
def test_what_is_not_computed_again_stays(args: Any) -> None:
    kernels = graphopt.jit(perceptron).explain(*args).kernels
    assert not any(node.op.name.startswith("reduce") for kernel in kernels for node in kernel.body.nodes)


def times(series: tuple[str, ...], *args: Any) -> float:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(swallowed, "SERIES", series)
        return swallowed_time(graphopt.trace(perceptron)(*args).nodes)


def test_only_in_the_series_that_do_so() -> None:
    assert times((here,), *SQUARE) == pytest.approx(2 * 1e-3 * 1024**3)
    assert times((), *SQUARE) == 0
    assert times((here,), *NARROWING) == times((here,), *MANY_ROWS) == times((here,), *ONE_LAYER) == 0


def test_a_reduction_of_one_number() -> None:
    def greatest(x: Any) -> Any:
        return reduce_max_p.bind(x, axes=(), out_sharding=None)

    x = np.float32(2)
    assert swallowed_time(graphopt.trace(greatest)(x).nodes) == 0
    assert graphopt.jit(greatest, numerics="exact")(x) == x
