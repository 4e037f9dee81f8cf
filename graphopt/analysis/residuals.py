"""What one loop keeps of its steps for another: less, where the other one computes it again as fast as it reads it."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from graphopt.analysis.growth import source_of
from graphopt.analysis.repetition import Earlier, Operand, Same, Stretch, Varying, from_outside, place_of
from graphopt.ir.node import Node
from graphopt.ir.op import CONSTANT, ops_of

# fmt: off
CHEAP = frozenset(ops_of((
    "abs", "add", "and", "broadcast_in_dim", "convert_element_type", "copy", "eq", "ge", "gt", "integer_pow", "le",
    "lt", "max", "min", "mul", "ne", "neg", "not", "or", "reshape", "select_n", "sign", "square", "squeeze", "sub",
    "transpose", "xor",
)).values())
# fmt: on
"""Operations that take no longer than to read what they give."""

MOST_OPERATIONS = 4
"""How many operations one value is computed with again at most."""


def recompute_cheap(stretch: Stretch, others: Sequence[Stretch]) -> None:
    """Lets the steps compute again what they read of other stretches, where that is cheap and needs no more of them."""
    known = {o.nodes for row in stretch.operands for o in row if isinstance(o, Varying)}
    again: dict[tuple[Node, ...], Operand | None] = {}
    for row, operands in enumerate(stretch.operands):
        new = list(operands)
        for index, operand in enumerate(operands):
            if isinstance(operand, Varying) and source_of(operand.nodes, others) is not None:
                if operand.nodes not in again:
                    again[operand.nodes] = _again(stretch, operand.nodes, others, known)
                new[index] = again[operand.nodes] or operand
        stretch.operands[row] = tuple(new)


def computed_again(stretch: Stretch, rows: Collection[int], kept: Collection[int]) -> set[int]:
    """Of these rows those of which a value is cheap to compute from the others of `kept` in the same step, and from
    what lies outside."""
    found: set[int] = set()
    needed: set[int] = set()
    for row in rows:
        bases = None if row in needed else _bases(stretch, row, set(kept) - found - {row})
        if bases is not None:
            found.add(row)
            needed |= bases
    return found


def _bases(stretch: Stretch, row: int, kept: Collection[int]) -> set[int] | None:
    """The kept rows from which a row is computed by few cheap operations; None where it is not."""
    bases: set[int] = set()
    formula, todo = {row}, [row]
    while todo:
        current = todo.pop()
        if len(formula) > MOST_OPERATIONS or not _is_cheap(stretch.rows[current]):
            return None
        for operand in stretch.operands[current]:
            if isinstance(operand, Earlier):
                return None
            if isinstance(operand, Same) and operand.row in kept:
                bases.add(operand.row)
            elif isinstance(operand, Same) and operand.row not in formula:
                formula.add(operand.row)
                todo.append(operand.row)
    return bases


def _again(
    stretch: Stretch, nodes: tuple[Node, ...], others: Sequence[Stretch], known: set[tuple[Node, ...]]
) -> Operand | None:
    """The row that computes these nodes again; None where they are better read."""
    formula: list[tuple[Node, ...]] = []
    todo, bytes_read = [nodes], 0
    while todo:
        current = todo.pop()
        first = current[0]
        if current in formula:
            continue
        is_needed = current in known and current is not nodes
        if is_needed or first.op is CONSTANT or all(node is first for node in current):
            continue
        if len(formula) < MOST_OPERATIONS and _is_cheap(current):
            formula.append(current)
            todo.extend(_inputs(current))
            continue
        if source_of(current, others) is None:
            return None
        bytes_read += first.aval.nbytes
        if bytes_read > nodes[0].aval.nbytes or len(todo) > MOST_OPERATIONS:
            return None
    if nodes not in formula or (bytes_read == nodes[0].aval.nbytes and len(formula) > 1):
        return None
    return Same(_add(stretch, nodes, set(formula), {}, known))


def _add(
    stretch: Stretch,
    nodes: tuple[Node, ...],
    formula: set[tuple[Node, ...]],
    made: dict[tuple[Node, ...], int],
    known: set[tuple[Node, ...]],
) -> int:
    if nodes not in made:
        operands: list[Operand] = []
        for inputs in _inputs(nodes):
            if inputs in formula:
                operands.append(Same(_add(stretch, inputs, formula, made, known)))
            else:
                operands.append(from_outside(inputs))
                known.add(inputs)
        made[nodes] = stretch.append(nodes, tuple(operands), again=True)
    return made[nodes]


def _inputs(nodes: tuple[Node, ...]) -> list[tuple[Node, ...]]:
    return [tuple(inputs) for inputs in zip(*[node.inputs for node in nodes], strict=True)]


def _is_cheap(nodes: tuple[Node, ...]) -> bool:
    first = nodes[0]
    if first.op not in CHEAP or place_of(first) is not None:
        return False
    return all(n.op is first.op and n.attrs == first.attrs and n.avals == first.avals for n in nodes)
