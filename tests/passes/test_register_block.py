"""Rows and what they share in blocks of registers: programs before and after as text, interpreted, and compiled."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import graphopt
from graphopt.backends.interpret import interpret
from graphopt.backends.numba.costs import scalar_cost
from graphopt.backends.numba.engine import NumbaEngine
from graphopt.ir.loop import LoopProgram
from graphopt.passes.register_block import LEAST, ROWS, TERMS, RegisterBlock

from .loop_programs import check_before_and_after, check_files, program_by

WITHOUT = NumbaEngine(registers=RegisterBlock(scalar_cost, least=1 << 60))
EAGER = RegisterBlock(scalar_cost, rows=2, terms=3, least=1)

RANDOM = np.random.default_rng(0)
X, Y = (RANDOM.normal(size=shape).astype(np.float32) for shape in ((33, 10), (18, 10)))


def without(function: Callable[..., Any], *args: Any) -> LoopProgram:
    return program_by(WITHOUT, function, *args)


def distances(x: Any, y: Any) -> Any:
    return jnp.sqrt(((x[:, None] - y[None]) ** 2).sum(-1))


def furthest(x: Any, y: Any) -> Any:
    return jnp.abs(x[:, None] - y[None]).max(-1)


def batches(x: Any, y: Any) -> Any:
    return jnp.abs(x[:, :, None] - y[:, None]).sum(-1)


CASES: dict[str, tuple[Callable[..., Any], tuple[Any, ...]]] = {
    "distances": (distances, (X, Y)),
    "greatest": (furthest, (X, Y)),
    "batches": (batches, (np.stack([X[:32], X[1:]]), np.stack([Y, Y * 2]))),
}


@pytest.mark.parametrize("name", CASES)
def test_the_text_before_and_after(name: str) -> None:
    function, args = CASES[name]
    check_before_and_after(EAGER, name, without(function, *args), *args)


def test_no_text_is_left_over() -> None:
    check_files("registers", CASES)


@pytest.mark.parametrize(("rows", "terms"), [(3, 4), (5, 1), (ROWS, TERMS)])
def test_blocks_of_any_size_give_the_same_bits(rows: int, terms: int) -> None:
    before = without(distances, X, Y)
    after, said = RegisterBlock(scalar_cost, rows, terms, least=1).run(before)
    assert said
    np.testing.assert_array_equal(interpret(after, X, Y), interpret(before, X, Y))


LEFT: dict[str, tuple[Callable[..., Any], tuple[Any, ...]]] = {
    "nothing that rows share": (lambda x: jnp.abs(x).sum(1), (RANDOM.normal(size=(33, 10, 18)).astype(np.float32),)),
    "functions that take long": (lambda x, y: jnp.tanh(x[:, None] - y[None]).sum(-1), (X, Y)),
    "many operations": (lambda x, y: distances(x, y) / (1 + furthest(x, y)), (X, Y)),
    "few terms": (distances, (X[:, :3], Y[:, :3])),
    "batches whose rows are no whole blocks": (batches, (np.stack([X, X * 2]), np.stack([Y, Y]))),
}


@pytest.mark.parametrize("name", LEFT)
def test_what_is_left_as_it_is(name: str) -> None:
    function, args = LEFT[name]
    before = without(function, *args)
    assert EAGER.run(before) == (before, ())


def test_few_rows_are_left_to_threads() -> None:
    before = without(distances, X, Y)
    assert RegisterBlock(scalar_cost, least=len(X) // ROWS + 1).run(before) == (before, ())
    assert RegisterBlock(scalar_cost, least=len(X) // ROWS).run(before)[1]
    assert RegisterBlock(scalar_cost, least=1, most=0).run(before) == (before, ())


@pytest.mark.parametrize("dtype", ["float32", "float64", "int32"])
@pytest.mark.parametrize(("length", "width"), [(16, 1), (19, 2)])
def test_kernels_in_blocks(dtype: str, length: int, width: int) -> None:
    """The report says so, all loops but the one that turns are vectorized, and what is not finite is as NumPy has it."""
    with jax.enable_x64(dtype == "float64"):
        x = jnp.asarray(RANDOM.normal(size=(ROWS * LEAST + 3, length)) * 8, dtype)
        y = jnp.asarray(RANDOM.normal(size=(width * 1030, length)) * 8, dtype)
        if dtype.startswith("f"):
            x, y = x.at[3, 2].set(jnp.nan), y.at[7, 1].set(jnp.inf).at[-1, -1].set(-jnp.inf)
        for kind in ("max", "sum"):

            def function(x: Any, y: Any, kind: str = kind) -> Any:
                return getattr(jnp, kind)(jnp.abs(x[:, None] - y[None]), axis=-1)

            ours = graphopt.jit(function, backend="numba")
            report = ours.explain(x, y)
            assert any(f"registers: {ROWS} rows, {TERMS} terms" in str(note) for note in report.notes), report.notes
            loops = [loop for kernel in report.kernels for loop in kernel.inner_loops()]
            assert sum(loop.lanes > 1 for loop in loops) > 2, loops
            differences = np.abs(np.asarray(x)[:, None] - np.asarray(y)[None])
            np.testing.assert_allclose(ours(x, y), getattr(np, kind)(differences, axis=-1), rtol=1e-5)
