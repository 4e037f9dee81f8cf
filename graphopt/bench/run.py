"""`graphopt bench`: runs suites, shows progress, prints a table, writes JSON."""

from __future__ import annotations

import argparse
import json
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import jax
from rich.console import Console
from rich.markup import escape
from rich.table import Table

import graphopt
from graphopt.bench.measure import geometric_mean
from graphopt.bench.suites import SUITES, Row


def main(argv: Sequence[str]) -> int:
    """Runs the suites that `argv` names; returns the exit status."""
    parser = argparse.ArgumentParser(prog="graphopt bench", description=__doc__)
    parser.add_argument("suites", nargs="*", help=f"which suites: {', '.join(SUITES)} (all)")
    parser.add_argument("--only", default="", metavar="TEXT", help="only cases with TEXT in their names")
    parser.add_argument("--repeats", type=int, default=7, help="rounds of each case (7)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to FILE too")
    arguments = parser.parse_intermixed_args(argv)
    if unknown := set(arguments.suites) - set(SUITES):
        parser.error(f"unknown suite {', '.join(sorted(unknown))}; known: {', '.join(SUITES)}")
    if arguments.repeats < 1:
        parser.error("--repeats must be at least 1")
    if arguments.json is not None and not arguments.json.absolute().parent.is_dir():
        parser.error(f"--json: there is no folder {arguments.json.parent}")
    if jax.config.jax_compilation_cache_dir:  # type: ignore[attr-defined]
        parser.error("JAX's persistent cache would make first calls short: unset JAX_COMPILATION_CACHE_DIR")
    console = Console()
    results: dict[str, list[Row]] = {}
    for name in dict.fromkeys(arguments.suites or SUITES):
        with console.status(f"{name} …") as status:
            rows = results[name] = []
            for row in SUITES[name](arguments.repeats, arguments.only):
                rows.append(row)
                status.update(escape(f"{name}: {row.name} {row.ratio}"))
        if rows:
            console.print(table(name, rows))
    if not any(results.values()):
        parser.error(f"no case of {', '.join(results)} has {arguments.only!r} in its name")
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(figures(results), indent=1) + "\n")
    return 0


def figures(results: Mapping[str, Sequence[Row]]) -> dict[str, Any]:
    """What `--json` writes: machine, device, versions, and of each suite its rows, by the names of `Row`'s fields."""
    return {
        "machine": platform.processor() or platform.machine(),
        "device": jax.devices()[0].device_kind,
        "python": platform.python_version(),
        "jax": jax.__version__,
        "graphopt": graphopt.__version__,
        "suites": {name: [asdict(row) for row in rows] for name, rows in results.items()},
    }


def table(name: str, rows: Sequence[Row]) -> Table:
    """The rows of a suite (at least one), and the geometric mean of their ratios."""
    shown = Table(title=f"{name}: graphopt's time over jax.jit's (jax {jax.__version__})", title_justify="left")
    shown.add_column("case")
    for heading in ("equations", "jax.jit", "graphopt", "ratio [95%]"):
        shown.add_column(heading, justify="right")
    for row in rows:
        times = (time(row.jax_seconds), time(row.graphopt_seconds))
        shown.add_row(row.name, str(row.equations), *times, escape(str(row.ratio)))
    shown.add_section()
    shown.add_row("geometric mean", "", "", "", f"{geometric_mean([row.ratio.median for row in rows]):.3f}")
    return shown


def time(seconds: float) -> str:
    """Seconds in the unit that fits."""
    if seconds >= 1:
        return f"{seconds:.2f} s"
    return f"{seconds * 1e3:.1f} ms" if seconds >= 1e-3 else f"{seconds * 1e6:.2f} µs"
