"""Graphs in which a rule finds its left side."""

import itertools
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from graphopt.errors import GraphError
from graphopt.ir.aval import array_aval
from graphopt.ir.graph import Graph, make_graph
from graphopt.ir.node import Node, constant, param
from graphopt.ir.sources import Sources
from graphopt.ops.make import make, scalar
from graphopt.rewrite.driver import Firing, Rewriter, RuleSet
from graphopt.rewrite.pattern import Apply, Pattern, Value, Variable
from graphopt.rewrite.rule import AnyRule, Rule
from graphopt.rewrite.safety import SAFETIES

from . import drawing

SHAPES = ((3,), (2, 3), (), (0,))


@dataclass
class Instance:
    """The left side of a rule as a graph, with values for its parameters."""

    graph: Graph
    args: list[Any] = field(default_factory=list)


def instance(rule: Rule, dtype: str, random: np.random.Generator, special: bool) -> Instance | None:
    """The left side of a pattern rule on drawn operands, some of them scalars; None where JAX knows no such program."""
    assert isinstance(rule.before, Apply)
    variables = list(dict.fromkeys(_variables(rule.before)))
    shape = SHAPES[random.integers(len(SHAPES))]
    whole = random.integers(max(len(variables), 1))  # one operand has all dimensions, others may be scalars
    shapes = [shape if i == whole else _narrower(shape, random) for i in range(len(variables))]
    # What chooses between others is a boolean among operands of another dtype.
    for flags in itertools.product((False, True), repeat=len(variables)):
        types = ["bool" if flag else dtype for flag in flags]
        found = Instance(make_graph((), ()))
        try:
            env: dict[str, Node] = {}
            params: list[Node] = []
            for variable, kind, size in zip(variables, types, shapes, strict=True):
                if variable.constant:
                    env[variable.name] = constant(drawing.constant(random, kind))
                else:
                    value = drawing.values(random, kind, size, special)
                    node = param(len(params), array_aval(value.shape, value.dtype))
                    params.append(node)
                    found.args.append(value)
                    env[variable.name] = node
            found.graph = make_graph(params, [_build(rule.before, env, dtype)])
        except GraphError:
            continue
        return found
    return None


def _narrower(shape: tuple[int, ...], random: np.random.Generator) -> tuple[int, ...]:
    """A shape that is broadcast to `shape` beside it: the same, with axes of size one, or none at all."""
    choice = random.random()
    if choice < 0.15:
        return ()
    return tuple(1 if random.random() < 0.5 else size for size in shape) if choice < 0.35 else shape


def _variables(pattern: Pattern) -> list[Variable]:
    if isinstance(pattern, Apply):
        return [v for operand in pattern.operands for v in _variables(operand)]
    return [pattern] if isinstance(pattern, Variable) else []


def _build(pattern: Pattern, env: dict[str, Node], dtype: str) -> Node:
    if isinstance(pattern, Variable):
        return env[pattern.name]
    assert isinstance(pattern, Apply)
    built = [None if isinstance(o, Value) else _build(o, env, dtype) for o in pattern.operands]
    known = [n.aval.dtype for n in built if n is not None]
    beside = known[-1] if known else np.dtype(dtype)
    inputs = [
        scalar(o.value, beside) if isinstance(o, Value) else n for o, n in zip(pattern.operands, built, strict=True)
    ]
    return make(pattern.op, *[n for n in inputs if n is not None], **pattern.attrs)


def rewritten(rule: AnyRule, graph: Graph) -> tuple[Graph, list[Firing]]:
    """The graph after this one rule, whatever its safety, and where it fired."""
    rewriter = Rewriter(RuleSet([rule]), Sources(), SAFETIES)
    found = rewriter.graph(graph)
    assert not rewriter.log.endless, f"{rule.name} does not come to an end"
    return found, rewriter.log.firings


def loosest(firings: list[Firing]) -> str:
    """The loosest safety of these firings."""
    return max((firing.safety for firing in firings), key=SAFETIES.index)
