"""Tuning, and lock files: what is measured is kept, found again in another process, and never half written."""

import json
import os
import subprocess
import sys
import warnings
from inspect import cleandoc, getsource
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import graphopt
from graphopt import tune as tuning
from graphopt.backends.numba.lowering import ENGINE
from graphopt.backends.xla.compiler_options import accepted_options, is_accepted
from graphopt.choices import Choices, Regions, candidates
from graphopt.errors import LockError, LockWarning
from graphopt.lock import Decision, read_lock, write_lock

from .prescribed import prescribed

X = np.random.default_rng(0).uniform(0.1, 1, (64, 500)).astype(np.float32)
WEIGHTS = np.random.default_rng(1).normal(0, 0.02, size=(500, 500)).astype(np.float32)


def function(x: jax.Array) -> jax.Array:
    y = prescribed(jnp.arctan2(x, x + 1), WEIGHTS)
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
    *_, last = candidates(Regions(jitted.trace(X).jaxpr, options))
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


def crossed(x: jax.Array) -> jax.Array:
    return jnp.sin(x.T) * 2 + x.sum(0)[:, None]


def test_a_lock_file_says_how_loops_are_written_and_what_a_thread_takes(tmp_path: Path) -> None:
    jitted = graphopt.jit(crossed, backend="numba")
    regions = Regions(jitted.trace(X).jaxpr, graphopt.config.Options(backend="numba"))
    ((region, body),) = regions.of("numba").items()
    ways = ENGINE.ways(body, True)
    assert len(ways) == len(set(ways)) > 3 and any("blocks of 16" in way for way in ways)
    predicted = jitted.explain(X).kernels[0].source
    sources = {predicted}
    for way in ways:
        decision = Decision(regions.program, "numba", (region,), schedules=((region, way, 1.0),))
        write_lock(tmp_path / "lock", [decision])
        assert read_lock(tmp_path / "lock") == (decision,) and way in str(decision)
        locked = graphopt.jit(crossed, lock=tmp_path / "lock")
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            np.testing.assert_allclose(locked(X), jax.jit(crossed)(X), rtol=1e-4, atol=1e-4)
            report = locked.explain(X)
        sources.add(report.kernels[0].source)
        assert report.measured is not None and way in str(report).replace("\n", " ")
    assert (
        len(sources) == len(ways) and predicted == graphopt.jit(crossed, backend="numba").explain(X).kernels[0].source
    )
    grains = []
    for grain in (0.1, 1.0, 10.0):
        write_lock(tmp_path / "lock", [Decision(regions.program, "numba", (region,), schedules=((region, "", grain),))])
        locked = graphopt.jit(crossed, lock=tmp_path / "lock")
        np.testing.assert_allclose(locked(X), jax.jit(crossed)(X), rtol=1e-4, atol=1e-4)
        grains.append(locked.explain(X).kernels[0].program.phases[-1].grain)
    assert grains == sorted(grains) and grains[0] < grains[-1]


def test_a_way_that_there_is_not_is_the_predicted_one(tmp_path: Path) -> None:
    jitted = graphopt.jit(crossed, backend="numba")
    regions = Regions(jitted.trace(X).jaxpr, graphopt.config.Options(backend="numba"))
    ((region, _),) = regions.of("numba").items()
    write_lock(tmp_path / "lock", [Decision(regions.program, "numba", (region,), schedules=((region, "?", 1.0),))])
    (kernel,) = graphopt.jit(crossed, lock=tmp_path / "lock").explain(X).kernels
    assert kernel.source == jitted.explain(X).kernels[0].source


def test_kernels_that_become_one_are_chosen_by_themselves(tmp_path: Path) -> None:
    """A kernel whose loops were measured is not put side by side with others."""
    rows = [np.random.default_rng(k).normal(size=20_000 - 500 * k).astype(np.float32) for k in range(4)]
    jitted = graphopt.jit(lambda *rows: [jnp.sort(row) for row in rows])
    regions = Regions(jitted.trace(*rows).jaxpr, graphopt.config.Options())
    kernels = tuple(regions.of("auto"))
    together = len(jitted.explain(*rows).kernels)
    assert len(kernels) == 4 and together <= 4
    for schedules, apart in (((), 0), (((kernels[0], "", 4.0),), 1), (tuple((k, "", 4.0) for k in kernels), 4)):
        write_lock(tmp_path / "lock", [Decision(regions.program, "auto", kernels, schedules=schedules)])
        locked = graphopt.jit(jitted.__wrapped__, lock=tmp_path / "lock")
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            found = locked(*rows)
        assert len(locked.explain(*rows).kernels) >= max(apart, together)
        for row, sorted_row in zip(rows, found, strict=True):
            np.testing.assert_array_equal(sorted_row, np.sort(row))


def attention(q: jax.Array) -> jax.Array:
    """With running sums of the weights, which are computed in blocks, not row by row in one kernel."""
    return jnp.cumsum(jax.nn.softmax(q @ q.T, axis=-1), axis=-1) @ q


def test_a_lock_file_says_how_large_blocks_are(tmp_path: Path) -> None:
    q = np.random.default_rng(0).normal(size=(2048, 32)).astype(np.float32)
    regions = Regions(graphopt.jit(attention).trace(q).jaxpr, graphopt.config.Options())
    regions.of("auto")
    assert regions.has_blocks
    lengths = []
    for block in (1 << 20, None, 8 << 20):
        decision = Decision(regions.program, "auto", tuple(regions.of("auto", block)), block=block)
        write_lock(tmp_path / "lock", [decision])
        locked = graphopt.jit(attention, lock=tmp_path / "lock")
        (loop,) = [n for n in locked.explain(q).graph.nodes if n.op.name == "scan"]
        lengths.append(loop.attrs["length"])
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            np.testing.assert_allclose(locked(q), jax.jit(attention)(q), rtol=1e-3, atol=1e-4)
    assert lengths == sorted(lengths, reverse=True) and len(set(lengths)) == 3


@pytest.mark.filterwarnings("ignore::graphopt.errors.LockWarning")
def test_compiler_options_of_a_lock_file_reach_the_compiler(tmp_path: Path) -> None:
    """XLA refuses one that it does not know: so it has been asked, whichever way the function is called."""
    program = Regions(graphopt.jit(function).trace(X).jaxpr, graphopt.config.Options()).program
    write_lock(tmp_path / "lock", [Decision(program, "auto", (), compiler_options=(("xla_no_such_option", "1"),))])
    for options in ({}, {"donate_argnums": 0}, {"static_argnames": "n"}):
        locked = graphopt.jit(lambda x, n=0: function(x), lock=tmp_path / "lock", **options)
        for _ in range(2):
            with pytest.raises(Exception, match="No such compile option: 'xla_no_such_option'"):
                locked(X)
        with pytest.raises(Exception, match="No such compile option"):
            locked.lower(X).compile()
        # Inside of others theirs are the compiler's options, and for another program there are none.
        np.testing.assert_allclose(jax.jit(locked)(X), function(X), rtol=1e-3, atol=1e-3)
        np.testing.assert_allclose(jax.vmap(locked)(X[None])[0], function(X), rtol=1e-3, atol=1e-3)
        with pytest.warns(LockWarning):
            np.testing.assert_allclose(locked(X[:9]), function(X[:9]), rtol=1e-3, atol=1e-3)
    assert accepted_options() and not is_accepted(("xla_no_such_option", "1"))
    write_lock(tmp_path / "lock", [Decision(program, "auto", (), compiler_options=accepted_options()[:1])])
    locked = graphopt.jit(function, lock=tmp_path / "lock")
    for _ in range(2):
        np.testing.assert_allclose(locked(X), function(X), rtol=1e-3, atol=1e-3)
    assert locked._cache_size() <= 2


def test_what_is_changed_is_one_thing_after_the_other() -> None:
    regions = Regions(graphopt.jit(function).trace(X).jaxpr, graphopt.config.Options())
    *_, last = candidates(regions)
    seen = {}
    choices = Choices(regions, last)
    for what, others in choices:
        assert (others and choices.left >= 1) or what.startswith("loops"), what
        assert all(each.name.startswith(f"{choices.best.name}, ") for each in others)
        assert len({each.decision for each in others}) == len(others)
        seen[what] = len(others)
        if others:
            choices.best = others[-1]
    assert {"leaving kernels out", "loops of kernel 1", "grain of kernel 1"} < set(seen)
    options = dict(choices.best.decision.compiler_options)
    assert set(options) == {name for name, _ in accepted_options()} <= set(seen)
    exact = Regions(graphopt.jit(function).trace(X).jaxpr, graphopt.config.Options(numerics="exact"))
    assert not set(options) & {what for what, _ in Choices(exact, next(candidates(exact)))}


def test_another_process_finds_the_program_again(tmp_path: Path) -> None:
    program = cleandoc(
        """
        import sys, warnings
        warnings.simplefilter("error")
        import numpy as np, jax, jax.numpy as jnp, graphopt
        from typing import Any
        from jax import lax
        PRESCRIBED
        WEIGHTS = np.random.default_rng(1).normal(0, 0.02, size=(500, 500)).astype(np.float32)
        def f(x):
            y = prescribed(jnp.arctan2(x, x + 1), WEIGHTS)
            return jnp.sin(y) * jnp.exp(y) + y.sum(1, keepdims=True)
        x = np.full((64, 500), 0.5, np.float32)
        jitted = graphopt.jit(f, lock=sys.argv[1])
        jitted(x)
        print(len(jitted.explain(x).kernels))
        """
    )
    program = program.replace("PRESCRIBED", getsource(prescribed))
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
