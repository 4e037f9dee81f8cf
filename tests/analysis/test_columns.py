"""Reductions that keep the innermost axis: every way in which a body may be written computes what its graph does."""

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

from graphopt.analysis import columns
from graphopt.analysis.derive import Derivation
from graphopt.analysis.ways import ways
from graphopt.analysis.writing import TooLargeError
from graphopt.backends.interpret import interpret, shaped
from graphopt.backends.numba.engine import NumbaEngine
from graphopt.backends.reference import evaluate
from graphopt.ir.loop import VECTOR, For, LoopProgram
from graphopt.trace.jaxpr import trace_function

from ..rules.drawing import values

ENGINE = NumbaEngine()
SEED = int(os.environ.get("GRAPHOPT_TEST_SEED", "0"))
GOLDEN = Path(__file__).parents[1] / "golden" / "kernels"


def programs(function: Callable[..., Any], *args: Any) -> list[LoopProgram]:
    """The loop programs of a function, one a way; interpreted, each has the bits that the evaluator has."""
    graph, _ = trace_function(function, *args)
    for node in graph.nodes:
        if node.op.primitive is not None:
            assert ENGINE.declines(node, exact=False) is None, node
    expected, found = evaluate(graph, *args), []
    for _, write in ways(graph, every=True):
        derivation = Derivation(graph, ENGINE.cost)
        try:
            write(derivation)
        except TooLargeError:
            continue
        found.append(derivation.program)
        for f, e in zip(shaped(interpret(found[-1], *args, grain=2), graph.out_avals), expected, strict=True):
            np.testing.assert_array_equal(f, e, strict=True, err_msg=str(found[-1]))
            if f.dtype.kind == "f":
                np.testing.assert_array_equal(np.signbit(f) & ~np.isnan(f), np.signbit(e) & ~np.isnan(e))
    return found


def by_columns(program: LoopProgram) -> bool:
    """Whether there are tiles in it, filled in vector loops."""
    return any(b.role == "tile" for b in program.buffers) and VECTOR in str(program)


def whole(*shape: int, dtype: str = "float32") -> Any:
    """Small whole numbers: their sums are exact in any order."""
    return np.random.default_rng(0).integers(-9, 10, shape).astype(dtype)


@pytest.fixture(params=[(5, 3, 2), (4, 2, 1), (64, 100, 100)], ids=["blocks of 5", "blocks of 4", "one block"])
def small(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A few columns are a block, and a few elements a part."""
    width, narrow, part = request.param
    monkeypatch.setattr(columns, "WIDTH", width)
    monkeypatch.setattr(columns, "NARROW", narrow)
    monkeypatch.setattr(columns, "LANES", 1)
    monkeypatch.setattr(columns, "PART", part)
    monkeypatch.setattr(columns, "PARTS", 3)


def centered(x: Any) -> Any:
    y = x - x.max(0)
    return y * (y * y).sum(0)


CASES: dict[str, tuple[Callable[..., Any], tuple[Any, ...]]] = {
    "a sum over the first axis": (lambda x: x.sum(0), (whole(7, 11),)),
    "over one in the middle": (lambda x: (x * 2).max(1) + 1, (whole(3, 5, 7),)),
    "over two that are not beside each other": (lambda x: x.sum((0, 2)), (whole(3, 5, 2, 7),)),
    "over two, the first of them long": (lambda x: (x * 2).sum((0, 1)), (whole(7, 4, 5),)),
    "over two, the first of them short": (lambda x: (x * 2).sum((0, 1)), (whole(2, 9, 5),)),
    "of pairs": (lambda x, y: (abs(x[:, None] - x)[..., None] < y).sum((0, 1)), (whole(11), whole(3))),
    "the first and the last": (lambda x: x.sum((0, 2)), (whole(3, 5, 7),)),
    "one column": (lambda x: x.sum(0), (whole(13, 1),)),
    "one row": (lambda x: x.sum(0) * 2, (whole(1, 13),)),
    "several": (lambda x: (x.sum(0), x.max(0), (x * x).min(0)), (whole(5, 7),)),
    "what needs it": (centered, (whole(5, 7),)),
    "what needs it, in three dimensions": (jax.vmap(centered), (whole(2, 5, 7),)),
    "of what is broadcast": (lambda x, y: (x * y[:, None]).sum(0), (whole(5, 7), whole(5))),
    "a reduction over rows of one over columns": (lambda x: x.sum(0).max(), (whole(5, 7),)),
    "one that has one column": (lambda x: x.sum(0).max(keepdims=True), (whole(5, 7),)),
    "rows and columns": (lambda x: x.max(1, keepdims=True) * x.sum(0), (whole(5, 7),)),
    "integers": (lambda x: (x.sum(0), x.prod(0), lax.reduce_xor(x, (0,))), (whole(5, 7, dtype="int32"),)),
    "booleans": (lambda x: (jnp.all(x, 0), jnp.any(x, 0)), (whole(5, 7) > 0,)),
    "of a pad, under a condition": (lambda x: lax.pad(x.sum(0), np.float32(3), ((1, 2, 0),)) + 1, (whole(5, 7),)),
    "of a reversed and transposed operand": (lambda x: lax.rev(x.T, (0,)).sum(0), (whole(5, 7),)),
}


BY_ROWS = {
    "one column",
    "one that has one column",
    "the first and the last",
    "a reduction over rows of one over columns",
}


@pytest.mark.parametrize("name", CASES)
def test_by_columns(name: str, small: None) -> None:
    function, args = CASES[name]
    found = programs(function, *args)
    assert any(map(by_columns, found)) != (name in BY_ROWS) or "under a condition" in name


ROWS = np.array(
    [
        [3, np.nan, 1, 0.0, -0.0, -np.inf, np.inf, 2],
        [1, 1, np.nan, -0.0, 0.0, -np.inf, np.inf, 2],
        [3, np.nan, np.nan, 0.0, 0.0, -np.inf, 1, 3],
        [2, 2, 2, -0.0, -0.0, -np.inf, np.inf, np.nan],
        [3, np.nan, 9, 0.0, -0.0, -np.inf, 2, 3],
    ],
    np.float32,
)


@pytest.mark.parametrize("find", [lax.argmax, lax.argmin])
def test_the_first_of_equals_and_the_first_nan(find: Any, small: None) -> None:
    for rows in (ROWS, np.concatenate([ROWS, ROWS[:2]]), -ROWS, whole(7, 5, dtype="int32"), whole(6, 7, dtype="uint8")):
        found = programs(lambda x: find(x, 0, np.int32), rows)
        assert any(map(by_columns, found))
    programs(lambda x: find(x * 2, 1, np.dtype("uint8")) + 1, ROWS.reshape(2, 5, 4))


def test_parts_are_used_where_columns_are_few(small: None) -> None:
    phases = {len(program.phases) for program in programs(lambda x: x.sum(0), whole(12, 5))}
    assert phases == ({1, 2} if columns.PART < 60 else {1})
    x = whole(12, 5)
    phases = {len(program.phases) for program in programs(lambda x: x - x.max(0), x)}
    assert phases == ({1, 3} if columns.PART < 60 else {1})


def test_special_values(small: None) -> None:
    """Without denormals, which XLA takes for zeros in comparisons, so that which of two it finds depends on the order."""
    random = np.random.default_rng(SEED)
    for dtype in ("float32", "int8"):
        x = values(random, dtype, (5, 7), True)
        if dtype == "float32":
            x = np.where(np.abs(x) < np.finfo(dtype).tiny, np.float32(1), x)
        programs(lambda x: (x.max(0), x.min(0)), x)
        programs(lambda x: lax.argmax(x, 0, np.int32), x)


@seed(SEED)
@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_any_axes(data: st.DataObject) -> None:
    """Shapes, axes and widths are drawn; interpreted, each way has the bits of the evaluator."""
    shape = data.draw(st.lists(st.integers(1, 5), min_size=1, max_size=4).map(tuple))
    axes = data.draw(st.lists(st.integers(0, len(shape) - 1), min_size=1, unique=True).map(tuple))
    kind = data.draw(st.sampled_from([jnp.sum, jnp.max, jnp.prod, lax.argmax, lax.argmin]))
    dtype = data.draw(st.sampled_from(["float32", "int32", "uint8"]))
    x = np.random.default_rng(data.draw(st.integers(0, 99))).integers(0, 3, shape).astype(dtype)

    of_place = kind in (lax.argmax, lax.argmin)
    function = lambda x: (kind(x + x, axes[0], np.int32) if of_place else kind(x + x, axes)) + 1
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(columns, "WIDTH", data.draw(st.integers(1, 6)))
        patch.setattr(columns, "NARROW", 1)
        patch.setattr(columns, "LANES", 1)
        patch.setattr(columns, "PART", data.draw(st.sampled_from([2, 1000])))
        programs(function, x)


def loops(program: LoopProgram) -> list[tuple[str, ...]]:
    """The kinds of the loops around each innermost one."""
    found = []

    def visit(block: Any, around: tuple[str, ...]) -> None:
        inner = [s for s in block.statements if isinstance(s, For)]
        for loop in inner:
            visit(loop.body, (*around, loop.kind))
        if not inner:
            found.append(around)

    for phase in program.phases:
        visit(phase.before, ())
        visit(phase.body, ())
    return found


@pytest.mark.parametrize("shape", [(1000, 1000), (4096, 1024), (64, 64, 1000), (100_000, 40)])
@pytest.mark.parametrize("function", [jnp.sum, jnp.max, jnp.argmax], ids=["sum", "max", "argmax"])
def test_long_reductions_are_by_columns(function: Any, shape: tuple[int, ...]) -> None:
    """The innermost loops go through memory element by element, and there is something for each thread."""
    graph, _ = trace_function(lambda x: function(x, 0), np.zeros(shape, np.float32))
    program, _ = ENGINE.program(graph)
    assert max(phase.extent for phase in program.phases) > 1
    assert ("reduction", "vector") in loops(program)


def test_the_text_of_a_program() -> None:
    graph, _ = trace_function(lambda x: x - x.max(0), np.zeros((3000, 1500), np.float32))
    text = "\n\n".join(str(ENGINE.program(g)[0]) for g in (graph, trace_argmax()))
    file = GOLDEN / "columns.txt"
    if os.environ.get("GRAPHOPT_TEST_UPDATE") == "1":
        file.write_text(f"{text}\n")
    assert f"{text}\n" == file.read_text()


def trace_argmax() -> Any:
    return trace_function(lambda x: lax.argmax(x, 0, np.int32), np.zeros((70_000, 30), np.float32))[0]
