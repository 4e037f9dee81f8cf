"""What stands between products, row by row: how a body goes along the axes of a large array.

A product makes an array of all rows by all columns, operations go on with it, each row for itself, and other products
are of its rows, or sum over them: attention is of this kind with its gradient, and so are kernel matrices and layers
with a function between them. `analysis.row_order` says in which order a block of rows is computed,
`analysis.row_blocks` writes the loop program.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from weakref import WeakKeyDictionary

from graphopt.analysis.axes import along
from graphopt.analysis.bitcast import changes_width
from graphopt.analysis.grouping import ALONE
from graphopt.analysis.products import DOT, Axes, axes_of
from graphopt.analysis.reductions import REDUCTIONS
from graphopt.analysis.windows import SELECTED
from graphopt.ir.graph import Graph
from graphopt.ir.node import Node

Labels = tuple[int | None, ...]


@dataclass(frozen=True, slots=True)
class RowProduct:
    """A product with a factor that a block of rows has some of.

    side: which factor that is. over_rows: whether the product sums over the rows; it does not where its result has
    them. free: the axis of the other factor that the result has; place: and where.
    """

    node: Node
    side: int
    over_rows: bool
    free: int
    place: int

    @property
    def axes(self) -> Axes:
        """The axes of both factors."""
        return axes_of(self.node)

    @property
    def left(self) -> Node:
        """The factor of which a block has rows."""
        return self.node.inputs[self.side]

    @property
    def right(self) -> Node:
        """The other one."""
        return self.node.inputs[1 - self.side]

    @property
    def width(self) -> int:
        """Elements along the axis that the other factor gives to the result."""
        return int(self.right.aval.shape[self.free])

    @property
    def summed(self) -> tuple[int, ...]:
        """The extents that are summed over."""
        return tuple(int(self.left.aval.shape[axis]) for axis in self.axes.summed[self.side])


@dataclass(frozen=True, slots=True)
class Between:
    """first: the product that makes the large array. rows, columns: its axes; all others are gone through one by one.
    products: all of them. labels: for each node made of products the axes of `first` that its own go along.
    after: what is made of sums over rows."""

    first: Node
    rows: int
    columns: int
    products: tuple[RowProduct, ...]
    labels: Mapping[Node, Labels]
    after: frozenset[Node]

    @property
    def others(self) -> list[int]:
        """The axes that are gone through one by one."""
        return [axis for axis in range(len(self.first.aval.shape)) if axis not in (self.rows, self.columns)]

    @property
    def needed(self) -> set[int]:
        """The axes that what a row has is along."""
        return {axis for axis in (*self.others, self.rows) if self.first.aval.shape[axis] > 1}

    @property
    def crosses(self) -> bool:
        """Whether an element of a row may be made of others of the row, so that none may be written over before."""
        return any(self._reads_others(node) for node in self.labels if node.op is not DOT)

    def is_wide(self, node: Node) -> bool:
        """Whether a node has all rows and columns, each once, and no other axis."""
        return node in self.labels and _is_all(self.labels[node], node, self.needed | {self.columns})

    def is_of_rows(self, node: Node) -> bool:
        """Whether a node has one number for each row."""
        if node not in self.labels or self.columns in self.labels[node]:
            return False
        sizes = zip(self.labels[node], node.aval.shape, strict=True)
        return all(label is not None or size == 1 for label, size in sizes)

    def _reads_others(self, node: Node) -> bool:
        """Whether elements of a node are made of other columns than their own, sums over all of a row apart."""
        labels = self.labels[node]
        if labels.count(self.columns) > 1:
            return True
        if node.op in REDUCTIONS:
            return any(label is None and size > 1 for label, size in zip(labels, node.aval.shape, strict=True))
        places = [along(node, axis) or () for axis in range(len(labels))]
        for k, operand in enumerate(node.inputs):
            of = self.labels.get(operand, ())
            here = [at[k] for at in places if k < len(at)]
            if self.columns in of and self.columns not in [of[axis] for axis in here if axis is not None]:
                return True
        return False


_known: WeakKeyDictionary[Graph, Between | None] = WeakKeyDictionary()


def between(body: Graph) -> Between | None:
    """How a body is computed row by row between its products; None where it cannot be. It is found out once."""
    if body not in _known:
        _known[body] = _between(body)
    return _known[body]


def _between(body: Graph) -> Between | None:
    products = [node for node in body.nodes if node.op is DOT]
    if len(products) < 2 or not _is_uniform(products):
        return None
    if any(node.op in ALONE or node.op is SELECTED or changes_width(node) for node in body.nodes):
        return None  # these have loops of their own
    first = products[0]
    axes = axes_of(first)
    start = len(axes.batch[0])
    sides = [range(start, start + len(axes.free[0])), range(start + len(axes.free[0]), len(first.aval.shape))]
    labels = _labels(body, first)
    found: list[Between] = []
    for rows_side, columns_side in (sides, reversed(sides)):
        columns = [axis for axis in columns_side if first.aval.shape[axis] > 1]
        rows = max(rows_side, key=lambda axis: (first.aval.shape[axis], axis), default=None)
        if labels is not None and rows is not None and len(columns) == 1:
            way = _with(body, products, rows, columns[0], labels)
            found += [way] if way is not None else []
    return min(found, key=lambda way: sum(p.over_rows for p in way.products), default=None)


def _is_uniform(products: Sequence[Node]) -> bool:
    """Whether products are of numbers of one type, which are multiplied as they are."""
    dtypes = {n.aval.dtype for node in products for n in (*node.inputs, node)}
    dtype = next(iter(dtypes))
    return len(dtypes) == 1 and dtype.kind == "f" and dtype.itemsize in (4, 8)


def _labels(body: Graph, first: Node) -> dict[Node, Labels] | None:
    """For each node made of products the axes of `first` that its own go along; None where these get mixed up.

    What an operation has side by side is along one axis, so that one product's axes are found from another's.
    """
    made = made_of(body, [node for node in body.nodes if node.op is DOT])
    same: dict[tuple[Node, int], tuple[Node, int]] = {}

    def root(place: tuple[Node, int]) -> tuple[Node, int]:
        while place in same:
            place = same[place]
        return place

    for node in body.nodes:
        if node not in made:
            continue
        if len(node.avals) != 1:
            return None
        for axis in range(len(node.aval.shape)):
            for operand, of in zip(node.inputs, along(node, axis) or (), strict=False):
                if of is not None and operand in made and root((operand, of)) != root((node, axis)):
                    same[root((operand, of))] = root((node, axis))
    sizes = first.aval.shape
    axes = {root((first, axis)): axis for axis in range(len(sizes)) if sizes[axis] > 1}
    if len(axes) < sum(size > 1 for size in sizes):
        return None
    axes = {root((first, axis)): axis for axis in range(len(sizes))} | axes
    return {n: tuple(axes.get(root((n, axis))) for axis in range(len(n.aval.shape))) for n in body.nodes if n in made}


def _with(
    body: Graph, products: Sequence[Node], rows: int, columns: int, labels: Mapping[Node, Labels]
) -> Between | None:
    """The body with these axes as rows and columns; None where that is not how it goes."""
    found = Between(products[0], rows, columns, (), labels, frozenset())
    members = [_product(found, node) for node in products]
    kept = [p for p in members if p is not None]
    summed = [p.node for p in kept if p.over_rows]
    after = made_of(body, summed)
    if len(kept) < len(members) or any(n in after for p in kept for n in p.node.inputs):
        return None
    for node in body.nodes:
        if node in labels and node not in after and rows not in labels[node] and found.first.aval.shape[rows] > 1:
            return None  # it is made of several rows
    for node in body.outputs:
        named = [label for label in labels.get(node, ()) if label is not None]
        if node not in labels or len(set(named)) != len(named):
            return None
        if (rows in named) if node in after else (columns in named or not found.needed <= set(named)):
            return None
    return Between(products[0], rows, columns, tuple(kept), labels, frozenset(after))


def _product(found: Between, node: Node) -> RowProduct | None:
    """How a product goes along rows; None where it does not."""
    axes, labels = axes_of(node), found.labels
    for side in (0, 1):
        left, right = node.inputs[side], node.inputs[1 - side]
        free = [axis for axis in axes.free[1 - side] if right.aval.shape[axis] > 1] or list(axes.free[1 - side][:1])
        if len(free) != 1:
            continue
        start = len(axes.batch[0]) + (len(axes.free[0]) if side == 0 else 0)
        place = start + axes.free[1 - side].index(free[0])
        named = labels[node]
        begin = len(axes.batch[0]) + (len(axes.free[0]) if side else 0)
        own = range(begin, begin + len(axes.free[side]))
        rest = tuple(label for axis, label in enumerate(named) if axis != place)
        sizes = tuple(size for axis, size in enumerate(node.aval.shape) if axis != place)
        of_rows = found.first.aval.shape[found.rows] == 1 or found.rows in [named[axis] for axis in own]
        if right not in labels and named[place] in (None, found.columns) and of_rows:
            if _covers(rest, sizes, found.needed):
                return RowProduct(node, side, False, free[0], place)
        elif found.is_wide(left):
            over = {labels[left][axis] for axis in axes.summed[side]}
            kept = [labels[left][axis] for axis in axes.free[side]]
            if found.rows in over and found.columns in kept and named[place] is None:
                return RowProduct(node, side, True, free[0], place)
    return None


def _is_all(labels: Labels, node: Node, needed: set[int]) -> bool:
    """Whether a node has the axes that are needed, each once, and no other."""
    return _covers(labels, node.aval.shape, needed)


def _covers(labels: Labels, sizes: Sequence[int], needed: set[int]) -> bool:
    found = [label for label, size in zip(labels, sizes, strict=True) if size > 1]
    return None not in found and len(set(found)) == len(found) and set(found) == needed


def made_of(body: Graph, nodes: Sequence[Node]) -> set[Node]:
    """These nodes and all that is made of them."""
    found = set(nodes)
    for node in body.nodes:
        if any(n in found for n in node.inputs):
            found.add(node)
    return found
