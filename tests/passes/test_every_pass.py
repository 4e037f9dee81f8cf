"""What holds for each pass, whichever there are: its form, its docstring, its switch, its text before and after."""

import importlib
import inspect
import pkgutil
import re
from dataclasses import is_dataclass
from pathlib import Path

import pytest

import graphopt
from graphopt import passes
from graphopt.bench.passes import PASSES
from graphopt.errors import OptionError
from graphopt.passes.pipelines import KERNELS, LAST, LOOPS, STANDARD
from graphopt.rewrite.passes import Pass

NUMBER, TYPE, OPERAND = "<number>", "<type>", "<operand>"
TESTS = Path(__file__).parents[1]
GOLDEN = TESTS / "golden"


def found() -> dict[str, type]:
    """The passes of all modules, by their names: over graphs, and over the loops of kernels."""
    classes = {}
    for info in pkgutil.iter_modules(passes.__path__):
        module = importlib.import_module(f"graphopt.passes.{info.name}")
        own = [c for c in vars(module).values() if isinstance(c, type) and c.__module__ == module.__name__]
        steps = [c for c in own if isinstance(getattr(c, "name", None), str) and hasattr(c, "run")]
        assert len(steps) <= 1, f"{info.name} has several passes"
        classes.update({step.name: step for step in steps})
    return classes


FOUND = found()


def test_all_are_known_by_name() -> None:
    assert {*(step.name for step in STANDARD), *KERNELS, *LAST, *LOOPS, "rematerialize"} == set(FOUND)
    assert {name for name, step in FOUND.items() if not issubclass(step, Pass)} == set(LOOPS)


@pytest.mark.parametrize("name", FOUND)
def test_it_is_a_frozen_dataclass(name: str) -> None:
    step = FOUND[name]
    assert is_dataclass(step) and step.__dataclass_params__.frozen  # type: ignore[attr-defined]
    assert step.__doc__ and step.run.__doc__ and not step.__doc__.startswith(f"{step.__name__}(")


@pytest.mark.parametrize("name", FOUND)
def test_it_can_be_left_out(name: str) -> None:
    if name == "rematerialize":
        return  # it runs where there is a memory limit
    assert graphopt.jit(lambda x: x + 1, without=(name,))(1) == 2


def test_names_of_no_pass_are_refused() -> None:
    with pytest.raises(OptionError, match="no pass is called 'chunks'; known: inline, "):
        graphopt.jit(lambda x: x, without=("chunks",))
    with pytest.raises(OptionError, match=r"write \('chunk',\)"):
        graphopt.jit(lambda x: x, without="chunk")


def goldens(name: str) -> list[str]:
    """The texts before and after a pass."""
    pattern = f"{name.replace(' ', '-')}-*.txt"
    return [file.read_text() for folder in (GOLDEN, GOLDEN / "kernels") for file in sorted(folder.glob(pattern))]


@pytest.mark.parametrize("name", FOUND)
def test_texts_show_what_it_does(name: str) -> None:
    assert any("\n# after" in text and "\n# after, unchanged" not in text for text in goldens(name))


def without_numbers(line: str) -> str:
    """A line of a graph or a loop program without what differs between one like it and another."""
    line = re.sub(r", at least \d+ at a time", "", line.strip()).replace('"', "'")
    line = re.sub(r"<&\d+ ShapedArray>|\b(bool|b?[iuf]\d+)\b(\[[\d,]*\](\{[^}]*\})?~?)?", TYPE, line)
    line = re.sub(rf"-?[\d.]+:{TYPE}|%\w+|\b[axv]\d+(r\d+)?(t\d+)?\b", OPERAND, line)
    return re.sub(r"\d+", NUMBER, line)


def shown(lines: list[str]) -> list[re.Pattern[str]]:
    """What must be found of a graph as a docstring shows it: its lines, whatever the numbers in them.

    `...` stands for anything; a line of it alone for any lines. What stands behind four spaces is a remark.
    """
    patterns = []
    for line in lines:
        text = re.split(r"(?<=\S) {4,}", line)[0].strip()
        if text not in ("...", "…", "", "}") and not text.startswith(("graph @", "return")):
            patterns.append(re.compile(".*".join(map(re.escape, re.split(r"(?:, )?\.\.\.", without_numbers(text))))))
    return patterns


@pytest.mark.parametrize("name", FOUND)
def test_the_docstring_shows_what_a_text_has(name: str) -> None:
    """Each line of the graphs before and after is one of the graphs in the texts of the pass."""
    doc = inspect.getmodule(FOUND[name]).__doc__ or ""
    parts = re.fullmatch(r".*?\nBefore\b[^\n]*:\n(.*)\nAfter\b[^\n]*:\n(.*?)(\n\n.*)?", doc + "\n", re.DOTALL)
    assert parts is not None, "its docstring has no graph before and after"
    pairs = [text.partition("\n# after")[::2] for text in goldens(name)]
    for number, part in enumerate(parts.groups()[:2]):
        lines = {without_numbers(line) for pair in pairs for line in pair[number].splitlines()}
        for pattern in shown(part.splitlines()):
            assert any(pattern.fullmatch(line) for line in lines), pattern.pattern


@pytest.mark.parametrize("name", FOUND)
def test_random_programs_are_tried(name: str) -> None:
    """There are tests of drawn programs beside those of chosen ones."""
    step = FOUND[name]
    used = re.compile(rf"from {re.escape(step.__module__)} import [^\n]*\b{step.__name__}\b")
    folders = [TESTS / folder for folder in ("passes", "fuzz", "analysis", "rules")]
    texts = [file.read_text() for folder in folders for file in folder.glob("*.py")]
    assert any(used.search(text) and "@given(" in text for text in texts)


def test_each_is_measured() -> None:
    """What it gains is in the suite `passes`, or `limited` for what a memory limit asks for."""
    assert set(PASSES) == set(FOUND) - {"rematerialize"}
