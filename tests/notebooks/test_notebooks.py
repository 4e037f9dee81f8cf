"""Notebooks run without an error, and show what is stored in them."""

# ruff: noqa: E402 (what an extra brings is imported after it was looked for)

import json
import platform
import re
import sys
from pathlib import Path
from typing import Any

import jax
import pytest

for module in ("nbformat", "nbclient", "ipykernel", "matplotlib"):
    pytest.importorskip(module, reason=f"running the notebooks needs {module}: pip install '.[test]'")

import nbformat
from nbclient.exceptions import CellExecutionError

import graphopt

from .execution import DEPENDS_ON_JAX, NOTEBOOKS, VARIES, differences, execute, shown, store

each_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
STORE = "if this is meant: python tests/notebooks/execution.py"


def test_there_are_notebooks() -> None:
    assert NOTEBOOKS


@each_notebook
def test_a_notebook_shows_what_it_stores(path: Path, tmp_path: Path) -> None:
    found = differences(nbformat.read(path, as_version=4), execute(path, tmp_path))
    assert not found, "\n\n".join([*found, STORE])


@each_notebook
def test_a_notebook_is_stored_as_it_was_run_from_top_to_bottom(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1)), STORE
    for cell in cells:
        assert not [text for text in shown(cell) if text.startswith("stderr")]


@each_notebook
def test_a_notebook_does_not_tell_where_it_was_run(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    assert set(notebook.metadata) == {"jax", "kernelspec", "language_info"}
    assert notebook.metadata.kernelspec == {"display_name": "Python 3", "language": "python", "name": "python3"}
    assert notebook.metadata.language_info == {"name": "python"}
    for cell in notebook.cells:
        assert set(cell.metadata) <= {"tags"}
        assert set(cell.metadata.get("tags", ())) <= {VARIES, DEPENDS_ON_JAX}
        for text in shown(cell) if cell.cell_type == "code" else ():
            assert not re.search(r"(?<![\w.])/\w+/", text), "an absolute path"
            assert platform.node() not in text
    assert not re.search(r"^/|[\"' ]/(?:home|root|tmp|usr|opt|Users)/", path.read_text(), re.MULTILINE)


def small(folder: Path, *sources: str) -> Path:
    """A notebook of these code cells, in a file."""
    path = folder / "small.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in sources]), path)
    return path


def test_a_notebook_runs_with_this_graphopt_in_a_folder_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GRAPHOPT_CHECK", "1")
    monkeypatch.setenv("JAX_ENABLE_X64", "1")
    path = small(
        tmp_path,
        "import json, os, sys, graphopt, jax",
        "settings = [name for name in os.environ if name.startswith(('GRAPHOPT', 'JAX'))]",
        "print(json.dumps([sys.executable, graphopt.__file__, os.getcwd(), settings, jax.default_backend()]))",
    )
    folder = tmp_path / "work"
    folder.mkdir()
    (text,) = shown(execute(path, folder).cells[-1])
    python, package, place, settings, backend = json.loads(text.removeprefix("stdout: "))
    assert Path(python).samefile(sys.executable)
    assert package == graphopt.__file__
    assert Path(place).samefile(folder)
    assert (settings, backend) == (["JAX_PLATFORMS"], "cpu")


def test_an_error_in_a_cell_is_an_error(tmp_path: Path) -> None:
    path = small(tmp_path, "1 + 1", "1 / 0")
    folder = tmp_path / "work"
    folder.mkdir()
    with pytest.raises(CellExecutionError, match="ZeroDivisionError"):
        execute(path, folder)


def test_what_is_stored_is_what_a_run_shows(tmp_path: Path) -> None:
    path = small(tmp_path, "import sys\nprint('a')\nprint('b', file=sys.stderr)\nprint('c')\n6 * 7", "pass")
    before = nbformat.read(path, as_version=4)
    store(path)
    stored = nbformat.read(path, as_version=4)
    assert shown(stored.cells[0]) == ["stderr: b\n", "stdout: a\nc\n", "execute_result: 42"]
    assert shown(stored.cells[1]) == []
    assert (stored.metadata.jax, stored.cells[1].execution_count) == (jax.__version__, 2)
    (difference,) = differences(stored, before)
    assert "42" in difference


def output(text: str) -> Any:
    return nbformat.v4.new_output("stream", name="stdout", text=text)


def test_cells_that_may_differ_are_left_out() -> None:
    def notebook(text: str) -> Any:
        cells = [nbformat.v4.new_code_cell(f"cell {i}", outputs=[output(text)]) for i in range(3)]
        cells[1].metadata["tags"] = [VARIES]
        cells[2].metadata["tags"] = [DEPENDS_ON_JAX]
        return nbformat.v4.new_notebook(cells=cells, metadata={"jax": jax.__version__})

    def differing(stored: Any) -> list[str]:
        return [text.split("\n")[0] for text in differences(stored, notebook("shown"))]

    stored = notebook("stored")
    assert differing(stored) == ["cell 0", "cell 2"]
    stored.metadata.jax = "0.9.1"
    assert differing(stored) == ["cell 0"]
    assert differing(notebook("shown")) == []


def test_pieces_of_a_stream_are_one_text() -> None:
    cell = nbformat.v4.new_code_cell("x", outputs=[output("a"), output("b")])
    assert shown(cell) == ["stdout: ab"]
