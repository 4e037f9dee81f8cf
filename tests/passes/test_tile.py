"""What loops compute alike is kept in tiles: programs before and after as text, and interpreted against their graphs."""

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, seed, settings
from hypothesis import strategies as st
from jax import lax

import graphopt
from graphopt.analysis.reductions import ADD, MUL
from graphopt.analysis.writing import TooLargeError
from graphopt.backends.interpret import interpret, shaped
from graphopt.backends.numba.costs import scalar_cost
from graphopt.backends.numba.engine import NumbaEngine
from graphopt.backends.reference import evaluate
from graphopt.config import Options
from graphopt.ir.attrs import EMPTY
from graphopt.ir.graph import Graph
from graphopt.ir.index import variable
from graphopt.ir.loop import (
    Accumulate,
    Apply,
    Block,
    Buffer,
    For,
    If,
    Let,
    Literal,
    Load,
    Local,
    LoopProgram,
    Phase,
    Set,
    Store,
)
from graphopt.passes.pipelines import STANDARD
from graphopt.passes.tile import Tile, Tiled
from graphopt.rewrite.passes import Context, run_pipeline
from graphopt.trace.jaxpr import trace_function

SEED = int(os.environ.get("GRAPHOPT_TEST_SEED", "0"))
FOLDER = Path(__file__).parents[1] / "golden" / "kernels"
WITHOUT = NumbaEngine(tile=Tile(scalar_cost, most=0))
ANYTHING = Tile(lambda op, dtype: 1.0)
"""For it each operation takes longer than to store and load its result."""

X = np.random.default_rng(0).normal(size=(7, 33)).astype(np.float32)


def graph_of(function: Callable[..., Any], *args: Any) -> Graph:
    graph, sources = trace_function(function, *args)
    return run_pipeline(graph, STANDARD, Context(Options(), sources))[0]


def without_tiles(function: Callable[..., Any], *args: Any) -> LoopProgram:
    return WITHOUT.program(graph_of(function, *args))[0]


def same_bits(before: LoopProgram, after: LoopProgram, *args: Any) -> None:
    for found, expected in zip(interpret(after, *args), interpret(before, *args), strict=True):
        np.testing.assert_array_equal(found, expected, strict=True)


def softmax(x: Any) -> Any:
    e = jnp.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def layer_norm(x: Any) -> Any:
    y = x - x.mean(-1, keepdims=True)
    return y / jnp.sqrt((y * y).mean(-1, keepdims=True) + 1e-5)


def gated(x: Any) -> Any:
    """Two values that are shared, one of which is made of the other."""
    a = jnp.tanh(x * 2)
    b = lax.logistic(a - a.sum(-1, keepdims=True))
    return a * b / b.sum(-1, keepdims=True)


CASES: dict[str, tuple[Callable[..., Any], tuple[Any, ...]]] = {
    "softmax": (softmax, (X,)),
    "cross-entropy-gradient": (lambda x, t: jax.grad(lambda x: -(t * jax.nn.log_softmax(x)).sum())(x), (X, abs(X))),
    "two values": (gated, (X,)),
    "planes": (lambda x: (e := jnp.exp(x)) * e.sum((1, 2), keepdims=True), (X.reshape(7, 3, 11),)),
}


@pytest.mark.parametrize("name", CASES)
def test_the_text_before_and_after(name: str) -> None:
    function, args = CASES[name]
    before = without_tiles(function, *args)
    tiled = Tile(scalar_cost).run(before)
    same_bits(before, tiled.program, *args)
    kept = "".join(f"# kept: {what}\n" for what in tiled.kept)
    text = f"# tile: {name}\n\n# before\n{before}\n\n# after\n{kept}{tiled.program}\n"
    file = FOLDER / f"tile-{name.replace(' ', '-')}.txt"
    if os.environ.get("GRAPHOPT_TEST_UPDATE") == "1":
        file.write_text(text)
    assert file.is_file(), f"{file} is missing; GRAPHOPT_TEST_UPDATE=1 writes it"
    assert text == file.read_text()


def test_no_text_is_left_over() -> None:
    assert {f.name for f in FOLDER.glob("tile-*")} == {f"tile-{name.replace(' ', '-')}.txt" for name in CASES}


def test_what_is_cheap_is_computed_again() -> None:
    assert Tile(scalar_cost).run(before := without_tiles(layer_norm, X)) == Tiled(before)
    assert ANYTHING.run(before).kept


def test_a_second_run_changes_nothing() -> None:
    for tile in (Tile(scalar_cost), ANYTHING):
        once = tile.run(without_tiles(gated, X))
        assert once.kept and tile.run(once.program) == Tiled(once.program)


def test_tiles_are_bounded() -> None:
    """A tile of rows that are too long for it is none, and two of which one fits are one."""
    size = X.shape[1] * 4
    before = without_tiles(gated, X)
    assert len(Tile(scalar_cost).run(before).kept) == 2
    assert len(Tile(scalar_cost, most=2 * size - 1).run(before).kept) == 1
    assert Tile(scalar_cost, most=size - 1).run(before) == Tiled(before)


def test_elements_that_are_no_longer_computed_are_counted() -> None:
    graph = graph_of(softmax, X)
    with_tiles, without = NumbaEngine().derivation(graph), WITHOUT.derivation(graph)
    (exp,) = (n for n in graph.nodes if n.op.name == "exp")
    assert (without.evaluations[exp], with_tiles.evaluations[exp]) == (2 * X.size, X.size)
    assert with_tiles.work < without.work
    for few in (with_tiles, without):  # a load of each element is left out with what it is for
        assert few.evaluations[graph.params[0]] == (3 if few is without else 2) * X.size


def test_the_report_names_what_is_kept() -> None:
    notes = graphopt.jit(softmax, backend="numba").explain(X).notes
    assert any("tile: exp of 33 at a time, 132 bytes" in str(note) for note in notes), notes


# ---- what is not the same


def program(*statements: Any, buffers: tuple[Buffer, ...] = ()) -> LoopProgram:
    return LoopProgram((IN, OUT, *buffers), (Phase("i", 3, 1, Block(), Block(list(statements))),))


F32 = np.dtype(np.float32)
IN, OUT = Buffer("in0", F32, 30, "in"), Buffer("out0", F32, 30, "out")
TWO = np.float32(2)
ROW = variable("i", 0, 2) * 10


def loop(name: str, *more: Any, at: int = 0, factor: Any = TWO) -> For:
    """Products of a row, shifted by `at`, which `more` has the statements for."""
    j = variable(name, 0, 8)
    x, v = Local(f"x{name}", F32), Local(f"v{name}", F32)
    product = Apply(MUL, EMPTY, (x, factor if isinstance(factor, Local) else Literal(factor)))
    statements = [Let(x, Load(IN, ROW + j + at)), Let(v, product)]
    return For(name, 9, "serial", Block([*statements, *(make(j, v) for make in more)]))


def stored(j: Any, v: Any) -> Store:
    return Store(OUT, ROW + j, v)


def summed(j: Any, v: Any) -> Accumulate:
    return Accumulate(SUM, ADD, v)


SUM = Local("a", F32)
START = Let(SUM, Literal(np.float32(0)))


def test_the_same_elements_in_loops_of_any_name() -> None:
    before = program(START, loop("j", summed), loop("k", stored, stored_last))
    tiled = ANYTHING.run(before)
    assert tiled.kept
    same_bits(before, tiled.program, np.arange(30, dtype=np.float32))


def stored_last(j: Any, v: Any) -> Store:
    return Store(OUT, ROW + 9, v)


def written_between() -> list[Any]:
    """The second loop multiplies with what the first one has changed."""
    return [START, loop("j", summed), loop("k", summed, factor=SUM), loop("l", stored, stored_last, factor=SUM)]


def changed_inside() -> list[Any]:
    local = Local("c", F32)
    start, more = Let(local, Literal(np.float32(1))), lambda j, v: Set(local, v)
    return [start, loop("j", more, factor=local), loop("k", more, stored, stored_last, factor=local)]


def read_after_it_is_written() -> list[Any]:
    """What was stored between is something else than what was there."""
    first = [loop("j", stored, stored_last), read_back("k", stored_last), loop("l", stored, factor=np.float32(3))]
    return [*first, read_back("m", stored_last)]


def read_back(name: str, *more: Any) -> For:
    j, x, v = variable(name, 0, 8), Local(f"x{name}", F32), Local(f"v{name}", F32)
    statements = [Let(x, Load(OUT, ROW + j)), Let(v, Apply(MUL, EMPTY, (x, x)))]
    return For(name, 9, "serial", Block([*statements, *(make(j, v) for make in more)]))


def under_a_condition() -> list[Any]:
    inner = loop("j", summed)
    return [START, If(((ROW, 0, 10),), Block([inner]), Block()), loop("k", stored, stored_last)]


def over_a_part() -> list[Any]:
    part = replace(loop("j", summed), within=((variable("j", 0, 8), 0, 5),))
    return [START, part, loop("k", stored, stored_last)]


DIFFERENT: dict[str, Callable[[], list[Any]]] = {
    "other elements": lambda: [START, loop("j", summed, at=1), loop("k", stored, stored_last)],
    "another number": lambda: [START, loop("j", summed, factor=np.float32(3)), loop("k", stored, stored_last)],
    "another zero": lambda: [
        *(START, loop("j", summed, factor=np.float32(0.0))),
        loop("k", stored, stored_last, factor=np.float32(-0.0)),
    ],
    "another operand": written_between,
    "what changes inside": changed_inside,
    "what was written": read_after_it_is_written,
    "under a condition": under_a_condition,
    "over a part": over_a_part,
}


@pytest.mark.parametrize("name", DIFFERENT)
def test_what_is_not_the_same_is_computed_again(name: str) -> None:
    before = program(*DIFFERENT[name]())
    interpret(before, np.arange(30, dtype=np.float32))
    assert ANYTHING.run(before) == Tiled(before)


# ---- drawn

STEPS: tuple[Callable[[Any, Any], Any], ...] = (
    lambda x, y: x * y + 1,
    lambda x, y: x - 2 * y.sum(-1, keepdims=True),
    lambda x, y: x * y.max(-1, keepdims=True) + jnp.argmin(x, -1, keepdims=True).astype(np.int32),
    lambda x, y: x.sum((-2, -1), keepdims=True) - jnp.minimum(x, y),
    lambda x, y: (x * y).sum(-2, keepdims=True) + y,
    lambda x, y: jnp.where(x > y, x, lax.rev(y, (2,))),
    lambda x, y: jnp.pad(x[:, 1:], ((0, 0), (0, 1), (0, 0))) * y,
)


@seed(SEED)
@settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck), derandomize=False)
@given(
    st.lists(st.tuples(st.sampled_from(range(len(STEPS))), st.integers(0, 3), st.integers(0, 3)), max_size=6),
    st.sampled_from([(2, 11, 3), (3, 1, 2), (2, 9, 9), (1, 1, 13)]),
)
@example([(0, 0, 0), (1, 0, 0), (3, 0, 0)], (2, 9, 9))  # alike in loops beside each other, and in loops in these
@example([(0, 0, 0), (0, 0, 0), (0, 0, 0), (2, 0, 1), (3, 0, 0)], (2, 9, 9))
def test_programs_with_tiles_compute_what_their_graphs_do(
    steps: list[tuple[int, int, int]], shape: tuple[int, ...]
) -> None:
    def function(x: Any, y: Any) -> Any:
        known = [x, y]
        for step, i, j in steps:
            known.append(STEPS[step](known[-1 - i % len(known)], known[-1 - j % len(known)]))
        return known[-1]

    args = [np.random.default_rng(k).integers(-9, 10, shape).astype(np.int32) for k in range(2)]
    graph = graph_of(function, *args)
    for engine in (NumbaEngine(), NumbaEngine(tile=ANYTHING), NumbaEngine(tile=replace(ANYTHING, most=150))):
        try:
            found = interpret(engine.program(graph)[0], *args, grain=2)
        except TooLargeError:
            return
        for f, e in zip(shaped(found, graph.out_avals), evaluate(graph, *args), strict=True):
            np.testing.assert_array_equal(f, e)


VALUES = [np.nan, np.inf, -np.inf, 0.0, -0.0, 1e-40, 88.0, -104.0, 3.4e38]


@pytest.mark.parametrize(
    ("length", "dtype"), [(1, "float32"), (9, "float32"), (1021, "float32"), (1000, "bfloat16"), (65, "float16")]
)
def test_kernels_with_tiles_agree_with_jax(length: int, dtype: str) -> None:
    random = np.random.default_rng(SEED)
    x = random.normal(size=(5, length)).astype(np.float32)
    special = np.where(random.random(x.shape) < 0.1, random.choice(VALUES, x.shape), x)
    function, tolerance = graphopt.jit(softmax, backend="numba"), 1e-5 if dtype == "float32" else 2e-2
    for values in (x, special):
        with np.errstate(over="ignore"):
            arg = jnp.asarray(values, dtype)
        found, expected = (np.asarray(f(arg), np.float32) for f in (function, jax.jit(softmax)))
        np.testing.assert_allclose(found, expected, rtol=tolerance, atol=1e-30)
