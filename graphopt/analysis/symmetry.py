"""Symmetry: arrays that are the same with two of their axes exchanged.

The distances of all points from each other are, and what is computed from them alone. A kernel that needs element
(i, j) and element (j, i), as the derivative of a sum over all pairs does, computes one of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations

import numpy as np
from jax.extend.core import primitives as p

from graphopt.analysis.access import Indices
from graphopt.analysis.reductions import REDUCTIONS, axes_of
from graphopt.ir.aval import is_floating
from graphopt.ir.graph import Graph
from graphopt.ir.node import Node
from graphopt.ir.op import op_of
from graphopt.ops.make import BROADCAST

ADD, SUB, MUL, NEG = (op_of(primitive) for primitive in (p.add_p, p.sub_p, p.mul_p, p.neg_p))
SQUARE, ABS, INTEGER_POW = (op_of(primitive) for primitive in (p.square_p, p.abs_p, p.integer_pow_p))

Pair = tuple[int, int]
"""Two axes of the same extent, in ascending order."""

Symmetries = Mapping[Node, tuple[Pair, ...]]
"""For each node the pairs of axes that can be exchanged."""

SAME, NEGATED = 1, -1
"""What comes of the exchange: the same bits, or the negative, but for the sign of zeros."""


def symmetries(body: Graph) -> Symmetries:
    """The pairs of axes whose exchange gives the same bits, of the nodes that have such, but for plain broadcasts."""
    if not any(_is_mirrored(node) for node in body.nodes):
        return {}
    signs: dict[Node, dict[Pair, int]] = {}
    for node in body.nodes:
        if len(node.avals) == 1 and node.aval.is_plain:
            found = {pair: _sign(node, pair, signs) for pair in combinations(range(len(node.aval.shape)), 2)}
            signs[node] = {pair: sign for pair, sign in found.items() if sign}
    same = {node: tuple(pair for pair, sign in found.items() if sign == SAME) for node, found in signs.items()}
    return {node: pairs for node, pairs in same.items() if pairs and node.op is not BROADCAST}


def in_order(at: Indices, pairs: tuple[Pair, ...]) -> Indices:
    """The indices of one and the same element wherever that is asked for, where these axes can be exchanged."""
    found = list(at)
    for a, b in pairs:
        if str(found[b]) < str(found[a]):
            found[a], found[b] = found[b], found[a]
    return tuple(found)


def _is_mirrored(node: Node) -> bool:
    return node.op in (ADD, SUB, MUL) and _are_mirrored(node, None)


def _are_mirrored(node: Node, pair: Pair | None) -> bool:
    """Whether both operands are broadcasts of one array that differ by an exchange of axes: of these, or of any."""
    x, y = node.inputs
    if not (x.op is y.op is BROADCAST and x.inputs[0] is y.inputs[0] and len(x.aval.shape) == len(y.aval.shape)):
        return False
    ours, theirs = x.attrs["broadcast_dimensions"], y.attrs["broadcast_dimensions"]
    if pair is None:
        return bool(ours != theirs)
    a, b = pair
    exchanged = {a: b, b: a}
    shape = tuple(x.aval.shape[exchanged.get(k, k)] for k in range(len(x.aval.shape)))
    return shape == y.aval.shape and tuple(exchanged.get(k, k) for k in ours) == tuple(theirs)


def _sign(node: Node, pair: Pair, signs: Mapping[Node, dict[Pair, int]]) -> int:
    """SAME, NEGATED, or zero where nothing is known of what comes of an exchange."""
    shape = node.aval.shape
    if shape[pair[0]] != shape[pair[1]]:
        return 0
    if node.op is BROADCAST:
        return _of_broadcast(node, pair, signs)
    if node.op in REDUCTIONS:
        kept = [k for k in range(len(node.inputs[0].aval.shape)) if k not in axes_of(node)]
        of = signs.get(node.inputs[0], {}).get((kept[pair[0]], kept[pair[1]]), 0)
        return of if of == SAME else 0  # a sum of negatives may be another zero
    if not node.op.elementwise:
        return 0
    if node.op in (ADD, SUB, MUL) and _are_mirrored(node, pair):
        if node.op is not SUB:
            return SAME
        return NEGATED if is_floating(node.aval.dtype) or np.issubdtype(node.aval.dtype, np.signedinteger) else 0
    found = {_of_operand(operand, pair, signs) for operand in node.inputs}
    if found == {SAME}:
        return SAME
    if found == {NEGATED} and _is_even(node):
        return SAME
    return NEGATED if found == {NEGATED} and node.op in (ADD, SUB, NEG) else 0


def _is_even(node: Node) -> bool:
    """Whether an operation gives the same bits for the negative of its operand, and for the other zero."""
    if node.op is INTEGER_POW:
        return bool(node.attrs["y"] % 2 == 0)
    return node.op in (SQUARE, ABS) or (node.op is MUL and node.inputs[0] is node.inputs[1])


def _of_operand(node: Node, pair: Pair, signs: Mapping[Node, dict[Pair, int]]) -> int:
    """The sign of an operand, which may have no dimensions, or axes of size one for those of its result."""
    shape = node.aval.shape
    if not shape or shape[pair[0]] == shape[pair[1]] == 1:
        return SAME
    return signs.get(node, {}).get(pair, 0)


def _of_broadcast(node: Node, pair: Pair, signs: Mapping[Node, dict[Pair, int]]) -> int:
    (operand,) = node.inputs
    spread = tuple(node.attrs["broadcast_dimensions"])
    # Of the axes of the result those that the operand has with more than one element.
    own = {to: k for k, to in enumerate(spread) if operand.aval.shape[k] != 1}
    if not any(axis in own for axis in pair):
        return SAME
    if not all(axis in own for axis in pair):
        return 0
    a, b = sorted((own[pair[0]], own[pair[1]]))
    return signs.get(operand, {}).get((a, b), 0)
