"""The machine as predicted times see it: threads, caches, and what memory and calls take.

The defaults were measured on two cores of servers (AMD Zen 5; products on a Zen 4, which has half of its arithmetic);
they are right within a factor of two on most. What `graphopt calibrate` has measured on this machine is used instead,
where it is kept.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
import platform
from dataclasses import dataclass, field
from functools import cache

from graphopt import store


def usable_cores() -> int:
    """How many cores this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass(frozen=True, slots=True)
class Machine:
    """What a run's time is made of. Rates are bytes a nanosecond (GB/s), times nanoseconds.

    threads: of XLA's pool. near, shared: bytes that a core's own caches hold, and those of all cores together.
    near_rate: of one core from its own caches. shared_rate, memory_rate: of all cores together, from the shared cache
    and from memory. page_rate, huge_rate: writing to pages that no one has touched, of the usual size and of 2 MiB.
    call: one kernel's. wake: threads that begin and end together. flops32, flops64: floating-point operations that one
    core does in a nanosecond in a kernel's products of matrices, of that many bits; xla_flops32, xla_flops64: in XLA's.
    """

    threads: int = field(default_factory=usable_cores)
    near: int = 1 << 20
    shared: int = 24 << 20
    near_rate: float = 80.0
    shared_rate: float = 70.0
    memory_rate: float = 37.0
    page_rate: float = 5.0
    huge_rate: float = 12.0
    call: float = 500.0
    wake: float = 10_000.0
    flops32: float = 107.0
    flops64: float = 53.0
    xla_flops32: float = 103.0
    xla_flops64: float = 51.0

    def multiplying(self, flops: float, size: int) -> float:
        """Nanoseconds of so many operations of a kernel's product on one core. size: bytes of a number."""
        return flops / (self.flops32 if size <= 4 else self.flops64)

    def multiplying_in_xla(self, flops: float, size: int) -> float:
        """The same in XLA, where a number may also be of more bytes."""
        return flops / (self.xla_flops32 if size <= 4 else self.xla_flops64 * 8 / size)

    def moving(self, size: int, threads: float) -> float:
        """Nanoseconds that reading or writing so many bytes once takes, by so many threads.

        What does not fit into a cache finds nothing there of the run before: the lines needed first went first.
        """
        if size <= self.near * threads:
            return size / (self.near_rate * threads)
        return size / (self.shared_rate if size <= self.shared else self.memory_rate)


FRESH = 32 << 20
"""Bytes from which on the memory of a result is new with each call: below, malloc has what was freed before."""

TURN = 20_000.0
"""Nanoseconds of work that are worth waking a thread for."""

LONG = 1e6
"""Nanoseconds of work that gains by other threads even where they do not get all of a core."""


def wakes(work: float) -> bool:
    """Whether threads that sleep are woken for work of so many nanoseconds on a core."""
    return work >= 2 * TURN


def waking(work: float) -> int:
    """0 where threads that sleep are not woken for work of so many nanoseconds on a core, 1 where they are, and 2 where
    they are whatever else keeps cores busy."""
    return wakes(work) + (work >= LONG)


def threads_for(work: float, machine: Machine) -> float:
    """How many threads share work of so many nanoseconds on a core, where all but one sleep."""
    return max(1.0, min(float(machine.threads), work / TURN)) if wakes(work) else 1.0


KIND = "machine"


def _name() -> str:
    return f"{platform.machine()}-{usable_cores()}.json"


def keep(machine: Machine) -> None:
    """Keeps what was measured of this machine, for this process and later ones."""
    store.write(KIND, _name(), json.dumps(dataclasses.asdict(machine)).encode())
    this_machine.cache_clear()


@cache
def this_machine() -> Machine:
    """What was measured of this machine; the defaults where nothing was, or it cannot be made sense of."""
    kept = store.read(KIND, _name())
    if kept is None:
        return Machine()
    try:
        found = Machine(**json.loads(kept))
        numbers = [getattr(found, each.name) for each in dataclasses.fields(found)]
        sound = all(isinstance(n, int | float) and math.isfinite(n) and n > 0 for n in numbers)
    except (TypeError, ValueError):
        return Machine()
    return found if sound else Machine()
