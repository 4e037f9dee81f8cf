"""Cumulative operations along other axes than the last, side by side and in parts."""

import numpy as np
import pytest
from jax import lax

from graphopt.analysis import columns, cumulative

from ..rules.drawing import values
from .test_columns import SEED, by_columns, programs, whole

FUNCTIONS = {"cumsum": lax.cumsum, "cumprod": lax.cumprod, "cummax": lax.cummax, "cummin": lax.cummin}


@pytest.fixture(params=[(5, 3), (4, 1), (64, 1000)], ids=["blocks of 5", "blocks of 4", "one block"])
def small(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A few columns are a block, and a few elements a part."""
    width, part = request.param
    monkeypatch.setattr(columns, "WIDTH", width)
    for name, value in (("WIDTH", width), ("WIDE", 2), ("PART", part), ("PARTS", 3)):
        monkeypatch.setattr(cumulative, name, value)


@pytest.mark.parametrize("backwards", [False, True])
@pytest.mark.parametrize(("shape", "axis"), [((7, 5), 0), ((3, 7), 0), ((2, 5, 3), 1), ((5, 2, 3), 0), ((1, 4), 0)])
def test_side_by_side(shape: tuple[int, ...], axis: int, backwards: bool, small: None) -> None:
    x = whole(*shape, dtype="int32")
    for function in FUNCTIONS.values():
        (program,) = programs(lambda x, f=function: f(x + 1, axis=axis, reverse=backwards), x)
        assert by_columns(program)
        cut = columns.WIDTH < 60 and shape[axis] > 3
        assert len(program.phases) == (2 if cut else 1)


def test_special_values(small: None) -> None:
    x = values(np.random.default_rng(SEED), "float32", (9, 4), True)
    for function in (lax.cummax, lax.cummin):
        programs(lambda x, f=function: f(x, axis=0), x)


def test_a_few_columns_and_one_are_accumulated_one_by_one() -> None:
    for shape in ((5, 1), (5, cumulative.WIDE - 1), (5,)):
        (program,) = programs(lambda x: lax.cumsum(x, axis=0), whole(*shape, dtype="int32"))
        assert not by_columns(program)
