"""What a function closes over (arrays, references, tracers of outer transformations) is seen by those."""

from collections.abc import Callable
from typing import Any

import jax
import jax.extend.core
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from graphopt.api import jit, optimize

from .comparing import close, each_way, jit_and_optimize

X = jnp.linspace(0.1, 1.0, 3)
BIG = jnp.arange(3000.0).reshape(3, 1000)

Outer = Callable[[Any, Callable[..., Any]], Any]


def one(w: Any, wrap: Any) -> Any:
    """`w` is captured and `wrap`ped functions also return a captured value and a constant."""
    out, w_again, constant = wrap(lambda x: (jnp.sin(x * w).sum(), w, 3.0))(X)
    return out + w_again.sum() * constant


def twice(w: Any, wrap: Any) -> Any:
    """One wrapped function in another, capturing on both levels."""

    def outer(x: Any) -> Any:
        y = jnp.cos(x) * w
        return wrap(lambda z: (z * y * w).sum())(x)

    return wrap(outer)(X)


def without_arguments(w: Any, wrap: Any) -> Any:
    return wrap(lambda: (w * w).sum())()


def in_scan(w: Any, wrap: Any) -> Any:
    def body(carry: Any, x: Any) -> Any:
        return wrap(lambda c: c + (w * x).sum())(carry), None

    return lax.scan(body, jnp.float32(0), X)[0]


def in_cond(w: Any, wrap: Any) -> Any:
    return lax.cond(X.sum() > 0, wrap(lambda: (w * w).sum()), lambda: jnp.float32(0))


def in_while(w: Any, wrap: Any) -> Any:
    return lax.while_loop(lambda c: c < 10, wrap(lambda c: c + 1 + (w * w).sum()), jnp.float32(0))


def with_big(w: Any, wrap: Any) -> Any:
    return wrap(lambda x: jnp.tanh(x @ BIG * w.sum()).sum())(X)


OUTER: dict[str, Outer] = {f.__name__: f for f in (one, twice, without_arguments, in_scan, in_cond, in_while, with_big)}

CONTEXTS: dict[str, Callable[[Callable[[Any], Any]], Any]] = {
    "grad": lambda f: jax.grad(f)(X),
    "jit of grad": lambda f: jax.jit(jax.grad(f))(X),
    "jvp": lambda f: jax.jvp(f, (X,), (X,)),
    "vmap": lambda f: jax.vmap(f)(jnp.stack([X, 2 * X])),
    "vmap of grad": lambda f: jax.vmap(jax.grad(f))(jnp.stack([X, 2 * X])),
    "hessian": lambda f: jax.hessian(f)(X),
    "jit": lambda f: jax.jit(f)(X),
    "scan": lambda f: lax.scan(lambda c, x: (c + f(x), None), jnp.float32(0), jnp.stack([X, 2 * X]))[0],
    "linearize": lambda f: jax.linearize(f, X)[1](X),
    "checkpoint": lambda f: jax.grad(jax.checkpoint(f))(X),
}


@jit_and_optimize
@pytest.mark.parametrize("context", CONTEXTS)
@pytest.mark.parametrize("outer", OUTER)
def test_captured_tracers(way: Any, context: str, outer: str) -> None:
    transform, f = CONTEXTS[context], OUTER[outer]
    if outer == "in_while" and context in ("grad", "jit of grad", "vmap of grad", "hessian", "checkpoint"):
        with pytest.raises(ValueError, match="Reverse-mode"):
            transform(lambda w: f(w, way))
        return
    close(transform(lambda w: f(w, way)), transform(lambda w: f(w, lambda g: g)))


@each_way
@pytest.mark.parametrize(
    "constant",
    [
        jnp.arange(3.0),
        np.arange(3.0),
        BIG[0, :3],
        jnp.arange(5000.0),
        np.arange(5000, dtype=np.float32),
        np.float32(2),
        2.5,
        jnp.bfloat16(1.5),
        jnp.zeros((0, 3)),
    ],
    ids=lambda c: f"{type(c).__name__} {getattr(c, 'dtype', '')} {np.shape(c)}",
)
def test_captured_constants(way: Any, constant: Any) -> None:
    def f(x: Any) -> Any:
        return x + jnp.asarray(constant).sum(), constant

    close(jax.tree.map(jnp.asarray, way(f)(X)), jax.tree.map(jnp.asarray, jax.jit(f)(X)))


def call_equations(jaxpr: Any) -> list[Any]:
    found = []
    for equation in jaxpr.eqns:
        if equation.primitive.name == "optimized_call":
            found.append(equation)
        for inner in jax.extend.core.jaxprs_in_params(equation.params):
            found += call_equations(inner)
    return found


def test_what_becomes_an_operand() -> None:
    """Tracers, references and large arrays are operands; a small array stays in the program."""
    reference = jax.new_ref(jnp.zeros(3))
    small = jnp.ones(4)

    def program(w: Any) -> Any:
        return optimize(lambda x: x + w + BIG.sum() + small.sum() + reference[...])(X * 2)

    (call,) = call_equations(jax.make_jaxpr(program)(X).jaxpr)
    assert sorted(str(v.aval) for v in call.invars) == sorted(
        ["float32[3]", "float32[3]", "float32[3,1000]", "Ref{float32[3]}"]
    )
    assert [c.shape for c in call.params["call_jaxpr"].consts] == [(4,)]


def test_gradient_of_a_captured_tracer_is_not_zero() -> None:
    for wrap in (jit, optimize):
        assert jax.grad(lambda w, wrap=wrap: wrap(lambda x: (w * x).sum())(X))(2.0) == X.sum()


def test_captured_key() -> None:
    key = jax.random.key(7)
    f = lambda x: jax.random.normal(key, (3,)) + x
    close(jit(f)(X), jax.jit(f)(X))
    close(
        jax.vmap(lambda k: jit(lambda x: jax.random.normal(k, (3,)) + x)(X))(jax.random.split(key, 2)),
        jax.vmap(lambda k: jax.random.normal(k, (3,)) + X)(jax.random.split(key, 2)),
    )
