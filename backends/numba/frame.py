"""The call frame of XLA's foreign function interface: where in memory a handler finds what.

Offsets in bytes, of the structs in `xla/ffi/api/c_api.h`, which comes with jaxlib (`jax.ffi.include_dir()`). They are
the same in the versions of the interface named here; `check_version` reads the installed one.
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import jax

from graphopt.errors import EngineError

TRIED = ((0, 3), (0, 4), (0, 5))
"""Versions of the interface, major and minor, whose structs are as written here."""

# XLA_FFI_CallFrame
EXTENSION, API, CONTEXT, STAGE = 8, 16, 24, 32
ARGS, RETS, ATTRS = 72, 112, 160  # the arrays of pointers in the structs args, rets and attrs
INSTANTIATE, EXECUTE = 0, 3  # the stages in which XLA makes a program ready, and in which a handler computes

# XLA_FFI_Buffer, XLA_FFI_Scalar
DATA, SCALAR_VALUE = 24, 8

# XLA_FFI_Metadata_Extension, XLA_FFI_Metadata
METADATA, MAJOR, MINOR = 24, 24, 28

# XLA_FFI_Api: functions, in the order of the header
ERROR_CREATE, ERROR_DESTROY = 48, 64
THREADPOOL_SCHEDULE, THREADPOOL_NUM_THREADS = 136, 144

FAILED_PRECONDITION = 9  # XLA_FFI_Error_Code


@cache
def check_version() -> tuple[int, int]:
    """The version of the installed interface. Raises EngineError where its structs are not known."""
    header = Path(jax.ffi.include_dir()) / "xla" / "ffi" / "api" / "c_api.h"
    try:
        text = header.read_text()
    except OSError as error:
        raise EngineError(f"XLA's foreign function interface cannot be read from {header}: {error}") from error
    found = re.findall(r"#define XLA_FFI_API_(?:MAJOR|MINOR)\s+(\d+)", text)
    version = (int(found[0]), int(found[1])) if len(found) == 2 else (0, 0)
    if version not in TRIED:
        raise EngineError(
            f"version {'.'.join(map(str, version))} of XLA's foreign function interface is not one of "
            f"{', '.join(f'{major}.{minor}' for major, minor in TRIED)}; use backend='xla', or another jaxlib"
        )
    return version
