"""Writing to memory past the caches: by lines that are neither read before nor kept after (non-temporal stores).

A store to a line that is not in a cache reads it first, though all of it is written over. Lines that go straight to
memory need not be read, and push nothing else out of the caches.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

WORD, BYTE = ir.IntType(64), ir.IntType(8)

LINE = 64
"""Bytes of a line of memory."""

VECTOR = ir.VectorType(ir.IntType(32), LINE // 4)


@intrinsic
def bypass(typing: Any, to: Any, at: Any, tile: Any, size: Any) -> Any:
    """`size` bytes at the address `tile` are written to `to + at`: whole lines past the caches.

    What lies in a line with something else, at both ends, is written as usual.
    """

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        to, at, tile, size = args
        start = builder.add(to, at)
        lead = builder.and_(builder.neg(start), ir.Constant(WORD, LINE - 1))
        lead = builder.select(builder.icmp_unsigned("<", lead, size), lead, size)
        whole = builder.and_(builder.sub(size, lead), ir.Constant(WORD, -LINE))
        rest = builder.sub(builder.sub(size, lead), whole)
        _copy(builder, start, tile, lead)
        with cgutils.for_range(builder, builder.lshr(whole, ir.Constant(WORD, 6))) as loop:
            step = builder.add(lead, builder.shl(loop.index, ir.Constant(WORD, 6)))
            line = builder.load(_at(builder, tile, step, VECTOR), align=1)
            stored = builder.store(line, _at(builder, start, step, VECTOR), align=LINE)
            stored.set_metadata("nontemporal", builder.module.add_metadata([ir.Constant(ir.IntType(32), 1)]))
        done = builder.add(lead, whole)
        _copy(builder, builder.add(start, done), builder.add(tile, done), rest)
        return context.get_dummy_value()

    return types.void(types.uintp, types.intp, types.uintp, types.intp), generate


@intrinsic
def drain(typing: Any) -> Any:
    """What was written past the caches is there for other threads before anything that is written after this."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        builder.fence("seq_cst")
        return context.get_dummy_value()

    return types.void(), generate


def _at(builder: Any, address: Any, offset: Any, kind: Any) -> Any:
    return builder.inttoptr(builder.add(address, offset), kind.as_pointer())


def _copy(builder: Any, to: Any, of: Any, size: Any) -> None:
    """Copies a few bytes, or none."""
    with builder.if_then(builder.icmp_unsigned("!=", size, ir.Constant(WORD, 0)), likely=False):
        places = (builder.inttoptr(address, BYTE.as_pointer()) for address in (to, of))
        cgutils.raw_memcpy(builder, *places, size, 1)
