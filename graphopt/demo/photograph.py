"""An image pipeline, on the two photographs that come inside scikit-learn."""

from __future__ import annotations

import functools
import operator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from numpy.typing import NDArray


class Pictures(NamedTuple):
    """What `develop` makes of a photograph of h by w pixels. Values are gray levels in [0, 1], sRGB-encoded."""

    edges: Array  # [h, w]; strength of the edges, 0 and up
    sharpened: Array  # [h, w]
    equalized: Array  # [h, w]
    thumbnail: Array  # [h / 4, w / 4]


def load_photographs() -> NDArray[np.uint8]:
    """Return the photographs of a temple and of a flower: u8[2, 427, 640, 3].

    Raises ImportError where scikit-learn is missing, or pillow, with which it reads them.
    """
    from sklearn.datasets import load_sample_images

    return np.stack(load_sample_images().images)


def develop(photograph: Array) -> Pictures:
    """Make four gray pictures of one photograph u8[h, w, 3]."""
    light = luminance(linearize(photograph))
    gray = encode(light)
    height, width = gray.shape
    return Pictures(
        edges=sobel(blur(gray, 1.4)),
        sharpened=jnp.clip(sharpen(gray, 2.0, amount=1.5), 0, 1),
        equalized=equalize(gray),
        # Averages of light are right, averages of encoded values are too dark.
        thumbnail=encode(resize(light, height // 4, width // 4)),
    )


def linearize(srgb: Array) -> Array:
    """Turn 8-bit sRGB values into linear light in [0, 1] (IEC 61966-2-1): same shape, float."""
    x = srgb / 255
    return jnp.where(x <= 0.04045, x / 12.92, ((x + 0.055) / 1.055) ** 2.4)


def encode(light: Array) -> Array:
    """Turn linear light in [0, 1] into sRGB values in [0, 1]: the inverse of `linearize`, less the rounding."""
    return jnp.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)


def luminance(rgb: Array) -> Array:
    """Weigh linear red, green and blue as the eye does (ITU-R BT.709): [h, w, 3] to [h, w]."""
    return rgb @ jnp.array([0.2126, 0.7152, 0.0722])


def correlate(image: Array, weights: NDArray[np.float64], axis: int) -> Array:
    """Slide an odd number of weights along one axis of an image, which goes on past its border as the border does."""
    size, radius = image.shape[axis], len(weights) // 2
    padding = [(0, 0), (0, 0)]
    padding[axis] = (radius, radius)
    padded = jnp.pad(image, padding, mode="edge")
    slices = (jax.lax.slice_in_dim(padded, i, i + size, axis=axis) for i in range(len(weights)))
    return functools.reduce(operator.add, (float(w) * s for w, s in zip(weights, slices, strict=True)))


def blur(image: Array, sigma: float) -> Array:
    """Blur an image [h, w] with a Gaussian of `sigma` pixels, cut at four sigma, one axis after the other."""
    radius = int(4 * sigma + 0.5)
    weights = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2)
    weights /= weights.sum()
    return correlate(correlate(image, weights, 0), weights, 1)


def sobel(image: Array) -> Array:
    """Return the magnitude of Sobel's gradient of an image [h, w]."""
    smooth, slope = np.array([1.0, 2.0, 1.0]), np.array([-1.0, 0.0, 1.0])
    vertical = correlate(correlate(image, slope, 0), smooth, 1)
    horizontal = correlate(correlate(image, smooth, 0), slope, 1)
    return jnp.sqrt(vertical**2 + horizontal**2)


def sharpen(image: Array, sigma: float, amount: float) -> Array:
    """Unsharp mask: add `amount` times what a blur of `sigma` pixels takes away from an image [h, w]."""
    return image + amount * (image - blur(image, sigma))


def equalize(image: Array, bins: int = 256) -> Array:
    """Spread the gray levels of an image [h, w] in [0, 1] so that each range of levels has its share of the pixels.

    A level becomes the share of the pixels below it, linear within a bin of the histogram.
    """
    position = image * bins
    lower = jnp.clip(jnp.floor(position).astype(jnp.int32), 0, bins - 1)
    counts = jnp.bincount(lower.ravel(), length=bins)
    shares = jnp.concatenate([jnp.zeros(1), jnp.cumsum(counts) / image.size])
    return shares[lower] + (position - lower) * (shares[lower + 1] - shares[lower])


def resize(image: Array, height: int, width: int) -> Array:
    """Resize an image to `height` by `width`, bilinear, with the triangle as wide as the scale when it shrinks."""
    resized: Array = jax.image.resize(image, (height, width), "bilinear")
    return resized
