"""Rules for complex numbers: their parts, conjugates and magnitudes."""

from __future__ import annotations

from jax.extend.core import primitives as p

from graphopt.ir.node import Node
from graphopt.ir.op import op_of
from graphopt.ops.make import make
from graphopt.passes.rules.conditions import unshared
from graphopt.rewrite.pattern import operation, variables
from graphopt.rewrite.rule import AnyRule, Rule, rewrites

real, imag, together = map(operation, (p.real_p, p.imag_p, p.complex_p))
neg, absolute, square = map(operation, (p.neg_p, p.abs_p, p.square_p))

x, y, z = variables("x y z")

COMPLEX = {"c": "exact"}

PATTERNS: tuple[AnyRule, ...] = (
    Rule("real part of a pair", real(together(x, y)), x, safety={"f": "exact"}, law="inverse"),
    Rule("imaginary part of a pair", imag(together(x, y)), y, safety={"f": "exact"}, law="inverse"),
    Rule("parts put together", together(real(z), imag(z)), z, safety=COMPLEX, law="inverse"),
    Rule("real part of a negative", real(neg(z)), neg(real(z)), safety=COMPLEX, when=unshared, law="movement"),
    Rule("imaginary part of a negative", imag(neg(z)), neg(imag(z)), safety=COMPLEX, when=unshared, law="movement"),
    Rule("real part of a sum", real(x + y), real(x) + real(y), safety=COMPLEX, when=unshared, law="movement"),
    Rule("imaginary part of a sum", imag(x + y), imag(x) + imag(y), safety=COMPLEX, when=unshared, law="movement"),
    Rule("real part of a difference", real(x - y), real(x) - real(y), safety=COMPLEX, when=unshared, law="movement"),
    Rule("imaginary part of a difference", imag(x - y), imag(x) - imag(y), safety=COMPLEX, when=unshared,
         law="movement"),
    Rule("square of a magnitude", square(absolute(z)), square(real(z)) + square(imag(z)),
         safety={"c": "approximate"}, when=unshared, law="reduction"),
    Rule("magnitude of a pair", absolute(together(x, 0.0)), absolute(x), safety={"f": "nonfinite"}, law="reduction"),
)  # fmt: skip

CONJ, NEG, ABS = op_of(p.conj_p), op_of(p.neg_p), op_of(p.abs_p)
REAL, IMAG, COMPLEX_OP = map(op_of, (p.real_p, p.imag_p, p.complex_p))


def _conjugated(node: Node) -> Node | None:
    """What a node is the conjugate of, if it is one of a complex number."""
    if node.op is not CONJ or node.inputs[0].aval.dtype != node.aval.dtype:
        return None
    return node.inputs[0]


@rewrites(p.conj_p, safety=COMPLEX, local=True, law="inverse")
def double_conjugate(node: Node) -> Node | None:
    """conj(conj(z)) → z"""
    return _conjugated(node.inputs[0])


@rewrites(p.conj_p, safety=COMPLEX, local=True, law="movement")
def conjugate_of_a_pair(node: Node) -> Node | None:
    """conj(complex(x, y)) → complex(x, -y)"""
    pair = node.inputs[0]
    if pair.op is not COMPLEX_OP:
        return None
    return make(COMPLEX_OP, pair.inputs[0], make(NEG, pair.inputs[1]))


@rewrites(p.real_p, p.imag_p, p.abs_p, safety=COMPLEX, local=True, law="absorption")
def part_of_a_conjugate(node: Node) -> Node | None:
    """real(conj(z)) → real(z), abs(conj(z)) → abs(z), imag(conj(z)) → -imag(z)"""
    inner = _conjugated(node.inputs[0])
    if inner is None:
        return None
    part = make(node.op, inner)
    return make(NEG, part) if node.op is IMAG else part


RULES: tuple[AnyRule, ...] = (*PATTERNS, double_conjugate, conjugate_of_a_pair, part_of_a_conjugate)

DECLINED: dict[str, str] = {
    "real": "real(z * w) → real(z) * real(w) - imag(z) * imag(w) rounds otherwise where XLA fuses the two products.",
    "imag": "imag(z * w) → a sum of two products, as for the real part.",
    "complex": "complex(x, 0) * z → x * z part by part changes signs of zeros and what infinities become.",
    "conj": "conj(z) * conj(w) → conj(z * w) is the same cost; z * conj(z) → a real number has another dtype.",
}
