"""How long XLA takes on a CPU for a whole loop whose body computes on numbers, or element by element on arrays.

XLA compiles a loop over few bytes to one function, and calls one for each result of a body's fusions elsewhere. Numbers
that are carried are stored by a step and loaded by the next one. Measured; on the low side, as `xla_time` is.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
from jax.extend.core import primitives as p

from graphopt.analysis.latency import FORWARDED, chain, latency
from graphopt.analysis.loops import LOOPS, iterations
from graphopt.analysis.machine import Machine
from graphopt.analysis.xla_time import FUNCTIONS, SERIES, core_time, is_known
from graphopt.ir.graph import Graph
from graphopt.ir.node import Node
from graphopt.ir.op import CONSTANT, PARAM, PROJECT, op_of, ops_of
from graphopt.ops.control import SCAN, Scan, While
from graphopt.ops.make import BROADCAST

IOTA = op_of(p.iota_p)

CARRIED = 1.7
"""Nanoseconds in which a floating number that is stored can be loaded; an integer takes none. Running means of 20k
numbers take 75 µs in XLA, 37 with what is carried in a register."""

NUMBER = 0.12
"""Nanoseconds of an operation on a number, where none waits for another."""

STEP = 1.0
"""Nanoseconds that an array computed in each step takes beside its elements and what it waits for: 1 to 3 measured on
jax 0.12, of 4 to 64 elements."""

_CALLED_OF_SERIES = {"0.10": 25.0}

CALLED, INLINED = _CALLED_OF_SERIES.get(SERIES, 0.0), 1024
"""And where XLA makes no function of the whole loop, which it does of those whose steps read and write less than so
many bytes: 30 to 35 measured."""

MOVED = 0.0047
"""Nanoseconds of a byte that a step reads or writes of what is carried."""

KEPT, KEPT_ROW, LEAST_ROW = 0.03, 4.0, 64
"""And of one of a row that it puts into an array of all steps' rows, beside so many for the row, where that has so many
bytes at least: 7 measured of 64 bytes, 20 of 256, 50 of 1024."""

_IN_LOOPS = {"exp": 0.3, "tanh": 0.25, "logistic": 0.45}

IN_LOOPS = {op: _IN_LOOPS[name] for name, op in ops_of(_IN_LOOPS).items()}
"""Nanoseconds of an element of functions for which XLA takes longer in loops than elsewhere; float32."""

ARITHMETIC = 0.8
"""What sums and products take in loops of what they take elsewhere: they find all in a core's first cache."""

ROWS, ROWS_NEAR, FEW_ROWS = 0.015, 0.002, 4
"""Nanoseconds of a byte of rows in a kernel, and where all rows are of up to so many times what a core's caches hold:
4 MB take 0.0145 with all accesses, 8 MB 0.024, 32 MB 0.04."""

STREAMED = 0.01
"""And of one of rows that are read once, where there are more than a core's caches hold."""


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
        streamed = STREAMED * rows if rows > machine.near else 0.0
        return scan.length * time + streamed
    loop = While.of(node)
    state = loop.body.params[loop.body_consts :]
    tests = sum(_computing(loop.cond)) + STEP * any(n.aval.shape for n in loop.cond.outputs)
    return iterations(node) * (_step_time(loop.body, state, machine) + tests)


def rows_time(node: Node, machine: Machine) -> float:
    """Nanoseconds that a kernel takes for the rows that a loop reads and writes once, beside what its accesses take:
    a block of each row with each step, which a processor does not foresee where they lie in no cache of a core's."""
    if node.op is not SCAN:
        return 0.0
    scan = Scan.of(node)
    read = node.inputs[scan.consts + scan.carry :]
    avals = (*(n.aval for n in read), *node.avals[scan.carry :])
    rows = sum(aval.nbytes for aval in avals if len(aval.shape) > 1)
    return (ROWS_NEAR if rows <= FEW_ROWS * machine.near else ROWS) * rows


def _step_time(body: Graph, state: Collection[Node], machine: Machine) -> float:
    carried = list(zip(state, body.outputs, strict=False))
    numbers = [(s, n) for s, n in carried if not s.aval.shape]
    floating = any(s.aval.dtype.kind not in "biu" for s, _ in numbers)
    chained = waited(body, numbers) + (CARRIED if floating else 0.0)
    number, arrays = _computing(body)
    inner = sum(loop_time(n, machine) for n in body.nodes if n.op in LOOPS)
    results = {n for n in body.outputs if n.aval.shape}
    if not results:
        return max(chained, number) + inner
    moved = sum(n.aval.nbytes for n in {*body.params, *results} if n.aval.shape)
    rows = [n.aval.nbytes for n in body.outputs[len(carried) :] if n.aval.shape]
    kept = sum(KEPT_ROW + KEPT * row for row in rows if row >= LEAST_ROW)
    each = STEP + (CALLED if moved + 2 * sum(rows) >= INLINED else 0.0)
    through = waited(body, [(s, n) for s, n in carried if s.aval.shape]) + FORWARDED
    computing = each * len(results) + kept + max(MOVED * moved, arrays)
    return max(chained, number) + inner + max(through, computing)


def waited(body: Graph, carried: Collection[tuple[Node, Node]]) -> float:
    """Nanoseconds that a step waits for the one before. carried: parameters, and the outputs that take their places."""
    computed = [node for node in body.nodes if node.inputs]
    return chain([(node, node.inputs, _latency(node)) for node in computed], carried)


def _latency(node: Node) -> float:
    dtype = node.avals[0].dtype
    return latency(node.op, np.dtype(dtype)) if node.op.elementwise and isinstance(dtype, np.dtype) else 0.0


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
            arrays += max(core_time(node), IN_LOOPS.get(node.op, 0.0) * node.aval.size)
        else:
            arrays += ARITHMETIC * core_time(node) * max(1, sum(node in each for each in needed))
    return number, arrays


def _needed(node: Node) -> set[Node]:
    found, stack = set[Node](), [node]
    while stack:
        current = stack.pop()
        if current not in found:
            found.add(current)
            stack += current.inputs
    return found
