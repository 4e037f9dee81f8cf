"""Conditions of rules on a match: whether anything else reads what a rule makes superfluous."""

from __future__ import annotations

from collections.abc import Iterator

from graphopt.ir.node import Node
from graphopt.ir.op import CONSTANT
from graphopt.ops.make import BROADCAST
from graphopt.rewrite.rule import Match


def inner(match: Match) -> Iterator[Node]:
    """The operations that the left side found below its root."""
    leaves = set(match.values.values())
    stack = list(match.node.inputs)
    while stack:
        node = stack.pop()
        if node not in leaves and node.op is not CONSTANT and node.op is not BROADCAST:
            yield node
            stack.extend(node.inputs)


def unshared(match: Match) -> bool:
    """Whether nothing but the match reads the operations below its root, so that all of them go away."""
    return all(match.uses(node) == 1 for node in inner(match))


def one_unshared(match: Match) -> bool:
    """Whether of the operations below the root at least one goes away."""
    return any(match.uses(node) == 1 for node in inner(match))
