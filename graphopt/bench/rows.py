"""What the suites give back: of each case a row, of each way of measuring it the times and their ratio."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from graphopt.bench.measure import Ratio, paired_ratio


@dataclass(frozen=True, slots=True)
class Measure:
    """Median seconds of each contender, and graphopt's time over those of the others, paired within rounds.

    seconds: by contender: "jax", "graphopt" and, where there is a NumPy version, "numpy" and perhaps the least calls
    of `graphopt.bench.least`. A ratio below 1 says that graphopt is the faster one.
    """

    seconds: dict[str, float]
    ratio: Ratio
    numpy_ratio: Ratio | None = None


@dataclass(frozen=True, slots=True)
class Row:
    """One case.

    equations: of its jaxpr, those at the top, without what calls and loops hold.
    measures: by what was measured: "warm", "fresh", "first call" or "call".
    memory: bytes that the compiled program of "jax" and of "graphopt" needs; None where XLA does not say.
    same: whether XLA made the same program for "jax" and for "graphopt", so that their times differ by chance alone.
    passes: seconds of graphopt's first call that the passes take; None where that was not measured.
    error: why there are no figures; None where there are.
    """

    name: str
    equations: int = 0
    measures: dict[str, Measure] = field(default_factory=dict)
    memory: dict[str, int] | None = None
    same: bool = False
    passes: float | None = None
    error: str | None = None


def measure_of(seconds: Mapping[str, Sequence[float]]) -> Measure:
    """What rounds of the contenders "jax", "graphopt" and perhaps "numpy" say."""
    medians = {contender: statistics.median(values) for contender, values in seconds.items()}
    numpy = paired_ratio(seconds["graphopt"], seconds["numpy"]) if "numpy" in seconds else None
    return Measure(medians, paired_ratio(seconds["graphopt"], seconds["jax"]), numpy)
