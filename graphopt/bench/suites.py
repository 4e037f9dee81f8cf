"""The suites: what each measures, and of which programs."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

import graphopt
from graphopt.backends.xla.target import Target
from graphopt.bench import limited, models, numerics, operations, passes, rewritten, steady, streamed, unrolled
from graphopt.bench.measure import rounds, timed
from graphopt.bench.programs import DEPTHS, Program, renewed
from graphopt.bench.rows import Row, measure_of
from graphopt.compile import optimize_graph
from graphopt.config import Options
from graphopt.trace.jaxpr import graph_of


@dataclass(frozen=True, slots=True)
class Suite:
    """Programs and how they are measured.

    subject: what is measured, in a few words.
    programs: returns the programs; their arguments are not made before they are measured.
    measure: measures one, in about as many rounds as it is given.
    over: whose time graphopt's is compared with.
    """

    subject: str
    programs: Callable[[], Sequence[Program]]
    measure: Callable[[Program, int], Row]
    over: str = "jax.jit's"


def measure_first_call(program: Program, repeats: int) -> Row:
    """First calls of functions never seen before: tracing, passes, lowering and XLA's compilation, without the run."""
    args = program.arguments()
    contenders = {
        "jax": timed(first_call, jax.jit, program, args),
        "graphopt": timed(first_call, graphopt.jit, program, args),
    }
    rounds(contenders, 1)
    measured = measure_of(rounds(contenders, repeats))
    passes = statistics.median(pass_seconds(program, args) for _ in range(repeats))
    return Row(program.name, equations(program), {"first call": measured}, passes=passes)


def pass_seconds(program: Program, args: tuple[Any, ...]) -> float:
    """Seconds that the standard passes take for a program."""
    graph, sources = graph_of(jax.make_jaxpr(program.make())(*args))
    _, records = optimize_graph(graph, sources, Options(), Target((jax.default_backend(),)))
    return sum(record.seconds for record in records)


def first_call(jit: Callable[..., Any], program: Program, args: tuple[Any, ...] | None = None) -> None:
    """What the first call of a function does before it runs. Without `args`, the program's are made, in the time."""
    jit(program.make()).lower(*(program.arguments() if args is None else args)).compile()


def measure_call(program: Program, repeats: int) -> Row:
    """Calls of a compiled function: dispatch alone."""
    function, args = program.make(), program.arguments()
    contenders = {
        "jax": timed(jax.jit(function), *args, calls=500),
        "graphopt": timed(graphopt.jit(function), *args, calls=500),
    }
    rounds(contenders, 2)
    return Row(program.name, equations(program), {"call": measure_of(rounds(contenders, repeats * 10))})


def equations(program: Program) -> int:
    """How many equations the program's jaxpr has at the top."""
    return len(jax.make_jaxpr(program.make())(*program.arguments()).eqns)


CALLS = (
    Program("add, 4 elements", renewed(lambda x: x + 1), lambda: (jnp.ones(4),)),
    Program("100 arguments", renewed(lambda *xs: sum(xs)), lambda: (jnp.ones(4),) * 100),
    Program(
        "a tree of 4 arrays",
        renewed(lambda tree: jax.tree.map(lambda leaf: leaf * 2, tree)),
        lambda: ({"a": jnp.ones(4), "b": [jnp.ones(4), (jnp.ones(4), jnp.ones(4))]},),
    ),
)

SUITES: dict[str, Suite] = {
    "compile": Suite("first calls", lambda: [make() for make in DEPTHS], measure_first_call),
    "call": Suite("calls that compute next to nothing", lambda: CALLS, measure_call),
    "programs": Suite(
        "whole programs", lambda: [make() for make in (*models.MODELS, *numerics.NUMERICS)], steady.measure
    ),
    "streamed": Suite(
        "programs with a large array in the middle", lambda: [make() for make in streamed.STREAMED], steady.measure
    ),
    "rewritten": Suite(
        "programs that one pass is for", lambda: [make() for make in rewritten.REWRITTEN], steady.measure
    ),
    "limited": Suite(
        "programs in 60% of the memory that they take under jax.jit",
        lambda: [make() for make in limited.LIMITED],
        limited.measure,
    ),
    "passes": Suite("what each pass gains", passes.programs, passes.measure, "its own without the pass"),
    "unrolled": Suite("loops in Python", lambda: [make() for make in unrolled.UNROLLED], steady.measure),
    "ops": Suite("single operations", operations.programs, steady.measure),
}
