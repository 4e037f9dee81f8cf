"""Compiled kernels in memory, and the one handler by which the XLA program calls them.

A kernel is known by the hash of its content (its source, and what compiles it), which the call carries as an attribute.
The handler finds the kernel by it in a table and runs its phases. XLA's persistent compilation cache may hold a program
that another process compiled: its calls name the content too, and lowering, which comes before that cache is asked, has
put the kernel into the table.

One thread compiles kernels, while XLA compiles the programs that call them: a kernel is in the table at once, and its
address when it is there. XLA asks for it when it is done itself (`graphopt.backends.numba.handler`).
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import threading
import time
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from typing import Any

import jax
import numpy as np

from graphopt.analysis.machine import usable_cores
from graphopt.analysis.writing import ALIGNED
from graphopt.backends.numba.code import compiler, define, loaded
from graphopt.backends.numba.frame import check_version
from graphopt.backends.numba.records import (
    ADDRESS,
    CELL,
    CELL_SIZE,
    COMPILING,
    FAILED,
    FORKED,
    INPUTS,
    IS_FORK,
    LATE,
    SLOTS,
    TASK,
    UNKNOWN,
)

TARGET = "graphopt.kernel"
"""The name of the handler in the XLA program."""


@dataclass(frozen=True, slots=True)
class Launch:
    """How a kernel is called.

    inputs: number of operands. results, scratch: bytes of each result and scratch buffer. phases: extent and grain of
    each, whether it runs beside the one before it, and whether threads that sleep are woken for those (`waking`).
    """

    inputs: int
    results: tuple[int, ...]
    scratch: tuple[int, ...]
    phases: tuple[tuple[int, int, bool, int], ...]


class _Table:
    """Kernels by their hash: open addressing in memory that compiled code reads without a lock.

    The cell (`graphopt.backends.numba.records`) holds the address of the slots: a mask, then pairs of hash and record.
    To grow, larger slots are filled and the cell is set to them; the old ones stay, for a call may be reading them.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._records: dict[int, np.ndarray[Any, Any]] = {}
        self._all_slots: list[np.ndarray[Any, Any]] = []
        self.cell = np.zeros(CELL_SIZE // 8, np.uint64)
        self._grow(64)

    def _grow(self, size: int) -> None:
        slots = np.zeros(1 + 2 * size, np.uint64)
        slots[0] = size - 1
        for key, record in self._records.items():
            self._place(slots, key, record)
        self._all_slots.append(slots)
        self.cell[SLOTS // 8] = slots.ctypes.data

    @staticmethod
    def _place(slots: np.ndarray[Any, Any], key: int, record: np.ndarray[Any, Any]) -> None:
        mask = int(slots[0])
        slot = key & mask
        while slots[1 + 2 * slot]:
            slot = (slot + 1) & mask
        slots[2 + 2 * slot] = record.ctypes.data  # before the key, by which it is found
        slots[1 + 2 * slot] = key

    def add(self, key: int, record: np.ndarray[Any, Any]) -> None:
        """Makes a kernel known; nothing happens where it is."""
        with self._lock:
            if key in self._records:
                return
            self._records[key] = record
            slots = self._all_slots[-1]
            if 2 * len(self._records) > int(slots[0]):
                self._grow(2 * (int(slots[0]) + 1))
            else:
                self._place(slots, key, record)

    def record(self, key: int) -> np.ndarray[Any, Any] | None:
        """What is known of a kernel."""
        return self._records.get(key)

    def __contains__(self, key: int) -> bool:
        return key in self._records

    def __len__(self) -> int:
        return len(self._records)


_table = _Table()
_kept: list[Any] = []  # what must live as long as its addresses are known to XLA
_adding = threading.Lock()


def kernel_key(source: str, launch: Launch) -> int:
    """The hash of a kernel's content: its source, how it is called, and what its code depends on besides.

    Loops over other extents have the same source: a parallel loop runs from `start` to `stop`.
    """
    text = repr((source, launch, compiler()))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:7], "little") | 1


compile_seconds: list[float] = []
"""How long each kernel took that this process has compiled, by the clock on the wall."""


@cache
def _compiler() -> ThreadPoolExecutor:
    """The thread that compiles kernels. One, for LLVM's compiler is behind a lock."""
    return ThreadPoolExecutor(1, "graphopt kernels")


def add_kernel(key: int, compile: Callable[[], tuple[str, bytes]], launch: Launch) -> None:
    """Makes a kernel known as `key`, where it is not. Its code is loaded, where it is kept, or what `compile` makes.

    Another thread does that, for it takes up to some tenths of a second; whoever calls the kernel waits for it. One
    that could not be compiled is tried again, when a program with it is lowered again.
    """
    phases = [int(number) for phase in launch.phases for number in _in_even_chunks(phase)]
    counts = [launch.inputs, len(launch.results), len(launch.scratch), len(launch.phases)]
    words = np.array([COMPILING, *counts, *launch.results, *launch.scratch, *phases], np.uint64)
    with _adding:
        record = _table.record(key)
        if record is None:
            record = words
            _table.add(key, record)
        elif record[ADDRESS] == FAILED:
            record[INPUTS], record[ADDRESS] = words[INPUTS], COMPILING
        else:
            return
    try:
        _compiler().submit(_compile, key, compile, record)
    except RuntimeError:  # the interpreter is about to end: there are no new threads
        _compile(key, compile, record)


def _compile(key: int, compile: Callable[[], tuple[str, bytes]], record: np.ndarray[Any, Any]) -> None:
    """Enters a kernel's address in its record, or what has come up instead."""

    def timed() -> tuple[str, bytes]:
        start = time.perf_counter()
        compiled = compile()
        compile_seconds.append(time.perf_counter() - start)
        return compiled

    try:
        record[ADDRESS] = loaded(f"{key:014x}", timed)
    except Exception:  # noqa: BLE001 - whatever it is, whoever calls the kernel gets it
        text = f"a graphopt kernel could not be compiled:\n{traceback.format_exc()}"
        message = ctypes.create_string_buffer(text.encode())
        _kept.append(message)
        record[INPUTS] = ctypes.addressof(message)
        record[ADDRESS] = FAILED  # after the message, which is read then


def _in_even_chunks(phase: tuple[int, int, bool, int]) -> tuple[int, int, bool, int]:
    """A phase, with one chunk of equal size for each thread where none is woken for it.

    One that is awake begins within a third of a microsecond, so that there is little to even out; and each thread goes
    through the same memory with every run. One that must be woken may come at any time.
    """
    extent, grain, beside, wakes = phase
    chunks = min(usable_cores(), extent // grain)
    if wakes or chunks < 2:
        return phase
    least = -(-extent // chunks)
    return extent, least if least <= ALIGNED else -(-least // ALIGNED) * ALIGNED, beside, wakes


def is_known(key: int) -> bool:
    """Whether a kernel is known in this process, compiled or about to be."""
    return key in _table


def kernel_count() -> int:
    """How many kernels this process knows."""
    return len(_table)


_MESSAGES = {
    UNKNOWN: b"a graphopt kernel of this program is not known in this process: another one compiled it, and here it "
    b"was loaded without being lowered. Call the graphopt.jit function itself, or export it with jax.export.",
    FORKED: b"this process was made by os.fork after JAX had started threads, which it does not have; graphopt kernels "
    b"cannot run in it. Start processes with multiprocessing's 'spawn' or 'forkserver'.",
    LATE: b"a graphopt kernel of this program has not been compiled for ten minutes; set graphopt's backend='xla', and "
    b"report this.",
}


def _mark_fork() -> None:
    _table.cell[IS_FORK // 8] = 1


@cache
def register_handler() -> None:
    """Makes the handler known to XLA, once a process. Raises EngineError where the interface is not known."""
    major, minor = check_version()
    define(CELL, _table.cell.ctypes.data)
    for name, text in _MESSAGES.items():
        message = ctypes.create_string_buffer(text)
        _kept.append(message)
        define(name, ctypes.addressof(message))
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=_mark_fork)

    def task() -> tuple[str, bytes]:
        from graphopt.backends.numba.handler import task_object

        return task_object()

    def handler() -> tuple[str, bytes]:
        from graphopt.backends.numba.handler import handler_object

        return handler_object(major, minor)

    version = hashlib.sha256(repr((major, minor, compiler())).encode()).hexdigest()[:14]
    define(TASK, loaded(f"task-{version}", task))
    address = loaded(f"handler-{version}", handler)
    new_capsule = ctypes.pythonapi.PyCapsule_New
    new_capsule.restype, new_capsule.argtypes = ctypes.py_object, [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]
    stages = {name: new_capsule(address, None, None) for name in ("instantiate", "execute")}
    jax.ffi.register_ffi_target(TARGET, stages, platform="cpu")
