"""Less common parts of JAX, with optimized functions in them and around them, as without."""

import functools
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.experimental.hijax as hijax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental import sparse
from jax.experimental.ode import odeint

from graphopt.api import jit, optimize

from .comparing import close, each_way

X = jnp.linspace(0.1, 1.0, 3)
M = jnp.sin(jnp.arange(9.0).reshape(3, 3))
LIKE_X = jax.ShapeDtypeStruct((3,), jnp.float32)


def custom_root(w: Any) -> Any:
    def root(a: Any) -> Any:
        solve = lambda f, x: lax.fori_loop(0, 20, lambda i, x: x - f(x) / (2 * x), x)
        return lax.custom_root(lambda x: x**2 - a, jnp.float32(1), solve, lambda g, y: y / g(1.0))

    return w(root)(2.0), jax.grad(w(root))(2.0), w(jax.grad(root))(2.0)


def custom_linear_solve(w: Any) -> Any:
    matrix = M @ M.T + jnp.eye(3)

    def solve(b: Any) -> Any:
        by_inverse = lambda _, b: jnp.linalg.solve(matrix, b)
        return lax.custom_linear_solve(lambda x: matrix @ x, b, by_inverse, symmetric=True)

    return w(solve)(X), jax.jacobian(w(solve))(X)


def linear_algebra(w: Any) -> Any:
    f = lambda m: (jnp.linalg.svd(m)[1], jnp.linalg.inv(m + 3 * jnp.eye(3)), jnp.linalg.eigh(m + m.T)[0])
    return w(f)(M)


def functions_given_to_operations(w: Any) -> Any:
    product = w(lambda a, b: a * b)
    return (
        lax.reduce(X, jnp.float32(1), product, (0,)),
        lax.reduce_window(X, jnp.float32(1), product, (2,), (1,), "SAME"),
        X.at[1].apply(w(jnp.sin)),
        lax.associative_scan(product, M),
        lax.map(w(jnp.sin), M, batch_size=2),
        jnp.vectorize(w(jnp.vdot), signature="(n),(n)->()")(M, X),
    )


def custom_vmap(w: Any) -> Any:
    def made(inner: Any) -> Any:
        f: Any = jax.custom_batching.custom_vmap(lambda x: inner(jnp.sin)(x))
        f.def_vmap(lambda axis_size, in_batched, x: (inner(jnp.cos)(x), True))
        return f

    return jax.vmap(w(made(lambda f: f)))(M), jax.vmap(made(w))(M), made(w)(X)


def custom_gradient(w: Any) -> Any:
    @jax.custom_gradient
    def f(x: Any) -> Any:
        return w(jnp.sin)(x), lambda g: w(lambda g: g * 3)(g)

    return jax.grad(w(lambda x: f(x).sum()))(X)


def symbolic_zeros(w: Any) -> Any:
    @jax.custom_jvp
    def f(x: Any, y: Any) -> Any:
        return x * y

    @functools.partial(f.defjvp, symbolic_zeros=True)
    def _(primals: Any, tangents: Any) -> Any:
        (x, y), (dx, dy) = primals, tangents
        out = jnp.zeros_like(x)
        out = out if isinstance(dx, jax.custom_derivatives.SymbolicZero) else out + dx * y
        out = out if isinstance(dy, jax.custom_derivatives.SymbolicZero) else out + 5 * dy * x
        return f(x, y), out

    return jax.grad(lambda x: w(f)(x, X).sum())(X), jax.grad(lambda x: w(lambda x: f(x, 2 * x).sum())(x))(X)


def closure_convert(w: Any) -> Any:
    def f(x: Any) -> Any:
        g, captured = jax.closure_convert(w(lambda y: y * x.sum()), X)
        return g(X, *captured).sum()

    return jax.grad(f)(X), jax.grad(w(f))(X)


def compile_time_evaluation(w: Any) -> Any:
    def f(x: Any) -> Any:
        with jax.ensure_compile_time_eval():
            n = int(jnp.sum(jnp.ones(3)))
        return x * n

    return w(f)(X)


def pallas(w: Any) -> Any:
    def around(x: Any) -> Any:
        def kernel(x_ref: Any, o_ref: Any) -> None:
            o_ref[...] = jnp.sin(x_ref[...]) * 2

        return pl.pallas_call(kernel, out_shape=LIKE_X, interpret=True)(x)

    def with_value(x_ref: Any, o_ref: Any) -> None:
        o_ref[...] = w(lambda x: jnp.sin(x) * 2)(x_ref[...])

    def with_references(x_ref: Any, o_ref: Any) -> None:
        w(lambda x_ref, o_ref: o_ref.__setitem__(..., x_ref[...] * 2))(x_ref, o_ref)

    inside = [pl.pallas_call(k, out_shape=LIKE_X, interpret=True)(X) for k in (with_value, with_references)]
    return w(around)(X), jax.vmap(w(around))(M), inside


def pmap(w: Any) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return jnp.asarray(np.asarray(jax.pmap(w(lambda x: lax.psum(x, "i")), axis_name="i")(X[None])))


def deep_nesting(w: Any) -> Any:
    def f(x: Any, depth: int) -> Any:
        return w(lambda y: f(y, depth - 1) * x)(x) if depth else jnp.sin(x)

    return f(X, 20), jax.grad(lambda x: f(x, 10).sum())(X)


def checkpoint_policies(w: Any) -> Any:
    f = lambda x: jnp.sin(jnp.sin(x) @ M).sum()
    policies = jax.checkpoint_policies
    kinds = (policies.dots_saveable, policies.nothing_saveable, policies.dots_with_no_batch_dims_saveable)
    return [jax.grad(jax.checkpoint(w(f), policy=p, prevent_cse=False))(X) for p in kinds] + [
        jax.grad(w(jax.checkpoint(f, policy=p)))(X) for p in kinds
    ]


def differential_equation(w: Any) -> Any:
    times = jnp.linspace(0.0, 1.0, 3)
    f = w(lambda y, t: -y * t)
    return odeint(f, X, times), jax.grad(lambda y: odeint(f, y, times).sum())(X)


def sparse_arguments(w: Any) -> Any:
    f = w(lambda m, x: m @ x)
    m = sparse.BCOO.fromdense(M)
    return f(m, X), jax.grad(lambda x: f(m, x).sum())(X)


def scan_options(w: Any) -> Any:
    f = w(lambda c, x: (c * 0.9 + x, {"a": c, "b": None}))
    return (
        lax.scan(f, X, M, reverse=True, unroll=2),
        jax.grad(lambda c: lax.scan(jax.checkpoint(f), c, M)[0].sum())(X),
    )


def auxiliary_results(w: Any) -> Any:
    value, pull, aux = jax.vjp(w(lambda x: (jnp.sin(x), x * 2)), X, has_aux=True)
    return value, pull(X), aux


def higher_derivatives(w: Any) -> Any:
    f = w(lambda x: (jnp.sin(x) ** 3).sum())
    return jax.jvp(jax.grad(f), (X,), (X,))[1], jax.jacfwd(jax.jacrev(jax.jacfwd(f)))(X)


def small_types(w: Any) -> Any:
    f = lambda a, b, c, d, e: (a * a, b * b.conj(), c + c, d & d, e.astype(jnp.float32) * 2)
    arguments = X.astype(jnp.bfloat16), X + 1j, jnp.arange(3, dtype=jnp.int8), X > 0.5, X.astype(jnp.float8_e4m3fn)
    return w(f)(*arguments)


def barrier(w: Any) -> Any:
    return w(lambda x: lax.optimization_barrier((x, x * 2)))(X)


PARTS: list[Callable[[Any], Any]] = [
    custom_root,
    custom_linear_solve,
    linear_algebra,
    functions_given_to_operations,
    custom_vmap,
    custom_gradient,
    symbolic_zeros,
    closure_convert,
    compile_time_evaluation,
    pallas,
    pmap,
    deep_nesting,
    checkpoint_policies,
    differential_equation,
    sparse_arguments,
    scan_options,
    auxiliary_results,
    higher_derivatives,
    small_types,
    barrier,
]


@each_way
@pytest.mark.parametrize("part", PARTS, ids=lambda p: p.__name__)
def test_part(way: Any, part: Any) -> None:
    close(part(way), part(lambda f: f))


# ---- types that JAX lowers to arrays (hijax)

HiPrimitive: Any = getattr(hijax, "HiPrim", None) or hijax.VJPHiPrimitive  # jax 0.10 has the latter


@dataclass(frozen=True)
class Quantized:
    values: Any
    scale: Any


@dataclass(frozen=True)
class QuantizedType(hijax.HiType):
    shape: tuple[int, ...]

    def to_tangent_aval(self) -> Any:
        return jax.core.ShapedArray(self.shape, jnp.dtype("float32"))

    def lo_ty(self) -> Any:
        return [jax.core.ShapedArray(self.shape, jnp.dtype("int8")), jax.core.ShapedArray((), jnp.dtype("float32"))]

    def lower_val(self, value: Any) -> Any:
        return [value.values, value.scale]

    def raise_val(self, values: Any, scale: Any) -> Any:
        return Quantized(values, scale)


hijax.register_hitype(Quantized, lambda q: QuantizedType(q.values.shape))


class Dequantize(HiPrimitive):  # type: ignore[misc]
    def __init__(self, aval: Any) -> None:
        self.in_avals = (aval,)
        self.out_aval = jax.core.ShapedArray(aval.shape, jnp.dtype("float32"))
        self.params: dict[str, Any] = {}
        super().__init__()

    def expand(self, q: Any) -> Any:
        return q.values.astype(jnp.float32) * q.scale


@each_way
def test_values_of_a_type_of_the_user(way: Any) -> None:
    q = Quantized(jnp.arange(3, dtype=jnp.int8), jnp.float32(0.5))
    dequantized: Any = lambda q: Dequantize(jax.typeof(q))(q)
    close(way(lambda q, x: dequantized(q) + x)(q, X), jnp.arange(3) * 0.5 + X)
    close(way(lambda x: dequantized(q) + x)(X), jnp.arange(3) * 0.5 + X)
    close(jax.jit(lambda q, x: way(lambda x: dequantized(q) * x)(x))(q, X), jnp.arange(3) * 0.5 * X)
    assert way(lambda q: q)(q).scale == 0.5


@pytest.mark.parametrize("wrap", [jit, optimize])
def test_clearing_the_caches_of_jax(wrap: Any) -> None:
    f: Any = lambda x: jnp.sin(x) * 3
    g = wrap(f)
    close(g(X), f(X))
    jax.clear_caches()
    close(g(X), f(X))
    close(wrap(f)(X), f(X))
