"""`graphopt bench`: runs suites, shows progress, prints a table, writes JSON."""

from __future__ import annotations

import argparse
import json
import platform
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import jax
from rich.console import Console
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
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to FILE as well")
    arguments = parser.parse_args(argv)
    if unknown := set(arguments.suites) - set(SUITES):
        parser.error(f"unknown suite {', '.join(sorted(unknown))}; known: {', '.join(SUITES)}")
    if arguments.repeats < 1:
        parser.error("--repeats must be at least 1")
    console = Console()
    results = {}
    for name in arguments.suites or SUITES:
        with console.status(f"{name} …") as status:
            rows = []
            for row in SUITES[name](arguments.repeats, arguments.only):
                rows.append(row)
                status.update(f"{name}: {row.name} {row.ratio}")
        console.print(table(name, rows))
        results[name] = [asdict(row) for row in rows]
    if arguments.json is not None:
        machine = {"machine": platform.processor() or platform.machine(), "python": platform.python_version()}
        versions = {"jax": jax.__version__, "graphopt": graphopt.__version__}
        arguments.json.write_text(json.dumps({**machine, **versions, "suites": results}, indent=1) + "\n")
    return 0


def table(name: str, rows: Sequence[Row]) -> Table:
    """The rows of a suite, and the geometric mean of their ratios."""
    shown = Table(title=f"{name}: graphopt's time over jax.jit's (jax {jax.__version__})", title_justify="left")
    shown.add_column("case")
    for heading in ("equations", "jax.jit", "graphopt", "ratio [95%]"):
        shown.add_column(heading, justify="right")
    for row in rows:
        shown.add_row(row.name, str(row.equations), time(row.jax_seconds), time(row.graphopt_seconds), str(row.ratio))
    if rows:
        shown.add_section()
        shown.add_row("geometric mean", "", "", "", f"{geometric_mean([row.ratio.median for row in rows]):.3f}")
    return shown


def time(seconds: float) -> str:
    """Seconds in the unit that fits."""
    if seconds >= 1:
        return f"{seconds:.2f} s"
    return f"{seconds * 1e3:.1f} ms" if seconds >= 1e-3 else f"{seconds * 1e6:.2f} µs"
