"""The handwritten digits that come inside scikit-learn, split into training, validation and test sets."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class Examples(NamedTuple):
    """Images, f32[n, 8, 8, 1] with values in [0, 1], and the digit that each shows, i32[n]."""

    images: NDArray[np.float32]
    labels: NDArray[np.int32]


class Split(NamedTuple):
    """Three disjoint sets of examples."""

    train: Examples
    validation: Examples
    test: Examples


def load_digits() -> Examples:
    """Return the 1,797 digits. Raises ImportError where scikit-learn is missing."""
    from sklearn.datasets import load_digits as load

    pixels, labels = load(return_X_y=True)
    images = (pixels / 16).astype(np.float32).reshape(-1, 8, 8, 1)
    return Examples(images, labels.astype(np.int32))


def split(examples: Examples, seed: int) -> Split:
    """Split into 60 % for training, 20 % for validation and 20 % for the test, each digit in the same share of each."""
    train, held_out = _divide(examples, 0.4, seed)
    validation, test = _divide(held_out, 0.5, seed)
    return Split(train, validation, test)


def batches(examples: Examples, size: int, random: np.random.Generator) -> Iterator[Examples]:
    """Yield the examples in random order, `size` at a time.

    The few that would not fill a last batch are left out of this epoch: a batch of another size compiles anew.
    """
    order = random.permutation(len(examples.labels))
    for start in range(0, len(order) - size + 1, size):
        chosen = order[start : start + size]
        yield Examples(examples.images[chosen], examples.labels[chosen])


def _divide(examples: Examples, share: float, seed: int) -> tuple[Examples, Examples]:
    """Put `share` of each digit's examples in the second of two sets."""
    from sklearn.model_selection import train_test_split

    images, labels = examples
    first_images, second_images, first_labels, second_labels = train_test_split(
        images, labels, test_size=share, stratify=labels, random_state=seed
    )
    return Examples(first_images, first_labels), Examples(second_images, second_labels)
