"""Patterns: what a rule looks for, and what it puts in its place, written as the expression that it is.

    x, y, z = variables("x y z")
    x * y + x * z          # matches a sum of two products that share a factor, in any order of operands
    exp = operation(jax.lax.exp_p)
    exp(x) * exp(y)

A variable stands for any node, the same one wherever it occurs (equal nodes are one object). A number stands for a
constant all of whose elements have this value, to the bit: `0.0` is not `-0.0`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jax.extend.core import Primitive
from jax.extend.core import primitives as p

from graphopt.errors import GraphError
from graphopt.ir.attrs import EMPTY
from graphopt.ir.node import Constant, Node
from graphopt.ir.op import CONSTANT, Op, op_of
from graphopt.ops.make import BROADCAST, default_attrs, fit, make, scalar

Env = Mapping[str, Node]
Number = bool | int | float | complex


class Pattern:
    """An expression of operations, variables and numbers. Python's operators build larger ones."""

    __slots__ = ()

    def __add__(self, other: Operand) -> Apply:
        return Apply(_ADD, (self, _pattern(other)))

    def __radd__(self, other: Number) -> Apply:
        return Apply(_ADD, (_pattern(other), self))

    def __sub__(self, other: Operand) -> Apply:
        return Apply(_SUB, (self, _pattern(other)))

    def __rsub__(self, other: Number) -> Apply:
        return Apply(_SUB, (_pattern(other), self))

    def __mul__(self, other: Operand) -> Apply:
        return Apply(_MUL, (self, _pattern(other)))

    def __rmul__(self, other: Number) -> Apply:
        return Apply(_MUL, (_pattern(other), self))

    def __truediv__(self, other: Operand) -> Apply:
        return Apply(_DIV, (self, _pattern(other)))

    def __rtruediv__(self, other: Number) -> Apply:
        return Apply(_DIV, (_pattern(other), self))

    def __and__(self, other: Operand) -> Apply:
        return Apply(_AND, (self, _pattern(other)))

    def __or__(self, other: Operand) -> Apply:
        return Apply(_OR, (self, _pattern(other)))

    def __xor__(self, other: Operand) -> Apply:
        return Apply(_XOR, (self, _pattern(other)))

    def __neg__(self) -> Apply:
        return Apply(_NEG, (self,))

    def __invert__(self) -> Apply:
        return Apply(_NOT, (self,))


Operand = Pattern | bool | int | float | complex


@dataclass(frozen=True, slots=True)
class Variable(Pattern):
    """Stands for any value. constant: only for one that is known, the same in all its elements."""

    name: str
    constant: bool = False

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True, slots=True)
class Value(Pattern):
    """Stands for a constant with this value in every element."""

    value: Number

    def __str__(self) -> str:
        return str(self.value)


@dataclass(frozen=True, slots=True)
class Apply(Pattern):
    """An operation applied to operands.

    attrs: parameters that it must have, or gets; all others are, or become, those that JAX takes by default.
    """

    op: Op
    operands: tuple[Pattern, ...]
    attrs: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        symbol = _SYMBOLS.get(self.op.name)
        if symbol and len(self.operands) == 2:
            return f"({self.operands[0]} {symbol} {self.operands[1]})"
        parts = [str(operand) for operand in self.operands]
        parts += [f"{name}={value}" for name, value in self.attrs.items()]
        return f"{self.op.name}({', '.join(parts)})"


def variables(names: str, constant: bool = False) -> tuple[Variable, ...]:
    """Variables of these names (separated by spaces). constant: they stand for constants only."""
    return tuple(Variable(name, constant) for name in names.split())


def operation(op: Op | Primitive, **attrs: Any) -> Callable[..., Apply]:
    """A function that makes patterns of an operation, or of a JAX primitive, with these parameters."""
    found = op if isinstance(op, Op) else op_of(op)

    def pattern(*operands: Operand) -> Apply:
        return Apply(found, tuple(_pattern(operand) for operand in operands), attrs)

    return pattern


def _pattern(operand: Operand) -> Pattern:
    return operand if isinstance(operand, Pattern) else Value(operand)


_ADD, _SUB, _MUL, _DIV = op_of(p.add_p), op_of(p.sub_p), op_of(p.mul_p), op_of(p.div_p)
_AND, _OR, _XOR, _NEG, _NOT = op_of(p.and_p), op_of(p.or_p), op_of(p.xor_p), op_of(p.neg_p), op_of(p.not_p)
_SYMBOLS = {"add": "+", "sub": "-", "mul": "*", "div": "/", "and": "&", "or": "|", "xor": "^"}

COMMUTATIVE = frozenset({_ADD, _MUL, _AND, _OR, _XOR, *map(op_of, (p.max_p, p.min_p, p.eq_p, p.ne_p))})
"""Operations whose two operands may change places without changing a bit."""


# ---- matching


def matches(pattern: Pattern, node: Node, env: Env) -> Iterator[dict[str, Node]]:
    """What the variables of `pattern` stand for where it matches `node`, given what they stand for already.

    More than one answer where operands may change places. Only plain arrays are matched, and no node that carries a
    context of its own (XLA metadata, a mesh).
    """
    if isinstance(pattern, Apply):
        yield from _operation_matches(pattern, node, env)
        return
    aval = node.avals[0] if len(node.avals) == 1 else None
    if aval is None or not aval.is_plain:
        return
    if isinstance(pattern, Value):
        if _has_value(node, pattern.value):
            yield dict(env)
    elif isinstance(pattern, Variable):
        known = env.get(pattern.name)
        if known is None:
            if not pattern.constant or splat(node) is not None:
                yield {**env, pattern.name: node}
        elif known is node:
            yield dict(env)


def _operation_matches(pattern: Apply, node: Node, env: Env) -> Iterator[dict[str, Node]]:
    if node.op is not pattern.op or len(node.inputs) != len(pattern.operands):
        return
    if node.effects or node.context is not None or not node.aval.is_plain or not _has_attrs(node, pattern):
        return
    yield from _operands_match(pattern.operands, node.inputs, env)
    if node.op in COMMUTATIVE and node.inputs[0] is not node.inputs[1]:
        yield from _operands_match(pattern.operands, node.inputs[::-1], env)


def _operands_match(patterns: tuple[Pattern, ...], nodes: tuple[Node, ...], env: Env) -> Iterator[dict[str, Node]]:
    if not patterns:
        yield dict(env)
        return
    for found in matches(patterns[0], nodes[0], env):
        yield from _operands_match(patterns[1:], nodes[1:], found)


def _has_attrs(node: Node, pattern: Apply) -> bool:
    if node.attrs is EMPTY:
        return not pattern.attrs
    if pattern.attrs:
        return node.attrs == default_attrs(node.op).replace(**pattern.attrs)
    return all(value is None for value in node.attrs.values()) or node.attrs == default_attrs(node.op)


def splat(node: Node) -> np.generic | None:
    """The one value that all elements of a constant have, to the bit; None for any other node.

    A scalar constant that was broadcast counts too.
    """
    if node.op is BROADCAST:
        node = node.inputs[0]
        if node.avals[0].shape:
            return None
    if node.op is not CONSTANT:
        return None
    value: Constant = node.attrs["value"]
    return value.element


def number_key(value: Any) -> Hashable:
    """Equal for numbers that are the same to the bit, whatever their dtype: `0.0` is not `-0.0`, `1` no truth value."""
    if isinstance(value, bool | np.bool_):
        return bool, bool(value)
    number = complex(value)
    if number != number:
        return "nan"
    return number, math.copysign(1, number.real), math.copysign(1, number.imag)


def value_key(node: Node) -> Hashable:
    """The key of the number that a node stands for in patterns; None where it stands for none."""
    element = splat(node)
    if element is None:
        return None
    try:
        return number_key(element)
    except (TypeError, ValueError):  # an element of a dtype that is no number, a random key for example
        return None


def _has_value(node: Node, value: Number) -> bool:
    return (node.op is CONSTANT or node.op is BROADCAST) and value_key(node) == number_key(value)


# ---- building


def build(pattern: Pattern, env: Env, like: Node) -> Node:
    """The node that `pattern` describes, its variables being those of `env`, in the place of `like`.

    A number gets the dtype of the operand beside it, or of `like` where it stands alone. Raises GraphError where JAX
    rejects the types.
    """
    if isinstance(pattern, Variable):
        return env[pattern.name]
    if isinstance(pattern, Value):
        return fit(scalar(pattern.value, like.aval.dtype), like.aval)
    assert isinstance(pattern, Apply)
    operands = [None if isinstance(o, Value) else build(o, env, like) for o in pattern.operands]
    known = [node for node in operands if node is not None]
    if not known:
        raise GraphError(f"the dtype of the numbers in {pattern} is not known")
    inputs = [
        scalar(o.value, known[-1].aval.dtype) if isinstance(o, Value) else node
        for o, node in zip(pattern.operands, operands, strict=True)
    ]
    return make(pattern.op, *[node for node in inputs if node is not None], **pattern.attrs)
