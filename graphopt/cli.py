"""The command line: `graphopt demo`, `graphopt --version`."""

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
    commands.add_parser(
        "demo", add_help=False, help="train, serve and process images on real data, next to jax.jit (graphopt demo --help)"
    )
    arguments, rest = parser.parse_known_args(sys.argv[1:] if argv is None else argv)
    assert arguments.command == "demo"
    # Only the command that is run is imported: scikit-learn takes a second.
    from graphopt.demo.run import main as demo

    return demo(rest)
