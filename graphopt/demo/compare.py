"""Two compiled forms of one function, side by side: are their results equal, and how long do they take."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
from numpy.typing import NDArray

Function = Callable[..., Any]
Arguments = tuple[object, ...]


class Times(NamedTuple):
    """Seconds that our form takes, and theirs."""

    ours: float
    theirs: float


class Difference(NamedTuple):
    """How far two results are apart: the largest absolute difference, and whether all bits are the same.

    `largest` is infinite where only one of two numbers is NaN or infinite.
    """

    largest: float
    bitwise: bool


class Pair(NamedTuple):
    """A function as it was written, as graphopt.jit compiles it (ours), and as jax.jit does (theirs)."""

    written: Function
    ours: Function
    theirs: Function

    def first_calls(self, args: Arguments) -> Times:
        """Time the first call of each, which traces and compiles."""
        # JAX keeps the traces of functions inside (jax.nn.relu, say): without this, who comes first pays for both.
        jax.make_jaxpr(lambda *args: self.written(*args))(*args)
        return Times(_seconds(self.ours, args), _seconds(self.theirs, args))

    def later_calls(self, args: Arguments, seconds: float) -> Times:
        """Return the median time of a call of each, once they are compiled, measured for about `seconds`.

        They take turns, in changing order, so that whatever slows the machine for a while slows both.
        """
        one_turn = _seconds(self.ours, args) + _seconds(self.theirs, args)
        times: tuple[list[float], list[float]] = ([], [])
        for turn in range(min(max(5, round(seconds / one_turn)), 1000)):
            for which in (0, 1) if turn % 2 else (1, 0):
                times[which].append(_seconds((self.ours, self.theirs)[which], args))
        return Times(*map(statistics.median, times))

    def difference(self, args: Arguments) -> Difference:
        """Compare the results of a call of each."""
        return difference(self.ours(*args), self.theirs(*args))


def difference(ours: object, theirs: object) -> Difference:
    """Compare two results, pytrees of arrays. Raises ValueError where structure, shapes or dtypes differ."""
    our_tree: Any = jax.tree.structure(ours)
    their_tree: Any = jax.tree.structure(theirs)
    if our_tree != their_tree:
        raise ValueError(f"the results have different structures: {our_tree} and {their_tree}")
    pairs = [(_numbers(a), _numbers(b)) for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True)]
    for a, b in pairs:
        if (a.shape, a.dtype) != (b.shape, b.dtype):
            raise ValueError(f"the results have different types: {a.dtype}{a.shape} and {b.dtype}{b.shape}")
    return Difference(
        largest=max((_largest_difference(a, b) for a, b in pairs), default=0.0),
        bitwise=all(a.tobytes() == b.tobytes() for a, b in pairs),
    )


def _seconds(function: Function, args: Arguments) -> float:
    """Time one call, until its results are there."""
    start = time.perf_counter()
    jax.block_until_ready(function(*args))
    return time.perf_counter() - start


def _numbers(leaf: jax.Array) -> NDArray[Any]:
    """Return a leaf as a NumPy array; of random keys, their words."""
    is_key = jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)
    return np.asarray(jax.random.key_data(leaf) if is_key else leaf)


def _largest_difference(a: NDArray[Any], b: NDArray[Any]) -> float:
    """Return the largest |a - b|, where two NaN or two equal infinities are no difference."""
    wide = np.complex128 if np.iscomplexobj(a) else np.float64
    a, b = a.astype(wide), b.astype(wide)
    with np.errstate(invalid="ignore"):
        apart = np.where((a == b) | (np.isnan(a) & np.isnan(b)), 0.0, np.abs(a - b))
    return float(np.where(np.isnan(apart), np.inf, apart).max(initial=0.0))
