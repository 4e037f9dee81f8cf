"""How long XLA takes on a CPU for the operations that a kernel could do instead; measured, on the low side.

XLA makes one loop of what it fuses; a reduction ends one. Nanoseconds are those of one core; where versions of XLA
differ the table has the fastest, and what a series of JAX is known to be slower at is added.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import jax
from jax.extend.core import primitives as p

from graphopt.analysis.access import MOVES
from graphopt.analysis.factors import blocked, blocked_among
from graphopt.analysis.indexed import GATHER
from graphopt.analysis.machine import FRESH, Machine
from graphopt.analysis.pieces import pieces_of
from graphopt.analysis.products import DOT, TRANSPOSE, is_crossed
from graphopt.analysis.reductions import (
    ADD,
    AND,
    CUMLOGSUMEXP,
    CUMULATIVE,
    MAX,
    MIN,
    MUL,
    OR,
    REDUCTIONS,
    XOR,
    axes_of,
    elements_reduced,
    is_arg,
)
from graphopt.analysis.scattering import SCATTERS
from graphopt.analysis.sorting import SORT
from graphopt.analysis.xla_indexed import (
    UPDATE,
    gathered_time,
    indexed_bytes,
    is_known_gather,
    is_known_scatter,
    is_known_update,
    looked_up_time,
    scattered_time,
    updated_bytes,
)
from graphopt.analysis.xla_products import called_time, is_called_one_by_one
from graphopt.ir.aval import Aval, is_floating
from graphopt.ir.graph import Graph, make_graph
from graphopt.ir.node import Node, param
from graphopt.ir.op import CONSTANT, PARAM, PROJECT, Op, op_of, ops_of
from graphopt.ops.local import RETYPE
from graphopt.ops.make import BROADCAST
from graphopt.rewrite.pattern import splat

ARITHMETIC = 0.006
"""Nanoseconds for a byte of the result: a sum, a product, a comparison."""

MOVED = 0.015
"""Nanoseconds of a byte of an operand or a result."""

TOUCHED = 0.4
"""Nanoseconds of a byte of what is written to pages that no one has touched and read again."""

_MOVING = {
    "slice": 0.012,
    "rev": 0.016,
    "concatenate": 0.012,
    "pad": 0.045,
    "transpose": 0.02,
    "broadcast_in_dim": 0.006,
}

MOVING: Mapping[Op, float] = {op: _MOVING[name] for name, op in ops_of(_MOVING).items()}
"""Nanoseconds of a byte of an operand or a result where nothing is computed, with all threads: one by one pads and
reversals take longer than copies."""

COPIED = 0.006
"""And of other operations that only move data."""

UNROLLED = 4
"""Elements along the last axis up to which LLVM knows of each where it is, in the body of a loop: the coordinates of
points, say. Measured of 1,000 points with three."""

PADDED, JOINED = 0.1, 0.3
"""Nanoseconds of an element that is asked for of what is padded or put together along the last axis, by a loop that
computes something: XLA asks of each where it is. A stencil asks for nine."""

REDUCED, REDUCED_COLUMNS = 0.02, 0.035
"""Nanoseconds of a byte of what is reduced: along the last axis, and where that is kept."""

INTEGERS_REDUCED: Mapping[Op, float] = {**dict.fromkeys((ADD, AND, OR, XOR), 0.15), MUL: 0.35, MAX: 0.25, MIN: 0.25}
"""And at least so many of an integer or a boolean along the last axis, however narrow: a vector has the same few of
them. A sum of a million int8 takes 0.11 to 0.15 ms on two cores, one of int64 as long. (Measured 0.2 to 0.3, of
products 0.4 to 0.9; a greatest or least number is looked for by branches, which take 0.3 where they are foreseen and
3.5 where not. Of one byte it takes 0.1, in vectors.)"""

CHOSEN, CHOSEN_TRUTHS = 1.0, 0.4
"""And of an element that is found by comparing or choosing where it is reduced, as in means that leave out NaN: XLA
makes no vectors then. Measured 0.4 to 1.0 on one processor, 2.6 to 4.0 on another; of any and all 0.4 to 0.6."""

TRUTHS = frozenset(op for op, of in REDUCTIONS.items() if of.combine in (AND, OR))

CHOICES = frozenset(ops_of(("select_n", "eq", "ne", "lt", "le", "gt", "ge", "is_finite")).values())

CROSSED_NEAR, CROSSED, CROSSED_FAR = 0.2, 0.6, 1.0
"""And of an element that lies across what it is computed with, as in what is added to something transposed: XLA reads
one of each line of memory. The first of what a core's first cache has room for, the last of what is larger than FAR.
(On two cores A + B.T of 1000x1000 takes 0.3 to 0.8 ms, A + B 0.2. In the body of a loop it is in the caches: there a
kernel of a sum with something transposed, of 64x64 to 256x256, takes longer than XLA.)"""

NEAR, FAR = 1 << 15, 1 << 23
"""Bytes of an operand that lies across: up to which its lines are all found again, and from which on few are."""

LOOP = 500.0
"""Nanoseconds of one more loop."""

LOOP_AGAIN, NUMBER_AGAIN = 20.0, 2.0
"""And of one in the body of a loop, of an array, and of a number: XLA makes one function of what is over few bytes."""

MOVED_IN_LOOP = 0.0075
"""Nanoseconds of a byte of an operand or a result in the body of a loop: nothing is handed over to other threads, and
caches have what the step before left there."""

HELD, CROWDED = 4, 1.4
"""How much longer a loop takes than its operations by themselves where it has more than so many functions: their values
do not fit into registers. Black-Scholes takes 4.1 ns where the sum is 2.9."""

TURN, WAKE = 20_000.0, 18_000.0
"""Nanoseconds of work from which on XLA gives some to other threads, and of these beginning and ending together: exp of
50k elements takes 16 µs, of 100k 34 to 50, of a million 200."""

SHARED_ROWS, SHARED_COLUMNS = 1 << 17, 1 << 18
"""Bytes of what is reduced from which on others get some of it, however little work that is: 128 kB along the last axis
take 10 to 25 µs, 144 kB 37 to 80. Columns: from as much on 0.10, from about twice that on 0.12."""

HANDED_OVER, OPERATIONS = 4_000.0, 1_000
"""Nanoseconds of beginning and ending a program on another thread than the caller's, as XLA does with programs of so
many operations (those of reductions too; functions do not count, nor do kernels): 4 to 9 µs where that thread is awake,
and 20 to 45 where it is not."""

INTEGER_DIVISION, BY_A_NUMBER = 1.0, 4
"""Nanoseconds of an element, and as how many other operations one counts by a known number."""

_FUNCTIONS: dict[str, tuple[float, float]] = {
    "div": (0.05, 0.1),
    "rem": (13.0, 25.0),
    "sqrt": (0.05, 0.1),
    "rsqrt": (0.06, 0.1),
    "cbrt": (10.0, 10.5),
    "exp": (0.13, 0.3),
    "exp2": (0.13, 0.75),
    "expm1": (0.4, 0.7),
    "log": (0.2, 2.0),
    "log1p": (0.45, 2.5),
    "log2": (0.2, 2.0),
    "sin": (1.5, 7.0),
    "cos": (1.5, 7.0),
    "tan": (6.0, 7.0),
    "tanh": (0.15, 0.15),
    "sinh": (1.0, 3.9),
    "cosh": (0.4, 1.8),
    "asin": (8.0, 9.5),
    "acos": (12.0, 10.5),
    "atan": (0.12, 0.6),
    "atan2": (12.0, 11.0),
    "asinh": (1.3, 3.0),
    "acosh": (1.1, 3.0),
    "atanh": (1.0, 3.0),
    "erf": (0.12, 2.3),
    "erfc": (0.6, 2.0),
    "pow": (3.0, 8.0),
    "logistic": (0.3, 1.0),
}
"""Nanoseconds in float32 and in float64."""

_SLOWER: dict[str, dict[str, tuple[float, float]]] = {
    "0.10": {"rsqrt": (1.2, 1.5), "atan": (7.0, 7.0)},
}
"""By series of JAX: what it is known to be slower at."""

_MOVED_OF_SERIES = {"0.10": 0.03}

SERIES = ".".join(jax.__version__.split(".")[:2])
"""Of the JAX that is installed."""

FUNCTIONS: Mapping[Op, tuple[float, float]] = {
    op: _SLOWER.get(SERIES, {}).get(name, _FUNCTIONS[name]) for name, op in ops_of(_FUNCTIONS).items()
}

# fmt: off
NOT_COUNTED = frozenset(ops_of((
    "exp", "expm1", "log", "log1p", "pow", "sqrt", "rsqrt", "cbrt", "tanh", "sin", "cos", "tan", "erf", "atan2",
)).values())
# fmt: on
"""Functions that XLA does not count among a program's operations; what it makes others of, it does."""

PAD, CONCATENATE, REV, RESHAPE = (op_of(each) for each in (p.pad_p, p.concatenate_p, p.rev_p, p.reshape_p))
DIVISIONS = {op_of(p.div_p), op_of(p.rem_p)}
COUNTED = {op_of(p.iota_p), *MOVES, *(op for op in REDUCTIONS)}

BITCAST = op_of(p.bitcast_convert_type_p)

ONE_BY_ONE, BY_COLUMNS, BESIDE = 0.2, 0.1, 0.03
"""Nanoseconds of an operation on an element of a piece that is reduced: where a few coordinates are combined for each,
which keeps XLA's loops from being vectorized; where the last axis is kept; and otherwise."""

FEW = 16
"""Elements of a reduction up to which they are few."""

WRITTEN = 1 << 20
"""Bytes of a product's factor that takes time to write and read."""

RATE, FLOPS = 10.0, 40.0
"""Bytes and floating-point operations a nanosecond of one core, of operations that no kernel could do."""

PACKING, PACKED, TOGETHER = 0.02, 20_000.0, 30_000.0
"""Nanoseconds that a product takes besides its arithmetic: for each operation, but no more than the second; and with
all threads. XLA puts both factors into blocks first. On two cores 64x64 matrices take 15 µs, of which 5 are arithmetic,
128x128 matrices 64 of 41, and 256x256 matrices 200, of which 163 would be arithmetic."""

TURNED = 0.4
"""And of an element of a first factor that lies across, as in the gradient of a layer's weights: measured 0.5 to 4."""


def is_known(node: Node) -> bool:
    """Whether XLA's time for an operation can be predicted."""
    if node.op is DOT:
        known = _is_slow_product(node) or is_crossed(node) or is_called_one_by_one(node)
        return known or blocked(node) is not None
    if node.op is GATHER:
        return is_known_gather(node)
    if node.op is UPDATE or node.op in SCATTERS:
        return is_known_update(node) or is_known_scatter(node)
    return (node.op in COUNTED and not is_arg(node)) or _is_elementwise(node)


def _is_elementwise(node: Node) -> bool:
    """Whether each element of the result is computed of those at its place: bits under another type too."""
    return node.op.elementwise or (node.op is BITCAST and node.aval.shape == node.inputs[0].aval.shape)


def _is_slow_product(node: Node) -> bool:
    """Whether a product is of a large array that XLA computes first and writes to memory.

    Its other products are as fast as memory, or as arithmetic.
    """
    return max(map(_written, node.inputs)) >= WRITTEN


def _written(factor: Node) -> int:
    """Bytes that XLA writes to memory of a product's factor: what is computed element by element, or is in 16 bits."""
    if is_floating(factor.aval.dtype) and factor.aval.dtype.itemsize == 2:
        return 2 * factor.aval.nbytes
    return factor.aval.nbytes if factor.op.elementwise and factor.op not in MOVES else 0


def core_time(node: Node) -> float:
    """Nanoseconds of one core that an operation adds to the loop that it is in."""
    aval = node.avals[0]
    if node.op is DOT:
        crossed = _crossed(node.inputs[0].aval) + REDUCED * node.inputs[0].aval.nbytes if is_crossed(node) else 0.0
        return crossed + sum((TOUCHED if size >= FRESH else 2 * MOVED) * size for size in map(_written, node.inputs))
    if node.op is GATHER:
        return gathered_time(node)
    if node.op in REDUCTIONS:
        return reduced_time(node)
    if not _is_elementwise(node) or node.op in MOVES or aval.dtype is None:
        return 0.0
    if node.op in DIVISIONS and aval.dtype.kind in "iu":
        # By a known number it is products and shifts.
        by_a_number = splat(node.inputs[1]) is not None
        return BY_A_NUMBER * ARITHMETIC * aval.nbytes if by_a_number else INTEGER_DIVISION * aval.size
    if node.op in FUNCTIONS:
        return FUNCTIONS[node.op][aval.dtype.itemsize > 4] * aval.size
    return ARITHMETIC * max(aval.nbytes, *(n.aval.nbytes for n in node.inputs))


def reduced_time(node: Node) -> float:
    """Nanoseconds of one core in which XLA combines what it reduces."""
    aval, combine = node.inputs[0].aval, REDUCTIONS[node.op].combine
    if len(aval.shape) - 1 not in axes_of(node):
        return REDUCED_COLUMNS * aval.nbytes
    in_vectors = aval.dtype.kind not in "biu" or (combine in (MAX, MIN) and aval.dtype.itemsize == 1)
    return max(REDUCED * aval.nbytes, 0.0 if in_vectors or is_arg(node) else INTEGERS_REDUCED[combine] * aval.size)


def is_handed_over(body: Graph) -> bool:
    """Whether XLA runs a program that is this body on another thread than the caller's."""
    counted = (n for n in body.nodes if _is_elementwise(n) and n.op not in MOVES and n.op not in NOT_COUNTED)
    reduced = sum(n.inputs[0].aval.size for n in body.nodes if n.op in REDUCTIONS)
    return reduced + sum(n.avals[0].size for n in counted) >= OPERATIONS


def is_shared_reduction(body: Graph) -> bool:
    """Whether XLA reduces something in a body with several threads."""
    reduced = [(node, node.inputs[0].aval) for node in body.nodes if node.op in REDUCTIONS]
    return any(
        aval.nbytes > (SHARED_ROWS if len(aval.shape) - 1 in axes_of(node) else SHARED_COLUMNS)
        for node, aval in reduced
    )


def fused_time(body: Graph, machine: Machine, again: bool = False) -> float:
    """Nanoseconds that one run of a body takes in XLA; what no time is known of takes none.

    again: whether it is run again and again within a program.
    """
    alone = sum(scattered_time(n) if n.op in SCATTERS else called_time(n) for n in body.nodes)
    size = max(0, sum(n.aval.nbytes for n in (*body.params, *body.outputs)) - indexed_bytes(body))
    # What a reduction's result is needed with again is stored before and read after it.
    inner = [n.inputs[0].aval.nbytes for n in body.nodes if n.op in REDUCTIONS and n not in body.outputs]
    stored = sum(inner) if any(n.op is BROADCAST for n in body.nodes) else 0
    computing = sum(map(core_time, body.nodes)) + edges_time(body, again) + looked_up_time(body)
    computing += 0.0 if again else crossed_time(body)
    if sum(1 for node in body.nodes if node.op in FUNCTIONS) > HELD:
        computing *= CROWDED
    moved = MOVED_IN_LOOP if again else _MOVED_OF_SERIES.get(SERIES, MOVED)
    core = moved * (size + stored + updated_bytes(body)) + computing
    loops = 1 + sum(1 for node in body.nodes if node.op in REDUCTIONS)
    core = max(core, streamed_time(body)) + chosen_time(body)
    threads = machine.threads if core > TURN or (is_shared_reduction(body) and not again) else 1
    if all(node.op in MOVES or node.op in (PARAM, CONSTANT) for node in body.nodes):
        core, threads = max(map(_moving_rate, body.nodes)) * size, 1
        joined = sum(JOINED * node.aval.size for node in body.nodes if _is_joined_one_by_one(node))
        if joined > core:
            core, threads = joined, machine.threads if joined > TURN else 1
    each = LOOP if not again else LOOP_AGAIN if any(n.aval.shape for n in body.outputs) else NUMBER_AGAIN
    total = core / threads + loops * each + (WAKE if threads > 1 else 0.0) + alone
    total = max(total, machine.moving(size, machine.threads))
    fresh = sum(n.aval.nbytes for n in body.outputs)
    return total + (fresh / machine.page_rate if fresh >= FRESH else 0.0)


def _moving_rate(node: Node) -> float:
    """Nanoseconds of a byte where nothing is computed."""
    if node.op is REV and len(node.aval.shape) - 1 not in node.attrs["dimensions"]:
        return COPIED  # whole rows
    return MOVING.get(node.op, COPIED)


def _is_joined_one_by_one(node: Node) -> bool:
    """Whether XLA puts together, of operands that it copies or does not, element by element what lies side by side.

    Rows of arguments it copies whole, where they are not short.
    """
    if node.op is not CONCATENATE or node.attrs["dimension"] != len(node.aval.shape) - 1:
        return False
    made = any(operand.op not in (PARAM, CONSTANT, RESHAPE, BROADCAST) for operand in node.inputs)
    return made or max(operand.aval.shape[-1] for operand in node.inputs) <= FEW


def edges_time(body: Graph, again: bool) -> float:
    """Nanoseconds of one core in which XLA finds out where elements come from, again for each that asks for them.

    again: whether the body is run again and again within a program.
    """
    asked = dict.fromkeys(body.nodes, 0)
    for node in body.outputs:
        asked[node] += 1
    total = 0.0
    for node in reversed(body.nodes):
        for operand in dict.fromkeys(node.inputs):
            asked[operand] += asked[node] if node.op in MOVES else 1
        last = len(node.avals[0].shape) - 1
        if last < 0 or (again and node.avals[0].shape[last] <= UNROLLED):
            continue
        if node.op is PAD and any(node.attrs["padding_config"][last]):
            total += PADDED * asked[node] * node.aval.size
        elif node.op is CONCATENATE and node.attrs["dimension"] == last:
            total += JOINED * asked[node] * node.aval.size
    return total


def crossed_time(body: Graph) -> float:
    """Nanoseconds of one core in which XLA reads across what is transposed, where it is computed with what is not.

    (Where all is transposed that is computed with each other, XLA may do that last.)
    """
    orders: dict[Node, frozenset[bool]] = {}
    turned: list[Node] = []
    for node in body.nodes:
        found = frozenset[bool]().union(*(orders[operand] for operand in node.inputs))
        if node.op is PARAM:
            found = frozenset({False} if len(node.aval.shape) > 1 else ())
        elif node.op is TRANSPOSE and node.attrs["permutation"][-1] != len(node.aval.shape) - 1:
            found = frozenset(not order for order in found)
            turned.append(node)
        orders[node] = found
    are_both = any(len(found) > 1 for found in orders.values())
    return sum(_crossed(node.aval) for node in turned) if are_both else 0.0


def _crossed(aval: Aval) -> float:
    each = CROSSED_NEAR if aval.nbytes <= NEAR else CROSSED if aval.nbytes < FAR else CROSSED_FAR
    return each * aval.size


def chosen_time(body: Graph) -> float:
    """Nanoseconds of one core in which XLA reduces what it finds by comparing or choosing."""

    def is_choice(node: Node) -> bool:
        return node.op in CHOICES

    truths = elements_reduced(body, is_choice, _is_elementwise, TRUTHS)
    others = elements_reduced(body, is_choice, _is_elementwise, REDUCTIONS.keys() - TRUTHS)
    return CHOSEN * others + CHOSEN_TRUTHS * truths


def streamed_time(body: Graph) -> float:
    """Nanoseconds of one core that XLA takes for what is large, made of little, and reduced: all pairs of points, say.

    XLA computes such elements again for each reduction that needs them, or writes them to memory; here they count once.
    """
    pieces = pieces_of(body, lambda node: True, lambda node: 0.0)
    reduced = [n for n in body.nodes if n.op in REDUCTIONS and n.inputs[0] in pieces]
    if not reduced:
        return 0.0
    few = any(math.prod(n.inputs[0].aval.shape[axis] for axis in axes_of(n)) <= FEW for n in reduced)
    columns = any(len(n.inputs[0].aval.shape) - 1 not in axes_of(n) for n in reduced)
    each = ONE_BY_ONE if few else BY_COLUMNS if columns else BESIDE
    nodes = [n for n in body.nodes if n in pieces and n.op.elementwise and n.op not in MOVES] + reduced
    return sum(max(each * max(n.aval.size, n.inputs[0].aval.size), core_time(n)) for n in nodes)


def alone_time(node: Node, machine: Machine) -> float:
    """Nanoseconds that an operation takes that no kernel could do: roughly, for it is only to compare with."""
    if node.op in (PARAM, CONSTANT, PROJECT, RETYPE) or node.op.primitive is None or node.op in MOVES:
        return 0.0
    if node.op in (SORT, *CUMULATIVE, CUMLOGSUMEXP) or (node.subgraphs and node.op not in SCATTERS):
        return 0.0
    ins, outs = [n.aval for n in node.data_inputs], node.data_avals
    if not all(aval.is_static for aval in (*ins, *outs)):
        return math.inf
    flops = node.op.flops(node.attrs, ins, outs) if node.op.flops is not None else 0
    moved = sum(aval.nbytes for aval in (*ins, *outs))
    time = max(flops / FLOPS, moved / RATE) / machine.threads
    return max(time, scattered_time(node) if node.op in SCATTERS else called_time(node))


def product_time(node: Node, machine: Machine) -> float:
    """Nanoseconds that a product takes in XLA, by its arithmetic or by what it reads and writes."""
    moved = sum(n.aval.nbytes for n in (*node.inputs, node))
    core = max(_arithmetic(node, machine), moved * MOVED)
    alone = core + min(PACKED, PACKING * _flops(node))
    computing = min(alone, core / machine.threads + TOGETHER) + TURNED * _turned(node)
    return LOOP + max(computing, machine.moving(moved, machine.threads))


def _turned(node: Node) -> int:
    """Elements of the first factor of a product, where those that are summed do not lie beside each other."""
    found = blocked(node)
    return node.inputs[0].aval.size if found is not None and found.factors[0].summed.step != 1 else 0


def blocked_time(body: Graph, machine: Machine, again: bool = False) -> float:
    """Nanoseconds that XLA takes for the products of matrices in a body, each by itself.

    again: whether it is run again and again within a program: one core computes them there, and they take no longer
    than their arithmetic.
    """
    return sum(
        _arithmetic(node, machine) if again else product_time(node, machine) for node in blocked_among(body.nodes)
    )


def _arithmetic(product: Node, machine: Machine) -> float:
    """Nanoseconds of one core in which XLA multiplies and adds what a product asks for."""
    return machine.multiplying_in_xla(_flops(product), product.aval.dtype.itemsize)


def _flops(product: Node) -> int:
    flops = product.op.flops
    return 0 if flops is None else flops(product.attrs, [n.aval for n in product.inputs], [product.aval])


def without_products(body: Graph) -> Graph | None:
    """What XLA computes of a body in its loops, with the products of matrices as operands; None where it is nothing."""
    if not blocked_among(body.nodes):
        return body
    outputs = [node for node in body.outputs if blocked(node) is None]
    if not outputs:
        return None
    params: list[Node] = []
    mapping: dict[Node, Node] = {}
    for node in make_graph(body.params, outputs).nodes:
        if node.op is PARAM or blocked(node) is not None:
            mapping[node] = param(len(params), node.aval)
            params.append(mapping[node])
        else:
            mapping[node] = node.with_inputs(tuple([mapping[n] for n in node.inputs]))
    return make_graph(params, [mapping[n] for n in outputs])
