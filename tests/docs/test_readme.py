"""README's code is run, and must print what README says that it prints."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
EXAMPLES = re.findall(r"```python\n(.*?)```\n+```text\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)


def test_there_are_three_examples() -> None:
    assert len(EXAMPLES) == 3


@pytest.mark.parametrize(("code", "printed"), EXAMPLES, ids=["ten lines", "a kernel", "a rule"])
def test_an_example_prints_what_the_readme_says(code: str, printed: str, tmp_path: Path) -> None:
    program = tmp_path / "example.py"
    program.write_text(code)
    # As a user runs it: none of the settings that the tests make for themselves.
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("GRAPHOPT_", "JAX_", "XLA_"))
    }
    environment["PYTHONPATH"] = os.pathsep.join(sys.path)
    run = subprocess.run([sys.executable, program], capture_output=True, text=True, env=environment, check=False)
    assert run.returncode == 0, run.stderr
    assert run.stdout == printed


def test_the_two_commands_are_the_ones_that_the_checks_run() -> None:
    commands = re.findall(r"```sh\n(pip .*?)\n```", (ROOT / "README.md").read_text())
    script = (ROOT / ".ci" / "run").read_text()
    assert commands == ["pip install '.[demo]' && graphopt demo", "pip install '.[test]' && pytest"]
    assert re.search(r"^fresh \w+ python3 demo\ngraphopt demo$", script, re.MULTILINE)
    assert re.search(r"^fresh \w+ python3 test\npytest( -n \S+)?$", script, re.MULTILINE)
