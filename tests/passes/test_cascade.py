"""Sums of sums: programs before and after as text, interpreted, and how far sums are from the right ones."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import graphopt
from graphopt.backends.interpret import interpret
from graphopt.backends.numba.engine import NumbaEngine
from graphopt.ir.attrs import EMPTY
from graphopt.ir.index import variable
from graphopt.ir.loop import (
    REDUCTION,
    VECTOR,
    Apply,
    Block,
    Buffer,
    For,
    Let,
    Load,
    Local,
    LoopProgram,
    Phase,
    Store,
)
from graphopt.passes.cascade import ADD, LANES, Cascade

from .loop_programs import check_files, check_text, program_by

WITHOUT = NumbaEngine(without=frozenset({"cascade"}))
EAGER = Cascade(lanes=20, terms=4, row=3)

X = np.random.default_rng(0).normal(size=(3, 8, 10, 9)).astype(np.float32)


def without(function: Callable[..., Any], *args: Any) -> LoopProgram:
    return program_by(WITHOUT, function, *args)


def interpreted_alike(step: Cascade, before: LoopProgram, *args: Any) -> tuple[LoopProgram, tuple[str, ...]]:
    """The program after the pass, whose results are those before it up to what another order of sums makes."""
    after, said = step.run(before)
    for found, expected in zip(interpret(after, *args), interpret(before, *args), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
    return after, said


def squares_of_columns(x: Any) -> Any:
    return (x * x).sum(0), jnp.abs(x).sum(0)


def last_digits(x: Any) -> Any:
    return x.sum(1) * 1.0


def pairs(x: Any, y: Any) -> Any:
    return jnp.exp(-jnp.abs(x[:, None] - y)).sum()


CASES: dict[str, tuple[Callable[..., Any], tuple[Any, ...]]] = {
    "rows": (lambda x: x.sum(1), (X.reshape(6, 360),)),
    "two axes": (lambda x: x.sum((1, 2)), (X[..., 0],)),
    "three axes": (lambda x: x.sum((1, 2, 3)), (X,)),
    "long sums in a short one": (lambda x: (x.sum(1) ** 2).sum(), (X.reshape(18, 120),)),
    "columns": (squares_of_columns, (X.reshape(120, 18),)),
    "two axes before columns": (lambda x: (x + 1).sum((0, 1)), (X.reshape(20, 6, 18),)),
}


@pytest.mark.parametrize("name", CASES)
def test_the_text_before_and_after(name: str) -> None:
    function, args = CASES[name]
    before = without(function, *args)
    after, said = interpreted_alike(EAGER, before, *args)
    check_text("cascade", name, before, after, said)


def test_no_text_is_left_over() -> None:
    check_files("cascade", CASES)


LEFT: dict[str, tuple[Callable[..., Any], tuple[Any, ...]]] = {
    "few terms": (lambda x: x.sum(1), (X.reshape(-1, 20),)),
    "few terms down the columns": (lambda x: x.sum(0), (X.reshape(4, -1),)),
    "integers": (lambda x: x.sum(1), (X.astype(np.int32).reshape(6, 360),)),
    "the greatest": (lambda x: x.max(1), (X.reshape(6, 360),)),
    "products": (lambda x: x.prod(0), (X.reshape(120, 18),)),
    "running sums": (lambda x: jnp.cumsum(x, 1), (X.reshape(6, 360),)),
}


@pytest.mark.parametrize("name", LEFT)
def test_what_is_left(name: str) -> None:
    function, args = LEFT[name]
    before = without(function, *args)
    assert EAGER.run(before) == (before, ())


@pytest.mark.parametrize(("read", "after"), [("v4", False), ("v4", True), ("v6", False), ("v6", True), ("v5", True)])
def test_tiles_whose_sums_so_far_are_read_are_left(read: str, after: bool) -> None:
    """All but the last: a term that is read besides stays what it is."""
    out, values = (Buffer(name, np.dtype(np.float32), 12, role) for name, role in (("out0", "out"), ("in0", "in")))
    tile = Buffer("tile0", np.dtype(np.float32), 4, "tile")
    row, lane = variable("r2", 0, 2), variable("l3", 0, 3)
    v4, v5, v6 = (Local(f"v{number}", np.dtype(np.float32)) for number in (4, 5, 6))
    terms = [Let(v4, Load(tile, lane)), Let(v5, Load(values, row * 4 + lane)), Let(v6, Apply(ADD, EMPTY, (v4, v5)))]
    stores = [Store(tile, lane, v6), Store(out, row * 4 + lane, {"v4": v4, "v5": v5, "v6": v6}[read])]
    inner = For("l3", 4, VECTOR, Block([*terms, *(stores if after else stores[::-1])]))
    phase = Phase("i1", 1, 1, Block(), Block([For("r2", 3, REDUCTION, Block([inner]))]))
    program = LoopProgram((values, out, tile), (phase,))
    assert bool(Cascade(lanes=2, terms=2, row=2).run(program)[1]) == (read == "v5")


def test_tiles_have_limits() -> None:
    function, args = CASES["columns"]
    before = without(function, *args)
    assert EAGER.run(before)[1]
    assert Cascade(lanes=20, terms=4, row=3, most=250).run(before) == (before, ())


def test_every_zero_is_negative_where_all_terms_are() -> None:
    x: Any = np.full((2, 100), -0.0, np.float32)
    before = without(last_digits, x)
    after, said = EAGER.run(before)
    assert said
    for found, expected in zip(interpret(after, x), interpret(before, x), strict=True):
        np.testing.assert_array_equal(np.signbit(found), np.signbit(expected))


@settings(max_examples=25)
@given(st.data())
def test_random_sums(data: st.DataObject) -> None:
    """Of some axes, of any number of terms, in cascades of any width; complex and double numbers too."""
    shape = data.draw(st.lists(st.integers(1, 7), min_size=1, max_size=3))
    axes = data.draw(st.sets(st.integers(0, len(shape) - 1), min_size=1))
    dtype = data.draw(st.sampled_from([np.float32, np.complex64]))
    x: Any = np.random.default_rng(data.draw(st.integers(0, 9))).normal(size=shape).astype(dtype)
    step = Cascade(*(data.draw(st.integers(1, 30)) for _ in range(3)))
    interpreted_alike(step, without(lambda x: (x * 2).sum(tuple(axes)), x), x)


FAR: dict[str, tuple[Callable[..., Any], tuple[int, ...]]] = {
    "all of a matrix": (lambda x: (x * x).sum(), (100, 30_000)),
    "a long row": (lambda x: (x * x).sum(1), (2, 20 * LANES + 1)),
    "columns": (lambda x: (x * x).sum(0), (20_000, 70)),
    "the second of three axes": (lambda x: (x * x).sum((1, 2)), (3, 700, 700)),
    "variances of columns": (lambda x: jnp.var(x + 100, 0), (20_000, 70)),
}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", FAR)
def test_sums_are_right(name: str, dtype: str) -> None:
    """Of numbers of one sign, whose sum grows: within a few units of the last place, as XLA's are."""
    function, shape = FAR[name]
    with jax.enable_x64(dtype == "float64"):
        x = np.random.default_rng(1).random(shape).astype(dtype)
        exact = np.asarray(function(np.asarray(x, np.longdouble))) if name != "variances of columns" else None
        expected = exact if exact is not None else np.var(np.asarray(x, np.longdouble) + 100, 0)
        ours = graphopt.jit(function, backend="numba")
        error = np.abs(np.asarray(ours(x), np.longdouble) / expected - 1).max()
        # The numbers of which the variance is taken are rounded to 100 times its own digits before.
        assert error <= (8 if exact is not None else 3000) * np.finfo(dtype).eps, error / np.finfo(dtype).eps
        (kernel, *_) = ours.explain(x).kernels
        assert any(loop.lanes > 1 for loop in kernel.inner_loops()), kernel.inner_loops()


def test_the_report_says_so() -> None:
    x = np.ones((100, 30_000), np.float32)
    report = graphopt.jit(lambda x: jnp.sin(x).sum(), backend="numba").explain(x)
    assert any("cascade: sums of " in str(note) for note in report.notes), report.notes
    report = graphopt.jit(lambda x: jnp.sin(x).sum(), backend="numba", without=("cascade",)).explain(x)
    assert not any("cascade" in str(note) for note in report.notes), report.notes
