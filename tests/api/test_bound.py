"""Large captured arrays are operands of the compiled program, and what depends on them alone is computed once."""

import gc
import pickle
import threading
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from graphopt import bind as binding
from graphopt.api import jit
from graphopt.backends.xla.target import Target
from graphopt.bind import LARGE, bind
from graphopt.passes.pipelines import STANDARD

RANDOM = np.random.default_rng(0)
N = 400
assert N * N >= LARGE


def matrix(dtype: Any = np.float32, n: int = N) -> jax.Array:
    return jnp.asarray(RANDOM.integers(-9, 9, (n, n))).astype(dtype)


X = jnp.asarray(RANDOM.integers(-9, 9, N).astype(np.float32))
SCALE = jnp.asarray(RANDOM.integers(1, 5, N).astype(np.float32))


def bound_of(f: Callable[..., Any], *args: Any, **options: Any) -> tuple[Any, list[jax.Array]]:
    found = bind(jit(f, **options).trace(*args).jaxpr)
    assert found is not None
    return found


def same(given: Any, expected: Any) -> None:
    """Equal to the bit: the numbers are small integers, which no order of sums rounds."""
    for a, b in zip(jax.tree.leaves(given), jax.tree.leaves(expected), strict=True):
        assert a.dtype == b.dtype and a.weak_type == b.weak_type and a.committed == b.committed
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b))


PROGRAMS: dict[str, Callable[[Any, Any], Any]] = {
    "product": lambda w, x: w @ x,
    "product from the left": lambda w, x: x @ w,
    "transposed": lambda w, x: w.T @ x,
    "transposed from the right": lambda w, x: x[None] @ w.T,
    "prepared": lambda w, x: (w.T @ w) @ x,
    "prepared and itself": lambda w, x: (w.T @ w) @ x + w @ x,
    "dequantized": lambda w, x: x @ (w.astype(np.float32) * SCALE),
    "quantized": lambda w, x: x @ jnp.round(w * 4).astype(np.int8).astype(np.float32),
    "returned": lambda w, x: (w, x, w + 1),
    "repeated": lambda w, x: jnp.broadcast_to(w[:, :, None], (N, N, 3)) * x[:3],
    "in a loop": lambda w, x: lax.fori_loop(0, 3, lambda _, c: jnp.clip(w.T @ c, -9, 9), x),
    "in a scan": lambda w, x: lax.scan(lambda c, row: (c + row * w[0].sum(), row @ w), x, w)[1],
    "in a branch": lambda w, x: lax.cond(x[0] > 0, lambda: w @ x, lambda: x @ w),
    "in a call": lambda w, x: jax.jit(lambda y: (w @ w) @ y)(x),
    "in an optimized call": lambda w, x: jit(lambda y: (w @ w) @ y)(x),
    "sorted": lambda w, x: jnp.sort(w, axis=1) @ x,
    "gathered": lambda w, x: w[x.astype(np.int32) % N, 0] * x,
    "several results": lambda w, x: lax.top_k(w, 150)[0] @ x[:150],
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_results(name: str) -> None:
    w = matrix()
    f = lambda x: PROGRAMS[name](w, x)
    fast, expected = jit(f), jax.jit(PROGRAMS[name])(w, X)
    for _ in range(2):
        same(fast(X), expected)


@pytest.mark.parametrize("kind", ["numpy", "committed", "exact", "numba"])
def test_kinds_of_arrays_and_modes(kind: str) -> None:
    w: Any = matrix()
    w = np.asarray(w) if kind == "numpy" else jax.device_put(w, jax.devices()[0]) if kind == "committed" else w
    f = lambda x: (jnp.asarray(w), jnp.clip(w.T @ w, -9, 9) @ x + w @ x)
    options = {"numerics": "exact"} if kind == "exact" else {"backend": "numba"} if kind == "numba" else {}
    fast, expected = jit(f, **options), jax.jit(f)(X)
    for _ in range(2):
        same(fast(X), expected)


@pytest.mark.parametrize(
    "dtype", ["bfloat16", "float16", "int8", "int4", "uint32", "bool", "complex64", "float8_e4m3fn"]
)
def test_dtypes(dtype: str) -> None:
    w = matrix(np.int8, 600).astype(dtype)
    f = lambda i: (lax.dynamic_index_in_dim(w, i, 0), w.T)
    fast = jit(f)
    for _ in range(2):
        same(fast(np.int32(3)), jax.jit(f)(np.int32(3)))


def test_x64() -> None:
    with jax.enable_x64(True):
        w = np.arange(N * N, dtype=np.float64).reshape(N, N) / 7
        f = lambda x: (jnp.asarray(w).T @ x, w.astype(np.int64) + x.astype(np.int64))
        x = jnp.asarray(X, np.float64)
        for got, expected in zip(jit(f)(x), jax.jit(f)(x), strict=True):
            np.testing.assert_allclose(got, expected, rtol=1e-13)
            assert got.dtype == expected.dtype


def test_an_array_is_passed_and_not_copied() -> None:
    w = matrix()
    closed, (operand,) = bound_of(lambda x: x @ w, X)
    assert operand.unsafe_buffer_pointer() == w.unsafe_buffer_pointer()
    assert not closed.consts and not closed.jaxpr.eqns[0].params["call_jaxpr"].consts


def test_small_arrays_stay_in_the_program() -> None:
    small = matrix(n=20)
    assert bind(jit(lambda x: x[:20] @ small).trace(X).jaxpr) is None


def test_what_was_computed_takes_the_place_of_what_it_is_made_of() -> None:
    w, other = matrix(), matrix(np.int8)
    closed, operands = bound_of(lambda x: (w.T @ w) @ x + x @ (other.astype(np.float32) * SCALE), X)
    call = closed.jaxpr.eqns[0].params["call_jaxpr"]
    assert [v.shape for v in operands] == [(N, N), (N, N)]
    np.testing.assert_array_equal(operands[0], w.T @ w)
    np.testing.assert_array_equal(operands[1], other * SCALE)
    assert sum(e.primitive.name == "dot_general" for e in call.eqns) == 2


def test_programs_of_the_same_constants_share_what_was_computed() -> None:
    w = matrix()
    prepared = lambda x: jnp.tanh(w @ w) @ x
    first, second = bound_of(prepared, X)[1], bound_of(lambda x: jnp.tanh(prepared(x)), jnp.stack([X, X], 1))[1]
    assert first[0] is second[0]
    del first, second
    gc.collect()
    assert not any(node.avals[0].shape == (N, N) for node in binding._kept)


def test_arrays_go_with_the_function() -> None:
    def use() -> weakref.ref[jax.Array]:
        w = matrix()
        jit(lambda x: w.T @ x)(X).block_until_ready()
        return weakref.ref(w)

    gone = use()
    gc.collect()
    jax.clear_caches()
    gc.collect()
    assert gone() is None


def test_donating_or_deleting_the_array_changes_nothing() -> None:
    w = matrix()
    f = jit(lambda x: x @ w)
    expected = np.asarray(f(X))
    jax.jit(lambda y: y * 0, donate_argnums=0)(w).block_until_ready()
    np.testing.assert_array_equal(f(X), expected)
    if not w.is_deleted():
        w.delete()
    np.testing.assert_array_equal(f(X), expected)


def test_writing_to_a_numpy_array_changes_nothing() -> None:
    w = np.ones((N, N), np.float32)
    f = jit(lambda x: x @ jnp.asarray(w))
    expected = np.asarray(f(X))
    w[:] = 5
    np.testing.assert_array_equal(f(X), expected)


def test_calls_do_not_pass_through_python() -> None:
    w = matrix()
    f = jit(lambda x: jnp.tanh(w @ w) @ x)
    f(X)
    again = X + 1
    with jax.no_tracing(True):
        f(again)


def test_donated_and_static_arguments_and_several_types() -> None:
    w = matrix()

    def f(x: Any, y: Any, n: int, *, scale: Any = 1.0) -> Any:
        return {"a": (w @ x) * n * scale, "b": y + 1}

    options = {"donate_argnums": (1,), "static_argnums": (2,)}
    fast, slow = jit(f, **options), jax.jit(f, **options)
    for x in (X, X.astype(np.int32), jnp.stack([X, X], 1)):
        same(fast(x, X + 1, 3), slow(x, X + 1, 3))
        same(fast(x, X + 1, 3, scale=np.float32(2)), slow(x, X + 1, 3, scale=np.float32(2)))
    y = X + 1
    fast(X, y, 3)
    assert y.is_deleted()


def test_shardings_layouts_and_compiler_options() -> None:
    w = matrix()
    f = lambda x: w @ x
    sharding = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    same(jit(f, in_shardings=sharding)(X), jax.jit(f, in_shardings=sharding)(X))
    same(jit(f, out_shardings=sharding)(X), jax.jit(f, out_shardings=sharding)(X))
    same(jit(f, keep_unused=True)(X), jax.jit(f)(X))
    options = {"xla_cpu_prefer_vector_width": "512"}
    same(jit(f, compiler_options=options)(X), jax.jit(f, compiler_options=options)(X))


def test_transformations_see_the_function_as_it_is_written() -> None:
    w = matrix()
    f = lambda x: (w.T @ x).sum()
    fast = jit(f)
    fast(X)
    same(jax.grad(fast)(X), jax.grad(f)(X))
    same(jit(jax.grad(f))(X), jax.jit(jax.grad(f))(X))
    same(jax.vmap(fast)(jnp.stack([X, X])), jax.vmap(f)(jnp.stack([X, X])))
    same(jax.jit(fast)(X), jax.jit(f)(X))
    assert str(fast.eval_shape(X)) == str(jax.jit(f).eval_shape(X))
    same(fast.lower(X).compile()(X), jax.jit(f).lower(X).compile()(X))


def test_effects_happen_at_each_call(capfd: pytest.CaptureFixture[str]) -> None:
    w = matrix()

    def f(x: Any) -> Any:
        y = jnp.tanh(w @ w)
        jax.debug.print("{}", x[0] + 0 * y[0, 0], ordered=True)
        return y @ x

    fast = jit(f)
    for _ in range(3):
        fast(X)
    jax.effects_barrier()
    assert len(capfd.readouterr().out.split()) == 3


def test_references_stay() -> None:
    w, ref = matrix(), jax.new_ref(jnp.zeros(N))

    def f(x: Any) -> Any:
        ref[...] += w @ x
        return (w @ w)[0]

    fast = jit(f)
    fast(X), fast(X)
    np.testing.assert_array_equal(ref[...], 2 * (w @ X))


def test_threads() -> None:
    w = matrix()
    fast, results = jit(lambda x: (w @ w) @ x), []
    threads = [threading.Thread(target=lambda: results.append(fast(X))) for _ in range(8)]
    [t.start() for t in threads], [t.join() for t in threads]
    assert len(results) == 8
    [np.testing.assert_array_equal(r, results[0]) for r in results]


def test_tuning(tmp_path: Path) -> None:
    """What was measured is found again: of the program with its operands."""
    w = matrix()
    f = jit(lambda x: jnp.clip(w @ w, -9, 9) @ x)
    path = tmp_path / "lock.json"
    tuned = f.tune(X, tuning_seconds=0.5, lock=path, progress=False)
    same(tuned.function(X), f(X))
    again = jit(f.__wrapped__, lock=path)
    same(again(X), f(X))
    assert again.explain(X).measured is not None


GLOBAL = matrix()


def with_global(x: Any) -> Any:
    return GLOBAL.T @ x


def test_pickling() -> None:
    again = pickle.loads(pickle.dumps(jit(with_global)))
    np.testing.assert_array_equal(again(X), GLOBAL.T @ X)


def test_nan_is_looked_for() -> None:
    w = matrix()
    f = jit(lambda x: jnp.log(w @ x))
    with jax.debug_nans(True), pytest.raises(FloatingPointError):
        f(-jnp.abs(X) * 0 - jnp.inf)


def test_switched_off() -> None:
    w = matrix()
    passes = tuple(step for step in STANDARD if step.name != "bind")
    f = jit(lambda x: (w @ w) @ x, passes=passes)
    same(f(X), jax.jit(lambda x: (w @ w) @ x)(X))
    assert bind(f.trace(X).jaxpr) is None


def test_the_report_says_what_was_computed() -> None:
    w = matrix()
    f = lambda x: (jnp.tanh(w @ w) @ x, jnp.sin(w[:, :, None] * SCALE[:9]) * x[0])
    report = jit(f).explain(X)
    assert report.target == Target(("cpu",), alone=True)
    notes = [note for note in report.notes if note.startswith("bind:")]
    assert any("computed once from constants" in note and "tanh" in note for note in notes), report.notes
    assert any("computed at each call" in note for note in notes), report.notes


COUNT, MASK, ONES = jnp.arange(N), jnp.tril(jnp.ones((N, N), bool)), jnp.tril(jnp.ones((N, N)))
SMALL = MASK[:99, :99]
FROM_PLACES: dict[str, tuple[Callable[[Any], Any], Callable[[Any], Any]]] = {
    "a count": (
        lambda x: jnp.where(COUNT[:, None] >= COUNT, x, 0).sum(1),
        lambda x: jnp.where(jnp.arange(N)[:, None] >= jnp.arange(N), x, 0).sum(1),
    ),
    "a mask": (
        lambda x: jnp.where(MASK, x, 0).sum(1),
        lambda x: jnp.where(jnp.tril(jnp.ones((N, N), bool)), x, 0).sum(1),
    ),
    "a small mask": (
        lambda x: jnp.where(SMALL, x[:99], 0).sum(1),
        lambda x: jnp.where(jnp.tril(jnp.ones((99, 99), bool)), x[:99], 0).sum(1),
    ),
    "a part of a mask": (
        lambda x: jnp.where(MASK[:99, :99], x[:99], 0).sum(1),
        lambda x: jnp.where(jnp.tril(jnp.ones((99, 99), bool)), x[:99], 0).sum(1),
    ),
    "a triangle of ones": (lambda x: ONES @ x, lambda x: jnp.tril(jnp.ones((N, N))) @ x),
}


@pytest.mark.parametrize("form", FROM_PLACES)
def test_what_places_make_is_as_if_it_were_made_inside(form: str) -> None:
    """By the program that is called, not only in the report."""
    captured, inside = (jit(f, numerics="fast") for f in FROM_PLACES[form])
    same(captured(X), inside(X))
    from graphopt.explain import region_of

    graph, _ = region_of(captured.trace(X).jaxpr)
    assert all(node.aval.size <= N for node in graph.params)
    assert captured.explain(X).cost == inside.explain(X).cost
    assert captured.explain(X).cost.flops <= N * 2


def test_a_sequence_that_nothing_is_made_of_is_an_operand_as_it_is() -> None:
    many = jnp.arange(LARGE)
    f = jit(lambda x: x + many)
    _, operands = bound_of(lambda x: x + many, many)
    assert [n.shape for n in operands] == [many.shape]
    same(f(many), many + many)
