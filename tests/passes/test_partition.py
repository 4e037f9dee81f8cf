"""Kernels side by side: graphs before and after, same bits, what stays one by one and why, loops, threads."""

import functools
import os
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import lax
from jax.extend.core import jaxpr_as_fun

import graphopt
from graphopt import compile
from graphopt.analysis import beside, parts, writing
from graphopt.analysis.machine import Machine
from graphopt.backends.interpret import interpret
from graphopt.backends.numba.engine import NumbaEngine, plan_by_key
from graphopt.backends.reference import apply_opened, evaluate
from graphopt.backends.xla.staging import jaxpr_of
from graphopt.config import Options
from graphopt.ir.check import check
from graphopt.ir.graph import Graph, nested_graphs
from graphopt.ops.kernel import KERNEL
from graphopt.passes.fuse import Fuse
from graphopt.passes.partition import MOST, Partition
from graphopt.passes.pipelines import STANDARD
from graphopt.passes.reuse import Reuse
from graphopt.rewrite.passes import Context, run_pipeline
from graphopt.trace.jaxpr import trace_function

from ..golden.printing import golden_text
from ..prescribed import prescribed

FOLDER = Path(__file__).parents[1] / "golden" / "kernels"
ENGINE = NumbaEngine()
ALWAYS = functools.partial(Partition, gain=-1e12, share=-1e12)
RANDOM = np.random.default_rng(7)


def floats(*shape: int) -> Any:
    return RANDOM.standard_normal(shape).astype(np.float32)


@pytest.fixture(autouse=True)
def eager(monkeypatch: pytest.MonkeyPatch) -> None:
    """All kernels that may be side by side are, and threads take little at a time."""
    monkeypatch.setattr(compile, "Partition", ALWAYS)
    monkeypatch.setattr(compile, "machine_for_decisions", lambda: Machine(threads=4))
    monkeypatch.setattr(beside, "LEAST", 0.0)
    monkeypatch.setattr(writing, "GRAIN", 30.0)
    monkeypatch.setattr(parts, "LONG", 256)


def kernels(graph: Graph) -> list[Any]:
    return [node for inner in nested_graphs(graph) for node in inner.nodes if node.op is KERNEL]


def with_kernels(function: Callable[..., Any], *args: Any) -> tuple[Graph, Context]:
    """The graph of a program before the pass."""
    graph, sources = trace_function(function, *args)
    context = Context(Options(), sources)
    graph, _ = run_pipeline(graph, (*STANDARD, Fuse(ENGINE), Reuse(ENGINE)), context)
    context.start()
    return graph, context


def partitioned(function: Callable[..., Any], *args: Any, step: Any = None) -> tuple[Graph, Graph, Context]:
    """The graph of kernels before and after the pass; both mean the same."""
    graph, context = with_kernels(function, *args)
    after = (step or ALWAYS(ENGINE, Machine(threads=4))).run(graph, context)
    check(after)
    expected = evaluate(graph, *args, apply=apply_opened)
    for found, wanted in zip(evaluate(after, *args, apply=apply_opened), expected, strict=True):
        np.testing.assert_array_equal(found, wanted)
    return graph, after, context


def run_alike(function: Callable[..., Any], *args: Any, count: int | None = None) -> None:
    """Compiled, side by side, a program gives the bits that its kernels give by themselves, and about what XLA does."""
    jitted = graphopt.jit(function, backend="numba")
    report = jitted.explain(*args)
    if count is not None:
        assert len(report.kernels) == count, report.notes
    alone = jax.jit(jaxpr_as_fun(jaxpr_of(with_kernels(function, *args)[0])))(*args)
    expected = jax.tree.leaves(jax.jit(function)(*args))
    for _ in range(5):
        for found, same, near in zip(jax.tree.leaves(jitted(*args)), alone, expected, strict=True):
            np.testing.assert_array_equal(found, same)
            np.testing.assert_allclose(found, near, rtol=1e-4, atol=1e-4)


CASES: dict[str, tuple[Callable[..., Any], tuple[Any, ...]]] = {
    "three of different shapes": (
        lambda x, y, z: (jnp.cumsum(x), lax.argmax(y, 1, np.int32), lax.sort(z)),
        (floats(1009), floats(37, 101), floats(613)),
    ),
    "several results of each": (
        lambda x, y: (lax.top_k(x, 5), lax.sort((y, y * 2), num_keys=1)),
        (floats(257), floats(131)),
    ),
    "one after the other in pairs": (
        lambda x, y: (lax.sort(lax.cumsum(x)), lax.cumsum(lax.sort(y))),
        (floats(101), floats(211)),
    ),
    "long sums, cut": (lambda x, y: (jnp.exp(x).sum(), lax.cummax(y)), (floats(509), floats(401))),
    "one operand for all": (lambda x: (lax.sort(x), lax.cumsum(x), lax.cumprod(x[:17])), (floats(509),)),
    "one shape": (lambda x, y: (lax.sort(x), lax.sort(y)), (floats(129), floats(129))),
    "products with one operand": (
        lambda x, y, z: (lax.sort(jnp.tanh(x @ y)), lax.sort(jnp.tanh(x @ z))),
        (floats(5, 5), floats(5), floats(5)),
    ),
    "loops": (
        lambda x, y: (
            lax.fori_loop(0, 7, lambda k, c: jnp.sin(c) + 1, x),
            lax.while_loop(lambda c: c[0] < 5, lambda c: (c[0] + 1, c[1] * 1.5), (0, y)),
        ),
        (floats(333), floats(17, 5)),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_same_bits_in_one_kernel(name: str) -> None:
    function, args = CASES[name]
    graph, after, context = partitioned(function, *args)
    assert len(kernels(after)) < len(kernels(graph)) and any(n.startswith("side by side") for n in context.notes)
    run_alike(function, *args, count=len(kernels(after)))


@pytest.mark.parametrize("name", CASES)
def test_phases_beside_each_other_do_not_need_each_other(name: str) -> None:
    """The interpreter takes them in another order, and refuses to read what is not there."""
    function, args = CASES[name]
    _, after, _ = partitioned(function, *args)
    for node in kernels(after):
        body, program = node.attrs["body"].graph, plan_by_key(node.attrs["key"]).program
        given = [floats(*p.aval.shape).astype(p.aval.dtype) for p in body.params]
        for found, wanted in zip(interpret(program, *given), evaluate(body, *given), strict=True):
            np.testing.assert_allclose(found, np.asarray(wanted).reshape(-1), rtol=1e-3, atol=1e-3)
    assert any(phase.beside for node in kernels(after) for phase in plan_by_key(node.attrs["key"]).program.phases)


def test_the_graph_and_the_loops_as_text() -> None:
    graph, after, _ = partitioned(
        lambda x, y: (lax.cumsum(x), lax.argmax(y * 2, 1, np.int32)), floats(300), floats(7, 40)
    )
    (node,) = kernels(after)
    program = plan_by_key(node.attrs["key"]).program
    text = f"# partition: side by side\n\n# before\n{golden_text(graph)}\n# after\n{golden_text(after)}\n{program}\n"
    path = FOLDER / "partition-side-by-side.txt"
    if os.environ.get("GRAPHOPT_TEST_UPDATE"):
        path.write_text(text)
    assert text == path.read_text()


STEPS: Sequence[Callable[[Any], Any]] = (
    lambda x: lax.sort(x),
    lambda x: lax.cumsum(x),
    lambda x: lax.cummax(x, reverse=True),
    lambda x: lax.top_k(x, 3)[0],
    lambda x: lax.sort((x, -x), num_keys=1)[1],
    lambda x: jnp.repeat(x.max(), 5),
    lambda x: x @ jnp.ones((x.size, 7), x.dtype),  # which stays outside
)


@settings(max_examples=15)
@given(st.data())
def test_random_programs_mean_the_same(data: st.DataObject) -> None:
    """Any graph of kernels and others: nothing waits for itself."""
    count = data.draw(st.integers(2, 9))
    choices = [
        (data.draw(st.sampled_from(STEPS)), data.draw(st.integers(0, k)), data.draw(st.integers(0, k)))
        for k in range(count)
    ]

    def program(x: Any) -> Any:
        values = [x]
        for step, a, b in choices:
            size = min(values[a].size, values[b].size)
            values.append(step(values[a][:size] + values[b][:size]))
        return values[1:]

    partitioned(program, np.arange(11, dtype=np.float32) % 5)


def test_in_the_body_of_a_loop() -> None:
    def function(x: Any, y: Any) -> Any:
        return lax.scan(lambda c, _: ((lax.cumsum(c[1][:101]), lax.sort(c[1])), c[0].sum()), (x, y), None, length=5)

    x, y = floats(101), floats(203)
    _, _, context = partitioned(function, x, y)
    assert any(note.startswith("side by side") for note in context.notes)
    run_alike(function, x, y)


def test_what_is_shared_by_all_cores_stays() -> None:
    _, after, context = partitioned(lambda x, y: (jnp.power(x, x), lax.sort(y)), floats(400_000), floats(1000))
    assert len(kernels(after)) == 2 and any("all 4 cores share it" in note for note in context.notes)


def test_what_writes_over_its_operand_stays() -> None:
    graph, after, context = partitioned(
        lambda x, y: (jnp.tanh(prescribed(x, x)), lax.cumsum(y)), floats(64, 64), floats(901)
    )
    assert any("in_place" in node.attrs for node in kernels(graph))
    assert len(kernels(after)) == 2 and any("writes over its operand" in note for note in context.notes)


def test_what_is_large_stays() -> None:
    _, after, context = partitioned(lambda x, y: (lax.sort(x), lax.sort(y)), floats(1_000_000), floats(1000))
    assert len(kernels(after)) == 2 and any("take turns" in note for note in context.notes)


def test_what_gains_little_stays() -> None:
    step = Partition(ENGINE, Machine(threads=4))
    _, after, context = partitioned(lambda x, y: (lax.sort(x), lax.cumsum(y)), floats(100), floats(101), step=step)
    assert len(kernels(after)) == 2 and any("that would gain" in note for note in context.notes)


def test_one_core_has_nothing_beside() -> None:
    step = Partition(ENGINE, Machine(threads=1))
    graph, after, context = partitioned(lambda x, y: (lax.sort(x), lax.cumsum(y)), floats(9), floats(11), step=step)
    assert after is graph and context.notes == ["left one by one: there is one core"]


def test_many_become_several_of_a_size() -> None:
    xs = [floats(5 + k) for k in range(MOST + 3)]
    _, after, _ = partitioned(lambda *xs: [lax.sort(x) for x in xs], *xs)
    assert 2 <= len(kernels(after)) <= 3
    assert max(len(node.avals) for node in kernels(after)) <= MOST


def test_large_ones_are_expected_to_gain() -> None:
    step = Partition(ENGINE, Machine(threads=2))
    xs = [floats(32_003), floats(30_021), floats(27_001)]  # longer ones are sorted by all threads
    _, after, context = partitioned(lambda *xs: [lax.sort(x) for x in xs], *xs, step=step)
    assert len(kernels(after)) == 1 and "µs in a run become" in context.notes[0]


@pytest.mark.parametrize("sizes", [(1, 2), (0, 7)])
def test_small_and_empty(sizes: tuple[int, int]) -> None:
    run_alike(lambda x, y: (lax.sort(x), lax.cumsum(y), lax.sort(jnp.append(x, y))), *map(floats, sizes))


def test_several_threads_call_at_once() -> None:
    function = graphopt.jit(lambda x, y: (lax.sort(x, dimension=1), lax.cumsum(y, 1)), backend="numba")
    x, y = floats(23, 50), floats(31, 40)
    assert len(function.explain(x, y).kernels) == 1
    wrong: list[int] = []

    def work(number: int) -> None:
        mine = x + number
        for _ in range(40):
            found = function(mine, y)
            if not np.array_equal(found[0], np.sort(mine, 1)) or not np.allclose(found[1], np.cumsum(y, 1), atol=1e-4):
                wrong.append(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_a_small_product_beside_a_large_one() -> None:
    """Alone the small one is written as a sum of products, though the large one beside it is not."""

    def function(x: Any, weights: Any, right: Any, left: Any) -> Any:
        y = x @ weights
        return y @ right, y.T @ left

    args = [floats(m * n).reshape(m, n) for m, n in ((8, 48), (48, 64), (64, 10), (8, 10))]
    jitted = graphopt.jit(function, backend="numba")
    assert any("side by side" in str(note) for note in jitted.explain(*args).notes)
    for found, expected in zip(jitted(*args), jax.jit(function)(*args), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


@settings(max_examples=10)
@given(st.lists(st.sampled_from([1, 2, 7, 8, 16, 24, 48, 65]), min_size=4, max_size=4), st.booleans())
def test_gradients_of_layers(sizes: list[int], is_deep: bool) -> None:
    """Of every width: products of all kinds beside each other."""
    rows, inside, width, outside = sizes

    def loss(weights: Any, x: Any) -> Any:
        first, second = weights
        y = jnp.tanh(x @ first) @ second
        return ((y @ y.T if is_deep else y) ** 2).mean()

    weights = floats(inside * width).reshape(inside, width), floats(width * outside).reshape(width, outside)
    args = weights, floats(rows * inside).reshape(rows, inside)
    gradient = jax.grad(loss)
    found = graphopt.jit(gradient, backend="numba")(*args)
    for a, b in zip(found, jax.jit(gradient)(*args), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-3 * max(1.0, float(np.abs(b).max())))


def test_source_lines_stay() -> None:
    jitted = graphopt.jit(lambda x, y: (lax.sort(x), lax.cumsum(y)), backend="numba")
    (kernel,) = jitted.explain(floats(300), floats(200)).kernels
    assert "test_partition.py" in kernel.source and "beside this:" in str(kernel.program)
