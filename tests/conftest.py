"""What all tests share: which graphopt is tested, one seed, and counts printed at the end."""

import collections
import importlib.util
import os
import platform
import secrets
import tempfile
from collections.abc import Callable
from pathlib import Path

import hypothesis
import jax
import pytest

CHECKOUT = Path(__file__).resolve().parents[1]

# Compiling takes the time of an example, on a machine that may be busy: no deadlines.
# The same examples every time, so that a change and nothing else turns a test; GRAPHOPT_TEST_RANDOM=1 draws new ones.
hypothesis.settings.register_profile(
    "graphopt", deadline=None, print_blob=True, derandomize="GRAPHOPT_TEST_RANDOM" not in os.environ
)
hypothesis.settings.load_profile("graphopt")


def pytest_configure(config: pytest.Config) -> None:
    refuse_a_stale_installation()
    os.environ.setdefault("GRAPHOPT_CHECK", "1")  # check each graph after each pass
    # Drawn here, before pytest-xdist starts its workers: they inherit it and so collect the same tests.
    # Code that an earlier run has kept must not stand in for what this one is to compile. Processes share it.
    os.environ.setdefault("GRAPHOPT_TEST_CACHE", tempfile.mkdtemp(prefix="graphopt-cache-"))
    os.environ["XDG_CACHE_HOME"] = os.environ["GRAPHOPT_TEST_CACHE"]
    os.environ.setdefault("GRAPHOPT_TEST_SEED", str(secrets.randbelow(2**32)))


def pytest_report_header(config: pytest.Config) -> list[str]:
    return [
        f"graphopt: {package_folder()}",
        f"jax {jax.__version__}, Python {platform.python_version()}",
        f"seed: GRAPHOPT_TEST_SEED={os.environ['GRAPHOPT_TEST_SEED']}",
    ]


def package_folder() -> Path:
    """The folder of the graphopt that `import graphopt` finds, without importing it."""
    spec = importlib.util.find_spec("graphopt")
    if spec is None or not spec.submodule_search_locations:
        raise pytest.UsageError("graphopt is not installed; run: pip install '.[test]'")
    return Path(spec.submodule_search_locations[0])


def refuse_a_stale_installation() -> None:
    """Tests speak of the checkout they lie in: an installed copy must have the same text."""
    installed, checkout = package_folder(), CHECKOUT / "graphopt"
    if installed == checkout:
        return
    stale = sorted(
        str(name)
        for name in {*sources(installed), *sources(checkout)}
        if not same_text(installed / name, checkout / name)
    )
    if stale:
        raise pytest.UsageError(
            f"the installed graphopt ({installed}) is not the one of this checkout: {', '.join(stale[:5])} differ; "
            "run: rm -rf build && pip install '.[test]'"
        )


def sources(package: Path) -> set[Path]:
    """The Python files of a package, relative to its folder; the links to passes and backends are followed."""
    return {
        (Path(folder) / name).relative_to(package)
        for folder, _, names in os.walk(package, followlinks=True)
        for name in names
        if name.endswith(".py")
    }


def same_text(a: Path, b: Path) -> bool:
    return a.is_file() and b.is_file() and a.read_bytes() == b.read_bytes()


@pytest.fixture
def tally(record_property: Callable[[str, object], None]) -> Callable[[str, str], None]:
    """`tally(subject, outcome)` counts an outcome; the counts of each subject are printed after the run."""
    return lambda subject, outcome: record_property("tally", [subject, outcome])


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    counts: dict[str, collections.Counter[str]] = collections.defaultdict(collections.Counter)
    for reports in terminalreporter.stats.values():
        for report in reports:
            if isinstance(report, pytest.TestReport) and report.when == "call":
                for name, value in report.user_properties:
                    if name == "tally" and isinstance(value, list):
                        subject, outcome = value
                        counts[subject][outcome] += 1
    if counts:
        terminalreporter.section(f"counts, GRAPHOPT_TEST_SEED={os.environ['GRAPHOPT_TEST_SEED']}")
    for subject, outcomes in counts.items():
        text = ", ".join(f"{count} {outcome}" for outcome, count in outcomes.most_common())
        terminalreporter.line(f"{subject}: {outcomes.total()} = {text}")
