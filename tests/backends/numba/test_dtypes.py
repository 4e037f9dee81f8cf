"""Random chains of operations through all dtypes, with exact numerics: the bits are those of XLA."""

import os
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, seed, settings
from hypothesis import strategies as st
from jax import lax

import graphopt
from graphopt.backends.numba.scalar import DTYPES
from graphopt.ir.aval import is_floating

from ...rules.drawing import values
from .test_kernels import kernels, same

SEED = int(os.environ.get("GRAPHOPT_TEST_SEED", "0"))
NAMES = [dtype.name for dtype in DTYPES]

INTEGERS = (
    *(lax.add, lax.sub, lax.mul, lax.max, lax.min, lax.bitwise_and, lax.bitwise_or, lax.bitwise_xor),
    *(lax.shift_left, lax.shift_right_logical, lax.shift_right_arithmetic),
)
"""Without quotients, which have a test of their own: of some numbers alone XLA ends the process."""
FLOATS = (lax.sub, lax.mul, lax.max, lax.min, lax.nextafter)
"""Without sums: a product and a sum may be rounded once, by XLA and by us."""
COMPLEX = (lax.sub, lambda x, y: lax.complex(lax.imag(x), lax.real(y)), lambda x, y: lax.conj(x))
LOGIC = (lax.bitwise_and, lax.bitwise_or, lax.bitwise_xor, lax.max, lambda x, y: lax.bitwise_not(y))

steps = st.lists(st.tuples(st.integers(0, 99), st.integers(0, 99), st.integers(0, 99)), min_size=2, max_size=14)


def step(known: list[Any], kind: int, first: int, second: int) -> Any:
    """One more value: an operation on two of one dtype, a choice, a comparison, or a conversion."""
    x = known[first % len(known)]
    alike = [y for y in known if y.dtype == x.dtype]
    y = alike[second % len(alike)]
    if kind % 4 == 0:
        return lax.convert_element_type(x, np.dtype(NAMES[kind // 4 % len(NAMES)]))
    if kind % 10 == 1:
        return lax.select(lax.ne(x, y), x, y)
    if kind % 10 == 2:
        return lax.eq(x, y) if x.dtype.kind == "c" else lax.lt(x, y)
    if kind % 10 == 3 and x.dtype.kind not in "bc" and x.dtype.itemsize in (2, 4):
        known_bits = lax.select(lax.ne(x, x), lax.full_like(x, 1), x)  # the bits of a NaN nobody promises
        return lax.bitcast_convert_type(known_bits, np.dtype(f"i{x.dtype.itemsize}"))
    table: Any = (
        LOGIC if x.dtype == bool else COMPLEX if x.dtype.kind == "c" else FLOATS if is_floating(x.dtype) else INTEGERS
    )
    return table[kind % len(table)](x, y)


def agrees(chain: list[tuple[int, int, int]], names: list[str], shape: tuple[int, ...], number: int) -> int:
    """One chain in kernels, against XLA; returns how many kernels there were."""
    random = np.random.default_rng(number)
    with jax.enable_x64(True):
        args = [settled(values(random, name, shape, True)) for name in names]

        def function(*args: Any) -> Any:
            known = list(args)
            for taken in chain:
                known.append(step(known, *taken))
            return known[len(args) :]

        jitted = graphopt.jit(function, backend="numba", numerics="exact", passes=())
        results = zip(jitted(*args), jax.jit(function)(*args), strict=True)
        for place, (found, expected) in enumerate(results):
            same(settled(np.asarray(found)), settled(np.asarray(expected)), what=f"{place} of {chain} of {names}")
        return len(kernels(jitted.explain(*args).graph))


def test_random_chains() -> None:
    counts = []

    @seed(SEED)
    @settings(max_examples=15)
    @given(
        steps,
        st.lists(st.sampled_from(NAMES), min_size=2, max_size=3),
        st.sampled_from([(), (1,), (17,), (3, 11)]),
        st.integers(0, 2**16),
    )
    def test(chain: Any, names: Any, shape: Any, number: int) -> None:
        counts.append(agrees(chain, names, shape, number))

    test()
    assert sum(counts) > 10


@pytest.mark.exhaustive
@pytest.mark.timeout(0)
def test_many_random_chains() -> None:
    for number in range(300):
        random = np.random.default_rng([SEED, number])
        chain = [tuple(map(int, random.integers(0, 100, 3))) for _ in range(random.integers(2, 15))]
        names = [str(name) for name in random.choice(NAMES, 3)]
        agrees(chain, names, [(), (1,), (17,), (3, 11)][number % 4], number)


def settled(x: Any) -> Any:
    """Without what XLA has in several ways: denormals, which it may flush, and signs and payloads of NaNs."""
    if x.dtype.kind == "c":
        found = np.empty_like(x)
        found.real, found.imag = settled(x.real), settled(x.imag)
        return found
    if not is_floating(x.dtype):
        return x
    with np.errstate(invalid="ignore"):
        x = np.where(np.isnan(x), np.array(1, x.dtype), x)
        return np.where(np.abs(x) < jnp.finfo(x.dtype).tiny, np.array(0, x.dtype), x)
