"""What XLA on CPUs computes a few rows at a time by itself: two products, and what is done with the rows between them.

Its library fusion (`__ynn_fusion`, YNNPACK) makes one function of a product, elementwise operations and reductions of
its result, and a product that sums over that: the large array between the products never exists as a whole. Which
operations it takes was found by compiling attention with one operation more each (jax 0.11 and 0.12). So it is on jax
0.10, too, where the function takes longer than the same computed in blocks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import jax.numpy as jnp
import numpy as np
from jax.extend.core import primitives as p

from graphopt.analysis.chunking import NEAR
from graphopt.analysis.products import DOT, sizes_of
from graphopt.analysis.xla_time import SERIES
from graphopt.ir.graph import Graph
from graphopt.ir.node import Node
from graphopt.ir.op import op_of, ops_of
from graphopt.ops.make import BROADCAST, CONVERT

SLOW_SERIES = ("0.10",)
"""The series of JAX whose XLA takes longer for it than for blocks."""

ROWS = 4096
"""Of all matrices side by side: with fewer it makes several functions of them, however long they are."""

DTYPES = (np.dtype(np.float32), np.dtype(jnp.bfloat16))

# fmt: off
ELEMENTWISE = frozenset(ops_of((
    "abs", "neg", "add", "sub", "mul", "div", "max", "min", "exp", "expm1", "log", "log1p", "sqrt", "rsqrt", "sin",
    "cos", "tan", "tanh", "erf", "logistic", "floor", "round", "sign", "square", "pow", "integer_pow",
)).values())
# fmt: on
"""Those that it takes; not cbrt, clamp, select_n, comparisons, atan2, rem or what is made of integers."""

REDUCED = frozenset(ops_of(("reduce_max", "reduce_min", "reduce_sum")).values())

RESHAPE = op_of(p.reshape_p)


def unstored(graph: Graph) -> dict[Node, frozenset[Node]]:
    """The products of a graph whose results XLA does not store, and for each what it computes of it before the next."""
    products = [node for node in graph.nodes if node.op is DOT and _is_taken(node)]
    if SERIES in SLOW_SERIES or not products:
        return {}
    users, outputs = graph.users(), frozenset(graph.outputs)
    place = {node: number for number, node in enumerate(graph.nodes)}
    found: dict[Node, frozenset[Node]] = {}
    for product in products:
        last = _last(product, users, outputs)
        between = None if last is None else _between(product, last, place)
        if between is not None:
            found[product] = between
    return found


def _last(product: Node, users: Mapping[Node, Sequence[Node]], outputs: frozenset[Node]) -> Node | None:
    """The one other product that reads what is made of a product; None where there is no such one, or where nothing
    is reduced on the way. What is small, as the sums of rows are, may be read by others too."""
    last: set[Node] = set()
    seen, stack, is_reduced = {product}, [product], False
    while stack:
        current = stack.pop()
        if current in outputs:
            return None
        for user in users[current]:
            if user.op is DOT:
                last.add(user)
            elif not _is_taken(user):
                return None
            elif user.aval.size * NEAR < product.aval.size:
                is_reduced = is_reduced or user.op in REDUCED
            elif user not in seen:
                seen.add(user)
                stack.append(user)
    if len(last) != 1 or not is_reduced:
        return None
    (found,) = last
    return found if _is_taken(found) and product.aval.size >= ROWS * sizes_of(found)[2] else None


def _between(product: Node, last: Node, place: Mapping[Node, int]) -> frozenset[Node] | None:
    """What `last` reads that is made of a product; None where something of that is not taken."""
    before, stack = set[Node](), [last]
    while stack:
        more = {n for n in stack.pop().inputs if place[n] > place[product] and n not in before}
        before |= more
        stack += more
    found = {product}
    for node in sorted(before, key=place.__getitem__):
        if not found.isdisjoint(node.inputs):
            if not _is_taken(node):
                return None
            found.add(node)
    return frozenset(found - {product})


def _is_taken(node: Node) -> bool:
    """Whether an operation can be part of such a function."""
    if len(node.avals) != 1 or not all(n.aval.is_plain and n.aval.is_static for n in (node, *node.inputs)):
        return False
    if any(n.aval.dtype not in DTYPES for n in (node, *node.inputs)):
        return False
    if node.op is RESHAPE:
        before, after = ([size for size in n.aval.shape if size > 1] for n in (node.inputs[0], node))
        return before == after
    return node.op in ELEMENTWISE or node.op in REDUCED or node.op in (DOT, BROADCAST, CONVERT)
