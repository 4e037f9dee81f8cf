"""Rules: a pattern and what takes its place, in one line; or a function where a pattern cannot say it.

x, y, z = variables("x y z")
Rule("factor", x * y + x * z, x * (y + z), safety="nonfinite")

@rewrites(REDUCE_SUM, safety="reassociate")
def sum_of_a_broadcast(node: Node) -> Node | None: ...
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Hashable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from jax.extend.core import Primitive

from graphopt.errors import OptionError
from graphopt.ir.node import Node
from graphopt.ir.op import CONSTANT, PARAM, PROJECT, STATE, Op, op_of
from graphopt.ops.make import BROADCAST
from graphopt.rewrite.pattern import COMMUTATIVE, Apply, Pattern, Value, Variable, build, matches, number_key
from graphopt.rewrite.safety import by_kind, kinds_of, loosest

LAWS = ("identity", "absorption", "inverse", "idempotence", "distribution", "composition", "movement", "reduction")
"""Kinds of laws: an operand that changes nothing; one that decides the result; an operation that undoes another; one
that repeats itself; one pulled out of another; two made one; data movement passed or merged; a dear form made cheap.
"""


class Operand(NamedTuple):
    """What is looked at first of an operand: its operation, and the number that it is, if a rule asks for that one."""

    op: Op
    number: Hashable = None


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

    @property
    def numbers(self) -> set[Hashable]:
        """The numbers among the operands of the node that it looks for, by their keys."""
        assert isinstance(self.before, Apply)
        return {number_key(operand.value) for operand in self.before.operands if isinstance(operand, Value)}

    @property
    def keeps_derivatives(self) -> bool:
        """Whether JAX may still differentiate what it makes: an expression of equal value has equal derivatives."""
        return True

    def may_match(self, operands: tuple[Operand, ...], same: bool) -> bool:
        """Whether it can replace a node with operands like these. same: whether the two operands are one node."""
        assert isinstance(self.before, Apply)
        wanted = self.before.operands
        if len(operands) != len(wanted):
            return False
        if not same and len(wanted) == 2 and isinstance(wanted[0], Variable) and wanted[0] == wanted[1]:
            return False
        orders = (operands, operands[::-1]) if self.before.op in COMMUTATIVE else (operands,)
        return any(all(map(_may_be, wanted, order)) for order in orders)

    def apply(
        self, node: Node, kinds: frozenset[str], uses: Callable[[Node], int], admitted: Collection[str]
    ) -> Replacement | None:
        """What to put in the place of a plain `node`; None where the rule does not hold or is not admitted.

        kinds: those of the node's operands (see `graphopt.rewrite.safety`). uses: how many nodes read a given one.
        Raises GraphError where JAX rejects what the rule makes.
        """
        assert isinstance(self.before, Apply) and isinstance(self.after, Pattern)
        for values in matches(self.before, node, {}):
            safety = loosest(self.table, kinds_of(values.values()) if values else kinds)
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

    The fields are those of `Rule`, and: local: whether neither shapes nor the sharding of arrays matter. all_operands,
    an_operand: operations of which all operands, or at least one, must be results; None for any. counts: whether the
    function is also given one that says how many nodes read a given node. keeps_derivatives: whether JAX may still
    differentiate what it makes. stated: what `table` states for several kinds together, as far as it was asked for.
    """

    name: str
    function: Callable[..., Node | None]
    ops: tuple[Op, ...]
    table: Mapping[str, str]
    local: bool
    law: str
    file: str
    line: int
    all_operands: frozenset[Op] | None = None
    an_operand: frozenset[Op] | None = None
    numbers: frozenset[Hashable] = frozenset()
    counts: bool = False
    keeps_derivatives: bool = True
    stated: dict[frozenset[str], str | None] = field(default_factory=dict, repr=False)

    @property
    def is_local(self) -> bool:
        """Whether neither shapes nor the sharding of arrays matter."""
        return self.local

    def may_match(self, operands: tuple[Operand, ...], same: bool) -> bool:
        """Whether it can replace a node with operands like these, as far as their operations tell."""
        ops = {operand.op for operand in operands}
        if self.all_operands is not None and not ops <= self.all_operands:
            return False
        return self.an_operand is None or not ops.isdisjoint(self.an_operand)

    def apply(
        self, node: Node, kinds: frozenset[str], uses: Callable[[Node], int], admitted: Collection[str]
    ) -> Replacement | None:
        """What to put in the place of a plain `node`; None where the rule does not hold or is not admitted."""
        if kinds not in self.stated:
            self.stated[kinds] = loosest(self.table, kinds)
        safety = self.stated[kinds]
        if safety is None or safety not in admitted:
            return None
        new = self.function(node, uses) if self.counts else self.function(node)
        if new is None or new is node:
            return None
        hidden = [n for n in node.inputs if n.op not in (PARAM, CONSTANT, PROJECT, STATE) and n not in new.inputs]
        return Replacement(new, safety, (node, *[n for n in hidden if n is not new]))

    def __call__(self, node: Node) -> Node | None:
        """What the function makes of `node`, if nobody else reads its operands."""
        return self.function(node, lambda _: 1) if self.counts else self.function(node)

    def __str__(self) -> str:
        return (self.function.__doc__ or self.name).strip().splitlines()[0]


AnyRule = Rule | ProceduralRule


def rewrites(
    *ops: Op | Primitive,
    safety: str | Mapping[str, str],
    local: bool = False,
    law: str = "",
    name: str | None = None,
    all_operands: Iterable[Op | Primitive] | None = None,
    an_operand: Iterable[Op | Primitive] | None = None,
    keeps_derivatives: bool = True,
) -> Callable[[Callable[..., Node | None]], ProceduralRule]:
    """Makes a rule of a function that is given a node of one of `ops` and returns its replacement, or None.

    A function with a second parameter is also given one that says how many nodes read a given node.
    safety, law: as in `Rule`. local: whether neither shapes nor the sharding of arrays matter. name: by default the
    function's, with spaces. all_operands, an_operand: operations of which all operands, or at least one, must be
    results for the function to be asked at all. keeps_derivatives: whether JAX may still differentiate what it makes.
    The function sees plain arrays only, and its operands are simplified already.
    """
    found = tuple(map(_op, ops))

    def rule(function: Callable[..., Node | None]) -> ProceduralRule:
        code: Any = function.__code__
        title = name or function.__name__.strip("_").replace("_", " ")
        every = None if all_operands is None else frozenset(map(_op, all_operands))
        some = None if an_operand is None else frozenset(map(_op, an_operand))
        place = (code.co_filename, code.co_firstlineno)
        return ProceduralRule(
            title,
            function,
            found,
            by_kind(safety),
            local,
            law,
            *place,
            every,
            some,
            counts=code.co_argcount > 1,
            keeps_derivatives=keeps_derivatives,
        )

    return rule


def _op(op: Op | Primitive) -> Op:
    return op if isinstance(op, Op) else op_of(op)


def _names(pattern: Pattern) -> set[str]:
    if isinstance(pattern, Apply):
        return set().union(*map(_names, pattern.operands))
    return {pattern.name} if isinstance(pattern, Variable) else set()


def _is_elementwise(pattern: Pattern) -> bool:
    if not isinstance(pattern, Apply):
        return True
    return pattern.op.elementwise and all(map(_is_elementwise, pattern.operands))


def _may_be(pattern: Pattern, operand: Operand) -> bool:
    if isinstance(pattern, Apply):
        return operand.op is pattern.op
    if isinstance(pattern, Value):
        return operand.number == number_key(pattern.value)
    return not (isinstance(pattern, Variable) and pattern.constant) or operand.op in (CONSTANT, BROADCAST)


def _inner(pattern: Pattern, node: Node, leaves: set[Node]) -> Iterable[Node]:
    """The nodes that the operations of a pattern matched."""
    if isinstance(pattern, Apply) and node not in leaves and node.op is pattern.op:
        yield node
        for operand in node.inputs:
            for inner in pattern.operands:
                yield from _inner(inner, operand, leaves)
