"""What stands between two products, row by row: how a body goes along the axes of a large array.

A product makes an array of all rows by all columns, operations go on with it, each row for itself, and other products
sum over its columns: attention is of this kind, and so are kernel matrices and layers with a function between them.
`analysis.row_blocks` writes its loop program.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from graphopt.analysis.axes import along
from graphopt.analysis.bitcast import changes_width
from graphopt.analysis.grouping import ALONE
from graphopt.analysis.products import DOT, axes_of
from graphopt.analysis.reductions import REDUCTIONS
from graphopt.analysis.windows import SELECTED
from graphopt.ir.graph import Graph, depth_first
from graphopt.ir.node import Node

Labels = tuple[int | None, ...]


@dataclass(frozen=True, slots=True)
class Between:
    """first: the product that makes the large array. rows, columns: its axes; all others are gone through one by one.
    lasts: the products that sum over its columns. labels: for each node made of it the axes of `first` that its own go
    along."""

    first: Node
    rows: int
    columns: int
    lasts: tuple[Node, ...]
    labels: dict[Node, Labels]

    @property
    def others(self) -> list[int]:
        """The axes that are gone through one by one."""
        return [axis for axis in range(len(self.first.aval.shape)) if axis not in (self.rows, self.columns)]

    @property
    def crosses(self) -> bool:
        """Whether an element of a row may be made of others of the row, so that none may be written over before."""
        return any(self._reads_others(node) for node in self.labels if node is not self.first and node.op is not DOT)

    def _reads_others(self, node: Node) -> bool:
        """Whether elements of a node are made of other columns than their own, sums over all of a row apart."""
        labels = self.labels[node]
        if node.op in REDUCTIONS:
            return any(label is None and size > 1 for label, size in zip(labels, node.aval.shape, strict=True))
        places = [along(node, axis) or () for axis in range(len(labels))]
        for k, operand in enumerate(node.inputs):
            of = self.labels.get(operand, ())
            here = [at[k] for at in places if k < len(at)]
            if self.columns in of and self.columns not in [of[axis] for axis in here if axis is not None]:
                return True
        return False


def between(body: Graph) -> Between | None:
    """How a body is computed row by row between its products; None where it cannot be."""
    products = [node for node in body.nodes if node.op is DOT]
    if not products or any(not _is_uniform(node) for node in products):
        return None
    if any(node.op in ALONE or node.op is SELECTED or changes_width(node) for node in body.nodes):
        return None  # these have loops of their own
    first = products[0]
    axes = axes_of(first)
    start = len(axes.batch[0])
    sides = [range(start, start + len(axes.free[0])), range(start + len(axes.free[0]), len(first.aval.shape))]
    for rows_side, columns_side in (sides, reversed(sides)):
        columns = [axis for axis in columns_side if first.aval.shape[axis] > 1]
        rows = max(rows_side, key=lambda axis: (first.aval.shape[axis], axis), default=None)
        if rows is not None and len(columns) == 1:
            found = _with(body, first, rows, columns[0], products[1:])
            if found is not None:
                return found
    return None


def _is_uniform(node: Node) -> bool:
    """Whether a product is of numbers that are multiplied as they are."""
    dtypes = {n.aval.dtype for n in (*node.inputs, node)}
    return len(dtypes) == 1 and node.aval.dtype.kind == "f" and node.aval.dtype.itemsize in (4, 8)


def _with(body: Graph, first: Node, rows: int, columns: int, lasts: Sequence[Node]) -> Between | None:
    """The body with these axes as rows and columns; None where that is not how it goes."""
    labels = _labels(body, first)
    if labels is None or not lasts:
        return None
    found = Between(first, rows, columns, tuple(lasts), labels)
    extents = first.aval.shape
    needed = {axis for axis in (*found.others, rows) if extents[axis] > 1}
    for node in lasts:
        given = [n in labels for n in node.inputs]
        if given == [True, True] or not any(given):
            return None
        side = given.index(True)
        axes, of = axes_of(node), labels[node.inputs[side]]
        if [of[axis] for axis in axes.summed[side]] != [columns] or rows in [of[axis] for axis in axes.batch[side]]:
            return None
        if len(axes.free[1 - side]) != 1 or not _is_all(of, node.inputs[side], needed | {columns}):
            return None
        above: list[Node] = depth_first(node.inputs, lambda n: n.inputs)
        if not set(lasts).isdisjoint(above):
            return None
    late = made_of(body, lasts)
    for node in body.outputs:
        if node not in labels or len(node.avals) != 1:
            return None
        named = [label for label in labels[node] if label is not None]
        if columns in named or len(set(named)) != len(named) or not needed <= set(named):
            return None
        if node not in late and not _is_all(labels[node], node, needed):
            return None
    return found


def _is_all(labels: Labels, node: Node, needed: set[int]) -> bool:
    """Whether a node has the axes that are needed, each once, and no other."""
    found = [label for label, size in zip(labels, node.aval.shape, strict=True) if size > 1]
    return None not in found and len(set(found)) == len(found) and set(found) == needed


def _labels(body: Graph, first: Node) -> dict[Node, Labels] | None:
    """For each node made of `first` the axes of it that its own go along."""
    labels: dict[Node, Labels] = {first: tuple(range(len(first.aval.shape)))}
    for node in body.nodes:
        if node is first or not any(n in labels for n in node.inputs):
            continue
        if len(node.avals) != 1:
            return None
        found: list[int | None] = []
        for axis in range(len(node.aval.shape)):
            places = along(node, axis) or ()
            named = {
                labels[n][k] for n, k in zip(node.inputs, places, strict=False) if k is not None and n in labels
            } - {None}
            if len(named) > 1:
                return None
            found.append(next(iter(named), None))
        labels[node] = tuple(found)
    return labels


def made_of(body: Graph, nodes: Sequence[Node]) -> set[Node]:
    """These nodes and all that is made of them."""
    found = set(nodes)
    for node in body.nodes:
        if any(n in found for n in node.inputs):
            found.add(node)
    return found
