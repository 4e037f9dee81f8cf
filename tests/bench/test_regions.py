"""Regions on which engines are compared: their functions are right under every engine, and the shares add up."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import graphopt
from graphopt.bench import regions, shares
from graphopt.bench.programs import Program, renewed

SMALL = [program for program in regions.programs() if ("k" in program.name.split()[-1] and "," in program.name)]


def test_names_are_distinct() -> None:
    names = [program.name for program in regions.programs()]
    assert len(set(names)) == len(names) >= 30


@pytest.mark.parametrize("program", [p for p in SMALL if p.name.endswith(("1k", " 50k"))], ids=lambda p: p.name)
def test_a_region_is_the_same_under_graphopt_and_numpy(program: Program) -> None:
    args = program.arguments()
    expected = jax.jit(program.make())(*args)
    for found, wanted in zip(
        jax.tree.leaves(graphopt.jit(program.make())(*args)), jax.tree.leaves(expected), strict=True
    ):
        np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)
    if program.numpy is not None:
        np.testing.assert_allclose(program.numpy(*map(np.asarray, args)), expected, rtol=1e-4, atol=1e-5)


def test_shares_leave_products_out_and_count_loops() -> None:
    def function(x: jax.Array) -> jax.Array:
        y = jnp.square(x) @ x
        return jax.lax.scan(lambda c, _: (c + 1, None), y, length=5)[0]

    x = jnp.ones((64, 64))
    graph = graphopt.jit(function, backend="xla").explain(x).graph
    assert shares.work(graph)[0] == 0 and shares.work(graph)[2] == 64 * 64 * (1 + 5)
    in_kernels = shares.work(graphopt.jit(function, backend="numba").explain(x).graph)
    assert in_kernels[0] >= 64 * 64 and in_kernels[2] == 64 * 64 * (1 + 5)
    text = shares.over([Program("one", renewed(function), lambda: (x,))])
    assert text.endswith("0% of the operations and 0% of the bytes ran in kernels.")
