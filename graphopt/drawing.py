"""Pictures of plans, as SVG: when each region runs on which cores, and which region waits for which."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape

from graphopt.analysis.parallel import Placed, TaskGraph, makespan
from graphopt.rewrite.passes import counted

WIDTH, MARGIN, LANE, GAP = 900.0, 46.0, 30.0, 26.0
BOX_WIDTH, BOX_HEIGHT, ROW = 176.0, 34.0, 52.0

COLOURS = {"numba": "#9ecae1", "xla": "#d9d9d9"}
CRITICAL, LINE = "#d94801", "#737373"

DRAWN = 48
"""Regions that are drawn at most, those that take the longest."""

LETTER = 6.2
"""Width of a letter, about."""


def drawn_plan(graph: TaskGraph, schedule: Sequence[Placed], cores: int, engines: Sequence[str]) -> str:
    """A picture of a schedule, its cores from top to bottom and its time from left to right, and of who waits for whom.

    engines: of each task. The critical path has the thick frames.
    """
    critical = set(graph.critical_path(cores)[0])
    drawn = {p.task for p in sorted(schedule, key=lambda p: p.start - p.stop)[:DRAWN]}
    boxes = _Boxes.of(graph, drawn)
    timeline = cores * LANE + 2 * GAP
    width = max(WIDTH, MARGIN + boxes.width) + MARGIN
    height = timeline + GAP + boxes.height + GAP
    style = "font-family:sans-serif;font-size:11px"
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" height="{height:.0f}" '
        f'viewBox="0 0 {width:.0f} {height:.0f}" style="{style}">',
        f'<defs><marker id="tip" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        f'<path d="M0,0 L8,4 L0,8 z" fill="{LINE}"/></marker></defs>',
        f'<rect width="{width:.0f}" height="{height:.0f}" fill="white"/>',
        *_timeline(graph, schedule, cores, engines, critical, drawn),
        *boxes.lines(graph, cores, engines, critical, timeline + GAP),
    ]
    if len(drawn) < len(graph.tasks):
        hidden = len(graph.tasks) - len(drawn)
        lines.append(_text(MARGIN, height - 6, f"{hidden} regions that take less time are not shown"))
    return "\n".join([*lines, "</svg>"])


def _timeline(
    graph: TaskGraph,
    schedule: Sequence[Placed],
    cores: int,
    engines: Sequence[str],
    critical: set[int],
    drawn: set[int],
) -> Iterator[str]:
    """The cores as lanes."""
    end = makespan(schedule) or 1.0
    for core in range(cores):
        top = GAP + core * LANE
        yield f'<rect x="{MARGIN}" y="{top}" width="{WIDTH - MARGIN}" height="{LANE - 2}" fill="#f7f7f7"/>'
        yield _text(2, top + LANE / 2 + 3, f"core {core}")
    for placed in schedule:
        if placed.task not in drawn:
            continue
        left, right = (MARGIN + (WIDTH - MARGIN) * time / end for time in (placed.start, placed.stop))
        first, last = min(placed.cores), max(placed.cores)  # regions one by one have the first cores
        top, bottom = GAP + first * LANE, GAP + (last + 1) * LANE - 2
        task = graph.tasks[placed.task]
        yield "<g>" + _title(placed.task, task.name, placed.stop - placed.start)
        yield _rectangle(left, top, right - left, bottom - top, engines[placed.task], placed.task in critical)
        if right - left > 3 * LETTER:
            label = _fitted(f"{placed.task + 1}: {task.name}", right - left - 6)
            yield _text(left + 3, (top + bottom) / 2 + 4, label)
        yield "</g>"
    yield _text(MARGIN, GAP + cores * LANE + 12, "0")
    yield _text(WIDTH, GAP + cores * LANE + 12, f"{end / 1e3:,.1f} µs", "end")
    yield _text(MARGIN, GAP - 8, "when: regions one after the other, each on its cores")


@dataclass(frozen=True)
class _Boxes:
    """Where the boxes of tasks stand: a column for each level."""

    place: dict[int, tuple[float, float]]
    width: float
    height: float

    @staticmethod
    def of(graph: TaskGraph, drawn: set[int]) -> _Boxes:
        levels = [[task for task in level if task in drawn] for level in graph.levels]
        levels = [level for level in levels if level]
        tallest = max(map(len, levels), default=0)
        place: dict[int, tuple[float, float]] = {}
        for column, level in enumerate(levels):
            top = GAP + (tallest - len(level)) * ROW / 2
            for row, task in enumerate(sorted(level, key=lambda t: _height(graph, t, place))):
                place[task] = (column * (BOX_WIDTH + ROW), top + row * ROW)
        return _Boxes(place, len(levels) * (BOX_WIDTH + ROW), GAP + tallest * ROW)

    def lines(
        self, graph: TaskGraph, cores: int, engines: Sequence[str], critical: set[int], top: float
    ) -> Iterator[str]:
        yield _text(MARGIN, top, "who waits for whom; the critical path has thick frames")
        for (a, b), size in graph.edges.items():
            if a in self.place and b in self.place:
                (x, y), (to_x, to_y) = self.place[a], self.place[b]
                start, stop = MARGIN + x + BOX_WIDTH, MARGIN + to_x
                y, to_y = top + y + BOX_HEIGHT / 2, top + to_y + BOX_HEIGHT / 2
                colour = CRITICAL if a in critical and b in critical else LINE
                bend = (stop - start) / 2
                curve = f"C{start + bend:.1f},{y:.1f} {stop - bend:.1f},{to_y:.1f} {stop:.1f},{to_y:.1f}"
                yield f'<path d="M{start:.1f},{y:.1f} {curve}" fill="none" stroke="{colour}" marker-end="url(#tip)">'
                yield f"<title>{size:,} bytes</title></path>"
        for task, (x, y) in self.place.items():
            known, time = graph.tasks[task], graph.tasks[task].time(cores)
            yield "<g>" + _title(task, known.name, time)
            yield _rectangle(MARGIN + x, top + y, BOX_WIDTH, BOX_HEIGHT, engines[task], task in critical)
            yield _text(MARGIN + x + 5, top + y + 14, _fitted(f"{task + 1}: {known.name}", BOX_WIDTH - 8))
            count = known.cores(cores)
            of = f"{time / 1e3:,.1f} µs, {counted(count, 'core')}, {engines[task]}"
            yield _text(MARGIN + x + 5, top + y + 28, of) + "</g>"


def _height(graph: TaskGraph, task: int, place: dict[int, tuple[float, float]]) -> tuple[float, int]:
    """Where a box should stand in its column: at the height of what it waits for."""
    before = [place[other][1] for other in graph.nx.predecessors(task) if other in place]
    return (sum(before) / len(before) if before else 0.0, task)


def _rectangle(x: float, y: float, width: float, height: float, engine: str, critical: bool) -> str:
    frame = f'stroke="{CRITICAL}" stroke-width="2"' if critical else f'stroke="{LINE}" stroke-width="0.7"'
    return (
        f'<rect x="{x:.1f}" y="{y:.1f}" width="{max(width, 0.5):.1f}" height="{height:.1f}" rx="2" '
        f'fill="{COLOURS.get(engine, "#ffffff")}" {frame}/>'
    )


def _title(number: int, name: str, time: float) -> str:
    return f"<title>{number + 1}: {escape(name)}, {time / 1e3:,.1f} µs</title>"


def _text(x: float, y: float, text: str, anchor: str = "start") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _fitted(text: str, width: float) -> str:
    letters = max(1, int(width / LETTER))
    return text if len(text) <= letters else text[: letters - 1] + "…"
