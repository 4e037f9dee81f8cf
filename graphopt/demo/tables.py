"""The tables that the demo prints."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from rich.table import Table

from graphopt.demo.compare import Difference, Times
from graphopt.demo.digits import Examples, Split
from graphopt.demo.network import Prediction
from graphopt.rewrite.passes import PassRecord


class Row(NamedTuple):
    """One job as graphopt and as jax.jit ran it."""

    job: str
    first: Times
    later: Times
    difference: Difference


def accuracies(data: Split, shares: Mapping[str, float]) -> Table:
    """Show the share of each set of examples whose digit was named."""
    table = Table(title="Digits recognized")
    table.add_column("set")
    table.add_column("images", justify="right")
    table.add_column("accuracy", justify="right")
    for name, examples in data._asdict().items():
        table.add_row(name, str(len(examples.labels)), f"{shares[name]:.2%}")
    return table


def served(examples: Examples, prediction: Prediction) -> Table:
    """Show what was predicted for the first of the examples."""
    table = Table(title="Served: the first images of the test set")
    table.add_column("image")
    named = np.asarray(prediction.digits)
    probabilities = np.asarray(prediction.probabilities)
    for number in range(len(named)):
        table.add_column(str(number), justify="right")
    table.add_row("label", *map(str, examples.labels[: len(named)]))
    table.add_row("prediction", *map(str, named))
    table.add_row("probability", *(f"{p:.0%}" for p in probabilities.max(axis=1)))
    return table


def times(rows: Iterable[Row], tolerance: float) -> Table:
    """Show the times of both, and how far their results are apart."""
    caption = f"first: with tracing and compiling; later: the median.\nResults count as equal up to {tolerance:g}."
    table = Table(title="graphopt.jit and jax.jit", caption=caption)
    table.add_column("job", no_wrap=True)
    for calls in ("first", "later"):
        table.add_column(f"graphopt\n{calls}", justify="right", no_wrap=True)
        table.add_column(f"jax.jit\n{calls}", justify="right", no_wrap=True)
    table.add_column("largest\ndifference", justify="right", no_wrap=True)
    for row in rows:
        apart = "0 (bitwise)" if row.difference.bitwise else f"{row.difference.largest:.1e}"
        style = None if row.difference.largest <= tolerance else "red"
        table.add_row(row.job, *map(duration, (*row.first, *row.later)), apart, style=style)
    return table


def passes(records: Mapping[str, Sequence[PassRecord]]) -> Table:
    """Show by how many nodes each pass changed the graph of each job, and the time it took in all of them."""
    table = Table(title="Passes: nodes added or taken away")
    table.add_column("pass")
    for job in records:
        table.add_column(job, justify="right")
    table.add_column("time", justify="right")
    names = dict.fromkeys(record.name for job in records.values() for record in job)
    table.add_row("traced", *(str(job[0].nodes_before) if job else "-" for job in records.values()), "")
    for name in names:
        runs = [[record for record in job if record.name == name] for job in records.values()]
        changes = (sum(r.nodes_after - r.nodes_before for r in job) for job in runs)
        seconds = sum(r.seconds for job in runs for r in job)
        table.add_row(name, *(f"{change:+d}" if change else "·" for change in changes), duration(seconds))
    table.add_section()
    table.add_row("compiled", *(str(job[-1].nodes_after) if job else "-" for job in records.values()), "")
    return table


def duration(seconds: float) -> str:
    """Write a time with three digits and the unit that suits it."""
    for unit, name in ((1.0, "s"), (1e-3, "ms")):
        if seconds >= unit:
            return f"{seconds / unit:.3g} {name}"
    return f"{seconds / 1e-6:.3g} µs"
