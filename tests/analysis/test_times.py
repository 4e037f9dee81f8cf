"""Predicted times: they grow with the work, and what is hard to know is taken to be slow in a kernel."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import graphopt
from graphopt.analysis.kernel_time import kernel_time, work_of
from graphopt.analysis.machine import Machine, threads_for, wakes, waking
from graphopt.analysis.xla_indexed import SCATTERED
from graphopt.analysis.xla_time import (
    alone_time,
    blocked_time,
    core_time,
    fused_time,
    is_handed_over,
    without_products,
)
from graphopt.backends.numba.costs import FUNCTIONS, scalar_cost
from graphopt.backends.numba.engine import NumbaEngine
from graphopt.backends.numba.vecmath import SCALAR_MATH
from graphopt.ir.graph import Graph
from graphopt.ir.index import Index, variable
from graphopt.ir.loop import VECTOR, Block, Buffer, For, Let, Load, Local, LoopProgram, Phase, Store
from graphopt.ir.node import Node
from graphopt.passes.bypass import BypassCaches
from graphopt.passes.choose import GAIN, RATIO, Candidate, decide, hopeless
from graphopt.trace.jaxpr import trace_function

MACHINE = Machine(threads=2)


def body_of(function: Callable[..., Any], *shapes: tuple[int, ...], dtype: Any = jnp.float32) -> Graph:
    avals = [jax.ShapeDtypeStruct(shape, dtype) for shape in shapes]
    (kernel,) = graphopt.jit(function, backend="numba").explain(*avals).kernels
    return kernel.body


def times(function: Callable[..., Any], *shapes: tuple[int, ...], dtype: Any = jnp.float32) -> tuple[float, float]:
    """In XLA, in a kernel."""
    body = body_of(function, *shapes, dtype=dtype)
    program, _ = NumbaEngine().program(body)
    return fused_time(body, MACHINE), kernel_time(program, scalar_cost, MACHINE)


@pytest.mark.parametrize(
    "function", [lambda x: x * 2 + 1, lambda x: jnp.exp(x).sum(-1), jax.nn.softmax, lambda x: x.sum()]
)
def test_more_elements_take_longer_in_both(function: Callable[..., Any]) -> None:
    small, large = times(function, (100, 1000)), times(function, (10_000, 1000))
    assert large[0] > 10 * small[0] and large[1] > 10 * small[1]


def test_what_xla_calls_a_function_for_each_element_is_slower_there() -> None:
    for function in (jnp.arctan2, jnp.power):
        xla, kernel = times(function, (1_000_000,), (1_000_000,))
        assert xla > RATIO * kernel


def test_what_lies_across_is_slow_in_xla() -> None:
    for function in (lambda x, y: (x * y.T).sum(), lambda x, y: ((x - y.T) ** 2).sum(1), lambda x, y: x + 2 * y.T):
        xla, kernel = times(function, (1000, 1000), (1000, 1000))
        assert xla > RATIO * kernel
    xla, kernel = times(lambda x: jnp.exp(x.T), (1000, 1000))
    assert xla < RATIO * kernel
    # In a loop it lies in the caches.
    body = body_of(lambda x: (x + x.T) / 2, (128, 128))
    assert fused_time(body, MACHINE, again=True) < fused_time(body, MACHINE) / 2


def test_where_elements_come_from_is_slow_in_xla() -> None:
    """A join along the last axis, asked for by what computes; along another one it is found out once for a row."""
    for function in (lambda x: jnp.roll(x, 1, 1) + x, lambda x: jnp.gradient(x, axis=1)):
        xla, kernel = times(function, (1000, 1000))
        assert xla > RATIO * kernel
    xla, kernel = times(lambda x: jnp.roll(x, 1, 0) + x, (1000, 1000))
    assert xla < RATIO * kernel


def test_what_is_chosen_before_it_is_reduced_is_slow_in_xla() -> None:
    xla, kernel = times(lambda x: jnp.where(x > 0, x, 0).sum(0), (1000, 1000))
    assert xla > RATIO * kernel
    assert times(lambda x: (x * x).sum(0), (1000, 1000))[0] < xla / 2


@pytest.mark.parametrize(
    ("reduce", "dtypes"),
    [
        (lambda x, axis: jnp.sum(x, axis, dtype=x.dtype), ("int8", "uint8", "int16", "uint16", "int32")),
        (lambda x, axis: jnp.prod(x, axis, dtype=x.dtype), ("int8", "uint16", "int32")),
        (jnp.max, ("int16", "uint16", "int32")),
        (jnp.min, ("int16", "uint32")),
        (jnp.all, ("bool",)),
        (jnp.any, ("bool",)),
        (lambda x, axis: jax.lax.reduce_xor(x, tuple(range(x.ndim))[axis or 0 :]), ("uint8", "int32")),
    ],
    ids=["sum", "prod", "max", "min", "all", "any", "xor"],
)
def test_xla_reduces_integers_along_the_last_axis_by_their_number(reduce: Any, dtypes: tuple[str, ...]) -> None:
    """However wide they are, so that narrow ones leave it: a kernel has many of them in a vector."""
    found = set()
    for dtype in dtypes:
        for axis in (None, 1):
            xla, kernel = times(lambda x, axis=axis: reduce(x, axis), (1000, 1000), dtype=dtype)
            assert xla > RATIO * kernel
        (node,) = body_of(lambda x: reduce(x, 1), (100, 1000), dtype=dtype).outputs
        found.add(core_time(node))
    (nanoseconds,) = found
    assert 0.1 <= nanoseconds / 100_000 <= 0.4


def test_xla_reduces_the_columns_of_integers_and_floating_numbers_by_their_bytes() -> None:
    def found(axis: int, dtype: str) -> float:
        (node,) = body_of(lambda x: jnp.sum(x, axis, dtype=x.dtype), (1000, 1000), dtype=dtype).outputs
        return core_time(node)

    assert found(0, "int32") == found(0, "float32") == pytest.approx(4 * found(0, "int8"))
    assert found(1, "float32") == pytest.approx(2 * found(1, "float16"))
    assert found(1, "int32") == found(1, "int8") > 4 * found(0, "int8")


def test_what_goes_past_the_caches_is_half_of_what_does_not() -> None:
    """What 16 MB take to be read and written: three quarters."""
    (kernel,) = graphopt.jit(lambda x: x * 2 + 1, backend="numba").explain(np.zeros((4096, 1024), np.float32)).kernels
    usual, _ = NumbaEngine(bypass=BypassCaches(large=1 << 60)).program(kernel.body)
    past, _ = NumbaEngine().program(kernel.body)
    found = kernel_time(past, scalar_cost, MACHINE) / kernel_time(usual, scalar_cost, MACHINE)
    assert found == pytest.approx(0.75, abs=0.02)


def test_quotients_without_the_innermost_variable_are_found_once() -> None:
    def program(at: Index) -> LoopProgram:
        x, y = Buffer("in0", np.dtype(np.float32), 64_000, "in"), Buffer("out0", np.dtype(np.float32), 64_000, "out")
        here = variable("i", 0, 63) * 1000 + variable("j", 0, 999)
        loaded = Local("x", x.dtype)
        loop = For("j", 1000, VECTOR, Block([Let(loaded, Load(x, at)), Store(y, here, loaded)]))
        return LoopProgram((x, y), (Phase("i", 64, 1, Block(), Block([loop])),))

    i, j = variable("i", 0, 63), variable("j", 0, 999)
    none, outside, inside = (
        work_of(program(at), scalar_cost, Machine()).core for at in (i + j, i // 7 + j, (i + j) // 7)
    )
    assert none < outside < 1.1 * none < inside


def test_scattering_takes_its_time_one_by_one() -> None:
    def node_of(shape: tuple[int, ...], *more: int) -> Node:
        avals = (
            jax.ShapeDtypeStruct(shape, jnp.float32),
            jax.ShapeDtypeStruct((1_000_000 // shape[-1], *more), jnp.float32),
        )
        places = jnp.zeros(avals[1].shape[:1], jnp.int32)
        graph, _ = trace_function(lambda x, y: x.at[places].max(y), *avals)
        return next(node for node in graph.nodes if node.op.name == "scatter-max")

    alone, rows = (alone_time(node, MACHINE) for node in (node_of((1,)), node_of((100, 50), 50)))
    assert alone == pytest.approx(1e6 * SCATTERED) and rows < alone


def test_short_loops_fill_no_vectors() -> None:
    _, rows = times(lambda x: jnp.exp(x).sum(-1), (1000, 1000))
    _, short = times(lambda x: jnp.exp(x).sum(-1), (100_000, 10))
    assert short > 3 * rows


def test_operations_and_bytes_are_counted() -> None:
    program, _ = NumbaEngine().program(body_of(lambda x: x * 2 + 1, (1000,)))
    work = work_of(program, scalar_cost, Machine())
    assert (work.flops, work.bytes) == (2000, 8000) and work.core > 0


def test_every_function_of_the_vector_math_has_a_time() -> None:
    assert {op for op, _ in SCALAR_MATH} <= set(FUNCTIONS)
    for op, dtype in SCALAR_MATH:
        assert scalar_cost(op, dtype) > scalar_cost(op, np.dtype("f4")) * 0.9


def test_threads_and_memory() -> None:
    assert threads_for(1.0, MACHINE) == 1 and threads_for(1e9, MACHINE) == 2
    assert MACHINE.moving(1 << 30, 2) > 100 * MACHINE.moving(1 << 20, 2)


def test_decisions() -> None:
    much = Candidate(runs=1, xla=3 * GAIN, kernel=GAIN)
    little = Candidate(runs=1, xla=60_000, kernel=20_000)
    nothing = Candidate(runs=1, xla=60_000, kernel=59_000)
    assert decide([much], 0.0) == [None] == decide([little], 0.0)
    assert decide([much], 100 * GAIN) == [None]
    (reason,) = decide([little], GAIN)
    assert reason is not None and "a gain of 40.0 µs in a run, less than" in reason
    assert decide([nothing], 0.0) == ["60.0 µs in XLA, 59.0 µs in a kernel"]
    often = Candidate(runs=1000, xla=60_000, kernel=20_000)
    assert decide([often], 100 * GAIN) == [None]


def test_regions_that_are_alike_have_one_kernel() -> None:
    """It is compiled once, and what it gains is what all of them do."""
    body = body_of(lambda x: x * 2, (1000,))
    one = Candidate(runs=1, xla=0.8 * GAIN, kernel=0.2 * GAIN, body=body)
    other = replace(one, body=body_of(lambda x: x * 3, (1000,)))
    others = 100 * GAIN
    assert decide([one, one], others) == [None, None]
    assert None not in decide([one, other], others) and None not in decide([one], others)
    assert None not in decide([replace(one, body=None)] * 2, others)
    slower = replace(one, kernel=one.xla)
    assert None not in decide([one, slower], others)
    assert hopeless([one, one], others) == [None, None] and None not in hopeless([one, other], others)


def product(rows: int, length: int, columns: int, turned: bool = False) -> Graph:
    shapes = (length, rows) if turned else (rows, length), (length, columns)
    return body_of((lambda x, y: x.T @ y) if turned else (lambda x, y: x @ y), *shapes)


def test_what_products_take_besides_their_arithmetic() -> None:
    """XLA puts factors into blocks: of small ones that is most of it, of large ones nothing."""

    def ratio(*sizes: int) -> float:
        body = product(*sizes)
        plan = NumbaEngine().plan(body, True)
        assert plan is not None
        return blocked_time(body, MACHINE) / NumbaEngine().time(plan.key, MACHINE)

    assert ratio(64, 64, 64) > 2 > ratio(256, 256, 256) > 1.1 > ratio(1024, 1024, 1024)
    assert blocked_time(product(99, 999, 99, True), MACHINE) > 1.2 * blocked_time(product(99, 999, 99), MACHINE)
    assert blocked_time(body_of(lambda x, y: x @ y, (3, 99), (99, 99)), MACHINE) == 0  # loops are for it


def test_what_follows_a_product_is_a_loop_of_its_own() -> None:
    body = body_of(lambda x, y: jnp.exp(x @ y), (99, 99), (99, 99))
    rest = without_products(body)
    assert rest is not None and [n.op.name for n in rest.nodes if n.op.primitive is not None] == ["exp"]
    assert without_products(product(99, 99, 99)) is None
    assert without_products(rest) is rest


def test_handing_over_counts_where_a_region_is_the_whole_program() -> None:
    """XLA runs a program of a thousand sums on another thread, be they of one number; of functions, or of kernels, it
    does not."""
    sums, functions = (graphopt.trace(f)(jnp.ones(2000)) for f in (lambda x: x * 2 + 1, jnp.tanh))
    assert is_handed_over(sums) and not is_handed_over(functions)
    few, many = (graphopt.trace(jnp.max)(jnp.ones(n)) for n in (900, 1500))
    assert is_handed_over(many) and not is_handed_over(few)
    one = Candidate(runs=1, xla=6_000, kernel=3_000, is_handed_over=True)
    assert decide([one], 0.0) == [None]
    assert decide([one], 10.0)[0] is not None and decide([one, one], 0.0)[0] is not None
    assert decide([replace(one, is_handed_over=False)], 0.0)[0] is not None


def test_threads_are_woken_for_much() -> None:
    assert not wakes(1_000.0) and wakes(1e6)
    assert [waking(work) for work in (1e3, 1e5, 1e7)] == [0, 1, 2]
    assert threads_for(30_000.0, MACHINE) == 1
