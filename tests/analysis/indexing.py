"""Random gathers and scatters: dimension numbers, modes and indices of every kind, some out of bounds."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from jax import lax

INDEX_DTYPES = ("int8", "uint8", "int16", "int32", "uint32", "int64", "uint64")
MODES = ("clip", "fill", "promise_in_bounds")


@dataclass(frozen=True)
class Indexing:
    """What a gather and the scatter that is its transpose have in common.

    offset, batching, batching_of_indices, mapped, collapsed: dimension numbers, as `lax.GatherDimensionNumbers` has
    them. result: the shape of the gather's result, and of the scatter's updates.
    """

    shape: tuple[int, ...]
    indices: Any
    sizes: tuple[int, ...]
    offset: tuple[int, ...]
    collapsed: tuple[int, ...]
    mapped: tuple[int, ...]
    batching: tuple[int, ...]
    batching_of_indices: tuple[int, ...]
    result: tuple[int, ...]

    def gather(self, mode: str) -> Callable[[Any, Any], Any]:
        """The gather on an operand and indices."""
        numbers = lax.GatherDimensionNumbers(
            self.offset, self.collapsed, self.mapped, self.batching, self.batching_of_indices
        )
        return lambda x, indices: lax.gather(x, indices, numbers, self.sizes, mode=mode)

    def scatter(self, method: Callable[..., Any], mode: str, **options: Any) -> Callable[[Any, Any, Any], Any]:
        """The scatter, by one of JAX's methods, on an operand, indices and updates."""
        numbers = lax.ScatterDimensionNumbers(
            self.offset, self.collapsed, self.mapped, self.batching, self.batching_of_indices
        )
        return lambda x, indices, updates: method(x, indices, updates, numbers, mode=mode, **options)


def drawn(random: np.random.Generator, dtype: str, most: int = 4) -> Indexing:
    """One of them at random; most: the greatest size of an axis, which some exceed where the dtype is narrow."""
    rank = int(random.integers(1, 5))
    shape = tuple(int(d) for d in random.integers(1, most + 1, rank))
    if random.random() < 0.2 and rank < 3:
        shape = (300, *shape[1:])
    axes = [int(axis) for axis in random.permutation(rank)]
    count = int(random.integers(0, min(2, rank - 1) + 1))
    batching = tuple(sorted(axes[:count]))
    rest = axes[count:]
    mapped = tuple(rest[: int(random.integers(1, len(rest) + 1))])
    sizes = [1 if axis in batching else int(random.integers(1, shape[axis] + 1)) for axis in range(rank)]
    collapsed = tuple(axis for axis in sorted(rest) if random.random() < 0.5)
    for axis in collapsed:
        sizes[axis] = 1
    extra = [int(d) for d in random.integers(1, most + 1, int(random.integers(0, 3)))]
    outer = [shape[axis] for axis in batching] + extra
    order = [int(k) for k in random.permutation(len(outer))]
    batch = tuple(outer[k] for k in order)
    batching_of_indices = tuple(order.index(k) for k in range(len(batching)))
    window = [sizes[axis] for axis in range(rank) if axis not in batching and axis not in collapsed]
    result_rank = len(batch) + len(window)
    offset = tuple(sorted(int(k) for k in random.choice(result_rank, len(window), replace=False)))
    result, batches, windows = [], iter(batch), iter(window)
    for axis in range(result_rank):
        result.append(next(windows) if axis in offset else next(batches))
    info = np.iinfo(dtype)
    most_index = min(max(shape) + 3, int(info.max))
    indices = random.integers(max(-3, info.min), most_index, (*batch, len(mapped)), endpoint=True).astype(object)
    far = np.array([int(info.min), int(info.max)], object)[random.integers(0, 2, indices.shape)]
    indices = np.where(random.random(indices.shape) < 0.05, far, indices)
    return Indexing(
        shape,
        indices.astype(dtype),
        tuple(sizes),
        offset,
        collapsed,
        mapped,
        batching,
        batching_of_indices,
        tuple(result),
    )
