"""Loops wholly in one kernel: against JAX's, and their loop programs against the interpreter."""

import os
import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, seed, settings
from hypothesis import strategies as st
from jax import lax

import graphopt
from graphopt.analysis.loops import BLOCK, LEAST
from graphopt.backends.interpret import interpret, shaped
from graphopt.backends.numba.lowering import ENGINE
from graphopt.backends.reference import apply_opened, evaluate
from graphopt.ir.graph import Graph

from ...rules.drawing import values
from .test_halves import llvm_of_body
from .test_kernels import kernels, left, wide

SEED = int(os.environ.get("GRAPHOPT_TEST_SEED", "0"))


def newton(x: Any) -> Any:
    return lax.while_loop(lambda s: jnp.abs(s * s - x) > 1e-3 * x, lambda s: 0.5 * (s + x / s), x)


def escape(c: Any) -> Any:
    def body(state: Any) -> Any:
        return state[0] + 1, state[1] * state[1] + c

    more = lambda state: (state[0] < 40) & (state[1].real ** 2 + state[1].imag ** 2 < 4)
    return lax.while_loop(more, body, (0, jnp.zeros_like(c)))[0]


def collatz(n: Any) -> Any:
    half = lambda a: lax.cond(a % 2 == 0, lambda a: a // 2, lambda a: 3 * a + 1, a)
    return lax.while_loop(lambda s: s[0] > 1, lambda s: (half(s[0]), s[1] + 1), (n, 0))


def swapped(x: Any, y: Any) -> Any:
    return lax.fori_loop(0, 7, lambda i, s: (s[1], s[0] + i, s[2] * s[0]), (x, y, x))


def rungs(x: Any, u: Any) -> Any:
    return lax.scan(lambda c, v: (c * 0.5 + v, (c - v, jnp.float32(2))), x, u, reverse=True)


def inside_each_other(x: Any) -> Any:
    return lax.fori_loop(0, 5, lambda i, a: a + lax.fori_loop(0, i, lambda j, b: b * 0.5 + j, x), x)


def places(x: Any) -> Any:
    return lax.fori_loop(0, 3, lambda i, a: a + lax.broadcasted_iota(np.float32, a.shape, a.ndim - 1) * i, x)


def whole(function: Callable[..., Any], *args: Any, bits: bool = False, drawn: tuple[float, float] = (1, 3)) -> None:
    """A function runs in kernels alone, and gives what XLA gives; so does its loop program in the interpreter.

    drawn: from where to where that one's operands are.
    """
    jitted = graphopt.jit(function, backend="numba")
    graph = jitted.explain(*args).graph
    assert not left(graph), graph
    found, expected = jax.tree.leaves(jitted(*args)), jax.tree.leaves(jax.jit(function)(*args))
    for a, b in zip(found, expected, strict=True):
        assert (a.dtype, a.shape) == (b.dtype, b.shape)
        np.testing.assert_allclose(a, b, rtol=0 if bits else 3e-5, atol=0 if bits else 1e-6)
    if np.size(args[0]) < 200:
        for kernel in kernels(graph):
            interpreted(kernel, *drawn)


def interpreted(body: Graph, low: float = 1, high: float = 3) -> None:
    """A body's loop program in the interpreter, against the body."""
    random = np.random.default_rng(SEED)
    given = [np.asarray(random.uniform(low, high, q.aval.shape)).astype(q.aval.dtype) for q in body.params]
    found = shaped(interpret(ENGINE.program(body)[0], *given), [n.aval for n in body.outputs])
    for a, b in zip(found, evaluate(body, *given, apply=apply_opened), strict=True):
        assert (a.dtype, a.shape) == (b.dtype, b.shape)
        np.testing.assert_allclose(a, b, rtol=3e-5, atol=1e-6)


SHAPES = [(), (1,), (LEAST - 1,), (LEAST + 1,), (7, 13), (BLOCK * 8 + 3,), (2, 3, 101)]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_shapes(shape: tuple[int, ...]) -> None:
    x = np.random.default_rng(0).uniform(0.5, 2, shape).astype(np.float32)
    u = np.random.default_rng(1).uniform(0.5, 2, (4, *shape)).astype(np.float32)
    whole(swapped, x, x * 2 + 1)
    whole(rungs, x, u)
    if shape:
        whole(places, x)


@pytest.mark.parametrize("shape", [(7,), (3, 67), (BLOCK * 8 + 3,)], ids=str)
def test_each_element_runs_as_long_as_it_needs(shape: tuple[int, ...]) -> None:
    random = np.random.default_rng(0)
    x = random.uniform(0.5, 200, shape).astype(np.float32)
    c = (random.uniform(-2, 0.6, shape) + 1j * random.uniform(-1.2, 1.2, shape)).astype(np.complex64)
    batched: Any = jax.vmap(newton)
    escapes: Any = jax.vmap(escape)
    for _ in shape[1:]:
        batched, escapes = jax.vmap(batched), jax.vmap(escapes)
    whole(batched, x)
    found = graphopt.jit(escapes, backend="numba")(c)
    assert (np.asarray(found) == np.asarray(jax.jit(escapes)(c))).mean() > 0.98  # an orbit may be rounded otherwise


def test_numbers_alone() -> None:
    whole(newton, np.float32(2))
    whole(collatz, np.int32(27), bits=True)
    whole(inside_each_other, np.float32(1.5))
    whole(lambda x, u: rungs(x, u), np.float32(1), np.arange(9, dtype=np.float32))
    whole(lambda n: lax.while_loop(lambda s: s < n, lambda s: s * 2, 1), np.int32(0), bits=True)  # no iteration


@pytest.mark.parametrize("dtype", ["bool", "int8", "uint8", "int64", "float16", "bfloat16", "float64", "complex64"])
def test_dtypes(dtype: str) -> None:
    with wide(dtype):
        x = values(np.random.default_rng(0), dtype, (37,), False)
        if dtype == "bool":
            function: Any = lambda x: lax.fori_loop(0, 5, lambda i, s: (s[1], s[0] ^ s[1]), (x, ~x))
        else:
            function = lambda x: lax.fori_loop(0, 3, lambda i, s: (s[1], (s[0] - s[1]).astype(x.dtype)), (x, x + x))
        jitted = graphopt.jit(function, backend="numba")
        assert not left(jitted.explain(x).graph)
        for a, b in zip(jitted(x), jax.jit(function)(x), strict=True):
            np.testing.assert_array_equal(a, b)


def test_special_values() -> None:
    x = values(np.random.default_rng(0), "float32", (101,), True)
    x = np.where(np.abs(x) < np.finfo(np.float32).tiny, np.copysign(np.float32(0), x), x)
    function = lambda x: lax.fori_loop(0, 3, lambda i, s: (jnp.maximum(-s[0], s[1]), s[0] * 2), (x, x[::-1]))
    for a, b in zip(graphopt.jit(function, backend="numba")(x), jax.jit(function)(x), strict=True):
        np.testing.assert_array_equal(a, b)
        np.testing.assert_array_equal(np.signbit(a)[~np.isnan(b)], np.signbit(b)[~np.isnan(b)])


def test_what_is_not_taken_says_why() -> None:
    x = np.linspace(0, 1, 40, dtype=np.float32)

    def notes(function: Callable[..., Any], *args: Any) -> str:
        jitted = graphopt.jit(function, backend="numba")
        for a, b in zip(*(jax.tree.leaves(f(*args)) for f in (jitted, jax.jit(function))), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-5)
        return "\n".join(jitted.explain(*args).notes)

    assert "scan with sort" in notes(lambda x: lax.fori_loop(0, 3, lambda i, s: jnp.sort(s) * s, x), x)
    assert "while with sort" in notes(lambda x: lax.while_loop(lambda s: s[0] < 9, lambda s: jnp.sort(s) * 2 + 1, x), x)
    assert "while with a condition for each element" in notes(lambda x: jax.vmap(newton_of_sum)(x.reshape(4, 10)), x)


def newton_of_sum(x: Any) -> Any:
    return lax.while_loop(lambda s: s[0] < x.sum(), lambda s: (s[0] + 1, s[1] + x), (0.0, x))[1]


def test_the_elements_of_a_block_are_computed_in_vectors() -> None:
    x = np.ones(1000, np.float32)
    function = lambda x: lax.fori_loop(0, 50, lambda i, s: s * 0.9 + jnp.sin(s) * i, x)
    (body,) = kernels(graphopt.jit(function, backend="numba").explain(x).graph)
    text = llvm_of_body(body)
    assert re.search(r"fmul <(8|16) x float>", text)


def test_the_text_of_a_program() -> None:
    body = graphopt.trace(lambda n: lax.while_loop(lambda s: s < n, lambda s: s * 2, np.int32(1)))(np.int32(5))
    text = str(ENGINE.program(body)[0])
    assert re.search(r"again:\n +v\d+: bool = lt\(s\d+, x\d+\)\n +while v\d+:\n +v\d+: i32 = mul\(s\d+, 2\)", text), (
        text
    )


# ---- random bodies

BINARY = (jnp.add, jnp.subtract, jnp.multiply, jnp.maximum, jnp.minimum, jnp.arctan2)
UNARY = (jnp.sin, jnp.tanh, jnp.abs, jnp.negative, jnp.floor, jnp.sign)
bodies = st.lists(st.tuples(st.integers(0, 20), st.integers(0, 50), st.integers(0, 50)), min_size=1, max_size=12)


@seed(SEED)
@settings(max_examples=12)
@given(bodies, st.sampled_from([(), (5,), (3, 11), (1, 17)]), st.integers(1, 4), st.booleans(), st.integers(0, 2**16))
def test_random_bodies(body: list[tuple[int, int, int]], shape: Any, length: int, reverse: bool, number: int) -> None:
    random = np.random.default_rng(number)
    x, y = (random.normal(size=shape).astype(np.float32) for _ in range(2))
    rows = random.normal(size=(length, *shape)).astype(np.float32)

    def step(carry: Any, row: Any) -> Any:
        known = [carry[0], carry[1], row, carry[2].astype(np.float32), y]
        for kind, a, b in body:
            left, right = known[a % len(known)], known[b % len(known)]
            known.append(
                (BINARY[kind % 6](left, right))
                if kind < 14
                else UNARY[kind % 6](left)
                if kind < 18
                else jnp.where(left < right, left, right)
            )
        full = lambda v: jnp.broadcast_to(v, shape)
        return (full(known[-1]) * 0.5, full(known[-2]), carry[2] + 1), (full(known[-1]), known[3])

    function = lambda x, y, rows: lax.scan(step, (x, y, np.int32(0)), rows, reverse=reverse)
    jitted = graphopt.jit(function, backend="numba")
    assert not [name for name in left(jitted.explain(x, y, rows).graph) if name == "scan"]
    for a, b in zip(*(jax.tree.leaves(f(x, y, rows)) for f in (jitted, jax.jit(function))), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4)
