"""Counted operations and bytes, against numbers worked out by hand."""

from typing import Any

import jax.numpy as jnp
from jax import lax

import graphopt
from graphopt.analysis.cost import Cost, cost_of
from graphopt.ir.parse import parse


def cost(function: Any, *args: Any) -> Cost:
    return cost_of(graphopt.trace(function)(*args))


def test_elementwise_operations_count_one_for_each_element() -> None:
    x = jnp.ones((3, 5))
    assert cost(lambda x: x + x, x) == Cost(flops=15, bytes=3 * 15 * 4)
    assert cost(jnp.transpose, x) == Cost(flops=0, bytes=2 * 15 * 4)
    assert cost(lambda x: x, x) == Cost()


def test_a_matrix_product_counts_a_multiplication_and_an_addition_for_each_term() -> None:
    counted = cost(lambda a, b: a @ b, jnp.ones((2, 3)), jnp.ones((3, 7)))
    assert counted == Cost(flops=2 * 2 * 3 * 7, bytes=(6 + 21 + 14) * 4)


def test_a_convolution_counts_the_filter_at_each_place_of_the_result() -> None:
    x, kernel = jnp.ones((1, 2, 8, 8)), jnp.ones((5, 2, 3, 3))
    counted = cost(lambda x, k: lax.conv_general_dilated(x, k, (1, 1), "VALID"), x, kernel)
    assert counted.flops == 2 * (5 * 6 * 6) * (2 * 3 * 3)


def test_a_scan_counts_its_body_as_often_as_it_runs() -> None:
    counted = cost(lambda x: lax.scan(lambda c, _: (c * c, None), x, None, length=7)[0], jnp.ones(4))
    assert counted == Cost(flops=7 * 4, bytes=7 * 3 * 16)


def test_of_branches_the_costliest_counts_and_of_a_while_one_iteration() -> None:
    x = jnp.ones(10)
    choice = cost(lambda p, x: lax.cond(p, lambda x: x * x * x, lambda x: x, x), True, x)
    assert choice.flops >= 20 and not choice.unbounded
    loop = cost(lambda x: lax.while_loop(lambda x: x[0] < 3, lambda x: x * x, x), x)
    assert loop.unbounded and loop.flops >= 10


def test_what_says_nothing_of_its_arithmetic_is_counted_as_such() -> None:
    counted = cost(lambda x: lax.sort(x), jnp.ones(6))
    assert counted == Cost(flops=0, bytes=48, uncounted=1)


def test_calls_count_what_they_call() -> None:
    graph = parse("""
        graph @1(%0: f32[3]) {
          %1: f32[3] = mul[out_dtype=None](%0, %0)
          return %1
        }
        graph @main(%0: f32[3]) {
          %1: f32[3] = remat2[differentiated=False, jaxpr=@1, policy=None, prevent_cse=False](%0)
          %2: f32[3] = remat2[differentiated=False, jaxpr=@1, policy=None, prevent_cse=False](%1)
          return %2
        }
    """)
    assert cost_of(graph) == Cost(flops=6, bytes=2 * 36)
