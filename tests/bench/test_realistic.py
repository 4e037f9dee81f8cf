"""The programs of the suite `programs`: the same under graphopt, jax.jit and, where there is one, in NumPy."""

import jax
import numpy as np
import pytest

import graphopt
from graphopt.bench import models, numerics
from graphopt.bench.programs import Program

TINY = [
    models.mlp_step(batch=6, widths=(7, 5, 4, 3)),
    models.cnn_step(batch=2, side=9, channels=(3, 4), dense=5, classes=3),
    models.transformer_forward(batch=2, length=7, width=12, heads=3),
    models.transformer_backward(batch=2, length=7, width=12, heads=3),
    models.lstm(length=5, batch=3, inputs=4, width=6),
    models.resnet_block(batch=2, side=5, channels=3),
    models.softmax_regression(batch=9, features=7, classes=3),
    numerics.kmeans_step(points=50, dimensions=3, clusters=4),
    numerics.black_scholes(options=11),
    numerics.runge_kutta(trajectories=5, steps=3),
    numerics.heat(side=9, steps=3),
    numerics.nbody(bodies=7),
    numerics.pagerank(nodes=13, edges=40, iterations=4),
]
each_program = pytest.mark.parametrize("program", TINY, ids=lambda program: program.name)


def test_every_program_is_tried_here() -> None:
    assert [program.name for program in TINY] == [make().name for make in (*models.MODELS, *numerics.NUMERICS)]


@each_program
def test_graphopt_computes_what_jax_does(program: Program) -> None:
    args = program.arguments()
    found, expected = graphopt.jit(program.make())(*args), jax.jit(program.make())(*args)
    assert jax.tree.map(jax.typeof, found) == jax.tree.map(jax.typeof, expected)
    same(found, expected)


@each_program
def test_numpy_computes_what_jax_does(program: Program) -> None:
    if program.numpy is None:
        return
    args = program.arguments()
    expected = jax.jit(program.make())(*args)
    before = jax.tree.map(lambda x: np.array(x), args)
    operands = jax.tree.map(lambda x: np.array(x), args)
    same(program.numpy(*operands), expected)
    jax.tree.map(np.testing.assert_array_equal, operands, before)


def same(found: object, expected: object) -> None:
    pairs = list(zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True))
    assert pairs
    for ours, theirs in pairs:
        assert (np.shape(ours), np.asarray(ours).dtype) == (theirs.shape, theirs.dtype)
        assert np.isfinite(theirs).all()
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)


@each_program
def test_the_program_depends_on_all_its_arguments(program: Program) -> None:
    """Nothing of it can be computed before it is called, and no argument is there for show."""
    args = program.arguments()
    jaxpr = jax.make_jaxpr(program.make())(*args).jaxpr
    assert jaxpr.constvars == []
    kept = jax.jit(program.make()).lower(*args).compile().input_shardings[0]
    assert len(jax.tree.leaves(kept)) == len(jax.tree.leaves(args))


@each_program
def test_each_function_is_new(program: Program) -> None:
    assert program.make() is not program.make()
