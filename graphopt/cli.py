"""The command line: `graphopt demo`, `graphopt bench`, `graphopt calibrate`, `graphopt --version`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

import graphopt


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; returns the exit status."""
    parser = argparse.ArgumentParser(prog="graphopt", description="A graph optimizer and JIT compiler for JAX.")
    parser.add_argument("--version", action="version", version=f"graphopt {graphopt.__version__}")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("demo", add_help=False, help="train, serve and process images on real data, next to jax.jit")
    commands.add_parser("bench", add_help=False, help="measure graphopt against jax.jit")
    commands.add_parser("calibrate", add_help=False, help="measure this machine, for the choice of engines")
    arguments, rest = parser.parse_known_args(sys.argv[1:] if argv is None else argv)
    # Only the command that is run is imported: scikit-learn takes a second.
    if arguments.command == "demo":
        from graphopt.demo.run import main as run
    elif arguments.command == "calibrate":
        from graphopt.calibrate import main as run
    else:
        from graphopt.bench.run import main as run
    return run(rest)
