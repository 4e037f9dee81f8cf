"""`graphopt calibrate`: measures what predicted times rest on, once a machine, and keeps it for later processes."""

from __future__ import annotations

import argparse
import dataclasses
import re
import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import jit as jax_jit
from rich.console import Console
from rich.table import Table

import graphopt
from graphopt.analysis.machine import Machine, keep

REPEATS = 9

CACHES = Path("/sys/devices/system/cpu/cpu0/cache")
"""Where Linux says what caches a core has."""

ROWS = 768
"""Rows and columns of the matrices that are multiplied."""


def main(argv: Sequence[str]) -> int:
    """Measures, prints and keeps the rates of this machine. Returns the exit status."""
    parser = argparse.ArgumentParser(prog="graphopt calibrate", description=__doc__)
    parser.add_argument("--dry-run", action="store_true", help="print what was measured, and keep nothing")
    arguments = parser.parse_args(argv)
    machine = measured()
    table = Table(title="this machine", title_justify="left")
    for heading in ("", "measured", "by default"):
        table.add_column(heading, justify="right" if heading else "left")
    for field in dataclasses.fields(Machine):
        default = getattr(Machine(), field.name)
        table.add_row(field.name, f"{getattr(machine, field.name):,.1f}", f"{default:,.1f}")
    console = Console()
    console.print(table)
    console.print("bytes, bytes and operations a nanosecond, and nanoseconds: see graphopt.analysis.machine.Machine")
    if not arguments.dry_run:
        keep(machine)
    return 0


def measured() -> Machine:
    """The rates of this machine, by copies, kernels of several sizes, and products. Takes some seconds."""
    default = Machine()
    sizes = {"near": default.near, "shared": default.shared} | _caches()
    near = _copy_rate(sizes["near"] // 4, 2000)
    shared = _copy_rate(sizes["shared"] // 3, 20)
    memory = _copy_rate(8 * sizes["shared"], 3)
    call, wake = _kernel_times(1_000), _kernel_times(200_000)
    work = 200_000 * 8 / (near * default.threads)
    kernel, xla = partial(graphopt.jit, jnp.matmul, backend="numba"), partial(jax_jit, jnp.matmul)
    return dataclasses.replace(
        default,
        **sizes,
        near_rate=near,
        shared_rate=max(shared, memory),
        memory_rate=memory,
        page_rate=_page_rate(),
        call=min(call, 20_000.0),
        wake=min(max(wake - call - work, 1_000.0), 100_000.0),
        flops32=_flops(kernel(), np.float32),
        flops64=_flops(kernel(), np.float64),
        xla_flops32=_flops(xla(), np.float32),
        xla_flops64=_flops(xla(), np.float64),
    )


def _seconds(run: Callable[[], Any], times: int = 1) -> float:
    """The least of some measurements: what else the machine does only adds."""
    run()
    found = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        for _ in range(times):
            run()
        found.append((time.perf_counter() - start) / times)
    return min(found)


def _caches(folder: Path = CACHES) -> dict[str, int]:
    """Bytes of a core's own caches and of those that all share, as far as the system says."""
    found: dict[str, int] = {}
    for cache in sorted(folder.glob("index*")):
        try:
            level, kind, size = ((cache / name).read_text().strip() for name in ("level", "type", "size"))
        except OSError:
            continue
        if kind != "Instruction" and re.fullmatch(r"[1-9]\d*K", size) and level in ("1", "2", "3"):
            found["shared" if level == "3" else "near"] = int(size[:-1]) << 10
    return found


def _copy_rate(size: int, times: int) -> float:
    """Bytes read and written in a nanosecond where so many bytes are copied."""
    source, target = np.ones(size, np.uint8), np.ones(size, np.uint8)
    return 2 * size / (1e9 * _seconds(lambda: np.copyto(target, source), times))


def _page_rate() -> float:
    """Bytes written in a nanosecond to memory that the process has just been given."""
    size = 64 << 20
    return size / (1e9 * statistics.median(_seconds(lambda: np.ones(size, np.uint8)) for _ in range(3)))


def _flops(product: Callable[[Any, Any], Any], dtype: Any) -> float:
    """Operations a nanosecond of one core in the product of two matrices, large enough for them to be all it does."""
    with jax.enable_x64(True):
        x = jnp.ones((ROWS, ROWS), dtype)
        seconds = _seconds(lambda: jax.block_until_ready(product(x, x)))
    return 2 * ROWS**3 / (1e9 * seconds * Machine().threads)


def _kernel_times(elements: int) -> float:
    """Nanoseconds that a kernel of so many elements takes beyond what XLA takes to be called at all."""
    x = jnp.ones(elements)
    nothing = jax_jit(lambda x: x[0] + 1)
    kernel = graphopt.jit(lambda x: x * 2 + 1, backend="numba")

    def seconds(function: Callable[..., Any]) -> float:
        return _seconds(lambda: jax.block_until_ready(function(x)), 200)

    return max(100.0, 1e9 * (seconds(kernel) - seconds(nothing)))
