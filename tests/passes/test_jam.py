"""Rows reduced side by side: programs before and after as text, and interpreted."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import graphopt
from graphopt.backends.interpret import interpret
from graphopt.backends.numba.engine import NumbaEngine
from graphopt.config import Options
from graphopt.ir.loop import LoopProgram
from graphopt.passes.jam import LEAST, ROWS, Jam
from graphopt.passes.pipelines import STANDARD
from graphopt.rewrite.passes import Context, run_pipeline
from graphopt.trace.jaxpr import trace_function

FOLDER = Path(__file__).parents[1] / "golden" / "kernels"
WITHOUT = NumbaEngine(jam=Jam(long=1 << 60))
EAGER = Jam(rows=3, long=0)

RANDOM = np.random.default_rng(0)
MATRIX = RANDOM.integers(-128, 128, (3 * LEAST + 2, 37)).astype(np.int8)
VECTOR, SCALES = (RANDOM.normal(size=n).astype(np.float32) for n in MATRIX.shape[::-1])


def without(function: Callable[..., Any], *args: Any) -> LoopProgram:
    graph, sources = trace_function(function, *args)
    graph, _ = run_pipeline(graph, STANDARD, Context(Options(), sources))
    return WITHOUT.program(graph)[0]


def dequantized(matrix: Any, scales: Any, vector: Any) -> Any:
    return (matrix.astype(jnp.float32) * scales[:, None]) @ vector


def furthest(matrix: Any, vector: Any) -> Any:
    return jnp.abs(matrix.astype(jnp.float32) - vector).max(-1)


CASES: dict[str, tuple[Callable[..., Any], tuple[Any, ...]]] = {
    "product": (dequantized, (MATRIX, SCALES, VECTOR)),
    "greatest": (furthest, (MATRIX, VECTOR)),
}


@pytest.mark.parametrize("name", CASES)
def test_the_text_before_and_after(name: str) -> None:
    function, args = CASES[name]
    before = without(function, *args)
    after, said = EAGER.run(before)
    for found, expected in zip(interpret(after, *args), interpret(before, *args), strict=True):
        np.testing.assert_array_equal(found, expected)
    text = f"# jam: {name}\n\n# before\n{before}\n\n# after\n# {', '.join(said)}\n{after}\n"
    file = FOLDER / f"jam-{name}.txt"
    if os.environ.get("GRAPHOPT_TEST_UPDATE") == "1":
        file.write_text(text)
    assert file.is_file(), f"{file} is missing; GRAPHOPT_TEST_UPDATE=1 writes it"
    assert text == file.read_text()


def test_no_text_is_left_over() -> None:
    assert {f.name for f in FOLDER.glob("jam-*")} == {f"jam-{name}.txt" for name in CASES}


LEFT: dict[str, tuple[Callable[..., Any], tuple[Any, ...]]] = {
    "nothing in common": (lambda x: jnp.abs(x.astype(jnp.float32)).sum(-1), (MATRIX,)),
    "few rows": (furthest, (MATRIX[:50], VECTOR)),
    "several loops over a row": (lambda x, y: jax.nn.softmax(x.astype(jnp.float32) * y), (MATRIX, VECTOR)),
    "down the columns": (lambda x, y: (x.astype(jnp.float32) * y[:, None]).sum(0), (MATRIX, SCALES)),
}


@pytest.mark.parametrize("name", LEFT)
def test_what_is_not_jammed(name: str) -> None:
    function, args = LEFT[name]
    before = without(function, *args)
    assert EAGER.run(before) == (before, ())


def test_a_short_operand_stays_in_registers_or_in_the_first_cache() -> None:
    before = without(dequantized, MATRIX, SCALES, VECTOR)
    assert Jam(rows=3).run(before) == (before, ())


@pytest.mark.parametrize("dtype", ["int8", "bfloat16", "float32", "float64"])
def test_kernels_of_jammed_rows(dtype: str) -> None:
    """The report says so, the loop stays vectorized, rows that are left over are right, and so is what is not finite."""
    with jax.enable_x64(dtype == "float64"):
        matrix = jnp.asarray(RANDOM.integers(-9, 9, (ROWS * LEAST + 3, 2051)), dtype)
        vector = jnp.asarray(RANDOM.normal(size=2051), "float64" if dtype == "float64" else "float32")
        vector = vector.at[7].set(jnp.inf)
        matrix = matrix.at[-1, 7].set(0).at[:2, 7].set(-1)

        def function(x: Any, y: Any) -> Any:
            return (x.astype(y.dtype) * 0.5 * y).sum(-1)

        ours = graphopt.jit(function, backend="numba")
        report = ours.explain(matrix, vector)
        assert any(f"jam: {ROWS} rows" in str(note) for note in report.notes), report.notes
        (kernel,) = report.kernels
        assert all(loop.lanes > 1 for loop in kernel.inner_loops()), kernel.inner_loops()
        found, expected = ours(matrix, vector), jax.jit(function)(matrix, vector)
        np.testing.assert_allclose(found, expected, rtol=1e-12 if dtype == "float64" else 1e-4, atol=1e-4)
