"""Slices, updates and gathers at loaded indices as loop programs: interpreted, they compute what the graph does."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jax import lax

from graphopt.ir.loop import For, If, Let, Load, LoopProgram

from .indexing import INDEX_DTYPES, MODES, Indexing, drawn
from .test_derive import agrees, whole


@settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.integers(0, 2**32 - 1), st.sampled_from(INDEX_DTYPES), st.sampled_from(MODES), st.booleans())
def test_gathers(number: int, dtype: str, mode: str, within: bool) -> None:
    """within: whether producers and consumers are in the kernel too."""
    random = np.random.default_rng(number)
    with jax.enable_x64(True):
        indexing = drawn(random, dtype)
        gather = indexing.gather(mode)
        function = (lambda x, i: gather(x * 2, i) + 1) if within else gather
        agrees(function, whole(*indexing.shape), indexing.indices)


@settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.integers(0, 2**32 - 1), st.sampled_from(INDEX_DTYPES), st.booleans(), st.booleans())
def test_dynamic_slices_and_updates(number: int, dtype: str, update: bool, within: bool) -> None:
    random = np.random.default_rng(number)
    with jax.enable_x64(True):
        shape = [int(d) for d in random.integers(1, 6, random.integers(1, 4))]
        sizes = [int(random.integers(1, d + 1)) for d in shape]
        starts = [
            np.asarray(max(np.iinfo(dtype).min, int(s))).astype(dtype) for s in random.integers(-3, 9, len(shape))
        ]
        x, y = whole(*shape), whole(*sizes)
        if update:
            agrees(lambda x, y, *i: lax.dynamic_update_slice(x + within, y * 2, i) - within, x, y, *starts)
        else:
            agrees(lambda x, *i: lax.dynamic_slice(x * 2 if within else x, i, sizes) + within, x, *starts)


CASES: dict[str, tuple[Callable[..., Any], tuple[Any, ...]]] = {
    "rows": (lambda x, i: x[i] * 2, (whole(7, 3), np.int32([3, -1, 6, 0, 2]))),
    "of a scalar's shape": (lambda x, i: x[i], (whole(7), np.int32(-2))),
    "what is computed twice": (lambda x, i: (x + 1)[i] + x[i], (whole(7), np.int32([6, 1]))),
    "along an axis": (
        lambda x, i: jnp.take_along_axis(x, i, 1) + 1,
        (whole(3, 5), np.int32([[4, 0], [1, 1], [2, -1]])),
    ),
    "computed indices": (lambda x, i: x[(i * i) % 7], (whole(7), np.arange(11, dtype=np.int32))),
    "indices of indices": (lambda x, i: x[i[i]], (whole(5), np.int32([4, 2, 0, 1, 3]))),
    "a reduction of a gather": (lambda x, i: jnp.sum(x[i], 1), (whole(7, 3), np.int32([3, 0, 6]))),
    "a gather of a reduction": (lambda x, i: jnp.sum(x, 1)[i], (whole(7, 3), np.int32([3, 0, 6]))),
    "filled": (lambda x, i: x.at[i].get(mode="fill", fill_value=7) + 1, (whole(5), np.int32([4, 5, -5, -6]))),
    "an integer's filling": (lambda x, i: x.at[i].get(mode="fill"), (whole(5, dtype="int8"), np.int32([4, 9]))),
    "an update of an update": (
        lambda x, i: lax.dynamic_update_slice(lax.dynamic_update_slice(x, x[:2] * 2, (i,)), x[:1], (i + 1,)),
        (whole(7), np.int32(3)),
    ),
    "a slice of an update": (
        lambda x, i: lax.dynamic_slice(lax.dynamic_update_slice(x * 2, x[:3], (i,)), (i - 1,), (4,)),
        (whole(7), np.int32(3)),
    ),
    "a constant's place": (lambda x, i: jnp.take(x, i, 0)[:, 1], (whole(5, 3), np.int32([1, 4]))),
}


@pytest.mark.parametrize("name", CASES)
def test_cases(name: str) -> None:
    function, args = CASES[name]
    agrees(function, *args)
    agrees(function, *args, grain=2)


def loads(program: LoopProgram) -> list[Load]:
    """The loads of a program, in order."""
    found, stack = [], [s for phase in reversed(program.phases) for s in (*phase.body.statements[::-1],)]
    while stack:
        statement = stack.pop()
        if isinstance(statement, Let) and isinstance(statement.value, Load):
            found.append(statement.value)
        elif isinstance(statement, For):
            stack += statement.body.statements[::-1]
        elif isinstance(statement, If):
            stack += [*statement.otherwise.statements[::-1], *statement.then.statements[::-1]]
    return found


@pytest.mark.parametrize("dtype", INDEX_DTYPES)
def test_indices_are_known_to_be_in_bounds(dtype: str) -> None:
    """The bounds of what was loaded are those of the operand, or of the dtype where it is narrow."""
    with jax.enable_x64(True):
        for size in (5, 1000):
            indices = np.array([[3], [0], [4]], dtype)
            gather = Indexing((size,), indices, (1,), (), (0,), (0,), (), (), (3,)).gather("clip")
            program = agrees(gather, whole(size), indices)
            at = loads(program)[-1].at
            assert at.low == 0 and at.high == min(size - 1, int(np.iinfo(dtype).max))


def test_an_index_is_looked_up_once_a_row() -> None:
    lines = str(agrees(lambda x, i: x[i] * 2, whole(9, 50), np.int32([1, 0, 2]))).splitlines()
    at = {kind: next(k for k, line in enumerate(lines) if kind in line) for kind in ("clamp", "serial", "mul(")}
    assert at["clamp"] < at["serial"] < at["mul("]


def test_an_index_for_all_stands_before_the_parallel_loop() -> None:
    lines = str(agrees(lambda x, i: lax.dynamic_slice(x, (i, 0), (3, 7)) + 1, whole(9, 9), np.int32(2))).splitlines()
    at = {kind: next(k for k, line in enumerate(lines) if kind in line) for kind in ("clamp", "parallel")}
    assert at["clamp"] < at["parallel"]


def test_what_is_out_of_bounds_needs_no_branch() -> None:
    text = str(agrees(lambda x, i: x.at[i].get(mode="fill"), whole(9), np.int32([1, 30, -20])))
    assert "select_n" in text and "if " not in text
