"""Loop programs of whole kernels: interpreted, they compute what the graph does, and the text of two of them."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st
from jax import lax

from graphopt.analysis import parts
from graphopt.analysis.derive import Derivation, write_outputs
from graphopt.analysis.nests import SMALL
from graphopt.analysis.writing import TooLargeError
from graphopt.backends.interpret import interpret, shaped
from graphopt.backends.numba.engine import NumbaEngine
from graphopt.backends.reference import evaluate
from graphopt.config import Options
from graphopt.ir.graph import Graph
from graphopt.ir.loop import Block, For, Let, LoopProgram, Store
from graphopt.passes.pipelines import STANDARD
from graphopt.rewrite.passes import Context, run_pipeline
from graphopt.trace.jaxpr import trace_function

from ..rules.drawing import values

SEED = int(os.environ.get("GRAPHOPT_TEST_SEED", "0"))
ENGINE = NumbaEngine()
GOLDEN = Path(__file__).parents[1] / "golden" / "kernels"


def simplified(function: Callable[..., Any], *args: Any) -> Graph:
    graph, sources = trace_function(function, *args)
    graph, _ = run_pipeline(graph, STANDARD, Context(Options(), sources))
    for node in graph.nodes:
        if node.op.primitive is not None:
            assert ENGINE.declines(node, exact=False) is None, node
    return graph


def agrees(function: Callable[..., Any], *args: Any, grain: int | None = None) -> LoopProgram:
    """The interpreted loop program has the bits that the evaluator has; returns the program."""
    graph = simplified(function, *args)
    program, work = ENGINE.program(graph)
    assert work > 0
    found = shaped(interpret(program, *args, grain=grain), graph.out_avals)
    for f, e in zip(found, evaluate(graph, *args), strict=True):
        assert f.dtype == e.dtype
        np.testing.assert_array_equal(f, e, strict=True)
        if f.dtype.kind == "f":
            np.testing.assert_array_equal(np.signbit(f) & ~np.isnan(f), np.signbit(e) & ~np.isnan(e))
    return program


def whole(*shape: int, dtype: str = "float32", seed: int = 0) -> Any:
    """Small whole numbers: their sums are exact in any order."""
    return np.random.default_rng(seed).integers(-9, 10, shape).astype(dtype)


def softmax_like(x: Any) -> Any:
    y = jnp.square(x - x.max(-1, keepdims=True))
    return y * y.sum(-1, keepdims=True)


def normalized(x: Any) -> Any:
    y = x - x.sum(-1, keepdims=True)
    return y * jnp.max(y * y, axis=-1, keepdims=True) + 1


def stencil(x: Any) -> Any:
    return jnp.pad(x[1:], (0, 1)) + jnp.pad(x[:-1], (1, 0)) - 2 * x


def crossed(x: Any, y: Any) -> Any:
    """Each of two loops would have to be before the other if all that can did share them."""
    a, c = x.sum(), y.sum()
    return a, c, (x * c).sum(), (y * a).sum()


def pairs(x: Any, y: Any) -> Any:
    """The differences of all pairs, weighted and summed: forces, say."""
    d = x[:, None] - y[None]
    return (d * jnp.square((d * d).sum(-1) - 3)[..., None]).sum(1)


def nearest(x: Any) -> Any:
    """The nearest other point, and how far it is."""
    d = jnp.square(x[:, None] - x[None]).sum(-1)
    d = jnp.where(jnp.eye(len(x), dtype=bool), np.float32(np.inf), d)
    return jnp.argmin(d, 1).astype(np.int32), d.min(1)


CASES: dict[str, tuple[Callable[..., Any], tuple[Any, ...]]] = {
    "elementwise": (lambda x, y: (x + y) * x - jnp.maximum(x, y), (whole(3, 5), whole(3, 5, seed=1))),
    "a row's maximum and sum": (softmax_like, (whole(5, 7),)),
    "rows of one": (softmax_like, (whole(5, 1),)),
    "one row": (softmax_like, (whole(1, 7),)),
    "rows in three dimensions": (normalized, (whole(2, 3, 5),)),
    "a reduction of a reduction": (lambda x: jnp.max(jnp.sum(x, axis=2), axis=1) * 2, (whole(2, 3, 5),)),
    "the sum of all": (lambda x: jnp.sum(x * x), (whole(7, 3, 2),)),
    "the sum of nothing but one": (lambda x: jnp.sum(x), (whole(1, 1),)),
    "the sum of a scalar's copies": (lambda s: jnp.sum(jnp.broadcast_to(s, (3, 7))), (np.float32(3),)),
    "all reductions of integers": (
        lambda x: (jnp.sum(x, 1), jnp.prod(x, 1), x.max(1), x.min(1), *bits_of(x)),
        (whole(3, 5, dtype="int32"),),
    ),
    "reductions of booleans": (lambda x: (jnp.all(x, 1), jnp.any(x, 1), lax.reduce_xor(x, (1,))), (whole(5, 3) > 0,)),
    "maximum with NaN": (lambda x: (x.max(1), x.min(1)), (np.float32([[1, np.nan, 3], [-0.0, 0.0, -1]]),)),
    "several results": (lambda x, y: (x + y, x * y, x > y), (whole(3, 7), whole(3, 7, seed=2))),
    "results that need each other": (lambda x: (x - x.max(1, keepdims=True), jnp.square(x)), (whole(3, 7),)),
    "a result given twice": (lambda x: (x + 1, x + 1), (whole(5),)),
    "no dimensions": (lambda x, y: (x + y, x * 2), (np.float32(3), np.float32(5))),
    "indices": (lambda x: x + lax.broadcasted_iota("float32", (3, 5), 1) * x[0, 1], (whole(3, 5),)),
    "transposed and reversed": (lambda x: lax.rev(x.T, (0,)) + jnp.float32(1) * x[:3, :3].max(), (whole(5, 3),)),
    "a reshape in the middle": (lambda x: (x * 2).reshape(5, 6) + 1, (whole(3, 10),)),
    "a reduction over what is reshaped": (lambda x: jnp.sum((x + 1).reshape(5, 3, 2), (1, 2)), (whole(3, 10),)),
    "a stencil": (stencil, (whole(11),)),
    "a pad on all sides, with holes": (
        lambda x: lax.pad(x + 1, np.float32(7), ((1, 2, 1), (-1, 3, 0))),
        (whole(3, 5),),
    ),
    "a pad's value is computed": (lambda x, y: lax.pad(x * 2, y + 1, ((2, 1, 0),)), (whole(3), np.float32(5))),
    "concatenated": (lambda x, y: jnp.concatenate([x + 1, y, x * 2]) - 1, (whole(3), whole(5))),
    "concatenated rows and their sums": (
        lambda x, y: jnp.sum(jnp.concatenate([x, y, x], 1), 1, keepdims=True) * x,
        (whole(3, 2), whole(3, 5)),
    ),
    "what a condition holds is computed in it alone": (
        lambda x: jnp.pad(jnp.sum(x, 1), (1, 1)) + jnp.pad(jnp.sum(x, 1), (2, 0)),
        (whole(3, 4),),
    ),
    "a branch of each": (lambda x, i: lax.select_n(i, x, x + 1, x * 3), (whole(7), np.int32([0, 1, 2, 2, 1, 0, 1]))),
    "clamped by numbers": (lambda x: lax.clamp(np.float32(-3), x, np.float32(4)), (whole(7),)),
    "reductions that share a loop": (
        lambda x: (x.sum(1), (x * x).sum(1), x.max(1), jnp.argmin(x, 1).astype(np.int32)),
        (whole(5, 11),),
    ),
    "reductions that need each other": (
        lambda x: ((y := x - x.max(1, keepdims=True)).sum(1), (y * x.min(1, keepdims=True)).sum(1) - y.min(1)),
        (whole(5, 11),),
    ),
    "loops that need each other, over other extents": (crossed, (whole(11), whole(13))),
    "a shared loop needs what is computed after it": (
        lambda x, y: (x.sum(1) + y, (x * y[:, None]).sum(1)),
        (whole(5, 11), whole(5)),
    ),
    "a small axis is left over": (lambda x: (x * 2).sum(1), (whole(5, 11, 3),)),
    "a small axis is reduced": (lambda x: (x * x.sum(2, keepdims=True)).sum((1, 2)), (whole(5, 11, 3),)),
    "small axes, all of them": (lambda x: x.sum((1, 2)) + x.max((1, 2)), (whole(2, 3, 3),)),
    "pairs": (pairs, (whole(11, 3), whole(13, 3))),
    "pairs of one": (pairs, (whole(1, 3), whole(1, 3))),
    "nearest": (nearest, (whole(11, 3),)),
    "a product of small matrices": (
        lambda x, y: (x[:, :, :, None] * y[:, None]).sum(2),
        (whole(17, 3, 3), whole(17, 3, 2)),
    ),
    "reductions over no more than an axis of size one": (lambda x: jnp.sum(x * 2, 1) + 1, (whole(3, 1, 5),)),
}


def bits_of(x: Any) -> tuple[Any, ...]:
    return lax.reduce_and(x, (1,)), lax.reduce_or(x, (1,)), lax.reduce_xor(x, (1,))


@pytest.mark.parametrize("name", CASES)
def test_a_loop_program_computes_what_its_graph_does(name: str) -> None:
    function, args = CASES[name]
    agrees(function, *args, grain=2)


ARGUMENTS = [
    [3, 1, 3, 2],
    [np.nan, 1, np.nan, 2],
    [1, 2, np.nan, 2],
    [0.0, -0.0, 0.0, -0.0],
    [-0.0, 0.0, 0.0, -0.0],
    [np.inf, np.inf, -np.inf, -np.inf],
    [np.nan] * 4,
    [-np.inf] * 4,
]


@pytest.mark.parametrize("find", [lax.argmax, lax.argmin])
@pytest.mark.parametrize("dtype", ["int32", "uint8"])
def test_the_first_of_equals_and_the_first_nan(find: Any, dtype: str) -> None:
    rows = np.array(ARGUMENTS, np.float32)
    agrees(lambda x: find(x, 1, np.dtype(dtype)), rows)
    agrees(lambda x: find(x, 1, np.dtype(dtype)), whole(5, 7, dtype="int32"))
    agrees(lambda x: find(x, 0, np.dtype(dtype)), np.float32(ARGUMENTS[1]))
    agrees(lambda x: find(x * 2, 1, np.dtype(dtype)) + 1, rows)


CUMULATIVE = {"cumsum": lax.cumsum, "cumprod": lax.cumprod, "cummax": lax.cummax, "cummin": lax.cummin}


@pytest.mark.parametrize("axis", range(3))
@pytest.mark.parametrize("backwards", [False, True])
def test_cumulative_operations(axis: int, backwards: bool) -> None:
    x, narrow = whole(3, 5, 2, dtype="int32"), whole(3, 1, 4, dtype="int32")
    for name, function in CUMULATIVE.items():
        for operand in (x, narrow):
            program = agrees(lambda x, f=function: f(x + 1, axis=axis, reverse=backwards), operand)
            assert len(program.phases) == 1, name
    agrees(lambda x: lax.cummax(x, axis=axis, reverse=backwards), np.float32(ARGUMENTS).reshape(2, 4, 4))


# ---- in parts


@pytest.fixture(params=[(7, 4), (3, 16)], ids=["7 parts", "3 parts"])
def short(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """Few elements count as many: reductions of four or more are cut."""
    number, long = request.param
    monkeypatch.setattr(parts, "PARTS", number)
    monkeypatch.setattr(parts, "LONG", long)
    return int(number)


@pytest.mark.parametrize("length", [64, 65, 100, 127, 3000, 3001, 100_003])
def test_little_is_left_over_by_parts(length: int) -> None:
    count = parts.parts_of(length)
    assert parts.PARTS // 2 < count <= parts.PARTS
    assert length % count <= 0.02 * length


@pytest.mark.parametrize("length", [4, 7, 21, 40])
def test_reductions_in_parts(short: int, length: int) -> None:
    is_cut = length >= parts.LONG
    x = whole(length)
    program = agrees(lambda x: jnp.sum(x * x), x)
    assert len(program.phases) == 1 + is_cut
    agrees(lambda x: (jnp.max(x), jnp.sum(x), jnp.prod(x), lax.reduce_xor(x, (0,))), whole(length, dtype="int32"))
    agrees(lambda x: lax.argmax(x, 0, np.int32), x)
    agrees(lambda x: lax.argmin(x * 2, 0, np.int32) + 1, x)
    last = np.zeros(length, np.float32)
    last[-1] = 1  # what is left over by parts of equal length
    agrees(lambda x: (lax.argmax(x, 0, np.int32), jnp.sum(x).astype(jnp.int32)), last)
    agrees(lambda x: lax.argmax(x, 0, np.int32), np.where(np.arange(length) == length - 1, np.nan, x).astype("float32"))
    agrees(
        lambda x: lax.argmax(x, 0, np.int32), np.where(np.arange(length) == length // 2, np.nan, x).astype("float32")
    )


def test_rows_in_parts(short: int) -> None:
    """Fewer rows than FEW, each in parts; more of them are not cut."""
    for shape in ((2, 23), (3, 5, 5), (5, 16)):
        x = whole(*shape)
        program = agrees(lambda x: jnp.sum(x + 1, axis=tuple(range(1, x.ndim))) * 2, x)
        assert len(program.phases) == 2
        agrees(lambda x: lax.argmax(x.reshape(x.shape[0], -1), 1, np.int32), x)
    assert len(agrees(lambda x: jnp.sum(x, 1), whole(8, 23)).phases) == 1


def test_what_needs_a_reduction_in_parts(short: int) -> None:
    x = whole(29)
    program = agrees(lambda x: x - jnp.max(x), x)
    assert len(program.phases) == 2
    # The maximum is combined once for each chunk of the last phase, not for each element.
    assert any(not isinstance(s, Store) for s in program.phases[-1].before.statements)
    agrees(softmax_like, whole(2, 29))
    agrees(lambda x: jnp.sum(jnp.square(x - jnp.max(x))) + jnp.min(x), x)
    agrees(lambda x: (jnp.sum(x), jnp.max(x), jnp.min(x * 2)), x)
    agrees(lambda x: jnp.sum(lax.pad(x, np.float32(1), ((3, 2, 1),))), x)


def test_reductions_in_parts_together(short: int) -> None:
    """Those over the same elements that do not need each other; parts are rows of what has many of them."""
    x = whole(29)
    program = agrees(lambda x: (jnp.sum(x), jnp.max(x), jnp.min(x * 2), lax.argmax(x, 0, np.int32)), x)
    assert len(program.phases) == 3  # the place of the greatest needs the greatest
    rows = whole(31, 70)
    program = agrees(lambda x: (jnp.sum(x), jnp.sum(jnp.max(x, 1)) + jnp.sum(x - jnp.max(x))), rows)
    assert not any("%" in line or "//" in line for line in str(program).splitlines() if "in0[" in line)
    agrees(lambda x: jnp.max(jnp.sum(x[:, None] * x[None], 2)), whole(16, 3))
    agrees(lambda x: lax.argmax(jnp.max(x[:, None] - x[None], 1), 0, np.int32), whole(23))


@pytest.mark.parametrize("backwards", [False, True])
def test_cumulative_operations_in_parts(short: int, backwards: bool) -> None:
    for shape, axis in (((29,), 0), ((16,), 0), ((23, 2), 0), ((2, 17, 3), 1)):
        for function in (lax.cumsum, lax.cummax):
            x = whole(*shape, dtype="int32")
            program = agrees(lambda x, f=function, axis=axis: f(x, axis=axis, reverse=backwards), x)
            assert len(program.phases) == 2
    agrees(lambda x: lax.cummin(x * 2, reverse=backwards), np.float32(ARGUMENTS).reshape(-1))
    assert len(agrees(lambda x: lax.cumsum(x, 1), whole(8, 23)).phases) == 1


def test_special_values_in_parts(short: int) -> None:
    random = np.random.default_rng(int(os.environ.get("GRAPHOPT_TEST_SEED", "0")))
    for _ in range(3):
        x = values(random, "float32", (23,), True)
        agrees(lambda x: (jnp.max(x), jnp.min(x)), x)
        agrees(lambda x: (lax.argmax(x, 0, np.int32), lax.argmin(x, 0, np.int32)), x)


# ---- the shape of programs


def test_what_is_the_same_in_an_inner_loop_stands_before_it() -> None:
    program = agrees(lambda x, y: x * (y * y + jnp.max(y))[:, None], whole(3, 1000), whole(3))
    lines = str(program).splitlines()
    at = {kind: next(k for k, line in enumerate(lines) if kind in line) for kind in ("max= ", "parallel", "square(")}
    assert at["max= "] < at["parallel"] < at["square("]
    assert lines[at["square("]].index("v") < next(line for line in lines if "mul(" in line).index("v")


def test_what_stands_before_the_parallel_loop_counts_as_work() -> None:
    """A kernel with one number as its result has everything there; in this one much is computed again and again."""
    m, n = 40, 60
    graph = simplified(lambda x, z: jnp.sum(z * jnp.sum(x, 1)[None, :]), whole(n, m), whole(m, n))
    assert ENGINE.program(graph)[1] > 5 * m * n * ENGINE.cost(graph.outputs[0])
    assert ENGINE.program(simplified(lambda x: jnp.sum(x), whole(1000)))[1] >= 1000 * ENGINE.cost(graph.outputs[0])


@pytest.mark.parametrize("shape", [(7, 11), (3, 4), (64, 100), (5, 7, 3), (1000, 10)])
def test_rows_are_shared_among_threads(shape: tuple[int, ...]) -> None:
    """One thread for all rows would take as long in sum; what rounding makes of that decides nothing."""
    graph = simplified(lambda x: (y := x - x.max(-1, keepdims=True)) / y.sum(-1, keepdims=True), whole(*shape))
    (phase,) = ENGINE.program(graph)[0].phases
    assert phase.extent == np.prod(shape[:-1])


def loops(block: Block) -> list[For]:
    return [loop for s in block.statements if isinstance(s, For) for loop in (s, *loops(s.body))]


def test_reductions_share_loops() -> None:
    """Those that do not need each other: of four reductions, the place of the least needs the least."""
    for function, count in ((CASES["reductions that share a loop"][0], 2), (softmax_like, 2)):
        (phase,) = agrees(function, whole(5, 11)).phases
        assert [loop.kind for loop in loops(phase.body)].count("reduction") == count
    (phase,) = agrees(pairs, whole(11, 3), whole(13, 3)).phases
    (loop,) = loops(phase.body)
    assert loop.extent == 13
    assert sum(isinstance(s, Let) and str(s.value).startswith("sub(") for s in loop.body.statements) == 3 + 1
    program = agrees(crossed, whole(11), whole(13))
    assert len(loops(program.phases[0].before)) == 4 - 1


STEPS: tuple[Callable[[Any, Any], Any], ...] = (
    lambda x, y: x + y,
    lambda x, y: x - 2 * y.sum(-1, keepdims=True),
    lambda x, y: x * y.max(-1, keepdims=True) + jnp.argmin(x, -1, keepdims=True).astype(np.int32),
    lambda x, y: x.sum((-2, -1), keepdims=True) - jnp.minimum(x, y),
    lambda x, y: (x * y).sum(-2, keepdims=True) + y,
    lambda x, y: x.min() + y * jnp.argmax(x + y, 1, keepdims=True).astype(np.int32),
)
"""What reductions of rows, of small axes and of all that need each other, or do not, are made of."""


@seed(SEED)
@settings(max_examples=10, deadline=None, suppress_health_check=list(HealthCheck), derandomize=False)
@given(
    st.lists(st.tuples(st.sampled_from(range(len(STEPS))), st.integers(0, 3), st.integers(0, 3)), max_size=7),
    st.sampled_from([(2, 11, 3), (3, 1, 2), (2, 3, 9)]),
)
def test_reductions_that_may_share_loops(steps: list[tuple[int, int, int]], shape: tuple[int, ...]) -> None:
    def function(x: Any, y: Any) -> Any:
        known = [x, y]
        for step, i, j in steps:
            known.append(STEPS[step](known[-1 - i % len(known)], known[-1 - j % len(known)]))
        return known[-1], known[-2].sum(-1), known[-3 % len(known)].max(-1)

    graph, _ = trace_function(function, *(args := [whole(*shape, dtype="int32", seed=k) for k in range(2)]))
    for small in (SMALL, 1):
        derivation = Derivation(graph, ENGINE.cost, small)
        try:
            write_outputs(derivation, 1)
        except TooLargeError:
            continue
        found = shaped(interpret(derivation.program, *args), graph.out_avals)
        for f, e in zip(found, evaluate(graph, *args), strict=True):
            np.testing.assert_array_equal(f, e)


def test_rows_are_not_found_by_division_where_loops_find_them() -> None:
    """An element for each pair, of a loop: the pair's rows would be two quotients for each."""
    graph = simplified(lambda x: jnp.square(x[:, None] - x[None]).sum(-1), whole(100, 64))
    (phase,) = ENGINE.program(graph, any_order=False)[0].phases
    assert phase.extent == 100


def test_what_is_small_is_written_out_only_where_there_is_more() -> None:
    program = agrees(lambda x: x * x[0, 0], whole(7, 5))
    assert program.phases[0].extent > 1
    (phase,) = agrees(lambda x: x * 2 + x[:, :1], whole(100, 3)).phases
    assert not loops(phase.body) and phase.extent in (100, 300)


GOLDEN_PROGRAMS: dict[str, tuple[Callable[..., Any], tuple[Any, ...]]] = {
    "pairs": (pairs, (whole(500, 3), whole(700, 3))),
    "rows": (softmax_like, (whole(64, 100),)),
    "argmax in parts": (lambda x: lax.argmax(x * 2, 0, np.int32), (whole(100_003),)),
    "a gather of rows": (lambda x, i: x.at[i].get(mode="fill") * 2, (whole(100, 30), np.zeros(7, np.int32))),
    "a scatter of rows": (
        lambda x, i, u: x.at[i].add(u * 2, mode="drop"),
        (whole(9, 70), np.uint8([3, 1, 3]), whole(3, 70)),
    ),
    "the greatest of rows": (lambda x: lax.top_k(x * 2, 3), (whole(100, 30),)),
    "an update of a slice": (
        lambda x, y, i: lax.dynamic_update_slice(x, y + 1, (i, 2)),
        (*(whole(9, 9), whole(3, 5)), np.int32(4)),
    ),
    "a pad and a concatenation": (
        lambda x, y: jnp.concatenate([x + 1, y]) * lax.pad(x, np.float32(3), ((1, 4, 0),)),
        (whole(3), whole(5)),
    ),
}


@pytest.mark.parametrize("name", GOLDEN_PROGRAMS)
def test_the_text_of_a_program(name: str) -> None:
    function, args = GOLDEN_PROGRAMS[name]
    graph = simplified(function, *args)
    text = f"{ENGINE.program(graph)[0]}\n"
    file = GOLDEN / f"loops-{name.replace(' ', '-')}.txt"
    if os.environ.get("GRAPHOPT_TEST_UPDATE") == "1":
        file.write_text(text)
    assert file.is_file(), f"{file} is missing; GRAPHOPT_TEST_UPDATE=1 writes it"
    assert text == file.read_text()


def test_no_text_is_left_over() -> None:
    names = {f"loops-{name.replace(' ', '-')}.txt" for name in GOLDEN_PROGRAMS}
    assert {file.name for file in GOLDEN.glob("loops-*")} == names


def test_the_same_graph_gives_the_same_program() -> None:
    graph = simplified(softmax_like, whole(3, 5))
    assert str(ENGINE.program(graph)[0]) == str(ENGINE.program(graph)[0])


def test_x64() -> None:
    with jax.enable_x64(True):
        agrees(lambda x: x * 3 + jnp.sum(x), whole(5, dtype="float64"))
        agrees(lambda x: lax.argmax(x, 0, np.int64), whole(5, dtype="int64"))


def test_what_results_along_a_short_first_axis_share_is_computed_once() -> None:
    """The forces on points whose coordinates come first: of each two points the distance is taken once."""

    def forces(x: Any) -> Any:
        apart = x[:, :, None] - x[:, None]
        return (apart * (1 / (1 + (apart * apart).sum(0)))).sum(2)

    x = np.random.default_rng(1).normal(size=(3, 100)).astype(np.float32)
    graph = simplified(forces, x)
    derivation = ENGINE.derivation(graph)
    assert str(derivation.program).count("div(") == 1
    (found,), (expected,) = shaped(interpret(derivation.program, x), graph.out_avals), evaluate(graph, x)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
