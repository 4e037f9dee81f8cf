"""Rules that move data movement outwards past elementwise operations: it cancels there, and broadcasts compute less."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from graphopt.ir.node import Node
from graphopt.ir.op import CONSTANT, Op
from graphopt.ops.make import BROADCAST
from graphopt.passes.rules.moving import (
    EXACT_OPS,
    FUNCTIONS,
    MOVES,
    RESHAPE,
    ROUNDED,
    SQUEEZE,
    TRANSPOSE,
    Uses,
    applied,
    broadcast,
    relabels,
    reshaped,
    transposed,
    uniform,
)
from graphopt.rewrite.rule import AnyRule, rewrites


def _whole(node: Node) -> tuple[int, ...]:
    """The positions of operands that an elementwise operation wants in full shape."""
    if node.op.name == "select_n":
        return tuple(range(1, len(node.inputs)))
    return (1,) if node.op.name == "clamp" else ()


def _moved(node: Node, moves: Callable[[Node], bool]) -> tuple[Node, list[Node]] | None:
    """The first operand that moves data, and all operands before the same movement; None where they differ."""
    first = next((n for n in node.inputs if moves(n)), None)
    if first is None or first.aval.shape != node.aval.shape:
        return None
    shape = first.inputs[0].aval.shape
    operands: list[Node] = []
    for position, n in enumerate(node.inputs):
        if n.op is first.op and n.attrs == first.attrs and n.inputs[0].aval.shape == shape:
            operands.append(n.inputs[0])
            continue
        scalar = uniform(n) if n.aval.shape else n
        if scalar is None:
            return None
        operands.append(broadcast(scalar, shape, ()) if position in _whole(node) else scalar)
    return first, operands


def _is_broadcast(n: Node) -> bool:
    return n.op is BROADCAST and len(n.inputs) == 1


def _repeat_later(node: Node, uses: Uses) -> Node | None:
    """f(broadcast(x), broadcast(y)) → broadcast(f(x, y))"""
    # Of a scalar and another broadcast, the other one decides.
    found = _moved(node, lambda n: _is_broadcast(n) and n.inputs[0].aval.shape != ()) or _moved(node, _is_broadcast)
    if found is None:
        return None
    first, operands = found
    core = applied(node.op, node.attrs, *operands)
    return broadcast(core, node.aval.shape, first.attrs["broadcast_dimensions"])


def _transpose_later(node: Node, uses: Uses) -> Node | None:
    """f(transpose(x), transpose(y)) → transpose(f(x, y))"""
    found = _moved(node, lambda n: n.op is TRANSPOSE)
    if found is None or _is_shared(node, TRANSPOSE, uses):
        return None
    first, operands = found
    if node.aval.dtype.itemsize > max(n.aval.dtype.itemsize for n in node.inputs):
        return None  # after a widening cast there is more to move
    return transposed(applied(node.op, node.attrs, *operands), first.attrs["permutation"])


def _reshape_later(node: Node, uses: Uses) -> Node | None:
    """f(reshape(x), reshape(y)) → reshape(f(x, y)); so for squeeze"""
    found = _moved(node, lambda n: (n.op is RESHAPE or n.op is SQUEEZE) and relabels(n))
    if found is None or _is_shared(node, found[0].op, uses):
        return None
    first, operands = found
    if not node.aval.shape and any(n.op is not first.op and n.op is not CONSTANT for n in node.inputs):
        return None  # a number beside others that are
    core = applied(node.op, node.attrs, *operands)
    return applied(first.op, first.attrs, core) if first.op is SQUEEZE else reshaped(core, node.aval.shape)


def _is_shared(node: Node, op: Op, uses: Uses) -> bool:
    """Whether an operand that is a result of `op` is read by another node too."""
    return any(n.op is op and uses(n) > node.inputs.count(n) for n in node.inputs)


def _scalar_operand(node: Node, uses: Uses) -> Node | None:
    """f(x, broadcast(c)) → f(x, c)"""
    if len(node.inputs) < 2:
        return None
    whole = _whole(node) or (() if len(node.inputs) == 2 else range(len(node.inputs)))
    operands: list[Node] = list(node.inputs)
    for position, n in enumerate(node.inputs):
        if position not in whole and n.op is BROADCAST and not n.inputs[0].aval.shape and n.aval.shape:
            operands[position] = n.inputs[0]
    if tuple(operands) == node.inputs or not any(n.aval.shape == node.aval.shape for n in operands):
        return None
    return applied(node.op, node.attrs, *operands)


def _pair(function: Callable[[Node, Uses], Node | None], name: str, of: tuple[Op, ...]) -> Sequence[AnyRule]:
    """The rule for exact operations, and the one for functions that are approximated."""
    law = "movement"
    return (
        rewrites(*EXACT_OPS, safety=MOVES, law=law, an_operand=of, name=f"{name} elementwise operation")(function),
        rewrites(*FUNCTIONS, safety=ROUNDED, law=law, an_operand=of, name=f"{name} function")(function),
    )


scalar_operand = rewrites(
    *EXACT_OPS, *FUNCTIONS, safety=MOVES, law="reduction", name="scalar operand", an_operand=[BROADCAST]
)(_scalar_operand)

RULES: tuple[AnyRule, ...] = (
    *_pair(_repeat_later, "broadcast past", (BROADCAST,)),
    scalar_operand,
    *_pair(_transpose_later, "transpose past", (TRANSPOSE,)),
    *_pair(_reshape_later, "reshape past", (RESHAPE, SQUEEZE)),
)

DECLINED: dict[str, str] = {}
