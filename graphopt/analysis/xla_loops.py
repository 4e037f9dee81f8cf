"""How long XLA takes on a CPU for a whole loop whose body computes on numbers, or element by element on arrays.

XLA compiles a loop over few bytes to one function, and calls one for each result of a body's fusions elsewhere. Numbers
that are carried are stored by a step and loaded by the next one. Measured; on the low side, as `xla_time` is.
"""

from __future__ import annotations

from collections.abc import Collection

from jax.extend.core import primitives as p

from graphopt.analysis.latency import chain
from graphopt.analysis.loops import LOOPS, iterations
from graphopt.analysis.machine import Machine
from graphopt.analysis.xla_time import FUNCTIONS, core_time, is_known
from graphopt.ir.graph import Graph
from graphopt.ir.node import Node
from graphopt.ir.op import CONSTANT, PARAM, PROJECT, op_of
from graphopt.ops.control import SCAN, Scan, While
from graphopt.ops.make import BROADCAST

IOTA = op_of(p.iota_p)

CARRIED = 1.7
"""Nanoseconds in which a floating number that is stored can be loaded; an integer takes none. Running means of 20k
numbers take 75 µs in XLA, 37 with what is carried in a register."""

NUMBER = 0.12
"""Nanoseconds of an operation on a number, where none waits for another."""

STEP = 20.0
"""Nanoseconds that an array computed in each step takes beside its elements: 20 to 40 measured."""

MOVED = 0.005
"""Nanoseconds of a byte that a step reads or writes of what is carried."""

STREAMED = 0.02
"""And of one of rows that are read or written once, where there are more than a core's caches hold: 0.028 measured."""


def is_known_loop(node: Node) -> bool:
    """Whether XLA's time for a loop can be predicted: its operations are elementwise, or such loops of numbers."""
    return node.op in LOOPS and all(_is_known_body(sub.graph) for sub in node.subgraphs)


def _is_known_body(graph: Graph) -> bool:
    return all(
        n.op in (PARAM, CONSTANT, PROJECT, BROADCAST, IOTA)
        or (n.op.elementwise and is_known(n))
        or (n.op in LOOPS and not any(aval.shape for aval in n.avals) and is_known_loop(n))
        for n in graph.nodes
    )


def loop_time(node: Node, machine: Machine) -> float:
    """Nanoseconds of all steps of a loop, on one core: XLA shares none of them."""
    if node.op is SCAN:
        scan = Scan.of(node)
        state = scan.body.params[scan.consts : scan.consts + scan.carry]
        time = _step_time(scan.body, state, machine)
        rows = sum(aval.nbytes for n in node.inputs[scan.consts + scan.carry :] for aval in n.avals)
        rows += sum(aval.nbytes for aval in node.avals[scan.carry :])
        streamed = STREAMED * rows if rows > machine.near else 0.0
        return scan.length * time + streamed
    loop = While.of(node)
    state = loop.body.params[loop.body_consts :]
    tests = sum(_computing(loop.cond)) + STEP * any(n.aval.shape for n in loop.cond.outputs)
    return iterations(node) * (_step_time(loop.body, state, machine) + tests)


def rows_of(node: Node) -> int:
    """Bytes of the rows that a loop reads and writes once, a block of each with each step."""
    if node.op is not SCAN:
        return 0
    scan = Scan.of(node)
    read = node.inputs[scan.consts + scan.carry :]
    avals = (*(n.aval for n in read), *node.avals[scan.carry :])
    return sum(aval.nbytes for aval in avals if len(aval.shape) > 1)


def _step_time(body: Graph, state: Collection[Node], machine: Machine) -> float:
    numbers = [(s, n) for s, n in zip(state, body.outputs, strict=False) if not s.aval.shape]
    floating = any(s.aval.dtype.kind not in "biu" for s, _ in numbers)
    waited = chain(body, numbers) + (CARRIED if floating else 0.0)
    number, arrays = _computing(body)
    inner = sum(loop_time(n, machine) for n in body.nodes if n.op in LOOPS)
    results = {n for n in body.outputs if n.aval.shape}
    if not results:
        return max(waited, number) + inner
    moved = sum(n.aval.nbytes for n in {*body.params, *results} if n.aval.shape)
    return STEP * len(results) + max(waited, number) + inner + max(MOVED * moved, arrays)


def _computing(body: Graph) -> tuple[float, float]:
    """Nanoseconds of the operations on numbers, and of those on arrays.

    XLA computes an array of a step in a loop of its own, and for each what is cheap of what it is made of.
    """
    number, arrays = 0.0, 0.0
    results = [n for n in dict.fromkeys(body.outputs) if n.aval.shape]
    needed = [_needed(n) for n in results]
    for node in body.nodes:
        if not node.op.elementwise:
            continue
        if not node.avals[0].shape:
            number += NUMBER
        elif node.op in FUNCTIONS:
            arrays += core_time(node)
        else:
            arrays += core_time(node) * max(1, sum(node in each for each in needed))
    return number, arrays


def _needed(node: Node) -> set[Node]:
    found, stack = set[Node](), [node]
    while stack:
        current = stack.pop()
        if current not in found:
            found.add(current)
            stack += current.inputs
    return found
