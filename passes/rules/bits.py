"""Rules for shifts and for counts of bits."""

from __future__ import annotations

import numpy as np
from jax.extend.core import primitives as p

from graphopt.ir.node import Node
from graphopt.ir.op import op_of
from graphopt.ops.make import full, make
from graphopt.passes.rules.conditions import unshared
from graphopt.passes.rules.constants import literal, value_of
from graphopt.rewrite.pattern import operation, variables
from graphopt.rewrite.rule import AnyRule, Rule, rewrites

left, logical, arithmetic = map(operation, (p.shift_left_p, p.shift_right_logical_p, p.shift_right_arithmetic_p))
LEFT, LOGICAL, ARITHMETIC = map(op_of, (p.shift_left_p, p.shift_right_logical_p, p.shift_right_arithmetic_p))

x, y, z = variables("x y z")

INTEGERS = {"iu": "exact"}


def _of_shifts() -> tuple[AnyRule, ...]:
    rules: list[AnyRule] = []
    for name, shift in (("left", left), ("right", logical), ("right with sign", arithmetic)):
        rules += [
            Rule(f"shift {name} by zero", shift(x, 0), x, safety=INTEGERS, law="identity"),
            Rule(f"shift of zero {name}", shift(0, x), 0, safety=INTEGERS, law="absorption"),
            Rule(f"and of shifts {name}", shift(x, z) & shift(y, z), shift(x & y, z), safety=INTEGERS,
                 when=unshared, law="distribution"),
            Rule(f"or of shifts {name}", shift(x, z) | shift(y, z), shift(x | y, z), safety=INTEGERS,
                 when=unshared, law="distribution"),
            Rule(f"exclusive or of shifts {name}", shift(x, z) ^ shift(y, z), shift(x ^ y, z), safety=INTEGERS,
                 when=unshared, law="distribution"),
        ]  # fmt: skip
    return (
        *rules,
        Rule("sum of shifts", left(x, z) + left(y, z), left(x + y, z), safety=INTEGERS, when=unshared,
             law="distribution"),
        Rule("difference of shifts", left(x, z) - left(y, z), left(x - y, z), safety=INTEGERS, when=unshared,
             law="distribution"),
    )  # fmt: skip


def _distance(node: Node) -> int | None:
    """By how many bits a shift moves, if that is known: at most all of them, as XLA does. None else."""
    value = value_of(node.inputs[1])
    if value is None:
        return None
    width = 8 * int(node.aval.dtype.itemsize)
    # A negative distance is a large one without sign.
    return int(value) if 0 <= value < width else width


def _shift(node: Node, value: Node, distance: int) -> Node:
    return make(node.op, value, literal(np.asarray(distance, node.aval.dtype)[()], node))


@rewrites(p.shift_left_p, p.shift_right_logical_p, safety=INTEGERS, law="absorption")
def shift_of_everything(node: Node) -> Node | None:
    """x << n → 0 and x >>> n → 0 where x has no more than n bits"""
    return full(0, node.aval) if _distance(node) == 8 * int(node.aval.dtype.itemsize) else None


@rewrites(p.shift_left_p, p.shift_right_logical_p, p.shift_right_arithmetic_p, safety=INTEGERS, local=True,
          law="composition")  # fmt: skip
def shift_of_a_shift(node: Node) -> Node | None:
    """(x << m) << n → x << (m + n), and the same for shifts to the right"""
    inner = node.inputs[0]
    if inner.op is not node.op:
        return None
    first, second = _distance(inner), _distance(node)
    if first is None or second is None:
        return None
    width = 8 * int(node.aval.dtype.itemsize)
    most = width - 1 if node.op is ARITHMETIC else width
    return _shift(node, inner.inputs[0], min(first + second, most))


@rewrites(p.shift_left_p, p.shift_right_logical_p, safety=INTEGERS, local=True, law="inverse")
def shift_back(node: Node) -> Node | None:
    """(x << n) >>> n and (x >>> n) << n → x & a constant"""
    inner = node.inputs[0]
    if inner.op is not (LOGICAL if node.op is LEFT else LEFT):
        return None
    first, second = _distance(inner), _distance(node)
    bits = 8 * int(node.aval.dtype.itemsize)
    if first is None or first != second or first == bits:
        return None
    kept = (1 << (bits - first)) - 1
    mask = np.asarray(kept if node.op is LOGICAL else kept << first, f"uint{bits}").astype(node.aval.dtype)
    return make(op_of(p.and_p), inner.inputs[0], literal(mask[()], node))


RULES: tuple[AnyRule, ...] = (*_of_shifts(), shift_of_everything, shift_of_a_shift, shift_back)

DECLINED: dict[str, str] = {
    "threefry": "it draws random bits: nothing simple is known of them.",
    "shift_left": "(x << m) | (x >>> n), a rotation where m + n is the number of bits, is no operation in JAX.",
    "shift_right_logical": "x >>> n → x / 2ⁿ is the dearer form.",
    "shift_right_arithmetic": "(x << n) >> n extends a sign from within and is left as it is.",
    "population_count": "population_count(~x) → bits - population_count(x) exchanges an operation for another.",
    "clz": "clz(x) == bits → x == 0 and clz(x >>> n) → clz(x) + n save nothing, or only for numbers known to be large.",
}
