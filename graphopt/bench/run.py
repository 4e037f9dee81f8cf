"""Measures graphopt next to jax.jit and NumPy, in turn in one process; prints tables, writes and compares figures."""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from graphopt import store
from graphopt.backends.numba.objects import compile_seconds
from graphopt.bench import figures, shares
from graphopt.bench.caches import keep_memory
from graphopt.bench.programs import Program
from graphopt.bench.rows import Row
from graphopt.bench.suites import SUITES
from graphopt.bench.tables import beside_numpy, changes_table, suite_table, verdicts

INTERRUPTED = 130
"""The exit status of a command that Ctrl-C ends."""

WIDE = 170
"""Columns where the output goes to no terminal."""


def main(argv: Sequence[str]) -> int:
    """Run the suites that `argv` names. Return 0, 1 where a case failed, or INTERRUPTED."""
    parser, arguments = _arguments(argv)
    try:
        before = figures.read(arguments.against) if arguments.against is not None else None
    except figures.FiguresError as error:
        parser.error(f"--against: {error}")
    chosen = {
        name: [program for program in SUITES[name].programs() if arguments.only in program.name]
        for name in dict.fromkeys(arguments.suites or SUITES)
    }
    if not any(chosen.values()):
        parser.error(f"no case of {', '.join(chosen)} has {arguments.only!r} in its name")
    console = Console()
    if not console.is_terminal:
        console = Console(width=max(console.width, WIDE))
    results: dict[str, list[Row]] = {name: [] for name in chosen}
    keep_memory()  # before there are threads
    # Kernels that an earlier process has kept would make first calls short.
    with tempfile.TemporaryDirectory() as folder, store.kept_in(Path(folder)):
        console.print(shares.beginning())
        complete = measure(console, chosen, results, arguments.repeats)
    now = figures.figures(results, complete)
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(now, indent=1) + "\n")
    if before is not None:
        print_comparison(console, str(arguments.against), figures.compare(before, now))
    failed = sum(row.error is not None for rows in results.values() for row in rows)
    if failed:
        console.print(f"{failed} of the cases failed: there is no figure for them.", style="red")
    if not complete:
        console.print("Interrupted: the rest was not measured.", style="red")
        return INTERRUPTED
    return 1 if failed else 0


def _arguments(argv: Sequence[str]) -> tuple[argparse.ArgumentParser, argparse.Namespace]:
    parser = argparse.ArgumentParser(prog="graphopt bench", description=__doc__)
    parser.add_argument("suites", nargs="*", help=f"which suites: {', '.join(SUITES)} (all)")
    parser.add_argument("--only", default="", metavar="TEXT", help="only cases with TEXT in their names")
    parser.add_argument("--repeats", type=int, default=7, help="rounds of each case, short ones get more (7)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to FILE too")
    parser.add_argument("--against", type=Path, metavar="FILE", help="compare with the figures in FILE, from --json")
    arguments = parser.parse_intermixed_args(argv)
    if unknown := set(arguments.suites) - set(SUITES):
        parser.error(f"unknown suite {', '.join(sorted(unknown))}; known: {', '.join(SUITES)}")
    if arguments.repeats < 1:
        parser.error("--repeats must be at least 1")
    if arguments.json is not None and not arguments.json.absolute().parent.is_dir():
        parser.error(f"--json: there is no folder {arguments.json.parent}")
    if jax.config.jax_compilation_cache_dir:  # type: ignore[attr-defined]
        parser.error("JAX's persistent cache would make first calls short: unset JAX_COMPILATION_CACHE_DIR")
    return parser, arguments


def measure(
    console: Console, chosen: Mapping[str, Sequence[Program]], results: dict[str, list[Row]], repeats: int
) -> bool:
    """Measure the chosen programs, append their rows to `results`, and print a table after each suite.

    Returns whether all were measured: Ctrl-C ends it, and what is measured by then is printed.
    """
    for name, programs in chosen.items():
        complete = True
        try:
            with _progress(console) as progress:
                task = progress.add_task(name, total=len(programs))
                for program in programs:
                    progress.update(task, description=escape(f"{name}: {program.name}"))
                    results[name].append(SUITES[name].measure(program, repeats))
                    progress.advance(task)
        except KeyboardInterrupt:
            complete = False
        print_rows(console, name, results[name])
        if not complete:
            return False
        if name == "programs":
            console.print(shares.over(programs))
            console.print(shares.compiling(compile_seconds))
    return True


def _progress(console: Console) -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    return Progress(*columns, console=console, transient=True)


def print_rows(console: Console, name: str, rows: Sequence[Row]) -> None:
    """Print the table of a suite, and below it why cases failed."""
    if rows:
        console.print(suite_table(name, SUITES[name].subject, rows, SUITES[name].over))
        if any("warm" in row.measures for row in rows):
            console.print(escape(verdicts(rows)), soft_wrap=True)
        if any(measure.numpy_ratio is not None for row in rows for measure in row.measures.values()):
            console.print(escape(beside_numpy(rows)), soft_wrap=True)
    for row in rows:
        if row.error is not None:
            console.print(escape(f"{row.name}: {row.error}"), style="red", soft_wrap=True)
    if any(m.ratio.low is None for row in rows for m in row.measures.values()):
        console.print(r"\[?]: fewer than six rounds, which give no interval.")


def print_comparison(console: Console, file: str, comparison: figures.Comparison) -> None:
    """Print what changed since an earlier run, and what cannot be compared."""
    for name, (before, now) in comparison.others.items():
        console.print(escape(f"The {name} was another one in {file}: {before}, now {now}."), style="yellow")
    if comparison.changes:
        console.print(changes_table(file, comparison.changes))
    verdicts = [change.verdict for change in comparison.changes]
    console.print(
        f"{len(verdicts)} compared: {verdicts.count('slower')} slower and {verdicts.count('faster')} faster, "
        "of which the intervals do not overlap."
    )
    for keys, where in ((comparison.only_before, f"only in {file}"), (comparison.only_now, f"not in {file}")):
        if keys:
            console.print(escape(f"{len(keys)} {where}: {_some(keys)}"), soft_wrap=True)


def _some(keys: Sequence[Any], most: int = 5) -> str:
    shown = "; ".join(" / ".join(key) for key in keys[:most])
    return shown if len(keys) <= most else f"{shown}; …"
