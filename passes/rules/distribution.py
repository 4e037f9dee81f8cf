"""Rules that pull factors, signs and sums out of matrix products, or into them, where fewer elements are touched."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product as product_of

from jax.extend.core import primitives as p

from graphopt.ir.node import Node
from graphopt.ir.op import op_of
from graphopt.ops.contract import DOT_GENERAL
from graphopt.ops.make import make
from graphopt.passes.rules.contraction import MUL, REORDERED, SUM, axes_of, product
from graphopt.passes.rules.moving import Uses, applied
from graphopt.rewrite.rule import AnyRule, rewrites
from graphopt.rewrite.safety import kind_of

NEG = op_of(p.neg_p)
ADD, SUB = op_of(p.add_p), op_of(p.sub_p)

NONFINITE = {"iu": "exact", "fc": "nonfinite"}


def _same_dtype(node: Node) -> bool:
    return len({n.aval.dtype for n in (*node.inputs, node)}) == 1


@rewrites(p.dot_general_p, safety={"iu": "exact", "fc": "reassociate"}, law="inverse")
def product_of_negations(node: Node) -> Node | None:
    """dot(-x, -y) → dot(x, y)"""
    x, y = node.inputs
    if x.op is not NEG or y.op is not NEG:
        return None
    return applied(node.op, node.attrs, x.inputs[0], y.inputs[0])


@rewrites(p.dot_general_p, safety={"iu": "exact", "fc": "reassociate"}, law="distribution", an_operand=[NEG])
def product_of_negation(node: Node, uses: Uses) -> Node | None:
    """dot(-x, y) → -dot(x, y) where the result is smaller than x"""
    if not _same_dtype(node):
        return None
    for side, inner in enumerate(node.inputs):
        if inner.op is NEG and inner.aval.size > node.aval.size and uses(inner) <= 1:
            operands = [inner.inputs[0] if k == side else n for k, n in enumerate(node.inputs)]
            return make(NEG, applied(node.op, node.attrs, *operands))
    return None


@rewrites(p.dot_general_p, safety=NONFINITE, law="distribution", an_operand=[MUL])
def product_of_multiple(node: Node, uses: Uses) -> Node | None:
    """dot(c * x, y) → c * dot(x, y) where the result is smaller than x"""
    if not _same_dtype(node):
        return None
    for side, inner in enumerate(node.inputs):
        if inner.op is not MUL or inner.aval.size <= node.aval.size or uses(inner) > 1:
            continue
        c, x = sorted(inner.inputs, key=lambda n: len(n.aval.shape))
        if not c.aval.shape and x.aval.shape and inner.attrs["out_dtype"] is None:
            operands = [x if k == side else n for k, n in enumerate(node.inputs)]
            return make(MUL, c, applied(node.op, node.attrs, *operands))
    return None


@rewrites(p.mul_p, safety=NONFINITE, law="distribution", an_operand=[DOT_GENERAL])
def multiple_of_product(node: Node, uses: Uses) -> Node | None:
    """c * dot(x, y) → dot(c * x, y) where x is smaller than the result"""
    c, inner = sorted(node.inputs, key=lambda n: len(n.aval.shape))
    if inner.op is not DOT_GENERAL or c.aval.shape or uses(inner) > 1 or inner.context is not None:
        return None
    if not _same_dtype(inner) or node.attrs["out_dtype"] is not None:
        return None
    x, y = inner.inputs
    if min(x.aval.size, y.aval.size) >= node.aval.size:
        return None
    if x.aval.size <= y.aval.size:
        return applied(DOT_GENERAL, inner.attrs, make(MUL, c, x), y)
    return applied(DOT_GENERAL, inner.attrs, x, make(MUL, c, y))


@rewrites(ADD, SUB, safety=NONFINITE, law="distribution", an_operand=[DOT_GENERAL, MUL])
def sum_of_products(node: Node, uses: Uses) -> Node | None:
    """dot(x, y) + c * dot(x, z) → dot(x, y + c * z) for a scalar c; so dot(c * x, z), differences, the other side"""
    found = (_joined(node, *pair) for pair in product_of(*(_multiples(n, uses) for n in node.inputs)))
    return next((new for new in found if new is not None), None)


@dataclass(frozen=True, slots=True)
class _Multiple:
    """A product of matrices times a scalar, if there is one."""

    product: Node
    factor: Node | None = None

    def applied_to(self, x: Node) -> Node:
        return x if self.factor is None else make(MUL, self.factor, x)


def _joined(node: Node, first: _Multiple, second: _Multiple) -> Node | None:
    """The sum, or the difference, of two multiples of products with a common operand, as one product."""
    a, b = first.product, second.product
    if a is b or a.attrs != b.attrs or not _same_dtype(a):
        return None
    for side in (0, 1):
        if a.inputs[side] is b.inputs[side] and a.inputs[1 - side].aval is b.inputs[1 - side].aval:
            x, y = a.inputs[1 - side], b.inputs[1 - side]
            scaled = (first.factor or second.factor) is not None
            if scaled and x.aval.size > node.aval.size:  # more to multiply than there was
                return None
            both = make(node.op, first.applied_to(x), second.applied_to(y))
            operands = (a.inputs[0], both) if side == 0 else (both, a.inputs[1])
            return applied(DOT_GENERAL, a.attrs, *operands)
    return None


def _multiples(node: Node, uses: Uses) -> list[_Multiple]:
    """The products that a node is a multiple of, where nothing else reads either."""
    if uses(node) > 1 or node.context is not None:
        return []
    if node.op is DOT_GENERAL:
        return [_Multiple(node), *_of_scaled_operands(node, uses)]
    if node.op is not MUL or node.attrs["out_dtype"] is not None:
        return []
    c, inner = sorted(node.inputs, key=lambda n: len(n.aval.shape))
    if c.aval.shape or inner.op is not DOT_GENERAL or uses(inner) > 1 or inner.context is not None:
        return []
    return [_Multiple(inner, c)] if inner.aval.shape and c.aval.dtype == inner.aval.dtype else []


def _of_scaled_operands(node: Node, uses: Uses) -> Iterator[_Multiple]:
    """A product of which an operand is a multiple that nothing else reads, as the multiple of a product."""
    for side, inner in enumerate(node.inputs):
        if inner.op is not MUL or inner.context is not None or uses(inner) > 1 or inner.attrs["out_dtype"] is not None:
            continue
        c, x = sorted(inner.inputs, key=lambda n: len(n.aval.shape))
        if not c.aval.shape and x.aval.shape and c.aval.dtype == x.aval.dtype == node.aval.dtype:
            operands = [x if k == side else n for k, n in enumerate(node.inputs)]
            yield _Multiple(applied(DOT_GENERAL, node.attrs, *operands), c)


@rewrites(SUM, safety=REORDERED, law="composition", an_operand=[DOT_GENERAL])
def sum_over_matrices(node: Node, uses: Uses) -> Node | None:
    """sum(dot(x, y)) over the batch axes → dot(x, y) that sums over them too"""
    inner = node.inputs[0]
    if inner.op is not DOT_GENERAL or uses(inner) > 1 or inner.context is not None:
        return None
    contracted, batch, _ = axes_of(inner)
    gone = set(node.attrs["axes"])
    if not gone or not gone <= set(range(len(batch[0]))):
        return None
    summed = [contracted[k] + [a for i, a in enumerate(batch[k]) if i in gone] for k in (0, 1)]
    left = [[a for i, a in enumerate(batch[k]) if i not in gone] for k in (0, 1)]
    x, y = inner.inputs
    return product(inner, x, y, summed, left)


@rewrites(SUM, safety=NONFINITE, law="distribution", an_operand=[DOT_GENERAL])
def sum_of_rows_of_a_product(node: Node, uses: Uses) -> Node | None:
    """sum(dot(x, y)) over free axes of x and y → dot(sum(x), sum(y))"""
    inner = node.inputs[0]
    if inner.op is not DOT_GENERAL or uses(inner) > 1 or inner.context is not None or not _same_dtype(inner):
        return None
    contracted, batch, free = axes_of(inner)
    gone, start = set(node.attrs["axes"]), len(batch[0])
    # In 16 bits the sums would be rounded before they are multiplied.
    if not gone or min(gone) < start or (kind_of(node.aval.dtype) == "f" and node.aval.dtype.itemsize < 4):
        return None
    operands, summed, batched = [], [], []
    for side in (0, 1):
        first = start + (len(free[0]) if side else 0)
        over = [a for k, a in enumerate(free[side]) if first + k in gone]
        x = inner.inputs[side]
        places = {a: k for k, a in enumerate(a for a in range(len(x.aval.shape)) if a not in over)}
        operands.append(make(SUM, x, axes=tuple(over)) if over else x)
        summed.append([places[a] for a in contracted[side]])
        batched.append([places[a] for a in batch[side]])
    return product(inner, operands[0], operands[1], summed, batched)


RULES: tuple[AnyRule, ...] = (
    product_of_negations,
    product_of_negation,
    product_of_multiple,
    multiple_of_product,
    sum_of_products,
    sum_over_matrices,
    sum_of_rows_of_a_product,
)

DECLINED: dict[str, str] = {}
