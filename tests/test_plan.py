"""The plan of a program: which regions there are, how their work is cut, what is predicted of all, and its picture."""

from collections.abc import Callable
from typing import Any
from xml.etree import ElementTree

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import graphopt
from graphopt.analysis.machine import Machine
from graphopt.drawing import DRAWN
from graphopt.ir.op import PROJECT
from graphopt.passes.choose import WHILE_RUNS
from graphopt.plan import SHOWN, Plan, plan_of
from graphopt.trace.jaxpr import trace_function


def shapes(*each: tuple[int, ...]) -> list[jax.ShapeDtypeStruct]:
    return [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in each]


def planned(function: Callable[..., Any], *each: tuple[int, ...], backend: str = "numba", threads: int = 2) -> Plan:
    graph = graphopt.jit(function, backend=backend).explain(*shapes(*each)).graph
    return plan_of(graph, Machine(threads=threads))


def several(x: Any, y: Any) -> Any:
    a, b = jnp.sort(x, 1), lax.cumsum(y, 1)
    z = a @ b
    z = lax.scan(lambda c, _: (jnp.tanh(c) @ y, None), z, None, length=3)[0]
    return jnp.exp(z).sum(), lax.cond(z[0, 0] > 0, lambda u: u * 2, lambda u: u @ u, z), jnp.linalg.det(z)


@pytest.mark.parametrize("backend", ["xla", "numba", "auto"])
def test_every_operation_is_in_a_region_after_those_that_it_waits_for(backend: str) -> None:
    report = graphopt.jit(several, backend=backend).explain(*shapes((300, 300), (300, 300)))
    plan = report.plan
    found = {node for region in plan.regions for node in region.nodes}
    costly = {n.op.name for n in report.graph.nodes if n.op.primitive is not None and n.op is not PROJECT}
    assert costly - {n.op.name for n in found} <= {"reshape", "squeeze", "broadcast_in_dim"}
    assert all(a < b for a, b in plan.graph.edges)
    assert plan.graph.edges and all(size > 0 for size in plan.graph.edges.values())
    assert max(plan.work / plan.cores, plan.critical_seconds) <= plan.side_by_side + 1e-12
    assert plan.side_by_side <= plan.seconds <= plan.work + 1e-12 and 0 < plan.efficiency <= 1
    text = str(report)
    assert plan.summary()[:40] in text.replace("\n", " ") and "* on the critical path" in text


def test_on_one_core_all_work_is_of_use() -> None:
    plan = planned(several, (300, 300), (300, 300), threads=1)
    assert plan.efficiency == pytest.approx(1) and plan.cores == 1
    assert plan.side_by_side == pytest.approx(plan.seconds) == pytest.approx(plan.work)


@pytest.mark.parametrize(
    ("function", "each", "split"),
    [
        (lambda x: jnp.exp(x) * 2, [(1000, 1000)], "batch"),
        (lambda x: jnp.argmax(x, 1), [(1000, 1000)], "batch"),
        (lambda x: jnp.exp(x).sum(), [(1_000_001,)], "operator"),
        (lambda x: jnp.cumsum(x), [(1_000_001,)], "operator, result"),
        (lambda x, y: jnp.exp(x[:, None] * y), [(1000,), (1009,)], "result"),
        (lambda x: jnp.sort(x, 1), [(7, 4099)], "batch"),
        (lambda x: lax.top_k(x, 64)[0], [(7, 40_099)], "batch"),
        (lambda x: jnp.exp(x), [(1000,)], ""),
    ],
)
def test_how_the_work_of_a_kernel_is_cut(function: Callable[..., Any], each: list[tuple[int, ...]], split: str) -> None:
    plan = planned(function, *each)
    (region,) = (region for region in plan.regions if region.engine == "numba")
    assert region.split == split and (region.task.cores(2) == 2) == bool(split)
    assert region.grain and all(grain >= 1 for grain in region.grain)


def test_loops_take_their_iterations() -> None:
    def times(step: int) -> Callable[[Any], Any]:
        return lambda x: lax.scan(lambda c, _: (c @ c, None), x, None, length=step)[0]

    once = planned(times(2), (300, 300), backend="xla").seconds
    assert planned(times(20), (300, 300), backend="xla").seconds == pytest.approx(10 * once)
    again = planned(
        lambda x: lax.while_loop(lambda c: c[0] < 5, lambda c: (c[0] + 1, c[1] @ c[1]), (0, x))[1],
        (300, 300),
        backend="xla",
    )
    assert again.seconds >= WHILE_RUNS * once / 2


def test_independent_regions_gain_by_running_side_by_side() -> None:
    plan = planned(lambda x, y: (jnp.sort(x), jnp.sort(y)), (100_000,), (100_003,), backend="xla", threads=3)
    assert len(plan.graph.levels) == 1 and not plan.graph.edges
    assert plan.side_by_side < plan.seconds and plan.critical_seconds < plan.seconds
    assert len(plan.critical_path) == 1


def test_nothing_to_do() -> None:
    plan = planned(lambda x: x, (3,))
    assert plan.regions == () and plan.seconds == 0 and plan.efficiency == 1 and plan.critical_path == ()
    ElementTree.fromstring(plan.svg())
    assert "plan:" in str(plan)


def test_the_picture_has_all_regions_and_the_critical_path() -> None:
    plan = planned(several, (300, 300), (300, 300))
    root = ElementTree.fromstring(plan.svg())
    titles = [e.text or "" for e in root.iter() if e.tag.endswith("title")]
    for number, region in enumerate(plan.regions, start=1):
        assert sum(t.startswith(f"{number}: {region.task.name},") for t in titles) == 2
    thick = [e for e in root.iter() if e.get("stroke-width") == "2"]
    assert len(thick) == 2 * len(plan.critical_path)
    width, height = float(root.get("width", 0)), float(root.get("height", 0))
    for e in root.iter():
        if e.tag.endswith("rect"):
            assert float(e.get("x", 0)) + float(e.get("width", 0)) <= width + 1
            assert float(e.get("y", 0)) + float(e.get("height", 0)) <= height + 1


def test_long_programs_show_what_takes_the_longest() -> None:
    def long(x: Any) -> Any:
        for _ in range(60):
            x = x @ x
        return x

    graph, _ = trace_function(long, np.ones((200, 200), np.float32))
    plan = plan_of(graph, Machine(threads=4))
    assert len(plan.regions) == 60 and f"{60 - SHOWN} shorter regions are not shown" in str(plan)
    assert f"{60 - DRAWN} regions that take less time" in plan.svg()
    assert [len(level) for level in plan.graph.levels] == [1] * 60
