"""What the source of a kernel may name, and the source as a function that Numba can compile."""

from __future__ import annotations

from typing import Any

import numpy as np

from graphopt.backends.numba import (
    bypass,
    conversions,
    distribution,
    intrinsics,
    memory,
    networks,
    products,
    random,
    selecting,
    sorting,
)
from graphopt.backends.numba.bits import NEXT_AFTER, REDUCE_PRECISION
from graphopt.backends.numba.complexes import COMPLEX_NAMES
from graphopt.backends.numba.half import is_half, kept_as
from graphopt.backends.numba.scalar import DTYPES, half_power_name, name_of
from graphopt.backends.numba.vecmath import HALF_POWERS, MATH
from graphopt.backends.numba.vecmath import intrinsics as floating
from graphopt.backends.numba.vecmath.intrinsics import scalar
from graphopt.backends.numba.vecmath.remainder import rem

NAMES: dict[str, Any] = {
    "np": np,
    "floor": scalar(floating.floor),
    "ceil": intrinsics.ceil,
    "round_even": scalar(floating.rint),
    "round_away": intrinsics.round_away,
    "negate": intrinsics.negate,
    "sqrt": scalar(floating.sqrt),
    "fabs": scalar(floating.fabs),
    "copysign": scalar(floating.copysign),
    "maximum": scalar(floating.maximum),
    "minimum": scalar(floating.minimum),
    "population_count": intrinsics.population_count,
    "count_leading_zeros": intrinsics.count_leading_zeros,
    "add_any_order": intrinsics.add_any_order,
    "mul_any_order": intrinsics.mul_any_order,
    "mul_to_add": intrinsics.mul_to_add,
    "wrapping_add": intrinsics.wrapping_add,
    "wrapping_sub": intrinsics.wrapping_sub,
    "wrapping_mul": intrinsics.wrapping_mul,
    "divide": intrinsics.divide,
    "remainder": intrinsics.remainder,
    "float_remainder": scalar(rem),
    "shift_left": intrinsics.shift_left,
    "shift_right_logical": intrinsics.shift_right_logical,
    "shift_right_arithmetic": intrinsics.shift_right_arithmetic,
    **{f"float_to_{d.name}": intrinsics.float_to_integer(d) for d in DTYPES if d.kind in "iu"},
    **{f"bits_to_{d.name}": intrinsics.bits_to(d) for d in DTYPES if d.kind in "iuf" and not is_half(d)},
    **COMPLEX_NAMES,
    "threefry_0": random.threefry_0,
    "threefry_1": random.threefry_1,
    **NEXT_AFTER,
    **REDUCE_PRECISION,
    "widen_float16": conversions.widen_float16,
    "narrow_float16": conversions.narrow_float16,
    "round_float16": conversions.round_float16,
    "widen_bfloat16": conversions.widen_bfloat16,
    "narrow_bfloat16": conversions.narrow_bfloat16,
    **{name_of(op, dtype): scalar(function) for (op, dtype), function in MATH.items()},
    **{half_power_name(exponent, dtype): scalar(function) for (exponent, dtype), function in HALF_POWERS.items()},
    "sort_uint32": sorting.sort_uint32,
    "sort_uint64": sorting.sort_uint64,
    "sort_places_uint32": sorting.sort_places_uint32,
    "sort_places_uint64": sorting.sort_places_uint64,
    **distribution.STEPS,
    "sort_beside_uint32": networks.sort_beside_uint32,
    "sort_beside_uint64": networks.sort_beside_uint64,
    "sort_rows_uint32": networks.sort_rows_uint32,
    "sort_rows_uint64": networks.sort_rows_uint64,
    "smallest_uint32": selecting.smallest_uint32,
    "smallest_uint64": selecting.smallest_uint64,
    "product_float32": products.product_of(np.float32),
    "product_float64": products.product_of(np.float64),
    **{f"read_{d.name}": intrinsics.element_reader(kept_as(d), constant=False) for d in DTYPES},
    **{f"input_{d.name}": intrinsics.element_reader(kept_as(d), constant=True) for d in DTYPES},
    **{f"write_{d.name}": intrinsics.element_writer(kept_as(d)) for d in DTYPES},
    "choose": intrinsics.choose,
    "opaque": intrinsics.opaque,
    "fetch": memory.fetch,
    "bypass": bypass.bypass,
    "drain": bypass.drain,
    **{f"tile_{d.name}": intrinsics.tile_of(kept_as(d)) for d in DTYPES},
    "buffer": intrinsics.element_reader("u8", constant=True),
}
"""What the source may name."""


def function_of(source: str) -> Any:
    """The kernel as a Python function, for Numba to compile."""
    names = dict(NAMES)
    exec(compile(source, "<kernel>", "exec"), names)
    kernel = names["kernel"]
    kernel.source = source
    return kernel
