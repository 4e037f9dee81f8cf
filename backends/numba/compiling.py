"""From a Python function to an object file, by Numba."""

from __future__ import annotations

from typing import Any

import numba
from numba import types

KERNEL_SIGNATURE = types.uintp(types.uintp, types.intp, types.intp, types.intp)
"""The signature of a kernel: (table of buffers, phase, start, stop); returns 0."""

CALLBACK_SIGNATURE = types.uintp(types.uintp)
"""The signature of what XLA calls: one word, which it returns too."""


def object_of(function: Any, signature: Any) -> tuple[str, bytes]:
    """The symbol of a function with a C interface, and the object file that it is in."""
    compiled = numba.cfunc(signature, error_model="numpy")(function)
    library = compiled._library
    _, _, (code, _) = library.serialize_using_object_code()
    return compiled._wrapper_name, code


def text_of(kernel: Any) -> str:
    """A kernel as LLVM's optimized text, each instruction with the line of the source that it comes from."""
    compiled = numba.cfunc(KERNEL_SIGNATURE, error_model="numpy", debug=True)(kernel)
    text: str = compiled.inspect_llvm()
    return text
