"""Operations that are defined on the bits of floating numbers: the next number, and fewer bits of precision.

Each is given the bits as an unsigned integer, so that the two formats of 16 bits are no case of their own.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from graphopt.backends.numba.vecmath.intrinsics import scalar, select, uint16, uint32, uint64


def _next_after_in(unsigned: Any) -> Any:
    """`next_after(x, y, a, b, nan)`: the bits of the number after `x` towards `y`.

    a, b: the bits of x and y; nan: those of a NaN. Numbers are compared as numbers, where -0.0 is 0.0 and, with
    denormals flushed, so are they: of equal ones it is `y`.
    """
    sign, one, zero = unsigned(1 << (8 * unsigned.dtype.itemsize - 1)), unsigned(1), unsigned(0)
    size = unsigned(sign - one)

    def next_after(x: Any, y: Any, a: Any, b: Any, nan: Any) -> Any:
        shrinks = ((a & size) > (b & size)) | (((a ^ b) & sign) != zero)
        step = select(shrinks, unsigned(a - one), unsigned(a + one))
        step = select((a & size) == zero, unsigned((b & sign) | one), step)
        step = select(x == y, unsigned(b), step)
        return select((x == x) & (y == y), step, unsigned(nan))

    return next_after


def _reduce_precision_in(unsigned: Any) -> Any:
    """`reduce_precision(x, a, sign, infinity, dropped, greatest, least)`: the bits of `x` with fewer bits left.

    a: the bits of x; sign, infinity: those of -0.0 and of infinity. dropped: how many of the significand are rounded
    off, to nearest and even. greatest, least: what has an exponent above the one or below the other becomes infinity or
    zero. A NaN stays as it is. This is `EmitReducePrecisionIR` in XLA's elemental_ir_emitter.cc.
    """
    one, zero = unsigned(1), unsigned(0)

    def reduce_precision(x: Any, a: Any, sign: Any, infinity: Any, dropped: Any, greatest: Any, least: Any) -> Any:
        unit = unsigned(one << dropped)
        bias = unsigned(unsigned(unit >> one) - one + unsigned(unsigned(a >> dropped) & one))
        rounded = unsigned(unsigned(a + bias) & unsigned(~unsigned(unit - one)))
        rounded = select(dropped == zero, unsigned(a), rounded)
        exponent = unsigned(rounded & infinity)
        found = select(exponent > greatest, unsigned((rounded & sign) | infinity), rounded)
        found = select(exponent < least, unsigned(rounded & sign), found)
        return select(x == x, found, unsigned(a))

    return reduce_precision


WIDTHS = (uint16, uint32, uint64)

NEXT_AFTER: Mapping[str, Any] = {
    f"next_after_{unsigned.dtype.name}": scalar(_next_after_in(unsigned), lambda x, y, a, *rest: a)
    for unsigned in WIDTHS
}
REDUCE_PRECISION: Mapping[str, Any] = {
    f"reduce_precision_{unsigned.dtype.name}": scalar(_reduce_precision_in(unsigned), lambda x, a, *rest: a)
    for unsigned in WIDTHS
}
"""By what source calls them."""
