"""Tasks that wait for each other, on several cores: levels, critical path, what stands between parts, and schedules.

A task may be shared by cores; its times say what that gains. The terms are those of list scheduling: the upward rank of
a task is the longest path from its beginning to the end of the program, and a schedule places the tasks in the order of
their ranks, each where it ends first (HEFT: Topcuoglu, Hariri and Wu, 2002). How many cores share a task is decided
before, by the critical path and the area (CPA: Radulescu and van Gemund, 2001): as long as the critical path is what
the program waits for, the task on it that gains most gets one more.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import networkx

Edges = Mapping[tuple[int, int], int]
"""Bytes that the second of two tasks reads of what the first has written."""


@dataclass(frozen=True, slots=True)
class Task:
    """One task. times: nanoseconds on 1, 2, … cores; with more than these it takes as long as with the last."""

    name: str
    times: tuple[float, ...]

    def time(self, cores: int) -> float:
        """Nanoseconds with at most so many cores."""
        return min(self.times[:cores])

    def cores(self, most: int) -> int:
        """How few of `most` cores it takes to be done as soon as with all."""
        least = self.time(most)
        return next(k for k, time in enumerate(self.times, start=1) if time <= least)


@dataclass(frozen=True, slots=True)
class Placed:
    """Where and when a task runs. cores: their numbers."""

    task: int
    cores: tuple[int, ...]
    start: float
    stop: float


@dataclass(frozen=True)
class TaskGraph:
    """Tasks, by their numbers, and who waits for whom."""

    tasks: Sequence[Task]
    edges: Edges

    @cached_property
    def nx(self) -> networkx.DiGraph[int]:
        """The graph for networkx. Raises ValueError where tasks wait for each other in a circle."""
        graph: networkx.DiGraph[int] = networkx.DiGraph()
        graph.add_nodes_from(range(len(self.tasks)))
        graph.add_edges_from((a, b, {"bytes": size}) for (a, b), size in self.edges.items())
        if not networkx.is_directed_acyclic_graph(graph):
            raise ValueError("these tasks wait for each other in a circle")
        return graph

    @cached_property
    def order(self) -> tuple[int, ...]:
        """All tasks, each after those that it waits for."""
        return tuple(networkx.lexicographical_topological_sort(self.nx))

    @cached_property
    def levels(self) -> tuple[tuple[int, ...], ...]:
        """The tasks by how many others stand before them at most; those of a level do not wait for each other."""
        return tuple(tuple(sorted(level)) for level in networkx.topological_generations(self.nx))

    @property
    def work(self) -> float:
        """Nanoseconds of all tasks on one core."""
        return sum(task.times[0] for task in self.tasks)

    def times(self, cores: int | Sequence[int]) -> list[float]:
        """The time of each task. cores: how many may share it, or how many share each."""
        each = [cores] * len(self.tasks) if isinstance(cores, int) else cores
        return [task.time(count) for task, count in zip(self.tasks, each, strict=True)]

    def ranks(self, times: Sequence[float]) -> list[float]:
        """For each task the longest time from its beginning to the end of all that waits for it."""
        found = [0.0] * len(self.tasks)
        for task in reversed(self.order):
            found[task] = times[task] + max((found[after] for after in self.nx.successors(task)), default=0.0)
        return found

    def critical_path(self, cores: int | Sequence[int]) -> tuple[tuple[int, ...], float]:
        """The tasks that take the longest one after the other, with as many cores for each as help; and how long."""
        if not self.tasks:
            return (), 0.0
        ranks = self.ranks(self.times(cores))
        path = [max((task for task in self.order if not any(self.nx.predecessors(task))), key=lambda t: ranks[t])]
        while after := tuple(self.nx.successors(path[-1])):
            path.append(max(after, key=lambda t: ranks[t]))
        return tuple(path), ranks[path[0]]

    def bound(self, cores: int) -> float:
        """Nanoseconds in which it cannot be done: the critical path, or what all cores have to do at the least."""
        area = sum(min(k * time for k, time in enumerate(task.times[:cores], start=1)) for task in self.tasks)
        return max(self.critical_path(cores)[1], area / cores)

    # ---- schedules

    def one_by_one(self, cores: int) -> tuple[Placed, ...]:
        """One task after the other, each with as many cores as help: what a program does that waits for each."""
        placed, now = list[Placed](), 0.0
        for number in self.order:
            task = self.tasks[number]
            count = task.cores(cores)
            placed.append(Placed(number, tuple(range(count)), now, now + task.time(count)))
            now = placed[-1].stop
        return tuple(placed)

    def side_by_side(self, cores: int) -> tuple[Placed, ...]:
        """The best of some schedules: tasks on a core each, on as many as help, and as CPA shares them out."""
        wide = [task.cores(cores) for task in self.tasks]
        kinds = ([1] * len(self.tasks), wide, self.allotted(cores))
        found = [self.one_by_one(cores), *(self._listed(each, cores) for each in kinds)]
        return min(found, key=makespan)

    def allotted(self, cores: int) -> list[int]:
        """How many cores share each task, by critical path and area."""
        each = [1] * len(self.tasks)
        while True:
            path, length = self.critical_path(each)
            area = sum(k * task.time(k) for k, task in zip(each, self.tasks, strict=True))
            gains = {t: self._gain(t, each[t]) for t in path if each[t] < min(cores, len(self.tasks[t].times))}
            best = max(gains, key=lambda t: gains[t], default=None)
            if length <= area / cores or best is None or gains[best] <= 0:
                return each
            each[best] += 1

    def _gain(self, task: int, cores: int) -> float:
        """How much less of a task's time each of its cores has to spend with one more."""
        times = self.tasks[task]
        return times.time(cores) / cores - times.time(cores + 1) / (cores + 1)

    def _listed(self, each: Sequence[int], cores: int) -> tuple[Placed, ...]:
        """Each task as soon as it may begin and enough cores are free, the longest way to the end first."""
        times = self.times(each)
        ranks = self.ranks(times)
        place = {task: number for number, task in enumerate(self.order)}
        free, stops, placed = [0.0] * cores, [0.0] * len(self.tasks), list[Placed]()
        for task in sorted(self.order, key=lambda t: (-ranks[t], place[t])):
            ready = max((stops[before] for before in self.nx.predecessors(task)), default=0.0)
            # Of the cores that are free in time those that were free last: the others stay for what comes.
            by_time = sorted(range(cores), key=lambda core: (max(free[core], ready), -free[core], core))[: each[task]]
            start = max(ready, *(free[core] for core in by_time))
            stops[task] = start + times[task]
            for core in by_time:
                free[core] = stops[task]
            placed.append(Placed(task, tuple(sorted(by_time)), start, stops[task]))
        return tuple(placed)

    # ---- parts

    def cut(self) -> tuple[int, frozenset[int]]:
        """The fewest bytes between two parts that are not empty, and one of them (Stoer and Wagner, 1997).

        Raises ValueError where there are fewer than two tasks.
        """
        if len(self.tasks) < 2:
            raise ValueError("one task has no parts")
        joined = self._joined(range(len(self.tasks)))
        separate = list(networkx.connected_components(joined))
        if len(separate) > 1:
            return 0, frozenset(separate[0])
        size, (part, _) = networkx.stoer_wagner(joined, weight="bytes")
        return int(size), frozenset(part)

    def parts(self, count: int) -> tuple[frozenset[int], ...]:
        """At most so many parts of about as much work each, with few bytes between them.

        The part with the most work is halved, again and again: first where the order of the program has half of it,
        then Kernighan and Lin (1970) exchange tasks.
        """
        found = [frozenset(range(len(self.tasks)))] if self.tasks else []
        while len(found) < count:
            part = max(found, key=lambda tasks: (len(tasks) > 1, self.work_of(tasks)), default=frozenset())
            if len(part) < 2:
                break
            found.remove(part)
            found += self._halves(part)
        return tuple(sorted(found, key=min))

    def work_of(self, tasks: Iterable[int]) -> float:
        """Nanoseconds of some tasks on one core."""
        return sum(self.tasks[task].times[0] for task in tasks)

    def between(self, parts: Sequence[frozenset[int]]) -> int:
        """Bytes that are written in one part and read in another."""
        part_of = {task: number for number, part in enumerate(parts) for task in part}
        return sum(size for (a, b), size in self.edges.items() if part_of[a] != part_of[b])

    def _joined(self, tasks: Iterable[int]) -> networkx.Graph[int]:
        """Some tasks, and what goes between them in either direction."""
        joined: networkx.Graph[int] = networkx.Graph()
        joined.add_nodes_from(tasks)
        for (a, b), size in self.edges.items():
            if a in joined and b in joined:
                before = joined.edges[a, b]["bytes"] if joined.has_edge(a, b) else 0
                joined.add_edge(a, b, bytes=before + size)
        return joined

    def _halves(self, part: frozenset[int]) -> list[frozenset[int]]:
        order = [task for task in self.order if task in part]
        half, done, number = self.work_of(part) / 2, 0.0, 0
        while number < len(order) - 1 and (number == 0 or done + self.tasks[order[number]].times[0] / 2 <= half):
            done += self.tasks[order[number]].times[0]
            number += 1
        start = (set(order[:number]), set(order[number:]))
        halves = networkx.community.kernighan_lin_bisection(self._joined(order), start, weight="bytes", seed=0)
        return [frozenset(half) for half in halves]


def makespan(schedule: Sequence[Placed]) -> float:
    """When all of it is done."""
    return max((placed.stop for placed in schedule), default=0.0)
