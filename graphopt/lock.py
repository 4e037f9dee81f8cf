"""Lock files: which regions of which programs were measured to be faster in kernels, to be done so again.

A lock file is JSON, to be kept beside the code that it is for. A program is known by the hash of its graph after the
passes that come before engines are chosen, a region by the hash of its own; both are the same in every process.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from graphopt.errors import LockError

FORMAT = 2


@dataclass(frozen=True, slots=True)
class Decision:
    """What was measured of one program. `str()` is what was decided, in words.

    program: its hash. base: "auto" or "numba", by which regions were formed. kernels: hashes of the regions that go to
    kernels, in order. ratio, low, high: the time over that of XLA alone, the median and a 95% interval of it.
    schedules: of regions whose loops are not written as predicted the hash, the way, and the grain. block: bytes of the
    blocks in which large arrays are computed; None for the usual size. compiler_options: XLA's, for the whole program.
    """

    program: str
    base: str
    kernels: tuple[str, ...]
    ratio: float = 1.0
    low: float = 1.0
    high: float = 1.0
    schedules: tuple[tuple[str, str, float], ...] = ()
    block: int | None = None
    compiler_options: tuple[tuple[str, str | bool], ...] = ()

    def __str__(self) -> str:
        count = len(self.kernels)
        parts = [f"{count} kernel{'s' * (count != 1)}" if count else "no kernels"]
        for region, way, grain in self.schedules:
            if region not in self.kernels:
                continue
            how = ", ".join([*([way] if way else []), *([f"{grain:g} times the grain"] if grain != 1 else [])])
            parts.append(f"kernel {self.kernels.index(region) + 1} by {how}")
        parts += [] if self.block is None else [f"blocks of {self.block / (1 << 20):g} MiB"]
        parts += [f"{name}={value!r}" for name, value in self.compiler_options]
        return "; ".join(parts)


def hash_of(text: str) -> str:
    """A hash of a graph's text."""
    return hashlib.sha256(text.encode()).hexdigest()[:20]


def read_lock(path: str | os.PathLike[str]) -> tuple[Decision, ...]:
    """The decisions in a lock file. Raises LockError where there is none, or it is not one."""
    try:
        written = json.loads(Path(path).read_text())
    except OSError as error:
        raise LockError(f"{path} cannot be read ({error}); f.tune(*args, lock={str(path)!r}) writes it") from error
    except ValueError as error:
        raise LockError(f"{path} is not a lock file of graphopt: it is not JSON ({error}). {_ADVICE}") from error
    if not isinstance(written, dict) or "decisions" not in written or "sha256" not in written:
        raise LockError(f"{path} is not a lock file of graphopt. {_ADVICE}")
    if written.get("format") != FORMAT:
        raise LockError(f"{path} has format {written.get('format')}, this graphopt reads {FORMAT}. {_ADVICE}")
    if written["sha256"] != _checksum(written["decisions"]):
        raise LockError(f"{path} was changed after it was written: its checksum does not agree. {_ADVICE}")
    return tuple(Decision(**{name: _frozen(value) for name, value in each.items()}) for each in written["decisions"])


_ADVICE = "Delete it, and write it anew with f.tune(*args, lock=...)"


def write_lock(path: str | os.PathLike[str], decisions: Iterable[Decision]) -> None:
    """Writes decisions to a lock file, whole or not at all; those of other programs that are in it stay."""
    path = Path(path)
    known = {each.program: each for each in (read_lock(path) if path.exists() else ())}
    known |= {each.program: each for each in decisions}
    written = [asdict(known[program]) for program in sorted(known)]
    text = json.dumps({"format": FORMAT, "sha256": _checksum(written), "decisions": written}, indent=1)
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(text + "\n")
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def _frozen(value: Any) -> Any:
    return tuple(map(_frozen, value)) if isinstance(value, list) else value


def _checksum(decisions: object) -> str:
    return hashlib.sha256(json.dumps(decisions, sort_keys=True).encode()).hexdigest()
