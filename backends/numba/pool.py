"""Work sharing on XLA's own thread pool.

A phase's range is cut into chunks of `grain` iterations; phases beside each other have one row of chunks. A counter
hands them out; the calling thread works like the
others and never waits for a thread that has not started, so it cannot deadlock whatever else the pool does. The state
of a loop is counted by reference, for a scheduled task may start after the call that scheduled it has returned: it then
finds no chunk left and touches nothing but the state.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np

from graphopt.backends.numba.compiling import inner
from graphopt.backends.numba.frame import API, CONTEXT, ERROR_DESTROY, THREADPOOL_NUM_THREADS, THREADPOOL_SCHEDULE
from graphopt.backends.numba.memory import (
    call,
    call_kernel,
    fetch_add,
    free,
    load,
    load_atomic,
    malloc,
    sched_yield,
    store,
    symbol,
)
from graphopt.backends.numba.records import EXTENT, GRAIN, OF_PHASE, TASK

# The state of one loop, in bytes from its start.
NEXT, DONE, REFERENCES, CHUNKS, KERNEL, BUFFERS, FIRST, WORDS, SIZE = (8 * i for i in range(9))

task_address = symbol(TASK)


@inner
def _number(words: Any, phase: int, which: int) -> Any:
    """Extent or grain of a phase."""
    return np.intp(load(words, 8 * (OF_PHASE * phase + which)))


@inner
def _chunks(words: Any, phase: int) -> Any:
    """Into how many chunks a phase is cut."""
    grain = _number(words, phase, GRAIN)
    return (_number(words, phase, EXTENT) + grain - 1) // grain


@inner
def _work(state: Any) -> None:
    """Takes chunks until none is left."""
    chunks, first, words = load_atomic(state, CHUNKS), load_atomic(state, FIRST), load(state, WORDS)
    while True:
        chunk = fetch_add(state, NEXT, 1)
        if chunk >= chunks:
            return
        phase = 0
        while chunk >= _chunks(words, phase):
            chunk -= _chunks(words, phase)
            phase += 1
        grain = _number(words, phase, GRAIN)
        start = chunk * grain
        stop = min(_number(words, phase, EXTENT), start + grain)
        call_kernel(load(state, KERNEL), load(state, BUFFERS), first + phase, start, stop)
        fetch_add(state, DONE, 1)


@inner
def _release(state: Any) -> None:
    if fetch_add(state, REFERENCES, -1) == 1:
        free(state)


def task(state: Any) -> Any:
    """What a thread of the pool does; to be compiled as a callback, and defined as TASK."""
    _work(state)
    _release(state)
    return numba.uintp(0)


@inner
def _destroyed(api: Any, error: Any) -> bool:
    """Whether a call of XLA's interface returned an error, which is given back."""
    if error == 0:
        return False
    args = numba.uintp(malloc(24))
    store(args, 0, numba.uintp(24))
    store(args, 8, numba.uintp(0))
    store(args, 16, error)
    call(load(api, ERROR_DESTROY), args)
    free(args)
    return True


@inner
def _threads(api: Any, context: Any) -> int:
    """How many threads XLA's pool has; 1 where there is none."""
    args = numba.uintp(malloc(40))
    store(args, 0, numba.uintp(32))
    store(args, 8, numba.uintp(0))
    store(args, 16, context)
    store(args, 24, args + numba.uintp(32))
    store(args, 32, numba.uintp(1))
    failed = _destroyed(api, call(load(api, THREADPOOL_NUM_THREADS), args))
    threads = load_atomic(args, 32)
    free(args)
    return 1 if failed else threads


@inner
def parallel_for(frame: Any, kernel: Any, buffers: Any, first: int, count: int, words: Any) -> None:
    """All iterations of `count` phases: here alone where they are one chunk, else with the pool's help.

    words: of the first phase, in the kernel's record.
    """
    chunks = 0
    for phase in range(count):
        chunks += _chunks(words, phase)
    if chunks <= 1:
        for phase in range(count):
            if _number(words, phase, EXTENT) > 0:
                call_kernel(kernel, buffers, first + phase, 0, _number(words, phase, EXTENT))
        return
    api, context = load(frame, API), load(frame, CONTEXT)
    helpers = min(chunks, _threads(api, context)) - 1
    state = numba.uintp(malloc(SIZE))
    store(state, NEXT, numba.uintp(0))
    store(state, DONE, numba.uintp(0))
    store(state, REFERENCES, numba.uintp(helpers + 1))
    store(state, CHUNKS, numba.uintp(chunks))
    store(state, KERNEL, kernel)
    store(state, BUFFERS, buffers)
    store(state, FIRST, numba.uintp(first))
    store(state, WORDS, words)
    args = numba.uintp(malloc(40))
    store(args, 0, numba.uintp(40))
    store(args, 8, numba.uintp(0))
    store(args, 16, context)
    store(args, 24, task_address())
    store(args, 32, state)
    for _ in range(helpers):
        if _destroyed(api, call(load(api, THREADPOOL_SCHEDULE), args)):
            _release(state)
    free(args)
    _work(state)
    while load_atomic(state, DONE) < chunks:
        sched_yield()
    _release(state)
