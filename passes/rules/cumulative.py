"""Rules for cumulative operations."""

from __future__ import annotations

from jax.extend.core import primitives as p

from graphopt.ir.node import Node
from graphopt.ir.op import op_of
from graphopt.ops.make import make
from graphopt.passes.rules.moving import REV, TRANSPOSE, Uses, applied, bounds, reshaped, sliced, transposed
from graphopt.passes.rules.reductions import REORDERED
from graphopt.rewrite.rule import AnyRule, rewrites

CUMSUM, CUMPROD, CUMMAX, CUMMIN = map(op_of, (p.cumsum_p, p.cumprod_p, p.cummax_p, p.cummin_p))
CUMLOGSUMEXP = op_of(p.cumlogsumexp_p)
CUMULATIVE = (CUMSUM, CUMPROD, CUMMAX, CUMMIN, CUMLOGSUMEXP)

TOTALS = {
    CUMSUM: op_of(p.reduce_sum_p),
    CUMPROD: op_of(p.reduce_prod_p),
    CUMMAX: op_of(p.reduce_max_p),
    CUMMIN: op_of(p.reduce_min_p),
}
"""The reduction whose partial results each cumulative operation gives."""


# Of complex numbers with an infinite part JAX's first product and first comparison, with the start, make others.
OF_COMPLEX = {"biu": "exact", "f": "reassociate", "c": "nonfinite"}


@rewrites(CUMSUM, CUMPROD, CUMMAX, CUMMIN, safety=OF_COMPLEX, law="identity")
def cumulation_of_one_element(node: Node) -> Node | None:
    """cumsum(x) → x along an axis of at most one element"""
    x = node.inputs[0]
    return x if x.aval.shape[node.attrs["axis"]] < 2 else None


@rewrites(CUMMAX, CUMMIN, safety=OF_COMPLEX, law="idempotence")
def cumulation_twice(node: Node) -> Node | None:
    """cummax(cummax(x)) → cummax(x) in the same direction"""
    inner = node.inputs[0]
    return inner if inner.op is node.op and inner.attrs == node.attrs else None


@rewrites(p.rev_p, safety={"biu": "exact", "f": "reassociate"}, law="inverse", an_operand=CUMULATIVE)
def reversal_of_cumulated_reversal(node: Node, uses: Uses) -> Node | None:
    """rev(cumsum(rev(x))) → cumsum(x) in the other direction"""
    inner = node.inputs[0]
    if inner.op not in CUMULATIVE or uses(inner) > 1 or inner.inputs[0].op is not REV:
        return None
    if inner.inputs[0].attrs != node.attrs or inner.attrs["axis"] not in node.attrs["dimensions"]:
        return None
    return applied(inner.op, inner.attrs.replace(reverse=not inner.attrs["reverse"]), inner.inputs[0].inputs[0])


@rewrites(p.slice_p, safety={"biu": "exact", "f": "reassociate"}, law="reduction", an_operand=TOTALS)
def end_of_cumulation(node: Node, uses: Uses) -> Node | None:
    """slice(cumsum(x)) → sum(x) where only the end is taken"""
    inner = node.inputs[0]
    if inner.op not in TOTALS or uses(inner) > 1 or inner.context is not None:
        return None
    axis, (starts, counts, strides) = inner.attrs["axis"], bounds(node)
    x = inner.inputs[0]
    end = 0 if inner.attrs["reverse"] else x.aval.shape[axis] - 1
    if starts[axis] != end or counts[axis] != 1 or not node.aval.size:
        return None
    whole = list(counts)
    first, whole[axis] = list(starts), x.aval.shape[axis]
    first[axis] = 0
    steps = [1 if k == axis else stride for k, stride in enumerate(strides)]
    total = make(TOTALS[inner.op], sliced(x, first, whole, steps), axes=(axis,))
    return reshaped(total, node.aval.shape)


@rewrites(*CUMULATIVE, safety=REORDERED, law="movement", an_operand=[TRANSPOSE])
def cumulation_of_transpose(node: Node, uses: Uses) -> Node | None:
    """cumsum(transpose(x)) → transpose(cumsum(x))"""
    inner = node.inputs[0]
    if inner.op is not TRANSPOSE or uses(inner) > 1:
        return None
    permutation = inner.attrs["permutation"]
    core = applied(node.op, node.attrs.replace(axis=permutation[node.attrs["axis"]]), inner.inputs[0])
    return transposed(core, permutation)


RULES: tuple[AnyRule, ...] = (
    cumulation_of_one_element,
    cumulation_twice,
    reversal_of_cumulated_reversal,
    end_of_cumulation,
    cumulation_of_transpose,
)

_ALL = "cumulating c * x or -x elementwise before or after is the same cost; of a constant it is left to XLA."

DECLINED: dict[str, str] = {
    "cumsum": _ALL,
    "cumprod": _ALL,
    "cummax": "cummax(f(x)) for a monotone f stays, as for reduce_max.",
    "cummin": "cummin(f(x)) for a monotone f stays, as for reduce_min.",
    "cumlogsumexp": "along an axis of one element log(exp(x)) is x only where exp does not overflow or lose digits.",
}
