"""The handler: what XLA calls for each kernel of a program, and what the threads of its pool call.

It finds the kernel's record in the table by the key that the call carries, makes the table of its buffers, and runs its
phases. Where the record and the messages lie, symbols say (`graphopt.backends.numba.code.define`).

XLA calls it once before, when it has compiled the program: what compiles kernels meanwhile is waited for here.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np

from graphopt.backends.numba.compiling import CALLBACK_SIGNATURE, object_of
from graphopt.backends.numba.frame import (
    API,
    ARGS,
    ATTRS,
    DATA,
    ERROR_CREATE,
    EXECUTE,
    EXTENSION,
    FAILED_PRECONDITION,
    INSTANTIATE,
    MAJOR,
    METADATA,
    MINOR,
    RETS,
    SCALAR_VALUE,
    STAGE,
)
from graphopt.backends.numba.memory import (
    MADV_HUGEPAGE,
    PAGE,
    call,
    free,
    load,
    load_atomic,
    load_int32,
    madvise,
    malloc,
    store,
    store_int32,
    symbol,
    usleep,
)
from graphopt.backends.numba.pool import run_phases, task
from graphopt.backends.numba.records import (
    ADDRESS,
    CELL,
    COMPILING,
    FAILED,
    FORKED,
    INPUTS,
    IS_FORK,
    LARGE,
    LATE,
    PHASES,
    REST,
    RESULTS,
    SCRATCHES,
    SLOTS,
    UNKNOWN,
)
from graphopt.backends.numba.translating import inlined

LINE = 64
"""Bytes of a line of memory."""

PAUSE, PAUSES = 50, 12_000_000
"""Microseconds between two looks for a kernel's code, and how many at most: ten minutes."""

table = symbol(CELL)
forked_message, unknown_message, late_message = symbol(FORKED), symbol(UNKNOWN), symbol(LATE)


def task_object() -> tuple[str, bytes]:
    """`graphopt.backends.numba.pool.task`, compiled."""
    return object_of(task, CALLBACK_SIGNATURE)


@inlined
def find(key: Any) -> Any:
    """The record of a kernel by its key, or 0."""
    slots = load(table(), SLOTS)
    mask = load(slots, 0)
    slot = key & mask
    while True:
        found = load(slots, 8 + 16 * slot)
        if found == key:
            return load(slots, 16 + 16 * slot)
        if found == 0:
            return numba.uintp(0)
        slot = (slot + numba.uintp(1)) & mask


@inlined
def failed(frame: Any, message: Any) -> Any:
    """An error of XLA's."""
    args = numba.uintp(malloc(32))
    store(args, 0, numba.uintp(32))
    store(args, 8, numba.uintp(0))
    store(args, 16, message)
    store_int32(args, 24, np.int32(FAILED_PRECONDITION))
    error = call(load(load(frame, API), ERROR_CREATE), args)
    free(args)
    return error


@inlined
def waited_for(record: Any) -> Any:
    """The address of a kernel, or what is in its place, when the thread that compiles it is done."""
    pauses = 0
    while load_atomic(record, 8 * ADDRESS) == COMPILING and pauses < PAUSES:
        usleep(PAUSE)
        pauses += 1
    return load_atomic(record, 8 * ADDRESS)


@inlined
def advise(memory: Any, size: Any) -> None:
    """Asks for huge pages under large new memory: touching it first is what most of its first writing takes."""
    if size >= numba.uintp(LARGE):
        start = (memory + numba.uintp(PAGE - 1)) & ~numba.uintp(PAGE - 1)
        madvise(start, size - (start - memory), MADV_HUGEPAGE)


@inlined
def padded(size: Any) -> Any:
    """Bytes that a scratch buffer takes: whole lines, and one that none shares with the next."""
    return (size + numba.uintp(2 * LINE - 1)) & ~numba.uintp(LINE - 1)


@inlined
def new_scratch(record: Any, first: int, scratches: int) -> Any:
    """All scratch buffers in one block of memory: what malloc keeps for the next call grows with the largest block
    that it was given back, and of some blocks beside each other it would keep nothing."""
    size = numba.uintp(0)
    for i in range(scratches):
        size += padded(load(record, 8 * (first + i)))
    if size == 0:
        return size
    memory = numba.uintp(malloc(size))
    advise(memory, size)
    return memory


@inlined
def run(frame: Any, record: Any) -> None:
    """Runs all phases of a kernel on the buffers of a call."""
    inputs, results = np.intp(load(record, 8 * INPUTS)), np.intp(load(record, 8 * RESULTS))
    scratches, phases = np.intp(load(record, 8 * SCRATCHES)), np.intp(load(record, 8 * PHASES))
    buffers = numba.uintp(malloc(8 * (inputs + results + scratches + 1)))
    for i in range(inputs):
        store(buffers, 8 * i, load(load(load(frame, ARGS), 8 * i), DATA))
    for i in range(results):
        memory = load(load(load(frame, RETS), 8 * i), DATA)
        store(buffers, 8 * (inputs + i), memory)
        advise(memory, load(record, 8 * (REST + i)))
    memory = new_scratch(record, REST + results, scratches)
    scratch = (memory + numba.uintp(LINE - 1)) & ~numba.uintp(LINE - 1)  # no vector of it lies across two lines
    for i in range(scratches):
        store(buffers, 8 * (inputs + results + i), scratch)
        scratch += padded(load(record, 8 * (REST + results + i)))
    words = record + numba.uintp(8 * (REST + results + scratches))
    run_phases(frame, record, words, phases, buffers)
    if scratches > 0:
        free(memory)
    free(buffers)


def handler_object(major: int, minor: int) -> tuple[str, bytes]:
    """The handler, compiled for a version of XLA's interface."""

    def handler(frame: Any) -> Any:
        extension = load(frame, EXTENSION)
        if extension != 0:  # the only extension asks for the version that this handler was written for
            metadata = load(extension, METADATA)
            store_int32(metadata, MAJOR, np.int32(major))
            store_int32(metadata, MINOR, np.int32(minor))
            return numba.uintp(0)
        stage = load_int32(frame, STAGE)
        if stage != EXECUTE and stage != INSTANTIATE:
            return numba.uintp(0)
        is_fork = load(table(), IS_FORK) != 0
        record = find(load(load(load(load(frame, ATTRS), 0), SCALAR_VALUE), 0))
        if stage == INSTANTIATE and (is_fork or record == 0):
            return numba.uintp(0)  # an error where it is called
        if is_fork:
            return failed(frame, forked_message())
        if record == 0:
            return failed(frame, unknown_message())
        address = waited_for(record)
        if address == COMPILING:
            return failed(frame, late_message())
        if address == FAILED:
            return failed(frame, load(record, 8 * INPUTS))
        if stage == EXECUTE:
            run(frame, record)
        return numba.uintp(0)

    return object_of(handler, CALLBACK_SIGNATURE)
