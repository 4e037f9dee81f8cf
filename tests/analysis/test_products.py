"""Products as sums of products: what loop programs of them compute, on every arrangement of axes, and what is left."""

from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st
from jax import lax

from graphopt.analysis.products import DOT, declined, expanded
from graphopt.backends.interpret import interpret, shaped
from graphopt.backends.numba.engine import NumbaEngine
from graphopt.backends.reference import evaluate
from graphopt.trace.jaxpr import trace_function

from .test_derive import SEED, whole

ENGINE = NumbaEngine()


def agrees(function: Any, *args: Any) -> None:
    """Its loop program, interpreted, and the graph without products have the bits of the evaluator."""
    graph, _ = trace_function(function, *args)
    assert all(declined(n) is None for n in graph.nodes if n.op is DOT)
    expected = evaluate(graph, *args)
    without, _ = expanded(graph)
    assert not any(n.op is DOT for n in without.nodes)
    found = shaped(interpret(ENGINE.program(graph)[0], *args), graph.out_avals)
    for results in (evaluate(without, *args), found):
        for f, e in zip(results, expected, strict=True):
            np.testing.assert_array_equal(f, e, strict=True)


@st.composite
def products(draw: Any) -> tuple[Any, tuple[int, ...], tuple[int, ...]]:
    """The axes of a dot_general in any order, and shapes of its factors."""
    counts = [draw(st.integers(0, 2)) for _ in range(4)]  # side by side, summed, the left one's, the right one's
    sizes = [[draw(st.integers(1, 4)) for _ in range(count)] for count in counts]
    both, shapes, places = [*sizes[0], *sizes[1]], [], []
    for free in sizes[2:]:
        axes = draw(st.permutations(range(len(both) + len(free))))
        shape = [0] * len(axes)
        for axis, size in zip(axes, [*both, *free], strict=True):
            shape[axis] = size
        shapes.append(tuple(shape))
        places.append((tuple(axes[: counts[0]]), tuple(axes[counts[0] : len(both)])))
    numbers = ((places[0][1], places[1][1]), (places[0][0], places[1][0]))
    return numbers, shapes[0], shapes[1]


@seed(SEED)
@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck), derandomize=False)
@given(products())
def test_any_axes(product: Any) -> None:
    numbers, left, right = product
    agrees(lambda x, y: lax.dot_general(x, y, numbers), whole(*left), whole(*right, seed=1))


@pytest.mark.parametrize(
    ("of", "to"),
    [
        (("int8", "int8"), "int32"),
        (("uint8", "uint8"), None),
        (("int16", "int16"), "float32"),
        (("bfloat16", "bfloat16"), None),
        (("bfloat16", "float32"), "float32"),
        (("float16", "float16"), "float32"),
    ],
)
def test_dtypes(of: tuple[str, str], to: str | None) -> None:
    x, y = (jnp.asarray(whole(5, 7, seed=k)).astype(dtype) for k, dtype in enumerate(of))
    agrees(lambda x, y: lax.dot_general(x, y, (((1,), (1,)), ((), ())), preferred_element_type=to), x, y)
    agrees(lambda x, y: lax.dot_general(x, y[0], (((1,), (0,)), ((), ())), preferred_element_type=to) * 2, x, y)


def test_what_is_around_is_in_the_same_program() -> None:
    w, s, x = whole(9, 33, dtype="int8"), whole(9), whole(33)
    agrees(lambda w, s, x: jnp.maximum((w.astype(jnp.float32) * s[:, None]) @ x, 0), w, s, x)
    agrees(lambda w, s, x: s @ (w.astype(jnp.float32) * x) - 1, w, s, x)
    agrees(lambda x: x @ x, x)


def test_large_matrices_and_algorithms_are_left() -> None:
    graph, _ = trace_function(lambda x: x @ x, np.ones((64, 64), np.float32))
    assert "XLA multiplies in blocks" in str(declined(graph.outputs[0]))
    graph, _ = trace_function(lambda x: x @ x, np.ones((3, 3), np.complex64))
    assert "complex64" in str(declined(graph.outputs[0]))
    algorithm = lax.DotAlgorithmPreset.BF16_BF16_F32
    graph, _ = trace_function(lambda x: lax.dot(x, x, precision=algorithm), np.ones((3, 3), np.float32))
    assert "algorithm" in str(declined(graph.outputs[0]))
