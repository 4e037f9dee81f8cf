"""Caches: how a round starts with arrays that lie in none of them, and which memory has been written to before."""

from __future__ import annotations

import ctypes
import functools
from pathlib import Path

import jax
import jax.numpy as jnp

UNKNOWN = 64 << 20
"""Bytes taken for the last cache where the system does not say how large it is."""

LARGEST = 512 << 20
"""Bytes beyond which the buffer does not grow: a virtual machine reports the host's cache, of which it has a part."""


MAPPED, KEPT = 32 << 20, 512 << 20
"""Bytes from which on memory is the system's and new with each allocation, and up to which what was freed is kept."""

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_ARENA_MAX = -1, -3, -8  # of the GNU C library, in malloc.h


@functools.cache
def keep_memory() -> None:
    """Lets this process keep the memory that it frees, where its C library can be told so.

    The GNU one gives memory back that lies at the end of what it has. Which contender's results lie there is chance:
    with each call they are written to new pages, of which one takes 2 µs, and 200 kB have fifty. MAPPED is where the
    library's own limit ends up in a process that has freed a large array. Threads that start after this take what is
    freed by others: otherwise each has memory of its own, and XLA makes results in its own threads, except those of
    short programs and of programs that are one kernel. Even 40 MB would lie in new memory for one contender alone.
    """
    tell = getattr(ctypes.CDLL(None), "mallopt", None)
    if tell is not None:
        tell(M_MMAP_THRESHOLD, MAPPED)
        tell(M_TRIM_THRESHOLD, KEPT)
        tell(M_ARENA_MAX, 1)


def give_memory_back() -> None:
    """Gives the memory that this process keeps free to the system, where its C library can be told so.

    A result of MAPPED and more gets new memory, unless by chance as much lies free in one piece: then one contender
    would write to it in 1 ms where another one, whose array has its own limits, waits 4 ms for new pages.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


class Sweep:
    """Called, it reads and writes a buffer as large as the largest cache, so that nothing else is left there.

    XLA runs over the buffer with all its threads, which reaches the caches of each core, and of a GPU.
    """

    def __init__(self, size: int) -> None:
        self._buffer = jnp.zeros(max(size // 4, 1), jnp.int32)
        self._touch = jax.jit(lambda buffer: buffer + 1, donate_argnums=0)
        self()

    def __call__(self) -> None:
        """Return when the buffer has been run through."""
        self._buffer = jax.block_until_ready(self._touch(self._buffer))


def last_cache(folder: Path = Path("/sys/devices/system/cpu/cpu0/cache")) -> int:
    """Bytes of the largest cache of the processor, as Linux describes it in `folder`; UNKNOWN where it does not."""
    sizes = [_bytes(file.read_text().strip()) for file in folder.glob("index*/size")]
    return min(max(sizes, default=UNKNOWN), LARGEST)


def _bytes(size: str) -> int:
    units = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
    return int(size[:-1]) * units[size[-1]] if size[-1:] in units else int(size or 0)
