"""Calibration: it is measured when it is asked for, kept for later processes, and never trusted blindly."""

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from graphopt import calibrate, store
from graphopt.analysis import machine
from graphopt.analysis.machine import Machine, keep, this_machine
from graphopt.cli import main


@pytest.fixture(autouse=True)
def place(tmp_path: Path) -> Iterator[Path]:
    this_machine.cache_clear()
    with store.kept_in(tmp_path):
        yield tmp_path
    this_machine.cache_clear()


def test_what_is_measured_is_kept_and_used(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert this_machine() == Machine() and list(place.rglob("*.json")) == []
    assert main(["calibrate", "--dry-run"]) == 0 and list(place.rglob("*.json")) == []
    assert "memory_rate" in capsys.readouterr().out
    assert main(["calibrate"]) == 0
    found = this_machine()
    assert found != Machine() and found.threads == Machine().threads
    assert all(0 < getattr(found, each.name) < float("inf") for each in dataclasses.fields(found))
    assert found.memory_rate <= found.shared_rate


@pytest.mark.parametrize("change", [{"call": -1.0}, {"wake": "long"}, {"near_rate": float("inf")}, {"unknown": 1}])
def test_what_makes_no_sense_is_not_used(change: dict[str, object]) -> None:
    text = json.dumps(dataclasses.asdict(Machine(threads=7)) | change)
    store.write(machine.KIND, machine._name(), text.encode())
    assert this_machine() == Machine()


def test_keeping_changes_this_process_too() -> None:
    keep(Machine(call=123.0))
    assert this_machine().call == 123.0


def test_among_several_processes_the_defaults_decide(monkeypatch: pytest.MonkeyPatch) -> None:
    from graphopt import compile

    keep(Machine(call=123.0))
    assert compile.machine_for_decisions().call == 123.0
    monkeypatch.setattr(compile.jax, "process_count", lambda: 2)
    assert compile.machine_for_decisions() == Machine()


def test_no_time_is_measured_twice_as_the_least() -> None:
    times = iter(range(100))
    assert calibrate._seconds(lambda: next(times), 3) > 0
