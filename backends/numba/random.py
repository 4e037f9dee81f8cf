"""Threefry-2x32 in kernels: 20 rounds of adding, rotating and exclusive or, on words of 32 bits."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

WORD = ir.IntType(32)

ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))
PARITY = 0x1BD11BDA


def _threefry(word: int) -> Any:
    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        rotate = builder.module.declare_intrinsic("llvm.fshl", [WORD], ir.FunctionType(WORD, [WORD] * 3))
        first, second, x, y = args
        keys = (first, second, builder.xor(builder.xor(first, second), WORD(PARITY)))
        x, y = builder.add(x, first), builder.add(y, second)
        for number in range(5):
            for by in ROTATIONS[number % 2]:
                x = builder.add(x, y)
                y = builder.xor(builder.call(rotate, [y, y, WORD(by)]), x)
            x = builder.add(x, keys[(number + 1) % 3])
            y = builder.add(y, builder.add(keys[(number + 2) % 3], WORD(number + 1)))
        return (x, y)[word]

    return intrinsic(lambda typing, first, second, x, y: (types.uint32(*[types.uint32] * 4), emit))


threefry_0, threefry_1 = _threefry(0), _threefry(1)
"""One word of the two. Where both are computed of the same operands, LLVM computes the rounds once."""
