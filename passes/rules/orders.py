"""Rules for what changes the order of elements: reversal."""

from __future__ import annotations

from jax.extend.core import primitives as p

from graphopt.ir.node import Node
from graphopt.passes.rules.moving import CONCATENATE, MOVES, REV, Uses, concatenated, reversed_along
from graphopt.rewrite.rule import AnyRule, rewrites


@rewrites(p.rev_p, safety=MOVES, law="identity")
def reversal_of_one_element(node: Node) -> Node | None:
    """rev(x) → x along axes of at most one element"""
    x, axes = node.inputs[0], node.attrs["dimensions"]
    short = not axes or any(x.aval.shape[axis] < 2 for axis in axes)
    return reversed_along(x, axes) if short else None


@rewrites(p.rev_p, safety=MOVES, law="inverse")
def reversal_of_reversal(node: Node) -> Node | None:
    """rev(rev(x)) → x, or one rev"""
    inner = node.inputs[0]
    if inner.op is not REV:
        return None
    axes = set(node.attrs["dimensions"]) ^ set(inner.attrs["dimensions"])
    return reversed_along(inner.inputs[0], sorted(axes))


@rewrites(p.rev_p, safety=MOVES, law="movement")
def reversal_of_concatenated_reversals(node: Node, uses: Uses) -> Node | None:
    """rev(concatenate(rev(x), rev(y))) → concatenate(y, x)"""
    inner = node.inputs[0]
    if inner.op is not CONCATENATE or uses(inner) > 1 or inner.attrs["dimension"] not in node.attrs["dimensions"]:
        return None
    if any(n.op is not REV or n.attrs != node.attrs for n in inner.inputs):
        return None
    return concatenated([n.inputs[0] for n in reversed(inner.inputs)], inner.attrs["dimension"])


RULES: tuple[AnyRule, ...] = (reversal_of_one_element, reversal_of_reversal, reversal_of_concatenated_reversals)

DECLINED: dict[str, str] = {
    "rev": "rev(f(x)) → f(rev(x)) moves as many elements: a reversal stays where it is written unless "
    "another undoes it.",
}
