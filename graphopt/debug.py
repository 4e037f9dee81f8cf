"""What GRAPHOPT_DEBUG prints of each compilation, to standard error.

1: the time and the node counts of each pass. 2: also how each pass changed the graph, as a difference of its text.
3: also each rule that fired, with the file and line where it is written and those of the user's code. 4: also the
program as it is lowered.
"""

from __future__ import annotations

import difflib
import io
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from jax.extend.core import ClosedJaxpr
from rich.console import Console
from rich.syntax import Syntax

from graphopt.rewrite.driver import Firing
from graphopt.rewrite.passes import PassRecord

try:
    from graphopt.jax_internals.tracing import user_line
except ImportError:  # a JAX that was not tried: without lines

    def user_line(source_info: Any) -> str:
        """Not known without JAX's internals."""
        return ""


def user_lines(infos: Iterable[Any]) -> tuple[str, ...]:
    """The user's lines that JAX's source information names: `file:line:column (function)`, each once."""
    return tuple(dict.fromkeys(line for line in map(user_line, infos) if line))


def show(name: str, records: Sequence[PassRecord], lowered: ClosedJaxpr, level: int) -> None:
    """Prints what passes did to the program `name`, as much as `level` asks for."""
    # Made whole before it is printed: two threads may compile at once.
    console = Console(file=io.StringIO(), force_terminal=sys.stderr.isatty(), width=160, soft_wrap=True)
    total = sum(record.seconds for record in records)
    console.print(f"[bold]graphopt[/] {name}: passes took {total * 1e3:.2f} ms", highlight=False)
    for record in records:
        counts = f"{record.nodes_before} → {record.nodes_after} nodes"
        console.print(f"  {record.name}: {counts}, {record.seconds * 1e3:.2f} ms", highlight=False)
        for note in record.notes:
            console.print(f"    {note}", markup=False, highlight=False)
        if level >= 3:
            for firing in record.firings:
                console.print(f"    {fired(firing)}", markup=False, highlight=False)
        if level >= 2 and (changed := "\n".join(difference(record))):
            console.print(Syntax(changed, "diff", background_color="default"))
    if level >= 4:
        console.print(str(lowered), markup=False, highlight=False)
    assert isinstance(console.file, io.StringIO)
    sys.stderr.write(console.file.getvalue())


def difference(record: PassRecord) -> Iterator[str]:
    """How a pass changed the text of a graph: lines that it took away and lines that it put there."""
    before, after = str(record.before).splitlines(), str(record.after).splitlines()
    return difflib.unified_diff(before, after, f"before {record.name}", f"after {record.name}", lineterm="", n=1)


def fired(firing: Firing) -> str:
    """One line on one firing of a rule."""
    rule, lines = firing.rule, user_lines(firing.infos)
    at = f" at {'; '.join(lines)}" if lines else ""
    return f"{rule.name} ({rule.file}:{rule.line}): {firing.old!r} → {firing.new!r}{at}"
