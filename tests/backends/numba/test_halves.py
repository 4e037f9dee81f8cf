"""float16 and bfloat16 in kernels: every number of 16 bits, to the bit where XLA rounds each operation once."""

import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import graphopt
from graphopt.backends.numba.compiling import text_of
from graphopt.backends.numba.engine import plan_by_key
from graphopt.backends.numba.lowering import ENGINE
from graphopt.backends.numba.names import function_of
from graphopt.backends.numba.scalar import FUNCTIONS
from graphopt.ir.graph import Graph

from .test_kernels import in_one_kernel, kernels, same

HALVES = ("float16", "bfloat16")
each_half = pytest.mark.parametrize("dtype", HALVES)


def all_bits(dtype: str) -> Any:
    return np.arange(1 << 16, dtype=np.uint16).view(np.dtype(dtype))


def all_numbers(dtype: str) -> Any:
    """All of them; of bfloat16 without the denormals, which XLA flushes in other operations with each version."""
    x = all_bits(dtype)
    with np.errstate(invalid="ignore"):
        return np.where(np.abs(x) < jnp.finfo(dtype).tiny, x * x.dtype.type(0), x) if dtype == "bfloat16" else x


def shuffled(x: Any) -> Any:
    return np.random.default_rng(3).permutation(x)


@each_half
def test_operations_on_every_number(dtype: str) -> None:
    """Each against two others. Chains are rounded after each operation, as if XLA computed one operation at a time: on a
    processor that computes on float16 it rounds a product and the sum that it goes into once."""
    x = all_numbers(dtype)
    y = shuffled(x)

    def function(x: Any, y: Any) -> Any:
        pairs = [f(x, y) for f in (lax.add, lax.sub, lax.mul, lax.div, lax.max, lax.min, lax.rem, lax.nextafter)]
        single = [f(x) for f in (lax.floor, lax.ceil, lax.round, lax.sign, lax.abs, lax.neg, lax.square)]
        powers = [lax.integer_pow(x, 3), lax.integer_pow(x, 6)]
        return [*pairs, *single, *powers, (x * y + y) * x - y, lax.lt(x, y), lax.eq(x, y), lax.is_finite(x)]

    compiled, _ = in_one_kernel(function, x, y)
    alone = function(jnp.asarray(x), jnp.asarray(y))
    for number, (found, expected) in enumerate(zip(compiled(x, y), alone, strict=True)):
        same(found, expected, what=f"{dtype}: {number}")


@each_half
def test_exact_numerics_give_the_same_bits(dtype: str) -> None:
    x = shuffled(all_numbers(dtype))
    function = lambda x, y: (x * y + y) * jnp.abs(x) - jnp.maximum(x, y)
    jitted = graphopt.jit(function, backend="numba", numerics="exact")
    assert kernels(jitted.explain(x, x[::-1]).graph)
    same(jitted(x, x[::-1]), function(jnp.asarray(x), jnp.asarray(x[::-1])))


@each_half
def test_conversions_from_and_to_every_dtype(dtype: str) -> None:
    random = np.random.default_rng(0)
    half = all_numbers(dtype)
    with jax.enable_x64(True):
        wide = random.normal(size=5000) * 10.0 ** random.integers(-44, 39, 5000)
        # Halfway between two halves, and next to it.
        steps = jnp.finfo(dtype).eps / 2 * np.arange(1, 400)
        ties = np.concatenate([1 + steps, 1 + steps + 1e-9, 1 + steps - 1e-9, [np.nan, np.inf, -np.inf, -0.0]])
        floats = np.concatenate([wide, ties, 1024 * ties])
        integers = random.integers(-(2**62), 2**62, 5000) >> random.integers(0, 62, 5000)
        sources = [floats, floats.astype(np.float32), integers, *(integers.astype(d) for d in ("i4", "u4", "u8", "i1"))]
        to = np.dtype(dtype)
        names = ("bool", "int8", "uint8", "int32", "int64", "uint64", "float32", "float64", *HALVES)
        function = lambda x: [lax.convert_element_type(x, np.dtype(name)) for name in names]
        for found, expected in zip(in_one_kernel(function, half)[0](half), jax.jit(function)(half), strict=True):
            same(found, expected)
        for source in sources:
            convert = lambda x: lax.convert_element_type(x, to)
            same(in_one_kernel(convert, source)[0](source)[0], jax.jit(convert)(source))


@each_half
def test_functions_are_rounded_from_float32(dtype: str) -> None:
    x = np.random.default_rng(0).uniform(0.05, 0.95, 999).astype(dtype)
    operands = x, x[::-1].copy(), 1 / x
    names = sorted(op.name for op in FUNCTIONS)
    others: dict[str, Any] = {
        "pow": lambda x, y, z: lax.pow(x, y),
        "atan2": lambda x, y, z: lax.atan2(x, y),
        "acosh": lambda x, y, z: lax.acosh(z),
    }
    function = lambda *xs: [others[n](*xs) if n in others else getattr(lax, n)(xs[0]) for n in names]
    compiled, _ = in_one_kernel(function, *operands)
    wide = jax.jit(function)(*[operand.astype(np.float32) for operand in operands])
    for name, found, exact in zip(names, compiled(*operands), wide, strict=True):
        error = np.abs(np.asarray(found, np.float32) - exact)
        assert (error <= 0.51 * float(jnp.finfo(dtype).eps) * np.abs(exact)).all(), name


@each_half
@pytest.mark.parametrize("shape", [(), (7,), (3, 101), (2, 70_001)])
def test_reductions(dtype: str, shape: tuple[int, ...]) -> None:
    """Sums and products are accumulated in float32: within the rounding of one operation of the exact ones."""
    x = np.random.default_rng(1).uniform(0.9, 1.1, shape).astype(dtype)
    if not shape:
        same(graphopt.jit(lambda x: x * x + x, backend="numba")(x), jax.jit(lambda x: x * x + x)(x))
        return
    axes = (len(shape) - 1,)
    exact = lambda x: (
        *(lax.reduce_max(x, axes), lax.reduce_min(x, axes)),
        *(lax.argmax(x, axes[0], np.int32), lax.argmin(x, axes[0], np.int32)),
        *(lax.cummax(x, axes[0]), lax.cummin(x, axes[0], reverse=True)),
    )
    jitted = graphopt.jit(exact, backend="numba")
    assert len(kernels(jitted.explain(x).graph)) > 0
    for found, expected in zip(jitted(x), jax.jit(exact)(x), strict=True):
        same(found, expected)
    x = (x.astype(np.float32) - 1).astype(dtype)
    sums = lambda x: (lax.reduce_sum(x, axes), lax.cumsum(x, axes[0]))
    found, running = graphopt.jit(sums, backend="numba")(x)
    wide, eps = x.astype(np.float64), float(jnp.finfo(dtype).eps)
    np.testing.assert_allclose(np.asarray(found, np.float64), wide.sum(-1), atol=1e-3, rtol=eps)
    np.testing.assert_allclose(np.asarray(running, np.float64), wide.cumsum(-1), atol=2e-3, rtol=eps)
    product = graphopt.jit(lambda x: lax.reduce_prod(x, axes), backend="numba")
    small = x[..., :50]
    np.testing.assert_allclose(
        np.asarray(product(small), np.float64),
        small.astype(np.float64).prod(-1),
        rtol=eps,
        atol=float(jnp.finfo(dtype).tiny),
    )


@each_half
def test_special_values_in_reductions(dtype: str) -> None:
    x = shuffled(all_numbers(dtype)).reshape(256, 256)
    with np.errstate(invalid="ignore"):
        x = np.where(np.isnan(x), np.array(np.nan, x.dtype), x)  # of a negative NaN XLA may make a number here
    function = lambda x: (lax.reduce_max(x, (1,)), lax.argmax(x, 1, np.int32), lax.argmin(x, 1, np.int32))
    for found, expected in zip(in_one_kernel(function, x)[0](x), jax.jit(function)(x), strict=True):
        same(found, expected)


@each_half
def test_sorts(dtype: str) -> None:
    for x in (shuffled(all_numbers(dtype)), shuffled(all_numbers(dtype))[: 53 * 61].reshape(53, 61)):
        function = lambda x: (jnp.sort(x, 0), jnp.argsort(x, -1), lax.sort([x, x * 2], num_keys=1, dimension=0))
        jitted = graphopt.jit(function, backend="numba")
        assert sum(n.op.name == "sort" for k in jitted.explain(x).kernels for n in k.body.nodes) == 3
        for found, expected in zip(jax.tree.leaves(jitted(x)), jax.tree.leaves(jax.jit(function)(x)), strict=True):
            same(found, expected)


@each_half
def test_moves_and_choices_keep_every_bit(dtype: str) -> None:
    """A signalling NaN too, which widening would make quiet."""
    x = all_bits(dtype)

    def function(x: Any) -> Any:
        y = lax.rev(x.reshape(256, 256).T, (0,))
        z = jnp.where(jnp.arange(256) % 3 == 0, y, y[::-1])
        return lax.bitcast_convert_type(z, np.uint16), lax.bitcast_convert_type(jnp.pad(z, 1), np.int16)

    jitted = graphopt.jit(function, backend="numba")
    assert kernels(jitted.explain(x).graph)
    bits = x.view(np.uint16).reshape(256, 256).T[::-1]
    expected = np.where(np.arange(256) % 3 == 0, bits, bits[::-1])
    for found, moved in zip(jitted(x), (expected, np.pad(expected, 1).view(np.int16)), strict=True):
        np.testing.assert_array_equal(found, moved)


@each_half
def test_constants_iota_and_clamp(dtype: str) -> None:
    x = all_numbers(dtype)
    of = np.dtype(dtype)

    def function(x: Any) -> Any:
        places = lax.iota(of, 5003)[:, None] * of.type(0.25)
        limited = lax.clamp(of.type(-2.5), x, of.type(1e4))
        return jnp.where(places > 3, places, -places) + limited[:7], limited

    jitted = graphopt.jit(function, backend="numba")
    for found, expected in zip(jitted(x), jax.jit(function)(x), strict=True):
        same(found, expected)


@pytest.mark.parametrize("of", ["uint8", "int16", "float16", "bfloat16", "uint32", "float32", "float64"])
@pytest.mark.parametrize("to", ["int8", "uint16", "bfloat16", "float16", "int32", "float32", "uint64"])
def test_bits_to_another_width(of: str, to: str) -> None:
    with jax.enable_x64(True):
        widths = np.dtype(of).itemsize, np.dtype(to).itemsize
        raw = np.random.default_rng(0).integers(0, 256, 3 * 5 * 8, dtype=np.uint8).view(of)
        x = raw.reshape(5, -1, widths[1] // widths[0]) if widths[1] > widths[0] else raw.reshape(5, -1)
        function = lambda x: lax.bitcast_convert_type(x, np.dtype(to)).T
        found, expected = graphopt.jit(function, backend="numba")(x), jax.jit(function)(x)
        assert (found.dtype, found.shape) == (expected.dtype, expected.shape)
        assert np.asarray(found).tobytes() == np.asarray(expected).tobytes()
        if widths[0] != widths[1]:
            assert ENGINE.declines(graphopt.trace(function)(x).nodes[1], exact=True) is None


def llvm_of(function: Callable[..., Any], *args: Any) -> str:
    return llvm_of_body(graphopt.trace(function)(*args))


def llvm_of_body(body: Graph) -> str:
    plan = ENGINE.plan(body, True)
    assert plan is not None
    return text_of(function_of(plan_by_key(plan.key).source))


@each_half
def test_a_chain_is_vectorized(dtype: str) -> None:
    x = all_numbers(dtype)
    text = llvm_of(lambda x, y: jnp.exp(x * y + y) - x, x, x)
    assert re.search(r"fmul <(8|16) x float>", text), text
    assert re.search(r"load <(8|16) x (i16|half)>", text), text
    assert re.search(r"store <(8|16) x (i16|half)>", text), text
