"""The k smallest of many keys, with their places: what loop programs call for one row.

Lane `l` of L lanes has every L-th key from the l-th on. The k-th smallest of the least keys of all lanes is not below
the k-th smallest key, and where L is 2 * k or more about 1.4 * k keys in random order are not above it: these are
gathered, sorted and cut to k. Where there are many more of them that is done again and again, with a new bound.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba import from_dtype, types
from numba.extending import intrinsic

from graphopt.backends.numba import sorting
from graphopt.backends.numba.intrinsics import element_reader, element_writer
from graphopt.backends.numba.memory import free, malloc
from graphopt.backends.numba.sorting import unsigned_of
from graphopt.backends.numba.translating import called, inlined

BLOCK = 64
"""Keys that are compared with the bound at once."""

LANES = 32
"""The least number of lanes."""

COUNTED = 64
"""Up to this many lanes their least keys are compared each with each; more are sorted."""

read_place, write_place = element_reader("i4", constant=False), element_writer("i4")


@intrinsic
def trailing_zeros(typing: Any, x: Any) -> Any:
    """Zero bits below the lowest one; x is not 0."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.cttz(args[0], ir.Constant(ir.IntType(1), 1))

    return x(x), generate


def _comparer(width: int) -> Any:
    """`at_most(keys, start, bound)`: a bit for each of BLOCK keys of `width` bytes, 1 where it is not above `bound`."""
    kind = ir.IntType(8 * width)
    vector, bits = ir.VectorType(kind, BLOCK), ir.VectorType(ir.IntType(32), BLOCK)

    def of(typing: Any, keys: Any, start: Any, bound: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            first = builder.gep(builder.inttoptr(args[0], kind.as_pointer()), [args[1]], inbounds=True)
            found = builder.load(builder.bitcast(first, vector.as_pointer()), align=width)
            one = builder.insert_element(ir.Constant(vector, ir.Undefined), args[2], ir.Constant(ir.IntType(32), 0))
            bounds = builder.shuffle_vector(one, ir.Constant(vector, ir.Undefined), ir.Constant(bits, None))
            return builder.bitcast(builder.icmp_unsigned("<=", found, bounds), ir.IntType(BLOCK))

        return types.uint64(types.uintp, types.intp, from_dtype(np.dtype(f"u{width}"))), generate

    return intrinsic(of)


def _bounder(width: int) -> tuple[Any, Any]:
    """`least_of_lanes(keys, start, n, leasts, lanes)` and `bound_of(leasts, counts, lanes, k)`: the least key of each
    lane, and the k-th smallest of those."""
    read, write = element_reader(f"u{width}", constant=False), element_writer(f"u{width}")
    unsigned = unsigned_of(width)
    greatest = int(np.iinfo(unsigned).max)

    @inlined
    def least_of_lanes(keys: Any, start: int, n: int, leasts: Any, lanes: int) -> None:
        for lane in range(lanes):
            write(leasts, lane, read(keys, start + lane))
        for row in range(1, n // lanes):
            for lane in range(lanes):
                write(leasts, lane, min(read(leasts, lane), read(keys, start + row * lanes + lane)))

    @inlined
    def bound_of(leasts: Any, counts: Any, lanes: int, k: int) -> Any:
        """Of some keys, no more than COUNTED; counts: memory for as many."""
        for i in range(lanes):
            write(counts, i, unsigned(0))
        for j in range(lanes):
            key = read(leasts, j)
            for i in range(lanes):
                write(counts, i, unsigned(read(counts, i) + unsigned(key <= read(leasts, i))))
        bound = unsigned(greatest)
        for i in range(lanes):
            if np.intp(read(counts, i)) >= k:
                bound = min(bound, read(leasts, i))
        return bound

    return least_of_lanes, bound_of


def _gatherer(width: int, sort: Any) -> Any:
    """`gather(keys, start, n, best, places, room, bound, k)`: the keys up to `bound`, into memory for `room` of them.

    Those of them that may be among the k smallest are left; the result is how many.
    """
    read, write = element_reader(f"u{width}", constant=False), element_writer(f"u{width}")
    unsigned, at_most = unsigned_of(width), _comparer(width)

    @inlined
    def gather(keys: Any, start: int, n: int, best: Any, places: Any, room: int, bound: Any, k: int) -> Any:
        found, i = 0, 0
        while i < n:
            if found + BLOCK > room:
                sort(best, places, 0, found)
                found = k
                if read(best, k - 1) == 0:  # nothing is smaller
                    return found
                bound = min(bound, unsigned(read(best, k - 1) - unsigned(1)))
            if i + BLOCK <= n:
                which = at_most(keys, start + i, bound)
            else:
                which = np.uint64(0)
                for bit in range(n - i):
                    which |= np.uint64(read(keys, start + i + bit) <= bound) << np.uint64(bit)
            while which != 0:
                j = i + np.intp(trailing_zeros(which))
                write(best, found, read(keys, start + j))
                write_place(places, found, np.int32(j))
                found += 1
                which &= which - np.uint64(1)
            i += BLOCK
        return found

    return gather


def _selector(width: int, sort: Any) -> Any:
    """`smallest(keys, start, n, places, to, k)`: the places of the k smallest of n keys of `width` bytes."""
    read, unsigned = element_reader(f"u{width}", constant=False), unsigned_of(width)
    greatest = int(np.iinfo(unsigned).max)
    least_of_lanes, bound_of = _bounder(width)
    gather = _gatherer(width, sort)

    @called
    def smallest(keys: Any, start: int, n: int, places: Any, to: int, k: int) -> None:
        lanes = LANES
        while lanes < 2 * k:
            lanes *= 2
        few = n < 2 * lanes  # these are all gathered
        room = n + BLOCK if few else max(2 * k, lanes) + BLOCK
        best = numba.uintp(malloc(numba.uintp(width * room)))
        best_places = numba.uintp(malloc(numba.uintp(4 * room)))
        bound = unsigned(greatest)
        if not few:
            least_of_lanes(keys, start, n, best, lanes)
            if lanes <= COUNTED:
                counts = numba.uintp(malloc(numba.uintp(width * lanes)))
                bound = bound_of(best, counts, lanes, k)
                free(counts)
            else:
                sort(best, best_places, 0, lanes)
                bound = read(best, k - 1)
        found = gather(keys, start, n, best, best_places, room, bound, k)
        sort(best, best_places, 0, found)
        for i in range(k):
            write_place(places, to + i, read_place(best_places, i))
        free(best)
        free(best_places)

    return smallest


smallest_uint32 = _selector(4, called(sorting.sort_places_uint32.function))
smallest_uint64 = _selector(8, called(sorting.sort_places_uint64.function))
