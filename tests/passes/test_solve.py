"""Products with inverses: solved for, with the same values, and what keeps its inverse."""

import os
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st
from jax import lax

import graphopt
from graphopt.backends.agreement import disagreement
from graphopt.backends.reference import evaluate
from graphopt.config import NUMERICS, Options
from graphopt.ir.check import check
from graphopt.ir.graph import Graph, nested_graphs
from graphopt.passes.contract import Contract
from graphopt.passes.inline import Inline
from graphopt.passes.simplify import Simplify
from graphopt.passes.solve import LINEAR_SOLVE, Solve
from graphopt.rewrite.passes import Context, run_pipeline
from graphopt.trace.jaxpr import trace_function

inv = jnp.linalg.inv
SEED = int(os.environ.get("GRAPHOPT_TEST_SEED", "0"))
N = 9


def array(*shape: int, dtype: str = "float32") -> Any:
    random = np.random.default_rng(shape)
    values = random.standard_normal(shape)
    if dtype == "complex64":
        values = values + 1j * random.standard_normal(shape)
    return values.astype(dtype)


def matrix(*shape: int, dtype: str = "float32") -> Any:
    """A matrix, or several, that rounding moves little."""
    return (array(*shape, dtype=dtype) + 4 * np.eye(shape[-1])).astype(dtype)


def solved(function: Callable[..., Any], *args: Any, **options: Any) -> tuple[Graph, Graph, Context]:
    """A function's graph, simplified, before and after the pass."""
    graph, sources = trace_function(function, *args)
    steps = (Inline(), Simplify(), Contract())
    before, _ = run_pipeline(graph, steps, Context(Options(), sources))
    context = Context(Options(numerics=options.pop("numerics", "standard")), sources, **options)
    after = Solve().run(before, context)
    check(after)
    return before, after, context


def inverses(graph: Graph) -> int:
    return sum(node.op is LINEAR_SOLVE for inner in nested_graphs(graph) for node in inner.nodes)


A, B, V = matrix(N, N), array(N, 4), array(N)

SOLVED: dict[str, tuple[Callable[..., Any], tuple[Any, ...]]] = {
    "vector": (lambda a, v: inv(a) @ v, (A, V)),
    "matrix": (lambda a, b: inv(a) @ b, (A, B)),
    "from the left": (lambda a, v: v @ inv(a), (A, V)),
    "rows from the left": (lambda a, b: b @ inv(a), (A, B.T)),
    "transposed": (lambda a, v: inv(a).T @ v, (A, V)),
    "of the transposed": (lambda a, v: inv(a.T) @ v, (A, V)),
    "batch": (lambda a, b: inv(a) @ b, (matrix(3, N, N), array(3, N, 2))),
    "batch from the left": (lambda a, b: b @ inv(a), (matrix(2, 3, N, N), array(2, 3, 2, N))),
    "batch with one right-hand side": (lambda a, b: inv(a) @ b, (matrix(3, N, N), array(N, 2))),
    "batch with one vector": (lambda a, v: jnp.einsum("bij,j->bi", inv(a), v), (matrix(3, N, N), V)),
    "batch with one left-hand side": (
        lambda a, b: jnp.einsum("kj,bji->kbi", b, inv(a)),
        (matrix(3, N, N), array(2, N)),
    ),
    "vmap": (jax.vmap(lambda a, v: inv(a).T @ v), (matrix(3, N, N), array(3, N))),
    "vmap of right-hand sides": (jax.vmap(lambda a, v: inv(a) @ v, (None, 0)), (A, array(5, N))),
    "several products": (lambda a, b, v: (inv(a) @ v, v @ inv(a), inv(a) @ b), (A, B, V)),
    "quadratic form": (lambda a, v: v @ inv(a) @ v, (A, V)),
    "chain": (lambda a, v: inv(a) @ a.T @ v, (A, V)),
    "two inverses": (lambda a, v: inv(a.T + 1) @ inv(a) @ v, (A, V)),
    "einsum": (lambda a, b: jnp.einsum("ij,kj->ki", inv(a), b), (A, B.T)),
    "least squares": (lambda x, y: inv(x.T @ x) @ x.T @ y, (array(30, N), array(30))),
    "gradient": (jax.grad(lambda v, a: jnp.sum(jnp.sin(inv(a) @ v))), (V, A)),
    "loop": (lambda a, v: lax.scan(lambda c, _: (jnp.tanh(inv(a) @ c), None), v, None, length=3)[0], (A, V)),
    "complex": (lambda a, v: inv(a) @ v, (matrix(N, N, dtype="complex64"), array(N, dtype="complex64"))),
    "complex from the left": (lambda a, v: v @ inv(a), (matrix(N, N, dtype="complex64"), array(N, dtype="complex64"))),
    "one by one": (lambda a, v: inv(a) @ v, (matrix(2, 1, 1), array(2, 1, 1))),
}


@pytest.mark.parametrize("name", SOLVED)
def test_solved(name: str) -> None:
    function, args = SOLVED[name]
    before, after, context = solved(function, *args)
    assert name == "one by one" or (not inverses(after) and context.firings and "not computed" in context.notes[0])
    assert disagreement(before, after, args, "reassociate") is None
    for expected, found in zip(
        jax.tree.leaves(jax.jit(function)(*args)), jax.tree.leaves(graphopt.jit(function)(*args)), strict=True
    ):
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3)


KEPT: dict[str, tuple[Callable[..., Any], tuple[Any, ...], str]] = {
    "a result": (lambda a, v: (inv(a) @ v, inv(a)), (A, V), "not only products"),
    "read by others": (lambda a, v: inv(a) @ v + inv(a).sum(), (A, V), "not only products"),
    "its square": (lambda a: inv(a) @ inv(a), (A,), "not only products"),
    "product of two": (lambda a, v: inv(a) @ inv(a.T + 1), (A, V), ""),
    "many columns": (lambda a, b: inv(a) @ b, (A, array(N, 20)), "20 columns"),
    "a solution": (jnp.linalg.solve, (A, V), ""),
    "nothing": (lambda a, b: inv(a) @ b, (A, array(N, 0)), ""),
}


@pytest.mark.parametrize("name", KEPT)
def test_kept(name: str) -> None:
    function, args, why = KEPT[name]
    before, after, context = solved(function, *args)
    if why:
        assert after is before and any(why in note for note in context.notes)
    assert disagreement(before, after, args, "reassociate") is None


FORMS: dict[str, Callable[..., Any]] = {
    "from the left": lambda a, b: inv(a) @ b,
    "from the right": lambda a, b: b.T @ inv(a),
    "transposed": lambda a, b: inv(a).T @ b,
    "of the transposed": lambda a, b: inv(a.T) @ b,
    "between": lambda a, b: b.T @ inv(a) @ b,
    "each by itself": lambda a, b: jax.vmap(lambda v: inv(a) @ v, 1, 1)(b),
    "scaled": lambda a, b: inv(2 * a) @ (3 * b),
}


@seed(SEED)
@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.sampled_from(sorted(FORMS)),
    st.integers(2, 12),
    st.integers(1, 6),
    st.sampled_from(["float32", "complex64"]),
    st.lists(st.floats(0.125, 1.0, width=32), min_size=12, max_size=12),
    st.integers(0, 2**32 - 1),
)
def test_drawn_systems(form: str, size: int, columns: int, dtype: str, sizes: list[float], number: int) -> None:
    """Matrices with singular values between an eighth and one, columns of any number: both sides solve the system."""
    random = np.random.default_rng(number)

    def orthogonal() -> Any:
        values = random.standard_normal((size, size))
        if dtype == "complex64":
            values = values + 1j * random.standard_normal((size, size))
        return np.linalg.qr(values)[0]

    a = ((orthogonal() * sizes[:size]) @ orthogonal()).astype(dtype)
    b = (random.standard_normal((size, columns)) * 10.0 ** random.integers(-3, 4)).astype(dtype)
    before, after, context = solved(FORMS[form], a, b)
    assert disagreement(before, after, (a, b), "reassociate") is None
    assert bool(context.firings) == (not inverses(after))
    expected = FORMS_IN_NUMPY[form](a.astype(complex), b.astype(complex))
    (found,) = evaluate(after, a, b)
    np.testing.assert_allclose(found, expected, rtol=2e-3, atol=2e-4 * float(np.abs(expected).max()))


FORMS_IN_NUMPY: dict[str, Callable[..., Any]] = {
    "from the left": np.linalg.solve,
    "from the right": lambda a, b: np.linalg.solve(a.T, b).T,
    "transposed": lambda a, b: np.linalg.solve(a.T, b),
    "of the transposed": lambda a, b: np.linalg.solve(a.T, b),
    "between": lambda a, b: b.T @ np.linalg.solve(a, b),
    "each by itself": np.linalg.solve,
    "scaled": lambda a, b: 1.5 * np.linalg.solve(a, b),
}


def test_gradient_of_the_matrix() -> None:
    def function(a: Any, v: Any) -> Any:
        return jax.grad(lambda a: jnp.sum(jnp.sin(inv(a) @ v)))(a)

    before, after, context = solved(function, A, V)
    assert inverses(after) < inverses(before) and context.firings
    assert disagreement(before, after, (A, V), "reassociate") is None


@pytest.mark.parametrize("numerics", NUMERICS)
def test_numerics(numerics: Any) -> None:
    before, after, context = solved(lambda a, v: inv(a) @ v, A, V, numerics=numerics)
    assert (after is before) == (numerics == "exact")
    assert {firing.safety for firing in context.firings} <= {"reassociate"} and context.notes


@pytest.mark.parametrize("condition", [1e2, 1e4, 1e6])
def test_the_solution_is_no_worse_than_the_product(condition: float) -> None:
    """Against float64: the error of solving is at most a small multiple of that of inverting."""
    random = np.random.default_rng(0)
    q, _ = np.linalg.qr(random.standard_normal((60, 60)))
    r, _ = np.linalg.qr(random.standard_normal((60, 60)))
    a = (q * np.geomspace(1, 1 / condition, 60)) @ r
    a = a.astype(np.float32)
    v = random.standard_normal(60).astype(np.float32)
    exact = np.linalg.solve(a.astype(float), v.astype(float))

    def function(a: Any, v: Any) -> Any:
        return inv(a) @ v

    error = [np.abs(np.asarray(jit(function)(a, v)) - exact).max() for jit in (jax.jit, graphopt.jit)]
    assert error[1] <= 4 * error[0]


def test_while_jax_may_differentiate_the_inverse_stays() -> None:
    before, after, context = solved(lambda a, v: inv(a) @ v, A, V, differentiable=True)
    assert after is before and "differentiates" in context.notes[0]
    assert context.firings == []
    before, after, context = solved(lambda a, v: inv(a) @ v, A, V, portable=True)
    assert after is before and "not known" in context.notes[0]
