"""Which whole loops leave XLA: those whose steps XLA is known to take longer for, by the chain of what they carry."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.extend.core import primitives as p

import graphopt
from graphopt.analysis.kernel_time import kernel_time
from graphopt.analysis.latency import latency
from graphopt.analysis.machine import Machine
from graphopt.analysis.xla_loops import LIBRARY, is_known_loop, library_time, loop_time, waited
from graphopt.backends.numba.costs import scalar_cost
from graphopt.ir.node import Node
from graphopt.ir.op import op_of
from graphopt.ops.control import SCAN, Scan
from graphopt.passes.choose import runs_of
from graphopt.trace.jaxpr import trace_function

TANH = op_of(p.tanh_p)


def mean(x: Any) -> Any:
    return lax.scan(lambda s, v: ((s * 0.9 + v * 0.1),) * 2, x[0], x)[1]


def highest(x: Any) -> Any:
    return lax.scan(lambda s, v: (jnp.maximum(s - 0.1, v), None), jnp.float32(0), x)[0]


def polynomial(coefficients: Any, x: Any) -> Any:
    return lax.scan(lambda s, c: (s * x + c, None), jnp.zeros_like(x), coefficients)[0]


def escape(x: Any, y: Any) -> Any:
    def step(_: Any, state: Any) -> Any:
        a, b, count = state
        inside = a * a + b * b < 4
        return jnp.where(inside, a * a - b * b + x, a), jnp.where(inside, 2 * a * b + y, b), count + inside

    zero = jnp.zeros_like(x)
    return lax.fori_loop(0, 50, step, (zero, zero, jnp.zeros(x.shape, jnp.int32)))[2]


def steps_of_collatz(x: Any) -> Any:
    def of_one(number: Any) -> Any:
        def step(state: Any) -> Any:
            n, count = state
            return jnp.where(n % 2 == 0, n // 2, 3 * n + 1), count + 1

        return lax.while_loop(lambda state: state[0] != 1, step, (number, 0))[1]

    return jax.vmap(of_one)(x)


def momentum(gradients: Any) -> Any:
    def step(state: Any, gradient: Any) -> Any:
        place, speed = state
        speed = 0.9 * speed + gradient
        return (place - 0.1 * speed, speed), None

    return lax.scan(step, (gradients[0], gradients[0]), gradients)[0]


def hashed(x: Any) -> Any:
    return lax.scan(lambda s, word: ((s ^ word) * jnp.uint32(16777619), None), jnp.uint32(2166136261), x)[0]


def pendulum(angle: Any) -> Any:
    def step(state: Any, _: Any) -> Any:
        angle, speed = state
        return (angle + 0.01 * speed, speed - 0.01 * jnp.sin(angle)), angle

    return lax.scan(step, (angle, angle), None, length=50_000)[1]


def gated(x: Any, z: Any) -> Any:
    def step(h: Any, given: Any) -> Any:
        x, z = given
        gate = jax.nn.sigmoid(z + 0.1 * h)
        h = (1 - gate) * h + gate * jnp.tanh(x + 0.5 * h)
        return h, h

    return lax.scan(step, jnp.zeros_like(x[0]), (x, z))[1]


def gradient_of_gated(x: Any, z: Any) -> Any:
    return jax.grad(lambda x, z: (gated(x, z) ** 2).sum(), (0, 1))(x, z)


def repeated(step: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda x: lax.fori_loop(0, 5000, lambda _, s: step(s), x)


def filtered(z: Any, a: Any, h: Any) -> Any:
    """A Kalman filter of four numbers, of which two are measured."""

    def step(state: Any, z: Any) -> Any:
        x, p = state
        x, p = a @ x, a @ p @ a.T + 0.1 * jnp.eye(4)
        (q, r), (s, t) = h @ p @ h.T + jnp.eye(2)
        k = p @ h.T @ jnp.array([[t, -r], [-s, q]]) / (q * t - r * s)
        return (x + k @ (z - h @ x), p - k @ h @ p), x

    return lax.scan(step, (jnp.zeros(4), jnp.eye(4)), z)[1]


def floats(*shape: int) -> Any:
    return jnp.asarray(np.random.default_rng(0).uniform(0.05, 0.95, shape).astype(np.float32))


def attack(x: Any) -> Any:
    return lax.scan(lambda s, v: (jnp.where(v > s, s * 0.9, v), None), jnp.float32(0.3), x)[0]


LEAVE: dict[str, tuple[Callable[..., Any], tuple[Any, ...]]] = {
    "a running mean": (mean, (floats(20_000),)),
    "one of two numbers": (attack, (floats(20_000),)),
    "polynomials": (polynomial, (floats(1000), floats(1000))),
    "Mandelbrot": (escape, (floats(100, 100) * 3 - 2, floats(100, 100) * 2 - 1)),
    "Collatz": (steps_of_collatz, (jnp.arange(1, 10_001),)),
    "momentum": (momentum, (floats(1000, 1024),)),
    "gates": (gated, (floats(1000, 256), floats(1000, 256))),
    "gates of three vectors": (gated, (floats(1000, 48), floats(1000, 48))),
    "sines of vectors": (repeated(jnp.sin), (floats(64),)),
    "products of small matrices": (repeated(lambda s: jnp.tanh(s @ s.T - s)), (floats(8, 8),)),
    "a filter": (filtered, (floats(1000, 2), floats(4, 4) * 0.3, floats(2, 4))),
}
STAY: dict[str, tuple[Callable[..., Any], tuple[Any, ...]]] = {
    "a short running mean": (mean, (floats(500),)),
    "a hash: integers wait as long in a kernel": (hashed, (jnp.arange(100_000, dtype=jnp.uint32),)),
    "a pendulum: most of a step is one sine": (pendulum, (jnp.float32(1),)),
    "a maximum, of which a kernel asks whether it is NaN": (highest, (floats(100_000),)),
    "four sines: all wait for one, which takes longer in a kernel": (repeated(jnp.sin), (floats(4),)),
    "tanh of few vectors": (repeated(jnp.tanh), (floats(64),)),
    "few gates": (gated, (floats(1000, 16), floats(1000, 16))),
    "sums of few vectors, as soon done": (repeated(lambda s: jnp.where(s > 0.2, s * 0.9, s + 1)), (floats(64),)),
    "quotients of integers": (repeated(lambda s: s // 3 + 7), (jnp.arange(32),)),
    "rows that lie in no cache": (mean, (floats(1000, 1000),)),
    "a few polynomials": (polynomial, (floats(10), floats(100))),
    "products that XLA writes out": (repeated(lambda s: jnp.tanh(s @ s.T - s)), (floats(3, 3),)),
    "products with a vector": (repeated(lambda s: jnp.tanh(jnp.diag(s) @ s)), (floats(8),)),
    "few products": (lambda x: lax.fori_loop(0, 5, lambda _, s: jnp.tanh(s @ s.T), x), (floats(8, 8),)),
}


@pytest.mark.parametrize("name", LEAVE)
def test_whole_loops_leave_xla_where_it_waits_longer(name: str) -> None:
    function, args = LEAVE[name]
    jitted = graphopt.jit(function)
    report = jitted.explain(*args)
    assert [any(sub.op.name in ("scan", "while") for sub in k.body.nodes) for k in report.kernels] == [True]
    for found, expected in zip(jax.tree.leaves(jitted(*args)), jax.tree.leaves(jax.jit(function)(*args)), strict=True):
        # Orbits near the edge of the Mandelbrot set go elsewhere by one rounding, of a sum of products.
        close = np.isclose(found, expected, rtol=2e-5, atol=1e-5)
        assert close.all() if name != "Mandelbrot" else close.mean() > 0.99


@pytest.mark.parametrize("name", STAY)
def test_whole_loops_stay_where_a_kernel_waits_as_long(name: str) -> None:
    function, args = STAY[name]
    assert not graphopt.jit(function).explain(*args).kernels


def test_gradients_of_gates_leave_xla() -> None:
    args = floats(1000, 64), floats(1000, 64)
    jitted = graphopt.jit(gradient_of_gated)
    assert any(sub.op is SCAN for kernel in jitted.explain(*args).kernels for sub in kernel.body.nodes)
    for found, expected in zip(jitted(*args), jax.jit(gradient_of_gated)(*args), strict=True):
        assert np.allclose(found, expected, rtol=2e-5, atol=1e-6)


def test_steps_wait_for_what_goes_through_tiles() -> None:
    one, two = (
        kernel_of(repeated(step), floats(16)) for step in (lambda s: jnp.tanh(s), lambda s: jnp.tanh(jnp.tanh(s)))
    )
    assert two - one == pytest.approx(5000 * latency(TANH, np.dtype(np.float32), in_kernel=True))


def test_what_comes_before_a_loop_that_stays_leaves_by_itself() -> None:
    def function(x: Any) -> Any:
        return hashed(lax.bitcast_convert_type(jnp.arctan2(x, x + 1), jnp.uint32)[:10])

    (kernel,) = graphopt.jit(lambda x: (jnp.arctan2(x, x + 1), function(x[:10]))).explain(floats(100_000)).kernels
    assert "atan2" in {n.op.name for n in kernel.body.nodes} and "scan" not in {n.op.name for n in kernel.body.nodes}


def test_small_reductions_stay_in_the_loops_that_xla_makes_one_function_of() -> None:
    def viterbi(moves: Any, seen: Any) -> Any:
        return lax.scan(lambda s, e: (jnp.max(s[:, None] + moves, 0) + e, None), seen[0], seen)[0]

    assert not graphopt.jit(viterbi).explain(floats(16, 16), floats(200, 16)).kernels


def kernel_of(function: Callable[..., Any], *args: Any) -> float:
    """Nanoseconds that the one kernel of a program is expected to take."""
    (kernel,) = graphopt.jit(function, backend="numba").explain(*args).kernels
    return kernel_time(kernel.program, scalar_cost, Machine(threads=1))


def loop_of(function: Callable[..., Any], *args: Any) -> Node:
    graph, _ = trace_function(function, *args)
    (node,) = (n for n in graph.nodes if n.op is SCAN)
    return node


def test_a_chain_is_the_longest_way_from_what_is_carried() -> None:
    def times(step: Callable[[Any, Any], Any]) -> float:
        scan = Scan.of(loop_of(lambda x: lax.scan(lambda s, v: (step(s, v), None), x[0], x)[0], floats(9)))
        params = scan.body.params[scan.consts : scan.consts + scan.carry]
        return waited(scan.body, list(zip(params, scan.body.outputs, strict=False)))

    one = times(lambda s, v: s + v)
    assert times(lambda s, v: s + jnp.sin(v) * 3) == one > 0
    assert times(lambda s, v: (s + v) * v - 1) == pytest.approx(3 * one)
    assert times(lambda s, v: jnp.sin(s)) > 3 * one
    assert times(lambda s, v: v) == 0


def test_loops_take_as_long_as_their_steps_together() -> None:
    machine = Machine(threads=2)
    short, long = (loop_time(loop_of(mean, floats(n)), machine) for n in (1000, 10_000))
    assert long == pytest.approx(10 * short)
    narrow, wide = (loop_time(loop_of(mean, floats(100, n)), machine) for n in (100, 10_000))
    assert 20 * narrow < wide < 500 * narrow


def test_loops_with_more_than_elementwise_operations_are_not_known() -> None:
    def reduced(x: Any) -> Any:
        return lax.scan(lambda s, v: (s + v.sum(), None), jnp.float32(0), x)[0]

    assert not is_known_loop(loop_of(reduced, floats(9, 9))) and is_known_loop(loop_of(mean, floats(9)))


def test_products_are_called_where_they_are_not_written_out() -> None:
    def called(*shapes: tuple[int, ...], times: int = 1) -> float:
        def step(x: Any, w: Any) -> Any:
            for _ in range(times):
                x = jnp.tanh(x @ w)
            return x

        x, w = (floats(*shape) for shape in shapes)
        body = Scan.of(loop_of(lambda x: lax.fori_loop(0, 9, lambda _, s: step(s, w), x), x)).body
        return library_time(body) / LIBRARY

    assert called((8, 8), (8, 8)) == 1 and called((8, 8), (8, 8), times=3) == 3
    assert called((4, 4), (4, 4), times=8) == 8  # in a body that is larger than what becomes one function
    assert called((3, 3), (3, 3)) == called((1, 64), (64, 64)) == 0
    assert called((900, 4, 4), (900, 4, 4)) > 100 * called((900, 8, 8), (900, 8, 8))  # one after the other


def test_loops_within_kernels_do_not_run_in_xla() -> None:
    graph, _ = trace_function(mean, floats(9))
    (node,) = (n for n in graph.nodes if n.op is SCAN)
    body = Scan.of(node).body
    assert runs_of(graph)[body] == 9 and runs_of(graph, {(graph, node)})[body] == 0
