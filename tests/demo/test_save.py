"""The files that the demo writes."""

from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from graphopt.demo import save
from graphopt.demo.photograph import Pictures
from graphopt.demo.training import Epoch


def test_pictures_are_gray_png_files(tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    gray = jnp.linspace(-0.2, 1.2, 24).reshape(2, 3, 4)
    paths = save.save_pictures(Pictures(gray, gray[:, :2], gray, gray), tmp_path)
    assert len(paths) == len(list(tmp_path.iterdir())) == 8
    assert paths[1].name == "photograph2-edges.png"
    read = np.asarray(image.open(paths[1]))
    assert read.dtype == np.uint8
    np.testing.assert_array_equal(read, np.rint(255 * np.clip(gray[1], 0, 1)))


def test_curve(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    assert save.save_curve([Epoch(2.0, 0.5), Epoch(1.0, 0.8)], tmp_path / "curve.png")
    assert (tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG")


def test_no_curve_without_matplotlib(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(save, "find_spec", lambda name: None)
    assert not save.save_curve([Epoch(2.0, 0.5)], tmp_path / "curve.png")
    assert not list(tmp_path.iterdir())
