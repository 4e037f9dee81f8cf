"""Each stage of the image pipeline against NumPy and SciPy, and the pipeline against its stages."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from graphopt.demo import photograph

Image = NDArray[Any]


def assert_close(
    found: Image | jax.Array, expected: Image | jax.Array, kind: str = "", rtol: float = 1e-5, atol: float = 2e-6
) -> None:
    np.testing.assert_allclose(np.asarray(found), np.asarray(expected), rtol, atol, err_msg=kind)


def random_gray(seed: int, height: int = 23, width: int = 34) -> Image:
    """A smooth image with noise, f32 in [0, 1]; both 0 and 1 occur."""
    random = np.random.default_rng(seed)
    image = ndimage.gaussian_filter(random.normal(size=(height, width)), 3) + 0.02 * random.normal(size=(height, width))
    return np.asarray((image - image.min()) / (image.max() - image.min()), np.float32)


def random_photograph(seed: int, height: int = 40, width: int = 53) -> Image:
    return np.stack([(255 * random_gray(3 * seed + c, height, width)).round().astype(np.uint8) for c in range(3)], -1)


def linearized(srgb: Image) -> Image:
    x = srgb.astype(np.float64) / 255
    return np.where(x <= 0.04045, x / 12.92, np.power((x + 0.055) / 1.055, 2.4))


def encoded(light: Image) -> Image:
    return np.where(light <= 0.0031308, 12.92 * light, 1.055 * np.power(light, 1 / 2.4) - 0.055)


def equalized(image: Image, bins: int = 256) -> Image:
    counts, edges = np.histogram(image, bins, (0, 1))
    return np.interp(image, edges, np.concatenate([[0], np.cumsum(counts)]) / image.size)


def shrunk(image: Image, height: int, width: int) -> Image:
    """Weigh the pixels by a triangle around each new pixel's centre, of half-width one new pixel."""

    def weights(new: int, old: int) -> Image:
        centres = (np.arange(new) + 0.5) * old / new - 0.5
        triangle = np.maximum(0, 1 - np.abs(np.arange(old) - centres[:, None]) * new / old)
        return np.asarray(triangle / triangle.sum(axis=1, keepdims=True))

    return np.asarray(weights(height, image.shape[0]) @ image @ weights(width, image.shape[1]).T, np.float64)


def gradient(image: Image) -> Image:
    slopes = [ndimage.sobel(image.astype(np.float64), axis, mode="nearest") for axis in (0, 1)]
    return np.asarray(np.hypot(*slopes))


def blurred(image: Image, sigma: float) -> Image:
    return np.asarray(ndimage.gaussian_filter(image.astype(np.float64), sigma, mode="nearest", truncate=4))


def developed(srgb: Image) -> dict[str, Image]:
    light = linearized(srgb) @ np.array([0.2126, 0.7152, 0.0722])
    gray = encoded(light)
    return {
        "edges": gradient(blurred(gray, 1.4)),
        "sharpened": np.clip(gray + 1.5 * (gray - blurred(gray, 2)), 0, 1),
        "equalized": equalized(gray.astype(np.float32)),
        "thumbnail": encoded(shrunk(light, len(gray) // 4, len(gray[0]) // 4)),
    }


def test_linearize_all_levels() -> None:
    levels = np.arange(256, dtype=np.uint8)
    light = jax.jit(photograph.linearize)(levels)
    assert_close(light, linearized(levels), atol=0)
    assert (light[0], light[255]) == (0, 1)


def test_encode_is_the_inverse_of_linearize() -> None:
    light = np.linspace(0, 1, 1001, dtype=np.float32)
    assert_close(jax.jit(photograph.encode)(light), encoded(light))
    levels = np.arange(256, dtype=np.uint8)
    assert_close(photograph.encode(photograph.linearize(jnp.asarray(levels))), levels / 255)


def test_luminance() -> None:
    rgb = np.random.default_rng(0).uniform(size=(5, 7, 3)).astype("f")
    expected = 0.2126 * rgb[..., 0] + 0.7152 * rgb[..., 1] + 0.0722 * rgb[..., 2]
    assert_close(photograph.luminance(jnp.asarray(rgb)), expected)


@pytest.mark.parametrize("axis", [0, 1])
def test_correlate(axis: int) -> None:
    image, weights = random_gray(1), np.array([0.5, -1.0, 2.0, 0.25, 3.0])
    expected = ndimage.correlate1d(image.astype(np.float64), weights, axis, mode="nearest")
    assert_close(jax.jit(lambda x: photograph.correlate(x, weights, axis))(image), expected)


@pytest.mark.parametrize("sigma", [0.6, 1.4, 8.0])
def test_blur(sigma: float) -> None:
    image = random_gray(2)
    found = jax.jit(lambda x: photograph.blur(x, sigma))(image)
    assert_close(found, blurred(image, sigma))


def test_sobel() -> None:
    image = random_gray(3)
    assert_close(jax.jit(photograph.sobel)(image), gradient(image))


def test_sharpen() -> None:
    image = random_gray(4).astype(np.float64)
    found = photograph.sharpen(jnp.asarray(image, jnp.float32), 1.5, amount=0.7)
    assert_close(found, image + 0.7 * (image - blurred(image, 1.5)))


@pytest.mark.parametrize("bins", [8, 256])
def test_equalize(bins: int) -> None:
    image = random_gray(5)
    found = jax.jit(lambda x: photograph.equalize(x, bins))(image)
    assert_close(found, equalized(image, bins))


def test_equalize_spreads_the_levels() -> None:
    dark = random_gray(6, 200, 200) ** 3
    found = np.asarray(photograph.equalize(jnp.asarray(dark))).ravel()
    counts, _ = np.histogram(found, 10, (0, 1))
    assert counts.max() < 1.1 * dark.size / 10
    assert (np.diff(found[dark.argsort(axis=None)]) >= -1e-6).all()


@pytest.mark.parametrize("level", [0.0, 0.5, 1.0])
def test_equalize_a_single_level(level: float) -> None:
    image = np.full((4, 5), level, np.float32)
    assert_close(photograph.equalize(jnp.asarray(image)), equalized(image))


@pytest.mark.parametrize("shape", [(5, 8), (10, 12), (23, 34)])
def test_resize(shape: tuple[int, int]) -> None:
    image = random_gray(7)
    assert_close(photograph.resize(jnp.asarray(image), *shape), shrunk(image, *shape))


def test_develop_is_its_stages_for_one_and_for_several() -> None:
    photographs = np.stack([random_photograph(0), random_photograph(1)])
    both = jax.jit(jax.vmap(photograph.develop))(photographs)
    for number, srgb in enumerate(photographs):
        one = jax.jit(photograph.develop)(srgb)
        for kind, expected in developed(srgb).items():
            assert_close(getattr(one, kind), expected, kind, rtol=1e-4, atol=1e-5)
            assert_close(getattr(both, kind)[number], getattr(one, kind), kind)


def test_the_photographs() -> None:
    pytest.importorskip("sklearn")
    pytest.importorskip("PIL")
    photographs = photograph.load_photographs()
    assert photographs.shape == (2, 427, 640, 3)
    assert photographs.dtype == np.uint8
    found = jax.jit(photograph.develop)(photographs[0])
    for kind, expected in developed(photographs[0]).items():
        assert_close(getattr(found, kind), expected, kind, rtol=1e-4, atol=2e-5)
