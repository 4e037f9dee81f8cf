"""Tasks on several cores: levels, critical paths, cuts and schedules against all that there are of small graphs."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphopt.analysis.parallel import Placed, Task, TaskGraph, makespan


@st.composite
def task_graphs(draw: st.DrawFn, most: int = 7) -> TaskGraph:
    count = draw(st.integers(0, most))
    tasks = []
    for number in range(count):
        times = [float(draw(st.integers(0, 20)))]
        for _ in range(draw(st.integers(0, 2))):
            times.append(float(draw(st.integers(0, int(times[-1])))))
        tasks.append(Task(f"t{number}", tuple(times)))
    names = draw(st.permutations(range(count)))  # the numbers need not be in an order that can be run
    pairs = [(names[a], names[b]) for a in range(count) for b in range(a + 1, count)]
    edges = {pair: draw(st.integers(0, 9)) for pair in pairs if draw(st.booleans())}
    return TaskGraph(tasks, edges)


def paths(graph: TaskGraph) -> list[tuple[int, ...]]:
    """All chains of tasks that wait for each other."""
    found: list[tuple[int, ...]] = [(t,) for t in range(len(graph.tasks))]
    for path in found:
        found += [(*path, b) for a, b in graph.edges if a == path[-1]]
    return found


def check_schedule(graph: TaskGraph, schedule: tuple[Placed, ...], cores: int) -> None:
    assert sorted(p.task for p in schedule) == list(range(len(graph.tasks)))
    placed = {p.task: p for p in schedule}
    for p in schedule:
        assert p.cores and len(set(p.cores)) == len(p.cores) and set(p.cores) <= set(range(cores))
        assert p.stop - p.start == pytest.approx(graph.tasks[p.task].time(len(p.cores)))
    for a, b in graph.edges:
        assert placed[a].stop <= placed[b].start + 1e-9
    for p, q in itertools.combinations(schedule, 2):
        if set(p.cores) & set(q.cores):
            assert p.stop <= q.start + 1e-9 or q.stop <= p.start + 1e-9


@given(task_graphs(), st.integers(1, 4))
def test_the_critical_path_is_the_longest_of_all(graph: TaskGraph, cores: int) -> None:
    times = [task.time(cores) for task in graph.tasks]
    path, length = graph.critical_path(cores)
    assert length == max((sum(times[t] for t in each) for each in paths(graph)), default=0.0)
    assert length == sum(times[t] for t in path)
    assert all(pair in graph.edges for pair in itertools.pairwise(path))


@given(task_graphs())
def test_levels_are_how_many_stand_before(graph: TaskGraph) -> None:
    deepest = {t: max(len(p) for p in paths(graph) if p[-1] == t) - 1 for t in range(len(graph.tasks))}
    assert {t: n for n, level in enumerate(graph.levels) for t in level} == deepest


@given(task_graphs(), st.integers(1, 4))
def test_schedules_keep_to_the_rules_and_to_the_bounds(graph: TaskGraph, cores: int) -> None:
    work = sum(min(k * t for k, t in enumerate(task.times[:cores], 1)) for task in graph.tasks)
    assert graph.bound(cores) == max(graph.critical_path(cores)[1], work / cores)
    for schedule in (graph.one_by_one(cores), graph.side_by_side(cores)):
        check_schedule(graph, schedule, cores)
        assert makespan(schedule) >= graph.bound(cores) - 1e-9
    assert makespan(graph.one_by_one(cores)) == pytest.approx(sum(t.time(cores) for t in graph.tasks))
    assert makespan(graph.side_by_side(cores)) <= makespan(graph.one_by_one(cores)) + 1e-9
    assert makespan(graph.side_by_side(1)) == pytest.approx(graph.work)


def best_makespan(graph: TaskGraph, cores: int) -> float:
    """The least of all list schedules, over all orders and all numbers of cores."""
    best = float("inf")
    count = len(graph.tasks)
    for order in itertools.permutations(range(count)):
        if any(order.index(a) > order.index(b) for a, b in graph.edges):
            continue
        for each in itertools.product(range(1, cores + 1), repeat=count):
            free, stops = [0.0] * cores, dict[int, float]()
            for t, k in zip(order, each, strict=True):
                free.sort()
                start = max([free[k - 1], *(stops[a] for a, b in graph.edges if b == t)])
                stops[t] = start + graph.tasks[t].time(k)
                free[:k] = [stops[t]] * k
            best = min(best, max(stops.values(), default=0.0))
    return best


@given(task_graphs(most=4))
def test_a_schedule_is_not_far_from_the_best(graph: TaskGraph) -> None:
    best = best_makespan(graph, 2)
    assert graph.bound(2) <= best + 1e-9
    assert best - 1e-9 <= makespan(graph.side_by_side(2)) <= 2 * best + 1e-9  # as Graham (1966) has it


def test_two_that_gain_little_by_sharing_run_side_by_side() -> None:
    graph = TaskGraph([Task("a", (10.0, 8.0)), Task("b", (10.0, 8.0))], {})
    assert makespan(graph.one_by_one(2)) == 16 and makespan(graph.side_by_side(2)) == 10


def test_what_all_wait_for_is_shared() -> None:
    graph = TaskGraph([Task("a", (10.0, 5.0)), Task("b", (4.0,)), Task("c", (4.0,))], {(0, 1): 8, (0, 2): 8})
    assert makespan(graph.side_by_side(2)) == 9 == graph.bound(2)


@given(task_graphs())
def test_the_cut_has_the_fewest_bytes(graph: TaskGraph) -> None:
    count = len(graph.tasks)
    if count < 2:
        with pytest.raises(ValueError, match="one task"):
            graph.cut()
        return
    size, part = graph.cut()
    everything = frozenset(range(count))
    assert 0 < len(part) < count and graph.between([part, everything - part]) == size
    parts = [frozenset(each) for k in range(1, count) for each in itertools.combinations(range(count), k)]
    assert size == min(graph.between([each, everything - each]) for each in parts)


@given(task_graphs(), st.integers(1, 5))
def test_parts_have_each_task_once(graph: TaskGraph, count: int) -> None:
    parts = graph.parts(count)
    assert sorted(t for part in parts for t in part) == list(range(len(graph.tasks)))
    assert len(parts) == min(count, len(graph.tasks)) and all(parts)
    assert parts == graph.parts(count)


def test_parts_do_not_cut_chains() -> None:
    tasks = [Task(f"t{n}", (1.0,)) for n in range(8)]
    edges = {(a, a + 2): 100 for a in range(6)} | {(a, a + 1): 1 for a in range(7)}
    graph = TaskGraph(tasks, edges)
    even, odd = frozenset(range(0, 8, 2)), frozenset(range(1, 8, 2))
    assert graph.between([even, odd]) == 7 and set(graph.parts(2)) == {even, odd}


def test_a_circle_is_refused() -> None:
    with pytest.raises(ValueError, match="circle"):
        _ = TaskGraph([Task("a", (1.0,)), Task("b", (1.0,))], {(0, 1): 1, (1, 0): 1}).levels
