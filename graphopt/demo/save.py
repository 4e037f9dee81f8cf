"""Files that the demo leaves behind: the pictures it made, and how training went."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from graphopt.demo.photograph import Pictures
from graphopt.demo.training import Epoch


def save_pictures(pictures: Pictures, directory: Path) -> list[Path]:
    """Write each kind of picture, [photographs, h, w], as gray PNG files; return their paths."""
    from PIL import Image

    paths = []
    for kind, stack in pictures._asdict().items():
        for number, gray in enumerate(np.asarray(stack), start=1):
            path = directory / f"photograph{number}-{kind}.png"
            Image.fromarray((np.clip(gray, 0, 1) * 255).round().astype(np.uint8)).save(path)
            paths.append(path)
    return paths


def save_curve(curve: Sequence[Epoch], path: Path) -> bool:
    """Draw loss and accuracy over the epochs. Return False, having drawn nothing, where matplotlib is missing."""
    if find_spec("matplotlib") is None:
        return False
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 3), layout="constrained")
    losses, accuracies = figure.subplots(1, 2)
    epochs = range(1, len(curve) + 1)
    losses.semilogy(epochs, [epoch.loss for epoch in curve])
    losses.set(xlabel="epoch", ylabel="training loss (nats)")
    accuracies.plot(epochs, [epoch.accuracy for epoch in curve])
    accuracies.set(xlabel="epoch", ylabel="validation accuracy")
    figure.savefig(path)
    return True
