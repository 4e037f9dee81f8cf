"""Memory as Numba code sees it in a kernel's runtime: words at addresses, atomic counters, calls through pointers.

Addresses are unsigned 64-bit integers. Nothing here is checked; whoever calls knows what lies where.
"""

from __future__ import annotations

import mmap
import time
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

WORD = ir.IntType(64)
INT32 = ir.IntType(32)


def _external(name: str, arity: int, result: Any = types.uintp) -> Any:
    """A function of the C library on words, found by its name when code is loaded."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kind = ir.FunctionType(ir.VoidType() if result is types.void else WORD, [WORD] * arity)
        found = builder.call(cgutils.get_or_insert_function(builder.module, kind, name), args)
        return context.get_dummy_value() if result is types.void else found

    signature = result(*[types.uintp] * arity)
    if arity == 0:
        return intrinsic(lambda typing: (signature, generate))
    if arity == 1:
        return intrinsic(lambda typing, x: (signature, generate))
    return intrinsic(lambda typing, x, y, z: (signature, generate))


malloc = _external("malloc", 1)
free = _external("free", 1, types.void)
sched_yield = _external("sched_yield", 0)
madvise = _external("madvise", 3)
usleep = _external("usleep", 1)


def symbol(name: str) -> Any:
    """`address()` of what `graphopt.backends.numba.code.define` was told of under this name."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        known = builder.module.globals.get(name) or ir.GlobalVariable(builder.module, WORD, name)
        return builder.ptrtoint(known, WORD)

    return intrinsic(lambda typing: (types.uintp(), generate))


@intrinsic
def now(typing: Any) -> Any:
    """Nanoseconds of a clock that never goes back."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        place = cgutils.alloca_once(builder, ir.ArrayType(WORD, 2))  # a timespec
        kind = ir.FunctionType(INT32, [INT32, place.type])
        builder.call(
            cgutils.get_or_insert_function(builder.module, kind, "clock_gettime"),
            [ir.Constant(INT32, time.CLOCK_MONOTONIC), place],
        )
        seconds, nanoseconds = cgutils.unpack_tuple(builder, builder.load(place), 2)
        return builder.add(builder.mul(seconds, ir.Constant(WORD, 1_000_000_000)), nanoseconds)

    return types.intp(), generate


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


@intrinsic
def fetch(typing: Any, address: Any, offset: Any) -> Any:
    """Asks for the line of memory at `address + offset` bytes, whether that is memory or not."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        place = _pointer(builder, args[0], args[1], cgutils.int8_t)
        kind = ir.FunctionType(ir.VoidType(), [place.type, *[INT32] * 3])
        function = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0i8")
        # To read; into the first cache; data.
        builder.call(function, [place, *(ir.Constant(INT32, number) for number in (0, 3, 1))])
        return context.get_dummy_value()

    return types.void(types.uintp, types.intp), generate
