"""Kernels at run time: threads, transformations around and inside, memory, caches, and what is refused."""

import ctypes
import itertools
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from inspect import cleandoc
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import graphopt
from graphopt.analysis import machine, parts, writing
from graphopt.backends.numba import engine, frame, objects, records
from graphopt.backends.numba.emit import source_of
from graphopt.backends.numba.engine import NumbaEngine, plan_by_key
from graphopt.backends.numba.names import function_of
from graphopt.backends.numba.objects import (
    TARGET,
    Launch,
    _Table,
    is_known,
    kernel_count,
    kernel_key,
    register_handler,
)
from graphopt.errors import EngineError
from graphopt.ops.kernel import KERNEL


def numba_jit(function: Callable[..., Any], **options: Any) -> Any:
    return graphopt.jit(function, backend="numba", **options)


def kernel_nodes(jitted: Any, *args: Any) -> list[Any]:
    return [node for node in jitted.explain(*args).graph.nodes if node.op is KERNEL]


def affine(x: Any) -> Any:
    return x * 2 - 3


def rows(x: Any) -> Any:
    return x * 2 - x.sum(1, keepdims=True)


# ---- kernels are known by their content


def test_equal_source_and_other_extents() -> None:
    """A parallel loop's extent is not in the source: the kernels differ in how they are called."""
    first, second = numba_jit(lambda x: x * 5 - 7), numba_jit(lambda x: x * 5 - 7)
    long, short = np.arange(50_021, dtype=np.float32), np.arange(13, dtype=np.float32)
    keys = [kernel_nodes(f, x)[0].attrs["key"] for f, x in ((first, long), (second, short))]
    assert plan_by_key(keys[0]).source == plan_by_key(keys[1]).source and keys[0] != keys[1]
    for _ in range(2):
        np.testing.assert_array_equal(first(long), long * 5 - 7)
        np.testing.assert_array_equal(second(short), short * 5 - 7)
    np.testing.assert_array_equal(second(long), long * 5 - 7)


def test_a_kernel_is_compiled_once() -> None:
    x = np.arange(11, dtype=np.float32)
    jitted = numba_jit(lambda x: x * 11 - 13)
    jitted(x)
    count = kernel_count()
    jitted(x + 1)
    numba_jit(lambda v: v * 11 - 13)(x)  # another function of the same content
    assert kernel_count() == count
    jitted.clear_cache()
    jitted(x)
    assert kernel_count() == count
    jitted(x[:5])
    assert kernel_count() == count + 1


def test_the_key_covers_what_a_kernel_is() -> None:
    launch = Launch(1, (20,), (), ((5, 5, False, False),))
    keys = {
        kernel_key("a", launch),
        kernel_key("b", launch),
        kernel_key("a", Launch(1, (20,), (), ((5, 4, False, False),))),
        kernel_key("a", Launch(1, (20,), (8,), ((5, 5, False, False),))),
        kernel_key("a", Launch(2, (20,), (), ((5, 5, False, False),))),
        kernel_key("a", Launch(1, (20,), (), ((5, 5, False, True),))),
    }
    assert len(keys) == 6 and all(0 < key < 2**56 for key in keys)
    assert kernel_key("a", launch) == kernel_key("a", Launch(1, (20,), (), ((5, 5, False, False),)))


def test_the_table_of_kernels_grows() -> None:
    table = _Table()
    records = {key: np.array([key], np.uint64) for key in (64 * k + 1 for k in range(200))}  # all begin at one slot
    for key, record in records.items():
        table.add(key, record)
        table.add(key, np.zeros(1, np.uint64))  # known already
    assert len(table) == 200 and all(key in table for key in records) and 5 not in table
    slots = table._all_slots[-1]
    assert int(table.cell[0]) == slots.ctypes.data
    placed = {int(k): int(a) for k, a in zip(slots[1::2], slots[2::2], strict=True) if k}
    assert placed == {key: record.ctypes.data for key, record in records.items()}


def test_an_unknown_kernel_is_a_clear_error() -> None:
    register_handler()
    x = jnp.zeros(3)
    assert not is_known(12345)
    call = jax.jit(
        lambda x: jax.ffi.ffi_call(TARGET, jax.ShapeDtypeStruct((3,), jnp.float32))(x, kernel=np.uint64(12345))
    )
    for _ in range(3):
        with pytest.raises(Exception, match="a graphopt kernel of this program is not known in this process"):
            jax.block_until_ready(call(x))
    np.testing.assert_array_equal(numba_jit(affine)(x), np.full(3, -3, np.float32))  # nothing is the worse for it


def test_a_version_of_the_interface_that_is_not_known_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    frame.check_version.cache_clear()
    major, minor = frame.check_version()
    assert (major, minor) in frame.TRIED
    frame.check_version.cache_clear()
    monkeypatch.setattr(frame, "TRIED", ((7, 8), (7, 9)))
    with pytest.raises(
        EngineError, match=rf"version {major}\.{minor} of XLA's .* is not one of 7\.8, 7\.9; use backend"
    ):
        frame.check_version()
    monkeypatch.setattr(jax.ffi, "include_dir", lambda: "nowhere")
    with pytest.raises(EngineError, match="cannot be read from nowhere"):
        frame.check_version()
    monkeypatch.undo()
    assert frame.check_version() == (major, minor)


# ---- threads


@pytest.fixture
def fine(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """So little work is worth a thread that each phase is cut into many chunks."""
    monkeypatch.setattr(writing, "GRAIN", 2.0)
    monkeypatch.setattr(machine, "TURN", 1e-9)
    monkeypatch.setattr(parts, "LONG", 100)
    yield


def test_chunks_on_many_threads_give_what_one_does(fine: None) -> None:
    x = np.random.default_rng(0).integers(-9, 9, (37, 101)).astype(np.float32)

    def function(x: Any) -> Any:
        flat = x.reshape(-1)
        return rows(x), jnp.sum(flat), lax.argmax(flat * 2, 0, np.int32), lax.cumsum(flat), lax.cummax(x, 1)

    jitted = numba_jit(function)
    keys = [node.attrs["key"] for node in kernel_nodes(jitted, x)]
    extents = [p for key in keys for p in planned_phases(key)]
    assert len(keys) >= 4 and any(extent > 5 * grain and wakes for extent, grain, _, wakes in extents)
    expected = jax.jit(function)(x)
    for _ in range(50):
        for found, e in zip(jitted(x), expected, strict=True):
            np.testing.assert_array_equal(found, e)


def test_phases_for_which_no_thread_is_woken(monkeypatch: pytest.MonkeyPatch) -> None:
    """Calls that follow each other share them, calls that come later do not."""
    monkeypatch.setattr(writing, "GRAIN", 200.0)
    x = np.arange(20_011, dtype=np.float32)
    jitted = numba_jit(lambda x: jnp.sqrt(x) + 1)
    ((extent, grain, _, wakes),) = planned_phases(kernel_nodes(jitted, x)[0].attrs["key"])
    assert extent > 5 * grain and grain % 64 == 0 and not wakes
    for pause in (0.0, 0.0, 0.0, 0.001, 0.0, 0.001) * 20:
        time.sleep(pause)
        np.testing.assert_allclose(jitted(x), np.sqrt(x) + 1, rtol=1e-6)


@pytest.mark.skipif(machine.usable_cores() == 1, reason="there is one thread")
def test_what_others_held_up_is_done_alone() -> None:
    """Kernels of some hundred microseconds, for a while; longer ones are shared whatever happens."""
    cell = objects._table.cell
    looked, alone = (offset // 8 for offset in (records.LOOKED, records.ALONE))

    def is_helped(jitted: Any, x: Any) -> bool:
        """Whether a thread of the pool has had a look for work while some kernels ran."""
        before = int(cell[looked])
        for _ in range(50):
            np.testing.assert_allclose(jitted(x), np.sqrt(x) + 1, rtol=1e-6)
        return int(cell[looked]) != before

    x = np.arange(400_003, dtype=np.float32)
    jitted = {}
    for work in (1, 2):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(engine, "waking", lambda core, work=work: work)
            jitted[work] = numba_jit(lambda x, work=work: jnp.sqrt(x) + 1.0 * (work > 0))
            ((*_, waking),) = planned_phases(kernel_nodes(jitted[work], x)[0].attrs["key"])
            jitted[work](x)
        assert waking == work
    cell[alone] = 0
    assert is_helped(jitted[1], x) and is_helped(jitted[2], x)
    cell[alone] = 1 << 62
    time.sleep(0.01)  # for those that have been asked already
    try:
        assert not is_helped(jitted[1], x) and is_helped(jitted[2], x)
    finally:
        cell[alone] = 0


@pytest.mark.parametrize(
    ("cores", "extent", "grain", "expected"),
    [
        (2, 100_000, 33_344, 50_048),  # not three chunks for two threads
        (2, 100_000, 20_032, 50_048),
        (16, 100_000, 20_032, 25_024),
        (2, 50_000, 25_024, 25_024),  # too little for two
        (2, 5, 1, 3),
        (4, 120, 60, 60),
        (1, 100_000, 20_032, 20_032),
    ],
)
def test_threads_that_are_awake_have_equal_chunks(
    cores: int, extent: int, grain: int, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(objects, "usable_cores", lambda: cores)
    assert objects._in_even_chunks((extent, grain, False, 0)) == (extent, expected, False, 0)
    assert objects._in_even_chunks((extent, grain, True, 1)) == (extent, grain, True, 1)


def planned_phases(key: int) -> tuple[tuple[int, int, bool, int], ...]:
    from graphopt.backends.numba.engine import _planned

    return _planned[key].launch.phases


def test_eight_threads_call_one_function(fine: None) -> None:
    x = np.arange(3000, dtype=np.float32).reshape(30, 100)
    jitted = numba_jit(lambda x: rows(x) + 1)
    wrong: list[Any] = []

    def work(number: int) -> None:
        mine = x + number
        expected = mine * 2 - mine.sum(1, keepdims=True) + 1
        for _ in range(100):
            if not np.array_equal(jitted(mine), expected):
                wrong.append(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_threads_that_compile_at_the_same_time() -> None:
    """Each its own function, and all of them one more: which is compiled once."""
    x = np.arange(29, dtype=np.float32)
    barrier, found = threading.Barrier(4), {}
    shared = numba_jit(lambda x: x * 17 - 19)
    before = kernel_count()

    def work(number: int) -> None:
        barrier.wait()
        found[number] = (np.asarray(shared(x)), np.asarray(numba_jit(lambda x: x * 23 - number)(x)))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number in range(4):
        np.testing.assert_array_equal(found[number][0], x * 17 - 19)
        np.testing.assert_array_equal(found[number][1], x * 23 - number)
    assert kernel_count() == before + 5


def test_any_split_of_a_phase_computes_the_same() -> None:
    """The compiled function itself, over ranges in any order, each phase after the one before it."""
    import numba

    x = np.random.default_rng(1).integers(-9, 9, 100).astype(np.float32)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parts, "LONG", 50)
        patch.setattr(parts, "PARTS", 8)
        body = graphopt.trace(lambda x: lax.cumsum(x * 2))(x)
        program, _ = NumbaEngine().program(body)
    assert len(program.phases) == 2
    function = function_of(source_of(program, any_order=True))
    compiled = numba.cfunc("uintp(uintp, intp, intp, intp)", error_model="numpy")(function)
    call = ctypes.CFUNCTYPE(ctypes.c_size_t, ctypes.c_void_p, *[ctypes.c_ssize_t] * 3)(compiled.address)
    random = np.random.default_rng(2)
    for _ in range(20):
        memory = [x.copy() if b.role == "in" else np.full(b.size, np.nan, b.dtype) for b in program.buffers]
        table = np.array([m.ctypes.data for m in memory], np.uint64)
        for number, phase in enumerate(program.phases):
            cuts = sorted({0, phase.extent, *random.integers(0, phase.extent, random.integers(0, 6)).tolist()})
            ranges = list(itertools.pairwise(cuts))
            random.shuffle(ranges)
            for start, stop in ranges:
                assert call(table.ctypes.data, number, start, stop) == 0
        out = next(m for m, b in zip(memory, program.buffers, strict=True) if b.role == "out")
        np.testing.assert_array_equal(out, np.cumsum(x * 2))
        np.testing.assert_array_equal(memory[0], x)


# ---- JAX around and inside


def test_inside_of_a_scan_and_of_other_functions() -> None:
    x = np.arange(12, dtype=np.float32).reshape(3, 4)
    jitted = numba_jit(rows)
    scanned = jax.jit(lambda x: lax.scan(lambda c, _: (jitted(c) * 0.25, c.sum()), x, None, length=5))
    plain = jax.jit(lambda x: lax.scan(lambda c, _: (rows(c) * 0.25, c.sum()), x, None, length=5))
    for found, expected in zip(scanned(x), plain(x), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-6)
    whole = numba_jit(lambda x: lax.scan(lambda c, _: (rows(c) * 0.25, c.sum()), x, None, length=5))
    np.testing.assert_allclose(whole(x)[1], plain(x)[1], rtol=1e-6)


def test_transformations() -> None:
    x = np.arange(12, dtype=np.float32).reshape(3, 4)
    many = np.stack([x, x + 1])
    jitted = numba_jit(rows)
    loss = lambda f: lambda x: jnp.sum(f(x) * f(x))
    np.testing.assert_array_equal(jax.vmap(jitted)(many), np.stack([rows(x), rows(x + 1)]))
    np.testing.assert_allclose(jax.grad(loss(jitted))(x), jax.grad(loss(rows))(x), rtol=1e-6)
    np.testing.assert_allclose(numba_jit(jax.grad(loss(rows)))(x), jax.grad(loss(rows))(x), rtol=1e-6)
    np.testing.assert_array_equal(numba_jit(jax.vmap(rows))(many), jax.vmap(rows)(many))
    primal, tangent = jax.jvp(jitted, (x,), (x,))
    np.testing.assert_array_equal(primal, tangent)


def test_a_donated_argument() -> None:
    x = np.arange(1000, dtype=np.float32)
    given = jnp.asarray(x)
    jitted = numba_jit(lambda x, y: (x * 3 - y, x[::-1] + y), donate_argnums=0)
    first, second = jitted(given, x)
    np.testing.assert_array_equal(first, x * 2)
    np.testing.assert_array_equal(second, x[::-1] + x)
    for _ in range(20):
        given = jitted(given if not given.is_deleted() else jnp.asarray(x), x)[0]
    assert np.isfinite(np.asarray(given)).all()


def test_what_is_captured() -> None:
    weights = jnp.arange(5.0)
    jitted = numba_jit(lambda x: x * weights - np.float32(2))
    np.testing.assert_array_equal(jitted(np.ones(5, np.float32)), np.arange(5) - 2.0)


# ---- memory


def resident() -> int:
    """Bytes of memory of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs /proc")
def test_calls_keep_no_memory(fine: None) -> None:
    x = jnp.arange(500.0)
    jitted = numba_jit(lambda x: x - jnp.sum(x) * 2)  # two phases, scratch memory and shared loops
    for _ in range(1000):
        jitted(x)
    jax.block_until_ready(jitted(x))
    before = resident()
    for _ in range(20_000):
        jitted(x)
    jax.block_until_ready(jitted(x))
    # One word kept by each call would be a megabyte of small pieces; a loop's state or the scratch memory much more.
    assert resident() - before < 4 << 20


def test_the_first_call_in_a_new_process_may_find_its_program_in_the_cache_of_jax(tmp_path: Path) -> None:
    program = cleandoc("""
        import sys
        import jax, numpy as np
        jax.config.update("jax_compilation_cache_dir", sys.argv[1])
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
        jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
        hits = []
        jax.monitoring.register_event_listener(lambda name, **_: hits.append(name))
        import graphopt
        f = graphopt.jit(lambda x: (x * 2 - x.sum(1, keepdims=True)).max(1), backend="numba")
        x = np.arange(12, dtype=np.float32).reshape(3, 4)
        print(np.asarray(f(x)).tolist(), "/jax/compilation_cache/cache_hits" in hits)
    """)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    found = [
        subprocess.run(
            [sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True, env=environment, check=False
        )
        for _ in range(2)
    ]
    assert [run.returncode for run in found] == [0, 0], found[-1].stderr
    assert [run.stdout.strip() for run in found] == ["[0.0, -8.0, -16.0] False", "[0.0, -8.0, -16.0] True"]
