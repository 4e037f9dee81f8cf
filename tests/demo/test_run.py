"""The demo as a whole: its exit code, and what it says where it cannot keep its promises."""

import re
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import pytest

from graphopt.demo import run, tables
from graphopt.demo.compare import Difference, Pair, Times


def test_a_quick_run_keeps_its_promises(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    for package in run.PACKAGES.values():
        pytest.importorskip(package)
    assert run.main(["--quick", "--seed", "1", "--save", str(tmp_path / "new" / "folder")]) == 0
    out = capsys.readouterr().out
    test_accuracy = re.search(r"test\W+360\W+([\d.]+)%", out)
    assert test_accuracy is not None and float(test_accuracy[1]) > 97
    for job in ("train, batch 64", "serve, batch 1", "serve, batch 32", "serve, batch 256", "2 photographs"):
        assert job in out
    assert len(list((tmp_path / "new" / "folder").glob("photograph*.png"))) == 8


def test_wrong_results_and_low_accuracy_are_failures(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where jax.jit were to add 0.001 to all floating-point results, and one epoch of training."""
    for package in run.PACKAGES.values():
        pytest.importorskip(package)
    compiled = run.compiled

    def wrong(function: Any) -> Pair:
        def add(x: jax.Array) -> jax.Array:
            return x + 0.001 if jnp.issubdtype(x.dtype, jnp.floating) else x

        theirs = jax.jit(lambda *args: jax.tree.map(add, function(*args)))
        return compiled(function)._replace(theirs=theirs)

    monkeypatch.setattr(run, "compiled", wrong)
    monkeypatch.setattr(run, "QUICK", run.Effort(epochs=1, seconds=0.0))
    assert run.main(["--quick"]) == 1
    out = " ".join(capsys.readouterr().out.split())
    assert re.search(r"The accuracy on the test set is [\d.]+%; it should be above 97%", out)
    for job in ("train, batch 64", "serve, batch 1", "serve, batch 32", "serve, batch 256", "2 photographs"):
        assert re.search(rf"The results of graphopt.jit and jax.jit differ by 0.001, more than 1e-05, in: {job}\.", out)


def test_failures_are_found_at_the_limit() -> None:
    def row(largest: float) -> tables.Row:
        return tables.Row("job", Times(1, 1), Times(1, 1), Difference(largest, False))

    assert run.failures(0.971, [row(0.0), row(1e-5)]) == []
    assert len(run.failures(0.97, [row(0.0)])) == 1
    assert len(run.failures(1.0, [row(1.1e-5), row(float("inf"))])) == 2


def test_missing_packages_are_named_with_the_next_step(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "find_spec", lambda name: None if name == "sklearn" else object())
    assert run.main([]) == 1
    out = capsys.readouterr().out
    assert "needs scikit-learn" in out
    assert "pip install 'graphopt[demo]'" in out
    assert "pillow" not in out


def test_unknown_options_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        run.main(["--fast"])
    assert stop.value.code == 2
    assert "--fast" in capsys.readouterr().err
