"""The suites: `compile` (first calls) and `call` (the cost of a call that computes next to nothing)."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

import graphopt
from graphopt.bench.measure import Ratio, paired_ratio, rounds, timed
from graphopt.bench.programs import DEPTHS, Program


@dataclass(frozen=True, slots=True)
class Row:
    """One measured case: equations of its jaxpr, median seconds under jax.jit and graphopt, and their ratio.

    Equations are those at the top, without what calls and loops hold. The ratio is graphopt's time over jax.jit's:
    below 1 graphopt is the faster one.
    """

    name: str
    equations: int
    jax_seconds: float
    graphopt_seconds: float
    ratio: Ratio


def row(name: str, equations: int, seconds: dict[str, list[float]]) -> Row:
    """The row of a case whose contenders are `jax` and `graphopt`."""
    medians = {contender: statistics.median(values) for contender, values in seconds.items()}
    return Row(name, equations, medians["jax"], medians["graphopt"], paired_ratio(seconds["graphopt"], seconds["jax"]))


def compile_suite(repeats: int, only: str) -> Iterator[Row]:
    """First calls of functions never seen before: tracing, passes, lowering and XLA's compilation, without the run."""
    for make in DEPTHS:
        program = make()
        if only in program.name:
            equations = len(jax.make_jaxpr(program.make())(*program.args).eqns)
            contenders = {
                "jax": timed(first_call, jax.jit, program),
                "graphopt": timed(first_call, graphopt.jit, program),
            }
            rounds(contenders, 1)
            yield row(program.name, equations, rounds(contenders, repeats))


def first_call(jit: Callable[..., Any], program: Program) -> None:
    """What the first call of a function does before it runs."""
    jit(program.make()).lower(*program.args).compile()


def call_suite(repeats: int, only: str) -> Iterator[Row]:
    """Calls of a compiled function: dispatch alone."""
    x = jnp.ones(4)
    many = [x] * 100
    tree = {"a": x, "b": [x, (x, x)]}
    cases: tuple[tuple[str, Callable[..., Any], tuple[Any, ...]], ...] = (
        ("add, 4 elements", lambda x: x + 1, (x,)),
        ("100 arguments", lambda *xs: sum(xs), tuple(many)),
        ("a tree of 4 arrays", lambda tree: jax.tree.map(lambda leaf: leaf * 2, tree), (tree,)),
    )
    for name, function, args in cases:
        if only in name:
            contenders = {
                "jax": timed(jax.jit(function), *args, calls=500),
                "graphopt": timed(graphopt.jit(function), *args, calls=500),
            }
            rounds(contenders, 2)
            yield row(name, len(jax.make_jaxpr(function)(*args).eqns), rounds(contenders, repeats * 10))


SUITES: dict[str, Callable[[int, str], Iterator[Row]]] = {"compile": compile_suite, "call": call_suite}
