"""Loops that are made are the very nodes that JAX's own loops are read as."""

import jax
import jax.numpy as jnp
import pytest
from jax import lax

from graphopt.ops.control import SCAN, Scan, make_scan
from graphopt.trace.jaxpr import trace_function

X = jnp.ones((5, 3))


def sums(x: jax.Array) -> jax.Array:
    return lax.scan(lambda c, row: (c + row, None), jnp.zeros(3), x)[0]


def running(x: jax.Array) -> jax.Array:
    return lax.scan(lambda c, row: (c + row, (c, row[0])), x[0], x, reverse=True)[1][0]


def powers(x: jax.Array) -> jax.Array:
    return lax.scan(lambda c, _: ((c[0] * x[0, 0], c[1] + c[0] * x), None), (x[1], x), None, length=7)[0][1]


def rows(x: jax.Array) -> jax.Array:
    return lax.scan(lambda _, row: (None, row * x[0]), None, x)[1]


@pytest.mark.parametrize("function", [sums, running, powers, rows])
def test_a_scan_made_is_the_scan_traced(function: object) -> None:
    graph, _ = trace_function(function, X)
    (node,) = [n for n in graph.nodes if n.op is SCAN]
    scan = Scan.of(node)
    consts, rest = node.inputs[: scan.consts], node.inputs[scan.consts :]
    carry, xs = rest[: scan.carry], rest[scan.carry :]
    assert make_scan(scan.body, scan.length, consts, carry, xs, reverse=node.attrs["reverse"]) is node
