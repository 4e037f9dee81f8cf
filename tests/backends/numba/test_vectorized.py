"""Kernels of whole programs: LLVM vectorized the loop that counts."""

import platform
import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from .vectors import accumulates_in_vectors, instructions, kernels_of

pytestmark = pytest.mark.skipif(platform.machine() not in ("x86_64", "aarch64"), reason="no vectors are known of")


def drawn(*shape: int) -> Any:
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def forces(x: Any) -> Any:
    d = x[:, None] - x[None]
    return (d * (((d * d).sum(-1) + 1e-3) ** -1.5)[..., None]).sum(1)


def kernel_sums(x: Any, v: Any) -> Any:
    return (jnp.exp(-jnp.square(x[:, None] - x[None]).sum(-1)) * v).sum(1)


SUMS: dict[str, tuple[Callable[..., Any], tuple[Any, ...]]] = {
    "forces": (forces, (drawn(300, 3),)),
    "sums of a kernel": (kernel_sums, (drawn(300, 3), drawn(300))),
    "sums that share a loop": (lambda x: x.sum(1) * (x * x).sum(1), (drawn(30, 20_000),)),
}


WEIGHTS = np.arange(300 * 2000, dtype=np.int8).reshape(300, 2000)
SUMS |= {
    "a product by rows": (lambda w, x: (w.astype(jnp.float32) * 2) @ x, (WEIGHTS, drawn(2000))),
}


@pytest.mark.parametrize("name", SUMS)
def test_sums_are_vectors(name: str) -> None:
    function, args = SUMS[name]
    (kernel,) = kernels_of(function, *args)
    code = instructions(kernel)
    assert accumulates_in_vectors(code)
    assert not re.search(r"masked\.gather|call \w* @(?:pow|exp)f?\(", code)


MASK, FLAT = np.arange(300) % 3 == 0, drawn(300)

ELEMENTS: dict[str, tuple[Callable[..., Any], tuple[Any, ...]]] = {
    "a choice by a boolean operand": (jnp.where, (MASK, FLAT, -FLAT)),
    "a choice of numbers by integers": (
        lambda n, x, y: lax.select_n(n, x, y, x * 2),
        (np.arange(300, dtype=np.int32) % 3, FLAT, -FLAT),
    ),
    "a sum under a mask": (lambda m, x: jnp.where(m, x, 0).sum(), (MASK, FLAT)),
    "integers of numbers": (lambda x: x.astype(jnp.int32), (FLAT,)),
    "bytes of numbers": (lambda x: x.astype(jnp.uint8), (FLAT,)),
    "rows in the other order": (lambda x: x[::-1] * 2, (drawn(30, 300),)),
}


@pytest.mark.parametrize("name", ELEMENTS)
def test_elements_are_computed_in_vectors(name: str) -> None:
    """Every operand's elements are loaded by vectors, and nothing is converted one element at a time."""
    function, args = ELEMENTS[name]
    (kernel,) = kernels_of(function, *args)
    code = instructions(kernel)
    for arg in args:
        kind = {"f": "float", "i": "i32", "b": "i8"}[arg.dtype.kind]
        assert re.search(rf"load <\d+ x {kind}>", code)
    assert "fptosi.sat" not in code and "fptoui.sat" not in code


def test_without_vectors_it_is_seen() -> None:
    """A chain in which each step needs the one before has none."""
    (kernel,) = kernels_of(lambda x: jnp.cumsum(x * 2), drawn(300))
    assert not accumulates_in_vectors(instructions(kernel))


def test_two_vectors_at_a_time_where_there_is_much_to_do() -> None:
    """One would wait for itself: what LLVM leaves alone as long enough is asked to be interleaved."""
    x = np.ones(10_000, np.float32)
    for function, vectors in ((lax.erf, 2), (jnp.exp, 2)):
        (kernel,) = kernels_of(function, x)
        body = instructions(kernel).split("\nvector.body:")[1].split("\n\n")[0]
        assert len(re.findall(r"load <\d+ x float>", body)) == vectors, function


@pytest.mark.parametrize(("size", "vectors"), [(16, 1), (24, 1), (48, 1), (64, 2)])
def test_one_vector_at_a_time_where_two_would_leave_many_steps(size: int, vectors: int) -> None:
    """What is left is done one by one: all of a loop over 16 elements."""

    def decayed(x: Any) -> Any:
        return lax.scan(lambda s, row: (s * jax.nn.sigmoid(row), None), x[0], x)[0]

    (kernel,) = kernels_of(decayed, np.ones((9, size), np.float32))
    bodies = [part.split("\n\n")[0] for part in instructions(kernel).split("\nvector.body")[1:]]
    (body,) = [body for body in bodies if "fdiv" in body]
    assert len(re.findall(r"= fdiv[a-z ]* <\d+ x float>", body)) == vectors
