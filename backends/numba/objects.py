"""Compiled kernels in memory, and the one handler by which the XLA program calls them.

A kernel is known by the hash of its content (its source, and what compiles it), which the call carries as an attribute.
The handler finds the kernel by it in a table and runs its phases. XLA's persistent compilation cache may hold a program
that another process compiled: its calls name the content too, and lowering, which comes before that cache is asked, has
put the kernel into the table.
"""

from __future__ import annotations

import ctypes
import hashlib
import threading
from dataclasses import dataclass
from functools import cache
from typing import Any

import jax
import numba
import numpy as np
from numba import types

from graphopt.backends.numba.frame import (
    API,
    ARGS,
    ATTRS,
    DATA,
    ERROR_CREATE,
    EXECUTE,
    EXTENSION,
    FAILED_PRECONDITION,
    MAJOR,
    METADATA,
    MINOR,
    RETS,
    SCALAR_VALUE,
    STAGE,
    check_version,
)
from graphopt.backends.numba.memory import (
    MADV_HUGEPAGE,
    PAGE,
    call,
    free,
    load,
    load_int32,
    madvise,
    malloc,
    store,
    store_int32,
)
from graphopt.backends.numba.pool import parallel_for

TARGET = "graphopt.kernel"
"""The name of the handler in the XLA program."""

KERNEL_SIGNATURE = types.uintp(types.uintp, types.intp, types.intp, types.intp)
"""A kernel: (table of buffers, phase, start, stop); returns 0."""

LARGE = 1 << 22
"""Bytes from which on memory is asked for in huge pages."""

# A kernel's record, in words: address, number of inputs, of results, of scratch buffers and of phases, then the bytes
# of each result and each scratch buffer, then extent and grain of each phase.
ADDRESS, INPUTS, RESULTS, SCRATCHES, PHASES, REST = range(6)


@dataclass(frozen=True, slots=True)
class Launch:
    """How a kernel is called.

    inputs: number of operands. results, scratch: bytes of each result and scratch buffer. phases: extent and grain of
    each.
    """

    inputs: int
    results: tuple[int, ...]
    scratch: tuple[int, ...]
    phases: tuple[tuple[int, int], ...]


class _Table:
    """Kernels by their hash: open addressing in memory that compiled code reads without a lock.

    The cell holds the address of the slots: a mask, then pairs of hash and record. To grow, larger slots are filled and
    the cell is set to them; the old ones stay, for a call may be reading them.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._records: dict[int, np.ndarray[Any, Any]] = {}
        self._all_slots: list[np.ndarray[Any, Any]] = []
        self.cell = np.zeros(1, np.uint64)
        self._grow(64)

    def _grow(self, size: int) -> None:
        slots = np.zeros(1 + 2 * size, np.uint64)
        slots[0] = size - 1
        for key, record in self._records.items():
            self._place(slots, key, record)
        self._all_slots.append(slots)
        self.cell[0] = slots.ctypes.data

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

    def __contains__(self, key: int) -> bool:
        return key in self._records

    def __len__(self) -> int:
        return len(self._records)


_table = _Table()
_compiled: list[Any] = []  # what must live as long as its addresses are in the table
_compiling = threading.Lock()


def kernel_key(source: str, launch: Launch) -> int:
    """The hash of a kernel's content: its source, how it is called, the versions of what compiles it, and the CPU.

    Loops over other extents have the same source: a parallel loop runs from `start` to `stop`.
    """
    cpu = numba.core.registry.cpu_target.target_context.codegen().magic_tuple()
    text = repr((source, launch, numba.__version__, np.__version__, cpu))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:7], "little") | 1


def add_kernel(key: int, function: Any, launch: Launch) -> Any:
    """Compiles `function`, of KERNEL_SIGNATURE's types, and makes it known as `key`; returns Numba's object.

    Takes about a tenth of a second. Where the kernel is known already nothing is compiled and None is returned.
    """
    with _compiling:
        if key in _table:
            return None
        compiled = numba.cfunc(KERNEL_SIGNATURE, error_model="numpy")(function)
        _compiled.append(compiled)
        phases = [number for phase in launch.phases for number in phase]
        counts = [launch.inputs, len(launch.results), len(launch.scratch), len(launch.phases)]
        words = [compiled.address, *counts, *launch.results, *launch.scratch, *phases]
        _table.add(key, np.array(words, np.uint64))
        return compiled


def is_known(key: int) -> bool:
    """Whether a kernel has been compiled in this process."""
    return key in _table


def kernel_count() -> int:
    """How many kernels this process has compiled."""
    return len(_table)


_message = ctypes.create_string_buffer(
    b"a graphopt kernel of this program is not known in this process: another one compiled it, and here it was loaded "
    b"without being lowered. Call the graphopt.jit function itself, or export it with jax.export."
)


@cache
def register_handler() -> None:
    """Makes the handler known to XLA, once a process. Raises EngineError where the interface is not known."""
    major, minor = check_version()
    handler = _handler(major, minor, _table.cell.ctypes.data, ctypes.addressof(_message))
    _compiled.append(handler)
    new_capsule = ctypes.pythonapi.PyCapsule_New
    new_capsule.restype, new_capsule.argtypes = ctypes.py_object, [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]
    jax.ffi.register_ffi_target(TARGET, new_capsule(handler.address, None, None), platform="cpu")


def _handler(major: int, minor: int, cell: int, message: int) -> Any:
    """The handler as a C function; what it is given here are constants of its code."""

    @numba.njit(error_model="numpy")
    def find(key: Any) -> Any:
        slots = load(numba.uintp(cell), 0)
        mask = load(slots, 0)
        slot = key & mask
        while True:
            found = load(slots, 8 + 16 * slot)
            if found == key:
                return load(slots, 16 + 16 * slot)
            if found == 0:
                return numba.uintp(0)
            slot = (slot + numba.uintp(1)) & mask

    @numba.njit(error_model="numpy")
    def unknown_kernel(frame: Any) -> Any:
        args = numba.uintp(malloc(32))
        store(args, 0, numba.uintp(32))
        store(args, 8, numba.uintp(0))
        store(args, 16, numba.uintp(message))
        store_int32(args, 24, np.int32(FAILED_PRECONDITION))
        error = call(load(load(frame, API), ERROR_CREATE), args)
        free(args)
        return error

    @numba.njit(error_model="numpy")
    def advise(memory: Any, size: Any) -> None:
        """Asks for huge pages under large new memory: touching it first is what most of its first writing takes."""
        if size >= numba.uintp(LARGE):
            start = (memory + numba.uintp(PAGE - 1)) & ~numba.uintp(PAGE - 1)
            madvise(start, (size - (start - memory)) & ~numba.uintp(PAGE - 1), MADV_HUGEPAGE)

    @numba.njit(error_model="numpy")
    def run(frame: Any, record: Any) -> None:
        inputs, results = np.intp(load(record, 8 * INPUTS)), np.intp(load(record, 8 * RESULTS))
        scratches, phases = np.intp(load(record, 8 * SCRATCHES)), np.intp(load(record, 8 * PHASES))
        buffers = numba.uintp(malloc(8 * (inputs + results + scratches + 1)))
        for i in range(inputs):
            store(buffers, 8 * i, load(load(load(frame, ARGS), 8 * i), DATA))
        for i in range(results):
            memory = load(load(load(frame, RETS), 8 * i), DATA)
            store(buffers, 8 * (inputs + i), memory)
            advise(memory, load(record, 8 * (REST + i)))
        for i in range(scratches):
            memory = numba.uintp(malloc(load(record, 8 * (REST + results + i)) + numba.uintp(64)))
            advise(memory, load(record, 8 * (REST + results + i)))
            store(buffers, 8 * (inputs + results + i), memory)
        for i in range(phases):
            at = 8 * (REST + results + scratches + 2 * i)
            extent, grain = np.intp(load(record, at)), np.intp(load(record, at + 8))
            parallel_for(frame, load(record, 8 * ADDRESS), buffers, i, extent, grain)
        for i in range(scratches):
            free(load(buffers, 8 * (inputs + results + i)))
        free(buffers)

    @numba.cfunc(types.uintp(types.uintp), error_model="numpy")
    def handler(frame: Any) -> Any:
        extension = load(frame, EXTENSION)
        if extension != 0:  # the only extension asks for the version that this handler was written for
            metadata = load(extension, METADATA)
            store_int32(metadata, MAJOR, np.int32(major))
            store_int32(metadata, MINOR, np.int32(minor))
            return numba.uintp(0)
        if load_int32(frame, STAGE) != EXECUTE:
            return numba.uintp(0)
        record = find(load(load(load(load(frame, ATTRS), 0), SCALAR_VALUE), 0))
        if record == 0:
            return unknown_kernel(frame)
        run(frame, record)
        return numba.uintp(0)

    return handler
