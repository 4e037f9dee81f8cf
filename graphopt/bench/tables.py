"""The tables that are printed: a suite's rows, and what changed since an earlier run."""

from __future__ import annotations

from collections.abc import Sequence

import jax
from rich.markup import escape
from rich.table import Table

from graphopt.bench import least
from graphopt.bench.figures import Change
from graphopt.bench.measure import Ratio, geometric_mean
from graphopt.bench.rows import Row

NOT_SLOWER = 0.95
"""How fast, in jax.jit's speed, what is called no slower is at least, with 95% confidence."""


def suite_table(name: str, subject: str, rows: Sequence[Row], over: str = "jax.jit's") -> Table:
    """The rows of a suite, and the geometric means of their ratios. over: whose time graphopt's is compared with.

    Times are those of the first thing measured. A column is left out where no row has anything for it.
    """
    measured = list(dict.fromkeys(measure for row in rows for measure in row.measures))
    numpy = any(m.numpy_ratio is not None for row in rows for m in row.measures.values())
    memory = any(row.memory is not None for row in rows)
    passes = any(row.passes is not None for row in rows)
    same = any(row.same for row in rows)
    title = f"{name}: {subject}\ngraphopt's time over {over} (jax {jax.__version__})"
    table = Table(title=title, title_justify="left")
    table.add_column("case")
    headings = ["equations", over.removesuffix("'s"), "graphopt", *(f"{m} [95%]" for m in measured)]
    headings += ["over NumPy's"] * numpy + ["memory of both"] * memory + ["passes"] * passes + ["program"] * same
    for heading in headings:
        table.add_column(heading, justify="right")
    for row in rows:
        if row.error is not None:
            table.add_row(escape(row.name), "[red]failed")
            continue
        table.add_row(*map(escape, _cells(row, measured, numpy, memory, passes, same)))
    good = [row for row in rows if row.error is None]
    if good:
        table.add_section()
        means = [_mean([row.measures[m].ratio for row in good if m in row.measures]) for m in measured]
        first = [row.measures[measured[0]].numpy_ratio for row in good if measured[0] in row.measures]
        table.add_row(
            "geometric mean", "", "", "", *means, *([_mean([r for r in first if r is not None])] if numpy else [])
        )
    return table


def verdicts(rows: Sequence[Row]) -> str:
    """How many cases are faster, slower or perhaps slower, of those that XLA did not make the same program of."""
    others = [row for row in rows if row.error is None and not row.same]
    lines = [f"XLA made the same program of {sum(row.same for row in rows)} of {len(rows)} cases."]
    for measured in dict.fromkeys(m for row in others for m in row.measures):
        ratios = {row.name: row.measures[measured].ratio for row in others if measured in row.measures}
        sure = {name: (r.low, r.high) for name, r in ratios.items() if r.low is not None and r.high is not None}
        if not sure:
            continue
        faster = sum(high < 1 for _, high in sure.values())
        slower = [name for name, (low, _) in sure.items() if low > 1]
        perhaps = [name for name, (low, high) in sure.items() if low <= 1 and high > 1 / NOT_SLOWER]
        lines.append(
            f"Of the others, {measured}: {faster} of {len(sure)} are faster; {len(slower)} slower"
            f"{_listed(slower)}; {len(perhaps)} that may be slower than {NOT_SLOWER} times as fast{_listed(perhaps)}."
        )
    return "\n".join(lines)


def beside_numpy(rows: Sequence[Row]) -> str:
    """How many cases are slower than NumPy, and of these how many would be whatever computing took; warm."""
    found = {row.name: row.measures["warm"] for row in rows if "warm" in row.measures}
    timed = {name: measure for name, measure in found.items() if measure.numpy_ratio is not None}
    slower = {name: m.seconds for name, m in timed.items() if m.numpy_ratio is not None and m.numpy_ratio.median > 1}
    by_call = {name for name, seconds in slower.items() if seconds.get(least.JAX, 0.0) >= seconds["numpy"]}
    rest = {name: least.computing(seconds) for name, seconds in slower.items() if name not in by_call}
    as_soon = {name for name, computed in rest.items() if computed is not None and computed[0] <= computed[1]}
    others = [name for name in rest if name not in as_soon]
    return (
        f"Beside NumPy, warm: {len(slower)} of {len(timed)} are slower. In {len(by_call)} of these the least call, "
        f"which makes a result of the same shape, takes as long as NumPy; in {len(as_soon)} what comes on top of it "
        f"takes no longer than what comes on top of NumPy's; {len(others)} others{_listed(others)}."
    )


def _listed(names: Sequence[str]) -> str:
    return f" ({'; '.join(names)})" if names else ""


def _cells(row: Row, measured: Sequence[str], numpy: bool, memory: bool, passes: bool, same: bool) -> list[str]:
    main = row.measures[measured[0]]
    cells = [row.name, str(row.equations), time(main.seconds["jax"]), time(main.seconds["graphopt"])]
    cells += [str(row.measures[m].ratio) if m in row.measures else "" for m in measured]
    if numpy:
        cells.append(f"{main.numpy_ratio.median:.3f}" if main.numpy_ratio is not None else "")
    if memory:
        needed = row.memory
        cells.append(f"{size(needed['jax'])} / {size(needed['graphopt'])}" if needed is not None else "")
    if passes:
        share = None if row.passes is None else row.passes / main.seconds["graphopt"]
        cells.append("" if share is None else f"{100 * share:.1f}%")
    if same:
        cells.append("same" if row.same else "")
    return cells


def _mean(ratios: Sequence[Ratio]) -> str:
    return f"{geometric_mean([ratio.median for ratio in ratios]):.3f}" if ratios else ""


def changes_table(file: str, changes: Sequence[Change]) -> Table:
    """What changed since the run in `file`: a line for each case and measure."""
    table = Table(title=f"graphopt's time over jax.jit's, before ({escape(file)}) and now", title_justify="left")
    table.add_column("suite")
    table.add_column("case")
    table.add_column("measured")
    for heading in ("before [95%]", "now [95%]", "change", ""):
        table.add_column(heading, justify="right")
    for change in changes:
        color = {"slower": "red", "faster": "green"}.get(change.verdict)
        cells = (*change.key, str(change.before), str(change.now), f"×{change.factor:.3f}", change.verdict)
        table.add_row(*map(escape, cells), style=color)
    return table


def time(seconds: float) -> str:
    """Seconds in the unit that fits."""
    if seconds >= 1:
        return f"{seconds:.2f} s"
    return f"{seconds * 1e3:.1f} ms" if seconds >= 1e-3 else f"{seconds * 1e6:.2f} µs"


def size(count: float) -> str:
    """Bytes in the unit that fits."""
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" or count >= 100 else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} GB"
