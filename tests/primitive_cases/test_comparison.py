"""The comparison of primitive cases notices what is wrong: here it is given jits that are."""

import random
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from .cases import Case, all_cases, grouped, sample
from .comparison import Program, batched, compare, differ_by_rounding, differentiated, plain, plain_of_each

SINE = Case("sine", "sin", jnp.sin, lambda generator: [generator.standard_normal(3).astype(np.float32)])
ZERO = Case("zero", "mul", lambda x: 0 * x, lambda generator: [np.array([-1.0, np.nan], np.float32)])
COUNT = Case("count", "add", lambda x: x + 1, lambda generator: [generator.randint(0, 9, 3).astype(np.int32)])
CONSTANT = Case("constant", "iota", lambda: jnp.arange(3.0), lambda generator: [])
ERROR = Case("error", "reshape", lambda x: x.reshape(2, 2), lambda generator: [np.ones(3, np.float32)])


def mapped(change: Callable[[Any], Any]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """A jit whose results went through `change`."""
    return lambda function: jax.jit(lambda *args: jax.tree.map(change, function(*args)))


def never_raises(function: Callable[..., Any]) -> Callable[..., Any]:
    def compiled(*args: Any) -> Any:
        try:
            return jax.jit(function)(*args)
        except TypeError:
            return jnp.zeros(3)

    return compiled


def always_raises(function: Callable[..., Any]) -> Callable[..., Any]:
    def compiled(*args: Any) -> Any:
        raise NotImplementedError

    return compiled


@pytest.mark.parametrize("case", [SINE, ZERO, COUNT, CONSTANT], ids=lambda case: case.name)
def test_the_same_jit_gives_the_same_bits(case: Case) -> None:
    programs = [plain(case), batched(case), differentiated(case)]
    assert {compare(program, mapped(lambda x: x)) for program in programs if program is not None} == {"same bits"}


def test_the_same_error_is_the_same() -> None:
    assert compare(plain(ERROR), mapped(lambda x: x)) == "jax.jit raises TypeError"


def test_transformations_that_do_not_apply() -> None:
    assert batched(CONSTANT) is None
    assert differentiated(CONSTANT) is None
    assert differentiated(COUNT) is None


@pytest.mark.parametrize(
    ("program", "jit"),
    [
        pytest.param(plain(SINE), mapped(lambda x: jnp.nextafter(x, 2 * x)), id="last bit"),
        pytest.param(plain(ZERO), mapped(jnp.abs), id="sign of zero"),
        pytest.param(plain(ZERO), mapped(lambda x: jnp.nan_to_num(x, nan=0.0)), id="NaN"),
        pytest.param(plain(COUNT), mapped(lambda x: x.astype(jnp.uint32)), id="dtype"),
        pytest.param(plain(COUNT), mapped(lambda x: x[None]), id="shape"),
        pytest.param(plain(COUNT), mapped(lambda x: [x]), id="tree"),
        pytest.param(plain(ERROR), never_raises, id="no error"),
        pytest.param(batched(SINE), mapped(lambda x: x + jnp.sum(x)), id="batching"),
        pytest.param(differentiated(SINE), mapped(jax.lax.stop_gradient), id="gradient"),
    ],
)
def test_a_difference_is_noticed(program: Program, jit: Callable[[Callable[..., Any]], Callable[..., Any]]) -> None:
    with pytest.raises(AssertionError):
        compare(program, jit)


@pytest.mark.parametrize("case", [SINE, ERROR], ids=lambda case: case.name)
def test_an_error_of_another_kind_is_passed_on(case: Case) -> None:
    with pytest.raises(NotImplementedError):
        compare(plain(case), always_raises)


def test_a_sample_has_every_primitive_and_follows_its_seed() -> None:
    cases = all_cases()
    drawn = sample(cases, 200, seed=1)
    assert {case.group for case in drawn} == {case.group for case in cases}
    assert len(drawn) == len({case.name for case in drawn}) == 200
    assert drawn == sample(cases, 200, seed=1)
    assert drawn != sample(cases, 200, seed=2)


def test_cases_of_one_function_are_compared_together() -> None:
    groups = grouped(all_cases())
    assert sorted(case.name for cases in groups for case in cases) == sorted(case.name for case in all_cases())
    assert {len(cases) for cases in groups} == {1, 2}
    for first, second in random.Random(1).sample([cases for cases in groups if len(cases) == 2], 20):
        with jax.enable_x64(first.x64):
            texts = [jax.jit(case.function).lower(*case.arguments(1)[0]).as_text() for case in (first, second)]
        assert texts[0] == texts[1]
    assert compare(plain_of_each([COUNT, COUNT]), mapped(lambda x: x)) == "same bits"
    with pytest.raises(AssertionError):
        compare(plain_of_each([COUNT, COUNT]), mapped(lambda x: x + (x == x[0])))


def test_both_widths_of_types_are_covered() -> None:
    assert {case.x64 for case in all_cases()} == {False, True}


def test_arguments_are_the_same_in_each_run() -> None:
    (a,), (b,) = SINE.arguments(2)
    (again,) = SINE.arguments(1)
    np.testing.assert_array_equal(a, again[0])
    assert (a != b).any()


def test_rounding_is_told_from_other_differences() -> None:
    eps = np.finfo(np.float32).eps
    exact = np.array([1.0, -2.0, np.inf, np.nan], np.float32)
    for other, is_rounding in (
        ([1.0 + eps, -2.0, np.inf, np.nan], True),
        ([1.0, -2.0 + 0.001, np.inf, np.nan], False),
        ([1.0, -2.0, -np.inf, np.nan], False),
        ([1.0, -2.0, np.inf, 0.0], False),
        ([1.0, -2.0, 3e38, np.nan], False),
    ):
        assert differ_by_rounding(jnp.array(other, np.float32), jnp.asarray(exact)) == is_rounding
    assert not differ_by_rounding(jnp.array([1, 2]), jnp.array([1, 3]))
    assert not differ_by_rounding(jnp.ones(2), jnp.ones(3))
    assert not differ_by_rounding([jnp.ones(2)], jnp.ones(2))
