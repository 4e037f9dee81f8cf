"""In which order a block of rows is computed: its products, what stands between them, and the tiles that hold it.

A tile of a block's rows by all columns is most of what a core's cache has to hold, so a product is computed as soon as
its factor is there, and what is needed no more is written over.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from graphopt.analysis.access import MOVES
from graphopt.analysis.between import Between, RowProduct
from graphopt.analysis.products import DOT
from graphopt.ir.graph import Graph
from graphopt.ir.node import Node


@dataclass(slots=True)
class Step:
    """Loops over the rows of a block, and a product after them; none after the last loops.

    outputs: results that are stored. kept: numbers of rows that later steps need. made: what is computed for all
    columns. factors: whether the product's left factor is copied, or the right one of a sum over rows. held: the tiles
    of what was computed before for all columns, while the loops run.
    """

    product: RowProduct | None
    made: list[Node]
    outputs: list[Node] = field(default_factory=list)
    kept: list[Node] = field(default_factory=list)
    held: dict[Node, int] = field(default_factory=dict)

    def roots(self, found: Between) -> list[Node]:
        """What is computed in the loops."""
        factor = [] if self.product is None or not is_copied(found, self.product) else [copied(self.product)]
        return [*self.outputs, *factor, *self.made]


@dataclass(frozen=True, slots=True)
class Order:
    """steps: in turn. tiles: which one each node is in that is computed for all columns. count: of these tiles."""

    steps: tuple[Step, ...]
    tiles: Mapping[Node, int]
    count: int


def copied(product: RowProduct) -> Node:
    """The factor that is copied row by row."""
    return product.right if product.over_rows else product.left


def takes_wide(found: Between, product: RowProduct) -> bool:
    """Whether the left factor is a tile of all columns as it is."""
    if product.over_rows:
        return True
    if not found.is_wide(product.left):
        return False
    return [found.labels[product.left][axis] for axis in product.axes.summed[product.side]] == [found.columns]


def is_copied(found: Between, product: RowProduct) -> bool:
    """Whether a factor is copied row by row."""
    return product.over_rows or not takes_wide(found, product)


def order_of(body: Graph, found: Between) -> Order:
    """The order of a body's products, with tiles."""
    steps = _steps(body, found)
    _keep(body, found, steps)
    return _with_tiles(found, steps)


def _steps(body: Graph, found: Between) -> list[Step]:
    """The products in turn, those first whose left factor is there; results as soon as they can be."""
    by_node = {product.node: product for product in found.products}
    above = _products_above(body)
    waiting, done = list(found.products), set[Node]()
    made: set[Node] = set()
    stored: set[Node] = set()
    steps: list[Step] = []

    def is_there(product: RowProduct) -> bool:
        return takes_wide(found, product) and (product.left in made or product.left in by_node)

    def outputs() -> list[Node]:
        new = [n for n in dict.fromkeys(body.outputs) if n not in found.after | stored and above[n] <= done]
        stored.update(new)
        return new

    while waiting:
        ready = [p for p in waiting if all(above[n] <= done for n in p.node.inputs)]
        product = next((p for p in ready if is_there(p)), ready[0])
        lefts = [p.left for p in ready if takes_wide(found, p)] if takes_wide(found, product) else []
        new = [n for n in dict.fromkeys(lefts) if n not in made and n not in by_node]
        steps.append(Step(product, new, outputs() if done else []))
        made.update(new)
        waiting.remove(product)
        done.add(product.node)
    return [*steps, Step(None, [], outputs())]


def _products_above(body: Graph) -> dict[Node, set[Node]]:
    """For each node the products that it is, or is made of."""
    above: dict[Node, set[Node]] = {}
    for node in body.nodes:
        above[node] = {node} if node.op is DOT else set()
        above[node] = above[node].union(*(above[n] for n in node.inputs))
    return above


def _keep(body: Graph, found: Between, steps: Sequence[Step]) -> None:
    """Notes which numbers of rows are needed again, in the steps that compute them first."""
    first: dict[Node, Step] = {}
    made: set[Node] = set()
    place = {node: k for k, node in enumerate(body.nodes)}
    for step in steps:
        reached = _reached(found, step.roots(found), made | set(first))
        for node in reached:
            if node in first:
                first[node].kept.append(node)
        first |= {n: step for n in reached if n not in first and found.is_of_rows(n) and _is_computed(n)}
        made.update(step.made)
    for step in steps:
        step.kept = sorted(dict.fromkeys(step.kept), key=place.__getitem__)


def _is_computed(node: Node) -> bool:
    return node.op is not DOT and node.op not in MOVES


def _reached(found: Between, roots: Sequence[Node], known: set[Node]) -> dict[Node, None]:
    """What is computed or read for these: all that they are made of, down to products and what is known."""
    reached: dict[Node, None] = {}
    stack = list(roots)
    while stack:
        node = stack.pop()
        if node not in reached and node in found.labels:
            reached[node] = None
            if node.op is not DOT and (node not in known or node.op in MOVES):
                stack += node.inputs
    return reached


def _with_tiles(found: Between, steps: Sequence[Step]) -> Order:
    """The order with a tile for what has all columns, one after the other in the same where that can be."""
    last = _last_uses(found, steps)
    tiles: dict[Node, int] = {}
    held: dict[int, Node] = {}  # what is in each

    def free(time: int) -> int:
        """A tile with nothing that is needed at a time, or later."""
        return next((k for k, node in held.items() if last.get(node, -1) < time), len(held))

    for number, step in enumerate(steps):
        step.held = {node: k for k, node in held.items() if last.get(node, -1) >= 2 * number}
        for node in step.made:
            own = [k for k, n in held.items() if n in step.held and last[n] == 2 * number]
            in_place = own and node is step.made[-1] and not found.crosses
            tiles[node] = own[0] if in_place else free(2 * number)
            held[tiles[node]] = node
        product = step.product
        if product is not None and found.is_wide(product.node):
            tiles[product.node] = free(2 * number + 1)
            held[tiles[product.node]] = product.node
    return Order(tuple(steps), tiles, len(held))


def _last_uses(found: Between, steps: Sequence[Step]) -> dict[Node, int]:
    """When each node with all columns is read for the last time: 2k in the loops of step k, 2k + 1 by its product."""
    last: dict[Node, int] = {}
    known: set[Node] = set()
    rows: set[Node] = set()
    for number, step in enumerate(steps):
        for node in _reached(found, [*step.roots(found), *step.kept], known | rows):
            if node.op is DOT or node in known:
                last[node] = 2 * number
        if step.product is not None and takes_wide(found, step.product):
            last[step.product.left] = 2 * number + 1
        known.update(step.made)
        rows.update(step.kept)
    return last
