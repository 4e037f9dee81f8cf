"""Rules for squares, roots, powers, exponentials and logarithms."""

from __future__ import annotations

import numpy as np
from jax.extend.core import primitives as p

from graphopt.ir.node import Node
from graphopt.ir.op import op_of
from graphopt.ops.make import full, make
from graphopt.passes.rules.conditions import inner, one_unshared, unshared
from graphopt.passes.rules.constants import value_of
from graphopt.rewrite.pattern import operation, variables
from graphopt.rewrite.rule import AnyRule, Match, Rule, rewrites

neg, absolute, square, power = map(operation, (p.neg_p, p.abs_p, p.square_p, p.pow_p))
sqrt, rsqrt, cbrt = map(operation, (p.sqrt_p, p.rsqrt_p, p.cbrt_p))
exp, exp2, expm1, log, log1p = map(operation, (p.exp_p, p.exp2_p, p.expm1_p, p.log_p, p.log1p_p))
logistic = operation(p.logistic_p)
cube = operation(p.integer_pow_p, y=3)
reciprocal = operation(p.integer_pow_p, y=-1)

x, y, z = variables("x y z")

ROUNDS = {"f": "reassociate"}
FINITE = {"f": "nonfinite"}
APPROXIMATE = {"f": "approximate"}

ROOTS: tuple[AnyRule, ...] = (
    Rule("square of a negative", square(neg(x)), square(x), safety={"iuf": "exact"}, law="absorption"),
    Rule("square of an absolute value", square(absolute(x)), square(x), safety={"if": "exact"}, law="absorption"),
    Rule("square of a root", square(sqrt(x)), x, safety=FINITE, law="inverse"),
    Rule("root of a square", sqrt(square(x)), absolute(x), safety=APPROXIMATE, law="inverse"),
    Rule("square of a reciprocal root", square(rsqrt(x)), 1.0 / x, safety=APPROXIMATE, law="reduction"),
    Rule("product of roots", sqrt(x) * sqrt(y), sqrt(x * y), safety=APPROXIMATE, when=one_unshared,
         law="distribution"),
    Rule("quotient of roots", sqrt(x) / sqrt(y), sqrt(x / y), safety=APPROXIMATE, when=one_unshared,
         law="distribution"),
    Rule("product of reciprocal roots", rsqrt(x) * rsqrt(y), rsqrt(x * y), safety=APPROXIMATE, when=one_unshared,
         law="distribution"),
    Rule("reciprocal of a root", 1.0 / sqrt(x), rsqrt(x), safety=ROUNDS, when=unshared, law="reduction"),
    Rule("quotient by a root", x / sqrt(y), x * rsqrt(y), safety=ROUNDS, when=unshared, law="reduction"),
    Rule("reciprocal of a reciprocal root", 1.0 / rsqrt(x), sqrt(x), safety=ROUNDS, when=unshared, law="inverse"),
    Rule("quotient by a reciprocal root", x / rsqrt(y), x * sqrt(y), safety=ROUNDS, when=unshared, law="reduction"),
    Rule("root of a reciprocal", sqrt(1.0 / x), rsqrt(x), safety=APPROXIMATE, when=unshared, law="reduction"),
    Rule("reciprocal root of a reciprocal", rsqrt(1.0 / x), sqrt(x), safety=APPROXIMATE, when=unshared, law="inverse"),
    Rule("value over its root", x / sqrt(x), sqrt(x), safety=FINITE, law="reduction"),
    Rule("value times its reciprocal root", x * rsqrt(x), sqrt(x), safety=FINITE, when=unshared, law="reduction"),
    Rule("cube of a cube root", cube(cbrt(x)), x, safety=APPROXIMATE, law="inverse"),
    Rule("cube root of a cube", cbrt(cube(x)), x, safety=APPROXIMATE, law="inverse"),
)  # fmt: skip


def _is_float_power(m: Match) -> bool:
    """Whether base and exponent have one dtype: then the result has it too."""
    return bool(m["x"].aval.dtype == m.node.aval.dtype)


POWERS: tuple[AnyRule, ...] = (
    Rule("reciprocal as a quotient", reciprocal(x), 1.0 / x, safety={"f": "exact"}, law="reduction"),
    Rule("power zero", power(x, 0.0), 1, safety={"f": "exact"}, law="absorption"),
    Rule("power minus zero", power(x, -0.0), 1, safety={"f": "exact"}, law="absorption"),
    Rule("power of one", power(1.0, x), 1, safety={"f": "exact"}, when=_is_float_power,
         law="absorption"),
    Rule("power one", power(x, 1.0), x, safety=ROUNDS, when=_is_float_power, law="identity"),
    Rule("power two", power(x, 2.0), square(x), safety=ROUNDS, law="reduction"),
    Rule("power minus one", power(x, -1.0), 1.0 / x, safety=ROUNDS, law="reduction"),
    Rule("power one half", power(x, 0.5), sqrt(x), safety=FINITE, law="reduction"),
    Rule("power minus one half", power(x, -0.5), rsqrt(x), safety=FINITE, law="reduction"),
    Rule("product of powers", power(x, y) * power(x, z), power(x, y + z), safety=APPROXIMATE, when=one_unshared,
         law="distribution"),
    Rule("quotient of powers", power(x, y) / power(x, z), power(x, y - z), safety=APPROXIMATE, when=one_unshared,
         law="distribution"),
    Rule("power of an exponential", power(exp(x), y), exp(x * y), safety=APPROXIMATE, when=unshared,
         law="reduction"),
    Rule("logarithm of a power", log(power(x, y)), log(x) * y, safety=APPROXIMATE, when=unshared, law="reduction"),
)  # fmt: skip

EXPONENTIALS: tuple[AnyRule, ...] = (
    Rule("exponential of a logarithm", exp(log(x)), x, safety=APPROXIMATE, law="inverse"),
    Rule("logarithm of an exponential", log(exp(x)), x, safety=APPROXIMATE, law="inverse"),
    Rule("expm1 of log1p", expm1(log1p(x)), x, safety=APPROXIMATE, law="inverse"),
    Rule("log1p of expm1", log1p(expm1(x)), x, safety=APPROXIMATE, law="inverse"),
    Rule("exponential of log1p", exp(log1p(x)), x + 1.0, safety=APPROXIMATE, law="inverse"),
    Rule("log1p of a difference with one", log1p(x - 1.0), log(x), safety=APPROXIMATE, law="reduction"),
    Rule("log1p of a sum with minus one", log1p(x + -1.0), log(x), safety=APPROXIMATE, law="reduction"),
    Rule("expm1 plus one", expm1(x) + 1.0, exp(x), safety=APPROXIMATE, when=unshared, law="reduction"),
    Rule("product of exponentials", exp(x) * exp(y), exp(x + y), safety=APPROXIMATE, when=one_unshared,
         law="distribution"),
    Rule("quotient of exponentials", exp(x) / exp(y), exp(x - y), safety=APPROXIMATE, when=one_unshared,
         law="distribution"),
    Rule("product of powers of two", exp2(x) * exp2(y), exp2(x + y), safety=APPROXIMATE, when=one_unshared,
         law="distribution"),
    Rule("quotient of powers of two", exp2(x) / exp2(y), exp2(x - y), safety=APPROXIMATE, when=one_unshared,
         law="distribution"),
    Rule("reciprocal of an exponential", 1.0 / exp(x), exp(neg(x)), safety=FINITE, when=unshared, law="reduction"),
    Rule("quotient by an exponential", x / exp(y), x * exp(neg(y)), safety=APPROXIMATE, when=unshared,
         law="reduction"),
    Rule("root of an exponential", sqrt(exp(x)), exp(x * 0.5), safety=APPROXIMATE, when=unshared, law="reduction"),
    Rule("reciprocal root of an exponential", rsqrt(exp(x)), exp(x * -0.5), safety=APPROXIMATE, when=unshared,
         law="reduction"),
    Rule("logarithm of a root", log(sqrt(x)), log(x) * 0.5, safety=APPROXIMATE, when=unshared, law="reduction"),
    Rule("logarithm of a reciprocal root", log(rsqrt(x)), log(x) * -0.5, safety=APPROXIMATE, when=unshared,
         law="reduction"),
    Rule("logarithm of a reciprocal", log(1.0 / x), neg(log(x)), safety=APPROXIMATE, when=unshared, law="reduction"),
    Rule("sum of logarithms", log(x) + log(y), log(x * y), safety=APPROXIMATE, when=unshared, law="distribution"),
    Rule("difference of logarithms", log(x) - log(y), log(x / y), safety=APPROXIMATE, when=unshared,
         law="distribution"),
)  # fmt: skip


def _shared_by_two(m: Match) -> bool:
    """Whether the exponential is read by the numerator and the denominator, and by nothing else."""
    return all(m.uses(node) == (2 if node.op.name == "exp" else 1) for node in inner(m))


LOGISTIC: tuple[AnyRule, ...] = (
    Rule("logistic function", 1.0 / (exp(neg(x)) + 1.0), logistic(x), safety=ROUNDS, when=unshared, law="reduction"),
    Rule("logistic function of a negative", 1.0 / (exp(x) + 1.0), logistic(neg(x)), safety=ROUNDS, when=unshared,
         law="reduction"),
    Rule("logistic function as a quotient", exp(x) / (exp(x) + 1.0), logistic(x), safety=FINITE,
         when=_shared_by_two, law="reduction"),
    Rule("quotient by one plus an exponential", x / (exp(neg(y)) + 1.0), x * logistic(y), safety=APPROXIMATE,
         when=unshared, law="reduction"),
)  # fmt: skip


@rewrites(p.integer_pow_p, safety={"iufc": "exact"}, local=True, law="reduction")
def small_integer_power(node: Node) -> Node | None:
    """integer_pow(x, 0) → 1, integer_pow(x, 1) → x, integer_pow(x, 2) → square(x)"""
    exponent = node.attrs["y"]
    if exponent == 0:
        return full(1, node.aval)
    if exponent == 1:
        return node.inputs[0]
    if exponent == 2 and np.dtype(node.aval.dtype).kind != "c":
        return make(op_of(p.square_p), node.inputs[0])
    return None


@rewrites(p.integer_pow_p, safety={"iuf": "exact"}, local=True, law="absorption")
def even_power_without_sign(node: Node) -> Node | None:
    """integer_pow(-x, n) → integer_pow(x, n), and of abs(x), where n is even"""
    base = node.inputs[0]
    if node.attrs["y"] % 2 or (base.op is not op_of(p.neg_p) and base.op is not op_of(p.abs_p)):
        return None
    return make(node.op, base.inputs[0], **node.attrs)


@rewrites(p.pow_p, safety={"f": "reassociate"}, local=True, law="reduction")
def power_with_a_whole_exponent(node: Node) -> Node | None:
    """pow(x, n) → integer_pow(x, n) where n is a whole number from 3 to 16"""
    value = value_of(node.inputs[1])
    if value is None or node.inputs[0].aval.dtype != node.aval.dtype or float(value) not in _WHOLE:
        return None
    return make(op_of(p.integer_pow_p), node.inputs[0], y=int(value))


_WHOLE = frozenset(map(float, range(3, 17)))
"""Exponents for which repeated squaring takes at most six products, each rounded once."""

RULES: tuple[AnyRule, ...] = (
    *LOGISTIC,
    *ROOTS,
    *POWERS,
    *EXPONENTIALS,
    small_integer_power,
    even_power_without_sign,
    power_with_a_whole_exponent,
)

DECLINED: dict[str, str] = {
    "square": "square(x) * x → integer_pow(x, 3) and square(square(x)) → integer_pow(x, 4) save no multiplication; "
    "square(exp(x)) → exp(2x) neither.",
    "integer_pow": "(xᵐ)ⁿ → xᵐⁿ saves no multiplication, for squares are repeated either way; x⁻ⁿ → 1 / xⁿ neither.",
    "pow": "(xʸ)ᶻ → xʸᶻ is wrong for negative x ((-2)² to the power 1/2); exp(y * log(x)) → pow(x, y) makes the dearer "
    "form.",
    "sqrt": "sqrt(x²y) → |x| * sqrt(y) saves nothing that a root costs.",
    "rsqrt": "rsqrt(x) → 1 / sqrt(x) is the dearer form.",
    "cbrt": "cbrt(x) * cbrt(y) → cbrt(x * y) is not seen in programs; cbrt(-x) → -cbrt(x) saves nothing.",
    "exp": "exp(x) - 1 → expm1(x) computes digits that the program did without, at a higher price; "
    "exp(x)ⁿ → exp(n * x) exchanges one product for another.",
    "exp2": "exp2(x) → exp(x * log(2)) is what XLA makes of it anyway.",
    "expm1": "expm1(x) → exp(x) - 1 drops digits where x is small.",
    "log": "log(1 + x) → log1p(x) computes digits that the program did without, at a higher price; log(x²) → 2 log|x| "
    "and log(x * y) → log(x) + log(y) are no cheaper; log(sum(w * exp(x))) is not shifted by the greatest x: "
    "where that one has no weight nothing would be left of the others (`logsumexp` has `b=` for it).",
    "log1p": "log1p(x) → log(1 + x) drops digits where x is small.",
    "logistic": "logistic(-x) → 1 - logistic(x) cancels.",
}
