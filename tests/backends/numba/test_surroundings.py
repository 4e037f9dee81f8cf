"""Kernels among threads, devices and interruptions: exact results, clear errors, nothing left broken."""

import os
import signal
import subprocess
import sys
import threading
from inspect import cleandoc
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export

import graphopt
from graphopt import store
from graphopt.backends.numba import compiling
from graphopt.ops.kernel import KERNEL


def rows(x: Any) -> Any:
    return x * 2 - x.max(1, keepdims=True)


@pytest.mark.parametrize("calls", [500, pytest.param(10_000, marks=pytest.mark.exhaustive)])
def test_two_threads_call_one_function(calls: int) -> None:
    jitted = graphopt.jit(rows, backend="numba")
    inputs = [np.arange(60_000, dtype=np.float32).reshape(300, 200) + shift for shift in range(2)]
    wanted = [x * 2 - x.max(1, keepdims=True) for x in inputs]
    jitted(inputs[0])
    wrong: list[int] = []

    def work(number: int) -> None:
        for call in range(calls):
            if not np.array_equal(jitted(inputs[number]), wanted[number]):
                wrong.append(call)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_several_devices() -> None:
    """On each of them, inside shard_map, and in a program that is partitioned, which has no kernels: right everywhere."""
    program = cleandoc(
        """
        import jax, jax.numpy as jnp, numpy as np, graphopt
        from jax.sharding import NamedSharding, PartitionSpec as P
        def rows(x):
            return x * 2 - x.max(1, keepdims=True)
        x = np.arange(4000, dtype=np.float32).reshape(40, 100)
        want = x * 2 - x.max(1, keepdims=True)
        jitted = graphopt.jit(rows, backend="numba")
        for device in jax.devices():
            found = jitted(jax.device_put(x, device))
            assert found.devices() == {device}
            np.testing.assert_array_equal(found, want)
        mesh = jax.make_mesh((4,), ("i",), axis_types=(jax.sharding.AxisType.Auto,))
        spread = jax.device_put(x, NamedSharding(mesh, P("i")))
        np.testing.assert_array_equal(jitted(spread), want)
        assert "graphopt.kernel" not in jitted.lower(spread).as_text()
        mapped = jax.jit(jax.shard_map(jitted, mesh=mesh, in_specs=P("i"), out_specs=P("i")))
        np.testing.assert_array_equal(mapped(spread), want)
        assert "graphopt.kernel" in mapped.lower(spread).as_text()
        print("right")
        """
    )
    environment = os.environ | {
        "XLA_FLAGS": "--xla_force_host_platform_device_count=4",
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=600)
    assert done.stdout.strip() == "right", done.stderr[-3000:]


def test_an_exported_program_has_no_kernels() -> None:
    x = jnp.ones((40, 100))
    exported = export.export(graphopt.jit(rows, backend="numba"))(x)
    assert "graphopt.kernel" not in exported.mlir_module()
    np.testing.assert_array_equal(export.deserialize(exported.serialize()).call(x), rows(x))


def test_an_interruption_while_a_kernel_is_compiled_leaves_nothing_broken(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    x = np.linspace(0, 1, 77, dtype=np.float32)
    jitted = graphopt.jit(lambda x: x * 37 - 41, backend="numba")
    object_of = compiling.object_of

    def interrupted(*args: Any) -> Any:
        os.kill(os.getpid(), signal.SIGINT)
        return object_of(*args)

    handler = signal.signal(signal.SIGINT, signal.default_int_handler)  # processes of pytest-xdist ignore it
    try:
        with monkeypatch.context() as patch:
            patch.setattr(compiling, "object_of", interrupted)
            with store.kept_in(tmp_path), pytest.raises(KeyboardInterrupt):
                jitted(x)
    finally:
        signal.signal(signal.SIGINT, handler)
    np.testing.assert_allclose(jitted(x), x * 37 - 41, rtol=1e-5)
    assert any(node.op is KERNEL for node in jitted.explain(x).graph.nodes)


def test_what_comes_up_while_a_kernel_is_compiled_is_an_error_of_the_call(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    x = np.linspace(0, 1, 79, dtype=np.float32)
    jitted = graphopt.jit(lambda x: x * 43 - 47, backend="numba")

    def full(*args: Any) -> Any:
        raise MemoryError("there is none left")

    with monkeypatch.context() as patch:
        patch.setattr(compiling, "object_of", full)
        with store.kept_in(tmp_path):
            for _ in range(2):
                with pytest.raises(jax.errors.JaxRuntimeError, match="could not be compiled") as raised:
                    jitted(x)
                assert "MemoryError: there is none left" in str(raised.value)
    jitted.clear_cache()
    np.testing.assert_allclose(jitted(x), x * 43 - 47, rtol=1e-5)


def test_xla_waits_for_a_kernel_that_takes_longer_to_compile(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """When the program is compiled, so are its kernels; the thread that does that has begun when it is lowered."""
    x = np.linspace(0, 1, 83, dtype=np.float32)
    begun, go_on, done = threading.Event(), threading.Event(), threading.Event()
    object_of = compiling.object_of

    def slowly(*args: Any) -> Any:
        begun.set()
        assert go_on.wait(60)
        found = object_of(*args)
        done.set()
        return found

    monkeypatch.setattr(compiling, "object_of", slowly)
    with store.kept_in(tmp_path):
        lowered = graphopt.jit(lambda x: x * 53 - 59, backend="numba").lower(x)
        assert begun.wait(60) and not done.is_set()
        threading.Timer(0.2, go_on.set).start()
        compiled = lowered.compile()
        assert done.is_set()
    np.testing.assert_allclose(compiled(x), x * 53 - 59, rtol=1e-5)
