"""Captured arrays that count, and triangles of ones: found where their places make them, and only there."""

import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from graphopt.analysis.regular import Sequence, Triangle, is_at_hand, sequence_of, triangle_of


@given(
    start=st.integers(-300, 300),
    step=st.integers(-5, 5),
    shape=st.lists(st.integers(1, 5), min_size=1, max_size=3),
    data=st.data(),
)
def test_sequences(start: int, step: int, shape: list[int], data: st.DataObject) -> None:
    axis = data.draw(st.integers(0, len(shape) - 1))
    dtype = data.draw(st.sampled_from(["int32", "int64", "int16"]))
    along = (start + step * np.arange(shape[axis])).reshape([-1 if k == axis else 1 for k in range(len(shape))])
    value = np.ascontiguousarray(np.broadcast_to(along, shape)).astype(dtype)
    found = sequence_of(value)
    assert found == (Sequence(axis, start, step) if step and shape[axis] > 1 else None)
    if found is not None and value.size > 2 * shape[axis]:
        value[tuple(data.draw(st.integers(0, n - 1)) for n in shape)] += 1
        assert sequence_of(value) is None


@given(rows=st.integers(2, 9), columns=st.integers(2, 9), shift=st.integers(-10, 10), above=st.booleans())
def test_triangles(rows: int, columns: int, shift: int, above: bool) -> None:
    row, column = np.indices((rows, columns))
    value = column >= row + shift if above else column <= row + shift
    found = triangle_of(value[:, None])
    assert found is not None and found.axes == (0, 2)
    again = column >= row + found.shift if found.above else column <= row + found.shift
    np.testing.assert_array_equal(again, value)
    assert triangle_of(value.astype(np.float32)) == Triangle((0, 1), found.shift, found.above)


def test_what_is_neither() -> None:
    assert sequence_of(np.arange(5.0)) is None and sequence_of(np.int32(3)) is None
    assert sequence_of(np.zeros((0, 3), np.int32)) is None and sequence_of(np.array([0, 1, 3])) is None
    assert sequence_of(np.arange(6).reshape(2, 3)) is None
    assert sequence_of(np.arange(256).astype(np.int8)) is None  # it comes round
    assert sequence_of(np.array([0, 2**31], np.uint32)) == Sequence(0, 0, 2**31)
    assert sequence_of(np.array([-(2**31), 2**31 - 1], np.int32)) is None
    assert triangle_of(2 * np.tri(5)) is None and triangle_of(np.eye(5)) is None and triangle_of(np.ones(5)) is None
    assert triangle_of(np.where(np.tri(5) > 0, np.nan, 0)) is None
    assert triangle_of(jax.random.key(0)) is None


def test_what_is_at_hand() -> None:
    assert is_at_hand(np.ones(3)) and is_at_hand(jnp.ones(3)) == (jax.default_backend() == "cpu")
    assert not is_at_hand(3) and not is_at_hand(jax.random.key(0))
    seen = []
    jax.make_jaxpr(lambda x: seen.append(is_at_hand(x)))(1.0)
    assert seen == [False]
    gone = jnp.ones(3) + 1
    gone.delete()
    assert not is_at_hand(gone)
