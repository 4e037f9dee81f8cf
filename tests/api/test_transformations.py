"""Each transformation of JAX, over an optimized function and inside one, gives what it gives for the plain one."""

import functools
import re
from collections.abc import Callable
from typing import Any

import jax
import jax.extend.core
import jax.numpy as jnp
import pytest
from jax import lax

from graphopt.api import jit, optimize

from .comparing import close, each_way, jit_and_optimize

SMALL = jnp.linspace(-1.0, 1.0, 3)
LARGE = jnp.sin(jnp.arange(3 * 2000.0)).reshape(3, 2000)  # becomes an operand

X = jnp.linspace(-0.9, 1.1, 3)
Function = Callable[[Any], Any]


def plain(x: Any) -> Any:
    return jnp.tanh(jnp.sin(x) * 2 + x * x[::-1]).sum()


def with_small_constant(x: Any) -> Any:
    return (jnp.cos(x) * SMALL).sum() + SMALL[0]


def with_large_constant(x: Any) -> Any:
    return jnp.tanh(x @ LARGE).sum()


def with_scan(x: Any) -> Any:
    carry, ys = lax.scan(lambda c, y: (jnp.sin(c) + y, c * y), x[0], x)
    return carry + ys.sum()


def with_fori(x: Any) -> Any:
    return lax.fori_loop(0, 3, lambda i, c: jnp.sin(c) * x[i] + c, x).sum()


def with_cond(x: Any) -> Any:
    return lax.cond(x.sum() > 0, lambda x: jnp.exp(x).sum(), lambda x: (x * x).sum(), x)


def with_jit(x: Any) -> Any:
    inner = jax.jit(lambda y: jnp.exp(-y) * y)
    return (inner(x) + inner(x * 2)).sum()


def with_optimize(x: Any) -> Any:
    inner: Any = optimize(lambda y: jnp.exp(-y) * x)
    wrapped: Any = jit(inner)
    return (inner(x) + wrapped(x * 2)).sum()


def with_checkpoint(x: Any) -> Any:
    return jax.checkpoint(lambda y: jnp.sin(jnp.sin(y)))(x).sum()


def with_random(x: Any) -> Any:
    return (jax.random.normal(jax.random.key(3), x.shape) * x * x).sum()


@jax.custom_jvp
def cube(x: Any) -> Any:
    return x**3


cube.defjvp(lambda primals, tangents: (cube(primals[0]), 5 * primals[0] ** 2 * tangents[0]))


def with_custom_jvp(x: Any) -> Any:
    return cube(x).sum()


@jax.custom_vjp
def clipped(x: Any) -> Any:
    return x * 2


clipped.defvjp(lambda x: (x * 2, x), lambda x, ct: (jnp.clip(ct * x, -0.5, 0.5),))


def with_custom_vjp(x: Any) -> Any:
    return (clipped(x) * x).sum()


FUNCTIONS: dict[str, Function] = {
    name: f for name, f in globals().copy().items() if name == "plain" or name.startswith("with_")
}

TRANSFORMATIONS: dict[str, Callable[[Function], Any]] = {
    "call": lambda f: f(X),
    "grad": lambda f: jax.grad(f)(X),
    "value_and_grad": lambda f: jax.value_and_grad(f)(X),
    "jvp": lambda f: jax.jvp(f, (X,), (X + 1,)),
    "vjp": lambda f: jax.vjp(f, X)[1](1.0),
    "vmap": lambda f: jax.vmap(f)(jnp.stack([X, X + 1])),
    "vmap of grad": lambda f: jax.vmap(jax.grad(f))(jnp.stack([X, X + 1])),
    "grad of vmap": lambda f: jax.grad(lambda x: jax.vmap(f)(jnp.stack([x, x + 1])).sum())(X),
    "hessian": lambda f: jax.hessian(f)(X),
    "jacfwd": lambda f: jax.jacfwd(f)(X),
    "jacrev": lambda f: jax.jacrev(f)(X),
    "linearize": lambda f: jax.linearize(f, X)[1](X),
    "checkpoint": lambda f: jax.grad(jax.checkpoint(f))(X),
    "checkpoint with a policy": lambda f: jax.grad(
        jax.checkpoint(f, policy=jax.checkpoint_policies.everything_saveable)
    )(X),
    "scan": lambda f: lax.scan(lambda c, _: (c + f(c) * 0.1, f(c)), X, None, length=3),
    "grad of scan": lambda f: jax.grad(lambda x: lax.scan(lambda c, _: (c + f(c), None), x, None, length=3)[0].sum())(
        X
    ),
    "fori_loop": lambda f: lax.fori_loop(0, 3, lambda i, x: x + 0.1 * f(x), X),
    "while_loop": lambda f: lax.while_loop(lambda x: x.sum() < 3, lambda x: x + 0.5 + jnp.abs(f(x)), X),
    "cond": lambda f: lax.cond(True, f, lambda x: x.sum(), X),
    "switch": lambda f: lax.switch(jnp.int32(1), [lambda x: x.sum(), f], X),
    "jit": lambda f: jax.jit(f)(X),
    "jit of grad": lambda f: jax.jit(jax.grad(f))(X),
    "grad of jit of vmap": lambda f: jax.grad(lambda x: jax.jit(jax.vmap(f))(jnp.stack([x, 2 * x])).sum())(X),
    "eval_shape": lambda f: jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), jax.eval_shape(f, X)),
    "make_jaxpr": lambda f: jax.extend.core.jaxpr_as_fun(jax.make_jaxpr(f)(X))(X),
}


@jit_and_optimize
@pytest.mark.parametrize("transformation", TRANSFORMATIONS)
@pytest.mark.parametrize("function", FUNCTIONS)
def test_transformation_over_an_optimized_function(way: Any, transformation: str, function: str) -> None:
    transform, f = TRANSFORMATIONS[transformation], FUNCTIONS[function]
    try:
        expected = transform(f)
    except TypeError as error:  # a custom_vjp function has no forward mode
        with pytest.raises(TypeError, match=re.escape(str(error)[:40])):
            transform(way(f))
    else:
        close(transform(way(f)), expected)


@pytest.mark.parametrize("transformation", TRANSFORMATIONS)
@pytest.mark.parametrize("function", ["plain", "with_large_constant", "with_scan", "with_custom_jvp"])
def test_transformation_inside_an_optimized_function(transformation: str, function: str) -> None:
    transform, f = TRANSFORMATIONS[transformation], FUNCTIONS[function]
    close(jit(lambda: transform(f))(), jax.jit(lambda: transform(f))())
    # Several of the transformations branch on nothing and so work as regions of a larger program, too.
    close(jax.jit(lambda: optimize(transform)(f))(), jax.jit(lambda: transform(f))())


@each_way
def test_linear_transpose(way: Any) -> None:
    def linear(x: Any) -> Any:
        return {"a": x @ LARGE[:, :4], "b": x[1:] * 3}

    cotangent = {"a": jnp.arange(4.0), "b": jnp.ones(2)}
    close(jax.linear_transpose(way(linear), X)(cotangent), jax.linear_transpose(linear, X)(cotangent))


@each_way
def test_integer_arguments_have_no_gradient(way: Any) -> None:
    def f(x: Any, n: Any) -> Any:
        return (x * n).sum(), n + 1

    arguments = X, jnp.arange(3)
    found = jax.value_and_grad(way(f), has_aux=True)(*arguments)
    close(found, jax.value_and_grad(f, has_aux=True)(*arguments))


@each_way
def test_gradient_of_several_arguments_and_unused_ones(way: Any) -> None:
    def f(x: Any, unused: Any, y: Any) -> Any:
        return (x * y["a"]).sum() + y["b"]

    arguments = X, X, {"a": X + 1, "b": 2.0}
    close(jax.grad(way(f), argnums=(0, 1, 2))(*arguments), jax.grad(f, argnums=(0, 1, 2))(*arguments))


@each_way
def test_complex_gradient(way: Any) -> None:
    def f(z: Any) -> Any:
        return (jnp.abs(jnp.exp(z) * (1 + 2j)) ** 2).sum()

    z = jnp.array([0.3 + 0.2j, -0.1j])
    close(jax.grad(way(f))(z), jax.grad(f)(z))
    close(
        jax.grad(lambda z: way(jnp.exp)(z)[0], holomorphic=True)(z),
        jax.grad(lambda z: jnp.exp(z)[0], holomorphic=True)(z),
    )


@each_way
def test_vmap_axes_and_collectives(way: Any) -> None:
    def f(x: Any, y: Any) -> Any:
        return lax.psum(x, "i") + y, lax.axis_index("i")

    batch = jnp.arange(12.0).reshape(3, 4)
    over = functools.partial(jax.vmap, in_axes=(1, None), out_axes=(1, 0), axis_name="i")
    close(over(way(f))(batch, X), over(f)(batch, X))


@each_way
def test_custom_rules_whose_functions_are_optimized(way: Any) -> None:
    def derivatives(wrap: Any) -> Any:
        @jax.custom_vjp
        def f(x: Any) -> Any:
            return wrap(jnp.sin)(x)

        f.defvjp(lambda x: (wrap(jnp.sin)(x), x), lambda x, ct: (wrap(lambda a, b: 3 * a * b)(x, ct),))
        return jax.grad(lambda x: f(x).sum())(X)

    close(derivatives(way), derivatives(lambda f: f))


@each_way
def test_gradient_through_saved_names(way: Any) -> None:
    from jax.ad_checkpoint import checkpoint_name

    def f(x: Any) -> Any:
        return jnp.sin(checkpoint_name(jnp.sin(x), "kept")).sum()

    policy = jax.checkpoint_policies.save_only_these_names("kept")
    close(jax.grad(jax.checkpoint(way(f), policy=policy))(X), jax.grad(f)(X))


@each_way
def test_jet(way: Any) -> None:
    from jax.experimental.jet import jet

    def f(x: Any) -> Any:
        return jnp.sin(x) * x

    series = (jnp.float32(0.3),), ((jnp.float32(1.0), jnp.float32(0.0)),)
    close(jet(way(f), *series), jet(f, *series))


@each_way
def test_sparsify(way: Any) -> None:
    from jax.experimental import sparse

    dense = jnp.array([[0.0, 1.0, 0.0], [2.0, 0.0, 0.0]])
    matrix = sparse.BCOO.fromdense(dense)

    def f(m: Any, x: Any) -> Any:
        return m @ x * 2

    close(sparse.sparsify(way(f))(matrix, X), f(dense, X))


def test_residuals_that_are_results_are_stored_once() -> None:
    """exp's residual is its result: the differentiated program must not return it twice."""

    def backward(wrap: Any) -> int:
        _, pull = jax.eval_shape(lambda x: jax.vjp(wrap(jnp.exp), x), X)
        return sum(leaf.size for leaf in jax.tree.leaves(pull))

    assert backward(jit) == backward(jax.jit)
    jaxpr = jax.make_jaxpr(lambda x: jax.vjp(jit(jnp.exp), x)[0])(X)
    assert all(len(equation.outvars) == 1 for equation in jaxpr.eqns)
