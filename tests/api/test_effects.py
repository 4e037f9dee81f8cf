"""Printing, callbacks, checks and random keys: the same effects, as often, and the ordered ones in the same order."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.experimental import checkify, io_callback

from graphopt.api import jit, optimize

from .comparing import close, each_way

X = jnp.linspace(0.1, 1.0, 3)
Log = list[Any]


def record(log: Log, label: str) -> Callable[..., Any]:
    def callback(*values: Any) -> None:
        log.append((label, *(np.asarray(v).tolist() for v in values)))

    return callback


def counting(log: Log, label: str) -> Callable[..., Any]:
    """As `record`, and the callback returns how many entries there are."""

    def callback(*values: Any) -> Any:
        record(log, label)(*values)
        return np.float32(len(log))

    return callback


def effects_of(program: Callable[[Any, Log], Any], wrap: Any) -> tuple[Any, Log]:
    log: Log = []
    out = program(wrap, log)
    jax.effects_barrier()
    return out, log


def ordered(wrap: Any, log: Log) -> Any:
    """Two ordered callbacks around one in a nested region, in a loop and in a branch."""

    def f(x: Any) -> Any:
        a = io_callback(counting(log, "first"), jnp.float32(0), x[0], ordered=True)
        b = optimize(lambda y: io_callback(counting(log, "nested"), jnp.float32(0), y, ordered=True))(x[1])
        io_callback(counting(log, "unused"), jnp.float32(0), x[2], ordered=True)

        def body(i: Any, c: Any) -> Any:
            return c + io_callback(counting(log, "loop"), jnp.float32(0), i, ordered=True)

        c = lax.fori_loop(0, 2, body, jnp.float32(0))
        io_callback(record(log, "last"), None, ordered=True)
        return a + b, c

    g = wrap(f)
    return g(X), g(2 * X), jax.jit(lambda x: (g(x), g(x)))(X)


def unordered(wrap: Any, log: Log) -> Any:
    def f(x: Any) -> Any:
        io_callback(record(log, "io"), None, x.sum())
        jax.debug.callback(record(log, "debug"), x[0])
        return x * 2

    return wrap(f)(X)


def unused_results(wrap: Any, log: Log) -> Any:
    """What is only run for its effect is run; a pure callback whose result is not used need not be."""

    def f(x: Any) -> Any:
        io_callback(counting(log, "kept"), jnp.float32(0), x[0])
        jax.pure_callback(counting(log, "dropped"), jnp.float32(0), x[1])
        return x

    return jax.jit(lambda x: wrap(f)(x))(X)


def pure(wrap: Any, log: Log) -> Any:
    def f(x: Any) -> Any:
        return jax.pure_callback(lambda a: np.sin(a), jax.ShapeDtypeStruct((3,), x.dtype), x, vmap_method="sequential")

    return wrap(f)(X), jax.vmap(wrap(f))(jnp.stack([X, 2 * X]))


def no_results_at_all(wrap: Any, log: Log) -> Any:
    return wrap(lambda x: io_callback(record(log, "only"), None, x))(X)


def under_grad(wrap: Any, log: Log) -> Any:
    def f(x: Any) -> Any:
        jax.debug.callback(record(log, "forward"), x.sum())
        return jnp.sin(x).sum()

    return jax.grad(wrap(f))(X), jax.grad(jax.checkpoint(wrap(f)))(X)


def under_vmap(wrap: Any, log: Log) -> Any:
    def f(x: Any) -> Any:
        jax.debug.callback(record(log, "row"), x, ordered=False)
        return x

    return jax.vmap(wrap(f))(jnp.stack([X, 2 * X]))


@each_way
@pytest.mark.parametrize(
    "program",
    [ordered, unordered, unused_results, pure, no_results_at_all, under_grad, under_vmap],
    ids=lambda p: p.__name__,
)
def test_effects(way: Any, program: Any) -> None:
    found, found_log = effects_of(program, way)
    expected, expected_log = effects_of(program, jax.jit)
    if program is unused_results:
        found_log, expected_log = [e for e in found_log if e[0] == "kept"], [("kept", X[0].item())]
    close(found, expected)
    if program is ordered:
        assert found_log == expected_log
    else:
        assert sorted(map(str, found_log)) == sorted(map(str, expected_log))


@each_way
def test_debug_print(way: Any, capsys: Any) -> None:
    def f(x: Any) -> Any:
        for i in range(3):
            jax.debug.print("{i}: {x}", i=i, x=x[i], ordered=True)
        return x

    way(f)(X)
    jax.effects_barrier()
    found = capsys.readouterr().out
    jax.jit(f)(X)
    jax.effects_barrier()
    assert found == capsys.readouterr().out
    assert found.startswith("0: 0.1")


def checked(wrap: Any, x: Any, i: Any) -> Any:
    def f(x: Any, i: Any) -> Any:
        checkify.check(x.sum() > 0, "not positive, the sum: {s}", s=x.sum())
        return jnp.log(x) / x, x[i]

    errors = checkify.user_checks | checkify.float_checks | checkify.index_checks | checkify.div_checks
    error, out = checkify.checkify(wrap(f), errors=errors)(x, i)
    return error.get(), out


@each_way
@pytest.mark.parametrize("x", [X, -X, X * 0, X - X[0]], ids=["fine", "negative", "zero", "one zero"])
@pytest.mark.parametrize("index", [0, 7])
def test_checkify_around(way: Any, x: Any, index: int) -> None:
    found, found_out = checked(way, x, index)
    expected, expected_out = checked(jax.jit, x, index)
    # The message ends in numbers, whose last digits may differ, and in the place of the check.
    assert (found or "")[:20] == (expected or "")[:20]
    np.testing.assert_allclose(found_out[0], expected_out[0], rtol=1e-5)


@each_way
def test_checkify_inside(way: Any) -> None:
    def g(x: Any) -> Any:
        checkify.check(x[0] > 0, "not positive")
        return x

    def program(wrap: Any, x: Any) -> Any:
        error, out = wrap(lambda x: checkify.checkify(wrap(g))(x))(x)
        return error.get() is None, out

    for x in (X, -X):
        close(jax.tree.map(jnp.asarray, program(way, x)), jax.tree.map(jnp.asarray, program(jax.jit, x)))
    with pytest.raises(Exception, match="not positive"):
        checkify.check_error(checkify.checkify(way(g))(-X)[0])


def test_a_check_that_nobody_collects_is_refused_as_in_jax() -> None:
    def g(x: Any) -> Any:
        checkify.check(x[0] > 0, "not positive")
        return x

    with pytest.raises(ValueError, match="functionalized"):
        jax.jit(g)(X)
    with pytest.raises(ValueError, match="functionalized"):
        jit(g)(X)


@each_way
def test_random_keys(way: Any) -> None:
    def f(key: Any, x: Any) -> Any:
        a, b = jax.random.split(key)
        return jax.random.fold_in(a, 3), jax.random.uniform(b, x.shape), jax.random.permutation(a, x), key

    for key in (jax.random.key(3), jax.random.key(3, impl="rbg")):
        close(way(f)(key, X), jax.jit(f)(key, X))
    keys = jax.random.split(jax.random.key(4), 3)
    close(jax.vmap(way(f), in_axes=(0, None))(keys, X), jax.vmap(f, in_axes=(0, None))(keys, X))
    old = jax.random.PRNGKey(0)
    close(way(f)(old, X), jax.jit(f)(old, X))


def test_key_reuse_is_still_found() -> None:
    f = lambda key: jax.random.normal(key) + jax.random.normal(key)
    with jax.debug_key_reuse(True):
        assert jit(lambda key: jax.random.normal(key))(jax.random.key(0)).shape == ()
        with pytest.raises(jax.errors.KeyReuseError):
            jit(f)(jax.random.key(0))
