"""Figures in files, and what changed between two of them: made-up numbers."""

import json
from pathlib import Path
from typing import Any

import jax
import pytest

import graphopt
from graphopt.bench.figures import FORMAT, Change, FiguresError, compare, figures, ratios, read
from graphopt.bench.measure import Ratio
from graphopt.bench.rows import Measure, Row, measure_of


def row(name: str, *ratio: float | None, measure: str = "warm") -> Row:
    return Row(name, 3, {measure: Measure({"jax": 1.0, "graphopt": 2.0}, Ratio(*ratio))})


def written(results: dict[str, list[Row]], tmp_path: Path, **fields: Any) -> Path:
    file = tmp_path / "figures.json"
    file.write_text(json.dumps(figures(results, complete=True) | fields))
    return file


def test_figures_say_where_they_were_measured_and_read_back(tmp_path: Path) -> None:
    rows = [row("a", 1.5, 1.0, 2.0), Row("b", error="Disagreement: 1 of 3 elements differ")]
    found = read(written({"ops": rows, "call": []}, tmp_path))
    assert (found["format"], found["jax"], found["graphopt"]) == (FORMAT, jax.__version__, graphopt.__version__)
    assert found["complete"] is True
    assert found["peak_process_bytes"] > 10_000_000
    assert found["cache_bytes"] > 0
    assert found["suites"]["call"] == []
    assert found["suites"]["ops"] == [
        {
            "name": "a",
            "equations": 3,
            "measures": {
                "warm": {
                    "seconds": {"jax": 1.0, "graphopt": 2.0},
                    "ratio": {"median": 1.5, "low": 1.0, "high": 2.0},
                    "numpy_ratio": None,
                }
            },
            "memory": None,
            "same": False,
            "passes": None,
            "error": None,
        },
        {
            "name": "b",
            "equations": 0,
            "measures": {},
            "memory": None,
            "same": False,
            "passes": None,
            "error": "Disagreement: 1 of 3 elements differ",
        },
    ]
    assert ratios(found) == {("ops", "a", "warm"): Ratio(1.5, 1.0, 2.0)}


def test_a_measure_has_medians_and_paired_ratios() -> None:
    seconds = {"jax": [1.0, 10.0, 100.0], "graphopt": [2.0, 30.0, 400.0], "numpy": [4.0, 30.0, 100.0]}
    measure = measure_of(seconds)
    assert measure.seconds == {"jax": 10.0, "graphopt": 30.0, "numpy": 30.0}
    assert measure.ratio == Ratio(3.0, None, None)
    assert measure.numpy_ratio == Ratio(1.0, None, None)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "cannot be read"),
        ("[1, 2]", "has no figures of `graphopt bench --json`"),
        ('{"name": "x"}', "has no figures of `graphopt bench --json`"),
        ('{"suites": {}}', "a format before numbers were given, this is format"),
        ('{"suites": {}, "format": 1}', "has format 1, this is format"),
        (f'{{"suites": {{"ops": [{{"name": "x"}}]}}, "format": {FORMAT}}}', "its suites are not in it: KeyError"),
        (f'{{"suites": 3, "format": {FORMAT}}}', "its suites are not in it"),
    ],
)
def test_a_file_that_cannot_be_compared_is_refused(text: str, message: str, tmp_path: Path) -> None:
    file = tmp_path / "figures.json"
    file.write_text(text)
    with pytest.raises(FiguresError, match=message) as error:
        read(file)
    assert str(file) in str(error.value)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FiguresError, match=r"cannot be read.*No such file"):
        read(tmp_path / "missing.json")


@pytest.mark.parametrize(
    ("before", "now", "factor", "verdict"),
    [
        ((1.0, 0.9, 1.1), (1.5, 1.4, 1.6), 1.5, "slower"),
        ((1.0, 0.9, 1.1), (0.5, 0.4, 0.6), 0.5, "faster"),
        ((1.0, 0.9, 1.1), (1.2, 1.05, 1.3), 1.2, ""),  # they overlap
        ((1.0, 0.9, 1.1), (1.2, 1.1, 1.3), 1.2, ""),  # they touch
        ((1.0, 0.5, 2.0), (1.0, 0.9, 1.1), 1.0, ""),  # one holds the other
        ((1.0, None, None), (9.0, 8.0, 10.0), 9.0, ""),
        ((1.0, 0.9, 1.1), (9.0, None, None), 9.0, ""),
    ],
)
def test_a_change_is_flagged_where_the_intervals_are_apart(before: Any, now: Any, factor: float, verdict: str) -> None:
    change = Change(("ops", "a", "warm"), Ratio(*before), Ratio(*now))
    assert change.factor == pytest.approx(factor)
    assert change.verdict == verdict


def test_runs_are_compared_case_by_case() -> None:
    before = figures(
        {"ops": [row("a", 1.0, 0.9, 1.1), row("gone", 1.0, None, None)], "call": [row("c", 1.0, None, None)]},
        complete=True,
    )
    now = figures(
        {"ops": [row("a", 2.0, 1.9, 2.1), row("new", 3.0, None, None), Row("bad", error="no")]}, complete=True
    )
    comparison = compare(before, now | {"jax": "0.99"})
    assert comparison.changes == [Change(("ops", "a", "warm"), Ratio(1.0, 0.9, 1.1), Ratio(2.0, 1.9, 2.1))]
    assert comparison.only_before == [("ops", "gone", "warm")]  # the suite `call` was not asked for
    assert comparison.only_now == [("ops", "new", "warm")]
    assert comparison.others == {"jax": (jax.__version__, "0.99")}
