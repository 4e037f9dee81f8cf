"""Results written over operands: when that is right, and that what is written is right then."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from graphopt.analysis import scattering
from graphopt.backends.interpret import interpret
from graphopt.backends.reference import evaluate
from graphopt.ir.loop import LoopProgram

from .test_derive import ENGINE, simplified, whole

Pairs = tuple[tuple[int, int], ...]


def in_place(function: Callable[..., Any], *args: Any, pairs: Pairs = ((0, 0),)) -> LoopProgram | None:
    """The program whose results are written over operands, and have the evaluator's bits; None where that is wrong."""
    graph = simplified(function, *args)
    if ENGINE.plan(graph, True, pairs) is None:
        return None
    program = ENGINE.derivation(graph, True, pairs).program
    for grain in (None, 1):
        for found, expected in zip(interpret(program, *args, grain=grain), evaluate(graph, *args), strict=True):
            np.testing.assert_array_equal(found, np.asarray(expected).reshape(-1), strict=True)
    return program


PLACES, U = np.int32([3, 0, 6, 3, 2]), whole(5)

RIGHT: dict[str, tuple[Callable[..., Any], tuple[Any, ...]]] = {
    "elementwise": (lambda x, y: x * y + 1, (whole(3, 5), whole(3, 5))),
    "no dimensions": (lambda x: x * 2, (np.float32(3),)),
    "another operand anywhere": (lambda x, y: x + y[::-1] + jnp.sum(y), (whole(7), whole(7))),
    "a row for all": (lambda x, y: x * y, (whole(7, 3), whole(3))),
    "an update": (lambda x, y, i: lax.dynamic_update_slice(x, y * 2, (i, i)), (whole(7, 9), whole(2, 3), np.int32(4))),
    "an update out of bounds": (
        lambda x, y, i: lax.dynamic_update_slice(x, y, (i,)),
        (whole(7), whole(3), np.int32(9)),
    ),
    "an update of all": (lambda x, y, i: lax.dynamic_update_slice(x + 0 * y[0], y, (i,)), (whole(7), U, np.int32(0))),
    "a slice is changed": (
        lambda x, i: lax.dynamic_update_slice(x, lax.dynamic_slice(x, (i,), (3,)) * 2, (i,)),
        (whole(9), np.int32(4)),
    ),
    "a number is changed": (lambda x, i: x.at[i].add(2.0), (whole(9), np.int32(4))),
    "a scatter": (lambda x, i, u: x.at[i].add(u), (whole(7), PLACES, U)),
    "a scatter of rows": (lambda x, i, u: x.at[i].set(u), (whole(7, 40), PLACES, whole(5, 40))),
}


@pytest.mark.parametrize("name", RIGHT)
def test_what_may_be_written_over(name: str) -> None:
    function, args = RIGHT[name]
    program = in_place(function, *args)
    assert program is not None and "out0 is in0" in str(program)


def test_a_scatter_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scattering, "MANY", 2)
    program = in_place(lambda x, i, u: x.at[i].add(u), whole(2), np.tile(PLACES, 20) % 2, np.tile(U, 20))
    assert program is not None and len(program.phases) == 2


def test_only_the_slice_is_written() -> None:
    program = in_place(lambda x, y, i: lax.dynamic_update_slice(x, y, (i,)), whole(1000), whole(3), np.int32(7))
    assert program is not None and [phase.extent for phase in program.phases] == [1] and "serial j" in str(program)
    program = in_place(lambda x, i, u: x.at[i].add(u), whole(1000), PLACES, U)
    assert program is not None and [phase.extent for phase in program.phases] == [1]


WRONG: dict[str, tuple[Callable[..., Any], tuple[Any, ...]]] = {
    "reversed": (lambda x: x[::-1] + 1, (whole(7),)),
    "shifted": (lambda x: jnp.concatenate([x[1:], x[:1]]) * 2, (whole(7),)),
    "transposed": (lambda x: x.T * 2, (whole(3, 3),)),
    "its sum": (lambda x: x * jnp.sum(x, 1, keepdims=True), (whole(3, 70),)),
    "gathered": (lambda x, i: x[i] + 1, (whole(5), np.int32([1, 0, 2, 2, 4]))),
    "another slice": (
        lambda x, i: lax.dynamic_update_slice(x, lax.dynamic_slice(x, (i + 1,), (3,)) * 2, (i,)),
        (whole(9), np.int32(4)),
    ),
    "updates made of it": (lambda x, i: x.at[i].add(x[:5]), (whole(7), PLACES)),
    "updates gathered from it": (lambda x, i: x.at[i].add(x[i]), (whole(7), PLACES)),
    "cumulated backwards after a shift": (lambda x: lax.cumsum(x[::-1]), (whole(7),)),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_may_not(name: str) -> None:
    function, args = WRONG[name]
    assert in_place(function, *args) is None
