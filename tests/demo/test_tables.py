"""The tables say what was measured."""

from types import SimpleNamespace
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from rich.console import Console
from rich.table import Table

from graphopt.demo import tables
from graphopt.demo.compare import Difference, Times
from graphopt.demo.digits import Examples, Split
from graphopt.demo.network import Prediction


def lines(table: Table) -> list[list[str]]:
    """The cells of a table as printed 80 characters wide, line by line."""
    console = Console(width=80, force_terminal=False)
    with console.capture() as capture:
        console.print(table)
    text = capture.get().replace("┃", "│")
    return [[cell.strip() for cell in line.strip().strip("│").split("│")] for line in text.splitlines() if "│" in line]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "0 µs"),
        (2.5e-7, "0.25 µs"),
        (43.51e-6, "43.5 µs"),
        (0.0123, "12.3 ms"),
        (0.9, "900 ms"),
        (12.34, "12.3 s"),
    ],
)
def test_durations(seconds: float, text: str) -> None:
    assert tables.duration(seconds) == text


def test_times() -> None:
    rows = [
        tables.Row("train", Times(1.5, 1.25), Times(0.005, 0.006), Difference(0.0, True)),
        tables.Row("serve", Times(0.2, 0.1), Times(4e-5, 5e-5), Difference(2.5e-7, False)),
    ]
    assert lines(tables.times(rows, 1e-5))[2:] == [
        ["train", "1.5 s", "1.25 s", "5 ms", "6 ms", "0 (bitwise)"],
        ["serve", "200 ms", "100 ms", "40 µs", "50 µs", "2.5e-07"],
    ]


def record(name: str, before: int, after: int) -> Any:
    return SimpleNamespace(name=name, nodes_before=before, nodes_after=after, seconds=0.01)


def examples(count: int) -> Examples:
    return Examples(np.zeros((count, 8, 8, 1), np.float32), np.arange(count, dtype=np.int32))


def test_passes() -> None:
    records = {
        "train": [record("simplify", 100, 90), record("fold", 90, 93), record("simplify", 93, 91)],
        "serve": [record("simplify", 20, 20)],
        "untouched": [],
    }
    assert lines(tables.passes(records)) == [
        ["pass", "train", "serve", "untouched", "time"],
        ["traced", "100", "20", "-", ""],
        ["simplify", "-12", "·", "·", "30 ms"],
        ["fold", "+3", "·", "·", "10 ms"],
        ["compiled", "91", "20", "-", ""],
    ]


def test_accuracies_and_predictions() -> None:
    data = Split(examples(6), examples(2), examples(3))
    assert lines(tables.accuracies(data, {"train": 1.0, "validation": 0.5, "test": 2 / 3}))[1:] == [
        ["train", "6", "100.00%"],
        ["validation", "2", "50.00%"],
        ["test", "3", "66.67%"],
    ]
    prediction = Prediction(jnp.array([0, 7]), jnp.array([[0.75, 0.25], [0.0, 1.0]]))
    assert lines(tables.served(data.test, prediction))[1:] == [
        ["label", "0", "1"],
        ["prediction", "0", "7"],
        ["probability", "75%", "100%"],
    ]
