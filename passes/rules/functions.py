"""Rules for trigonometric, hyperbolic, error and gamma functions and their inverses.

Even functions lose signs, odd ones pass them on where that saves one, and a function undoes its inverse.
"""

from __future__ import annotations

from jax.extend.core import primitives as p

from graphopt.ir.node import Node
from graphopt.ir.op import op_of
from graphopt.ops.make import make
from graphopt.passes.rules.conditions import one_unshared, unshared
from graphopt.passes.rules.constants import value_of, with_constant
from graphopt.passes.rules.moving import Uses
from graphopt.rewrite.pattern import operation, variables
from graphopt.rewrite.rule import AnyRule, Rule, rewrites

neg, absolute, square = map(operation, (p.neg_p, p.abs_p, p.square_p))
sin, cos, tan = map(operation, (p.sin_p, p.cos_p, p.tan_p))
sinh, cosh, tanh = map(operation, (p.sinh_p, p.cosh_p, p.tanh_p))
erf, erfc, igamma, igammac = map(operation, (p.erf_p, p.erfc_p, p.igamma_p, p.igammac_p))

x, y = variables("x y")

EVEN = {"cos": p.cos_p, "cosh": p.cosh_p}
ODD = {
    "sin": p.sin_p, "tan": p.tan_p, "asin": p.asin_p, "atan": p.atan_p, "sinh": p.sinh_p, "tanh": p.tanh_p,
    "asinh": p.asinh_p, "atanh": p.atanh_p, "erf": p.erf_p, "erf_inv": p.erf_inv_p, "cbrt": p.cbrt_p,
}  # fmt: skip
UNDONE = {
    "sin of asin": (p.sin_p, p.asin_p),
    "cos of acos": (p.cos_p, p.acos_p),
    "tan of atan": (p.tan_p, p.atan_p),
    "sinh of asinh": (p.sinh_p, p.asinh_p),
    "asinh of sinh": (p.asinh_p, p.sinh_p),
    "cosh of acosh": (p.cosh_p, p.acosh_p),
    "tanh of atanh": (p.tanh_p, p.atanh_p),
    "atanh of tanh": (p.atanh_p, p.tanh_p),
    "erf of erf_inv": (p.erf_p, p.erf_inv_p),
    "erf_inv of erf": (p.erf_inv_p, p.erf_p),
}
"""A function and an inverse of it, the outer one first; not asin of sin, which is x on one period only."""


def _symmetries() -> tuple[AnyRule, ...]:
    rules: list[AnyRule] = []
    for name, primitive in EVEN.items():
        f = operation(primitive)
        rules.append(Rule(f"{name} of a negative", f(neg(x)), f(x), safety={"f": "exact"}, law="absorption"))
        rules.append(Rule(f"{name} of an absolute value", f(absolute(x)), f(x), safety={"f": "exact"},
                          law="absorption"))  # fmt: skip
    for name, primitive in ODD.items():
        f = operation(primitive)
        rules.append(Rule(f"negated {name} of a negative", neg(f(neg(x))), f(x), safety={"f": "reassociate"},
                          when=unshared, law="inverse"))  # fmt: skip
    return tuple(rules)


def _inverses() -> tuple[AnyRule, ...]:
    return tuple(
        Rule(name, operation(outer)(operation(inverse)(x)), x, safety={"f": "approximate"}, law="inverse")
        for name, (outer, inverse) in UNDONE.items()
    )


QUOTIENTS: tuple[AnyRule, ...] = (
    Rule("sine over cosine", sin(x) / cos(x), tan(x), safety={"f": "approximate"}, when=unshared, law="reduction"),
    Rule("sinh over cosh", sinh(x) / cosh(x), tanh(x), safety={"f": "nonfinite"}, when=one_unshared, law="reduction"),
    Rule("squares of sine and cosine", square(sin(x)) + square(cos(x)), 1, safety={"f": "nonfinite"},
         law="reduction"),
    Rule("squares of cosh and sinh", square(cosh(x)) - square(sinh(x)), 1, safety={"f": "approximate"},
         law="reduction"),
    Rule("one less erfc", 1.0 - erfc(x), erf(x), safety={"f": "approximate"}, when=unshared, law="reduction"),
    Rule("one less igamma", 1.0 - igamma(x, y), igammac(x, y), safety={"f": "approximate"}, when=unshared,
         law="reduction"),
    Rule("one less igammac", 1.0 - igammac(x, y), igamma(x, y), safety={"f": "approximate"}, when=unshared,
         law="reduction"),
    Rule("both incomplete gammas", igamma(x, y) + igammac(x, y), 1, safety={"f": "nonfinite"}, law="reduction"),
)  # fmt: skip

ADD, SUB, NEG, SELECT, ERF, ERFC = map(op_of, (p.add_p, p.sub_p, p.neg_p, p.select_n_p, p.erf_p, p.erfc_p))


def _complement(node: Node) -> tuple[Node, Node] | None:
    """x and f(y), where a node is erfc(x) and is computed from an error function of it: as such, as 1 + erf(-x),
    1 - erf(x), or 2 - erfc(-x)."""
    if node.op is ERFC:
        return node.inputs[0], node
    found = with_constant(node) if node.op is ADD else None
    if node.op is SUB and value_of(node.inputs[0]) is not None:
        found = node.inputs[1], value_of(node.inputs[0])
    if found is None or found[0].op not in (ERF, ERFC) or found[1] != (1 if found[0].op is ERF else 2):
        return None
    function = found[0]
    if node.op is ADD and function.op is ERFC:
        return None
    (x,) = function.inputs
    return (x if node.op is SUB and function.op is ERF else make(NEG, x)), function


@rewrites(p.select_n_p, safety={"f": "reassociate"}, local=True, law="reduction")
def choice_between_error_functions(node: Node, uses: Uses) -> Node | None:
    """select_n(p, erfc(x), 1 + erf(y)) → erfc(select_n(p, x, -y)), and so for 1 - erf(x) and 2 - erfc(-x)

    As the normal distribution is written: one function in place of two or three. A sum with 1 or 2 has no more digits.
    """
    chooser, *cases = node.inputs
    found = [_complement(case) for case in cases]
    if len(cases) != 2 or chooser.aval.shape not in ((), node.aval.shape):
        return None
    (first, second) = found
    if first is None or second is None:
        return None
    functions = [first[1], second[1]]
    # Nothing else reads the functions, nor the sums that they are in.
    if any(uses(f) != functions.count(f) for f in functions) or any(uses(c) != 1 for c in cases if c not in functions):
        return None
    return make(ERFC, make(SELECT, chooser, first[0], second[0]))


RULES: tuple[AnyRule, ...] = (*_symmetries(), *_inverses(), *QUOTIENTS, choice_between_error_functions)

_ODD = "f(-x) → -f(x) moves a negation and saves none"

DECLINED: dict[str, str] = {
    "sin": f"{_ODD}; 2 sin(x) cos(x) → sin(2x) loses all digits where 2x is large.",
    "cos": "cos²(x) - sin²(x) → cos(2x) loses digits; on complex numbers no symmetry is used.",
    "tan": f"{_ODD}; atan(tan(x)) is x only between -π/2 and π/2.",
    "asin": f"{_ODD}; asin(sin(x)) is x only between -π/2 and π/2.",
    "acos": "acos(-x) → π - acos(x) saves nothing; acos(cos(x)) is x only between 0 and π.",
    "atan": f"{_ODD}; atan(1 / x) → π/2 - atan(x) depends on the sign of x.",
    "sinh": f"{_ODD}; (exp(x) - exp(-x)) / 2 → sinh(x) is a kernel with a branch of its own, no cheaper.",
    "cosh": "acosh(cosh(x)) → |x| has no digits near 0; (exp(x) + exp(-x)) / 2 → cosh(x) is no cheaper.",
    "tanh": f"{_ODD}; 2 logistic(2x) - 1 → tanh(x) cancels.",
    "asinh": f"{_ODD}.",
    "acosh": "acosh(cosh(x)) → |x| has no digits near 0.",
    "atanh": f"{_ODD}.",
    "erf": f"{_ODD}; 1 - erf(x) → erfc(x) computes an exponential more, for digits that the program did without.",
    "erfc": "erfc(-x) → 2 - erfc(x) moves a negation and saves none.",
    "erf_inv": f"{_ODD}.",
    "lgamma": "lgamma(x + 1) → lgamma(x) + log(x) computes a function more.",
    "digamma": "digamma(x + 1) → digamma(x) + 1 / x computes a division more.",
    "igamma": "igamma(1, x) → -expm1(-x) is not seen in programs.",
    "igammac": "igammac(1, x) → exp(-x) is not seen in programs.",
    "atan2": "atan2(y, 1) → atan(y) is what XLA makes of atan; atan2(c * y, c * x) depends on the sign of c.",
}
