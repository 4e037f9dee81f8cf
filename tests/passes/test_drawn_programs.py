"""Drawn programs for the passes that make kernels and for those over their loops: results stay, and a good share of
the programs is one that the pass is for."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import lax
from jax.sharding import PartitionSpec as P

from graphopt.analysis.machine import Machine
from graphopt.backends.agreement import disagreement
from graphopt.backends.interpret import interpret
from graphopt.backends.numba.costs import scalar_cost
from graphopt.backends.numba.engine import NumbaEngine, plan_by_key
from graphopt.backends.numba.lowering import ENGINE
from graphopt.backends.reference import apply_whole, evaluate
from graphopt.config import Options
from graphopt.ir.check import check
from graphopt.ir.graph import Graph, nested_graphs
from graphopt.ir.node import results
from graphopt.ops.kernel import KERNEL
from graphopt.passes import renew, split
from graphopt.passes.bypass import BypassCaches
from graphopt.passes.chunk import Chunk
from graphopt.passes.fetch import FetchAhead
from graphopt.passes.fuse import Fuse
from graphopt.passes.inline import Inline
from graphopt.passes.jam import LEAST, Jam
from graphopt.passes.local import Local
from graphopt.passes.random_bits import RandomBits
from graphopt.passes.register_block import RegisterBlock
from graphopt.passes.renew import Renew
from graphopt.passes.reuse import Reuse
from graphopt.passes.stream import Stream
from graphopt.rewrite.passes import Context, Pass, run_pipeline
from graphopt.trace.jaxpr import trace_function

from ..prescribed import prescribed
from .loop_programs import program_by

Program = tuple[Callable[..., Any], Sequence[Any]]
SPECIAL = (np.nan, np.inf, -np.inf, -0.0, 1e-42)


def array(data: st.DataObject, *shape: int) -> Any:
    """An array, of normal numbers or with special ones among them."""
    values = np.random.default_rng(data.draw(st.integers(0, 9))).normal(size=shape).astype(np.float32)
    if values.size and data.draw(st.booleans()):
        values.flat[data.draw(st.integers(0, values.size - 1))] = data.draw(st.sampled_from(SPECIAL))
    return values


def share(check: Callable[[st.DataObject], bool], examples: int, least: float) -> None:
    """Draws programs; the pass is to have done something to so many of them at least."""
    done: list[bool] = []

    @settings(max_examples=examples)
    @given(st.data())
    def draw(data: st.DataObject) -> None:
        done.append(check(data))

    draw()
    assert sum(done) >= least * len(done), f"{sum(done)} of {len(done)}"


# ---- loops of kernels --------------------------------------------------------------------------------------------------

BEFORE: Sequence[Callable[..., Any]] = (
    lambda x, y: x,
    lambda x, y: x * y,
    lambda x, y: jnp.abs(x - y),
    lambda x, y: lax.exp(x) + 1,
)
SUMMED: Sequence[Callable[..., Any]] = (jnp.sum, jnp.max, jnp.min)
AFTER: Sequence[Callable[..., Any]] = (
    lambda x, y, z: z[..., 0],
    lambda x, y, z: x - z,
    lambda x, y, z: (x * z + y, x > z),
    lambda x, y, z: (z[..., 0], y * 2),
)


Functions = Sequence[Callable[..., Any]]


def rows(
    data: st.DataObject, count: Sequence[int], width: Sequence[int], before: Functions, after: Functions
) -> Program:
    """Something is done to each row, or to each element."""
    x = array(data, data.draw(st.sampled_from(count)), data.draw(st.sampled_from(width)))
    first, summed, last = (data.draw(st.sampled_from(each)) for each in (before, SUMMED, after))

    def function(x: Any, y: Any) -> Any:
        return last(x, y, summed(first(x, y), -1, keepdims=True))

    return function, (x, array(data, x.shape[1]))


def loops_stay_right(step: Any, engine: NumbaEngine, program: Program) -> bool:
    """The same bits before and after; whether the pass did something."""
    function, args = program
    before = program_by(engine, function, *args)
    after, said = step.run(before)
    for found, expected in zip(interpret(after, *args), interpret(before, *args), strict=True):
        np.testing.assert_array_equal(found, expected)
    assert bool(said) == (after is not before and after != before)
    return bool(said)


def test_rows_that_bypass_the_caches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(split, "WIDTH", 8)
    monkeypatch.setattr(split, "BLOCKS", 2)
    step, engine = BypassCaches(large=0, least=0, width=16), NumbaEngine(without=frozenset(["bypass"]))
    share(
        lambda data: loops_stay_right(step, engine, rows(data, range(2, 9), range(2, 19), BEFORE, AFTER[1:])), 15, 0.4
    )


def test_rows_that_are_fetched_ahead() -> None:
    step, engine = FetchAhead(large=0), NumbaEngine(without=frozenset(["fetch"]))
    share(lambda data: loops_stay_right(step, engine, rows(data, (2, 5), (128, 150), BEFORE, AFTER[1:3])), 10, 0.4)


def test_rows_that_are_jammed() -> None:
    engine = NumbaEngine(without=frozenset(["jam"]))

    def one(data: st.DataObject) -> bool:
        program = rows(data, (2 * LEAST, 2 * LEAST + 1), (33, 37), BEFORE[1:3], AFTER[:1])
        return loops_stay_right(Jam(rows=2, long=0), engine, program)

    share(one, 5, 0.4)


def test_rows_in_blocks_of_registers() -> None:
    engine = NumbaEngine(without=frozenset(["registers"]))

    def one(data: st.DataObject) -> bool:
        rows, columns, terms = (data.draw(st.integers(*ends)) for ends in ((32, 35), (16, 18), (8, 10)))
        x, y = array(data, rows, terms), array(data, columns, terms)
        first, reduce = data.draw(st.sampled_from(BEFORE[1:3])), data.draw(st.sampled_from(SUMMED))

        def function(x: Any, y: Any) -> Any:
            return reduce(first(x[:, None], y[None]), -1)

        return loops_stay_right(RegisterBlock(scalar_cost, 2, 3, least=1), engine, (function, (x, y)))

    share(one, 5, 0.3)


# ---- kernels of graphs -------------------------------------------------------------------------------------------------


def after(step: Pass, program: Program, *before: Pass) -> tuple[Graph, Graph]:
    """The graph before the pass and after it."""
    function, args = program
    graph, sources = trace_function(function, *args)
    context = Context(Options(), sources, platforms=("cpu",))
    graph, _ = run_pipeline(graph, before, context)
    new, _ = run_pipeline(graph, (step,), context)
    check(new)
    return graph, new


def kernels_stay_right(graph: Graph, new: Graph, args: Sequence[Any], safety: str = "reassociate") -> None:
    """What the loops of each kernel compute is what its body does, and all is as before."""
    assert disagreement(graph, new, args, safety) is None

    def apply(node: Any, values: list[Any]) -> Any:
        if node.op is not KERNEL:
            return apply_whole(node, values)
        found = interpret(plan_by_key(node.attrs["key"]).program, *map(np.asarray, values))
        return [f.reshape(a.shape) for f, a in zip(found, node.avals, strict=True)]

    for found, expected in zip(evaluate(new, *args, apply=apply), evaluate(graph, *args), strict=True):
        np.testing.assert_allclose(found, expected, rtol=3e-4, atol=3e-4)


SCORES: Sequence[Callable[[Any], Any]] = (
    lambda s: s,
    jnp.tanh,
    lambda s: lax.exp(s - s.max(-1, keepdims=True)),
    lambda s: jax.nn.softmax(s),
    lambda s: jnp.where(s > 0, s, 0.0) / (1 + jnp.abs(s).sum(-1, keepdims=True)),
)


def test_products_row_by_row() -> None:
    step = Stream(lambda: ENGINE, None, Chunk(large=1 << 6, block=1 << 6, rows=1, gain=0).memory)

    def one(data: st.DataObject) -> bool:
        batch, queries, keys, width, values = (data.draw(st.integers(low, 7)) for low in (1, 3, 3, 2, 2))
        first, second = (data.draw(st.sampled_from(SCORES)) for _ in range(2))
        apart = data.draw(st.booleans())

        def function(q: Any, k: Any, v: Any) -> Any:
            weights = second(first(jnp.einsum("bqd,bkd->bqk", q, k)))
            found = jnp.einsum("bqk,bkd->bqd", weights, v)
            return (found, weights.sum(-1)) if apart else found

        args = [array(data, batch, n, w) for n, w in ((queries, width), (keys, width), (keys, values))]
        graph, new = after(step, (function, args), Inline())
        kernels_stay_right(graph, new, args)
        return any(node.op is KERNEL for node in new.nodes)

    share(one, 10, 0.3)


def test_bits_of_keys() -> None:
    def one(data: st.DataObject) -> bool:
        shape = tuple(data.draw(st.lists(st.integers(0, 4), max_size=3)))
        dtype = f"uint{data.draw(st.sampled_from([8, 16, 32]))}"
        generator = data.draw(st.sampled_from(["threefry2x32", "threefry2x32", "rbg"]))
        words = np.array([data.draw(st.integers(0, 2**32 - 1)) for _ in range(4)], np.uint32)
        words = words if generator == "rbg" else words[:2]

        def function(words: Any) -> Any:
            return jax.random.bits(jax.random.wrap_key_data(words, impl=generator), shape, dtype)

        graph, new = after(RandomBits(), (function, (words,)), Inline())
        for found, expected in zip(evaluate(new, words), evaluate(graph, words), strict=True):
            np.testing.assert_array_equal(found, expected)
        opened = not any(node.op.name == "random_bits" for node in new.nodes)
        assert opened == (generator != "rbg" and 0 not in shape)
        return opened

    share(one, 25, 0.3)


UPDATES: Sequence[Callable[..., Any]] = (
    lambda x, y: lax.dynamic_update_slice(x, y[:1], (1, 0)),
    lambda x, y: x.at[0].add(y[0]),
    lambda x, y: x.reshape(-1),
    lambda x, y: x,
    lambda x, y: lax.dynamic_update_slice(x + y, y[:1], (0, 0)),
    lambda x, y: (x * y).sum(),
)


def test_arguments_that_are_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if each copy were worth it."""
    monkeypatch.setattr(renew, "decide", lambda candidates, _: [None for _ in candidates])

    def one(data: st.DataObject) -> bool:
        x = array(data, data.draw(st.integers(2, 5)), data.draw(st.integers(1, 5)))
        chosen = data.draw(st.lists(st.sampled_from(UPDATES), min_size=1, max_size=3))
        args = (x, array(data, *x.shape))
        graph, new = after(Renew(ENGINE, Machine()), (lambda x, y: [f(x, y) for f in chosen], args), Inline())
        kernels_stay_right(graph, new, args, "exact")
        return any(node.op is KERNEL for node in new.nodes)

    share(one, 12, 0.4)


STEPS: Sequence[Callable[..., Any]] = (
    lambda x: prescribed(x, x),
    lambda x: jnp.tanh(x),
    lambda x: lax.digamma(x) * 2,
    lambda x: lax.fori_loop(0, 3, lambda _, c: jnp.tanh(lax.digamma(c)) - c, x),
    lambda x: x + lax.rev(lax.digamma(x), (0,)),
)


def test_results_over_operands() -> None:
    def one(data: st.DataObject) -> bool:
        chosen = data.draw(st.lists(st.sampled_from(STEPS), min_size=2, max_size=5))
        kept = data.draw(st.booleans())

        def function(x: Any) -> Any:
            seen = []
            for step in chosen:
                x = step(x)
                seen.append(x)
            return seen if kept else x

        args = (array(data, 100, 100) * np.float32(0.1),)
        graph, new = after(Reuse(ENGINE), (function, args), Inline(), Fuse(ENGINE))
        assert disagreement(graph, new, args, "exact") is None
        nodes = [node for inner in nested_graphs(new) for node in inner.nodes if node.op is KERNEL]
        pairs = [pair for node in nodes for pair in node.attrs.get("in_place", ())]
        for node in nodes:
            for operand, result in node.attrs.get("in_place", ()):
                assert node.inputs[operand].aval == results(node)[result].aval
        return bool(pairs)

    share(one, 10, 0.4)


ON_EACH: Sequence[Callable[..., Any]] = (
    lambda x: jnp.sin(x) * x,
    lambda x: x + lax.psum(x, "i"),
    lambda x: lax.fori_loop(0, 3, lambda _, c: c * 2 - 1, x),
    lambda x: x - x.sum(1, keepdims=True),
    lambda x: lax.pmax(x, "i") * 2,
)


def test_what_runs_on_one_device() -> None:
    mesh = jax.make_mesh((1,), ("i",), axis_types=(jax.sharding.AxisType.Auto,))

    def one(data: st.DataObject) -> bool:
        chosen = data.draw(st.lists(st.sampled_from(ON_EACH), min_size=1, max_size=4))

        def function(x: Any) -> Any:
            for step in chosen:
                x = step(x)
            return x

        mapped = jax.shard_map(function, mesh=mesh, in_specs=P("i"), out_specs=P("i"))
        args = (array(data, 3, 4),)
        graph, new = after(Local(ENGINE), (mapped, args), Inline())
        assert disagreement(graph, new, args, "exact") is None
        return new is not graph

    share(one, 6, 0.9)
