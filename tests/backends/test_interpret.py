"""The interpreter of loop programs: it runs what is right, and refuses what is wrong."""

from inspect import cleandoc
from typing import Any

import numpy as np
import pytest

from graphopt.analysis.reductions import ADD
from graphopt.backends.interpret import interpret
from graphopt.errors import EngineError
from graphopt.ir.index import variable
from graphopt.ir.loop import Accumulate, Block, Buffer, Let, Literal, Load, Local, LoopProgram, Phase, Store

F32, I32 = np.dtype(np.float32), np.dtype(np.int32)
IN, OUT = Buffer("in0", F32, 5, "in"), Buffer("out0", F32, 5, "out")
SCRATCH = Buffer("scratch0", F32, 5, "scratch")
AT = variable("i", 0, 4)
X, S = Local("x", F32), Local("s", F32)


def one_phase(*statements: Any, extent: int = 5, before: tuple[Any, ...] = ()) -> Phase:
    return Phase("i", extent, 2, Block(list(before)), Block(list(statements)))


COPY = one_phase(Let(X, Load(IN, AT)), Store(OUT, AT, X))
WRONG: dict[str, tuple[tuple[Phase, ...], str]] = {
    "a read out of bounds": ((one_phase(Let(X, Load(IN, AT + 1)), Store(OUT, AT, X)),), "is element 5 of in in0"),
    "a negative read": ((one_phase(Let(X, Load(IN, AT - 1)), Store(OUT, AT, X)),), "is element -1 of in in0"),
    "a write out of bounds": ((one_phase(Let(X, Load(IN, AT)), Store(OUT, AT * 2, X)),), "of out out0"),
    "an element left out": (
        (one_phase(Let(X, Load(IN, AT)), Store(OUT, AT, X), extent=4),),
        "element 4 .* was not wri",
    ),
    "an element written twice": ((one_phase(Let(X, Load(IN, AT)), Store(OUT, AT // 2, X)),), "by two iterations"),
    "a read of what is not there yet": ((one_phase(Let(X, Load(SCRATCH, AT)), Store(OUT, AT, X)),), "no phase before"),
    "a read of another iteration's": (
        (
            one_phase(
                Let(X, Load(IN, AT)), Store(SCRATCH, AT, X), Let(S, Load(SCRATCH, AT * -1 + 4)), Store(OUT, AT, S)
            ),
        ),
        "no phase before",
    ),
    "a write to an operand": ((one_phase(Let(X, Load(IN, AT)), Store(IN, AT, X)),), "is written to"),
    "a local of another phase": ((COPY, one_phase(Store(OUT, AT, X))), "outside of the block"),
    "a sum across iterations": (
        (one_phase(Accumulate(S, ADD, Literal(np.float32(1))), Let(X, Load(IN, AT)), Store(OUT, AT, X)),),
        "outside of the block",
    ),
    "another dtype": ((one_phase(Let(X, Literal(np.int32(1))), Store(OUT, AT, X)),), "and not float32"),
    "a variable of no loop": (
        (one_phase(Let(X, Load(IN, variable("j", 0, 4))), Store(OUT, AT, X)),),
        "outside of the loop",
    ),
    "bounds that do not hold": (
        (one_phase(Let(X, Load(IN, variable("i", 0, 2))), Store(OUT, AT, X)),),
        "not within its bounds",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_the_interpreter_refuses(name: str) -> None:
    phases, message = WRONG[name]
    with pytest.raises(EngineError, match=message):
        interpret(LoopProgram((IN, OUT, SCRATCH), phases), np.zeros(5, F32))


def test_the_interpreter_runs_what_is_right() -> None:
    (found,) = interpret(LoopProgram((IN, OUT), (COPY,)), np.arange(5, dtype=F32))
    assert found.tolist() == [0, 1, 2, 3, 4]
    with pytest.raises(EngineError, match="was given for"):
        interpret(LoopProgram((IN, OUT), (COPY,)), np.arange(4, dtype=F32))
    with pytest.raises(EngineError, match="has 1 inputs"):
        interpret(LoopProgram((IN, OUT), (COPY,)))


def test_the_text_of_statements() -> None:
    text = str(LoopProgram((IN, OUT), (COPY,)))
    assert text == cleandoc("""
        in in0: f32[5]
        out out0: f32[5]
        parallel i < 5, at least 2 at a time:
          x: f32 = in0[i]
          out0[i] = x
    """)
