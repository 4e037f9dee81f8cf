"""Bodies that read operands across, in blocks: every way computes what the graph does, and blocks are chosen."""

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from graphopt.analysis import tiled
from graphopt.ir.loop import LoopProgram
from graphopt.passes.bypass import BypassCaches
from graphopt.trace.jaxpr import trace_function

from .test_columns import ENGINE, GOLDEN, programs, whole

CASES: dict[str, tuple[Callable[..., Any], tuple[Any, ...]]] = {
    "transposed": (lambda x: x.T * 2, (whole(7, 9),)),
    "sides of whole blocks": (lambda x: x.T * 2, (whole(8, 12),)),
    "and not": (lambda x, y: x.T + y, (whole(9, 10), whole(10, 9))),
    "two of them": (lambda x, y: (x.T * y.T, x.T - 1), (whole(9, 10), whole(9, 10))),
    "more operands than tiles": (
        lambda a, b, c, d, e: a.T + b.T + c.T + d.T + e.T,
        tuple(whole(9, 10) for _ in range(5)),
    ),
    "the first axis last": (lambda x: x.transpose(1, 2, 0) + 1, (whole(9, 3, 10),)),
    "the last first": (lambda x: x.transpose(2, 0, 1) + 1, (whole(3, 9, 10),)),
    "in batches": (lambda x: x.transpose(0, 2, 1) * 2, (whole(2, 9, 11),)),
    "a row of it": (lambda x: x.T * x[0, :1], (whole(9, 10),)),
    "the maximum of each row beside it": (lambda x: x.T - x.max(1), (whole(9, 10),)),
    "of each column": (lambda x: x.T - x.max(0)[:, None], (whole(9, 10),)),
}


def tiles(program: LoopProgram) -> int:
    return sum(buffer.role == "tile" for buffer in program.buffers)


@pytest.mark.parametrize("name", CASES)
def test_in_blocks(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiled, "SIDE", 4)
    function, args = CASES[name]
    assert max(map(tiles, programs(function, *args))) >= (name != "more operands than tiles")


@pytest.mark.parametrize("permutation", [(1, 0), (0, 2, 1), (2, 1, 0), (2, 0, 1), (1, 2, 0)])
def test_what_is_transposed_is_written_in_blocks(permutation: tuple[int, ...]) -> None:
    x = np.zeros((300, 100, 200)[: len(permutation)], np.float32)
    for function, blocks in ((lambda x: x.transpose(permutation) * 2, 1), (lambda x: x * 2, 0)):
        program, _ = replace(ENGINE, bypass=BypassCaches(large=1 << 60)).program(trace_function(function, x)[0])
        assert tiles(program) == blocks and program.phases[0].extent > 1


def test_the_text_of_a_program() -> None:
    graph, _ = trace_function(
        lambda x, y: x.T + y, np.zeros((1000, 512), np.float32), np.zeros((512, 1000), np.float32)
    )
    text = f"{ENGINE.program(graph)[0]}\n"
    file: Path = GOLDEN / "blocks.txt"
    if os.environ.get("GRAPHOPT_TEST_UPDATE") == "1":
        file.write_text(text)
    assert text == file.read_text()
