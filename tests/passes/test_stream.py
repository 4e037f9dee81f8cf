"""Streaming: a kernel takes the place of what stands between products, with the results of `jax.jit`."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import graphopt
from graphopt.ir.graph import nested_graphs
from graphopt.ops.kernel import KERNEL
from graphopt.passes.chunk import Chunk
from graphopt.passes.pipelines import STANDARD
from graphopt.rewrite.passes import Pass

from .test_chunk import attention, capped, causal, grouped, linear_kernel, of_jax, operands, same

PASSES: tuple[Pass, ...] = (*STANDARD[:-1], Chunk(large=1 << 12))


def kernels(function: Callable[..., Any], *args: Any, **options: Any) -> int:
    """How many kernels there are of several products."""
    options = {"backend": "numba", "passes": PASSES, **options}
    graph = graphopt.jit(function, **options).explain(*args).graph
    bodies = [n.attrs["body"].graph for inner in nested_graphs(graph) for n in inner.nodes if n.op is KERNEL]
    return sum(sum(node.op.name == "dot_general" for node in body.nodes) > 1 for body in bodies)


@pytest.mark.parametrize("form", [attention, causal, capped, grouped, of_jax], ids=lambda form: form.__name__)
def test_forms(form: Callable[..., Any]) -> None:
    args = operands(2, 61, 18)
    assert kernels(form, *args) == 1
    same(jax.jit(form)(*args), graphopt.jit(form, backend="numba", passes=PASSES)(*args), 2e-5)


@pytest.mark.parametrize("form", [attention, causal, grouped], ids=lambda form: form.__name__)
def test_gradients(form: Callable[..., Any]) -> None:
    def gradient(*args: Any) -> Any:
        return jax.grad(lambda *args: (form(*args) ** 2).sum(), (0, 1, 2))(*args)

    args = operands(2, 61, 18)
    assert kernels(gradient, *args) == 1
    same(jax.jit(gradient)(*args), graphopt.jit(gradient, backend="numba", passes=PASSES)(*args), 1e-4)


@pytest.mark.parametrize("in_loop", [False, True])
def test_what_a_checkpoint_computes_again(in_loop: bool) -> None:
    def layers(*args: Any) -> Any:
        if not in_loop:
            return jax.checkpoint(attention)(*args)
        q, k, v = args
        return jax.lax.scan(lambda q, _: (jax.checkpoint(attention)(q, k, v), None), q, length=3)[0]

    def gradient(*args: Any) -> Any:
        return jax.grad(lambda *args: (layers(*args) ** 2).sum(), (0, 1, 2))(*args)

    args = operands(2, 61, 18)
    graph = graphopt.jit(gradient, backend="numba", passes=PASSES).explain(*args).graph
    again = [n.subgraphs[0].graph for inner in nested_graphs(graph) for n in inner.nodes if "remat" in n.op.name]
    assert len(again) == 1 and [n.op for n in again[0].nodes].count(KERNEL) == 1
    same(jax.jit(gradient)(*args), graphopt.jit(gradient, backend="numba", passes=PASSES)(*args), 1e-4)


def test_what_a_kernel_reads_whole_is_named() -> None:
    def dropped(q: Any, k: Any, v: Any, key: Any) -> Any:
        weights = jax.nn.softmax(q @ k.swapaxes(1, 2))
        return jnp.where(jax.random.bernoulli(key, 0.9, weights.shape), weights / 0.9, 0) @ v

    args = (*operands(2, 61, 18), jax.random.key(0))
    assert kernels(dropped, *args) == 1
    jitted = graphopt.jit(dropped, backend="numba", passes=PASSES)
    notes = [str(note) for note in jitted.explain(*args).notes]
    assert any("not row by row: " in note and "[2, 61, 61] of 0 MB, which that kernel reads" in note for note in notes)
    same(jax.jit(dropped)(*args), jitted(*args), 2e-5)


def test_a_gradient_of_one_matrix() -> None:
    """Its sums over rows are of all operations, and are added up of parts."""

    def gradient(q: Any, k: Any, v: Any) -> Any:
        return jax.grad(lambda *args: ((jax.nn.softmax(args[0] @ args[1].T) @ args[2]) ** 2).sum(), (0, 1, 2))(q, k, v)

    args = [x[0] for x in (*operands(1, 203, 18)[:1], *operands(1, 61, 18)[1:])]
    assert kernels(gradient, *args) == 1
    same(jax.jit(gradient)(*args), graphopt.jit(gradient, backend="numba", passes=PASSES)(*args), 1e-4)


def shared(q: Any, k: Any, v: Any) -> Any:
    """Keys that all matrices share: their gradient is of all, that of the values of each."""
    return jnp.einsum("bqk,bkd->bqd", jax.nn.softmax(jnp.einsum("bqd,kd->bqk", q, k[0])), v)


def of_distances(q: Any, k: Any, v: Any) -> Any:
    """Products that are so thin that loops are made of them, with results of several shapes."""
    x, y = q[0, :, :4], k[0, :, :4]
    return jnp.exp(2 * x @ y.T - (x * x).sum(1)[:, None] - (y * y).sum(1)) @ v[0, :, 0]


def one_row(q: Any, k: Any, v: Any) -> Any:
    return attention(q[:, :1], k, v)


@pytest.mark.parametrize("form", [shared, of_distances, one_row], ids=lambda form: form.__name__)
def test_gradients_that_are_not_of_one_kernel(form: Callable[..., Any]) -> None:
    def gradient(*args: Any) -> Any:
        return jax.grad(lambda *args: (form(*args) ** 2).sum(), (0, 1, 2))(*args)

    args = operands(2, 43, 12)
    passes = (*STANDARD[:-1], Chunk(large=1 << 6, block=1 << 6, rows=1, gain=0))
    same(jax.jit(gradient)(*args), graphopt.jit(gradient, backend="numba", passes=passes)(*args), 1e-4)


def test_what_a_kernel_is_not_for_stays() -> None:
    args = operands(2, 61, 18)
    assert kernels(linear_kernel, *args) == 0
    assert kernels(attention, *args, numerics="exact") == 0
    assert kernels(attention, *args, passes=STANDARD) == 0  # nothing is large
    assert kernels(attention, *operands(2, 61, 18, jnp.bfloat16)) == 0
    assert kernels(attention, *args, backend="xla") == 0


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_narrow_products_stay_and_the_report_says_why(dtype: Any) -> None:
    args = [x.astype(dtype) for x in operands(2, 67, 18)]
    assert kernels(attention, *args) == 0
    notes = graphopt.jit(attention, backend="numba", passes=PASSES).explain(*args).notes
    assert any(str(note) == f"stream: not row by row: a product of {jnp.dtype(dtype)}" for note in notes)
    wide = [x.astype(jnp.float32) for x in args]
    result = graphopt.jit(attention, backend="numba", passes=PASSES)(*args)
    same(jax.jit(attention)(*wide), result.astype(jnp.float32), 0.05)


def test_inside_of_a_loop() -> None:
    def layers(x: Any) -> Any:
        return jax.lax.scan(lambda y, _: (y + attention(y, y, y), None), x, None, length=3)[0]

    x = operands(2, 61, 18)[0]
    assert kernels(layers, x) == 1
    same(jax.jit(layers)(x), graphopt.jit(layers, backend="numba", passes=PASSES)(x), 2e-5)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, -0.0, 1e-42])
def test_what_is_not_finite(value: float) -> None:
    args = operands(2, 61, 18)
    args[0] = args[0].at[0, 3, 1].set(value)
    args[2] = args[2].at[1, 60, 2].set(value)
    found = graphopt.jit(attention, backend="numba", passes=PASSES)(*args)
    np.testing.assert_allclose(found, jax.jit(attention)(*args), rtol=2e-5, atol=1e-6)


def test_engines_are_chosen_by_time() -> None:
    """A window leaves so little of all columns that they are not all computed for it."""

    def window(width: int, q: Any, k: Any, v: Any) -> Any:
        place = jnp.arange(q.shape[0])
        near = jnp.abs(place[:, None] - place[None]) < width
        return jax.nn.softmax(jnp.where(near, q @ k.T, -jnp.inf), -1) @ v

    args = [jax.ShapeDtypeStruct((4096, 64), np.float32)] * 3
    found = [kernels(functools.partial(window, width), *args, backend="auto", passes=None) for width in (4096, 64)]
    assert found == [1, 0]


def test_the_report_says_what_was_done() -> None:
    report = graphopt.jit(attention, backend="numba", passes=PASSES).explain(*operands(2, 61, 18))
    assert "row by row" in str(report)
