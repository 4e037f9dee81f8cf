"""Calibration: it is measured when it is asked for, kept for later processes, and never trusted blindly."""

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import graphopt
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


def test_caches_are_what_the_system_says(tmp_path: Path) -> None:
    of = {
        0: ("1", "Data", "48K"),
        1: ("1", "Instruction", "32K"),
        2: ("2", "Unified", "2048K"),
        3: ("3", "Unified", "36864K"),
    }
    for number, values in of.items():
        (tmp_path / f"index{number}").mkdir()
        for name, value in zip(("level", "type", "size"), values, strict=True):
            (tmp_path / f"index{number}" / name).write_text(value + "\n")
    assert calibrate._caches(tmp_path) == {"near": 2 << 20, "shared": 36 << 20}
    (tmp_path / "index3" / "size").write_text("much\n")
    (tmp_path / "index2" / "level").unlink()
    assert calibrate._caches(tmp_path) == {"near": 48 << 10}
    assert calibrate._caches(tmp_path / "nothing") == {}


def test_products_take_as_long_as_the_machine_is_said_to_need() -> None:
    """Which decides where they are computed: a machine whose kernels multiply slowly leaves them to XLA."""

    def product(x: Any, y: Any) -> Any:
        return x @ y + 1

    args = np.ones((2, 128, 128), np.float32)
    keep(Machine())
    assert len(graphopt.jit(product).explain(*args).kernels) == 1
    keep(Machine(flops32=10.0))
    assert len(graphopt.jit(product).explain(*args).kernels) == 0
    keep(Machine(flops32=10.0, xla_flops32=5.0))
    assert len(graphopt.jit(product).explain(*args).kernels) == 1


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
