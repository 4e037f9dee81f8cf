"""The cases of JAX's own primitive tests, which its wheel carries: a function of one primitive and its arguments."""

import functools
import random
import re
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

# The 64-bit types are off in JAX unless asked for, and the cases that need them are defined only if they are on here.
with jax.enable_x64(True):
    from jax._src.internal_test_util import test_harnesses

OPTION_OF_A_CONVERTER = re.compile(r"_enable_?xla_(True|False)")
"""In the names of cases that JAX lists once for each of its values: the function is the same."""

NEEDS_64_BITS = re.compile(r"float64|int64|complex128")


@dataclass(frozen=True)
class Case:
    """One call of one primitive, with drawn arguments."""

    name: str
    group: str
    function: Callable[..., Any]
    draw: Callable[[np.random.RandomState], Sequence[Any]]

    @property
    def x64(self) -> bool:
        """Whether the case runs with 64-bit types on; those that need none run as JAX does by default."""
        return NEEDS_64_BITS.search(self.name) is not None

    def arguments(self, count: int) -> list[tuple[Any, ...]]:
        """`count` draws of the arguments, the same in each run."""
        generator = np.random.RandomState(zlib.adler32(self.name.encode()))
        return [tuple(self.draw(generator)) for _ in range(count)]


@functools.cache
def all_cases() -> tuple[Case, ...]:
    """Every case that JAX defines for this platform, by name: its own order follows hashes of types and varies."""
    cases = [
        Case(harness.fullname, harness.group_name, harness.dyn_fun, harness.dyn_args_maker)
        for harness in test_harnesses.all_harnesses
        if not crashes(harness)
    ]
    return tuple(sorted(cases, key=lambda case: case.name))


def grouped(cases: Sequence[Case]) -> tuple[tuple[Case, ...], ...]:
    """The cases, those that are the same function together: they differ in the drawn arguments alone."""
    groups: dict[str, list[Case]] = {}
    for case in cases:
        groups.setdefault(OPTION_OF_A_CONVERTER.sub("", case.name), []).append(case)
    return tuple(map(tuple, groups.values()))


def crashes(harness: test_harnesses.Harness) -> bool:
    """Whether JAX says that the case must not even be tried on this platform."""
    return any(
        limitation.skip_run and limitation.filter(jax.default_backend(), harness.dtype)
        for limitation in harness.jax_unimplemented
    )


def sample(cases: Sequence[Case], size: int, seed: int) -> list[Case]:
    """One case of each primitive, then others up to `size`, all drawn by `seed`."""
    generator = random.Random(seed)
    groups: dict[str, list[Case]] = {}
    for case in cases:
        groups.setdefault(case.group, []).append(case)
    chosen = {generator.choice(group).name for group in groups.values()}
    others = [case.name for case in cases if case.name not in chosen]
    chosen.update(generator.sample(others, max(0, min(size - len(chosen), len(others)))))
    return [case for case in cases if case.name in chosen]
