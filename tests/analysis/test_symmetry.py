"""Symmetry of arrays in two of their axes, and kernels that compute one of two elements that are the same."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import graphopt
from graphopt.analysis.symmetry import symmetries
from graphopt.backends.interpret import interpret, shaped
from graphopt.backends.numba.engine import NumbaEngine
from graphopt.backends.reference import evaluate
from graphopt.ir.graph import Graph
from graphopt.ir.loop import LoopProgram
from graphopt.trace.jaxpr import trace_function

Function = Callable[..., Any]

POINTS = np.random.default_rng(0).standard_normal((5, 3)).astype(np.float32)


def apart(x: Any) -> Any:
    return x[:, None] - x[None]


def squared(x: Any) -> Any:
    return (apart(x) ** 2).sum(-1)


def graph_of(function: Function, x: Any) -> Graph:
    return trace_function(function, x)[0]


def pairs_of(function: Function, x: Any = POINTS) -> tuple[tuple[int, int], ...]:
    """The pairs of axes of the result that can be exchanged."""
    graph = graph_of(function, x)
    return symmetries(graph).get(graph.outputs[0], ())


SYMMETRIC: dict[str, Function] = {
    "squares": lambda x: apart(x) ** 2,
    "products with themselves": lambda x: apart(x) * apart(x),
    "absolute values": lambda x: jnp.abs(apart(x)),
    "distances": lambda x: jnp.sqrt(squared(x) + 1e-3),
    "scaled": lambda x: 2 / (3 + squared(x)),
    "sums": lambda x: x[:, None] + x[None],
    "outer products": lambda x: x[:, None] * x[None],
    "sums of negatives": lambda x: (apart(x) + apart(x)) ** 2,
    "differences of negatives": lambda x: jnp.abs(-apart(x) - jnp.square(2.0) * 0 - apart(x)),
    "one of several": lambda x: lax.select(squared(x) < 1, squared(x), x[:, None, 0] * x[None, :, 0]),
    "maxima": lambda x: jnp.max(jnp.abs(apart(x)), axis=-1),
    "places of maxima": lambda x: jnp.argmax(jnp.abs(apart(x)), axis=-1),
    "spread": lambda x: jnp.broadcast_to(squared(x)[..., None], (5, 5, 3)) * 1.5,
}

OTHERS: dict[str, Function] = {
    "differences": apart,
    "sums of differences": lambda x: apart(x).sum(-1),
    "products of several differences": lambda x: apart(x) * apart(jnp.sin(x)),
    "exponentials": lambda x: jnp.exp(apart(x)),
    "what else is on one axis": lambda x: squared(x) + x[:, :1],
    "two arrays": lambda x: (x[:, None] - jnp.sin(x)[None]) ** 2,
    "the same array twice": lambda x: (x[:3, None] - x[:3, :, None]) ** 2,
}


@pytest.mark.parametrize("name", SYMMETRIC)
def test_what_is_symmetric(name: str) -> None:
    found = pairs_of(SYMMETRIC[name])
    if name != "differences of negatives":  # there a zero lies between, which may have either sign
        assert (0, 1) in found
    value = np.asarray(evaluate(graph_of(SYMMETRIC[name], POINTS), POINTS)[0])
    for a, b in found:
        np.testing.assert_array_equal(value, np.swapaxes(value, a, b))


@pytest.mark.parametrize("name", OTHERS)
def test_what_is_not(name: str) -> None:
    assert (0, 1) not in pairs_of(OTHERS[name])


def test_unsigned_numbers_have_no_negatives() -> None:
    x = np.array([[3], [250], [7]], np.uint8)
    assert pairs_of(lambda x: jnp.abs(apart(x)), x) == ()
    assert pairs_of(lambda x: jnp.abs(apart(x)), x.astype(np.int8)) == ((0, 1),)


def test_a_graph_without_mirrored_operands_is_not_looked_at() -> None:
    assert symmetries(graph_of(lambda x: jnp.sqrt(x * 2 + 1), POINTS)) == {}


def both_ways(x: Any) -> Any:
    """Sums over rows and over columns of what is not symmetric, of distances that are."""
    inverse = lax.pow(squared(x) + 0.5, jnp.float32(-1.5))
    pulls = x[:, None] * inverse[..., None]
    return pulls.sum(1) - pulls.sum(0)


def interpreted(function: Function, x: Any, tolerance: float = 0.0) -> LoopProgram:
    """The loop program, which gives what the evaluator does. tolerance: for sums, which these add up in other orders."""
    graph = graph_of(function, x)
    program, _ = NumbaEngine().program(graph)
    for found, expected in zip(shaped(interpret(program, x), graph.out_avals), evaluate(graph, x), strict=True):
        np.testing.assert_allclose(found, expected, rtol=tolerance, atol=tolerance)
    return program


@pytest.mark.parametrize("special", [None, np.inf, -np.inf, np.nan, -0.0, 1e-45])
def test_a_kernel_computes_one_of_two_elements(special: float | None) -> None:
    x = np.random.default_rng(2).standard_normal((12, 3)).astype(np.float32)
    if special is not None:
        x[1, 2] = special
    assert str(interpreted(both_ways, x, tolerance=1e-5)).count("= pow(") == 1


@pytest.mark.parametrize("name", SYMMETRIC)
def test_kernels_of_what_is_symmetric(name: str) -> None:
    function = SYMMETRIC[name]
    interpreted(lambda x: (function(x), jnp.swapaxes(function(x), 0, 1)), POINTS)


def test_the_gradient_of_forces() -> None:
    def forces(x: Any) -> Any:
        d = apart(x)
        return (d * (((d * d).sum(-1) + 1e-3) ** -1.5)[..., None]).sum(1)

    x = np.random.default_rng(1).standard_normal((70, 3)).astype(np.float32)
    gradient = jax.grad(lambda x: jnp.sum(forces(x) ** 2))
    found, expected = graphopt.jit(gradient, backend="numba")(x), jax.jit(gradient)(x)
    np.testing.assert_allclose(found, expected, atol=1e-4 * float(np.abs(expected).max()))
