"""Operations that newer versions of JAX have for several: written out, every other rule and kernel knows them."""

from __future__ import annotations

from functools import reduce

from jax.extend.core import primitives as p

from graphopt.ir.node import Node
from graphopt.ir.op import op_of
from graphopt.ops.make import fit, full, make
from graphopt.rewrite.rule import AnyRule, rewrites

ADD, SUB, MUL = (op_of(primitive) for primitive in (p.add_p, p.sub_p, p.mul_p))

UNROLLED = 8
"""Coefficients up to which JAX writes a polynomial out where it is not told; longer ones begin with 0 times x."""

RULES: tuple[AnyRule, ...] = ()

if hasattr(p, "one_minus_square_p"):

    @rewrites(p.one_minus_square_p, safety={"iufc": "exact"}, law="reduction", keeps_derivatives=False)
    def one_minus_a_square(node: Node) -> Node | None:
        """one_minus_square(x), with which tanh is differentiated, → (1 + x) * (1 - x)"""
        x = node.inputs[0]
        one = full(1, x.aval)
        return make(MUL, make(ADD, one, x), make(SUB, one, x))

    RULES = (*RULES, one_minus_a_square)

if hasattr(p, "polynomial_p"):

    @rewrites(p.polynomial_p, safety={"iu": "exact", "fc": "reassociate"}, law="reduction", keeps_derivatives=False)
    def polynomial_by_horner(node: Node) -> Node | None:
        """polynomial(x, a, b, c) → (c * x + b) * x + a; XLA may fuse its products and sums otherwise"""
        x, *coefficients = node.inputs
        if len(coefficients) > node.attrs.get("unroll", UNROLLED):
            return None
        x, *coefficients = (fit(operand, node.aval) for operand in node.inputs)
        first, *others = reversed(coefficients)
        return reduce(lambda total, c: make(ADD, make(MUL, total, x), c), others, first)

    RULES = (*RULES, polynomial_by_horner)
