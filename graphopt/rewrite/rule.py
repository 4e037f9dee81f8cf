"""Rules: a pattern and what takes its place, in one line; or a function where a pattern cannot say it.

x, y, z = variables("x y z")
Rule("factor", x * y + x * z, x * (y + z), safety="nonfinite")

@rewrites(REDUCE_SUM, safety="reassociate")
def sum_of_a_broadcast(node: Node) -> Node | None: ...
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from jax.extend.core import Primitive

from graphopt.errors import OptionError
from graphopt.ir.node import Node
from graphopt.ir.op import CONSTANT, PARAM, PROJECT, STATE, Op, op_of
from graphopt.ops.make import BROADCAST
from graphopt.rewrite.pattern import COMMUTATIVE, Apply, Pattern, Value, Variable, build, matches
from graphopt.rewrite.safety import by_kind, weakest

LAWS = ("identity", "absorption", "inverse", "idempotence", "distribution", "composition", "movement", "reduction")
"""Kinds of laws: an operand that changes nothing; one that decides the result; an operation that undoes another; one
that repeats itself; one pulled out of another; two made one; data movement passed or merged; a dear form made cheap.
"""


@dataclass(frozen=True, slots=True)
class Match:
    """Where a pattern was found, for the condition of a rule.

    node: the node to be replaced. values: what the variables stand for. uses: how many nodes read a given one.
    """

    node: Node
    values: Mapping[str, Node]
    uses: Callable[[Node], int]

    def __getitem__(self, name: str) -> Node:
        return self.values[name]


@dataclass(frozen=True, slots=True)
class Replacement:
    """What a rule puts in the place of a node.

    new: the node that takes the place. safety: how far it may move the result. replaced: the nodes that it stands for,
    whose source lines it inherits.
    """

    new: Node
    safety: str
    replaced: tuple[Node, ...]


@dataclass(frozen=True, eq=False)
class Rule:
    """Replaces what matches `before` by `after`, where `when` holds.

    name: what the report calls it. safety: how far the result may move, in one word or by kinds of dtype
        (`{"iu": "exact", "f": "nonfinite"}`): see `graphopt.rewrite.safety`.
    when: a condition on a `Match`. law: what kind of law of algebra it is (one of `LAWS`; may stay empty).
    file, line: where the rule is written. table: the safety for each kind of dtype.
    Raises OptionError where `after` has variables that `before` has not, or `before` is not an operation.
    """

    name: str
    before: Pattern
    after: Pattern | int | float | bool | complex
    safety: str | Mapping[str, str] = "exact"
    when: Callable[[Match], bool] | None = None
    law: str = ""
    file: str = ""
    line: int = 0
    table: Mapping[str, str] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if not isinstance(self.before, Apply):
            raise OptionError(f"rule {self.name!r}: what it looks for must be an operation, not {self.before}")
        after = self.after if isinstance(self.after, Pattern) else Value(self.after)
        if unknown := _names(after) - _names(self.before):
            raise OptionError(f"rule {self.name!r}: nothing says what {', '.join(sorted(unknown))} stands for")
        if self.law and self.law not in LAWS:
            raise OptionError(f"rule {self.name!r}: unknown law {self.law!r}; known: {', '.join(LAWS)}")
        object.__setattr__(self, "after", after)
        object.__setattr__(self, "table", by_kind(self.safety))
        if not self.file:
            object.__setattr__(self, "file", sys._getframe(2).f_code.co_filename)
            object.__setattr__(self, "line", sys._getframe(2).f_lineno)

    @property
    def ops(self) -> tuple[Op, ...]:
        """The operations of the nodes that it may replace."""
        assert isinstance(self.before, Apply)
        return (self.before.op,)

    @property
    def is_local(self) -> bool:
        """Whether both sides are elementwise, so that neither shapes nor the sharding of arrays matter."""
        assert isinstance(self.after, Pattern)
        return not isinstance(self.after, Value) and all(map(_is_elementwise, (self.before, self.after)))

    def may_match(self, operands: tuple[Op, ...]) -> bool:
        """Whether it can replace a node whose operands are results of these operations."""
        assert isinstance(self.before, Apply)
        pattern = self.before
        if len(operands) != len(pattern.operands):
            return False
        orders = (operands, operands[::-1]) if pattern.op in COMMUTATIVE else (operands,)
        return any(all(map(_may_be, pattern.operands, order)) for order in orders)

    def apply(self, node: Node, uses: Callable[[Node], int], admitted: Iterable[str]) -> Replacement | None:
        """What to put in the place of `node`; None where the rule does not hold or is not admitted.

        Raises GraphError where JAX rejects what the rule makes.
        """
        assert isinstance(self.before, Apply) and isinstance(self.after, Pattern)
        for values in matches(self.before, node, {}):
            safety = weakest(self.table, values.values() or node.inputs)
            if safety is None or safety not in admitted:
                continue
            if self.when is None or self.when(Match(node, values, uses)):
                inner = tuple(_inner(self.before, node, set(values.values())))
                return Replacement(build(self.after, values, node), safety, inner)
        return None

    def __str__(self) -> str:
        return f"{self.before} → {self.after}"


@dataclass(frozen=True, eq=False)
class ProceduralRule:
    """A rule that is a function from a node to its replacement, or None: made by `rewrites`.

    The fields are those of `Rule`. local: whether neither shapes nor the sharding of arrays matter. operands: the
    operations of which all operands must be results; None for any.
    """

    name: str
    function: Callable[[Node], Node | None]
    ops: tuple[Op, ...]
    table: Mapping[str, str]
    local: bool
    law: str
    file: str
    line: int
    operands: frozenset[Op] | None = None

    @property
    def is_local(self) -> bool:
        """Whether neither shapes nor the sharding of arrays matter."""
        return self.local

    def may_match(self, operands: tuple[Op, ...]) -> bool:
        """Whether it can replace a node whose operands are results of these operations."""
        return self.operands is None or self.operands.issuperset(operands)

    def apply(self, node: Node, uses: Callable[[Node], int], admitted: Iterable[str]) -> Replacement | None:
        """What to put in the place of `node`; None where the rule does not hold or is not admitted."""
        if node.effects or node.context is not None or not all(aval.is_plain for aval in node.avals):
            return None
        if not all(len(n.avals) == 1 and n.aval.is_plain for n in node.inputs):
            return None
        safety = weakest(self.table, node.inputs or (node,))
        if safety is None or safety not in admitted:
            return None
        new = self.function(node)
        if new is None or new is node:
            return None
        hidden = [n for n in node.inputs if n.op not in (PARAM, CONSTANT, PROJECT, STATE) and n not in new.inputs]
        return Replacement(new, safety, (node, *[n for n in hidden if n is not new]))

    def __call__(self, node: Node) -> Node | None:
        """What the function makes of `node`."""
        return self.function(node)

    def __str__(self) -> str:
        return (self.function.__doc__ or self.name).strip().splitlines()[0]


AnyRule = Rule | ProceduralRule


def rewrites(
    *ops: Op | Primitive,
    safety: str | Mapping[str, str],
    local: bool = False,
    law: str = "",
    name: str | None = None,
    operands: Iterable[Op] | None = None,
) -> Callable[[Callable[[Node], Node | None]], ProceduralRule]:
    """Makes a rule of a function that is given a node of one of `ops` and returns its replacement, or None.

    safety, law: as in `Rule`. local: whether neither shapes nor the sharding of arrays matter. name: by default the
    function's, with spaces. operands: operations of which all operands must be results. The function sees plain arrays
    only, and its operands are simplified already.
    """
    found = tuple(op if isinstance(op, Op) else op_of(op) for op in ops)

    def rule(function: Callable[[Node], Node | None]) -> ProceduralRule:
        code: Any = function.__code__
        title = name or function.__name__.strip("_").replace("_", " ")
        only = None if operands is None else frozenset(operands)
        place = (code.co_filename, code.co_firstlineno)
        return ProceduralRule(title, function, found, by_kind(safety), local, law, *place, only)

    return rule


def _names(pattern: Pattern) -> set[str]:
    if isinstance(pattern, Apply):
        return set().union(*map(_names, pattern.operands))
    return {pattern.name} if isinstance(pattern, Variable) else set()


def _is_elementwise(pattern: Pattern) -> bool:
    if not isinstance(pattern, Apply):
        return True
    return pattern.op.elementwise and all(map(_is_elementwise, pattern.operands))


def _may_be(pattern: Pattern, op: Op) -> bool:
    if isinstance(pattern, Apply):
        return op is pattern.op
    if isinstance(pattern, Value) or (isinstance(pattern, Variable) and pattern.constant):
        return op is CONSTANT or op is BROADCAST
    return True


def _inner(pattern: Pattern, node: Node, leaves: set[Node]) -> Iterable[Node]:
    """The nodes that the operations of a pattern matched."""
    if isinstance(pattern, Apply) and node not in leaves and node.op is pattern.op:
        yield node
        for operand in node.inputs:
            for inner in pattern.operands:
                yield from _inner(inner, operand, leaves)
