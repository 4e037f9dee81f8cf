"""Engine choice: which regions another engine than XLA is expected to run so much faster that it pays.

In doubt it is XLA. Times of both are predicted (`graphopt.analysis.xla_time`, `graphopt.analysis.kernel_time`); what
XLA's code for CPUs is known to take many times too long for is in a table. A kernel takes COMPILING to compile, once on
a machine, and runs must make up for it: AT_ONCE of them in any program; PATIENTLY many where the gain is SHARE of the
program's time, for who calls a program that is little else than this gets all of it, again and again.

Before:
    %1: i32[1000] = argmax[axes=(1,), index_dtype=int32](%0)
After, where %0 is f32[1000,1000]:
    %1: i32[1000] = kernel[body=@1, engine="numba", key=...](%0)
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from jax.extend.core import primitives as p

from graphopt.analysis.factors import blocked, blocked_among
from graphopt.analysis.loops import LOOPS
from graphopt.analysis.machine import Machine
from graphopt.analysis.reductions import CUMLOGSUMEXP, CUMULATIVE, REDUCTIONS
from graphopt.analysis.scattering import SCATTERS
from graphopt.analysis.sorting import SORT
from graphopt.analysis.swallowed import swallowed_time
from graphopt.analysis.top_k import TOP_K, axis_of
from graphopt.analysis.windows import COMBINED, SELECTED
from graphopt.analysis.xla_indexed import scattered_time
from graphopt.analysis.xla_loops import is_known_loop, loop_time, rows_time
from graphopt.analysis.xla_products import called_time
from graphopt.analysis.xla_time import (
    HANDED_OVER,
    alone_time,
    blocked_time,
    core_time,
    fused_time,
    is_handed_over,
    is_known,
    product_time,
    without_products,
)
from graphopt.ir.graph import Graph, nested_graphs
from graphopt.ir.node import Node
from graphopt.ir.op import Op, op_of
from graphopt.ops.control import SCAN, WHILE, Scan

COMPILING = 100e6
"""Nanoseconds that compiling a kernel takes; later processes find it compiled."""

AT_ONCE, PATIENTLY = 100, 20_000
"""Runs that may be needed to make up for compiling: of any region, and of one that is much of its program."""

GAIN, WORTHWHILE = COMPILING / AT_ONCE, COMPILING / PATIENTLY
"""Nanoseconds that a run must be expected to gain for a region to leave XLA: 1 ms, and 5 µs where it is much of the
program."""

SHARE = 0.2
"""Of the whole program's time: what such a region must be expected to gain."""

RATIO, OF_PRODUCTS = 1.35, 1.1
"""How many times the kernel's XLA's time must be expected to be. Both are predicted, so that this is a margin; of a
product of matrices both are mostly arithmetic, which is known."""

COPIED = 0.015
"""Nanoseconds of a byte that is copied out of an array or into one."""

CALL_AGAIN = 0.25
"""What a call of a kernel takes within a loop of XLA's, of what a program takes that is one: 90 to 130 ns."""

WHILE_RUNS = 10
"""How often the body of a `while` is taken to run: nobody knows."""


@dataclass(frozen=True, slots=True)
class Pathology:
    """An operation that XLA:CPU is slow at. xla, kernel: nanoseconds for an element, measured on two cores; of a window
    for each of its elements.

    logarithmic: whether both are for an element and a doubling of the length. doubling: what XLA takes for a doubling
    of the length however few rows there are: one more loop, or some, that other threads are asked for; not in the body
    of a loop. shortest: the length from which on it may leave. again: XLA's time in the body of a loop, if less. short:
    XLA's time where the length is SHORT at most, if less.
    """

    xla: float
    kernel: float
    logarithmic: bool = False
    doubling: float = 0.0
    shortest: int = 256
    again: float = math.inf
    short: float = math.inf


SHORT = 24
"""Elements of a row that XLA finds the greatest of in one go: of 28 and more it makes parts."""

PLACES = Pathology(2.0, 0.2, doubling=4_000.0, shortest=16, short=0.25)

PATHOLOGIES: Mapping[Op, Pathology] = {
    SORT: Pathology(9.0, 0.7, logarithmic=True, shortest=8),
    op_of(p.argmax_p): PLACES,
    op_of(p.argmin_p): PLACES,
    **dict.fromkeys(CUMULATIVE, Pathology(2.2, 0.7, doubling=4_000.0, shortest=16, again=1.4)),
    CUMLOGSUMEXP: Pathology(50.0, 10.0, doubling=10_000.0, shortest=8),
    TOP_K: Pathology(1.2, 0.3),
    **dict.fromkeys(COMBINED, Pathology(0.35, 0.1)),
    SELECTED: Pathology(9.0, 0.8),
}
"""Seen on jax 0.10 and 0.12. Reading each element once takes a tenth of a nanosecond."""


def elements(node: Node) -> float:
    """How many elements a pathology's time is for, doublings of the length included; 0 where it may not leave XLA."""
    aval = node.inputs[0].aval if node.inputs else None
    if node.op not in PATHOLOGIES or aval is None or not aval.is_static:
        return 0.0
    if "window_dimensions" in node.attrs:
        windows = aval if node.op is SELECTED else node.aval
        return float(windows.size * math.prod(node.attrs["window_dimensions"]))
    length = aval.shape[_axis(node)]
    if length < PATHOLOGIES[node.op].shortest:
        return 0.0
    return aval.size * (math.log2(length) if PATHOLOGIES[node.op].logarithmic else 1.0)


def slow_time(node: Node, again: bool) -> float:
    """Nanoseconds that XLA takes for an operation that it is slow at. again: whether it is in the body of a loop."""
    known, count = PATHOLOGIES[node.op], elements(node)
    if not known.doubling or not count:
        return known.xla * count
    length = node.inputs[0].aval.shape[_axis(node)]
    each = min(known.xla, known.again if again else math.inf, known.short if length <= SHORT else math.inf)
    return each * count + (0.0 if again else known.doubling * math.log2(length))


def _axis(node: Node) -> int:
    """The axis that a sort, a top_k, a cumulative operation, or an argmax goes along."""
    attrs = node.attrs
    if node.op is TOP_K:
        return axis_of(node)
    axis: int = attrs["dimension"] if node.op is SORT else attrs["axis"] if "axis" in attrs else attrs["axes"][0]
    return axis


def takes(node: Node) -> bool:
    """Whether an operation may leave XLA where the choice is free: its time there is known."""
    if node.op in LOOPS:
        return is_known_loop(node)
    return elements(node) > 0 if node.op in PATHOLOGIES else is_known(node)


@dataclass(frozen=True, slots=True)
class Candidate:
    """A region that may leave XLA. runs: in one run of the program. xla, kernel: predicted nanoseconds of a run.

    is_handed_over: whether XLA computes a program that is no more than this on another thread than the caller's.
    ratio: how many times the kernel's XLA's time must be expected to be. body: the region's graph, where others may
    have the same: their kernel is one, and is compiled once.
    """

    runs: int
    xla: float
    kernel: float
    is_handed_over: bool = False
    ratio: float = RATIO
    body: Graph | None = None

    @property
    def is_faster(self) -> bool:
        """Whether the kernel is expected to be faster by the margin that is asked for."""
        return self.xla >= self.ratio * self.kernel

    @property
    def gain(self) -> float:
        """Nanoseconds of a run of the program."""
        return self.runs * (self.xla - self.kernel)


def candidate(
    body: Graph,
    kernel: float,
    runs: int,
    machine: Machine,
    swallowed: float = 0.0,
    apart: int = 0,
    taken: float = 1.0,
) -> Candidate:
    """A region by its body and the time of its kernel. swallowed: nanoseconds that XLA would take longer for what comes
    before it. apart: bytes that are to be copied for a kernel, and that XLA reads and writes where they are. taken: the
    part of its results that XLA computes, where no others are read."""
    loops = [node for node in body.nodes if node.op in LOOPS]
    if kernel and runs > 1:
        kernel -= (1 - CALL_AGAIN) * machine.call
    if loops:
        xla = sum(loop_time(n, machine) for n in loops) + sum(map(core_time, body.nodes)) / machine.threads
        kernel += COPIED * apart + sum(rows_time(n, machine) for n in loops)
        inside = any(is_handed_over(sub.graph) for n in loops for sub in n.subgraphs)
        return Candidate(runs, xla, kernel, inside, body=body)
    slow = [(PATHOLOGIES[node.op], elements(node)) for node in body.nodes if node.op in PATHOLOGIES]
    rest = without_products(body)
    xla = blocked_time(body, machine, again=runs > 1) + swallowed
    xla += taken * fused_time(rest, machine, again=runs > 1) if rest is not None else 0.0
    xla += sum(slow_time(node, runs > 1) for node in body.nodes if node.op in PATHOLOGIES)
    kernel = max(kernel, sum(known.kernel * count for known, count in slow)) + COPIED * apart
    ratio = OF_PRODUCTS if blocked_among(body.nodes) else RATIO
    return Candidate(runs, xla, kernel, is_handed_over(body), ratio, body)


def decide(candidates: Sequence[Candidate], others: float) -> list[str | None]:
    """Why each candidate stays in XLA; None for those that leave it. others: nanoseconds of the rest of the program."""
    candidates = _handed_over(candidates, others)
    least = _least(candidates, others)
    gains = _of_alike(candidates, lambda c: c.gain if c.is_faster else 0.0)
    return [_reason(c, least, gain) for c, gain in zip(candidates, gains, strict=True)]


def hopeless(candidates: Sequence[Candidate], others: float) -> list[str | None]:
    """Why each candidate would stay in XLA even if its kernel took no time; None for those to plan kernels for."""
    candidates = _handed_over(candidates, others)
    least = _least(candidates, others)
    times = _of_alike(candidates, lambda c: c.runs * c.xla)
    return [
        f"{_time(time)} of a run in XLA, of which {_time(least)} would have to be gained" if time < least else None
        for time in times
    ]


def _of_alike(candidates: Sequence[Candidate], time: Callable[[Candidate], float]) -> list[float]:
    """For each candidate the times of all that its kernel is for, together."""
    found: defaultdict[object, float] = defaultdict(float)
    for number, c in enumerate(candidates):
        found[number if c.body is None else c.body] += time(c)
    return [found[number if c.body is None else c.body] for number, c in enumerate(candidates)]


def _handed_over(candidates: Sequence[Candidate], others: float) -> Sequence[Candidate]:
    """The candidates, with the time of what XLA hands over to another thread where it is the whole program."""
    if len(candidates) == 1 and not others and candidates[0].is_handed_over:
        return [replace(candidates[0], xla=candidates[0].xla + HANDED_OVER / candidates[0].runs)]
    return candidates


def _least(candidates: Sequence[Candidate], others: float) -> float:
    """Nanoseconds of a run that a candidate must gain."""
    total = others + sum(c.runs * c.xla for c in candidates)
    return min(GAIN, max(WORTHWHILE, SHARE * total))


def _reason(c: Candidate, least: float, gain: float) -> str | None:
    """gain: nanoseconds of a run, by all that the kernel is for."""
    if not c.is_faster:
        return f"{_time(c.xla)} in XLA, {_time(c.kernel)} in a kernel"
    if gain < least:
        return f"a gain of {_time(gain)} in a run, less than {_time(least)}"
    return None


def _time(nanoseconds: float) -> str:
    return f"{nanoseconds / 1e6:.2f} ms" if nanoseconds >= 1e6 else f"{nanoseconds / 1e3:.1f} µs"


def may_pay(loop: Node, runs: int, machine: Machine) -> bool:
    """Whether a whole loop, that is run so often, would gain enough if its kernel took no time."""
    return runs * loop_time(loop, machine) >= WORTHWHILE


def pays(c: Candidate) -> bool:
    """Whether a candidate may leave XLA, by itself: not before it has is it known how much of its program it is."""
    return _reason(c, WORTHWHILE, c.gain) is None


def runs_of(graph: Graph, whole: Collection[tuple[Graph, Node]] = ()) -> dict[Graph, int]:
    """How often each graph below `graph`, and itself, runs in one run of it, as far as that is known.

    whole: loops, with the graphs that they are in, that are kernels as they are: none of their graphs' runs count.
    """
    runs = dict.fromkeys(nested_graphs(graph), 0)
    runs[graph] = 1
    for outer in reversed(nested_graphs(graph)):
        for node in outer.nodes:
            times = Scan.of(node).length if node.op is SCAN else WHILE_RUNS if node.op is WHILE else 1
            for sub in node.subgraphs if (outer, node) not in whole else ():
                runs[sub.graph] += runs[outer] * times
    return runs


def cut_out(graphs: Collection[Graph]) -> Collection[tuple[Graph, Node]]:
    """What scans in some graphs cut out of their operands for each step, and what they put together of all steps.

    Each with the body that it is in. XLA's own loops read and write it in the large array.
    """
    found: set[tuple[Graph, Node]] = set()
    for node in (node for graph in graphs for node in graph.nodes if node.op is SCAN):
        scan = Scan.of(node)
        each = (*scan.body.params[scan.consts + scan.carry :], *scan.body.outputs[scan.carry :])
        found |= {(scan.body, n) for n in each}
    return found


def time_of_others(taken: Collection[tuple[Graph, Node]], runs: Mapping[Graph, int], machine: Machine) -> float:
    """Nanoseconds in XLA of all operations that are not in `taken`, which names them with the graph that they are in.

    runs: of each graph.
    """
    nodes = [(inner, node) for inner in runs for node in inner.nodes]
    return sum(runs[inner] * alone_time(node, machine) for inner, node in nodes if (inner, node) not in taken)


def wants_another_engine(graph: Graph, machine: Machine) -> bool:
    """Whether there may be anything in a graph, or in its loops and branches, that is to leave XLA.

    Asked first, for it takes less time than to make kernels.
    """
    runs = runs_of(graph)
    possible = others = 0.0
    for inner, times in runs.items():
        for node in inner.nodes:
            if node.op in PATHOLOGIES:
                known = PATHOLOGIES[node.op]
                possible += times * max(0.0, slow_time(node, times > 1) - known.kernel * elements(node))
            elif takes(node) and node.op in LOOPS:
                possible += times * loop_time(node, machine)
            elif is_known(node) and node.avals[0].is_static:
                moved = (node.inputs[0] if node.op in REDUCTIONS else node).avals[0].nbytes
                alone = scattered_time(node) if node.op in SCATTERS else called_time(node)
                possible += times * (core_time(node) + 0.1 * moved + alone + swallowed_time((node,)))
                possible += times * product_time(node, machine) if blocked(node) is not None else 0.0
            else:
                others += times * alone_time(node, machine)
    return possible >= min(GAIN, max(WORTHWHILE, SHARE * (others + possible)))
