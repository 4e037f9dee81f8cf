"""Remainders of floating numbers are exact: the bits that C's fmod gives, in vectors where it takes one division."""

import os
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import graphopt

from .test_kernels import in_one_kernel, same, wide
from .vectors import instructions, kernels_of

SEED = int(os.environ["GRAPHOPT_TEST_SEED"])
each_dtype = pytest.mark.parametrize("dtype", ["float32", "float64"])


def check(x: Any, y: Any, dtype: str) -> None:
    """Against C's; by denormals, which count as zero in compiled programs, there is no remainder."""
    x, y = (np.asarray(a, dtype) for a in (x, y))
    with wide(dtype), np.errstate(all="ignore"):
        compiled, _ = in_one_kernel(lax.rem, x, y)
        expected = np.fmod(x, np.where(np.abs(y) < np.finfo(dtype).tiny, np.zeros_like(y), y))
        same(compiled(x, y)[0], expected)


@each_dtype
def test_of_any_bits(dtype: str) -> None:
    rng = np.random.default_rng(SEED)
    size = np.dtype(dtype).itemsize
    x, y = (np.frombuffer(rng.bytes(size * 20_011), dtype) for _ in range(2))
    check(x, y, dtype)


@each_dtype
def test_of_usual_sizes(dtype: str) -> None:
    """Quotients of up to twice as many bits as a number has."""
    rng = np.random.default_rng(SEED)
    bits = np.finfo(dtype).nmant
    x = rng.normal(size=50_021) * 2.0 ** rng.integers(-10, 2 * bits, 50_021)
    check(x, rng.normal(size=x.size), dtype)


@each_dtype
def test_next_to_multiples(dtype: str) -> None:
    """Where the quotient is rounded up to the multiple's number though it is less."""
    rng = np.random.default_rng(SEED)
    info = np.finfo(dtype)
    for most in (4, 1000, 2 ** (info.nmant - 1), 2 ** (info.nmant + 2)):
        y = rng.uniform(1, 2, 5003).astype(dtype)
        x = (y.astype(np.longdouble) * rng.integers(1, most, y.size)).astype(dtype)
        below, above = (np.nextafter(x, np.array(towards, dtype)) for towards in (-np.inf, np.inf))
        check(np.concatenate([x, below, above, -x, -below]), np.concatenate([y, y, y, y, -y]), dtype)


@each_dtype
def test_special_values(dtype: str) -> None:
    """Zeros, infinities, NaN, denormals, and what is left being denormal: each of each."""
    info = np.finfo(dtype)
    tiny, smallest = float(info.tiny), float(info.smallest_subnormal)
    sizes = [0.0, smallest, 5 * smallest, tiny - smallest, tiny, 1.5 * tiny, 3 * tiny, tiny * 2.0**info.nmant]
    sizes += [0.5, 1.0, 1.5, 3.0, 2.0**info.nmant, 2.0**info.nmant + 1, 2.0 ** (info.nmant + 1), 1e30]
    points = np.array([*sizes, float(info.max), np.inf, np.nan], dtype)
    x, y = np.meshgrid(np.concatenate([points, -points]), np.concatenate([points, -points]))
    check(x.ravel(), y.ravel(), dtype)


@each_dtype
def test_an_odd_one_among_others(dtype: str) -> None:
    """It changes nothing but itself, wherever in a vector or after the last one it is."""
    rng = np.random.default_rng(SEED)
    for size in (1, 3, 16, 61):
        for odd in (np.inf, np.nan, 1e30, 0.0, np.finfo(dtype).tiny):
            x, y = rng.uniform(1, 100, (2, size))
            place = rng.integers(size)
            x[place] = odd
            check(x, y, dtype)
            check(y, x, dtype)


@each_dtype
def test_what_it_is_used_for(dtype: str) -> None:
    """Python's modulus, floor division and wrapped angles, as JAX has them."""
    rng = np.random.default_rng(SEED)

    def function(x: Any, y: Any) -> Any:
        return x % y, x // y, jnp.divmod(x, y), (x + np.pi) % (2 * np.pi) - np.pi, jnp.fmod(x, 1), x - jnp.floor(x)

    with wide(dtype):
        x, y = rng.normal(0, 30, 1009).astype(dtype), rng.normal(size=1009).astype(dtype)
        found, expected = (jit(function)(x, y) for jit in (lambda f: graphopt.jit(f, backend="numba"), jax.jit))
        for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
            same(one, other)


@each_dtype
def test_it_is_vectorized(dtype: str) -> None:
    """C's is called by what the loop's vectors call in other cases, not by the loop."""
    with wide(dtype):
        x = np.ones(1000, dtype)
        (kernel,) = kernels_of(lax.rem, x, x)
        body = instructions(kernel).split("\nvector.body:")[1].split("\n\n")[0]
        assert re.search(rf"fdiv <\d+ x {'float' if dtype == 'float32' else 'double'}>", body)
        assert "frem" not in body
