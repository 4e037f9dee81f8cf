"""Work sharing on XLA's own thread pool.

A phase's range is cut into chunks of `grain` iterations; phases beside each other have one row of chunks. A counter
hands them out, many at a time as long as many are left (guided self-scheduling; Polychronopoulos and Kuck, 1987), so
that a thread goes through memory in long stretches and all of them end together. The calling thread works like the
others and never waits for a thread that has not started, so it cannot deadlock whatever else the pool does. The state
of a loop is counted by reference, for a scheduled task may start after the call that scheduled it has returned: it then
finds no chunk left and touches nothing but the state.

A thread of the pool that has done its work looks for more for some microseconds before it sleeps. To hand work to one
that is awake takes less than one microsecond; to wake one takes ten of the caller's, and it comes later still. So
threads are woken for long phases, and short ones are shared where a thread is awake. Where short kernels follow each
other closely, one is woken: it stays awake if they come closely enough and nothing else keeps its core busy. If it did,
the next that follow each other wake it again; if not, that is tried now and then. To wake it for each of them would
take longer than it helps: twice what the kernel takes, where it comes too late each time.

A thread whose core others want too, as threads of a BLAS do that wait for the next product, may be stopped with a chunk
that it has taken. Where the caller had to wait for one longer than it had worked itself, it does kernels of less than a
millisecond alone, for ten times as long.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np

from graphopt.backends.numba.frame import API, CONTEXT, ERROR_DESTROY, THREADPOOL_NUM_THREADS, THREADPOOL_SCHEDULE
from graphopt.backends.numba.memory import (
    call,
    call_kernel,
    fetch_add,
    free,
    load,
    load_atomic,
    malloc,
    now,
    sched_yield,
    store,
    symbol,
)
from graphopt.backends.numba.records import (
    ADDRESS,
    ALONE,
    BESIDE,
    CELL,
    EXTENT,
    GRAIN,
    LAST,
    LOOKED,
    OF_PHASE,
    TASK,
    WAKES,
    WOKEN,
)
from graphopt.backends.numba.translating import inlined

AWAKE = 15_000
"""Nanoseconds for which a thread of the pool looks for more work: measured, about twenty."""

RARELY = 3_000_000
"""Nanoseconds between two times that a thread is woken for short kernels where it did not stay awake the last time."""

ATTEMPT = 300_000
"""Nanoseconds that it then takes a thread to wake, find out, and have its caches filled."""

SHARES = 4
"""What a thread takes at once is this part of its equal share of what is left."""

HELD, OFTEN = 30_000, 10
"""Nanoseconds that a caller waits for others to end from which on it does the next kernels alone, where it has worked
less than that, and for how many times as long."""

LOOKS = 300
"""How often the caller looks whether the others are done before it lets the system run something else meanwhile: less
than half a microsecond, which is what one call of the system takes."""

# The state of one loop, in bytes from its start; the last are the arguments by which XLA schedules a task.
(
    NEXT,
    DONE,
    REFERENCES,
    HELPERS,
    SHARED_BY,
    CHUNKS,
    KERNEL,
    BUFFERS,
    FIRST,
    WORDS,
    API_OF,
    ARGUMENTS,
) = (8 * i for i in range(12))
SIZE = ARGUMENTS + 40

cell, task_address = symbol(CELL), symbol(TASK)


@inlined
def _number(words: Any, phase: int, which: int) -> Any:
    """Extent or grain of a phase."""
    return np.intp(load(words, 8 * (OF_PHASE * phase + which)))


@inlined
def _chunks(words: Any, phase: int) -> Any:
    """Into how many chunks a phase is cut."""
    grain = _number(words, phase, GRAIN)
    return (_number(words, phase, EXTENT) + grain - 1) // grain


@inlined
def _work(state: Any) -> None:
    """Takes chunks until none is left. While there are more, further threads are asked to help."""
    chunks, shares = load_atomic(state, CHUNKS), SHARES * load_atomic(state, SHARED_BY)
    while True:
        count = max(1, (chunks - load_atomic(state, NEXT)) // shares)
        chunk = fetch_add(state, NEXT, count)
        if chunk >= chunks:
            return
        count = min(count, chunks - chunk)
        if chunk + count < chunks:
            _ask(state)
        _run(state, chunk, count)
        fetch_add(state, DONE, count)


@inlined
def _run(state: Any, chunk: int, count: int) -> None:
    """Runs `count` chunks from one on: those of a phase in one call."""
    words, phase = load(state, WORDS), 0
    while count > 0:
        while chunk >= _chunks(words, phase):
            chunk -= _chunks(words, phase)
            phase += 1
        together = min(count, _chunks(words, phase) - chunk)
        grain = _number(words, phase, GRAIN)
        stop = min(_number(words, phase, EXTENT), (chunk + together) * grain)
        number = load_atomic(state, FIRST) + phase
        call_kernel(load(state, KERNEL), load(state, BUFFERS), number, chunk * grain, stop)
        chunk, count = chunk + together, count - together


@inlined
def _ask(state: Any) -> None:
    """Schedules one more task where there is a thread for it. Who asks has a chunk to do: the call is still running."""
    if load_atomic(state, HELPERS) <= 0 or fetch_add(state, HELPERS, -1) <= 0:
        return
    fetch_add(state, REFERENCES, 1)
    api = load(state, API_OF)
    if _destroyed(api, call(load(api, THREADPOOL_SCHEDULE), state + numba.uintp(ARGUMENTS))):
        _release(state)


@inlined
def _release(state: Any) -> None:
    if fetch_add(state, REFERENCES, -1) == 1:
        free(state)


def task(state: Any) -> Any:
    """What a thread of the pool does; to be compiled as a callback, and defined as TASK."""
    _work(state)
    store(cell(), LOOKED, numba.uintp(now()))
    _release(state)
    return numba.uintp(0)


@inlined
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


@inlined
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


@inlined
def _share(frame: Any, kernel: Any, buffers: Any, first: int, chunks: int, words: Any) -> None:
    """All chunks of phases that run beside each other, with the pool's help. words: of the first, in the record."""
    api, context = load(frame, API), load(frame, CONTEXT)
    state = numba.uintp(malloc(SIZE))
    store(state, NEXT, numba.uintp(0))
    store(state, DONE, numba.uintp(0))
    store(state, REFERENCES, numba.uintp(1))
    threads = _threads(api, context)
    store(state, HELPERS, numba.uintp(threads - 1))
    store(state, SHARED_BY, numba.uintp(max(1, threads)))
    store(state, CHUNKS, numba.uintp(chunks))
    store(state, KERNEL, kernel)
    store(state, BUFFERS, buffers)
    store(state, FIRST, numba.uintp(first))
    store(state, WORDS, words)
    store(state, API_OF, api)
    store(state, ARGUMENTS, numba.uintp(40))
    store(state, ARGUMENTS + 8, numba.uintp(0))
    store(state, ARGUMENTS + 16, context)
    store(state, ARGUMENTS + 24, task_address())
    store(state, ARGUMENTS + 32, state)
    start = now()
    _work(state)
    looks = done = 0
    while load_atomic(state, DONE) < chunks:
        looks += 1
        if looks > LOOKS:
            if done == 0:
                done = now()
            sched_yield()
    if done != 0:
        waited = now() - done
        if waited >= max(HELD, done - start):
            store(cell(), ALONE, numba.uintp(done + OFTEN * waited))
    _release(state)


@inlined
def _is_shared(time: int) -> Any:
    """Whether a thread is awake to help with a short kernel, or to be woken, for one has just come before."""
    if time - load_atomic(cell(), LOOKED) < AWAKE:
        return True
    if time - load_atomic(cell(), LAST) >= AWAKE:
        return False
    woken = load_atomic(cell(), WOKEN)
    since, stayed = time - woken, load_atomic(cell(), LOOKED) - woken >= ATTEMPT
    if since >= (ATTEMPT if stayed else RARELY):
        store(cell(), WOKEN, numba.uintp(time))
        return True
    return since < ATTEMPT


@inlined
def run_phases(frame: Any, record: Any, words: Any, phases: int, buffers: Any) -> None:
    """Runs the phases of a kernel, those that run beside each other together. words: of the first, in the record."""
    kernel = load(record, 8 * ADDRESS)
    timed = awake = alone = False
    first = 0
    while first < phases:
        count, chunks = 1, _chunks(words, 0)
        while first + count < phases and _number(words, count, BESIDE) != 0:
            chunks += _chunks(words, count)
            count += 1
        # A short rest is not worth a thread.
        may_share = chunks > 1 and (count > 1 or 2 * _number(words, 0, EXTENT) >= 3 * _number(words, 0, GRAIN))
        if may_share and not timed:
            time = now()
            timed, alone = True, time < load_atomic(cell(), ALONE)
            awake = not alone and _is_shared(time)
        if may_share and (awake or _number(words, 0, WAKES) > (1 if alone else 0)):
            awake = True
            _share(frame, kernel, buffers, first, chunks, words)
        else:
            for phase in range(count):
                if _number(words, phase, EXTENT) > 0:
                    call_kernel(kernel, buffers, first + phase, 0, _number(words, phase, EXTENT))
        first += count
        words += numba.uintp(8 * OF_PHASE * count)
    if timed:
        store(cell(), LAST, numba.uintp(now()))
