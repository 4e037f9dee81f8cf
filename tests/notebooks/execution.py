"""Notebooks, each run in a kernel of its own. `python tests/notebooks/execution.py` stores in them what they show."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import jax
import nbformat
from nbclient import NotebookClient

NOTEBOOKS = sorted((Path(__file__).parents[2] / "notebooks").glob("*.ipynb"))
KERNEL = "python-of-the-tests"

VARIES = "varies"
"""The tag of a cell that shows something else in each run, such as times."""

DEPENDS_ON_JAX = "depends-on-jax"
"""The tag of a cell that shows something else with another JAX. Notebooks store with which one they were run."""


def execute(path: Path, folder: Path) -> Any:
    """The notebook as run by this Python with this graphopt, on the CPU; `folder`, which is empty, is where it works.

    Raises nbclient's CellExecutionError if a cell raises.
    """
    kernels = folder / "kernels"
    (kernels / KERNEL).mkdir(parents=True)
    command = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    kernel = {"argv": command, "display_name": KERNEL, "language": "python"}
    (kernels / KERNEL / "kernel.json").write_text(json.dumps(kernel))
    # As a reader runs it: none of the settings that the tests make for themselves.
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("GRAPHOPT_", "JAX_", "XLA_"))
    }
    environment |= {
        "IPYTHONDIR": str(folder / "ipython"),
        "JAX_PLATFORMS": "cpu",
        "PYTHONPATH": os.pathsep.join(map(os.path.abspath, filter(None, sys.path))),
    }
    notebook = nbformat.read(path, as_version=4)
    client = NotebookClient(
        notebook, timeout=300, kernel_name=KERNEL, record_timing=False, resources={"metadata": {"path": str(folder)}}
    )
    client.create_kernel_manager().kernel_spec_manager.kernel_dirs = [str(kernels)]
    client.execute(env=environment)
    return notebook


def store(path: Path) -> None:
    """Runs a notebook and writes it back with its outputs, and with nothing that tells where it was run."""
    with tempfile.TemporaryDirectory() as folder:
        notebook = execute(path, Path(folder))
    for cell in notebook.cells:
        cell.metadata = {name: value for name, value in cell.metadata.items() if name == "tags"}
    notebook.metadata = {
        "jax": jax.__version__,
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    nbformat.write(notebook, path)


def shown(cell: Any) -> list[str]:
    """What a code cell shows as text: what it prints, one text a stream, then its results (of pictures a stand-in)."""
    streams: dict[str, str] = {}
    results = []
    for output in cell.outputs:
        if output.output_type == "stream":  # it may come in several pieces
            streams[output.name] = streams.get(output.name, "") + output.text
        else:
            results.append(f"{output.output_type}: {output.data['text/plain']}")
    return [*(f"{name}: {text}" for name, text in sorted(streams.items())), *results]


def differences(stored: Any, fresh: Any) -> list[str]:
    """For each code cell that does not show what is stored, a text that says so; those that may differ are left out."""
    left_out = {VARIES}
    if stored.metadata["jax"].split(".")[:2] != jax.__version__.split(".")[:2]:
        left_out.add(DEPENDS_ON_JAX)
    return [
        f"{old.source}\n--- stored ---\n{chr(10).join(shown(old))}\n--- shown ---\n{chr(10).join(shown(new))}"
        for old, new in zip(stored.cells, fresh.cells, strict=True)
        if old.cell_type == "code" and not left_out & set(old.metadata.get("tags", ())) and shown(old) != shown(new)
    ]


if __name__ == "__main__":
    for path in NOTEBOOKS:
        store(path)
