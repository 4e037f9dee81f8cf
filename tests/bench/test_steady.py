"""Steady measurements: what is compared, how often, from which caches, and what happens where results differ."""

import ctypes
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from graphopt.bench import caches, steady
from graphopt.bench.caches import Sweep, last_cache
from graphopt.bench.numerics import heat
from graphopt.bench.programs import Program, renewed
from graphopt.bench.steady import Disagreement, agree, count, instructions, needed_bytes


@pytest.fixture(autouse=True)
def small_and_soon_done(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(steady, "swept", lambda: Sweep(1000))
    monkeypatch.setattr(steady, "PATIENCE", 0.0)


def test_a_program_is_measured_warm_and_fresh_beside_jax_and_numpy() -> None:
    program = heat(side=9, steps=2)
    row = steady.measure(program, 6)
    assert (row.name, row.error) == (program.name, None)
    assert row.equations == len(jax.make_jaxpr(program.make())(*program.arguments()).eqns)
    assert list(row.measures) == ["warm", "fresh", "first call"]
    for name in ("warm", "fresh"):
        measure = row.measures[name]
        beside = ["least", "numpy's least"] if name == "warm" else []
        assert list(measure.seconds) == ["jax", "graphopt", "numpy", *beside]
        assert all(seconds > 0 for seconds in measure.seconds.values())
        for ratio in (measure.ratio, measure.numpy_ratio):
            assert ratio is not None
            assert ratio.low is not None
            assert 0 < ratio.low <= ratio.median <= ratio.high
    first = row.measures["first call"]
    assert first.ratio.median == first.seconds["graphopt"] / first.seconds["jax"]
    assert row.memory is not None
    assert set(row.memory) == {"jax", "graphopt"}
    assert min(row.memory.values()) >= 2 * 9 * 9 * 4


def test_without_a_numpy_version_there_are_two_contenders() -> None:
    row = steady.measure(Program("sine", renewed(jnp.sin), lambda: (jnp.ones(3),)), 1)
    assert list(row.measures["warm"].seconds) == list(row.measures["fresh"].seconds) == ["jax", "graphopt"]
    assert row.measures["warm"].numpy_ratio is None


def test_results_that_differ_are_an_error_and_give_no_figures() -> None:
    functions = iter([lambda x: x, lambda x: x + 1, lambda x: x])
    row = steady.measure(Program("odd", lambda: next(functions), lambda: (jnp.zeros(3),)), 1)
    assert row.measures == {}
    assert row.error is not None
    assert row.error.startswith("Disagreement: 3 of 3 elements differ; at [0] graphopt gives 0.0, jax.jit gives 1.0")


def test_a_program_that_cannot_be_traced_is_an_error() -> None:
    row = steady.measure(Program("odd", renewed(lambda x: x @ x), lambda: (jnp.zeros((2, 3)),)), 1)
    assert row.error is not None
    assert row.error.startswith("TypeError: ")


F32 = np.float32


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (F32([1, 2]), F32([1, 2])),
        (F32([1.00005]), F32([1])),
        (F32([100, 0.0005]), F32([100, 0])),
        (F32([np.nan, np.inf, 1]), F32([np.nan, np.inf, 1.00005])),
        (np.int32([1, 2]), np.int32([1, 2])),
        (np.complex64([1 + 1j]), np.complex64([1.00001 + 1j])),
        ({"a": (F32(1), np.bool_(True))}, {"a": (F32(1), np.bool_(True))}),
        (F32([]), F32([])),
    ],
)
def test_results_agree_up_to_rounding(ours: Any, theirs: Any) -> None:
    agree(ours, theirs)


@pytest.mark.parametrize(
    ("ours", "theirs", "message"),
    [
        (F32([1.0002, 1]), F32([1, 1]), r"1 of 2 elements differ; at \[0\]"),
        (F32([[1, 1], [1, 1]]), F32([[1, 1], [1, 2]]), r"1 of 4 elements differ; at \[1, 1\]"),
        (F32([100, 0.002]), F32([100, 0]), r"1 of 2 elements differ; at \[1\]"),
        (F32([np.nan]), F32([1]), "graphopt gives nan, jax.jit gives 1.0"),
        (F32([np.inf]), F32([-np.inf]), "graphopt gives inf, jax.jit gives -inf"),
        (np.int32([1_000_000_001]), np.int32([1_000_000_000]), "1 of 1 elements differ"),
        (F32(1), np.float64(1), r"graphopt gives float32\(\), jax.jit gives float64\(\)"),
        (F32([1]), F32([1, 1]), r"graphopt gives float32\(1,\), jax.jit gives float32\(2,\)"),
        ((F32(1),), [F32(1)], "PyTreeDef"),
    ],
)
def test_results_that_do_not_agree_are_shown(ours: Any, theirs: Any, message: str) -> None:
    with pytest.raises(Disagreement, match=message):
        agree(ours, theirs)


@pytest.mark.parametrize(
    ("repeats", "seconds", "expected"),
    [
        (7, 1e-5, 35),  # short: five times as many as asked for
        (7, 0.02, 17),  # until the free time is used
        (7, 0.1, 7),
        (7, 0.85, 7),
        (7, 2.0, 3),  # long: as many as the limit has room for
        (7, 60.0, 1),
        (1, 1e-5, 5),
        (1, 60.0, 1),
    ],
)
def test_rounds_are_more_for_short_ones_and_fewer_for_long_ones(repeats: int, seconds: float, expected: int) -> None:
    assert count(repeats, seconds) == expected


def test_each_round_of_fresh_calls_starts_with_a_sweep_and_lets_results_go(monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[str] = []
    monkeypatch.setattr(steady, "swept", lambda: lambda: events.append("sweep"))
    monkeypatch.setattr(steady, "MOST_COPIES", 2)

    def contender(name: str) -> Any:
        return lambda x: events.append(name)

    shared = np.ones(3)
    functions = {"jax": contender("jax"), "graphopt": contender("graphopt")}
    steady.fresh(functions, {"jax": (shared,), "graphopt": (shared,)}, 2, 48)
    one, other = ["jax"] * 3 + ["graphopt"] * 3, ["graphopt"] * 3 + ["jax"] * 3
    assert events == ["sweep", *one, "sweep", *one, "sweep", *other]


def test_fresh_arguments_are_copies_that_no_other_call_of_the_round_gets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(steady, "MOST_COPIES", 3)
    seen: list[int] = []
    given = np.ones(3)

    def record(x: np.ndarray[Any, Any]) -> float:
        seen.append(id(x))
        return 0.0

    steady.fresh({"jax": record, "graphopt": record}, {"jax": (given,), "graphopt": (given,)}, 1, 48)
    assert len(set(seen)) == 2 * (1 + 3)
    assert id(given) not in seen
    assert len(seen) == 3 * len(set(seen))  # a round that is not counted, and two that are


@pytest.mark.parametrize(
    ("size", "calls"), [(1, 33), (steady.COPIES // 4, 5), (steady.COPIES, 1), (10 * steady.COPIES, 1)]
)
def test_large_arguments_and_results_are_there_once(size: int, calls: int) -> None:
    """Small ones several times, and once more in a call that is not counted."""
    seen: list[int] = []
    given = np.ones(3)
    functions = dict.fromkeys(("jax", "graphopt"), lambda x: seen.append(id(x)))
    steady.fresh(functions, dict.fromkeys(functions, (given,)), 1, size)
    assert len(set(seen)) == 2 * calls


@pytest.mark.parametrize("large", [False, True])
def test_large_results_get_new_memory_with_each_contender(large: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[str] = []
    monkeypatch.setattr(steady, "swept", lambda: lambda: events.append("sweep"))
    monkeypatch.setattr(steady, "give_memory_back", lambda: events.append("given back"))
    functions = {name: lambda x, name=name: events.append(name) for name in ("jax", "graphopt")}
    steady.fresh(functions, dict.fromkeys(functions, (np.ones(3),)), 1, steady.COPIES, 0.0, large)
    contender = [["given back", name] if large else [name] for name in ("jax", "graphopt")]
    assert events == 2 * ["sweep", *contender[0], *contender[1]] + ["sweep", *contender[1], *contender[0]]


def test_what_takes_seconds_is_called_once_and_not_with_fresh_arguments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(steady, "SLOW", 0.0)
    monkeypatch.setattr(steady, "LIMIT", 0.0)
    calls: list[str] = []

    def numpy(x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        calls.append("numpy")
        return x + 1

    row = steady.measure(Program("slow", renewed(lambda x: x + 1), lambda: (jnp.ones(3),), numpy), 7)
    assert calls == ["numpy"]
    assert list(row.measures) == ["warm", "first call"]
    assert row.measures["warm"].ratio.low is None


def test_programs_are_the_same_whatever_their_functions_are_called(tmp_path: Path) -> None:
    def named(name: str, constant: float) -> str:
        scope: dict[str, Any] = {"jnp": jnp, "constant": constant}
        exec(f"def {name}(x):\n    return jnp.sin(x @ x + constant).sum(0)", scope)
        return instructions(jax.jit(scope[name]).lower(jnp.ones((50, 50))).compile().as_text())

    assert named("one", 1.0) == named("other", 1.0)
    assert "sine" in named("one", 1.0)
    assert named("one", 1.0) != named("one", 2.0)


def test_a_case_says_whether_xla_made_the_same_program_of_it() -> None:
    moved = Program("moved", renewed(lambda x: x + 1), lambda: (jnp.ones(3),))
    ordered = Program("ordered", renewed(lambda x: (x @ x) @ x[0]), lambda: (jnp.ones((70, 70)),))
    assert steady.measure(moved, 1).same
    assert not steady.measure(ordered, 1).same


class Executable:
    def __init__(self, stats: Any) -> None:
        self.memory_analysis = lambda: stats


def test_memory_is_what_arguments_results_and_intermediate_values_take() -> None:
    x = jnp.ones((100, 100))
    compiled = jax.jit(lambda x: (x @ x) @ x).lower(x).compile()
    stats = compiled.memory_analysis()
    assert stats is not None
    assert needed_bytes(compiled) == 2 * 40_000 + stats.temp_size_in_bytes
    donated = jax.jit(lambda x: x + 1, donate_argnums=0).lower(x).compile()
    assert needed_bytes(donated) == 40_000
    assert needed_bytes(Executable(None)) is None


def test_a_sweep_runs_over_its_whole_buffer() -> None:
    sweep = Sweep(4000)
    sweep()
    assert sweep._buffer.shape == (1000,)
    assert (sweep._buffer == 2).all()


REUSED = """
import resource
import numpy as np
from graphopt.bench.caches import keep_memory
keep_memory()
for _ in range(3):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    held = [np.ones(1 << 17) for _ in range(10)]
    del held
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="the C library cannot be told")
def test_results_get_memory_that_the_process_has_had() -> None:
    """Ten arrays of 1 MiB have 2,560 pages."""
    done = subprocess.run([sys.executable, "-c", REUSED], check=True, capture_output=True, text=True)
    assert int(done.stdout) < 500


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        (["48K", "2048K", "32M"], 32 << 20),
        (["512\n"], 512),
        (["1G", "32K"], caches.LARGEST),
        ([], caches.UNKNOWN),
    ],
)
def test_the_largest_cache_is_what_linux_says(tmp_path: Path, sizes: list[str], expected: int) -> None:
    for index, size in enumerate(sizes):
        (tmp_path / f"index{index}").mkdir()
        (tmp_path / f"index{index}" / "size").write_text(size)
    assert last_cache(tmp_path) == expected
