"""Memory as Numba code sees it in a kernel's runtime: words at addresses, atomic counters, calls through pointers.

Addresses are unsigned 64-bit integers. Nothing here is checked; whoever calls knows what lies where.
"""

from __future__ import annotations

import ctypes
import mmap
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

WORD = ir.IntType(64)
INT32 = ir.IntType(32)

_libc = ctypes.CDLL(None)


def _from_libc(name: str, result: Any, *arguments: Any) -> Any:
    function = getattr(_libc, name)
    function.restype, function.argtypes = result, list(arguments)
    return function


malloc = _from_libc("malloc", ctypes.c_size_t, ctypes.c_size_t)
free = _from_libc("free", None, ctypes.c_size_t)
sched_yield = _from_libc("sched_yield", ctypes.c_int)
madvise = _from_libc("madvise", ctypes.c_int, ctypes.c_size_t, ctypes.c_size_t, ctypes.c_int)

MADV_HUGEPAGE = 14  # of Linux, in asm-generic/mman-common.h
PAGE = mmap.PAGESIZE


def _pointer(builder: Any, address: Any, offset: Any, to: Any = WORD) -> Any:
    return builder.inttoptr(builder.add(address, offset), to.as_pointer())


@intrinsic
def load(typing: Any, address: Any, offset: Any) -> Any:
    """The word at `address + offset` bytes."""
    return types.uintp(types.uintp, types.intp), lambda context, builder, signature, args: builder.load(
        _pointer(builder, *args)
    )


@intrinsic
def load_int32(typing: Any, address: Any, offset: Any) -> Any:
    """The 32-bit integer at `address + offset` bytes."""
    return types.int32(types.uintp, types.intp), lambda context, builder, signature, args: builder.load(
        _pointer(builder, args[0], args[1], INT32)
    )


@intrinsic
def store(typing: Any, address: Any, offset: Any, value: Any) -> Any:
    """Writes a word at `address + offset` bytes."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        builder.store(args[2], _pointer(builder, args[0], args[1]))
        return context.get_dummy_value()

    return types.void(types.uintp, types.intp, types.uintp), generate


@intrinsic
def store_int32(typing: Any, address: Any, offset: Any, value: Any) -> Any:
    """Writes a 32-bit integer at `address + offset` bytes."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        builder.store(args[2], _pointer(builder, args[0], args[1], INT32))
        return context.get_dummy_value()

    return types.void(types.uintp, types.intp, types.int32), generate


@intrinsic
def fetch_add(typing: Any, address: Any, offset: Any, value: Any) -> Any:
    """Adds to the word at `address + offset`, atomically; returns what it was."""
    return types.intp(
        types.uintp, types.intp, types.intp
    ), lambda context, builder, signature, args: builder.atomic_rmw(
        "add", _pointer(builder, args[0], args[1]), args[2], "seq_cst"
    )


@intrinsic
def load_atomic(typing: Any, address: Any, offset: Any) -> Any:
    """The word at `address + offset`, as other threads have left it."""
    return types.intp(types.uintp, types.intp), lambda context, builder, signature, args: builder.load_atomic(
        _pointer(builder, *args), "seq_cst", 8
    )


@intrinsic
def call(typing: Any, function: Any, argument: Any) -> Any:
    """Calls a C function of one word; returns its word."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kind = ir.FunctionType(WORD, [WORD])
        return builder.call(builder.inttoptr(args[0], kind.as_pointer()), [args[1]])

    return types.uintp(types.uintp, types.uintp), generate


@intrinsic
def call_kernel(typing: Any, function: Any, buffers: Any, phase: Any, start: Any, stop: Any) -> Any:
    """Calls a kernel: iterations `start` to `stop` of a phase, on a table of buffers."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kind = ir.FunctionType(WORD, [WORD] * 4)
        return builder.call(builder.inttoptr(args[0], kind.as_pointer()), list(args[1:]))

    return types.uintp(types.uintp, types.uintp, types.intp, types.intp, types.intp), generate


@intrinsic
def pointer(typing: Any, address: Any) -> Any:
    """An address as a pointer, for `numba.carray`."""
    return types.voidptr(types.uintp), lambda context, builder, signature, args: builder.inttoptr(
        args[0], cgutils.voidptr_t
    )
