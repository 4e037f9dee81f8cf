"""Mutable references (`jax.new_ref`) as arguments, captured, and made inside optimized functions."""

from typing import Any

import jax
import jax.numpy as jnp
import pytest
from jax import lax

from graphopt.api import jit, optimize

from .comparing import close, each_way

X = jnp.linspace(0.1, 1.0, 3)


def run(wrap: Any, program: Any, *shapes: tuple[int, ...]) -> Any:
    """The result of `program(wrap, *references)` and what is then in the references."""
    references = [jax.new_ref(jnp.arange(1.0, 1 + jnp.zeros(s).size).reshape(s)) for s in shapes]
    return program(wrap, *references), [r[...] for r in references]


def argument(wrap: Any, r: Any) -> Any:
    def f(r: Any, x: Any) -> Any:
        r[...] += x
        return r[...] * 2

    g = wrap(f)
    return g(r, X), g(r, X)


def captured(wrap: Any, r: Any) -> Any:
    def f(x: Any) -> Any:
        r[1] = x.sum()
        return r[...].sum()

    g = wrap(f)
    return g(X), g(2 * X)


def inside(wrap: Any) -> Any:
    def f(x: Any) -> Any:
        r = jax.new_ref(jnp.zeros(3))
        r[1:] = x[1:] * 2
        r[0] += 5
        return r[...]

    return wrap(f)(X), jax.grad(lambda x: wrap(f)(x).sum())(X), jax.vmap(wrap(f))(jnp.stack([X, -X]))


def written_only(wrap: Any, r: Any) -> Any:
    def f(r: Any) -> None:
        r[...] = r[...] * 3

    return wrap(f)(r)


def two_references(wrap: Any, a: Any, b: Any) -> Any:
    def f(a: Any, x: Any, b: Any) -> Any:
        a[...], b[...] = b[...].sum() + a[...], b[...] * x.sum()
        return x

    return wrap(f)(a, X, b)


def in_a_loop(wrap: Any, r: Any) -> Any:
    def f(n: Any) -> Any:
        def body(i: Any, _: Any) -> None:
            wrap(lambda i: r.__setitem__(..., r[...] * 2 + i))(i)

        lax.fori_loop(0, n, body, None)
        return r[0]

    return wrap(f)(3)


def in_a_branch(wrap: Any, r: Any) -> Any:
    def f(x: Any) -> Any:
        def write() -> Any:
            r[0] = x[0] * 7
            return r[1]

        return lax.cond(x[0] > 0, wrap(write), lambda: jnp.float32(0))

    return wrap(f)(X)


def through_jit(wrap: Any, r: Any) -> Any:
    def f(x: Any) -> Any:
        jax.jit(lambda r, x: r.__setitem__(..., r[...] + x))(r, x)
        return r[...]

    return wrap(f)(X), jax.jit(wrap(f))(X)


def accumulated_gradient(wrap: Any, r: Any) -> Any:
    """A reference as the accumulator of a gradient."""

    def loss(x: Any) -> Any:
        return wrap(lambda y: (jnp.sin(y) * y).sum())(x)

    value, pull = jax.vjp(loss, X)
    pull.with_refs(r)(1.0)  # type: ignore[attr-defined]
    return value


def gradient_with_a_constant_reference(wrap: Any, r: Any) -> Any:
    """The reference is a log (plumbing): nothing is differentiated through it."""

    def f(x: Any, r: Any) -> Any:
        y = jnp.sin(x)
        r[...] = lax.stop_gradient(y)
        return (y * x).sum()

    return jax.grad(wrap(f))(X, r)


PROGRAMS: dict[Any, list[tuple[int, ...]]] = {
    argument: [(3,)],
    captured: [(3,)],
    inside: [],
    written_only: [(2, 2)],
    two_references: [(3,), (2,)],
    in_a_loop: [(3,)],
    in_a_branch: [(3,)],
    through_jit: [(3,)],
    accumulated_gradient: [(3,)],
    gradient_with_a_constant_reference: [(3,)],
}


@each_way
@pytest.mark.parametrize("program", PROGRAMS, ids=lambda p: p.__name__)
def test_references(way: Any, program: Any) -> None:
    close(run(way, program, *PROGRAMS[program]), run(lambda f: f, program, *PROGRAMS[program]))


@each_way
def test_vmap_over_a_reference(way: Any) -> None:
    def f(r: Any, x: Any) -> None:
        r[...] += x

    def result(wrap: Any) -> Any:
        r = jax.new_ref(jnp.zeros((2, 3)))
        jax.vmap(wrap(f))(r, jnp.stack([X, 2 * X]))
        return r[...]

    close(result(way), result(lambda f: f))


@pytest.mark.parametrize("wrap", [jit, optimize])
def test_a_reference_cannot_be_returned(wrap: Any) -> None:
    with pytest.raises(ValueError, match="mutable array reference") as expected:
        jax.jit(lambda x: {"kept": jax.new_ref(x)})(X)
    with pytest.raises(ValueError, match="mutable array reference") as found:
        wrap(lambda x: {"kept": jax.new_ref(x)})(X)
    assert ("['kept']" in str(expected.value)) == ("['kept']" in str(found.value))
    with pytest.raises(ValueError, match="mutable array reference"):
        wrap(lambda r: r)(jax.new_ref(X))


def test_one_reference_given_twice_is_refused() -> None:
    r = jax.new_ref(X)
    programs: list[Any] = [
        lambda wrap: wrap(lambda a, b: a[...] + b[...])(r, r),
        lambda wrap: wrap(lambda a: a[...] + r[...])(r),
    ]
    for program in programs:
        with pytest.raises(ValueError) as expected:
            program(jax.jit)
        with pytest.raises(ValueError) as found:
            program(jit)
        assert str(found.value) == str(expected.value)
