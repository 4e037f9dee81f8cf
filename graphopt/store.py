"""Files that this machine keeps between processes: compiled code, measured rates. What is lost costs time, no more.

They lie in the user's cache folder, which must be theirs alone, for code in it will be run. Each begins with the hash
of the rest; a file that does not agree is taken for missing, with a warning. A file is written under another name and
then renamed, so that nobody reads half of one.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path

import platformdirs

from graphopt.errors import StoreWarning

MAGIC = b"graphopt 1\n"

LIMIT = 256 << 20
"""Bytes that one folder may hold; beyond, what has not been read for the longest time is deleted."""


_elsewhere: list[Path] = []


@contextlib.contextmanager
def kept_in(root: Path) -> Iterator[None]:
    """Files are kept below `root`, and not in the user's cache folder: to measure without what is there."""
    _elsewhere.append(root)
    try:
        yield
    finally:
        _elsewhere.remove(root)


def folder(kind: str) -> Path | None:
    """The folder of one kind of files, made where there is none; None where it cannot be had, or is not private."""
    place = (_elsewhere[-1] if _elsewhere else platformdirs.user_cache_path("graphopt")) / kind
    try:
        place.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = place.stat()
    except OSError:
        return None
    if hasattr(os, "getuid") and (status.st_uid != os.getuid() or stat.S_IMODE(status.st_mode) & 0o077):
        warnings.warn(
            f"{place} is not used: it belongs to another user, or others may write to it. Run: chmod 700 {place}",
            StoreWarning,
            stacklevel=2,
        )
        return None
    return place


def read(kind: str, name: str) -> bytes | None:
    """What was written under this name; None where nothing was, or what is there is damaged."""
    place = folder(kind)
    if place is None:
        return None
    try:
        data = (place / name).read_bytes()
    except OSError:
        return None
    start = len(MAGIC) + 32
    if data[: len(MAGIC)] != MAGIC or data[len(MAGIC) : start] != hashlib.sha256(data[start:]).digest():
        warnings.warn(f"{place / name} is damaged and will be made anew", StoreWarning, stacklevel=2)
        return None
    with contextlib.suppress(OSError):
        os.utime(place / name)
    return data[start:]


def write(kind: str, name: str, data: bytes) -> None:
    """Keeps bytes under a name; nothing happens where that cannot be done."""
    place = folder(kind)
    if place is None:
        return
    with contextlib.suppress(OSError):
        descriptor, temporary = tempfile.mkstemp(dir=place, prefix=".new-")
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(MAGIC + hashlib.sha256(data).digest() + data)
            os.replace(temporary, place / name)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            raise
        _shrink(place)


def _shrink(place: Path) -> None:
    entries = sorted((e.stat().st_mtime, e.stat().st_size, e.path) for e in os.scandir(place))
    total = sum(size for _, size, _ in entries)
    for _, size, path in entries:
        if total <= LIMIT:
            return
        os.unlink(path)
        total -= size
