"""Cases of single operations: what they are made of."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from graphopt.bench.programs import Program, renewed

SHORT = {"float32": "f32", "int32": "i32", "complex64": "c64", "bool": "bool"}


@dataclass(frozen=True, slots=True)
class Operand:
    """An array of a case: even numbers of the interval [low, high), of which complex ones take both parts."""

    shape: tuple[int, ...]
    dtype: str = "float32"
    low: float = -1.0
    high: float = 1.0

    def __str__(self) -> str:
        return f"{SHORT[self.dtype]}[{','.join(map(str, self.shape))}]"

    def draw(self, random: np.random.Generator) -> jax.Array:
        """Such an array."""
        if self.dtype == "bool":
            return jnp.asarray(random.random(self.shape, np.float32) < 0.5)
        if self.dtype == "int32":
            return jnp.asarray(random.integers(int(self.low), int(self.high), self.shape, np.int32))
        real = self._reals(random)
        return jnp.asarray(real + 1j * self._reals(random) if self.dtype == "complex64" else real)

    def _reals(self, random: np.random.Generator) -> np.ndarray[Any, np.dtype[np.float32]]:
        return random.random(self.shape, np.float32) * np.float32(self.high - self.low) + np.float32(self.low)


@dataclass(frozen=True, slots=True)
class Operation:
    """A case of a primitive.

    primitive: its name. function: a function in which it is the one that takes the time.
    operands: returns its operands, the first of them or the result being of about the number of elements given.
    numpy: the same in NumPy, its result an array of its own; None where NumPy has not what it takes.
    """

    primitive: str
    function: Callable[..., Any]
    operands: Callable[[int], tuple[Operand, ...]]
    numpy: Callable[..., Any] | None = None

    def program(self, elements: int, label: str) -> Program:
        """The program for this number of elements; its name has the primitive, the label and the operands."""
        operands = self.operands(elements)

        def arguments() -> tuple[Any, ...]:
            random = np.random.default_rng(0)
            return tuple(operand.draw(random) for operand in operands)

        # An operation without operands (iota) makes an array of as many elements.
        function, numpy = (f if operands else _given(f, elements) for f in (self.function, self.numpy))
        assert function is not None
        name = f"{self.primitive}, {label}: {_listed(operands)}" if operands else f"{self.primitive}, {label}"
        return Program(name, renewed(function), arguments, numpy)


def _given(function: Callable[..., Any] | None, elements: int) -> Callable[..., Any] | None:
    return None if function is None else lambda: function(elements)


def _listed(operands: tuple[Operand, ...]) -> str:
    """The operands' types, equal neighbours counted."""
    groups = [(text, len(list(group))) for text, group in groupby(map(str, operands))]
    return " ".join(text if count == 1 else f"{count}×{text}" for text, count in groups)


def vectors(*ranges: tuple[float, float], dtype: str = "float32") -> Callable[[int], tuple[Operand, ...]]:
    """Operands with one axis of all the elements, one for each range of values."""
    return lambda n: tuple(Operand((n,), dtype, *r) for r in ranges)


def square(low: float = -1.0, high: float = 1.0, dtype: str = "float32") -> Callable[[int], tuple[Operand, ...]]:
    """One operand, a square matrix."""
    return lambda n: (Operand((math.isqrt(n),) * 2, dtype, low, high),)
