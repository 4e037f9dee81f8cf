"""`graphopt bench`: the table, the figures, and what it says to a request that it cannot serve."""

import json
import re
from pathlib import Path
from typing import Any

import jax
import pytest

import graphopt
from graphopt.bench import run
from graphopt.bench.measure import Ratio
from graphopt.bench.programs import integrator
from graphopt.bench.suites import SUITES, Row

# Of each suite a text for --only, and the case that it finds.
CASES = {"compile": ("Kutta, 2 s", "Runge-Kutta, 2 steps"), "call": ("tree", "a tree of 4 arrays")}


@pytest.fixture(autouse=True)
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rich wraps what is wider than the terminal."""
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("TERM", "dumb")


def test_every_suite_is_tried_here() -> None:
    assert set(CASES) == set(SUITES)


@pytest.mark.parametrize("suite", SUITES)
def test_a_suite_prints_a_table_and_writes_its_figures(
    suite: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    only, name = CASES[suite]
    file = tmp_path / "figures.json"
    assert run.main([suite, "--repeats", "1", "--only", only, "--json", str(file)]) == 0
    written = json.loads(file.read_text())
    assert set(written) == {"machine", "device", "python", "jax", "graphopt", "suites"}
    assert (written["jax"], written["graphopt"]) == (jax.__version__, graphopt.__version__)
    ((found, (row,)),) = written["suites"].items()
    assert found == suite
    assert set(row) == {"name", "equations", "jax_seconds", "graphopt_seconds", "ratio"}
    assert set(row["ratio"]) == {"median", "low", "high"}
    assert row["name"] == name
    program = integrator(2)
    equations = len(jax.make_jaxpr(program.make())(*program.args).eqns) if suite == "compile" else 4
    assert row["equations"] == equations
    assert row["jax_seconds"] > 0
    assert row["graphopt_seconds"] > 0
    median, low, high = row["ratio"].values()
    if suite == "compile":  # one round
        assert (median, low, high) == (row["graphopt_seconds"] / row["jax_seconds"], None, None)
    else:  # ten
        assert low <= median <= high
    out = capsys.readouterr().out
    assert f"{suite}: graphopt's time over jax.jit's (jax {jax.__version__})" in out
    assert re.search(rf"{name}\W+{equations}\W.*\W{median:.3f} \[", out)
    assert re.search(rf"geometric mean\W+{median:.3f}\W", out)  # of the one case


def stand_in(monkeypatch: pytest.MonkeyPatch, rows: dict[str, list[Row]]) -> list[tuple[str, int, str]]:
    """Suites that measure nothing and give these rows; returns the requests that they get."""
    asked = []

    def suite(name: str) -> Any:
        def measure(repeats: int, only: str) -> Any:
            asked.append((name, repeats, only))
            return iter(rows[name])

        return measure

    monkeypatch.setattr(run, "SUITES", {name: suite(name) for name in rows})
    return asked


ROW = Row("case", 12, 2.5, 0.005, Ratio(0.002, 0.001, 0.004))


def test_all_suites_run_unless_some_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = stand_in(monkeypatch, {"one": [ROW], "two": [ROW], "three": [ROW]})
    assert run.main([]) == 0
    assert asked == [("one", 7, ""), ("two", 7, ""), ("three", 7, "")]
    asked.clear()
    assert run.main(["three", "--repeats", "2", "one", "--only", "x", "one"]) == 0
    assert asked == [("three", 2, "x"), ("one", 2, "x")]


def test_times_are_shown_in_the_unit_that_fits(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    other = Row("other", 7, 0.5, 3.21e-6, Ratio(0.008, None, None))
    stand_in(monkeypatch, {"one": [ROW, other], "empty": []})
    assert run.main([]) == 0
    out = capsys.readouterr().out
    assert re.search(r"case\W+12\W+2\.50 s\W+5\.0 ms\W+0\.002 \[0\.001, 0\.004\]", out)
    assert re.search(r"other\W+7\W+500\.0 ms\W+3\.21 µs\W+0\.008 \[too few rounds\]", out)
    assert re.search(r"geometric mean\W+0\.004\W", out)
    assert "empty" not in out


def refused(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    """The message with which these arguments are refused."""
    with pytest.raises(SystemExit) as stop:
        run.main(argv)
    assert stop.value.code == 2
    return capsys.readouterr().err


def test_unknown_suites_are_named_with_the_known_ones(capsys: pytest.CaptureFixture[str]) -> None:
    assert "unknown suite fast, slow; known: compile, call" in refused(capsys, "slow", "call", "fast")


def test_a_text_that_no_case_has_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert "no case of compile, call has 'no such case' in its name" in refused(capsys, "--only", "no such case")
    assert "no case of call has 'steps' in its name" in refused(capsys, "call", "--only", "steps")


@pytest.mark.parametrize("repeats", ["0", "-1", "many"])
def test_fewer_than_one_round_is_refused(repeats: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert "--repeats" in refused(capsys, "--repeats", repeats)


def test_a_missing_folder_is_found_before_the_measurement(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "missing"
    assert f"there is no folder {folder}" in refused(capsys, "--json", str(folder / "figures.json"))


def test_a_persistent_cache_is_refused(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    before = jax.config.jax_compilation_cache_dir  # type: ignore[attr-defined]
    jax.config.update("jax_compilation_cache_dir", str(tmp_path))
    try:
        assert "unset JAX_COMPILATION_CACHE_DIR" in refused(capsys, "--only", "no such case")
    finally:
        jax.config.update("jax_compilation_cache_dir", before)
