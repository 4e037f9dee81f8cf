"""The command line: which command gets which arguments."""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

import graphopt
from graphopt import cli
from graphopt.bench import run as bench
from graphopt.demo import run as demo


def stopped(argv: Sequence[str]) -> object:
    """The exit status with which these arguments end the program early."""
    with pytest.raises(SystemExit) as stop:
        cli.main(argv)
    return stop.value.code


@pytest.fixture
def passed_on(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, list[str]]]:
    """What the commands were given; they do nothing and return 3 and 4."""
    given: list[tuple[str, list[str]]] = []

    def stand_in(name: str, status: int, argv: Sequence[str]) -> int:
        given.append((name, list(argv)))
        return status

    monkeypatch.setattr(demo, "main", lambda argv: stand_in("demo", 3, argv))
    monkeypatch.setattr(bench, "main", lambda argv: stand_in("bench", 4, argv))
    return given


def test_the_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert stopped(["--version"]) == 0
    assert capsys.readouterr().out == f"graphopt {graphopt.__version__}\n"


def test_help_names_the_commands(capsys: pytest.CaptureFixture[str]) -> None:
    assert stopped(["--help"]) == 0
    out = capsys.readouterr().out
    assert "demo" in out
    assert "bench" in out


def test_a_command_is_required(capsys: pytest.CaptureFixture[str]) -> None:
    assert stopped([]) == 2
    assert "required: command" in capsys.readouterr().err


def test_an_unknown_command_is_refused_with_the_known_ones(capsys: pytest.CaptureFixture[str]) -> None:
    assert stopped(["train"]) == 2
    err = capsys.readouterr().err
    assert "invalid choice: 'train'" in err
    assert "demo" in err
    assert "bench" in err


@pytest.mark.parametrize(("command", "option"), [("demo", "--quick"), ("bench", "--repeats")])
def test_help_of_a_command_is_its_own(command: str, option: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert stopped([command, "--help"]) == 0
    out = capsys.readouterr().out
    assert f"usage: graphopt {command}" in out
    assert option in out


@pytest.mark.parametrize("command", ["demo", "bench"])
def test_unknown_options_reach_the_command_and_are_refused(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert stopped([command, "--frobnicate"]) == 2
    err = capsys.readouterr().err
    assert f"usage: graphopt {command}" in err
    assert "--frobnicate" in err


@pytest.mark.parametrize(
    "rest",
    [
        [],
        ["--only", "x", "compile"],
        ["compile", "--only", "x", "call", "--repeats", "1"],
        ["--json=a b.json", "--only", "--repeats"],
        ["demo", "--version", "-h"],
    ],
    ids=" ".join,
)
def test_a_command_gets_the_rest_as_it_stands(rest: list[str], passed_on: list[tuple[str, list[str]]]) -> None:
    assert cli.main(["bench", *rest]) == 4
    assert cli.main(["demo", *rest]) == 3
    assert passed_on == [("bench", rest), ("demo", rest)]


def test_arguments_are_those_of_the_process_by_default(
    monkeypatch: pytest.MonkeyPatch, passed_on: list[tuple[str, list[str]]]
) -> None:
    monkeypatch.setattr(sys, "argv", ["graphopt", "demo", "--seed", "5"])
    assert cli.main() == 3
    assert passed_on == [("demo", ["--seed", "5"])]


def python_m_graphopt(folder: Path, *argv: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-m", "graphopt", *argv]
    return subprocess.run(command, capture_output=True, text=True, cwd=folder, env=environment, check=False)


def test_python_m_graphopt_is_the_command(tmp_path: Path) -> None:
    run = python_m_graphopt(tmp_path, "--version")
    assert (run.returncode, run.stdout) == (0, f"graphopt {graphopt.__version__}\n")


def test_python_m_graphopt_returns_the_exit_status(tmp_path: Path) -> None:
    run = python_m_graphopt(tmp_path, "bench", "nonsense")
    assert run.returncode == 2
    assert "unknown suite nonsense; known: compile, call" in run.stderr
