"""Rules for sums, differences, products, quotients, remainders, negation and sign; constants are in `gathering`."""

from __future__ import annotations

import numpy as np
from jax.extend.core import primitives as p

from graphopt.ir.node import Node
from graphopt.ir.op import op_of
from graphopt.ops.make import BROADCAST, CONVERT, full, make
from graphopt.passes.rules.conditions import one_unshared, unshared
from graphopt.passes.rules.constants import is_normal, literal, value_of, with_constant
from graphopt.passes.rules.moving import broadcast
from graphopt.rewrite.pattern import operation, variables
from graphopt.rewrite.rule import AnyRule, Match, Rule, rewrites

neg, absolute, sign, rem = map(operation, (p.neg_p, p.abs_p, p.sign_p, p.rem_p))
square = operation(p.square_p)

x, y, z, w = variables("x y z w")
a, b = variables("a b", constant=True)

EXACT = {"iufc": "exact"}
REAL = {"iuf": "exact"}
FLUSHES = {"iu": "exact", "f": "reassociate", "c": "nonfinite"}
"""The other side keeps denormals, or changes the sign of a zero; on complex numbers also what infinities become."""
FINITE = {"iu": "exact", "fc": "nonfinite"}
CANCELS = {"iu": "exact", "fc": "approximate"}


def _array_and_scalars(m: Match) -> bool:
    """Whether x is an array and y and z are scalars, not both known, so that they are combined before they meet it."""
    scalars = m["y"], m["z"]
    return (
        bool(m["x"].aval.shape) and not any(n.aval.shape for n in scalars) and any(value_of(n) is None for n in scalars)
    )


SUMS: tuple[AnyRule, ...] = (
    Rule("add zero", x + 0.0, x, safety=FLUSHES, law="identity"),
    Rule("add minus zero", x + -0.0, x, safety={"f": "reassociate", "c": "nonfinite"}, law="identity"),
    Rule("subtract zero", x - 0.0, x, safety=FLUSHES, law="identity"),
    Rule("subtract minus zero", x - -0.0, x, safety={"f": "reassociate", "c": "nonfinite"}, law="identity"),
    Rule("subtract from zero", 0.0 - x, neg(x), safety=FLUSHES, law="reduction"),
    Rule("subtract from minus zero", -0.0 - x, neg(x), safety={"f": "reassociate", "c": "nonfinite"}, law="reduction"),
    Rule("subtract from itself", x - x, 0, safety=FINITE, law="absorption"),
    Rule("add a negative", x + neg(y), x - y, safety=EXACT, law="reduction"),
    Rule("subtract a negative", x - neg(y), x + y, safety=EXACT, law="reduction"),
    Rule("add to a difference", (x - y) + y, x, safety=CANCELS, law="inverse"),
    Rule("subtract a term", (x + y) - y, x, safety=CANCELS, law="inverse"),
    Rule("subtract a sum", x - (x + y), neg(y), safety=CANCELS, law="inverse"),
    Rule("subtract a difference", x - (x - y), y, safety=CANCELS, law="inverse"),
    Rule("subtract the minuend", (x - y) - x, neg(y), safety=CANCELS, law="inverse"),
    Rule("cancel a common term", (x + y) - (x + z), y - z, safety=CANCELS, law="inverse"),
    Rule("cancel a common minuend", (x - y) - (x - z), z - y, safety=CANCELS, law="inverse"),
    Rule("cancel a common subtrahend", (x - z) - (y - z), x - y, safety=CANCELS, law="inverse"),
    Rule("cancel a term between sums", (x - y) + (y + z), x + z, safety=CANCELS, law="inverse"),
    Rule("cancel opposite terms", (x - y) + (y - z), x - z, safety=CANCELS, law="inverse"),
    Rule("add a negated product", x + neg(y) * z, x - y * z, safety=REAL, when=unshared, law="reduction"),
    Rule("subtract a negated product", x - neg(y) * z, x + y * z, safety=REAL, when=unshared, law="reduction"),
    Rule("add a negated quotient", x + neg(y) / z, x - y / z, safety={"f": "exact"}, when=unshared, law="reduction"),
    Rule("add a quotient by a negative", x + y / neg(z), x - y / z, safety={"f": "exact"}, when=unshared,
         law="reduction"),
    Rule("scalar terms first", (x + y) + z, x + (y + z), safety={"iu": "exact", "f": "approximate"},
         when=_array_and_scalars, law="composition"),
)  # fmt: skip

NEGATIONS: tuple[AnyRule, ...] = (
    Rule("double negation", neg(neg(x)), x, safety=EXACT, law="inverse"),
    Rule("negated difference", neg(x - y), y - x, safety=FLUSHES, law="distribution"),
    Rule("negated product by a constant", neg(x * a), x * neg(a), safety=REAL, law="distribution"),
    Rule("negative times a constant", neg(x) * a, x * neg(a), safety=REAL, law="composition"),
    Rule("negated quotient by a constant", neg(x / a), x / neg(a), safety={"f": "exact"}, when=unshared,
         law="distribution"),
    Rule("negated quotient of a constant", neg(a / x), neg(a) / x, safety={"f": "exact"}, when=unshared,
         law="distribution"),
    Rule("negative over a constant", neg(x) / a, x / neg(a), safety={"f": "exact"}, law="composition"),
    Rule("constant over a negative", a / neg(x), neg(a) / x, safety={"f": "exact"}, law="composition"),
    Rule("negated sum with a constant", neg(x + a), neg(a) - x, safety={"iu": "exact", "f": "reassociate"},
         law="distribution"),
    Rule("product of negatives", neg(x) * neg(y), x * y, safety=REAL, law="inverse"),
    Rule("quotient of negatives", neg(x) / neg(y), x / y, safety={"f": "exact"}, law="inverse"),
    Rule("negated product with a negative", neg(neg(x) * y), x * y, safety=REAL, law="inverse"),
    Rule("negated quotient of a negative", neg(neg(x) / y), x / y, safety={"f": "exact"}, when=unshared,
         law="inverse"),
    Rule("negated quotient by a negative", neg(x / neg(y)), x / y, safety={"f": "exact"}, when=unshared,
         law="inverse"),
)  # fmt: skip

PRODUCTS: tuple[AnyRule, ...] = (
    Rule("multiply by one", x * 1.0, x, safety=FLUSHES, law="identity"),
    Rule("multiply by minus one", x * -1.0, neg(x), safety=FLUSHES, law="reduction"),
    Rule("multiply by zero", x * 0.0, 0, safety=FINITE, law="absorption"),
    Rule("multiply by minus zero", x * -0.0, 0, safety={"fc": "nonfinite"}, law="absorption"),
    Rule("product of equal factors", x * x, square(x), safety={"iuf": "exact", "c": "nonfinite"}, law="reduction"),
    Rule("factor", x * y + x * z, x * (y + z), safety=FINITE, when=one_unshared, law="distribution"),
    Rule("factor a difference", x * y - x * z, x * (y - z), safety=FINITE, when=one_unshared, law="distribution"),
    Rule("factor a square", square(x) + x * y, x * (x + y), safety=FINITE, when=one_unshared, law="distribution"),
    Rule("factor a square less a product", square(x) - x * y, x * (x - y), safety=FINITE, when=one_unshared,
         law="distribution"),
    Rule("factor a product less a square", x * y - square(x), x * (y - x), safety=FINITE, when=one_unshared,
         law="distribution"),
    Rule("product of squares", square(x) * square(y), square(x * y), safety=FINITE, when=one_unshared,
         law="distribution"),
    Rule("scalar factors first", (x * y) * z, x * (y * z), safety={"iu": "exact", "f": "nonfinite"},
         when=_array_and_scalars, law="composition"),
)  # fmt: skip


def _no_smaller_divisor(m: Match) -> bool:
    """Whether the divisor y has as many elements as x: the reciprocal of a scalar, once found, serves a whole array."""
    return unshared(m) and m["y"].aval.size >= m["x"].aval.size


QUOTIENTS: tuple[AnyRule, ...] = (
    Rule("divide by one", x / 1.0, x, safety=FLUSHES, law="identity"),
    Rule("divide by minus one", x / -1.0, neg(x), safety={"i": "exact", "f": "reassociate", "c": "nonfinite"},
         law="reduction"),
    Rule("zero over something", 0.0 / x, 0, safety={"fc": "nonfinite"}, law="absorption"),
    Rule("divide by itself", x / x, 1, safety={"fc": "nonfinite"}, law="inverse"),
    Rule("divide by a reciprocal", x / (1.0 / y), x * y, safety={"fc": "nonfinite"}, law="inverse"),
    Rule("divide by a quotient", x / (y / z), (x * z) / y, safety={"f": "approximate"}, when=unshared,
         law="composition"),
    Rule("divide a quotient", (x / y) / z, x / (y * z), safety={"f": "approximate"}, when=unshared, law="composition"),
    Rule("multiply quotients", (x / y) * (z / w), (x * z) / (y * w), safety={"f": "approximate"}, when=unshared,
         law="composition"),
    Rule("divide a product by a factor", (x * y) / y, x, safety={"fc": "nonfinite"}, law="inverse"),
    Rule("divide a factor by its product", x / (x * y), 1.0 / y, safety={"f": "nonfinite"}, law="inverse"),
    Rule("divide a square by its root", square(x) / x, x, safety={"fc": "nonfinite"}, law="inverse"),
    Rule("divide by a square", x / square(x), 1.0 / x, safety={"f": "nonfinite"}, law="inverse"),
    Rule("multiply a quotient by its divisor", (x / y) * y, x, safety={"fc": "nonfinite"}, law="inverse"),
    Rule("cancel a common factor", (x * y) / (x * z), y / z, safety={"f": "approximate"}, law="inverse"),
    Rule("multiply by a reciprocal", x * (1.0 / y), x / y, safety={"f": "nonfinite"}, when=_no_smaller_divisor,
         law="reduction"),
    Rule("sum of quotients", x / z + y / z, (x + y) / z, safety={"f": "nonfinite"}, when=unshared,
         law="distribution"),
    Rule("difference of quotients", x / z - y / z, (x - y) / z, safety={"f": "nonfinite"}, when=unshared,
         law="distribution"),
    Rule("quotient of squares", square(x) / square(y), square(x / y), safety={"f": "nonfinite"}, when=unshared,
         law="distribution"),
)  # fmt: skip

REMAINDERS: tuple[AnyRule, ...] = (
    Rule("remainder by one", rem(x, 1), 0, safety={"iu": "exact"}, law="absorption"),
    Rule("remainder by minus one", rem(x, -1), 0, safety={"i": "exact"}, law="absorption"),
    Rule("remainder by itself", rem(x, x), 0, safety={"iu": "exact", "f": "nonfinite"}, law="absorption"),
    Rule("repeated remainder", rem(rem(x, y), y), rem(x, y), safety=REAL, law="idempotence"),
    Rule("remainder by a negative", rem(x, neg(y)), rem(x, y), safety={"if": "exact"}, law="identity"),
    Rule("remainder by an absolute value", rem(x, absolute(y)), rem(x, y), safety={"if": "exact"}, law="identity"),
)

MAGNITUDES: tuple[AnyRule, ...] = (
    Rule("absolute value of a negative", absolute(neg(x)), absolute(x), safety={"ifc": "exact"}, law="absorption"),
    Rule("absolute value twice", absolute(absolute(x)), absolute(x), safety={"if": "exact"}, law="idempotence"),
    Rule("absolute value of a square", absolute(square(x)), square(x), safety={"f": "exact"}, law="identity"),
    Rule("product of absolute values", absolute(x) * absolute(y), absolute(x * y), safety={"f": "exact"},
         when=one_unshared, law="distribution"),
    Rule("quotient of absolute values", absolute(x) / absolute(y), absolute(x / y), safety={"f": "exact"},
         when=one_unshared, law="distribution"),
    Rule("absolute value times sign", absolute(x) * sign(x), x, safety={"i": "exact", "f": "reassociate"},
         law="inverse"),
    Rule("value times sign", x * sign(x), absolute(x), safety={"i": "exact", "f": "reassociate"}, law="reduction"),
    Rule("value over absolute value", x / absolute(x), sign(x), safety={"f": "nonfinite"}, law="reduction"),
    Rule("absolute value over value", absolute(x) / x, sign(x), safety={"f": "nonfinite"}, law="reduction"),
    Rule("sign twice", sign(sign(x)), sign(x), safety=REAL, law="idempotence"),
)  # fmt: skip


@rewrites(p.add_jaxvals_p, safety=EXACT, local=True, law="reduction")
def sum_of_cotangents(node: Node) -> Node | None:
    """add_any(x, y), with which derivatives are summed, → x + y"""
    return make(op_of(p.add_p), *node.inputs)


@rewrites(p.neg_p, safety=EXACT, local=True, law="composition")
def negated_constant(node: Node) -> Node | None:
    """-a → the constant -a"""
    value = value_of(node.inputs[0])
    if value is None:
        return None
    with np.errstate(all="ignore"):
        return literal(np.negative(value), node)


@rewrites(p.div_p, safety={"f": "exact"}, local=True, law="reduction")
def quotient_by_a_power_of_two(node: Node) -> Node | None:
    """x / 2ᵏ → x * 2⁻ᵏ where both powers are normal numbers, so that nothing is rounded"""
    divisor = value_of(node.inputs[1])
    if divisor is None or not is_normal(divisor) or abs(np.frexp(np.float64(divisor))[0]) != 0.5:
        return None
    reciprocal = (1 / np.float64(divisor)).astype(divisor.dtype)
    return make(op_of(p.mul_p), node.inputs[0], literal(reciprocal, node)) if is_normal(reciprocal) else None


@rewrites(p.div_p, safety={"f": "approximate"}, law="reduction")
def quotient_by_a_scalar(node: Node) -> Node | None:
    """x / y → x * (1 / y) where y is a scalar beside an array, or a constant: one division instead of many"""
    dividend, divisor = node.inputs
    value = value_of(divisor)
    if value_of(dividend) is not None:
        return None
    if value is not None:
        with np.errstate(all="ignore"):
            reciprocal = np.asarray(np.ones((), value.dtype) / value).astype(value.dtype)[()]
        if not is_normal(reciprocal) or not is_normal(value):
            return None
        return make(op_of(p.mul_p), dividend, literal(reciprocal, node))
    if divisor.aval.shape or dividend.aval.size <= 1:
        return None
    return make(op_of(p.mul_p), dividend, make(node.op, full(1, divisor.aval), divisor))


@rewrites(p.mul_p, safety={"iu": "exact", "f": "nonfinite"}, law="reduction")
def product_with_a_mask(node: Node) -> Node | None:
    """x * number(p) → select_n(p, 0, x) where p is a boolean"""
    shape = node.aval.shape
    for value, mask in (node.inputs, node.inputs[::-1]):
        repeated = mask.op is BROADCAST and len(mask.inputs) == 1
        number = mask.inputs[0] if repeated else mask
        if number.op is not CONVERT or number.inputs[0].aval.dtype != np.bool_ or not number.inputs[0].aval.is_plain:
            continue
        if value.aval.size == 1 < node.aval.size:  # a number by which a mask is multiplied
            continue
        flags, kept = number.inputs[0], broadcast(value, shape, range(len(value.aval.shape)))
        if repeated:
            flags = broadcast(flags, mask.aval.shape, mask.attrs["broadcast_dimensions"])
        if flags.aval.shape:
            flags = broadcast(flags, shape, range(len(flags.aval.shape)))
        return make(op_of(p.select_n_p), flags, full(0, kept.aval), kept)
    return None


@rewrites(p.div_p, safety={"iu": "exact"}, local=True, law="composition")
def integer_quotient_of_a_quotient(node: Node) -> Node | None:
    """(x / a) / b → x / (a * b) where a and b are positive and their product has no overflow"""
    quotient, divisor = node.inputs[0], value_of(node.inputs[1])
    if quotient.op is not node.op or divisor is None:
        return None
    found = with_constant(quotient)
    if found is None or found[0] is not quotient.inputs[0]:
        return None
    first, second = int(found[1]), int(divisor)
    if first <= 0 or second <= 0 or first * second > np.iinfo(divisor.dtype).max:
        return None
    product = np.asarray(first * second, divisor.dtype)[()]
    return make(node.op, found[0], literal(product, node))


RULES: tuple[AnyRule, ...] = (
    *SUMS,
    *NEGATIONS,
    *PRODUCTS,
    *QUOTIENTS,
    *REMAINDERS,
    *MAGNITUDES,
    sum_of_cotangents,
    negated_constant,
    quotient_by_a_power_of_two,
    quotient_by_a_scalar,
    product_with_a_mask,
    integer_quotient_of_a_quotient,
)

DECLINED: dict[str, str] = {
    "add": "x + x → 2x exchanges an addition for a product; x + (y + z) is reordered only around constants and "
    "scalars, since the order of a sum is the program's.",
    "sub": "x² - y² → (x + y)(x - y) exchanges a product for an addition; x - a → x + (-a) is the same cost.",
    "mul": "x * 2ᵏ on integers → a shift, which compilers do by themselves; (-x) * y → -(x * y) saves nothing unless "
    "a constant or another negation takes up the sign; x * xⁿ → xⁿ⁺¹ takes apart powers that polynomials share.",
    "div": "x / 2ᵏ on integers → a shift, which compilers do by themselves; x / x → 1 and (x * y) / y → x on integers "
    "are wrong for zero and for overflow; a division by zero gives -1.",
    "rem": "x % 2ᵏ on unsigned integers → x & (2ᵏ - 1), which compilers do by themselves; rem(-x, y) → -rem(x, y) "
    "saves nothing; rem(x, 1) on floats is the fraction, not 0.",
    "neg": "-(x * y) stays where no constant takes up the sign; (-x) - y → -(x + y) saves nothing.",
    "abs": "|x * c| → |x| * |c| and |sqrt(x)| → sqrt(x) save nothing or change the zero's sign; |x²| on integers may "
    "have wrapped around.",
    "sign": "sign(x) * sign(y) → sign(x * y) goes wrong where the product underflows; sign(-x) → -sign(x) saves "
    "nothing.",
}
