"""What became of a kernel: which of its inner loops LLVM has made vector code of, and how wide."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass

from graphopt.backends.numba.engine import plan_by_key

LOOP = re.compile(r"( *)for (\w+) in range\((.*)\):")


@dataclass(frozen=True, slots=True)
class InnerLoop:
    """A loop without loops inside. name: its variable. line: in the kernel's source, from 1. over: its range.

    lanes: elements in the widest vectors that its statements compute with; 1 where it is not vectorized.
    """

    name: str
    line: int
    over: str
    lanes: int

    def __str__(self) -> str:
        return f"{self.name} in range({self.over}): " + (f"vectors of {self.lanes}" if self.lanes > 1 else "no vectors")


def inner_loops(key: int) -> tuple[InnerLoop, ...]:
    """The inner loops of a planned kernel, in order. It is compiled again for this, with the lines of its source."""
    source = plan_by_key(key).source
    lanes = _lanes(source)
    return tuple(
        InnerLoop(name, first, over, max([1, *(lanes.get(line, 1) for line in range(first + 1, last + 1))]))
        for name, over, first, last in _ranges(source.splitlines())
    )


def _ranges(lines: list[str]) -> Iterator[tuple[str, str, int, int]]:
    """Variable, range, first and last line of each loop without loops inside."""
    for number, text in enumerate(lines, start=1):
        if (found := LOOP.match(text)) is None:
            continue
        indent, last = len(found[1]), number
        while last < len(lines) and len(lines[last]) - len(lines[last].lstrip()) > indent:
            last += 1
        if not any(LOOP.match(inner) for inner in lines[number:last]):
            yield found[2], found[3], number, last


def _lanes(source: str) -> dict[int, int]:
    """By line of the source: elements in the widest vector of an instruction that comes from it."""
    from graphopt.backends.numba.compiling import text_of
    from graphopt.backends.numba.names import function_of

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Numba says that it finds no file with this source
        text = text_of(function_of(source), debug=True)
    places = dict(re.findall(r"^(!\d+) = (?:distinct )?!DILocation\(line: (\d+)", text, re.MULTILINE))
    widest: dict[int, int] = {}
    for instruction in text.splitlines():
        place = re.search(r"!dbg (!\d+)", instruction)
        if place is None or place[1] not in places:
            continue
        for count in re.findall(r"<(\d+) x (?:float|double|half|bfloat|i\d+)>", instruction):
            line = int(places[place[1]])
            widest[line] = max(widest.get(line, 1), int(count))
    return widest
