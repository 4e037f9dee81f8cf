"""Random bits in kernels, bit for bit as JAX draws them, and what is made of them in the same kernel."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import graphopt
from graphopt.ops.random import threefry_p

from .test_kernels import kernels

DRAWS: dict[str, Callable[[Any], Any]] = {
    "bits": lambda key: jax.random.bits(key, (1009,)),
    "bits of 8": lambda key: jax.random.bits(key, (3, 5), np.uint8),
    "bits of 16": lambda key: jax.random.bits(key, (7, 1, 11), np.uint16),
    "one number": lambda key: jax.random.bits(key, ()),
    "uniform": lambda key: jax.random.uniform(key, (33, 7), minval=-1.0, maxval=3.0),
    "halves": lambda key: jax.random.uniform(key, (99,), jnp.bfloat16),
    "bernoulli": lambda key: jax.random.bernoulli(key, 0.3, (101,)),
    "whole numbers": lambda key: jax.random.randint(key, (53,), -7, 100),
    "of many keys": lambda key: jax.vmap(lambda k: jax.random.uniform(k, (5, 2)))(
        jax.random.split(key, (3, 2)).ravel()
    ),
    "old keys": lambda key: jax.random.uniform(jax.random.key_data(key), (12,)),
    "of a key that is folded": lambda key: jax.random.uniform(jax.random.fold_in(key, 7), (12,)),
    "in a loop": lambda key: lax.fori_loop(
        0, 3, lambda i, x: x + jax.random.uniform(jax.random.fold_in(key, i), (9,)), 0.0 * jnp.ones(9)
    ),
}


@pytest.mark.parametrize("name", DRAWS)
def test_the_same_numbers(name: str) -> None:
    key = jax.random.key(11)
    jitted = graphopt.jit(DRAWS[name], backend="numba")
    report = jitted.explain(key)
    assert any(n.op.name == "threefry" for body in kernels(report.graph) for n in body.nodes), report.graph
    assert not any("random_bits" in note for note in report.notes)
    np.testing.assert_array_equal(jitted(key), jax.jit(DRAWS[name])(key))


def test_wide_bits() -> None:
    with jax.enable_x64(True):
        draw = lambda key: (jax.random.bits(key, (101,), np.uint64), jax.random.uniform(key, (5, 3), np.float64))
        key = jax.random.key(2**40 + 5)
        for found, expected in zip(graphopt.jit(draw, backend="numba")(key), jax.jit(draw)(key), strict=True):
            np.testing.assert_array_equal(found, expected)


def test_normal_numbers_are_those_of_jax_but_for_rounding() -> None:
    draw = lambda key: jax.random.normal(key, (10_007,))
    jitted = graphopt.jit(draw, backend="numba")
    key = jax.random.key(5)
    assert len(kernels(jitted.explain(key).graph)) == 1
    np.testing.assert_allclose(jitted(key), jax.jit(draw)(key), rtol=2e-6)


@pytest.mark.parametrize("impl", ["rbg", "unsafe_rbg"])
def test_other_generators_stay_with_xla(impl: str) -> None:
    key = jax.random.key(0, impl=impl)
    draw = lambda key: jax.random.uniform(key, (12,)) * 2
    np.testing.assert_array_equal(graphopt.jit(draw, backend="numba")(key), jax.jit(draw)(key))


def test_other_counters_stay_with_xla() -> None:
    draw = lambda key: jax.random.uniform(key, (13,)) * 2
    with jax.threefry_partitionable(False):
        key = jax.random.key(0)
        jitted = graphopt.jit(draw, backend="numba")
        assert any("random_bits" in note for note in jitted.explain(key).notes)
        np.testing.assert_array_equal(jitted(key), jax.jit(draw)(key))


def test_a_word_outside_of_a_kernel_is_that_of_jax() -> None:
    operands = [np.arange(5, dtype=np.uint32) * np.uint32(n * 0x1E3779B1) for n in (1, 2, 3, 4)]
    words = jax.extend.random.threefry2x32_p.bind(*map(jnp.asarray, operands))
    for number, word in enumerate(words):
        np.testing.assert_array_equal(jax.jit(lambda *o, n=number: threefry_p.bind(*o, word=n))(*operands), word)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_inverse_of_erf(dtype: str) -> None:
    with jax.enable_x64(True):
        random = np.random.default_rng(0)
        ends = 1 - 10.0 ** -random.uniform(0, 15, 500)
        special = [0.0, -0.0, 1.0, -1.0, 1e-30, 1e-3, 1.5, -2.0, np.nan, np.inf]
        x = np.concatenate([random.uniform(-1, 1, 2000), ends, -ends, special]).astype(dtype)
        found = graphopt.jit(lax.erf_inv, backend="numba")(x)
        expected = jax.jit(lax.erf_inv)(x)
        np.testing.assert_allclose(found, expected, rtol=32 * np.finfo(dtype).eps)
        np.testing.assert_array_equal(np.signbit(found)[:-4], np.signbit(expected)[:-4])
