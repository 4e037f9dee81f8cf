"""How long XLA takes on a CPU where integers say what is read or written: gathers, scatters, updates of slices.

Measured on jax 0.10 and 0.12, on two cores; on the low side, as `xla_time` is.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping

from jax.extend.core import primitives as p

from graphopt.analysis.access import MOVES
from graphopt.analysis.indexed import GATHER
from graphopt.analysis.reductions import ADD, MUL, elements_reduced
from graphopt.analysis.scattering import SCATTERS, SUB, is_in_parts, is_one_by_one
from graphopt.ir.aval import is_floating
from graphopt.ir.graph import Graph
from graphopt.ir.node import Node
from graphopt.ir.op import Op, op_of
from graphopt.rewrite.pattern import splat

UPDATE, SLICE = op_of(p.dynamic_update_slice_p), op_of(p.slice_p)
TAKING = (GATHER, SLICE, op_of(p.dynamic_slice_p))
"""Operations that read a part of their first operand."""

GATHERED, ROW = 0.6, 8
"""Nanoseconds of an element of rows that are gathered, of so many elements at least."""

WIDE, LARGE_GATHER = 256, 1 << 22
"""Elements of rows, and bytes of a result, from which on XLA copies rows about as fast as a kernel: 4096 of 768 take
0.36 ms on jax 0.10, and 0.38 in a kernel; 8192 of 256 take 0.18 and 0.23. (1024 of 768 take 0.15 and 0.10.)"""

LOOKED_UP, LOOKED_UP_REDUCED = 0.35, 0.2
"""And of elements that are gathered one by one, reading the places and writing the result included: 100k take 38 to 55
µs, a million 250 to 400. More where they are reduced: 65 to 85, and 330 to 500."""

SCATTERED, SCATTERED_ROW = 1.0, 0.2
"""Nanoseconds of an element that is scattered, with one thread, and of one in rows of at least ROW: 0.25 measured, of
others 1.0 where they go to a thousand places, and 4 where to a million."""

COMBINED: Mapping[Op, tuple[float, float]] = {ADD: (0.72, 0.48), SUB: (0.72, 0.48), MUL: (0.72, 0.65)}
"""And of one that is combined with what is at one of a few places, of floating numbers and of integers: 0.70 to 0.85
and 0.48 to 0.6 measured, of products of integers 0.63 to 1.3. Where all go to one place, in XLA as in kernels 3.8. (The
smaller or larger of two take 0.65 to 1.2, and kernels 0.5 to 1.1, with all threads: they stay.)"""

FEW = 1 << 19
"""Bytes of these places, which stay in a core's caches; there are no more of them than LARGER times the updates."""

LARGER = 2
"""How many times larger than what is written into it a result may be: XLA leaves the rest where it is."""


def is_known_gather(node: Node) -> bool:
    """Whether XLA's time for a gather can be predicted: of long rows, or of single elements of what is in memory."""
    shape, operand = node.aval.shape, node.inputs[0]
    if shape and len(shape) - 1 in node.attrs["dimension_numbers"].offset_dims and shape[-1] >= ROW:
        return not (shape[-1] >= WIDE and node.aval.nbytes >= LARGE_GATHER)
    return is_one_by_one_gather(node) and not (operand.op.elementwise or operand.op in MOVES)


def is_known_scatter(node: Node) -> bool:
    """Whether XLA's time for a scatter can be predicted: of elements that are summed or multiplied in a few places.

    Of floating numbers in 16 bits only where a kernel combines them in parts: one by one that takes as long there.
    """
    dtype = node.aval.dtype
    if node.op not in SCATTERS or SCATTERS[node.op] not in COMBINED or not (dtype.kind in "iu" or is_floating(dtype)):
        return False
    if is_in_parts(node):
        return True
    updates = node.inputs[2].aval
    few = node.aval.nbytes <= FEW and node.aval.size <= LARGER * updates.size
    return few and dtype.itemsize >= 4 and is_one_by_one(node)


def is_known_update(node: Node) -> bool:
    """Whether XLA's time for an update of a slice can be predicted: it is computed, and most of the result."""
    if node.op is not UPDATE:
        return False
    update = node.inputs[1]
    return update.op.elementwise and update.op not in MOVES and node.aval.size <= LARGER * update.aval.size


def is_one_by_one_gather(node: Node) -> bool:
    """Whether each index of a gather is of one element."""
    return node.op is GATHER and math.prod(node.attrs["slice_sizes"]) == 1


def gathered_time(node: Node) -> float:
    """Nanoseconds of one core that a gather adds to the loop that it is in."""
    return (LOOKED_UP if is_one_by_one_gather(node) else GATHERED) * node.aval.size


def looked_up_time(body: Graph) -> float:
    """Nanoseconds of one core that it takes longer to reduce what is looked up."""
    return LOOKED_UP_REDUCED * elements_reduced(body, is_one_by_one_gather, lambda node: node.op.elementwise)


def indexed_bytes(body: Graph) -> int:
    """Bytes of operands and results that the times of gathers of single elements and of scatters include."""
    looked_up = [n for n in body.nodes if is_one_by_one_gather(n)]
    others = {operand for n in body.nodes if n not in looked_up for operand in n.inputs}
    tables = {n.inputs[0] for n in looked_up} - others
    scattered = (n for s in body.nodes if s.op in SCATTERS for n in (*s.inputs, s))
    each = (aval for n in looked_up for aval in (n.inputs[1].aval, n.aval))
    return sum(aval.nbytes for aval in (*each, *(n.aval for n in (*tables, *scattered))))


def scattered_time(node: Node) -> float:
    """Nanoseconds in which updates find their places, one after the other."""
    updates, rows = node.inputs[2].aval, node.attrs["dimension_numbers"].update_window_dims
    combine = SCATTERS[node.op]
    if combine is not None and is_known_scatter(node):
        return COMBINED[combine][updates.dtype.kind in "iu"] * updates.size
    in_rows = len(updates.shape) - 1 in rows and updates.shape[-1] >= ROW
    return (SCATTERED_ROW if in_rows else SCATTERED) * updates.size


def updated_bytes(body: Graph) -> int:
    """Bytes that XLA reads and writes more, or less, for updating slices of operands where these are.

    Slices of such an operand are written and read again, but for one at the place of the update. What no one reads of
    it is not read.
    """
    total = 0
    updates = [n for n in body.nodes if n.op is UPDATE]
    users = body.users() if updates else {}
    for update in updates:
        of = update.inputs[0]
        readers = {*users[of]} - {update}
        slices = {n for n in readers if n.op is SLICE and not _is_at(update, n)}
        total += 3 * sum(n.aval.nbytes for n in slices) - (0 if readers else of.aval.nbytes)
    return total


def are_places(graph: Graph, results: Collection[Node], left: Callable[[Node], bool]) -> bool:
    """Whether results are nothing but where gathers and scatters of XLA's read and write: it finds that there.

    left: whether an operation stays in XLA.
    """
    users = graph.users()

    def is_place(result: Node, user: Node) -> bool:
        return left(user) and (user.op is GATHER or user.op in SCATTERS) and user.inputs.index(result) == 1

    return all(n not in graph.outputs and users[n] and all(is_place(n, u) for u in users[n]) for n in results)


def shares_taken(graph: Graph) -> dict[Node, float]:
    """The part of a result that XLA computes where it is made element by element, of those from which elements are only
    taken: it computes them where it takes them."""
    taken = {n.inputs[0] for n in graph.nodes if n.op in TAKING} - set(graph.outputs)
    users = graph.users() if taken else {}

    def is_taken(result: Node) -> bool:
        return all(n.op in TAKING and result not in n.inputs[1:] for n in users[result])

    return {n: min(1.0, sum(u.aval.size for u in users[n]) / n.aval.size) for n in taken if n.aval.size and is_taken(n)}


def _is_at(update: Node, part: Node) -> bool:
    starts = [splat(start) for start in update.inputs[2:]]
    return starts == list(part.attrs["start_indices"]) and part.aval.shape == update.inputs[1].aval.shape
