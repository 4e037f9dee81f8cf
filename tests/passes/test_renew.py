"""Renew: which arguments kernels copy, and in which programs; results are those of jax.jit."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import graphopt
from graphopt.analysis.machine import Machine
from graphopt.backends.numba.lowering import ENGINE
from graphopt.config import Options
from graphopt.ir.check import check
from graphopt.ir.graph import Graph
from graphopt.ops.kernel import KERNEL
from graphopt.passes.pipelines import STANDARD
from graphopt.passes.renew import Renew
from graphopt.rewrite.passes import Context, run_pipeline
from graphopt.trace.jaxpr import trace_function

LARGE = (3001, 3000)


def renewed(function: Callable[..., Any], *args: Any) -> tuple[Graph, Context]:
    """The graph after the pass."""
    graph, sources = trace_function(function, *args)
    context = Context(Options(), sources)
    graph, _ = run_pipeline(graph, STANDARD, context)
    after = Renew(ENGINE, Machine()).run(graph, context)
    check(after)
    return after, context


def copies(graph: Graph) -> list[Any]:
    return [node for node in graph.nodes if node.op is KERNEL]


CASES: dict[str, Callable[..., Any]] = {
    "another shape": lambda x: x.reshape(-1),
    "a copy": jnp.copy,
    "one row written over": lambda x: x.at[7].set(1.0),
    "added to": lambda x: x.at[jnp.array([3, 3, 2999])].add(2.0),
    "one more axis": lambda x: (x[None], x.sum()),
}


@pytest.mark.parametrize("name", CASES)
def test_what_xla_would_copy_is_copied_by_a_kernel(name: str) -> None:
    after, context = renewed(CASES[name], jax.ShapeDtypeStruct(LARGE, np.float32))
    (copy,) = copies(after)
    assert copy.inputs == (after.params[0],) and context.notes == ["numba: 1 argument copied"]


OTHERS: dict[str, tuple[Callable[..., Any], jax.ShapeDtypeStruct]] = {
    "what is small": (lambda x: x.reshape(-1), jax.ShapeDtypeStruct((300, 300), np.float32)),
    "what is computed": (lambda x: (x * 2).reshape(-1), jax.ShapeDtypeStruct(LARGE, np.float32)),
    "what is computed and written over": (lambda x: (x * 2).at[7].set(1.0), jax.ShapeDtypeStruct(LARGE, np.float32)),
    "what is read in another shape": (lambda x: x.reshape(-1) * 2, jax.ShapeDtypeStruct(LARGE, np.float32)),
    "a type without kernels": (lambda x: x.reshape(-1), jax.ShapeDtypeStruct((6001, 6000), jnp.float8_e4m3fn)),
}


@pytest.mark.parametrize("name", OTHERS)
def test_nothing_else_is_copied(name: str) -> None:
    function, shape = OTHERS[name]
    assert not copies(renewed(function, shape)[0])


def lowered(function: Callable[..., Any], *args: Any) -> bool:
    """Whether the compiled program has a kernel that copies."""
    return "graphopt.kernel" in function.lower(*args).as_text()  # type: ignore[attr-defined]


def test_only_where_the_program_is_all_there_is() -> None:
    flat, x = CASES["another shape"], jax.ShapeDtypeStruct(LARGE, np.float32)
    assert lowered(graphopt.jit(flat), x) and lowered(graphopt.jit(flat, backend="numba"), x)
    assert not lowered(graphopt.jit(flat, backend="xla"), x)
    inner = graphopt.jit(flat)
    assert not lowered(jax.jit(lambda x: inner(x) * 2), x) and not lowered(jax.jit(lambda x: inner(x * 2)), x)
    assert not lowered(jax.jit(lambda x: graphopt.optimize(flat)(x)[:5]), x)


@pytest.mark.parametrize("name", ["another shape", "a copy"])
def test_not_where_the_argument_is_given_away(name: str) -> None:
    x = jax.ShapeDtypeStruct(LARGE, np.float32)
    for donated in ({}, {"donate_argnums": 0}, {"donate_argnames": "x"}):
        function = graphopt.jit(lambda x: CASES[name](x), **donated)
        assert lowered(function, x) == bool(function.explain(x).kernels) == (not donated)


@pytest.mark.parametrize("name", CASES)
def test_results_are_those_of_jax_and_arguments_stay(name: str) -> None:
    values = np.random.default_rng(0).standard_normal(LARGE, np.float32)
    values[0, :4] = [np.nan, -np.inf, -0.0, 1e-45]
    x = jnp.asarray(values)
    for found, expected in zip(
        jax.tree.leaves(graphopt.jit(CASES[name])(x)), jax.tree.leaves(jax.jit(CASES[name])(x)), strict=True
    ):
        assert (found.shape, found.dtype) == (expected.shape, expected.dtype)
        if found.shape:
            np.testing.assert_array_equal(found.view(np.int32), expected.view(np.int32))
    np.testing.assert_array_equal(x.view(jnp.int32), values.view(np.int32))
