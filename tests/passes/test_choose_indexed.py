"""What leaves XLA where integers say what is read or written: scatters into few places, what is summed of what is looked
up, stencils that write over their operand."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import graphopt
from graphopt.analysis.kernel_time import kernel_time
from graphopt.analysis.machine import Machine
from graphopt.analysis.xla_indexed import is_known_scatter, is_known_update, scattered_time, shares_taken
from graphopt.analysis.xla_time import fused_time
from graphopt.backends.numba.costs import scalar_cost
from graphopt.backends.numba.engine import NumbaEngine
from graphopt.ir.graph import Graph
from graphopt.ir.node import Node
from graphopt.passes.choose import RATIO

MACHINE = Machine(threads=2)
RANDOM = np.random.default_rng(0)

MANY, SOME, FEW = 100_000, 20_000, 1_000


def floats(*shape: int) -> Any:
    return jnp.asarray(RANDOM.uniform(0.5, 1.5, shape).astype(np.float32))


def places(count: int, of: int, dtype: Any = np.int32) -> Any:
    """Of which some are out of bounds, or count from the end."""
    return jnp.asarray(RANDOM.integers(-of // 8, of + of // 8, count).astype(dtype))


def added(i: Any, v: Any, size: int = FEW) -> Any:
    return jnp.zeros(size, v.dtype).at[i].add(v)


def passed_on(share: Any, degree: Any, source: Any, target: Any) -> Any:
    return jax.ops.segment_sum(share[source] / degree[source], target, share.size)


def heat(x: Any) -> Any:
    def step(_: Any, x: Any) -> Any:
        inner = x[2:, 1:-1] + x[:-2, 1:-1] + x[1:-1, 2:] + x[1:-1, :-2] - 4 * x[1:-1, 1:-1]
        return x.at[1:-1, 1:-1].add(0.1 * inner)

    return lax.fori_loop(0, 10, step, x)


def wave(x: Any) -> Any:
    def step(state: Any, _: Any) -> Any:
        x, before = state
        around = x[2:, 1:-1] + x[:-2, 1:-1] + x[1:-1, 2:] + x[1:-1, :-2]
        after = 1.6 * x[1:-1, 1:-1] - before[1:-1, 1:-1] + 0.1 * around
        return (x.at[1:-1, 1:-1].set(after), x), None

    return lax.scan(step, (x, x), None, length=5)[0]


Case = tuple[Callable[..., Any], tuple[Any, ...]]

LEAVE: dict[str, Case] = {
    "a sum in parts": (added, (places(MANY, FEW), floats(MANY))),
    "of few in all": (added, (places(30_000, FEW), floats(30_000))),
    "one by one": (lambda i, v: added(i, v, SOME), (places(MANY, SOME), floats(MANY))),
    "products": (lambda i, v: jnp.ones(SOME).at[i].multiply(v), (places(MANY, SOME), 1 + 1e-3 * floats(MANY))),
    "of sorted places": (lambda i, v: jax.ops.segment_sum(v, i, FEW), (jnp.sort(places(MANY, FEW)), floats(MANY))),
    "all to one place": (added, (jnp.full(MANY, 7), floats(MANY))),
    "counts": (lambda i: jnp.bincount(i, length=256), (jnp.abs(places(MANY, 256)),)),
    "of two axes": (lambda i, j, v: jnp.zeros((64, 64)).at[i, j].add(v), (*(places(MANY, 64),) * 2, floats(MANY))),
    # Of ones with both signs, so that no sum needs more than eight bits.
    "in 16 bits, in parts": (added, (places(MANY, FEW), jnp.asarray(RANDOM.choice([-1, 1], MANY), jnp.bfloat16))),
    "in a scan": (
        lambda i, v: lax.scan(lambda s, x: (s.at[x[0]].add(x[1]), None), jnp.zeros(FEW), (i, v))[0],
        (places(5 * MANY, FEW).reshape(5, MANY), floats(5, MANY)),
    ),
    "what is looked up, and summed": (lambda x, i: jnp.sum(x[i]), (floats(SOME), places(MANY, SOME))),
    "one step of ranking pages": (
        passed_on,
        (floats(2000), floats(2000), places(2 * MANY, 2000), jnp.sort(places(2 * MANY, 2000))),
    ),
    "rows, looked up": (lambda x, i: x[i], (floats(SOME, 16), places(SOME, SOME))),
    "heat": (heat, (floats(200, 200),)),
    "waves": (wave, (floats(200, 200),)),
}
STAY: dict[str, Case] = {
    "a few sums": (added, (places(FEW, 100), floats(FEW))),
    "into many places": (lambda i, v: added(i, v, 1_000_000), (places(MANY, 1_000_000), floats(MANY))),
    "integers, one by one": (lambda i, v: added(i, v, SOME), (places(MANY, SOME), places(MANY, 9))),
    "16 bits, one by one": (lambda i, v: added(i, v, SOME), (places(MANY, SOME), jnp.ones(MANY, jnp.bfloat16))),
    "the smaller of two": (lambda i, v: jnp.ones(SOME).at[i].min(v), (places(MANY, SOME), floats(MANY))),
    "of rows": (lambda i, v: jnp.zeros((SOME, 16)).at[i].add(v), (places(SOME, SOME), floats(SOME, 16))),
    "only moved": (lambda i, v: jnp.zeros(FEW).at[i].set(v), (places(MANY, FEW), floats(MANY))),
    "wide rows, looked up": (lambda x, i: x[i], (floats(FEW, 768), places(4096, FEW))),
    "looked up": (lambda x, i: x[i], (floats(SOME), places(MANY, SOME))),
    "looked up of much, and summed": (lambda x, i: jnp.sum(x[i]), (floats(1_000_000), places(MANY, 1_000_000))),
    "a small plate": (heat, (floats(32, 32),)),
    "rows of what a loop carries": (
        lambda x: lax.fori_loop(0, 90, lambda i, x: x.at[i].set(x[i] * 0.9 + 0.1), x),
        (floats(100, 1000),),
    ),
}


@pytest.mark.parametrize("name", LEAVE)
def test_leave(name: str) -> None:
    function, args = LEAVE[name]
    jitted = graphopt.jit(function)
    (kernel,) = jitted.explain(*args).kernels
    indexed = {"scatter-add", "scatter-mul", "gather", "dynamic_update_slice"}
    assert {n.op.name for n in kernel.body.nodes} & indexed
    for found, expected in zip(jax.tree.leaves(jitted(*args)), jax.tree.leaves(jax.jit(function)(*args)), strict=True):
        np.testing.assert_allclose(np.float64(found), np.float64(expected), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", STAY)
def test_stay(name: str) -> None:
    """Places too, which XLA finds where it reads or writes them."""
    function, args = STAY[name]
    assert not graphopt.jit(function).explain(*args).kernels


@pytest.mark.parametrize("name", ["a sum in parts", "one by one", "what is looked up, and summed", "heat", "waves"])
def test_predicted_times_on_two_cores(name: str) -> None:
    """Of those that leave whatever machine the tests run on; a third to three times of what was measured."""
    function, args = LEAVE[name]
    body = body_of(function, *args)
    program, _ = NumbaEngine().program(body)
    again = name in ("heat", "waves")
    xla, numba = fused_time(body, MACHINE, again), kernel_time(program, scalar_cost, MACHINE)
    measured = {
        "a sum in parts": (80e3, 40e3),
        "one by one": (80e3, 50e3),
        "what is looked up, and summed": (75e3, 35e3),
        "heat": (15e3, 12e3),
        "waves": (28e3, 12e3),
    }[name]
    assert xla > RATIO * numba
    assert 1 / 3 < xla / measured[0] < 3 and 1 / 3 < numba / measured[1] < 3


def body_of(function: Callable[..., Any], *args: Any) -> Graph:
    (kernel,) = graphopt.jit(function, backend="numba").explain(*args).kernels
    return kernel.body


def nodes_of(name: str, function: Callable[..., Any], *args: Any) -> list[Node]:
    return [node for node in body_of(function, *args).nodes if node.op.name == name]


def test_known_scatters() -> None:
    def known(function: Callable[..., Any], name: str = "scatter-add", **dtypes: Any) -> bool:
        (node,) = nodes_of(name, function, places(MANY, FEW), floats(MANY).astype(dtypes.get("dtype", np.float32)))
        return is_known_scatter(node)

    assert known(lambda i, v: added(i, v, SOME)) and known(lambda i, v: added(i, v, 100_000))
    assert not known(lambda i, v: added(i, v, 150_000))  # more than a core's caches hold
    assert not known(lambda i, v: added(i[:9], v[:9], 100))  # XLA leaves most where it is
    assert not known(lambda i, v: jnp.zeros((SOME, 5)).at[i[:SOME]].add(v.reshape(SOME, 5)))
    assert known(lambda i, v: jnp.zeros((100, 1)).at[i].add(v[:, None]))
    assert not known(lambda i, v: jnp.zeros(SOME).at[i].max(v), "scatter-max")
    assert not known(lambda i, v: added(i, v, SOME), dtype=np.float16) and known(added, dtype=np.float16)


def test_what_xla_scatters_takes_as_long_with_each_update() -> None:
    one, ten = (scattered_time(nodes_of("scatter-add", added, places(n, FEW), floats(n))[0]) for n in (MANY, 10 * MANY))
    assert ten == 10 * one and 0.5 < one / MANY < 1.0


def test_updates_of_slices_are_known_where_they_are_computed_and_most_of_the_result() -> None:
    def known(function: Callable[..., Any]) -> bool:
        (node,) = nodes_of("dynamic_update_slice", function, floats(100, 100))
        return is_known_update(node)

    assert known(lambda x: x.at[1:-1, 1:-1].set(x[2:, 1:-1] * 2))
    assert not known(lambda x: x.at[:20].set(x[20:40] * 2)) and not known(lambda x: x.at[1:].set(x[:-1]))


def test_xla_writes_slices_that_an_update_would_write_over() -> None:
    """Four of five here; where the update is of the same place alone nothing has to be kept."""
    bodies = [
        body_of(function, floats(500, 500))
        for function in (
            lambda x: x.at[1:-1, 1:-1].set(x[2:, 1:-1] + x[:-2, 1:-1] + x[1:-1, 2:] + x[1:-1, :-2]),
            lambda x: x.at[1:-1, 1:-1].set(x[1:-1, 1:-1] + 1),
        )
    ]
    kept, same = (fused_time(body, MACHINE, again=True) for body in bodies)
    assert kept > 2 * same


def test_xla_computes_what_elements_are_taken_from_where_it_takes_them() -> None:
    """All of it where it is read otherwise, too."""

    def row(x: Any) -> Any:
        return lax.dynamic_slice(jnp.sin(jnp.exp(x)), (jnp.argmax(x[:4, 0]), 0), (3, 2000))

    def row_and_all(x: Any) -> Any:
        y = jnp.sin(jnp.exp(x))
        return lax.dynamic_slice(y, (jnp.argmax(x[:4, 0]), 0), (3, 2000)), y

    x = floats(2000, 2000)
    assert graphopt.jit(row).explain(x).kernels == () and len(graphopt.jit(row_and_all).explain(x).kernels) == 1
    (taken,) = shares_taken(graphopt.jit(row, backend="xla").explain(x).graph).values()
    assert taken == 3 / 2000
    np.testing.assert_allclose(graphopt.jit(row)(x), jax.jit(row)(x), rtol=1e-5, atol=1e-5)
