"""What is written over operands: what loops carry and what others have made, and nothing that is needed again."""

import os
import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import graphopt
from graphopt.ir.graph import nested_graphs
from graphopt.ops.kernel import KERNEL
from graphopt.passes.chunk import Chunk
from graphopt.passes.pipelines import STANDARD

from ..prescribed import prescribed

SEED = int(os.environ["GRAPHOPT_TEST_SEED"])
X = np.random.default_rng(0).normal(size=(60, 50)).astype(np.float32)


def pairs(function: Callable[..., Any], *args: Any) -> list[Any]:
    """What the kernels of a program write over; its results are JAX's."""
    jitted = graphopt.jit(function, backend="numba")
    for found, expected in zip(jax.tree.leaves(jitted(*args)), jax.tree.leaves(jax.jit(function)(*args)), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
    graph = jitted.explain(*args).graph
    nodes = [node for inner in nested_graphs(graph) for node in inner.nodes if node.op is KERNEL]
    return sorted(node.attrs.get("in_place", ()) for node in nodes)


def test_what_another_operation_has_made() -> None:
    assert pairs(lambda x: jnp.square(prescribed(x, x.T)) * 2 + 1, X) == [((0, 0),)]
    assert pairs(lambda x: (y := prescribed(x, x.T)) * 2 + lax.digamma(y), X) in (
        [((1, 0),)],
        [((0, 0),)],
    )  # over digamma's result


def test_arguments_and_what_is_needed_again_stay() -> None:
    assert pairs(lambda x: x * 2 + 1, X) == [()]
    assert pairs(lambda x: (y := prescribed(x, x.T), y * 2 + 1), X) == [()]
    assert pairs(lambda x: (jnp.flip(prescribed(x, x.T), 0)) * 2, X) == [()]


TURN = np.eye(50, k=1, dtype=np.float32)


def slow(i: Any) -> Any:
    """What is left to XLA, for the loop to be no kernel as a whole."""
    return lax.digamma(i + jnp.float32(2))


LOOPS: dict[str, Callable[[Any], Any]] = {
    "elementwise": lambda x: lax.fori_loop(0, 5, lambda i, x: prescribed(x, TURN) * 0.5 + x + 1, x),
    "an update": lambda x: lax.fori_loop(0, 9, lambda i, x: lax.dynamic_update_slice(x, x[:1, :3] * 0, (i, i)), x),
    "a slice is changed": lambda x: lax.fori_loop(0, 9, lambda i, x: x.at[i * 2, 1].multiply(slow(i)), x),
    "a scatter": lambda x: lax.fori_loop(0, 9, lambda i, x: x.at[jnp.arange(3) * i].add(slow(i)), x),
    "a scan": lambda x: lax.scan(lambda c, row: (c.at[jnp.int32(row[0])].set(row), slow(abs(row))), x * 0, x),
    "a while": lambda x: lax.while_loop(
        lambda c: c[0] < 7, lambda c: (c[0] + 1, prescribed(c[1], TURN) - c[1]), (0, x)
    )[1],
}


@pytest.mark.parametrize("name", LOOPS)
def test_what_a_loop_carries(name: str) -> None:
    found = pairs(LOOPS[name], X)
    assert any(found) == (name != "an update"), found
    if any(found):
        text = graphopt.jit(LOOPS[name], backend="numba").lower(X).compile().as_text()
        bodies = [part for part in re.split(r"\n(?=%|ENTRY)", text) if not part.startswith("ENTRY")]
        assert not re.search(r"f32\[60,50\]\S* copy\(", "\n".join(bodies))


def test_what_a_loop_reads_elsewhere_is_not_written_over() -> None:
    """A constant of the loop, and what the next value of another carry is made of."""
    assert not any(
        pairs(lambda x: lax.fori_loop(0, 5, lambda i, c: c * 0.5 + jnp.max(x * 2 + c), jnp.float32(0)), X)[:1][0]
    )
    swap = lambda x: lax.fori_loop(0, 5, lambda i, c: (c[1] * 2, c[0] + 1), (x, x + 3))
    assert not any(pairs(swap, X))
    shift = lambda x: lax.fori_loop(0, 5, lambda i, x: jnp.roll(x, 1, 0) * 0.5, x)
    assert not any(pairs(shift, X))


def test_results_are_the_same_every_time() -> None:
    """An operand that a caller still has is not changed."""
    x = jnp.asarray(X)
    for function in LOOPS.values():
        jitted = graphopt.jit(function, backend="numba")
        first = jax.tree.map(np.asarray, jitted(x))
        for a, b in zip(jax.tree.leaves(first), jax.tree.leaves(jitted(x)), strict=True):
            np.testing.assert_array_equal(a, b)
        np.testing.assert_array_equal(x, X)


def test_values_of_attention_are_read_by_all_rows() -> None:
    """A product's result has the shape of its factor, which another product has made, and which each row needs."""

    def function(x: Any, *weights: Any) -> Any:
        query, key, value = (x @ w * 0.1 for w in weights)
        return jax.nn.softmax(query @ key.T / 8) @ value

    rng = np.random.default_rng(SEED)
    args = [rng.normal(size=shape).astype(np.float32) for shape in ((400, 64), *3 * ((64, 64),))]
    passes = (*STANDARD[:-1], Chunk(large=1 << 12))
    found = graphopt.jit(function, backend="numba", passes=passes)(*args)
    np.testing.assert_allclose(found, jax.jit(function)(*args), rtol=1e-3, atol=1e-4)


def test_xla_copies_what_it_finds_to_be_needed_again() -> None:
    """Two operands that are one in XLA, which merges what the graph keeps apart: it is read elsewhere too."""

    def function(x: Any) -> Any:
        return lax.digamma(x) * 3 + lax.rev(lax.digamma(x.reshape(-1).reshape(x.shape)), (0,))

    jitted = graphopt.jit(function, backend="numba", passes=())
    (node,) = [n for n in jitted.explain(X).graph.nodes if n.op is KERNEL]
    assert node.attrs["in_place"] == ((0, 0),) and len(set(node.inputs)) == 2
    np.testing.assert_allclose(jitted(X), jax.jit(function)(X), rtol=1e-5, atol=1e-6)
