"""What is built from the checkout is all of it: the wheel, the sdist, and the wheel from the sdist."""

import ast
import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import pytest

CHECKOUT = Path(__file__).resolve().parents[1]
DISTRIBUTIONS = {"PIL": "pillow", "sklearn": "scikit-learn"}  # of the modules that are not called as they are
PROJECT: dict[str, Any] = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]


def build(what: str, source: Path, target: Path) -> Path:
    """Build a wheel or an sdist with the build backend itself, which needs no network and leaves nothing installed."""
    target.mkdir()
    script = f"import setuptools.build_meta as backend; print(backend.build_{what}({str(target)!r}))"
    subprocess.run([sys.executable, "-c", script], cwd=source, check=True)
    (built,) = target.iterdir()
    return built


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what the build reads, so that the checkout stays as it is."""
    copy = tmp_path_factory.mktemp("source")
    for name in ("graphopt", "passes", "backends"):
        shutil.copytree(CHECKOUT / name, copy / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(CHECKOUT / name, copy)
    return copy


@pytest.fixture(scope="module")
def wheel(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build("wheel", source, tmp_path_factory.mktemp("wheel") / "dist")


@pytest.fixture(scope="module")
def sdist(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build("sdist", source, tmp_path_factory.mktemp("sdist") / "dist")


def contents(wheel: Path) -> dict[str, bytes]:
    """The files of the package in a wheel, without the metadata."""
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist() if ".dist-info/" not in name}


def package_files() -> dict[str, bytes]:
    """The files of the package in the checkout; the links to passes and backends are followed."""
    return {
        str((Path(folder) / name).relative_to(CHECKOUT)): (Path(folder) / name).read_bytes()
        for folder, _, names in os.walk(CHECKOUT / "graphopt", followlinks=True)
        for name in names
        if not name.endswith(".pyc")
    }


def test_the_wheel_has_every_file_of_the_package(wheel: Path) -> None:
    assert contents(wheel) == package_files()
    assert "graphopt/py.typed" in contents(wheel)


def test_the_sdist_builds_the_same_wheel(sdist: Path, wheel: Path, tmp_path: Path) -> None:
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path, filter="data")
    (unpacked,) = tmp_path.iterdir()
    assert contents(build("wheel", unpacked, tmp_path / "dist")) == contents(wheel)


def test_the_wheel_says_what_it_is(wheel: Path) -> None:
    (metadata,) = importlib.metadata.distributions(path=[str(wheel)])
    assert (metadata.name, metadata.version) == (PROJECT["name"], PROJECT["version"])
    assert metadata.metadata["License-Expression"] == "Apache-2.0"
    assert "Apache License" in str(metadata.read_text("licenses/LICENSE"))
    (script,) = metadata.entry_points
    assert callable(script.load())


def test_the_changelog_speaks_of_this_version() -> None:
    assert f"## [{PROJECT['version']}]" in (CHECKOUT / "CHANGELOG.md").read_text()


@pytest.mark.parametrize("name", ["passes", "backends"])
def test_the_links_are_relative(name: str) -> None:
    """They stay right wherever the checkout lies."""
    assert os.readlink(CHECKOUT / "graphopt" / name) == f"../{name}"


def third_party_imports(module: Path) -> set[str]:
    """The distributions that a module imports."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(module.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module.partition(".")[0])
    return {DISTRIBUTIONS.get(name, name) for name in names - sys.stdlib_module_names - {"graphopt"}}


def declared(requirements: list[str]) -> set[str]:
    return {re.split(r"[^\w.-]", requirement)[0] for requirement in requirements}


@pytest.mark.parametrize("module", sorted(name for name in package_files() if name.endswith(".py")))
def test_what_is_imported_is_declared(module: str) -> None:
    extras = PROJECT["optional-dependencies"]
    allowed = declared(PROJECT["dependencies"])
    if module.startswith("graphopt/bench/"):
        allowed |= declared(extras["bench"])
    if module.startswith("graphopt/demo/"):
        allowed |= declared(extras["demo"]) | declared(extras["notebooks"])
    assert third_party_imports(CHECKOUT / module) - allowed == set()
