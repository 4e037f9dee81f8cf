"""`graphopt bench`: the table, the figures, and what it says to a request that it cannot serve."""

import json
import re
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import pytest

from graphopt.bench import run, steady
from graphopt.bench.caches import Sweep
from graphopt.bench.measure import Ratio
from graphopt.bench.programs import Program, renewed
from graphopt.bench.rows import Measure, Row, measure_of
from graphopt.bench.suites import SUITES, Suite
from graphopt.bench.tables import size

# Of each suite a text for --only, and the case that it finds.
CASES = {
    "compile": ("Kutta, 2 s", "Runge-Kutta, 2 steps"),
    "call": ("tree", "a tree of 4 arrays"),
    "programs": ("softmax", "softmax regression with Adam"),
    "streamed": ("distances", "distances, 1000x64"),
    "rewritten": ("inv", "inv(A)·b, 500"),
    "passes": ("contract", "contract: A·B·v, 1000"),
    "limited": ("CNN", "CNN training step"),
    "unrolled": ("LSTM", "LSTM, gradient, 16 steps, unrolled"),
    "ops": ("tanh, 1k", "tanh, 1k: f32[1000]"),
}
MEASURES = {"compile": ("first call",), "call": ("call",)} | dict.fromkeys(
    ("programs", "streamed", "rewritten", "passes", "limited", "unrolled", "ops"), ("warm", "fresh", "first call")
)
FIELDS = {"format", "machine", "device", "python", "jax", "graphopt", "complete", "cache_bytes", "peak_process_bytes"}


@pytest.fixture(autouse=True)
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rich wraps what is wider than the terminal."""
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("TERM", "dumb")


def test_every_suite_is_tried_here() -> None:
    assert set(CASES) == set(SUITES)


@pytest.mark.parametrize("suite", SUITES)
def test_a_suite_prints_a_table_and_writes_its_figures(
    suite: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(steady, "swept", lambda: Sweep(1000))
    monkeypatch.setattr(steady, "PATIENCE", 0.0)
    only, name = CASES[suite]
    file = tmp_path / "figures.json"
    assert run.main([suite, "--repeats", "1", "--only", only, "--json", str(file)]) == 0
    written = json.loads(file.read_text())
    assert set(written) == FIELDS | {"suites"}
    ((found, rows),) = written["suites"].items()
    row = next(row for row in rows if row["name"] == name)
    assert (found, row["error"]) == (suite, None)
    (program,) = (program for program in SUITES[suite].programs() if program.name == name)
    assert row["equations"] == len(jax.make_jaxpr(program.make())(*program.arguments()).eqns)
    assert tuple(row["measures"]) == MEASURES[suite]
    for measure in row["measures"].values():
        assert set(measure) == {"seconds", "ratio", "numpy_ratio"}
        assert min(measure["seconds"].values()) > 0
        assert set(measure["ratio"]) == {"median", "low", "high"}
    assert (row["memory"] is None) == (suite in ("compile", "call"))
    if suite == "compile":
        assert 0 < row["passes"] < row["measures"]["first call"]["seconds"]["graphopt"]
    else:
        assert row["passes"] is None
    median = row["measures"][MEASURES[suite][0]]["ratio"]["median"]
    out = capsys.readouterr().out
    assert re.search(r"Before first calls: \d+ ms to import .* and \d+ ms to compile", out)
    assert f"graphopt's time over {SUITES[suite].over} (jax {jax.__version__})" in out
    assert re.search(rf"{re.escape(name)}\W+{row['equations']}\W.*\W{median:.3f} \[", out)
    if len(rows) == 1:
        assert re.search(rf"geometric mean\W+{median:.3f}\W", out)


def stand_in(monkeypatch: pytest.MonkeyPatch, rows: dict[str, list[Any]]) -> list[tuple[str, int]]:
    """Suites that measure nothing and give these rows, or raise them; returns the requests that they get."""
    asked = []

    def suite(name: str) -> Suite:
        named = {row.name if isinstance(row, Row) else "raises": row for row in rows[name]}

        def measure(program: Program, repeats: int) -> Row:
            asked.append((f"{name}: {program.name}", repeats))
            row = named[program.name]
            if isinstance(row, Row):
                return row
            raise row

        programs = [Program(case, renewed(lambda x: x), lambda: (jnp.ones(1),)) for case in named]
        return Suite("what is made up", lambda: programs, measure)

    monkeypatch.setattr(run, "SUITES", {name: suite(name) for name in rows})
    return asked


def made_up(name: str, ratio: Ratio, seconds: tuple[float, float] = (2.5, 0.005), **fields: Any) -> Row:
    numpy = fields.pop("numpy", None)
    measure = Measure(dict(zip(("jax", "graphopt"), seconds, strict=True)), ratio, numpy)
    return Row(name, 12, {"warm": measure}, **fields)


ROW = made_up("case", Ratio(0.002, 0.001, 0.004))


def test_all_suites_run_unless_some_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = stand_in(monkeypatch, {"one": [ROW], "two": [ROW], "three": [ROW]})
    assert run.main([]) == 0
    assert asked == [("one: case", 7), ("two: case", 7), ("three: case", 7)]
    asked.clear()
    assert run.main(["three", "--repeats", "2", "one", "--only", "as", "one"]) == 0
    assert asked == [("three: case", 2), ("one: case", 2)]


def test_a_table_has_times_in_the_unit_that_fits_numpy_and_memory(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    memory = {"jax": 1234, "graphopt": 120_000_000}
    numpy = Ratio(0.25, None, None)
    other = made_up("other", Ratio(0.008, None, None), (0.5, 3.21e-6), memory=memory, numpy=numpy)
    stand_in(monkeypatch, {"one": [ROW, other], "empty": []})
    assert run.main([]) == 0
    out = capsys.readouterr().out
    assert re.search(r"case\W+12\W+2\.50 s\W+5\.0 ms\W+0\.002 \[0\.001, 0\.004\]", out)
    assert re.search(r"other\W+12\W+500\.0 ms\W+3\.21 µs\W+0\.008 \[\?\]\W+0\.250\W+1\.2 kB / 120 MB", out)
    assert re.search(r"geometric mean\W+0\.004\W+0\.250\W", out)
    assert "[?]: fewer than six rounds" in out
    assert "empty" not in out


def test_the_verdicts_leave_out_what_xla_made_the_same_program_of(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [
        ROW,
        made_up("as slow", Ratio(1.3, 1.2, 1.4), same=True),
        made_up("slow", Ratio(1.3, 1.2, 1.4)),
        made_up("unsure", Ratio(1.01, 0.9, 1.06)),
        made_up("even", Ratio(1.0, 0.99, 1.05)),
    ]
    stand_in(monkeypatch, {"one": rows})
    assert run.main([]) == 0
    out = capsys.readouterr().out
    assert re.search(r"as slow.*same", out)
    assert "XLA made the same program of 1 of 5 cases." in out
    assert "Of the others, warm: 1 of 4 are faster; 1 slower (slow); 1 that may be slower" in out
    assert "(unsure)." in out


def test_what_is_slower_than_numpy_is_told_from_what_the_call_alone_takes(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Seconds of graphopt, its least call, NumPy, its least call."""
    times = {
        "faster": (4, 3, 5, 1),
        "by the call": (9, 7, 6, 1),
        "by as much as the call": (9, 4, 7, 1),
        "by computing": (9, 3, 6, 1),
    }
    contenders = ("jax", "graphopt", "least", "numpy", "numpy's least")
    rows = [
        Row(name, 1, {"warm": measure_of(dict(zip(contenders, ([5.0], *([float(s)] for s in seconds)), strict=True)))})
        for name, seconds in times.items()
    ]
    unknown = made_up("without", Ratio(1.3, 1.2, 1.4), numpy=Ratio(2.0, None, None))
    unknown.measures["warm"].seconds["numpy"] = 1e-3
    stand_in(monkeypatch, {"one": [ROW, *rows, unknown]})
    assert run.main([]) == 0
    out = capsys.readouterr().out
    assert "4 of 5 are slower. In 1 of these the least call" in out
    assert "; in 1 what comes on top of it" in out
    assert "2 others (by computing; without)." in out


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (52_300, "52.3 kB"), (4e8, "400 MB"), (1.25e10, "12.5 GB")],
)
def test_bytes_are_shown_in_the_unit_that_fits(count: float, text: str) -> None:
    assert size(count) == text


def test_a_case_that_fails_is_shown_and_the_others_are_measured(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    stand_in(
        monkeypatch, {"one": [Row("bad", error="Disagreement: at [0] 1.0"), ROW], "two": [Row("worse", error="x")]}
    )
    file = tmp_path / "figures.json"
    assert run.main(["--json", str(file)]) == 1
    out = capsys.readouterr().out
    assert re.search(r"bad\W+failed", out)
    assert "bad: Disagreement: at [0] 1.0" in out
    assert re.search(r"geometric mean\W+0\.002\W", out)
    assert "2 of the cases failed" in out
    rows = [row for rows in json.loads(file.read_text())["suites"].values() for row in rows]
    assert [row["error"] for row in rows] == ["Disagreement: at [0] 1.0", None, "x"]


def test_ctrl_c_shows_what_is_measured_so_far(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    asked = stand_in(
        monkeypatch,
        {"one": [ROW], "two": [made_up("early", Ratio(3.0, None, None)), KeyboardInterrupt()], "three": [ROW]},
    )
    file = tmp_path / "figures.json"
    assert run.main(["--json", str(file)]) == 130
    assert asked == [("one: case", 7), ("two: early", 7), ("two: raises", 7)]
    out = capsys.readouterr().out
    assert "case" in out
    assert "early" in out
    assert "Interrupted" in out
    written = json.loads(file.read_text())
    assert written["complete"] is False
    assert {name: len(rows) for name, rows in written["suites"].items()} == {"one": 1, "two": 1, "three": 0}


def test_a_run_is_compared_with_an_earlier_one(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    file = tmp_path / "before.json"
    rows = [made_up(name, Ratio(1.0, 0.9, 1.1)) for name in ("worse", "better", "same", "gone")]
    stand_in(monkeypatch, {"one": rows})
    assert run.main(["--json", str(file)]) == 0
    now = {"worse": (2.0, 1.5, 2.5), "better": (0.5, 0.4, 0.6), "same": (1.05, 0.95, 1.2), "added": (1.0, 0.9, 1.1)}
    stand_in(monkeypatch, {"one": [made_up(name, Ratio(*ratio)) for name, ratio in now.items()]})
    capsys.readouterr()
    assert run.main(["--against", str(file)]) == 0
    out = capsys.readouterr().out
    interval = r"1\.000 \[0\.900, 1\.100\]\W+"
    assert re.search(rf"worse\W+warm\W+{interval}2\.000 \[1\.500, 2\.500\]\W+×2\.000\W+slower", out)
    assert re.search(rf"better\W+warm\W+{interval}0\.500 \[0\.400, 0\.600\]\W+×0\.500\W+faster", out)
    assert re.search(rf"same\W+warm\W+{interval}1\.050 \[0\.950, 1\.200\]\W+×1\.050\W+\n", out)
    assert "3 compared: 1 slower and 1 faster" in out
    assert f"1 only in {file}: one / gone / warm" in out
    assert f"1 not in {file}: one / added / warm" in out
    assert "another one" not in out


def test_another_machine_or_version_is_said(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    file = tmp_path / "before.json"
    stand_in(monkeypatch, {"one": [ROW]})
    assert run.main(["--json", str(file)]) == 0
    file.write_text(json.dumps(json.loads(file.read_text()) | {"jax": "0.9.1"}))
    assert run.main(["--against", str(file)]) == 0
    assert f"The jax was another one in {file}: 0.9.1, now {jax.__version__}." in capsys.readouterr().out


def refused(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    """The message with which these arguments are refused."""
    with pytest.raises(SystemExit) as stop:
        run.main(argv)
    assert stop.value.code == 2
    return capsys.readouterr().err


def test_unknown_suites_are_named_with_the_known_ones(capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        "unknown suite fast, slow; known: compile, call, programs, streamed, rewritten, limited, passes, unrolled, ops"
        in refused(capsys, "slow", "call", "fast")
    )


def test_a_text_that_no_case_has_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        "no case of compile, call, programs, streamed, rewritten, limited, passes, unrolled, ops has 'no such case' in its name"
        in refused(capsys, "--only", "no such case")
    )
    assert "no case of call has 'steps' in its name" in refused(capsys, "call", "--only", "steps")


@pytest.mark.parametrize("repeats", ["0", "-1", "many"])
def test_fewer_than_one_round_is_refused(repeats: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert "--repeats" in refused(capsys, "--repeats", repeats)


def test_a_missing_folder_is_found_before_the_measurement(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "missing"
    assert f"there is no folder {folder}" in refused(capsys, "--json", str(folder / "figures.json"))


def test_a_file_to_compare_with_is_read_before_the_measurement(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    missing, old = tmp_path / "missing.json", tmp_path / "old.json"
    old.write_text('{"suites": {}}')
    assert f"--against: {missing} cannot be read" in refused(capsys, "--against", str(missing))
    assert f"--against: {old} has a format before numbers were given" in refused(capsys, "--against", str(old))


def test_a_persistent_cache_is_refused(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    before = jax.config.jax_compilation_cache_dir  # type: ignore[attr-defined]
    jax.config.update("jax_compilation_cache_dir", str(tmp_path))
    try:
        assert "unset JAX_COMPILATION_CACHE_DIR" in refused(capsys, "--only", "no such case")
    finally:
        jax.config.update("jax_compilation_cache_dir", before)
