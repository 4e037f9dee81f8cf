"""Tensor networks: a tree of matrix products, products, sums and divisions by scalars, read as one sum over products
of its leaves.

`reduce_sum(A @ (d * B))` is the sum over i, j, k of A[i,j] d[k] B[j,k]: labels for axes, and nothing of the order in
which it was written. Transposes, repetitions and axes of size one are in the labels too.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass

from jax.extend.core import primitives as p

from graphopt.analysis.diagonals import diagonal_of, identity_axes, spread_diagonal
from graphopt.ir.node import Node
from graphopt.ir.op import Op, op_of
from graphopt.ops.contract import DOT_GENERAL
from graphopt.ops.control import COND
from graphopt.ops.make import BROADCAST, CONVERT
from graphopt.rewrite.pattern import splat
from graphopt.rewrite.safety import kind_of

MUL, DIV, SUM, SELECT = map(op_of, (p.mul_p, p.div_p, p.reduce_sum_p, p.select_n_p))
TRANSPOSE, RESHAPE, SQUEEZE = map(op_of, (p.transpose_p, p.reshape_p, p.squeeze_p))
GATHER = op_of(p.gather_p)

MOVES: Collection[Op] = frozenset((TRANSPOSE, RESHAPE, SQUEEZE, BROADCAST))
"""The operations that only move data."""

UNIT = -1
"""In the place of a label: an axis of size one, which is as good as none."""

Labels = tuple[int, ...]
"""One for each axis."""

ROOTS: Collection[Op] = frozenset((DOT_GENERAL, MUL, DIV, SUM))
"""The operations whose results are read as networks."""


_OPENED: Collection[Op] = frozenset((*ROOTS, SELECT, COND, GATHER))
"""The operations that networks are made of, apart from moves of data."""


@dataclass(frozen=True, slots=True)
class Factor:
    """An array that is multiplied, and the labels of its axes. divides: whether it is a scalar that is divided by."""

    node: Node
    labels: Labels
    divides: bool = False


@dataclass(frozen=True, slots=True)
class Network:
    """The sum of the products of `factors` over all labels that `output` does not have.

    output: the labels of the axes of `root`, the node that it computes. sizes: elements along each label.
    inner: the nodes that it stands for, `root` first; the factors do not belong to it. dot: the first of its matrix
        products, which all compute alike. declined: why a matrix product is a factor and was not read (may be empty).
    finite_only: whether a zero of an identity matrix takes the place of what is not finite: reading it so is exact only
        where all values are finite.
    """

    root: Node
    factors: tuple[Factor, ...]
    output: Labels
    sizes: tuple[int, ...]
    inner: tuple[Node, ...]
    dot: Node
    declined: str
    finite_only: bool


@dataclass(frozen=True, slots=True)
class Unread:
    """A tree that is not read as a network, and why (empty where there is nothing to say)."""

    inner: tuple[Node, ...]
    declined: str = ""


def read_network(root: Node, uses: Callable[[Node], int], identities: bool) -> Network | Unread:
    """The largest network of which `root` is the result: what others read too (`uses` says how many do) is a factor.

    identities: whether products with identity matrices may be read as equal labels where that is exact for finite
    values only.
    """
    found = _Reader(root, uses, identities, True).read()
    if isinstance(found, Unread) and found.declined == _DIAGONAL:
        # A diagonal of a factor, or a diagonal result, cannot be said with labels: it stays as it was written.
        return _Reader(root, uses, identities, False).read()
    return found


_DIAGONAL = "the diagonal of one operand is taken"


@dataclass(frozen=True, slots=True)
class _Visit:
    """A node to look at. alone: whether nothing else reads it. summed: whether there are only sums between it and the
    root. divides: whether it is divided by."""

    node: Node
    labels: Labels
    alone: bool = True
    summed: bool = True
    divides: bool = False


class _Reader:
    def __init__(self, root: Node, uses: Callable[[Node], int], identities: bool, diagonals: bool) -> None:
        self.root = root
        self.uses = uses
        self.identities = identities
        self.diagonals = diagonals
        self.sizes: list[int] = []
        self.same: list[int] = []  # for each label one that it is equal to, or itself
        self.dot: Node | None = None  # the first matrix product
        self.finite_only = False
        self.reason = ""

    def read(self) -> Network | Unread:
        output = tuple([self.label(n) for n in self.root.aval.shape])
        stack = [_Visit(self.root, output)]
        factors: list[_Visit] = []
        inner: list[Node] = []
        while stack:
            visit = stack.pop()
            operands = self.open(visit)
            if operands is None:
                factors.append(visit)
            else:
                inner.append(visit.node)
                stack.extend(reversed(operands))
        if self.dot is None or len(factors) < 2:
            return Unread(tuple(inner), self.reason if self.dot else "")
        named = tuple([Factor(f.node, self.resolved(f.labels), f.divides) for f in factors])
        output = self.resolved(output)
        if reason := self.unsuitable(named, output):
            return Unread(tuple(inner), reason)
        return Network(
            self.root, named, output, tuple(self.sizes), tuple(inner), self.dot, self.reason, self.finite_only
        )

    def unsuitable(self, factors: tuple[Factor, ...], output: Labels) -> str:
        """Why labels do not say what the tree computes; empty if they do."""
        for labels in (output, *[factor.labels for factor in factors]):
            named = [label for label in labels if label != UNIT]
            if len(set(named)) < len(named):
                return _DIAGONAL
        known = {label for labels in (output, *[f.labels for f in factors]) for label in labels}
        if any(self.find(label) not in known for label in range(len(self.sizes))):
            return "it sums along an axis along which everything is repeated"
        return ""

    def label(self, size: int) -> int:
        if size == 1:
            return UNIT
        self.sizes.append(size)
        self.same.append(len(self.same))
        return len(self.same) - 1

    def find(self, label: int) -> int:
        while self.same[label] != label:
            label = self.same[label]
        return label

    def resolved(self, labels: Labels) -> Labels:
        return tuple([label if label == UNIT else self.find(label) for label in labels])

    def open(self, visit: _Visit) -> list[_Visit] | None:
        """The operands of a node of the network, with their labels; None for a factor."""
        node, labels = visit.node, visit.labels
        if node.context is not None or node.effects or len(node.avals) != 1 or not node.aval.is_plain:
            return None
        alone = visit.alone and (node is self.root or self.uses(node) == 1)
        moved = moved_labels(node, labels)
        if moved is not None:
            return [_Visit(node.inputs[0], moved, alone, visit.summed, visit.divides)]
        if visit.divides:
            return None
        if self.diagonals and visit.alone and node.op is CONVERT and self.unify(node.inputs[0], labels, False):
            return []
        if self.diagonals and not alone and (vector := spread_diagonal(node)) is not None:
            # A vector on a diagonal is read for each of its readers: none needs the matrix then.
            mask, values = vector
            if self.unify(mask, labels, False):
                return [_Visit(values, _spread(values, node, labels), False, False)]
        if not alone or node.op not in _OPENED or any(not n.aval.is_plain for n in node.inputs):
            return None
        if node.op is DOT_GENERAL:
            return self.product(node, labels)
        if node.op is MUL and all(n.aval.dtype == node.aval.dtype for n in node.inputs):
            return [_Visit(n, _spread(n, node, labels), summed=False) for n in node.inputs]
        if node.op is DIV and kind_of(node.aval.dtype) in "fc" and node.inputs[1].aval.size == 1:
            x, scalar = node.inputs
            return [
                _Visit(x, _spread(x, node, labels), summed=visit.summed),
                _Visit(scalar, _spread(scalar, node, labels), divides=True),
            ]
        if node.op is SUM and node.attrs["out_sharding"] is None:
            return [_Visit(node.inputs[0], self.before_sum(node, labels), True, visit.summed)]
        if self.diagonals and node.op is SELECT and len(node.inputs) == 3 and splat(node.inputs[1]) == 0:
            mask, _, kept = node.inputs
            if mask.aval.shape == node.aval.shape and self.unify(mask, labels, visit.summed):
                return [_Visit(kept, labels, True, visit.summed)]
        if self.diagonals and (found := diagonal_of(node)) is not None and found.is_main:
            return [_Visit(found.array, found.labels(labels), True, visit.summed)]
        return None

    def product(self, node: Node, labels: Labels) -> list[_Visit] | None:
        """The operands of a matrix product, if it computes as the others of the network do."""
        if any(n.aval.dtype != node.aval.dtype for n in node.inputs):
            self.reason = f"it multiplies {_dtypes(node)} and accumulates in {node.aval.dtype}"
            return None
        precision, preferred = node.attrs["precision"], node.attrs["preferred_element_type"]
        if node.attrs["out_sharding"] is not None or (preferred is not None and preferred != node.aval.dtype):
            self.reason = "a matrix product states its sharding, or another dtype to accumulate in"
            return None
        if isinstance(precision, tuple) and precision[0] != precision[1]:
            self.reason = "the operands of a matrix product have different precisions"
            return None
        if self.dot is None:
            self.dot = node
        elif precision != self.dot.attrs["precision"]:
            self.reason = "its matrix products have different precisions"
            return None
        contracted, batch = node.attrs["dimension_numbers"]
        summed = [self.label(node.inputs[0].aval.shape[axis]) for axis in contracted[0]]
        free = iter(labels[len(batch[0]) :])
        operands = []
        for side, operand in enumerate(node.inputs):
            known = dict(zip(batch[side], labels, strict=False)) | dict(zip(contracted[side], summed, strict=True))
            own = [known[axis] if axis in known else next(free) for axis in range(len(operand.aval.shape))]
            operands.append(_Visit(operand, tuple(own), summed=False))
        return operands

    def before_sum(self, node: Node, labels: Labels) -> Labels:
        axes, shape = node.attrs["axes"], node.inputs[0].aval.shape
        left = iter(labels)
        return tuple([self.label(size) if axis in axes else next(left) for axis, size in enumerate(shape)])

    def unify(self, mask: Node, labels: Labels, summed: bool) -> bool:
        """Makes the two labels of an identity matrix equal; False where `mask` is none, or may not be read so."""
        axes = identity_axes(mask)
        if axes is None:
            return False
        if not summed and not self.identities:
            self.reason = "with numerics='fast' only, the zeros of a diagonal matrix hide what they are multiplied with"
            return False
        first, second = labels[axes[0]], labels[axes[1]]
        if UNIT in (first, second):
            return False
        self.finite_only |= not summed
        self.same[self.find(first)] = self.find(second)
        return True


def moved_labels(node: Node, labels: Labels) -> Labels | None:
    """The labels of the operand of a node that moves, repeats or renames axes; None for any other node."""
    if node.op is TRANSPOSE:
        places = {axis: place for place, axis in enumerate(node.attrs["permutation"])}
        return tuple([labels[places[axis]] for axis in range(len(labels))])
    if node.op is BROADCAST and len(node.inputs) == 1:
        inside = zip(node.attrs["broadcast_dimensions"], node.inputs[0].aval.shape, strict=True)
        return tuple([UNIT if size == 1 else labels[axis] for axis, size in inside])
    if node.op is SQUEEZE or (node.op is RESHAPE and len(node.inputs) == 1 and node.attrs["dimensions"] is None):
        shape = node.inputs[0].aval.shape
        if [size for size in shape if size != 1] == [size for size in node.aval.shape if size != 1]:
            left = iter([label for label in labels if label != UNIT])
            return tuple([UNIT if size == 1 else next(left) for size in shape])
    return None


def _spread(operand: Node, node: Node, labels: Labels) -> Labels:
    """The labels of an operand of an elementwise operation: of its axes of size one, and of a scalar, none."""
    shape = operand.aval.shape
    return tuple([UNIT if size == 1 else label for size, label in zip(shape, labels, strict=False)])


def _dtypes(node: Node) -> str:
    return " and ".join(dict.fromkeys(str(n.aval.dtype) for n in node.inputs))
