"""Verifying finds wrong passes and wrong rules, names them with their place, and shows the smallest graph."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import graphopt
from graphopt.ir.graph import Graph, make_graph
from graphopt.ir.node import Node
from graphopt.passes.pipelines import STANDARD
from graphopt.passes.simplify import Simplify
from graphopt.rewrite.passes import Context, Pass
from graphopt.rewrite.pattern import operation, variables
from graphopt.rewrite.rebuild import rebuild
from graphopt.rewrite.rule import Rule, rewrites
from graphopt.shrink import Sample, shrink
from graphopt.trace.jaxpr import trace_function
from graphopt.verify import Finding

x, y, z = variables("x y z")
exp, sin, tanh, greater = map(operation, (lax.exp_p, lax.sin_p, lax.tanh_p, lax.gt_p))
W = np.linspace(-1, 1, 16, dtype=np.float32).reshape(4, 4)
V = np.linspace(0.1, 0.9, 12, dtype=np.float32).reshape(3, 4)


def program(w: Any, v: Any) -> Any:
    """Some layers and a loop: much that has nothing to do with any fault."""
    for _ in range(6):
        v = jnp.tanh(v @ w) + 0.1 * jnp.exp(-v * v)

    def body(c: Any, _: Any) -> Any:
        return jnp.sin(c) - 0.5 * c, c.sum()

    return lax.scan(body, v, None, length=3)


def finding(function: Any, *rules: Any, numerics: str = "standard", passes: Any = None) -> Finding:
    steps = (*STANDARD, Simplify(rules=rules)) if passes is None else passes
    with pytest.raises(graphopt.VerificationError) as error:
        graphopt.jit(function, passes=steps, numerics=numerics).verify(W, V)
    found: Finding = error.value.finding
    return found


def test_what_is_right_is_reported_by_pass() -> None:
    done = graphopt.verify(program)(W, V)
    assert [step.step for step in done.passes] == [step.name for step in STANDARD]
    assert "verified after each pass" in str(done) and "the same bits" in str(done)


def test_a_wrong_rule() -> None:
    found = finding(program, Rule("wrong", tanh(x) + y, tanh(x) - y))
    assert [rule.name for rule in found.rules] == ["wrong"] and found.step == "simplify"
    assert [node.op.name for node in found.smallest.graph.nodes] == ["param", "param", "tanh", "add"]
    text = str(found)
    assert "test_verify.py" in text and "and should be" in text and "which becomes:" in text


def test_a_wrong_rule_among_many_right_ones() -> None:
    right = Rule("right", x * x, operation(lax.square_p)(x))
    found = finding(program, right, Rule("wrong", tanh(x) + y, tanh(x) - y))
    assert [rule.name for rule in found.rules] == ["wrong"]


def test_a_wrong_rule_in_a_loop() -> None:
    found = finding(program, Rule("wrong", sin(x) - y, sin(x) + y))
    assert [node.op.name for node in found.smallest.graph.nodes] == ["param", "param", "sin", "sub"]


def test_a_rule_that_claims_more_than_it_keeps() -> None:
    """Factoring rounds differently; stated as exact it is a mistake, stated as it is none."""
    function = lambda w, v: v * 0.3 + v * 0.7
    found = finding(function, Rule("factor", x * y + x * z, x * (y + z), safety="exact"), numerics="exact")
    assert [rule.name for rule in found.rules] == ["factor"]
    honest = Rule("factor", x * y + x * z, x * (y + z), safety="nonfinite")
    graphopt.jit(function, passes=(Simplify(rules=(honest,)),), numerics="fast").verify(W, V)


def test_a_rule_that_changes_a_dtype() -> None:
    found = finding(program, Rule("other type", exp(x), greater(x, 0.0)))
    assert [rule.name for rule in found.rules] == ["other type"] and "bool" in found.reason
    assert len(found.smallest.graph.nodes) == 2


def test_a_rule_that_changes_a_shape() -> None:
    @rewrites(lax.dot_general_p, safety="exact")
    def wrong_shape(node: Node) -> Node:
        return node.inputs[1]

    found = finding(program, wrong_shape)
    assert [rule.name for rule in found.rules] == ["wrong shape"]
    assert [node.op.name for node in found.smallest.graph.nodes] == ["param", "param", "dot_general"]


@pytest.mark.parametrize(
    "rules",
    [
        (Rule("grow", sin(x), sin(x + 1.0)),),
        (Rule("there", tanh(x), exp(x)), Rule("and back", exp(x), tanh(x))),
    ],
)
def test_rules_that_do_not_end(rules: Any) -> None:
    found = finding(program, *rules)
    assert {rule.name for rule in found.rules} == {rule.name for rule in rules}
    assert "do not come to an end" in found.reason
    assert len(found.smallest.graph.nodes) == 2


@dataclass(frozen=True)
class Negligent(Pass):
    """A pass without rules that takes every tanh for its operand."""

    name = "negligent"

    def run(self, graph: Graph, context: Context) -> Graph:
        return rebuild(graph, context.sources, lambda node, inputs: inputs[0] if node.op.name == "tanh" else None)


@dataclass(frozen=True)
class Failing(Pass):
    """A pass that fails on a product of matrices."""

    name = "failing"

    def run(self, graph: Graph, context: Context) -> Graph:
        if any(node.op.name == "dot_general" for node in graph.nodes):
            raise ArithmeticError("no matrices")
        return graph


@dataclass(frozen=True)
class Forgetful(Pass):
    """A pass that loses an output."""

    name = "forgetful"

    def run(self, graph: Graph, context: Context) -> Graph:
        return make_graph(graph.params, graph.outputs[:1])


def test_a_pass_without_rules() -> None:
    found = finding(program, passes=(*STANDARD, Negligent()))
    assert found.step == "negligent" and found.rules == ()
    assert [node.op.name for node in found.smallest.graph.nodes] == ["param", "tanh"]


def test_a_pass_that_fails() -> None:
    found = finding(program, passes=(Failing(),))
    assert "ArithmeticError: no matrices" in found.reason
    assert [node.op.name for node in found.smallest.graph.nodes] == ["param", "param", "dot_general"]


def test_a_pass_that_changes_the_interface() -> None:
    assert "changed the outputs" in finding(program, passes=(Forgetful(),)).reason


def test_static_arguments_and_keywords() -> None:
    def function(v: Any, mode: str, *, scale: float, flag: bool = True) -> Any:
        return getattr(jnp, mode)(v) * scale if flag else v

    both = graphopt.jit(function, static_argnums=1, static_argnames="flag")
    by_name = graphopt.jit(function, static_argnames=("mode", "flag"))
    by_number = graphopt.jit(lambda v, mode: getattr(jnp, mode)(v), static_argnums=1)
    for done in (
        both.verify(V, "sin", scale=2.0),
        graphopt.verify(both)(V, "sin", flag=False, scale=2.0),
        by_name.verify(V, "sin", scale=2.0),
        by_name.verify(mode="sin", v=V, scale=2.0, flag=True),
        by_number.verify(V, "cos"),
        by_number.verify(V, mode="cos"),
    ):
        assert len(done.passes) == len(STANDARD)


def test_what_shows_nothing_stays_whole() -> None:
    graph, _ = trace_function(program, W, V)
    sample = Sample(graph, (W, V))
    assert shrink(sample, lambda graph, args: False) is sample


def test_what_is_cut_off_is_given_its_value() -> None:
    graph, _ = trace_function(program, W, V)
    smallest = shrink(Sample(graph, (W, V)), lambda graph, args: any(n.op.name == "scan" for n in graph.nodes))
    v = W @ np.eye(4, dtype=np.float32)
    assert sum(node.op.primitive is not None for node in smallest.graph.nodes) == 1
    carried = jax.jit(lambda w, v: program(w, v)[0])(W, V)
    assert v.shape == (4, 4) and carried.shape == smallest.args[0].shape
