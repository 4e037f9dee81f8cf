"""The split of the digits: disjoint, complete, stratified, and the same for the same seed."""

import numpy as np
import pytest

from graphopt.demo import digits

pytest.importorskip("sklearn")


def rows(examples: digits.Examples) -> list[bytes]:
    return [image.tobytes() for image in examples.images]


def numbered() -> digits.Examples:
    """The digits' labels, each with an image of its own that shows its number."""
    labels = digits.load_digits().labels
    return digits.Examples(np.arange(len(labels), dtype=np.float32).reshape(-1, 1, 1, 1), labels)


def test_the_digits_are_images_in_unit_range() -> None:
    images, labels = digits.load_digits()
    assert images.shape == (1797, 8, 8, 1)
    assert images.dtype == np.float32
    assert labels.dtype == np.int32
    assert (images.min(), images.max()) == (0, 1)
    assert set(labels) == set(range(10))


def test_the_three_sets_are_disjoint_and_complete() -> None:
    parts = digits.split(numbered(), seed=4)
    assert [len(part.labels) for part in parts] == [1078, 359, 360]
    together = np.concatenate([part.images.ravel() for part in parts])
    np.testing.assert_array_equal(np.sort(together), np.arange(1797))
    for part in parts:
        np.testing.assert_array_equal(part.labels, numbered().labels[part.images.ravel().astype(int)])


def test_each_set_has_its_share_of_each_digit() -> None:
    examples = digits.load_digits()
    total = np.bincount(examples.labels)
    for part, share in zip(digits.split(examples, seed=0), (0.6, 0.2, 0.2), strict=True):
        assert np.abs(np.bincount(part.labels) - share * total).max() < 2


def test_the_seed_decides_the_split() -> None:
    examples = digits.load_digits()
    first, again, other = (rows(digits.split(examples, seed).test) for seed in (1, 1, 2))
    assert first == again
    assert first != other


def test_batches_are_full_and_no_example_comes_twice() -> None:
    examples = numbered()
    found = list(digits.batches(examples, 100, np.random.default_rng(0)))
    assert [len(batch.labels) for batch in found] == [100] * 17
    numbers = np.concatenate([batch.images.ravel() for batch in found]).astype(int)
    assert len(set(numbers)) == 1700
    assert list(numbers) != sorted(numbers)
    np.testing.assert_array_equal(np.concatenate([batch.labels for batch in found]), examples.labels[numbers])
