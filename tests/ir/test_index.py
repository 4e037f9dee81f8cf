"""Index expressions against Python's integers, at all points of small boxes; what bounds let fall away."""

import itertools
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphopt.ir.index import Index, Quotient, Variable, delinear, linear, number, variable


@dataclass(frozen=True)
class Drawn:
    """An expression, and Python's own function of the variables that it stands for."""

    index: Index
    text: str

    def at(self, point: dict[str, int]) -> int:
        return int(eval(self.text, dict(point)))


BOUNDS = {"a": (0, 3), "b": (-2, 4), "c": (0, 6), "d": (5, 5)}


def leaves() -> st.SearchStrategy[Drawn]:
    named = [Drawn(variable(name, *bounds), name) for name, bounds in BOUNDS.items()]
    return st.one_of(st.sampled_from(named), st.integers(-9, 9).map(lambda n: Drawn(number(n), f"({n})")))


def larger(inner: st.SearchStrategy[Drawn]) -> st.SearchStrategy[Drawn]:
    factor, divisor = st.sampled_from([-6, -1, 0, 1, 2, 3, 4, 12]), st.sampled_from([1, 2, 3, 4, 6, 7, 12])
    return st.one_of(
        st.builds(lambda x, y: Drawn(x.index + y.index, f"({x.text} + {y.text})"), inner, inner),
        st.builds(lambda x, y: Drawn(x.index - y.index, f"({x.text} - {y.text})"), inner, inner),
        st.builds(lambda x, n: Drawn(x.index + n, f"({x.text} + {n})"), inner, factor),
        st.builds(lambda x, n: Drawn(x.index - n, f"({x.text} - {n})"), inner, factor),
        st.builds(lambda x, n: Drawn(x.index * n, f"({x.text} * {n})"), inner, factor),
        st.builds(lambda x, n: Drawn(x.index // n, f"({x.text} // {n})"), inner, divisor),
        st.builds(lambda x, n: Drawn(x.index % n, f"({x.text} % {n})"), inner, divisor),
    )


expressions = st.recursive(leaves(), larger, max_leaves=8)
POINTS = [
    dict(zip(BOUNDS, point, strict=True))
    for point in itertools.product(*(range(low, high + 1) for low, high in BOUNDS.values()))
]


@given(expressions)
def test_an_expression_is_what_python_computes_and_stays_within_its_bounds(drawn: Drawn) -> None:
    index = drawn.index
    for point in POINTS:
        assert index.value(point) == drawn.at(point)
        assert index.low <= drawn.at(point) <= index.high
        # The text is one that Python reads, and means the same.
        assert eval(str(index), dict(point)) == drawn.at(point)
    assert set(index.variables()) <= set(BOUNDS)
    assert index.is_number == (not index.terms)
    assert all(coefficient for _, coefficient in index.terms)


@given(expressions, expressions)
def test_sums_have_one_normal_form(x: Drawn, y: Drawn) -> None:
    assert x.index + y.index == y.index + x.index
    assert hash(x.index + y.index) == hash(y.index + x.index)
    assert (x.index - x.index) == number(0)
    assert x.index * 2 == x.index + x.index


@given(expressions, st.sampled_from([1, 2, 3, 5, 12]))
def test_a_quotient_and_its_remainder_make_the_whole(drawn: Drawn, by: int) -> None:
    x = drawn.index
    whole = (x // by) * by + x % by
    for point in POINTS[::7]:
        assert whole.value(point) == drawn.at(point)
        assert 0 <= (x % by).value(point) < by
    assert (x % by).low >= 0 and (x % by).high < by


def box(shape: tuple[int, ...]) -> tuple[Index, ...]:
    return tuple(variable(f"i{axis}", 0, size - 1) for axis, size in enumerate(shape))


shapes = st.lists(st.sampled_from([1, 2, 3, 4, 5, 7, 12]), max_size=4).map(tuple)


@given(shapes)
def test_the_place_in_memory_and_back_leaves_no_quotient(shape: tuple[int, ...]) -> None:
    assert delinear(linear(box(shape), shape), shape) == box(shape)


@given(shapes, st.randoms(use_true_random=False))
def test_a_reshape_and_its_inverse_leave_no_quotient(shape: tuple[int, ...], random: Any) -> None:
    """Through a flat array, with axes of size one added, and through a shape that has two axes in one."""
    others = [(int(np.prod(shape)),), (1, *shape, 1)]
    if len(shape) > 1:
        k = random.randrange(len(shape) - 1)
        others.append((*shape[:k], shape[k] * shape[k + 1], *shape[k + 2 :]))
    for other in others:
        there = delinear(linear(box(shape), shape), other)
        assert sum(index.divisions() for index in there) == 0
        assert delinear(linear(there, other), shape) == box(shape)


@given(st.lists(st.sampled_from([2, 3, 4, 6]), min_size=1, max_size=3), st.integers(0, 5))
def test_shapes_that_do_not_fit_each_other_still_name_the_same_element(sizes: list[int], which: int) -> None:
    shape, total = tuple(sizes), int(np.prod(sizes))
    first = [d for d in range(1, total + 1) if total % d == 0][which % sum(total % d == 0 for d in range(1, total + 1))]
    other = (first, total // first)
    there = delinear(linear(box(shape), shape), other)
    for place in np.ndindex(shape):
        point = {f"i{axis}": i for axis, i in enumerate(place)}
        expected = np.unravel_index(np.ravel_multi_index(place, shape), other)
        assert tuple(index.value(point) for index in there) == tuple(map(int, expected))
    # Back again it is the same place in memory, with no quotient left.
    assert linear(there, other) == linear(box(shape), shape)


def test_bounds_let_quotients_fall_away() -> None:
    i, j = variable("i", 0, 9), variable("j", 0, 3)
    assert (i * 4 + j) // 4 == i and (i * 4 + j) % 4 == j
    assert (i * 4 + j + 3).divisions() == 0 and ((i * 4 + j + 3) // 4).divisions() == 1
    assert str((i * 12 + j * 3) // 6) == "2 * i + (j) // 2"
    assert (i * 12 + j * 3) % 6 == (j % 2) * 3
    assert variable("k", 7, 7) == number(7) and number(7).is_number
    assert (i // 10, i % 10) == (number(0), i)
    assert str(i * -2 + j - 5) == "-2 * i + j - 5" and str(number(0)) == "0"


def test_an_array_without_elements_or_dimensions_has_no_places() -> None:
    assert linear((), ()) == number(0)
    assert delinear(variable("i", 0, 5), (2, 0)) == (number(0), number(0))
    assert delinear(number(0), ()) == ()


@pytest.mark.parametrize("kind", [np.int64, np.int32, np.uint8])
def test_numbers_may_be_those_of_numpy(kind: Any) -> None:
    """Attributes of operations may hold them."""
    i = variable("i", 0, 20)
    assert i + kind(3) == i + 3 and i - kind(3) == i - 3 and i * kind(3) == i * 3
    assert i // kind(4) == i // 4 and i % kind(4) == i % 4
    assert linear((i,), (kind(21),)) == i
    assert (i * kind(200) + kind(100)).high == 4100
    # What comes out are Python's own, which never overflow.
    made = (i * 8 + kind(7)) // kind(4) + (i + kind(2)) % kind(5)
    numbers = [made.number, made.low, made.high, *(c for _, c in made.terms)]
    assert all(type(n) is int for n in numbers), numbers
    assert all(type(a.by) is int for a, _ in made.terms if not isinstance(a, Variable))
    assert Quotient(i, 4).high == 5
