"""Fusion: the graph before and after as text, what stays outside of kernels and why, and where nothing is fused."""

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export, lax

import graphopt
from graphopt.analysis import grouping
from graphopt.analysis.engine import PREDICTED, Pairs, Plan, Schedule
from graphopt.backends.numba.engine import NumbaEngine, plan_by_key
from graphopt.backends.reference import apply_opened, evaluate
from graphopt.backends.xla.target import Target
from graphopt.compile import context_for, engine_passes, may_have_kernels, optimize_graph
from graphopt.config import Options
from graphopt.ir.check import check
from graphopt.ir.graph import Graph, nested_graphs
from graphopt.ops.control import COND, SCAN, WHILE
from graphopt.ops.kernel import KERNEL
from graphopt.passes.fuse import Fuse
from graphopt.passes.pipelines import STANDARD
from graphopt.rewrite.passes import Context, run_pipeline
from graphopt.trace.jaxpr import trace_function

from ..golden.printing import golden_text

FOLDER = Path(__file__).parents[1] / "golden" / "kernels"
X = (np.arange(12, dtype=np.float32) - 5).reshape(3, 4)
V = X[0]
WEIGHTS = np.array([1, 2, 3, 5], np.float32)


def fused(function: Callable[..., Any], *args: Any, numerics: str = "standard") -> tuple[Graph, Graph, Context]:
    """The graph before and after the pass; both compute the same."""
    graph, sources = trace_function(function, *args)
    graph, _ = run_pipeline(graph, STANDARD, Context(Options(), sources))
    context = Context(Options(numerics=numerics), sources)
    after = Fuse(NumbaEngine()).run(graph, context)
    check(after)
    for found, expected in zip(
        evaluate(after, *args, apply=apply_opened), evaluate(graph, *args, apply=apply_opened), strict=True
    ):
        np.testing.assert_array_equal(found, expected)
    return graph, after, context


def kernels(graph: Graph) -> list[Any]:
    return [node for inner in nested_graphs(graph) for node in inner.nodes if node.op is KERNEL]


def members(node: Any) -> list[str]:
    return [n.op.name for n in node.attrs["body"].graph.nodes if n.op.primitive is not None]


def outside(graph: Graph) -> list[str]:
    return [n.op.name for n in graph.nodes if n.op.primitive is not None and n.op is not KERNEL]


def loop(x: Any) -> Any:
    return lax.scan(lambda c, v: (lax.digamma(c * v + 1) - v, c * c), x[0], x)


DATA, *LAYERS = (np.zeros(shape, np.float32) for shape in ((9, 20), (20, 17), (17, 18), (18,)))


def two_layers(x: Any, w: Any, u: Any, b: Any) -> Any:
    return lax.dot(lax.tanh(lax.dot(x, w)), u) + b


CASES: dict[str, tuple[Callable[..., Any], tuple[Any, ...]]] = {
    "rows": (lambda x: (y := x - x.max(1, keepdims=True)) / y.sum(1, keepdims=True), (X,)),
    "what is declined lies between": (lambda x: (y := x * 3 + 1) * lax.digamma(y), (X,)),
    "several results": (lambda x: (y := x * 3, y - lax.abs(x)), (X,)),
    "a cumulative operation": (lambda x: lax.cumsum(x * 3, 1) - 1, (X,)),
    "captured constants": (lambda x: x * WEIGHTS - np.float32(2), (X,)),
    "a loop": (loop, (X,)),
    "elementwise": (lambda x: lax.exp(x) * 2 - 1, (X,)),
    "products and what follows": (two_layers, (DATA, *LAYERS)),
    "only moving": (lambda x: (lax.rev(x, (0,)).T, lax.digamma(x)), (X,)),
}


@pytest.mark.parametrize("name", CASES)
def test_the_text_before_and_after(name: str) -> None:
    function, args = CASES[name]
    before, after, context = fused(function, *args)
    notes = "".join(f"# note: {line}\n" for line in context.notes)
    text = f"# fuse: {name}\n\n# before\n{golden_text(before)}\n# after\n{notes}{golden_text(after)}"
    file = FOLDER / f"fuse-{name.replace(' ', '-')}.txt"
    if os.environ.get("GRAPHOPT_TEST_UPDATE") == "1":
        file.write_text(text)
    assert file.is_file(), f"{file} is missing; GRAPHOPT_TEST_UPDATE=1 writes it"
    assert text == file.read_text()


def test_no_text_is_left_over() -> None:
    assert {f.name for f in FOLDER.glob("fuse-*")} == {f"fuse-{name.replace(' ', '-')}.txt" for name in CASES}


def test_a_second_run_changes_nothing() -> None:
    for function, args in CASES.values():
        _, after, context = fused(function, *args)
        assert Fuse(NumbaEngine()).run(after, context) is after


def test_no_kernel_waits_for_itself() -> None:
    _, after, _ = fused(lambda x: (y := x * 3 + 1) * lax.digamma(y * y) - lax.digamma(y), X)
    first, *_, last = kernels(after)
    assert members(first)[:2] == ["mul", "add"] and "sub" in members(last)


def test_loops_and_branches_have_kernels_in_them() -> None:
    def function(x: Any, n: Any) -> Any:
        grow = lambda c: (c[0] + 1, lax.digamma(c[1]) * 3 - 1)  # a loop that is no kernel as a whole
        x = lax.while_loop(lambda c: jnp.sum(c[1] * 3) < 100, grow, (n, x))[1]
        return lax.cond(n > 2, lambda x: x * 5 + 1, lambda x: lax.digamma(x), loop(x)[1])

    _, after, _ = fused(function, X + 9, np.int32(1))
    found = {node.op: [len(kernels(s.graph)) for s in node.subgraphs] for node in after.nodes if node.subgraphs}
    assert min(found[WHILE]) > 0 and min(found[SCAN]) > 0 and sorted(found[COND]) == [0, 1]


def test_a_product_has_its_factors_before_it_and_no_other_beside_it() -> None:
    def bodies(function: Callable[..., Any], *args: Any) -> list[list[str]]:
        _, after, _ = fused(function, *args)
        return [members(kernel) for kernel in kernels(after)]

    x, w = DATA, LAYERS[0]
    assert bodies(lambda x, w: jnp.exp(x) @ w, x, w) == [["exp"], ["dot_general"]]
    assert sorted(bodies(lambda x, w: x @ w + (x * 2) @ w, x, w)) == [["dot_general"], ["dot_general", "add"], ["mul"]]
    assert bodies(lambda x, w: (x @ w, jnp.tanh(x @ w)), x, w) == [["dot_general", "tanh"]]
    assert bodies(lambda x, w: (x @ w).max(1), x, w) == [["dot_general"], ["reduce_max"]]
    assert bodies(lambda x, w: (x @ w, x @ (w * 3)), x, w) == [["dot_general"], ["mul"], ["dot_general"]]


def test_how_a_scatter_combines_is_for_xla_to_read() -> None:
    graph, after, context = fused(lambda x, i: (x * 2).at[i].apply(lambda y: y * 3 + 1), V, np.int32([1, 1, 2]))
    (before,) = [n for n in graph.nodes if n.op.name.startswith("scatter")]
    (scatter,) = [n for n in after.nodes if n.op.name.startswith("scatter")]
    assert scatter.attrs == before.attrs and kernels(after)
    assert any("scatter" in note for note in context.notes)


def test_an_array_that_is_captured_is_an_operand_and_a_number_is_not() -> None:
    _, after, _ = fused(lambda x: x * WEIGHTS - np.float32(2), X)
    (node,) = kernels(after)
    assert len(node.inputs) == 2
    assert [n.value.item() for n in node.attrs["body"].graph.nodes if n.op.name == "constant"] == [2.0]


def test_an_array_of_one_number_is_made_in_each_kernel_that_needs_it() -> None:
    def function(i: Any, v: Any) -> Any:
        zeros = jnp.zeros(v.size)
        return zeros, zeros.at[i].add(v)

    _, after, _ = fused(function, np.arange(1000)[::-1] // 2, np.arange(1000, dtype=np.float32))
    assert "broadcast_in_dim" in outside(after)  # it is a result too
    assert any("broadcast_in_dim" in members(node) for node in kernels(after))
    for node in kernels(after):
        assert not any(operand.op.name == "broadcast_in_dim" for operand in node.inputs)


def test_what_is_left_is_named_with_the_reason_and_how_often() -> None:
    def function(x: Any, h: Any, e: Any) -> Any:
        return lax.digamma(x) + lax.digamma(x + 1), h * 2, lax.rev(x, (0,)), lax.lgamma(x), e * 2

    _, _, context = fused(function, X, X.astype(jnp.float8_e4m3fn), X[:0])
    notes = "\n".join(context.notes)
    assert "left to XLA: digamma is left to XLA (2 times)" in notes
    assert "mul of float8_e4m3fn" in notes and "rev, which by itself moves data" in notes
    assert "left to XLA: lgamma" in notes
    assert "left to XLA: what is empty" in notes
    assert re.search(r"numba: \d+ kernels? of \d+ operations?", notes)


def test_what_is_wasteful_is_computed_once_before() -> None:
    """Each row sum is needed in every column: a kernel for it, and one that reads it."""
    x = np.ones((200, 300), np.float32)
    _, after, _ = fused(lambda x, z: z - jnp.sum(x * 2, 1)[None, :], x, np.ones((300, 200), np.float32))
    assert sorted(map(members, kernels(after))) == [["broadcast_in_dim", "sub"], ["mul", "reduce_sum"]]
    # The same where all of it is one number.
    _, after, _ = fused(lambda x, z: jnp.sum(z * jnp.sum(x, 1)[None, :]), x, np.ones((300, 200), np.float32))
    assert len(kernels(after)) > 1
    _, after, _ = fused(lambda x: x - jnp.sum(x * 2, 1)[:, None], x)
    assert len(kernels(after)) == 1


def test_a_chain_of_shifts_does_not_double_with_each() -> None:
    def chain(x: Any, length: int) -> Any:
        for _ in range(length):
            x = x * 2 + jnp.roll(x, 1)
        return x

    lines = []
    for length in (1, 3, 9, 60):
        _, after, _ = fused(lambda x, length=length: chain(x, length), V)
        lines.append(sum(len(plan_by_key(node.attrs["key"]).source.splitlines()) for node in kernels(after)))
    assert all(count <= 4 * length * lines[0] for count, length in zip(lines, (1, 3, 9, 60), strict=True))


def test_steps_of_a_stencil_are_a_kernel_each() -> None:
    """All of them would compute the first ones for each neighbour of a neighbour; none is made of single operations."""

    def smoothed(x: Any) -> Any:
        for _ in range(4):
            around = x[2:, 1:-1] + x[:-2, 1:-1] + x[1:-1, 2:] + x[1:-1, :-2] - 4 * x[1:-1, 1:-1]
            x = lax.dynamic_update_slice(x, x[1:-1, 1:-1] + 0.25 * around, (1, 1))
        return x

    _, after, _ = fused(smoothed, np.arange(400, dtype=np.float32).reshape(20, 20))
    assert [members(node).count("dynamic_update_slice") for node in kernels(after)] == [1] * 4


def test_where_numerics_are_exact_sums_keep_their_order() -> None:
    asked: list[bool] = []

    class Asked(NumbaEngine):
        def plan(
            self, body: Graph, any_order: bool, in_place: Pairs = (), schedule: Schedule = PREDICTED
        ) -> Plan | None:
            asked.append(any_order)
            return super().plan(body, any_order, in_place, schedule)

    graph, sources = trace_function(lambda x: jnp.sum(x * 2, 1), X)
    found = {}
    for numerics in ("exact", "standard", "fast"):
        asked.clear()
        (node,) = kernels(Fuse(Asked()).run(graph, Context(Options(numerics=numerics), sources)))
        assert set(asked) == {numerics != "exact"}
        found[numerics] = plan_by_key(node.attrs["key"]).source
    assert "any_order" not in found["exact"] and "add_any_order" in found["standard"] == found["fast"]


def test_only_on_a_cpu_in_this_process() -> None:
    def passes(target: Target, backend: str = "numba") -> bool:
        graph, sources = trace_function(lambda x: x * 2 + 1, X)
        options = Options(backend=backend)
        possible = may_have_kernels(options, context_for(options, sources, target), target)
        return possible and bool(engine_passes(graph, options, target))

    assert passes(Target(("cpu",)))
    assert not passes(Target(("cpu",)), "auto") and not passes(Target(("cpu",)), "xla")
    for target in (
        Target(("cuda",)),
        Target(("cpu", "cuda")),
        Target(("cpu",), num_devices=2),
        Target(("cpu",), for_export=True),
        Target(("cpu",), symbolic=True),
        Target(("cpu",), transformable=True),
    ):
        assert not passes(target) or target.num_devices > 1
        graph, sources = trace_function(lambda x: x * 2 + 1, X)
        assert not kernels(optimize_graph(graph, sources, Options(backend="numba"), target)[0])


def test_exports_and_other_platforms_have_no_kernels() -> None:
    jitted = graphopt.jit(lambda x: x * 2 + 1, backend="numba")
    assert "graphopt.kernel" in jitted.lower(X).as_text()
    assert "graphopt.kernel" not in jitted.trace(X).lower(lowering_platforms=("cuda",)).as_text()
    exported = export.export(jitted)(jax.ShapeDtypeStruct(X.shape, X.dtype))
    assert "graphopt.kernel" not in exported.mlir_module()
    np.testing.assert_array_equal(exported.call(X), X * 2 + 1)


def test_a_kernel_means_its_body() -> None:
    """By itself, outside of a lowering, it runs the operations in it."""
    before, after, _ = fused(lambda x: (y := x * 3 + 1, lax.abs(y)), X)
    assert len(kernels(after)) == 1
    for found, expected in zip(evaluate(after, X), evaluate(before, X), strict=True):
        np.testing.assert_array_equal(found, expected)


def test_lines_of_the_user_stay_known() -> None:
    graph, sources = trace_function(lambda x: lax.digamma(x) * 3, X)
    after = Fuse(NumbaEngine()).run(graph, Context(Options(), sources))
    (sine,) = [n for n in after.nodes if n.op.name == "digamma"]
    assert sources.infos[after][sine] == sources.infos[graph][next(n for n in graph.nodes if n.op.name == "digamma")]


def test_a_small_limit_makes_more_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grouping, "LIMIT", 2)
    _, after, _ = fused(lambda x: lax.abs((x + 1) * x - 3), X)
    assert len(kernels(after)) == 2 and all(len(members(node)) == 2 for node in kernels(after))


def test_a_long_chain_is_one_kernel() -> None:
    steps = (lambda x, y: (x * y - 1, y), lambda x, y: (y, lax.abs(x) + 2), lambda x, y: (lax.neg(y), x / 3 + y))
    order = np.random.default_rng(0).integers(0, len(steps), 400)  # that no loop repeats

    def chain(x: Any, y: Any) -> Any:
        for k in order:
            x, y = steps[k](x, y)
        return x, y

    args = np.random.default_rng(1).random((2, 100, 64), np.float32)
    before, after, _ = fused(chain, *args)
    assert len(kernels(after)) == 1 and len(members(kernels(after)[0])) > 500
    for found, expected in zip(evaluate(after, *args), evaluate(before, *args), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-5)


# ---- pieces and siblings


def pairs(x: Any) -> tuple[Any, Any]:
    """The differences of all pairs, and the squares of their lengths: large, of little."""
    d = x[:, None] - x[None]
    return d, (d * d).sum(-1)


POINTS = np.random.default_rng(0).integers(-9, 9, (600, 3)).astype(np.float32)


def test_what_is_large_and_made_of_little_is_computed_in_each_kernel_that_needs_it() -> None:
    def function(x: Any) -> Any:
        d, r = pairs(x)
        near = r.min(1, keepdims=True)
        return (d * (r - near)[..., None]).sum(1), jnp.sum(r * 3, 1), lax.digamma(near)

    _, after, _ = fused(function, POINTS)
    made = kernels(after)
    assert all(n.aval.size <= POINTS.size for n in after.nodes if n.op is not KERNEL)
    assert all(aval.size <= POINTS.size for node in made for aval in node.avals)
    assert sum("sub" in members(node) for node in made) > 1


def test_what_is_large_is_stored_where_it_takes_long_to_compute_or_is_made_of_much() -> None:
    column, large = np.ones((600, 1), np.float32), np.ones((600, 600), np.float32)
    for function in (
        lambda x, y: ((z := x + y) * lax.digamma(z.sum(1, keepdims=True)), z),  # a result itself
        lambda x, y: ((z := large * 2 + x) + lax.digamma(z.max(1, keepdims=True)), z.min(1)),
    ):
        _, after, _ = fused(function, column, column.T)
        assert max(aval.size for node in kernels(after) for aval in node.avals) == 600 * 600


def test_a_piece_that_xla_needs_too_is_there_for_it() -> None:
    def function(x: Any) -> Any:
        _, r = pairs(x)
        return lax.digamma(r - 1), r.sum(1) * 2, jnp.square(r).max(1)

    _, after, _ = fused(function, POINTS[:520])
    assert "digamma" in outside(after) and kernels(after)


def test_results_of_the_same_operands_share_a_kernel() -> None:
    x = np.arange(10_000, dtype=np.float32).reshape(100, 100)
    _, after, _ = fused(lambda x: (x.sum(1), x.max(1), (x * 2).min(1), jnp.argmax(x, 1)), x)
    (kernel,) = kernels(after)
    assert len(kernel.avals) == 4
    # One that needs the other, by way of XLA, can't be in one kernel with it.
    _, after, _ = fused(lambda x: (s := x.sum(1), (x * lax.digamma(s)).max(1)), x)
    assert len(kernels(after)) == 2
    _, after, _ = fused(lambda x: (x[0].sum() * 2, x.max(1)), x)
    assert len(kernels(after)) == 2  # of other shapes


def test_small_results_that_many_need_are_computed_once() -> None:
    """In the sums of a softmax's gradient: what is a row's is not computed for each of its elements, by column."""

    def function(x: Any) -> Any:
        _, r = pairs(x)
        least = r.min(1)
        count = (r == least[:, None]).sum(1).astype(np.float32)
        return ((r - least[:, None]) * count[None, :]).sum(1)

    _, after, _ = fused(function, POINTS)
    assert len(kernels(after)) == 2
    assert sorted(node.avals[0].shape for node in kernels(after)) == [(600,), (600,)]
