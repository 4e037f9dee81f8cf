"""How long XLA takes on a CPU for a whole loop whose body computes on numbers, or element by element on arrays.

XLA compiles a loop over few bytes to one function, and calls one for each result of a body's fusions elsewhere. Numbers
that are carried are stored by a step and loaded by the next one. Measured; on the low side, as `xla_time` is.
"""

from __future__ import annotations

import math
from collections.abc import Collection

import numpy as np
from jax.extend.core import primitives as p

from graphopt.analysis.latency import FORWARDED, chain, latency
from graphopt.analysis.loops import LOOPS, is_of_one_shape, iterations
from graphopt.analysis.machine import Machine
from graphopt.analysis.products import DOT, axes_of, sizes_of
from graphopt.analysis.small_solves import LU
from graphopt.analysis.xla_products import called_time
from graphopt.analysis.xla_time import FUNCTIONS, SERIES, core_time, is_known
from graphopt.ir.graph import Graph, nested_graphs
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

LIBRARY, LEAST_SIDE = 300.0, 4
"""Nanoseconds of a product of matrices in a step, for which XLA calls a function of a library, at least, and of an LU
factorization: 320 to 560 measured of (2, 8) by (8, 8), 700 to 770 of (4, 4) by (4, 4), 400 of solving two equations,
which is little else. And what one of rows, columns, or what is summed over must
have for that: those of up to (3, 4) by (4, 3) are written out."""

_WRITTEN_OUT_OF_SERIES = {"0.10": 128}

WRITTEN_OUT = _WRITTEN_OUT_OF_SERIES.get(SERIES, 0)
"""Elements multiplied for a product up to which XLA makes it part of the whole loop's function, where there is one."""

ROWS, ROWS_NEAR, FEW_ROWS = 0.015, 0.002, 4
"""Nanoseconds of a byte of rows in a kernel, and where all rows are of up to so many times what a core's caches hold:
4 MB take 0.0145 with all accesses, 8 MB 0.024, 32 MB 0.04."""

STREAMED = 0.01
"""And of one of rows that are read once, where there are more than a core's caches hold."""


def is_known_loop(node: Node) -> bool:
    """Whether XLA's time for a loop can be predicted: its operations are elementwise, or such loops of numbers; or what
    it takes at least, where products of matrices are among them, or factorizations."""
    if node.op not in LOOPS:
        return False
    if not is_of_one_shape(node):
        return any(calls_a_library(graph) for sub in node.subgraphs for graph in nested_graphs(sub.graph))
    return all(_is_known_body(sub.graph) for sub in node.subgraphs)


def calls_a_library(body: Graph) -> bool:
    """Whether XLA calls functions of a library in a step."""
    return library_time(body) > 0


def library_time(body: Graph) -> float:
    """Nanoseconds of the products and factorizations of a step for which XLA calls functions of a library, at least."""
    factored = LIBRARY * sum(1 for node in body.nodes if node.op is LU)
    every = [node for node in body.nodes if node.op is DOT]
    products = [node for node in every if _is_of_matrices(node)]
    if sum(n.aval.nbytes for node in every for n in (node, *node.inputs)) >= INLINED:
        return factored + sum(max(LIBRARY, called_time(n)) for n in products)
    called = [n for n in products if math.prod(sizes_of(n)) >= WRITTEN_OUT and not _is_written_out(n)]
    return factored + sum(max(LIBRARY, called_time(n)) for n in called)


def _is_written_out(node: Node) -> bool:
    """Whether XLA is known to make a product of several matrices side by side part of a loop's function."""
    return WRITTEN_OUT > 0 and any(axes_of(node).batch)


def _is_of_matrices(node: Node) -> bool:
    rows, columns, length = sizes_of(node)
    floating = all(n.aval.dtype in (np.float32, np.float64) for n in (node, *node.inputs))
    return floating and min(rows, columns) > 1 and max(rows, columns, length) >= LEAST_SIDE


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
    inner = sum(loop_time(n, machine) for n in body.nodes if n.op in LOOPS) + library_time(body)
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
