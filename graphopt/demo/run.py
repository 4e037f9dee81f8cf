"""Train a network on digits, serve it, and develop photographs: with graphopt.jit, and with jax.jit to compare."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from rich.console import Console
from rich.markup import escape

import graphopt
from graphopt.demo import digits, network, photograph, save, tables, training
from graphopt.demo.compare import Pair

PACKAGES = {"scikit-learn": "sklearn", "pillow": "PIL", "tqdm": "tqdm"}
REQUIRED_ACCURACY = 0.97
TOLERANCE = 1e-5  # for losses, weights, probabilities and gray levels: float32, of the order of one
BATCH = 64
RATE = np.float32(2e-3)  # an array type: a Python number is another type to jit, and would compile once more
SERVED = (1, 32, 256)


class Effort(NamedTuple):
    """How many epochs to train, and for how many seconds to time each job."""

    epochs: int
    seconds: float


FULL = Effort(epochs=30, seconds=2.0)
QUICK = Effort(epochs=15, seconds=0.2)


def main(argv: Sequence[str]) -> int:
    """Run the demo with the options in `argv`. Return 0 if accuracy and results are as promised, else 1."""
    parser = argparse.ArgumentParser(prog="graphopt demo", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="train and measure for less time")
    parser.add_argument("--seed", type=int, default=0, help="of the split, the weights and the order (default: 0)")
    parser.add_argument("--save", type=Path, metavar="DIR", help="write the pictures and the training curve to DIR")
    options = parser.parse_args(argv)
    console = Console(highlight=False)
    missing = [package for package, module in PACKAGES.items() if find_spec(module) is None]
    if missing:
        console.print(
            escape(f"The demo needs {', '.join(missing)}. Next: pip install 'graphopt[demo]'"),
            style="red",
            soft_wrap=True,
        )
        return 1
    failures = demonstrate(console, QUICK if options.quick else FULL, options.seed, options.save)
    for failure in failures:
        console.print(failure, style="red", soft_wrap=True)
    return 1 if failures else 0


def demonstrate(console: Console, effort: Effort, seed: int, directory: Path | None) -> list[str]:
    """Do the jobs and print what came out. Return what is not as promised, a sentence for each."""
    step, predict, develop = compiled(training.step), compiled(network.predict), compiled(jax.vmap(photograph.develop))
    data = digits.split(digits.load_digits(), seed)
    photographs = photograph.load_photographs()

    state = training.start(seed)
    batch = next(digits.batches(data.train, BATCH, np.random.default_rng(seed)))
    with console.status("compiling the training step"):
        first_steps = step.first_calls((state, *batch, RATE))
    state, curve = training.train(
        step.ours, predict.ours, state, data, epochs=effort.epochs, batch=BATCH, rate=RATE, seed=seed
    )
    weights = state.parameters
    accuracy = {name: training.accuracy(predict.ours, weights, part) for name, part in data._asdict().items()}
    console.print(tables.accuracies(data, accuracy))
    console.print(tables.served(data.test, predict.ours(weights, data.test.images[:8])))

    # The step is compared after training. Adam's first step moves each weight by the full rate, however small the
    # gradient: where that is almost zero, its rounding alone decides the direction.
    jobs: dict[str, tuple[Pair, tuple[Any, ...]]] = {f"train, batch {BATCH}": (step, (state, *batch, RATE))}
    jobs |= {f"serve, batch {size}": (predict, (weights, data.test.images[:size])) for size in SERVED}
    jobs |= {f"{len(photographs)} photographs": (develop, (photographs,))}
    rows = []
    for name, (pair, args) in jobs.items():
        with console.status(f"timing: {name}"):
            first = first_steps if pair is step else pair.first_calls(args)
            rows.append(tables.Row(name, first, pair.later_calls(args, effort.seconds), pair.difference(args)))
    console.print(tables.times(rows, TOLERANCE))
    # The graph of a network is the same for every batch: one column for each function.
    last = {pair: (name, args) for name, (pair, args) in jobs.items()}
    reports = {name: graphopt.explain(pair.ours)(*args) for pair, (name, args) in last.items()}
    console.print(tables.passes({name: report.passes for name, report in reports.items()}))

    if directory is not None:
        _save(console, directory, develop.ours(photographs), curve)
    return failures(accuracy["test"], rows)


def compiled(function: Callable[..., Any]) -> Pair:
    """Compile a function with graphopt and with JAX."""
    return Pair(function, graphopt.jit(function), jax.jit(function))


def failures(accuracy: float, rows: Sequence[tables.Row]) -> list[str]:
    """Say which promise was not kept: that of the accuracy on the test set, or that of equal results."""
    said = []
    if not accuracy > REQUIRED_ACCURACY:
        said.append(f"The accuracy on the test set is {accuracy:.2%}; it should be above {REQUIRED_ACCURACY:.0%}.")
    for row in rows:
        if not row.difference.largest <= TOLERANCE:
            apart = f"{row.difference.largest:.2g}, more than {TOLERANCE:g}"
            said.append(f"The results of graphopt.jit and jax.jit differ by {apart}, in: {row.job}.")
    return said


def _save(console: Console, directory: Path, pictures: photograph.Pictures, curve: Sequence[training.Epoch]) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    for path in save.save_pictures(pictures, directory):
        console.print(escape(f"saved {path}"), soft_wrap=True)
    chart = directory / "training.png"
    drawn = save.save_curve(curve, chart)
    said = f"saved {chart}" if drawn else "no training curve was drawn, for lack of matplotlib: pip install matplotlib"
    console.print(escape(said), soft_wrap=True)
