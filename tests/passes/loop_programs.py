"""Loop programs of passes over them: how they are made, and what they are before and after, as text in a file."""

import os
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from graphopt.backends.interpret import interpret
from graphopt.backends.numba.engine import NumbaEngine
from graphopt.config import Options
from graphopt.ir.loop import LoopProgram
from graphopt.passes.pipelines import STANDARD
from graphopt.rewrite.passes import Context, run_pipeline
from graphopt.trace.jaxpr import trace_function

FOLDER = Path(__file__).parents[1] / "golden" / "kernels"


def program_by(engine: NumbaEngine, function: Callable[..., Any], *args: Any) -> LoopProgram:
    """The loop program that an engine makes of a function."""
    graph, sources = trace_function(function, *args)
    graph, _ = run_pipeline(graph, STANDARD, Context(Options(), sources))
    return engine.program(graph)[0]


def check_before_and_after(step: Any, name: str, before: LoopProgram, *args: Any) -> None:
    """Runs a pass: the program after it gives the same bits, and both are as a file has them."""
    after, said = step.run(before)
    for found, expected in zip(interpret(after, *args), interpret(before, *args), strict=True):
        np.testing.assert_array_equal(found, expected)
    check_text(step.name, name, before, after, said)


def check_text(step: str, name: str, before: LoopProgram, after: LoopProgram, said: Sequence[str]) -> None:
    """Programs before and after a pass are as a file has them; GRAPHOPT_TEST_UPDATE=1 writes it."""
    text = f"# {step}: {name}\n\n# before\n{before}\n\n# after\n# {', '.join(said)}\n{after}\n"
    file = FOLDER / _file_name(step, name)
    if os.environ.get("GRAPHOPT_TEST_UPDATE") == "1":
        file.write_text(text)
    assert file.is_file(), f"{file} is missing; GRAPHOPT_TEST_UPDATE=1 writes it"
    assert text == file.read_text()


def check_files(step: str, names: Collection[str]) -> None:
    """There are files of these programs, and no others of the pass."""
    assert {f.name for f in FOLDER.glob(f"{step}-*")} == {_file_name(step, name) for name in names}


def _file_name(step: str, name: str) -> str:
    return f"{step}-{name.replace(' ', '-')}.txt"
