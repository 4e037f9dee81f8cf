"""Imports go one way, from the interface down to the graph; JAX's internals and Numba each stay in one place."""

import ast
import itertools
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

import networkx as nx
import pytest

CHECKOUT = Path(__file__).resolve().parents[1]

# Lowest first. A module imports from its own level and from those below it. Imports for type checkers only and those
# inside functions count too.
LEVELS = (
    ("advice", "config", "errors", "jax_internals", "lock", "store"),
    ("ir",),
    ("ops",),
    ("rewrite", "analysis"),
    ("trace", "passes"),
    ("backends",),
    ("debug", "drawing"),
    ("compile", "plan"),
    ("bind",),
    ("explain", "shrink", "verify"),
    ("choices", "tune"),
    ("traceable",),
    ("jitted",),
    ("api",),
    ("graphopt",),  # what a user imports: graphopt/__init__.py
    ("bench", "calibrate", "demo"),
    ("cli",),
    ("__main__",),
)
LEVEL_OF = {unit: level for level, units in enumerate(LEVELS) for unit in units}

Sources = Mapping[str, str]  # module name to text


def package_sources() -> dict[str, str]:
    """The modules of graphopt, with graphopt.passes and graphopt.backends, which are links."""
    return sources_below(CHECKOUT / "graphopt", "graphopt")


def sources_below(folder: Path, package: str) -> dict[str, str]:
    found = {}
    for place, _, names in os.walk(folder, followlinks=True):
        for name in names:
            if name.endswith(".py"):
                parts = (Path(place) / name).relative_to(folder).with_suffix("").parts
                module = ".".join([package, *parts]).removesuffix(".__init__")
                found[module] = (Path(place) / name).read_text()
    return found


def unit_of(module: str) -> str:
    """`graphopt.ir.node` belongs to `ir`, graphopt/__init__.py to `graphopt`."""
    return module.split(".")[1] if "." in module else module


def imports(module: str, sources: Sources) -> Iterator[tuple[int, str]]:
    """Each import in a module, as the line and the full name; `from a import b` is the module a.b if there is one."""
    is_package = any(other.startswith(module + ".") for other in sources)
    for node in ast.walk(ast.parse(sources[module])):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parts = module.split(".")
                base = ".".join(parts[: len(parts) - node.level + is_package] + ([base] if base else []))
            for alias in node.names:
                yield node.lineno, f"{base}.{alias.name}"
        elif isinstance(node, ast.Attribute) and ast.unparse(node) == "jax._src":
            yield node.lineno, "jax._src"


def module_named(name: str, sources: Sources) -> str | None:
    """The module of ours that an import names: itself, or the one that has the imported object; None for others'."""
    for candidate in (name, name.rpartition(".")[0]):
        if candidate in sources:
            return candidate
    return None


def within(name: str, package: str) -> bool:
    return name == package or name.startswith(package + ".")


def violations(sources: Sources) -> list[str]:
    found = []
    for module in sources:
        unit = unit_of(module)
        if unit not in LEVEL_OF:
            found.append(f"{module}: `{unit}` has no level; give it one in LEVELS")
            continue
        for line, name in imports(module, sources):
            where = f"{module}:{line} imports {name}"
            target = module_named(name, sources)
            if target is not None and LEVEL_OF.get(unit_of(target), 0) > LEVEL_OF[unit]:
                found.append(f"{where}, which is above it")
            if within(name, "jax._src") and not within(module, "graphopt.jax_internals"):
                found.append(f"{where}; only graphopt.jax_internals may")
            if within(name, "numba") and not within(module, "graphopt.backends.numba"):
                found.append(f"{where}; only graphopt.backends.numba may")
            if within(name, "passes") or within(name, "backends"):
                found.append(f"{where}; it is graphopt.{name}")
    return found + cycles(sources)


def cycles(sources: Sources) -> list[str]:
    """Cycles between modules, and between the units of one level."""
    modules: nx.DiGraph = nx.DiGraph()
    for module in sources:
        for _, name in imports(module, sources):
            target = module_named(name, sources)
            if target is not None and target != module:
                modules.add_edge(module, target)
    units = nx.DiGraph((unit_of(a), unit_of(b)) for a, b in modules.edges if unit_of(a) != unit_of(b))
    loops = itertools.islice(itertools.chain(nx.simple_cycles(modules), nx.simple_cycles(units)), 10)
    return [f"a cycle: {' -> '.join([*loop, loop[0]])}" for loop in loops]


def test_imports_go_one_way() -> None:
    assert violations(package_sources()) == []


def test_each_level_names_what_exists() -> None:
    units = {unit_of(module) for module in package_sources()}
    assert sorted(LEVEL_OF) == sorted(units)


def test_tests_take_only_the_primitive_cases_from_the_internals_of_jax() -> None:
    sources = sources_below(CHECKOUT / "tests", "tests")
    names = {name for module in sources for _, name in imports(module, sources) if within(name, "jax._src")}
    assert {name for name in names if not within(name, "jax._src.internal_test_util")} == set()


BASE = {"graphopt": "", "graphopt.ir": "", "graphopt.ir.node": "", "graphopt.ir.graph": "", "graphopt.ops": ""}
BASE |= {
    "graphopt.errors": "",
    "graphopt.api": "",
    "graphopt.rewrite": "",
    "graphopt.analysis": "",
    "graphopt.passes": "",
}


@pytest.mark.parametrize(
    ("module", "text", "message"),
    [
        ("graphopt.ir.node", "from graphopt.ops import ADD", "which is above it"),
        ("graphopt.ir.node", "from graphopt import ops", "which is above it"),
        ("graphopt.ir.node", "import graphopt.ops as o", "which is above it"),
        ("graphopt.ir.node", "from ..ops import ADD", "which is above it"),
        ("graphopt.ir.node", "def f():\n    from graphopt.api import jit", "which is above it"),
        ("graphopt.ir.node", "if TYPE_CHECKING:\n    from graphopt.api import jit", "which is above it"),
        ("graphopt.ir", "from ..ops import ADD", "which is above it"),
        ("graphopt.ops", "import graphopt", "which is above it"),
        ("graphopt.ops", "from jax._src import core", "only graphopt.jax_internals may"),
        ("graphopt.ops", "from jax import _src", "only graphopt.jax_internals may"),
        ("graphopt.ops", "import jax\ncore = jax._src.core", "only graphopt.jax_internals may"),
        ("graphopt.ops", "import numba", "only graphopt.backends.numba may"),
        ("graphopt.ops", "from numba.core import types", "only graphopt.backends.numba may"),
        ("graphopt.api", "from passes import fold", "it is graphopt.passes"),
        ("graphopt.api", "import backends.xla", "it is graphopt.backends"),
        ("graphopt.helpers", "", "has no level"),
    ],
)
def test_a_wrong_import_is_noticed(module: str, text: str, message: str) -> None:
    assert violations(BASE) == []
    assert any(message in violation for violation in violations({**BASE, module: text}))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"graphopt.ir.node": "from graphopt.ir.graph import Graph"}, {"graphopt.ir.graph": "from .node import Node"}),
        ({"graphopt.ir": "from .node import Node"}, {"graphopt.ir.node": "from graphopt.ir import Node"}),
        ({"graphopt.rewrite": "import graphopt.analysis.cost"}, {"graphopt.analysis": "import graphopt.rewrite"}),
        (
            {"graphopt.rewrite.rule": "import graphopt.analysis"},
            {"graphopt.analysis.cost": "import graphopt.rewrite"},
        ),
    ],
)
def test_a_cycle_is_noticed(one: dict[str, str], other: dict[str, str]) -> None:
    sources = {**BASE, "graphopt.analysis.cost": ""}
    assert violations(sources | one) == violations(sources | other) == []
    assert any("a cycle" in violation for violation in violations(sources | one | other))


@pytest.mark.parametrize(
    ("module", "text"),
    [
        ("graphopt.ops", "from graphopt.ir.node import Node\nfrom graphopt.ir import graph\nimport numpy, jax"),
        ("graphopt.rewrite", "from ..analysis import cost"),
        ("graphopt.jax_internals", "from jax._src import core"),
        ("graphopt.backends.numba.emit", "import numba"),
        ("graphopt.api", "from graphopt.passes import pipelines\nfrom graphopt import errors"),
        ("graphopt.demo", "from graphopt import jit"),
    ],
)
def test_a_right_import_is_let_be(module: str, text: str) -> None:
    assert violations({**BASE, module: text}) == []
