"""What a comparison of two graphs finds, and what it lets pass: rounding, and overflow that the order decides."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from graphopt.backends.agreement import disagreement
from graphopt.trace.jaxpr import trace_function

LARGEST = np.finfo(np.float32).max


def compared(before: Callable[..., Any], after: Callable[..., Any], *args: Any, safety: str = "reassociate") -> bool:
    """Whether two functions agree."""
    first, _ = trace_function(before, *args)
    second, _ = trace_function(after, *args)
    return disagreement(first, second, args, safety) is None


def floats(*values: float) -> Any:
    return np.array(values, np.float32)


def backwards(x: Any) -> Any:
    """The sum from the last element to the first, in that order."""
    return lax.fori_loop(1, len(x), lambda k, total: total + x[len(x) - 1 - k], x[len(x) - 1])


@pytest.mark.parametrize(
    "x",
    [
        floats(LARGEST, LARGEST, -LARGEST, -LARGEST),
        floats(np.inf, -LARGEST, -LARGEST, 1),
        floats(-LARGEST, -LARGEST, 700, np.inf),
        floats(1e38, 1e38, 1e38, 1e38),
    ],
)
def test_overflow_on_the_way_depends_on_the_order(x: Any) -> None:
    assert compared(jnp.sum, backwards, x)
    assert compared(jnp.sum, lambda x: lax.cumsum(x, reverse=True)[0], x)
    assert compared(lambda x: lax.cumsum(x)[-1], backwards, x)
    assert compared(lambda x: lax.dot(x, jnp.ones_like(x)), backwards, x)
    assert compared(jnp.sum, lambda x: x[0] * jnp.nan, x)  # not known: this is what it costs


@pytest.mark.parametrize("x", [floats(1e38, 1e38, 1e-38), floats(1e-38, 1e-38, 1e38), floats(3e38, 1e-30, 1e30)])
def test_products_too(x: Any) -> None:
    assert compared(jnp.prod, lambda x: x[2] * x[0] * x[1], x)
    assert compared(jnp.prod, lambda x: lax.cumprod(x, reverse=True)[0], x)


@pytest.mark.parametrize("x", [floats(1, 2, 3), floats(1, np.inf, 2), floats(np.inf, -np.inf, 1), floats(1, np.nan)])
def test_other_sums_are_known(x: Any) -> None:
    assert compared(jnp.sum, backwards, x)
    assert not compared(jnp.sum, lambda x: jnp.where(jnp.isfinite(x).all(), backwards(x) * 1.001, 3), x)


def test_of_complex_numbers_each_part() -> None:
    x = np.array([LARGEST + 1j, LARGEST + 2j, -LARGEST + 3j, np.nan * 1j], np.complex64)
    assert compared(jnp.sum, backwards, x)
    assert not compared(jnp.sum, lambda x: backwards(x) + 1j, np.array([1, 2, 3j], np.complex64))


def test_every_bit_of_what_is_exact() -> None:
    x = floats(1, 3e-8, 3e-8, 3e-8)
    assert compared(jnp.sum, backwards, x) and not compared(jnp.sum, backwards, x, safety="exact")
    assert not compared(lambda x: x * 0, lambda x: -x * 0, x, safety="exact")


def test_a_reciprocal_may_be_flushed() -> None:
    x = floats(0, 700, -1, -2.5)
    assert compared(lambda x, y: (x / y).sum(), lambda x, y: x.sum() / y, x, -LARGEST)
    assert not compared(lambda x, y: (x / y).sum(), lambda x, y: x.sum() / y + 1e-30, x, -LARGEST)


@pytest.mark.parametrize("safety", ["exact", "reassociate"])
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_bits_of_nans_are_not_known(safety: str, dtype: str) -> None:
    """Those of other values are, and so is what does not depend on which NaN it is."""
    x, which = np.array([1, np.nan, -np.nan], dtype), np.array([True, False, False])
    width = np.dtype(f"i{x.dtype.itemsize}")
    bits = lambda x: lax.bitcast_convert_type(x, width)
    assert compared(bits, lambda x: bits(jnp.where(jnp.isnan(x), -x, x)), x, safety=safety)
    assert compared(bits, lambda x: bits(jnp.where(jnp.isnan(x), jnp.array(np.nan, x.dtype), x)), x, safety=safety)
    negative = lambda x: bits(x) < 0
    assert not compared(negative, lambda x: negative(jnp.where(which, -x, x)), x, safety=safety)
    assert not compared(bits, lambda x: bits(x) + 2 * bits(jnp.ones_like(x)), x[:1], safety="exact")
