"""Windows: every way in which one may be written computes what JAX does, with any padding, strides and dilations."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st
from jax import lax

from graphopt.analysis import columns

from .test_columns import SEED, programs, whole


@pytest.fixture
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    """A few columns are a block."""
    monkeypatch.setattr(columns, "WIDTH", 4)


def pool(x: Any, *, size: int = 3, stride: int = 1, padding: str = "SAME") -> Any:
    window, strides = (1, size, size, 1), (1, stride, stride, 1)
    return lax.reduce_window(x, -jnp.inf, lax.max, window, strides, padding)


CASES: dict[str, tuple[Callable[..., Any], tuple[Any, ...]]] = {
    "max-pool": (pool, (whole(2, 5, 4, 3),)),
    "max-pool, in steps": (lambda x: pool(x * 2, stride=2) + 1, (whole(1, 5, 4, 6),)),
    "max-pool without padding": (lambda x: pool(x, padding="VALID"), (whole(1, 5, 4, 5),)),
    "a moving sum": (lambda x: lax.reduce_window(x, np.float32(0), lax.add, (5,), (1,), "SAME"), (whole(13),)),
    "an integer's minimum": (
        lambda x: lax.reduce_window(x, 99, lax.min, (2, 3), (2, 1), "VALID"),
        (whole(5, 7, dtype="int32"),),
    ),
    "a function of its own": (
        lambda x: lax.reduce_window(x, np.float32(0), lambda a, b: a + b * 2, (1, 3), (1, 2), "SAME"),
        (whole(3, 7),),
    ),
    "one column": (lambda x: lax.reduce_window(x, np.float32(0), lax.add, (3, 1), (1, 1), "SAME"), (whole(7, 1),)),
    "a window of all": (
        lambda x: lax.reduce_window(x, np.float32(0), lax.add, (5, 3), (1, 1), "VALID"),
        (whole(5, 3),),
    ),
    "the gradient of max-pool": (jax.grad(lambda x: (pool(x) * jnp.arange(4.0)[:, None]).sum()), (whole(1, 4, 4, 3),)),
    "in steps": (jax.grad(lambda x: (pool(x, stride=2) * jnp.arange(2.0)).sum()), (whole(1, 5, 4, 2),)),
    "the gradient of the gradient": (
        lambda x, t: jax.jvp(lambda x: pool(x, size=2, stride=2), (x,), (t,))[1],
        (whole(1, 4, 4, 3), whole(1, 4, 4, 3)),
    ),
    "several reduced together": (
        lambda x, y: lax.reduce((x, y), (np.float32(0), np.float32(1)), lambda a, b: (a[0] + b[0], a[1] * b[1]), (0,)),
        (whole(3, 5), whole(3, 5)),
    ),
    "several reduced along rows": (
        lambda x, y: lax.reduce((x, y), (np.float32(-9), np.int32(9)), nearest, (1,)),
        (whole(3, 5), whole(3, 5, dtype="int32")),
    ),
}


def nearest(a: Any, b: Any) -> Any:
    is_less = lax.lt(a[0], b[0])
    return lax.select(is_less, b[0], a[0]), lax.select(is_less, b[1], a[1])


@pytest.mark.parametrize("name", CASES)
def test_windows(name: str, narrow: None) -> None:
    function, args = CASES[name]
    assert programs(function, *args)


@seed(SEED)
@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_any_window(data: st.DataObject) -> None:
    rank = data.draw(st.integers(1, 3))
    each = lambda low, high: data.draw(st.tuples(*[st.integers(low, high)] * rank))
    shape, window, strides, holes, dilation = each(1, 6), each(1, 3), each(1, 3), each(1, 2), each(1, 2)
    padding = tuple(zip(each(0, 2), each(0, 2), strict=True))
    combine, start = data.draw(st.sampled_from([(lax.add, 0), (lax.max, -99), (lax.min, 99)]))
    dtype = data.draw(st.sampled_from(["float32", "int32"]))
    x = whole(*shape, dtype=dtype)
    start = np.asarray(start, dtype)[()]
    if dtype == "float32" and start:
        start = np.float32(np.inf * start)

    def function(x: Any) -> Any:
        return lax.reduce_window(x, start, combine, window, strides, padding, holes, dilation)

    if 0 in jax.eval_shape(function, x).shape:
        return
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(columns, "WIDTH", data.draw(st.integers(1, 6)))
        programs(function, x)


@seed(SEED)
@settings(max_examples=10, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_any_gradient(data: st.DataObject) -> None:
    rank = data.draw(st.integers(1, 2))
    each = lambda low, high: data.draw(st.tuples(*[st.integers(low, high)] * rank))
    shape, window, strides = each(1, 6), each(1, 3), each(1, 4)
    padding = tuple(zip(each(0, 1), each(0, 1), strict=True))
    combine, start = data.draw(st.sampled_from([(lax.max, -np.inf), (lax.min, np.inf)]))
    x = data.draw(st.sampled_from([whole(*shape), np.full(shape, start, np.float32)]))
    function = lambda x: lax.reduce_window(x, np.float32(start), combine, window, strides, padding)
    found = jax.eval_shape(function, x)
    if 0 in found.shape:
        return
    weights = whole(*found.shape)
    programs(lambda x, w: jax.vjp(function, x)[1](w)[0], x, weights)
