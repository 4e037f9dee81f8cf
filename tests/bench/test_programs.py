"""The programs of the bench: what they compute is the same under graphopt, and no cache of JAX's has seen them."""

import jax
import numpy as np
import pytest

import graphopt
from graphopt.bench.programs import DEPTHS, Program, elementwise_chain, integrator, perceptron_step, transformer
from graphopt.bench.unrolled import blocks_gradient, layers, recurrent_gradient

SMALL = [
    perceptron_step(2, width=5),
    transformer(1, length=6, width=8, heads=2),
    integrator(2),
    elementwise_chain(3),
    layers(5, width=6),
    recurrent_gradient(3, batch=2, features=3, width=4),
    blocks_gradient(2, batch=1, length=5, width=8, heads=2),
]
each_program = pytest.mark.parametrize("program", SMALL, ids=lambda program: program.name)


@each_program
def test_graphopt_computes_what_jax_does(program: Program) -> None:
    args = jax.tree.map(vary, program.arguments())
    found, expected = graphopt.jit(program.make())(*args), jax.jit(program.make())(*args)
    jax.tree.map(same, found, expected)


def same(found: jax.Array, expected: jax.Array) -> None:
    assert jax.typeof(found) == jax.typeof(expected)
    assert np.isfinite(expected).all()
    # Of the transformer, both differ by 3e-5 from what float64 gives.
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


def vary(x: jax.Array) -> jax.Array:
    """The same array with a different number in each place: ones and unit matrices would hide a wrong index."""
    return (
        x + 0.1 * jax.numpy.sin(jax.numpy.arange(x.size, dtype=x.dtype)).reshape(x.shape) if x.dtype.kind == "f" else x
    )


@each_program
def test_each_function_is_new(program: Program) -> None:
    assert program.make() is not program.make()


def test_depths_reach_from_a_hundred_equations_to_thousands() -> None:
    programs = [make() for make in DEPTHS]
    assert len({program.name for program in programs}) == len(programs)
    equations = [len(jax.make_jaxpr(program.make())(*program.arguments()).eqns) for program in programs]
    assert 100 <= min(equations) < 150
    assert max(equations) > 3000
