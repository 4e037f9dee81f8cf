"""Rules that pull a factor, a sign or a summand out of a reduction, where it then is applied to fewer elements."""

from __future__ import annotations

from jax.extend.core import primitives as p

from graphopt.ir.node import Node
from graphopt.ir.op import op_of
from graphopt.ops.make import make
from graphopt.passes.rules.moving import Uses, applied
from graphopt.rewrite.pattern import splat
from graphopt.rewrite.rule import AnyRule, rewrites

NEG, MUL, DIV, ADD, SUB, NOT = map(op_of, (p.neg_p, p.mul_p, p.div_p, p.add_p, p.sub_p, p.not_p))
SUM, MAX, MIN = map(op_of, (p.reduce_sum_p, p.reduce_max_p, p.reduce_min_p))
AND, OR = map(op_of, (p.reduce_and_p, p.reduce_or_p))


def _own(node: Node, uses: Uses) -> Node | None:
    """The operand of a reduction that makes an array smaller and alone reads it."""
    inner = node.inputs[0]
    smaller = node.aval.size < inner.aval.size and inner.context is None
    return inner if smaller and uses(inner) <= 1 else None


def _scalar_and_array(inner: Node) -> tuple[Node, Node] | None:
    """The operand without dimensions and the other one, of a commutative operation on an array and a scalar."""
    a, b = inner.inputs
    if not a.aval.shape and b.aval.shape:
        return a, b
    return (b, a) if a.aval.shape and not b.aval.shape else None


@rewrites(SUM, safety={"iu": "exact", "fc": "reassociate"}, law="distribution", an_operand=[NEG])
def sum_of_negations(node: Node, uses: Uses) -> Node | None:
    """sum(-x) → -sum(x)"""
    inner = _own(node, uses)
    if inner is None or inner.op is not NEG:
        return None
    return make(NEG, applied(SUM, node.attrs, inner.inputs[0]))


@rewrites(SUM, safety={"iu": "exact", "fc": "nonfinite"}, law="distribution", an_operand=[MUL])
def sum_of_multiples(node: Node, uses: Uses) -> Node | None:
    """sum(c * x) → c * sum(x) for a scalar c"""
    inner = _own(node, uses)
    if inner is None or inner.op is not MUL or inner.attrs["out_dtype"] is not None:
        return None
    parts = _scalar_and_array(inner)
    if parts is None:
        return None
    return make(MUL, parts[0], applied(SUM, node.attrs, parts[1]))


@rewrites(SUM, safety={"fc": "nonfinite"}, law="distribution", an_operand=[DIV])
def sum_of_scaled_down(node: Node, uses: Uses) -> Node | None:
    """sum(x / c) → sum(x) / c for a scalar c"""
    inner = _own(node, uses)
    if inner is None or inner.op is not DIV or inner.inputs[1].aval.shape:
        return None
    return make(DIV, applied(SUM, node.attrs, inner.inputs[0]), inner.inputs[1])


@rewrites(MAX, MIN, safety={"f": "reassociate"}, law="distribution", an_operand=[NEG])
def extremum_of_negations(node: Node, uses: Uses) -> Node | None:
    """max(-x) → -min(x), and the reverse"""
    inner = _own(node, uses)
    if inner is None or inner.op is not NEG:
        return None
    return make(NEG, applied(MIN if node.op is MAX else MAX, node.attrs, inner.inputs[0]))


@rewrites(MAX, MIN, safety={"f": "reassociate"}, law="distribution", an_operand=[MUL, ADD])
def extremum_of_scaled_and_shifted(node: Node, uses: Uses) -> Node | None:
    """max(c * x) → c * max(x) for a constant c > 0; max(c + x) → c + max(x): rounding keeps the order"""
    inner = _own(node, uses)
    if inner is None or (inner.op is not MUL and inner.op is not ADD) or not inner.inputs[0].aval.size:
        return None
    parts = _scalar_and_array(inner)
    value = None if parts is None else splat(parts[0])
    if parts is None or value is None or not abs(complex(value)) < float("inf"):
        return None
    if inner.op is MUL and not float(value) > 0:
        return None
    return applied(inner.op, inner.attrs, parts[0], applied(node.op, node.attrs, parts[1]))


@rewrites(AND, OR, safety="exact", law="distribution", an_operand=[NOT])
def all_of_complements(node: Node, uses: Uses) -> Node | None:
    """all(~x) → ~any(x), and the reverse"""
    inner = _own(node, uses)
    if inner is None or inner.op is not NOT:
        return None
    return make(NOT, applied(OR if node.op is AND else AND, node.attrs, inner.inputs[0]))


RULES: tuple[AnyRule, ...] = (
    sum_of_negations,
    sum_of_multiples,
    sum_of_scaled_down,
    extremum_of_negations,
    extremum_of_scaled_and_shifted,
    all_of_complements,
)

DECLINED: dict[str, str] = {}
