"""Tuning, and lock files: what is measured is kept, found again in another process, and never half written."""

import json
import os
import subprocess
import sys
import warnings
from inspect import cleandoc
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import graphopt
from graphopt import tune as tuning
from graphopt.errors import LockError, LockWarning
from graphopt.lock import Decision, read_lock, write_lock

X = np.random.default_rng(0).uniform(0.1, 1, (64, 500)).astype(np.float32)
WEIGHTS = np.random.default_rng(1).normal(0, 0.02, size=(500, 500)).astype(np.float32)


def function(x: jax.Array) -> jax.Array:
    y = jnp.arctan2(x, x + 1) @ WEIGHTS
    return jnp.sin(y) * jnp.exp(y) + y.sum(1, keepdims=True)


def test_candidates_are_measured_and_the_surely_fastest_is_kept(tmp_path: Path) -> None:
    lock = tmp_path / "lock.json"
    tuned = graphopt.jit(function).tune(X, tuning_seconds=0.5, lock=lock, progress=False)
    assert tuned.candidates[0].name == "XLA alone" and len(tuned.candidates) >= 2 and tuned.rounds >= 6
    assert tuned.winner in tuned.candidates
    assert tuned.winner is tuned.candidates[0] or tuned.winner.decision.high < 1
    assert str(tuned).count("*") == 1 and "XLA alone" in str(tuned)
    np.testing.assert_allclose(tuned.function(X), jax.jit(function)(X), rtol=1e-3, atol=1e-3)
    assert read_lock(lock) == (tuned.winner.decision,)
    again = graphopt.jit(function, lock=lock)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        np.testing.assert_array_equal(again(X), tuned.function(X))
    assert len(again.explain(X).kernels) == len(tuned.winner.decision.kernels)


def decision_of(kernels: int | None = None) -> Decision:
    """The decision for everything that kernels can compute, or for the first kernels of that."""
    jitted = graphopt.jit(function)
    options = graphopt.config.Options()
    *_, last = tuning._candidates(jitted.trace(X).jaxpr, options)
    assert last.decision.base == "numba" and len(last.decision.kernels) == 2
    return tuning.replace(last.decision, kernels=last.decision.kernels[:kernels])


@pytest.mark.parametrize("kernels", [0, 1, 2])
def test_a_lock_file_says_which_regions_are_kernels(kernels: int, tmp_path: Path) -> None:
    write_lock(tmp_path / "lock", [decision_of(kernels)])
    locked = graphopt.jit(function, lock=tmp_path / "lock")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        np.testing.assert_allclose(locked(X), jax.jit(function)(X), rtol=1e-3, atol=1e-3)
        assert len(locked.explain(X).kernels) == kernels


def test_another_process_finds_the_program_again(tmp_path: Path) -> None:
    program = cleandoc(
        """
        import sys, warnings
        warnings.simplefilter("error")
        import numpy as np, jax, jax.numpy as jnp, graphopt
        WEIGHTS = np.random.default_rng(1).normal(0, 0.02, size=(500, 500)).astype(np.float32)
        def f(x):
            y = jnp.arctan2(x, x + 1) @ WEIGHTS
            return jnp.sin(y) * jnp.exp(y) + y.sum(1, keepdims=True)
        x = np.full((64, 500), 0.5, np.float32)
        jitted = graphopt.jit(f, lock=sys.argv[1])
        jitted(x)
        print(len(jitted.explain(x).kernels))
        """
    )
    write_lock(tmp_path / "lock", [decision_of(1)])
    command = [sys.executable, "-c", program, str(tmp_path / "lock")]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, env=environment)
    assert done.stdout.strip() == "1", done.stderr[-2000:]


def test_a_program_that_is_not_in_it_is_a_warning(tmp_path: Path) -> None:
    write_lock(tmp_path / "lock", [decision_of()])
    other = graphopt.jit(lambda x: x + 1, lock=tmp_path / "lock")
    with pytest.warns(LockWarning, match="says nothing of this program"):
        np.testing.assert_array_equal(other(X), X + 1)


def test_what_is_no_lock_file_is_a_clear_error(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with pytest.raises(LockError, match=r"cannot be read.*f\.tune\(\*args, lock="):
        graphopt.jit(function, lock=path)
    for text, message in (("x", "not JSON"), ("{}", "not a lock file"), ("[]", "not a lock file")):
        path.write_text(text)
        with pytest.raises(LockError, match=message):
            graphopt.jit(function, lock=path)
    path.unlink()
    write_lock(path, [decision_of()])
    written = json.loads(path.read_text())
    path.write_text(json.dumps(written | {"format": 99}))
    with pytest.raises(LockError, match="format 99"):
        graphopt.jit(function, lock=path)
    written["decisions"][0]["kernels"] = []
    path.write_text(json.dumps(written))
    with pytest.raises(LockError, match="checksum"):
        graphopt.jit(function, lock=path)


def test_other_programs_stay_in_the_file(tmp_path: Path) -> None:
    first, second = Decision("a", "auto", (), 1.0, 1.0, 1.0), Decision("b", "numba", ("k",), 0.5, 0.4, 0.6)
    write_lock(tmp_path / "lock", [first])
    write_lock(tmp_path / "lock", [second])
    assert read_lock(tmp_path / "lock") == (first, second)
    assert [p.name for p in tmp_path.iterdir()] == ["lock"]


def test_interrupted_it_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    jitted = graphopt.jit(function)

    def interrupt(*args: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(tuning, "_measured", interrupt)
    with pytest.raises(KeyboardInterrupt):
        jitted.tune(X, tuning_seconds=0.1, lock=tmp_path / "lock", progress=False)
    assert list(tmp_path.iterdir()) == []
    np.testing.assert_allclose(jitted(X), jax.jit(function)(X), rtol=1e-3, atol=1e-3)


def test_donated_arguments_survive() -> None:
    x = jnp.asarray(X)
    jitted = graphopt.jit(lambda x: jnp.sin(x) * 2, donate_argnums=0)
    tuned = jitted.tune(x, tuning_seconds=0.1, progress=False)
    np.testing.assert_array_equal(x, X)
    np.testing.assert_allclose(tuned.function(x), np.sin(X) * 2, rtol=1e-5)


def test_intervals() -> None:
    assert tuning.interval([1.0] * 5) == (0.0, float("inf"))
    assert tuning.interval([3.0, 1.0, 2.0, 6.0, 5.0, 4.0]) == (1.0, 6.0)
    low, high = tuning.interval(list(range(100)))
    assert low == 39 and high == 60
