"""Settings of the process, read once from the environment, and the options of one optimized function.

Unknown names and values are rejected with the list of those that are known: a misspelt setting must not pass silently.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, get_args

from graphopt.errors import OptionError
from graphopt.lock import Decision

Backend = Literal["auto", "xla", "numba"]
Numerics = Literal["exact", "standard", "fast"]

BACKENDS: tuple[str, ...] = get_args(Backend)
NUMERICS: tuple[str, ...] = get_args(Numerics)

CHECK = ("0", "1", "2")
DEBUG = ("0", "1", "2", "3", "4")

_ENVIRONMENT = {
    "GRAPHOPT_DUMP": "a directory that receives each region's graph before and after every pass",
    "GRAPHOPT_CHECK": "1 checks the graph after every pass, 2 also evaluates it, on drawn arguments, 0 does neither",
    "GRAPHOPT_DEBUG": "1 prints the times of passes, 2 also how each changed the graph, 3 also each rule that fired, "
    "4 also the program that is lowered",
}


@dataclass(frozen=True, slots=True)
class Settings:
    """What the environment asks of this process.

    `dump`: directory for graph text, or None. `check`: 1 where graphs are checked after every pass, 2
    where they are evaluated too. `debug`: how much is printed of each compilation, 0 (nothing) to 4 (`graphopt.debug`).
    """

    dump: Path | None = None
    check: int = 0
    debug: int = 0


def read_settings(environment: Mapping[str, str]) -> Settings:
    """Settings from `GRAPHOPT_*` variables of `environment`; raises OptionError on an unknown name or value."""
    for name in environment:
        if name.startswith("GRAPHOPT_") and name not in _ENVIRONMENT and not name.startswith("GRAPHOPT_TEST_"):
            raise OptionError(f"{_unknown('environment variable', name, tuple(_ENVIRONMENT))}")
    check = environment.get("GRAPHOPT_CHECK", "0")
    if check not in CHECK:
        raise OptionError(_unknown("GRAPHOPT_CHECK", check, CHECK))
    debug = environment.get("GRAPHOPT_DEBUG", "0")
    if debug not in DEBUG:
        raise OptionError(_unknown("GRAPHOPT_DEBUG", debug, DEBUG))
    dump = environment.get("GRAPHOPT_DUMP")
    return Settings(dump=Path(dump) if dump else None, check=int(check), debug=int(debug))


@lru_cache(maxsize=1)
def settings() -> Settings:
    """The settings of this process, read from the environment at the first call."""
    return read_settings(os.environ)


@dataclass(frozen=True, slots=True)
class Options:
    """What one optimized function asks for: hashable, so that every cache of JAX's sees it.

    backend: "xla" lowers everything to XLA; "numba" sends to Numba, on a CPU, all that it can take; "auto" may choose
        another engine than XLA where it is known to win.
    numerics: "exact", "standard" or "fast": which rewrites are allowed to change rounding.
    passes: None for the standard pipeline, or a tuple of passes (see `graphopt.passes`) to run instead.
    without: names of passes that are left out, in order.
    tuning: what was measured, from a lock file; it chooses engines where it knows the program.
    memory_limit: bytes that a program may take, its arguments and results among them; None for any number.
    """

    backend: str = "auto"
    numerics: str = "standard"
    passes: tuple[Any, ...] | None = None
    without: tuple[str, ...] = ()
    tuning: tuple[Decision, ...] = ()
    memory_limit: int | None = None

    def __post_init__(self) -> None:
        if self.backend not in BACKENDS:
            raise OptionError(_unknown("backend", self.backend, BACKENDS))
        if self.numerics not in NUMERICS:
            raise OptionError(_unknown("numerics", self.numerics, NUMERICS))


_UNITS = {"": 1, "B": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}


def read_bytes(limit: int | str | None) -> int | None:
    """A number of bytes, from it or from text such as "500MB" (10^6 bytes each) or "1.5 GiB" (2^30).

    Raises OptionError where it is neither, or not positive.
    """
    if limit is None or (isinstance(limit, int) and not isinstance(limit, bool) and limit > 0):
        return limit
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*", limit) if isinstance(limit, str) else None
    if found is None or found[2] not in _UNITS or float(found[1]) == 0:
        known = ", ".join(unit for unit in _UNITS if unit)
        raise OptionError(
            f"memory_limit must be bytes, as an int or as text like '500MB', not {limit!r}; units: {known}"
        )
    return int(float(found[1]) * _UNITS[found[2]])


def _unknown(what: str, found: object, known: tuple[str, ...]) -> str:
    return f"unknown {what} {found!r}; known: {', '.join(known)}"
