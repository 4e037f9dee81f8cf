"""Rules for operations that move data: transposes, reshapes, broadcasts, slices, concatenations, casts."""

from __future__ import annotations

from jax.extend.core import primitives as p

from graphopt.ir.node import Node
from graphopt.ops.make import make
from graphopt.rewrite.rule import AnyRule, rewrites
from graphopt.rewrite.safety import KINDS


@rewrites(p.transpose_p, safety={KINDS + "o": "exact"}, law="composition")
def transpose_of_transpose(node: Node) -> Node | None:
    """transpose(transpose(x)) → x, or one transpose"""
    inner = node.inputs[0]
    if inner.op is not node.op:
        return None
    first, second = inner.attrs["permutation"], node.attrs["permutation"]
    both = tuple(first[axis] for axis in second)
    if both == tuple(range(len(both))):
        return inner.inputs[0]
    return make(node.op, inner.inputs[0], permutation=both)


RULES: tuple[AnyRule, ...] = (transpose_of_transpose,)

DECLINED: dict[str, str] = {}
