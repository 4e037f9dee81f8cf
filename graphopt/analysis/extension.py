"""Repeated stretches made longer: a step at their beginning that other things in the graph hid from view."""

from __future__ import annotations

from collections.abc import Sequence

from graphopt.analysis.repetition import (
    Earlier,
    Fixed,
    Numbering,
    Operand,
    Same,
    Stretch,
    Varying,
    descendants,
    place_of,
)
from graphopt.ir.graph import Graph
from graphopt.ir.node import Node, project
from graphopt.ir.op import PROJECT

MOST_STEPS = 3
"""By how many steps a stretch is made longer at most."""


def extended(graph: Graph, stretch: Stretch, others: Sequence[Stretch], numbering: Numbering) -> Stretch:
    """The stretch with the steps before its first one that compute alike, if there are any."""
    for _ in range(MOST_STEPS):
        longer = _Before(stretch, others, numbering).stretch()
        if longer is None:
            break
        behind = descendants(graph, longer, others)
        if not longer.is_sound or any(node in behind for node in longer.outside):
            break
        stretch = longer
    return stretch


class _Before:
    """The step before the first one: found from what the first one reads of it."""

    def __init__(self, stretch: Stretch, others: Sequence[Stretch], numbering: Numbering) -> None:
        self.old = stretch
        self.taken = {node for other in (stretch, *others) for node in other.columns}
        self.numbering = numbering
        self.found: dict[int, Node] = {}
        self.firsts: dict[tuple[int, tuple[Node, ...]], Node] = {}

    def stretch(self) -> Stretch | None:
        """The stretch with that step; None where there is none."""
        for operands in self.old.operands:
            for operand in operands:
                if isinstance(operand, Earlier) and not self.walk(operand.row, operand.firsts[0]):
                    return None
        if not self.found or not self.complete():
            return None
        rows = [(self.found[row], *nodes) for row, nodes in enumerate(self.old.rows)]
        longer = []
        for row, old in enumerate(self.old.operands):
            inputs = self.found[row].inputs
            longer.append(tuple([self.longer(o, n) for o, n in zip(old, inputs, strict=True)]))
        return Stretch(rows, longer)

    def longer(self, operand: Operand, node: Node) -> Operand:
        if isinstance(operand, Varying):
            return Varying((node, *operand.nodes))
        if isinstance(operand, Earlier):
            return Earlier(operand.row, operand.delay, (*operand.firsts[1:], node))
        return operand

    def walk(self, row: int, node: Node) -> bool:
        """Finds the step's nodes that `node`, of this row, is computed from; False where it is not computed alike."""
        stack = [(row, node)]
        while stack:
            row, node = stack.pop()
            known = self.found.get(row)
            if known is not None:
                if known is not node:
                    return False
                continue
            if node in self.taken or self.numbering(node) != self.numbering(self.old.rows[row][0]):
                return False
            self.found[row] = node
            for operand, read in zip(self.old.operands[row], node.inputs, strict=True):
                if isinstance(operand, Same):
                    stack.append((operand.row, read))
                elif isinstance(operand, Fixed):
                    if operand.node is not read:
                        return False
                elif isinstance(operand, Earlier) and self.before(operand, read) is not read:
                    return False
        return True

    def before(self, operand: Earlier, node: Node) -> Node:
        """What the step reads of an earlier one: `node`, or what is known already."""
        return self.firsts.setdefault((operand.row, operand.firsts), node)

    def complete(self) -> bool:
        """Adds what the step would have computed besides, and nobody reads of it."""
        return all(row in self.found or self.add(row) for row in range(len(self.old.rows)))

    def add(self, row: int) -> bool:
        stack = [row]
        while stack:
            row = stack[-1]
            first = self.old.rows[row][0]
            missing = [o.row for o in self.old.operands[row] if isinstance(o, Same) and o.row not in self.found]
            if missing:
                stack.extend(missing)
                continue
            stack.pop()
            if row in self.found:
                continue
            inputs = [self.read(operand) for operand in self.old.operands[row]]
            if place_of(first) is not None or any(node is None for node in inputs):
                return False
            known = tuple([node for node in inputs if node is not None])
            node = project(known[0], first.attrs["index"]) if first.op is PROJECT else first.with_inputs(known)
            if node in self.taken:
                return False
            self.found[row] = node
        return True

    def read(self, operand: Operand) -> Node | None:
        """What the step reads as this operand; None where that is not known."""
        if isinstance(operand, Same):
            return self.found[operand.row]
        if isinstance(operand, Fixed):
            return operand.node
        return self.firsts.get((operand.row, operand.firsts)) if isinstance(operand, Earlier) else None
