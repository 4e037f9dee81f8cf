"""Columns that a mask leaves nothing of, for the rows of a block: which ones, in the softmax between two products.

Where a mask puts the same number in a column for all rows of a block, the column need not be computed: its weights
follow from the maximum of the row (`analysis.left_out_columns`). The columns kept lie along a diagonal, in a band that
is as wide for every block. That is all of causal attention's mask and of a sliding window's; of another mask it is what
of it lies in such a band.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
from jax.extend.core import primitives as p

from graphopt.analysis.access import Within
from graphopt.analysis.between import Between
from graphopt.analysis.intervals import MOVES, SELECT, Intervals
from graphopt.analysis.products import DOT
from graphopt.analysis.reductions import axes_of
from graphopt.ir.graph import Graph
from graphopt.ir.index import Index
from graphopt.ir.node import Node
from graphopt.ir.op import CONSTANT, op_of

SUB, EXP, DIV = (op_of(primitive) for primitive in (p.sub_p, p.exp_p, p.div_p))
REDUCE_MAX, REDUCE_SUM = op_of(p.reduce_max_p), op_of(p.reduce_sum_p)

LEAST_SHARE = 0.1
"""Of the columns: what is to be left out at least."""

GRANULES = 8
"""Parts of a panel: where a band begins and ends is known to one of them."""


@dataclass(frozen=True, slots=True)
class Band:
    """Of block k of `rows` rows the columns from `rows * k + first` to before `rows * k + last` are kept, in panels of
    `width` columns as a whole. extent: how many columns there are."""

    rows: int
    first: int
    last: int
    width: int
    extent: int

    @property
    def panels(self) -> int:
        """How many there are; the last one may have fewer columns."""
        return -(-self.extent // self.width)

    def has_panel(self, block: Index, panel: Index) -> Within:
        """That a block needs a panel."""
        return (*_less(panel * self.width, self._end(block)), *_less(self._start(block), (panel + 1) * self.width))

    def has_column(self, block: Index, column: Index) -> Within:
        """That a block needs the panel that a column is in."""
        begin, end = self.range(block)
        return (*_less(column, end), *_less(begin, column + 1))

    def range(self, block: Index) -> tuple[Index, Index]:
        """The column that the panels of a block begin with, and the one behind them, where there were such."""
        return _whole(self._start(block), self.width), _whole(self._end(block) + (self.width - 1), self.width)

    def sides(self, block: Index, panel: Index) -> tuple[Within, Within]:
        """That a panel lies before those that a block needs; that it lies behind them."""
        before = _less((panel + 1) * self.width, self._start(block) + 1)
        return before, _less(self._end(block), panel * self.width + 1)

    def _start(self, block: Index) -> Index:
        return block * self.rows + self.first

    def _end(self, block: Index) -> Index:
        return block * self.rows + self.last


def _less(one: Index, other: Index) -> Within:
    """That an index is less than another one."""
    difference = one - other
    return () if difference.high < 0 else ((difference, min(difference.low, 0), 0),)


def _whole(at: Index, width: int) -> Index:
    """The multiple of `width` at an index or before it."""
    lifted = max(0, -(at.low // width))  # what is divided is not negative
    return ((at + lifted * width) // width - lifted) * width


@dataclass(frozen=True, slots=True)
class Softmax:
    """fill: what the mask puts in. greatest: the maximum of each row. shifted: what is masked less that. weights: their
    exponentials. sums: of these. quotients: of the two, where they are divided before the products."""

    fill: float
    greatest: Node
    shifted: Node
    weights: Node
    sums: tuple[Node, ...]
    quotients: tuple[Node, ...]


def masked_columns(body: Graph, found: Between, rows: int, width: int) -> tuple[Softmax, Band] | None:
    """The softmax of a body, and the columns that blocks of `rows` rows need, in panels of `width`; None where these
    are all, or nearly so.

    What the rows have in all columns must be what a mask is put on, the maximum of that, and its softmax by it: what
    stands between the products of attention.
    """
    columns = found.columns
    masks = [n for n in body.nodes if n.op is SELECT and _is_all(found, n) and _fills(n) is not None]
    if len(masks) != 1 or any(product.over_rows for product in found.products):
        return None
    softmax = _softmax_of(body, found, masks[0])
    ends = None if softmax is None else _ends(found, masks[0], rows, max(1, width // GRANULES))
    if softmax is None or ends is None:
        return None
    first, last = ends
    extent, count = found.first.aval.shape[columns], -(-found.first.aval.shape[found.rows] // rows)
    kept = sum(max(0, min(extent, rows * k + last) - max(0, rows * k + first)) for k in range(count))
    if kept > (1 - LEAST_SHARE) * count * extent:
        return None
    return softmax, Band(rows, first, last, width, extent)


def _is_all(found: Between, node: Node) -> bool:
    labels = found.labels.get(node, ())
    return labels.count(found.columns) == 1 and labels.count(found.rows) == 1


def _fills(node: Node) -> int | None:
    """Which case of a mask is a number that is put in."""
    cases = [k for k, case in enumerate(node.inputs[1:]) if _number(case) is not None]
    return cases[0] if len(node.inputs) == 3 and len(cases) == 1 else None


def moved_from(node: Node) -> Node:
    """What the elements of a node are, repeated or in another shape."""
    while node.op in MOVES:
        node = node.inputs[0]
    return node


def _number(node: Node) -> float | None:
    """The one value of an array that is a number repeated."""
    node = moved_from(node)
    if node.op is not CONSTANT or node.aval.size != 1 or node.aval.dtype.kind != "f":
        return None
    return float(np.asarray(node.value).ravel()[0])


def _softmax_of(body: Graph, found: Between, mask: Node) -> Softmax | None:
    """The softmax of what is masked, where that is all that is made of it for all columns."""
    columns, users = found.columns, body.users()

    def is_wide(node: Node) -> bool:
        return columns in found.labels.get(node, ())

    greatest, shifted = _split(users[mask], lambda n: n.op is REDUCE_MAX)
    if len(greatest) != 1 or len(shifted) != 1 or shifted[0].op is not SUB or shifted[0].inputs[0] is not mask:
        return None
    if moved_from(shifted[0].inputs[1]) not in greatest or [n.op for n in users[shifted[0]]] != [EXP]:
        return None
    (weights,) = users[shifted[0]]
    sums, others = _split(users[weights], lambda n: n.op is REDUCE_SUM)
    quotients, products = _split(others, lambda n: n.op is DIV)
    if any(n.inputs[0] is not weights or moved_from(n.inputs[1]) not in sums for n in quotients):
        return None
    products = [*products, *(user for n in quotients for user in users[n])]
    reduced = [*greatest, *sums]
    if any(axes_of(n) != (found.labels[n.inputs[0]].index(columns),) for n in reduced):
        return None
    taken = {mask, *shifted, weights, *quotients}
    if not products or any(n.op is not DOT for n in products) or taken & set(body.outputs):
        return None
    # All else with columns goes into the mask alone.
    before = [n for n in body.nodes if is_wide(n) and n not in taken]
    for node in before:
        if node in body.outputs or any(not is_wide(user) or user in taken - {mask} for user in users[node]):
            return None
    fill = _number(mask.inputs[1 + (_fills(mask) or 0)])
    assert fill is not None
    return Softmax(fill, greatest[0], shifted[0], weights, tuple(sums), tuple(quotients))


def _split(nodes: Iterable[Node], is_one: Callable[[Node], bool]) -> tuple[list[Node], list[Node]]:
    """Nodes of one kind, and the others, each once."""
    of = list(dict.fromkeys(nodes))
    return [n for n in of if is_one(n)], [n for n in of if not is_one(n)]


def _ends(found: Between, mask: Node, rows: int, granule: int) -> tuple[int, int] | None:
    """From where to where columns are kept, for each block from its first row on; None where that is nowhere.

    granule: of so many columns it is known together whether any is kept."""
    sizes, labels = found.first.aval.shape, found.labels[mask]
    extent, columns = sizes[found.rows], sizes[found.columns]
    intervals = Intervals([*range(0, extent, rows), extent], [*range(0, columns, granule), columns])
    axes = (labels.index(found.rows), labels.index(found.columns)) if mask.inputs[0].aval.shape else (None, None)
    least, greatest = intervals.of(mask.inputs[0], *axes)
    out = (greatest == 0) if _fills(mask) == 0 else (least == 1)
    out = np.broadcast_to(out, (-(-extent // rows), -(-columns // granule)))
    starts = rows * np.arange(len(out))
    starts, out = starts[~out.all(axis=1)], out[~out.all(axis=1)]
    if not len(out):
        return None
    first = int((out.argmin(axis=1) * granule - starts).min())
    last = int(((out.shape[1] - out[:, ::-1].argmin(axis=1)) * granule - starts).max())
    return first, last
