"""Values for the two sides of a rule: those that go wrong first, and moderate ones."""

from typing import Any

import jax.numpy as jnp
import numpy as np

DTYPES = {
    "b": ("bool",),
    "i": ("int32", "int8", "int16", "int64"),
    "u": ("uint32", "uint8", "uint16", "uint64"),
    "f": ("float32", "bfloat16", "float16", "float64"),
    "c": ("complex64", "complex128"),
}
"""By kind; the first of each is tried always."""

_SPECIAL = (0.0, -0.0, 1.0, -1.0, np.nan, np.inf, -np.inf, 0.5, -2.5, 3.0, 1e-3, 700.0, -700.0)


def values(random: np.random.Generator, dtype: str, shape: tuple[int, ...], special: bool) -> Any:
    """An array of this dtype. special: with NaN, infinities, signed zeros, denormals, the largest and smallest values."""
    kind = np.dtype(jnp.bfloat16 if dtype == "bfloat16" else dtype)
    size = int(np.prod(shape))
    if kind == np.bool_:
        found = random.integers(0, 2, size).astype(bool)
    elif kind.kind in "iu":
        info = np.iinfo(kind)
        pool = [
            0,
            1,
            2,
            3,
            7,
            info.max,
            info.max - 1,
            info.min,
            info.min + 1,
            *([-1, -2, -7] if kind.kind == "i" else []),
        ]
        found = random.choice(np.array(pool, kind), size) if special else random.integers(0, 10, size).astype(kind)
    elif kind.kind == "c":
        part = "float32" if kind == np.complex64 else "float64"
        found = np.empty(size, kind)
        found.real, found.imag = values(random, part, (size,), special), values(random, part, (size,), special)
    else:
        found = (random.normal(size=size) * random.choice([0.1, 1.0, 3.0])).astype(kind)
        if special:
            info = jnp.finfo(kind)
            extreme = [info.max, info.min, info.tiny, -info.tiny, float(info.tiny) / 4, -float(info.tiny) / 4, info.eps]
            with np.errstate(all="ignore"):
                pool = np.array([*_SPECIAL, *map(float, extreme)]).astype(kind)
            found = np.where(random.random(size) < 0.7, random.choice(pool, size), found)
    return found.reshape(shape)


CONSTANTS = (0, 1, -1, 2, 0.5, -0.0, 3, 0.25, -2, 10, 1.5, 7, np.nan, np.inf, 31, 8)


def constant(random: np.random.Generator, dtype: str) -> Any:
    """A scalar of this dtype for a constant in a rule."""
    kind = np.dtype(jnp.bfloat16 if dtype == "bfloat16" else dtype)
    with np.errstate(all="ignore"):
        value = np.array(random.choice(np.array(CONSTANTS)))
        if kind.kind in "iub" and not np.isfinite(value):
            value = np.array(1.0)
        return value.astype(np.int64).astype(kind) if kind.kind in "iub" else value.astype(kind)
