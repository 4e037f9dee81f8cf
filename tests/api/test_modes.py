"""Switches of JAX's that change how a compiled function runs, and threads."""

import subprocess
import sys
import threading
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.extend.core
import jax.numpy as jnp
import numpy as np
import pytest

from graphopt.api import jit, optimize
from graphopt.compile import rewrite_jaxpr
from graphopt.config import Options
from graphopt.errors import UntriedJaxWarning
from graphopt.jitted import choose_dispatch
from graphopt.traceable import TRIED_JAX, choose_call

from .comparing import close, each_way

X = jnp.linspace(0.1, 1.0, 3)


@each_way
def test_disable_jit_calls_the_function_itself(way: Any) -> None:
    seen = []

    def f(x: Any) -> Any:
        seen.append(x)
        return x * 2 if x[0] > 0 else -x  # only works on concrete values

    g = way(f)
    with jax.disable_jit():
        close(g(X), X * 2)
        close(jax.grad(lambda x: g(x).sum())(X), jnp.ones(3) * 2)
    assert not isinstance(seen[0], jax.core.Tracer)


@each_way
def test_debug_nans_names_the_operation(way: Any, capsys: Any) -> None:
    def f(x: Any) -> Any:
        return jnp.log(-x) + 1

    with jax.debug_nans(True):
        close(way(jnp.sin)(X), jnp.sin(X))
        with pytest.raises(FloatingPointError, match=r"invalid value \(nan\) encountered in log"):
            way(f)(X)
        with pytest.raises(FloatingPointError, match="nan"):
            jax.grad(lambda x: way(f)(x).sum())(X)
    assert jnp.isnan(way(f)(X)).all()


@each_way
def test_debug_infs(way: Any) -> None:
    with jax.debug_infs(True), pytest.raises(FloatingPointError, match="inf"):
        way(lambda x: 1 / (x - x))(X)


@each_way
def test_x64(way: Any) -> None:
    f = lambda x: jnp.sin(x) * 2 + jnp.arange(3)
    g = way(f)
    single = g(np.arange(3.0))
    assert single.dtype == jnp.float32
    with jax.enable_x64(True):
        double = g(np.arange(3.0))
        assert double.dtype == jnp.float64
        np.testing.assert_allclose(double, np.sin(np.arange(3.0)) * 2 + np.arange(3), rtol=1e-14)
    assert g(np.arange(3.0)).dtype == jnp.float32


@each_way
def test_other_settings_in_force_while_tracing(way: Any) -> None:
    f: Any = lambda x: x @ x
    square = jnp.arange(9.0).reshape(3, 3)
    with jax.default_matmul_precision("float32"):
        assert "HIGHEST" in str(jax.make_jaxpr(way(f))(square))
    with jax.numpy_rank_promotion("raise"), pytest.raises(ValueError, match="rank_promotion"):
        way(lambda x: x + x[0])(square)
    with (
        jax.numpy_dtype_promotion("strict"),
        pytest.raises(
            jax.errors.TypePromotionError if hasattr(jax.errors, "TypePromotionError") else Exception, match="promotion"
        ),
    ):
        way(lambda x: x + jnp.arange(3))(square)
    with jax.check_tracer_leaks():
        close(way(f)(square), f(square))
    with jax.enable_checks(True):
        close(jax.grad(lambda x: way(f)(x).sum())(square), jax.grad(lambda x: f(x).sum())(square))


def test_threads() -> None:
    """Eight threads compile and call two hundred functions at once, some of them the same."""
    n_threads, n_functions = 8, 200
    shared = [make(i) for i in range(n_functions)]
    compiled = [jit(f) for f in shared]
    wrong: list[str] = []
    start = threading.Barrier(n_threads)

    def work(thread: int) -> None:
        start.wait()
        for step in range(n_functions // n_threads * 2):
            i = (thread * (n_functions // n_threads) + step) % n_functions
            x = np.arange(4, dtype=np.int32) + thread
            for g in (compiled[i], jit(shared[i])):
                found = np.asarray(g(x))
                if not np.array_equal(found, x * (i + 1) - i):
                    wrong.append(f"thread {thread}, function {i}: {found}")

    threads = [threading.Thread(target=work, args=(t,)) for t in range(n_threads)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def make(i: int) -> Callable[[Any], Any]:
    return lambda x: x * (i + 1) - i


@pytest.mark.parametrize("version", ["0.13.0", "0.9.2", "1.0.0", "0.100.1", "0.13.0.dev20260101"])
def test_another_jax_runs_by_the_public_interface(version: str) -> None:
    with pytest.warns(UntriedJaxWarning, match=f"this is jax {version}.*Install jax"):
        call = choose_call(version, rewrite_jaxpr)
    assert choose_dispatch(version) is None

    def optimized(f: Any) -> Any:
        return jax.jit(lambda *args, **kwargs: call(f, Options(), args, kwargs))

    f: Any = lambda x, y=1.0: {"a": jnp.tanh(x @ x).sum() * y, "b": (x, None, "label"[:0] or 3)}
    square = jnp.arange(9.0).reshape(3, 3) / 9
    close(jax.tree.map(jnp.asarray, optimized(f)(square)), jax.tree.map(jnp.asarray, jax.jit(f)(square)))
    close(jax.grad(lambda x: optimized(f)(x, y=x[0, 0])["a"])(square), jax.grad(lambda x: f(x, y=x[0, 0])["a"])(square))
    assert "optimized_call" not in str(jax.make_jaxpr(optimized(f))(square))
    captured: Any = lambda wrap: jax.grad(lambda w: wrap(lambda x: (jnp.sin(w * x)).sum())(X))(2.0)
    close(captured(optimized), captured(lambda f: f))
    reference = jax.new_ref(X)
    optimized(lambda r: r.__setitem__(..., r[...] * 2))(reference)
    close(reference[...], X * 2)


@pytest.mark.parametrize(
    "version", [f"{series}{rest}" for series in TRIED_JAX for rest in ("", ".7", ".0.1", ".1rc2", ".0.dev20260101+abc")]
)
def test_a_tried_jax_does_not_warn(version: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        choose_call(version, rewrite_jaxpr)


WITHOUT_INTERNALS = """
import sys, warnings
sys.modules["graphopt.jax_internals"] = None
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    import graphopt
assert [w.category for w in caught] == [graphopt.UntriedJaxWarning], caught
import jax, jax.numpy as jnp
assert graphopt.jit(jnp.sin)(1.0) == jax.jit(jnp.sin)(1.0)
assert jax.grad(graphopt.optimize(jnp.sin))(1.0) == jax.grad(jnp.sin)(1.0)
assert jax.vmap(graphopt.jit(lambda x, n: x * n, static_argnames="n"), (0, None))(jnp.ones(3), 2).sum() == 6
"""


def test_internals_that_cannot_be_imported() -> None:
    subprocess.run([sys.executable, "-c", WITHOUT_INTERNALS], check=True, cwd=Path(__file__).resolve().parents[2])


def test_evaluating_a_jaxpr_compiles_its_calls() -> None:
    traces = []

    def f(x: Any) -> Any:
        traces.append(1)
        return jnp.sin(x) * 2

    run = jax.extend.core.jaxpr_as_fun(jax.make_jaxpr(optimize(f))(X))
    close(run(X), [jnp.sin(X) * 2])
    close(run(2 * X), [jnp.sin(2 * X) * 2])
    assert len(traces) == 1
