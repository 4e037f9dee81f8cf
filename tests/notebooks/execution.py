"""Runs notebooks, each in a kernel of its own. As a program it stores what they print: python tests/notebooks/execution.py"""

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
"""The tag of a cell whose output is another one in each run: times."""
DEPENDS_ON_JAX = "depends-on-jax"
"""The tag of a cell whose output is another one with another JAX; the notebook's metadata name the JAX that it was run with."""


def execute(path: Path, folder: Path) -> Any:
    """The notebook, executed by this Python with the graphopt that is imported here; `folder` is its working directory.

    Raises nbclient's CellExecutionError where a cell raises.
    """
    kernels = folder / "jupyter" / "kernels" / KERNEL
    kernels.mkdir(parents=True)
    command = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    (kernels / "kernel.json").write_text(json.dumps({"argv": command, "display_name": KERNEL, "language": "python"}))
    # As a reader runs it: without the settings that the tests make for themselves. On the CPU, as what is stored.
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("GRAPHOPT_", "JAX_", "XLA_"))
    }
    environment |= {
        "IPYTHONDIR": str(folder / "ipython"),
        "JAX_PLATFORMS": "cpu",
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
    }
    notebook = nbformat.read(path, as_version=4)
    resources = {"metadata": {"path": str(folder)}}
    client = NotebookClient(notebook, timeout=300, kernel_name=KERNEL, resources=resources, record_timing=False)
    client.km = client.create_kernel_manager()
    client.km.kernel_spec_manager.kernel_dirs = [str(kernels.parent)]
    client.execute(env=environment)
    return notebook


def printed(cell: Any) -> list[str]:
    """What a cell shows as text: what it prints to each stream, then its results and the text that stands for pictures."""
    streams: dict[str, str] = {}
    shown = []
    for output in cell.outputs:
        if output.output_type == "stream":
            streams[output.name] = streams.get(output.name, "") + output.text
        else:
            shown.append(f"{output.output_type}: {output.data['text/plain']}")
    return [*(f"{name}: {text}" for name, text in sorted(streams.items())), *shown]


def store(path: Path) -> None:
    """Executes a notebook and writes it back with its outputs, and with nothing that tells where it was run."""
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


if __name__ == "__main__":
    for name in NOTEBOOKS:
        store(name)
