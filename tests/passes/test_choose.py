"""Which operations leave XLA where the choice is free: those that XLA:CPU is known to be slow at, where it pays."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import graphopt
from graphopt.backends.numba import frame
from graphopt.errors import EngineError
from graphopt.passes.choose import PATHOLOGIES

LARGE = np.random.default_rng(0).normal(size=(700, 1000)).astype(np.float32)
SMALL = LARGE[:3, :5]

KNOWN: dict[str, Callable[[Any], Any]] = {
    "sort": lambda x: jnp.sort(x, axis=1),
    "argmax": lambda x: jnp.argmax(x, axis=1),
    "argmin": lambda x: jnp.argmin(x, axis=1),
    "cumsum": lambda x: lax.cumsum(x, 1),
    "cumprod": lambda x: lax.cumprod(x, 1),
    "cummax": lambda x: lax.cummax(x, 1),
    "cummin": lambda x: lax.cummin(x, 1),
    "cumlogsumexp": lambda x: lax.cumlogsumexp(x, 1),
    "top_k": lambda x: lax.top_k(x, min(10, x.shape[1]))[0],
    "reduce_window_sum": lambda x: lax.reduce_window(x, np.float32(0), lax.add, (3, 3), (1, 1), "SAME"),
    "reduce_window_max": lambda x: lax.reduce_window(x, -jnp.inf, lax.max, (3, 3), (1, 1), "SAME"),
    "reduce_window_min": lambda x: lax.reduce_window(x, jnp.inf, lax.min, (3, 3), (1, 1), "SAME"),
    "select_and_scatter_add": lambda x: jax.vjp(KNOWN["reduce_window_max"], x)[1](x)[0],
}


def test_each_pathology_has_a_test() -> None:
    assert {op.name for op in PATHOLOGIES} == set(KNOWN)


@pytest.mark.parametrize("name", KNOWN)
def test_large_ones_leave_xla_and_small_ones_stay(name: str) -> None:
    jitted = graphopt.jit(KNOWN[name])
    assert len(jitted.explain(LARGE).kernels) == 1 and not jitted.explain(SMALL).kernels
    assert not graphopt.jit(KNOWN[name], backend="xla").explain(LARGE).kernels
    for x in (LARGE, SMALL):
        expected = jax.jit(KNOWN[name])(x)
        scale = np.maximum.accumulate(np.abs(expected), axis=-1).max()
        np.testing.assert_allclose(jitted(x), expected, rtol=1e-4, atol=1e-5 * scale)


MOVED: dict[str, tuple[Callable[[Any], Any], int]] = {
    "shifted along rows": (lambda x: jnp.roll(x, 3, 1), 1),
    "shifted in one row": (lambda x: jnp.roll(x.ravel(), 3), 1),
    "halves in the other order": (lambda x: jnp.concatenate([x[:, x.shape[1] // 2 :], x[:, : x.shape[1] // 2]], 1), 1),
    "one by one beside each other": (lambda x: jnp.stack([x[: len(x) // 2], x[len(x) // 2 :][: len(x) // 2]], -1), 1),
    "whole rows in the other order": (lambda x: x[::-1], 0),
    "rows beside each other": (lambda x: lax.concatenate([x, x], 1), 0),
    "rows below each other": (lambda x: jnp.roll(x, 3, 0), 0),
}
"""What only moves data, and how many kernels it is on large arrays."""


@pytest.mark.parametrize("name", MOVED)
def test_what_xla_puts_together_element_by_element_leaves_it(name: str) -> None:
    function, kernels = MOVED[name]
    jitted = graphopt.jit(function)
    assert [len(jitted.explain(x).kernels) for x in (LARGE, SMALL)] == [kernels, 0]
    for x in (LARGE, SMALL):
        np.testing.assert_array_equal(jitted(x), jax.jit(function)(x))


def test_what_a_product_lies_between_is_in_kernels_where_it_is_large() -> None:
    report = graphopt.jit(lambda x: jnp.tanh(jnp.sort(x * 2, axis=1)) @ x.T).explain(LARGE)
    (kernel,) = report.kernels
    assert [n.op.name for n in kernel.body.nodes if n.op.primitive is not None] == ["mul", "sort"]
    assert any("left to XLA: tanh: " in note for note in report.notes)


def hashed(x: Any) -> Any:
    def step(state: Any, word: Any) -> Any:
        return (state ^ word) * jnp.uint32(16777619), None

    return lax.scan(step, jnp.full(x.shape[1:], 2166136261, jnp.uint32), x)[0]


@pytest.mark.parametrize("length", [64, 2_000, 20_000, 100_000])
def test_what_a_scan_cuts_out_for_each_step_stays_where_xla_reads_it(length: int) -> None:
    """For a kernel it would be copied; and XLA hands a program over to another thread once, not with each step."""
    assert not graphopt.jit(hashed).explain(jax.ShapeDtypeStruct((64, length), jnp.uint32)).kernels


def test_integers_are_divided_by_a_known_number_in_a_few_operations() -> None:
    x = jax.ShapeDtypeStruct((100_000,), jnp.uint32)
    (known,) = graphopt.jit(lambda x: x % jnp.uint32(1000), backend="numba").explain(x).kernels
    (unknown,) = graphopt.jit(lambda x: x % (x | 1), backend="numba").explain(x).kernels
    assert unknown.predicted > 3 * known.predicted
    assert "tile" not in known.source  # not worth a loop of its own


def test_exact_keeps_the_bits_of_sums() -> None:
    exact = graphopt.jit(lambda x: (lax.cumsum(x, 1), lax.cummax(x, 1), jnp.sort(x, 1)), numerics="exact")
    assert len(exact.explain(LARGE).kernels) == 2
    for found, expected in zip(exact(LARGE), jax.jit(exact.__wrapped__)(LARGE), strict=True):
        np.testing.assert_array_equal(found, expected)


def test_without_the_interface_everything_stays_in_xla_and_the_report_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    frame.check_version.cache_clear()
    monkeypatch.setattr(frame, "TRIED", ())
    report = graphopt.jit(KNOWN["sort"]).explain(LARGE)
    assert not report.kernels and any("left to XLA: everything, for version" in note for note in report.notes)
    with pytest.raises(EngineError, match="foreign function interface"):
        graphopt.jit(KNOWN["sort"], backend="numba").explain(SMALL)
    frame.check_version.cache_clear()


def test_a_chain_leaves_where_it_is_the_program_and_stays_beside_products() -> None:
    def chain(x: Any) -> Any:
        return jnp.sin(x) * jnp.exp(x) + jnp.tanh(x)

    x = LARGE[:100]
    jitted = graphopt.jit(chain)
    (kernel,) = jitted.explain(x).kernels
    assert {n.op.name for n in kernel.body.nodes if n.op.primitive is not None} == {"sin", "exp", "tanh", "mul", "add"}
    np.testing.assert_allclose(jitted(x), jax.jit(chain)(x), rtol=1e-5, atol=1e-6)
    assert not graphopt.jit(chain).explain(SMALL).kernels

    def beside(x: Any) -> Any:
        for _ in range(20):
            x = x @ (LARGE.T @ LARGE)
        return chain(x)

    assert not graphopt.jit(beside).explain(x).kernels


def test_what_is_in_a_loop_counts_as_often_as_it_runs() -> None:
    def loop(x: Any, times: int) -> Any:
        return lax.scan(lambda c, _: (jnp.arctan2(c, c + 1), None), x, length=times)[0]

    x = LARGE[:1, :600]
    assert len(graphopt.jit(lambda x: loop(x, 1000)).explain(x).kernels) == 1
    assert not graphopt.jit(lambda x: loop(x, 2)).explain(x[:, :100]).kernels


def test_in_a_loop_the_best_of_short_rows_is_found_by_xla() -> None:
    """No other thread is asked for it there; of long rows XLA makes parts, there too."""

    def viterbi(x: Any) -> Any:
        step = lambda best, _: ((best[:, None] + x).max(0), (best[:, None] + x).argmax(0))
        return lax.scan(step, x[0], length=100)

    for size, leaves in ((20, 0), (64, 1)):
        x = LARGE[:size, :size]
        jitted = graphopt.jit(viterbi)
        assert len([n for k in jitted.explain(x).kernels for n in k.body.nodes if n.op.name == "argmax"]) == leaves
        for found, expected in zip(jitted(x), jax.jit(viterbi)(x), strict=True):
            np.testing.assert_array_equal(found, expected)


def test_in_a_loop_a_few_coordinates_are_put_together_by_xla() -> None:
    def lorenz(points: Any) -> Any:
        def slope(p: Any) -> Any:
            x, y, z = p[:, 0], p[:, 1], p[:, 2]
            return jnp.stack([10 * (y - x), x * (28 - z) - y, x * y - 8 / 3 * z], -1)

        step = lambda _, p: p + 0.01 * slope(p + 0.005 * slope(p))
        return lax.fori_loop(0, 50, step, points)

    assert not graphopt.jit(lorenz).explain(POINTS[:1000]).kernels


POINTS = np.random.default_rng(0).normal(size=(1500, 3)).astype(np.float32)


def forces(x: Any) -> Any:
    d = x[:, None] - x[None]
    return (d * (((d * d).sum(-1) + 1e-3) ** -1.5)[..., None]).sum(1)


def nearest(x: Any) -> Any:
    d = jnp.where(jnp.eye(len(x), dtype=bool), jnp.inf, jnp.square(x[:, None] - x[None]).sum(-1))
    return jnp.argmin(d, 1), d.min(1)


STREAMED: dict[str, Callable[[Any], Any]] = {
    "forces": forces,
    "nearest": nearest,
    "gradient of forces": jax.grad(lambda x: jnp.square(forces(x)).sum()),
    "sums of a kernel": lambda x: jnp.exp(-jnp.square(x[:, None] - x[None]).sum(-1)).sum(1),
    "a potential": lambda x: jnp.sqrt(jnp.square(x[:, None] - x[None]).sum(-1) + 1e-3).sum(),
    "counts": lambda x: (jnp.round(x.ravel() * 9)[:, None] == jnp.arange(100.0)[None]).astype(np.float32).sum(0),
}


@pytest.mark.parametrize("name", STREAMED)
def test_what_is_large_and_made_of_little_is_streamed_by_kernels(name: str) -> None:
    """No array of all pairs is in memory, in the program as it is compiled."""
    jitted, size = graphopt.jit(STREAMED[name]), 4 * len(POINTS) ** 2
    points = POINTS if name != "counts" else np.tile(POINTS, (40, 1))
    report = jitted.explain(points)
    assert report.kernels and sum(n.op.name == "reduce_sum" for n in report.graph.nodes) == 0
    memory = jitted.lower(points).compile().memory_analysis()
    assert memory is not None and memory.temp_size_in_bytes < size / 100
    for found, expected in zip(
        jax.tree.leaves(jitted(points)), jax.tree.leaves(jax.jit(STREAMED[name])(points)), strict=True
    ):
        np.testing.assert_allclose(found, expected, rtol=2e-4, atol=2e-5 * np.abs(np.asarray(expected)).max())
    assert not graphopt.jit(STREAMED[name]).explain(POINTS[:9]).kernels


def test_products_of_converted_matrices_leave_xla_and_others_stay() -> None:
    random = np.random.default_rng(0)
    weights, x = random.integers(-127, 128, (4200, 2048)).astype(np.int8), LARGE[:3].ravel()[:2048]
    scales = LARGE.ravel()[:4200]
    for function, args in (
        (lambda w, s, x: (w.astype(jnp.float32) * s[:, None]) @ x, (weights, scales, x)),
        (lambda w, s, x: jnp.tanh(s @ (w.astype(jnp.float32) * x)), (weights, scales, x)),
        (lambda w, x: (w @ x).astype(jnp.float32), (weights.astype(jnp.bfloat16), x.astype(jnp.bfloat16))),
    ):
        jitted = graphopt.jit(function)
        graph = jitted.explain(*args).graph
        assert not any(n.op.name == "dot_general" for n in graph.nodes), graph
        expected = np.asarray(jax.jit(function)(*args))
        np.testing.assert_allclose(jitted(*args), expected, rtol=1e-2, atol=1e-4 * np.abs(expected).max())
    for function, args in (
        (lambda w, x: w @ x, (LARGE, LARGE[0])),
        (lambda w: (w * 2) @ w.T, (LARGE,)),
        (lambda w, x: (w.astype(jnp.float32) * 2) @ x, (weights[:9, :9], x[:9])),
    ):
        graph = graphopt.jit(function).explain(*args).graph
        assert any(n.op.name == "dot_general" for n in graph.nodes)


def test_the_bits_of_numbers_leave_xla_with_what_is_computed_of_them() -> None:
    x = np.ones(100_000, np.float32)

    def function(x: Any) -> Any:
        bits = lax.bitcast_convert_type(x * 3, np.int32)
        return lax.bitcast_convert_type(bits ^ (bits >> 31), np.float32) + 1

    assert len(graphopt.jit(function).explain(x).kernels) == 1
    assert graphopt.jit(lambda x: lax.bitcast_convert_type(x, np.int32)).explain(x).kernels
    assert not graphopt.jit(lambda x: lax.bitcast_convert_type(x, np.int32)).explain(x[:1000]).kernels


@pytest.mark.parametrize(
    ("reduce", "dtype"),
    [
        (lambda x, axis: jnp.sum(x, axis, dtype=x.dtype), "int8"),
        (lambda x, axis: jnp.sum(x, axis), "int8"),
        (jnp.max, "int8"),
        (jnp.min, "uint8"),
        (jnp.max, "int16"),
        (jnp.all, "bool"),
        (jnp.any, "bool"),
    ],
)
def test_reductions_of_narrow_integers_leave_xla_where_they_are_large(reduce: Any, dtype: str) -> None:
    """A call of XLA takes as long as one of a kernel where there are few."""
    x = np.random.default_rng(0).integers(0, 2, (100, 1000)).astype(dtype)
    for axis in (None, 1):
        jitted = graphopt.jit(lambda x, axis=axis: reduce(x, axis))
        assert len(jitted.explain(x).kernels) == 1 and not jitted.explain(x[:, :8]).kernels
        np.testing.assert_array_equal(jitted(x), jax.jit(jitted.__wrapped__)(x))


@pytest.mark.parametrize("reduce", [jnp.max, jnp.min, jnp.sum])
def test_reductions_leave_xla_where_it_wakes_threads_for_them(reduce: Any) -> None:
    """Compared with NumPy: XLA loses a NaN among the elements of a large maximum."""
    x = LARGE[:316, :316].copy()
    x[3, 5], x[7], x[9, ::2] = np.nan, -0.0, -np.inf
    for axis in (None, 0, 1):
        jitted = graphopt.jit(lambda x, axis=axis: reduce(x, axis))
        assert len(jitted.explain(x).kernels) == 1 and not jitted.explain(x[:30, :30]).kernels
        np.testing.assert_allclose(jitted(x), getattr(np, reduce.__name__)(x, axis), rtol=1e-5, atol=1e-3)


@pytest.mark.parametrize("function", [lax.logistic, lax.tanh])
def test_functions_leave_xla_where_it_wakes_threads_for_them(function: Any) -> None:
    special = [np.nan, np.inf, -np.inf, 0, -0.0, 1e-40, -1e-40, 88, -88, -104]
    x = np.concatenate([LARGE.ravel()[:99_990] * 20, special])
    x = x.astype(np.float32)
    jitted = graphopt.jit(function)
    assert len(jitted.explain(x).kernels) == 1 and not jitted.explain(x[:5000]).kernels
    found, expected = jitted(x), jax.jit(function)(x)
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-38)
    np.testing.assert_array_equal(np.signbit(found[x == 0]), np.signbit(expected[x == 0]))


def test_products_leave_xla_where_little_of_their_time_is_arithmetic() -> None:
    def kernels(function: Callable[..., Any], *shapes: tuple[int, int]) -> int:
        args = [np.random.default_rng(0).normal(size=shape).astype(np.float32) for shape in shapes]
        jitted = graphopt.jit(function)
        np.testing.assert_allclose(jitted(*args), jax.jit(function)(*args), rtol=1e-3, atol=1e-3)
        return len(jitted.explain(*args).kernels)

    def layer(x: Any, w: Any) -> Any:
        return jnp.tanh(x @ w) * 2

    def steps(x: Any, w: Any) -> Any:
        return lax.fori_loop(0, 20, lambda _, y: y @ w * 0.1, x)

    assert kernels(jnp.matmul, (64, 64), (64, 64)) == kernels(jnp.matmul, (128, 512), (512, 10)) == 1
    assert kernels(layer, (128, 128), (128, 128)) == 1
    assert kernels(jnp.matmul, (900, 900), (900, 900)) == kernels(jnp.matmul, (20, 20), (20, 20)) == 0
    assert kernels(steps, (64, 256), (256, 256)) == 0  # where it takes no longer


@pytest.mark.parametrize(
    ("sizes", "leaves"), [((4, 4, 4), True), ((5, 6, 4), True), ((3, 3, 3), False), ((8,) * 3, False)]
)
def test_many_small_products_leave_xla_where_it_computes_one_after_the_other(
    sizes: tuple[int, int, int], leaves: bool
) -> None:
    rows, length, columns = sizes
    random = np.random.default_rng(0)
    x, y = (random.normal(size=(2000, *of)).astype(np.float32) for of in ((rows, length), (length, columns)))
    for function in (jnp.matmul, lambda x, y: jnp.einsum("bij,bjk->bki", x, y), jax.vmap(jnp.dot)):
        jitted = graphopt.jit(function)
        np.testing.assert_allclose(jitted(x, y), jax.jit(function)(x, y), rtol=1e-5, atol=1e-5)
        assert bool(jitted.explain(x, y).kernels) == leaves
    assert not graphopt.jit(jnp.matmul).explain(x[:5], y[:5]).kernels
    assert not graphopt.jit(jnp.matmul).explain(x.astype(np.int32), y.astype(np.int32)).kernels
