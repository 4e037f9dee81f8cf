"""Figures in a file: what `--json` writes, and what `--against` reads and compares."""

from __future__ import annotations

import json
import platform
import resource
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import jax

import graphopt
from graphopt.bench.caches import last_cache
from graphopt.bench.measure import Ratio
from graphopt.bench.rows import Row

FORMAT = 2
"""Raised whenever a field changes its meaning or its place."""

MACHINE = ("machine", "device", "python", "jax")
"""Fields that must be equal for two files to speak of the same thing."""


class FiguresError(ValueError):
    """A file does not have figures that can be compared."""


def figures(results: Mapping[str, Sequence[Row]], complete: bool) -> dict[str, Any]:
    """What `--json` writes: where it was measured, and of each suite its rows, by the names of `Row`'s fields.

    complete: whether every case was measured that was asked for.
    """
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {
        "format": FORMAT,
        "machine": platform.processor() or platform.machine(),
        "device": jax.devices()[0].device_kind,
        "python": platform.python_version(),
        "jax": jax.__version__,
        "graphopt": graphopt.__version__,
        "complete": complete,
        "cache_bytes": last_cache(),
        "peak_process_bytes": peak if sys.platform == "darwin" else 1024 * peak,
        "suites": {name: [asdict(row) for row in rows] for name, rows in results.items()},
    }


def read(file: Path) -> dict[str, Any]:
    """The figures in a file. Raises FiguresError where there are none, or those of another format."""
    try:
        written = json.loads(file.read_text())
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise FiguresError(f"{file} cannot be read: {error}") from error
    if not isinstance(written, dict) or "suites" not in written:
        raise FiguresError(f"{file} has no figures of `graphopt bench --json`")
    if written.get("format") != FORMAT:
        found = f"format {written['format']}" if "format" in written else "a format before numbers were given"
        raise FiguresError(f"{file} has {found}, this is format {FORMAT}: measure again with this graphopt")
    try:
        ratios(written)
    except (KeyError, TypeError, AttributeError) as error:
        raise FiguresError(
            f"{file} says that it has format {FORMAT}, but its suites are not in it: {error!r}"
        ) from error
    return written


Key = tuple[str, str, str]
"""Suite, case, and what was measured."""


def ratios(written: Mapping[str, Any]) -> dict[Key, Ratio]:
    """Graphopt's time over jax.jit's, of every case without an error."""
    return {
        (suite, row["name"], name): Ratio(**measure["ratio"])
        for suite, rows in written["suites"].items()
        for row in rows
        for name, measure in row["measures"].items()
    }


@dataclass(frozen=True, slots=True)
class Change:
    """How a ratio changed between two runs."""

    key: Key
    before: Ratio
    now: Ratio

    @property
    def factor(self) -> float:
        """The ratio now over the ratio before: above 1 graphopt became slower, compared with jax.jit."""
        return self.now.median / self.before.median

    @property
    def verdict(self) -> str:
        """ "slower" or "faster" where the intervals do not overlap; "" where they do, or where one is missing."""
        before, now = self.before, self.now
        if before.low is None or before.high is None or now.low is None or now.high is None:
            return ""
        if now.low > before.high:
            return "slower"
        return "faster" if now.high < before.low else ""


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two runs compared: what both measured, what only one did, and how they differ otherwise.

    others: of each field of MACHINE that is not the same, its value before and now.
    """

    changes: list[Change]
    only_before: list[Key]
    only_now: list[Key]
    others: dict[str, tuple[Any, Any]]


def compare(before: Mapping[str, Any], now: Mapping[str, Any]) -> Comparison:
    """Compare two runs. What the run before measured of suites that now did not run is left out."""
    old, new = ratios(before), ratios(now)
    return Comparison(
        [Change(key, old[key], new[key]) for key in new if key in old],
        [key for key in old if key not in new and key[0] in now["suites"]],
        [key for key in new if key not in old],
        {name: (before.get(name), now.get(name)) for name in MACHINE if before.get(name) != now.get(name)},
    )
