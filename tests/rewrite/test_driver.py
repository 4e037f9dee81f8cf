"""Rules applied until none applies: order, sub-graphs, sources, budget, and rules that go round in circles."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from graphopt.config import Options
from graphopt.errors import OptionError, RuleError
from graphopt.ir.check import check
from graphopt.ir.graph import Graph
from graphopt.ir.node import Node
from graphopt.ir.sources import Sources
from graphopt.ops.make import make
from graphopt.passes.simplify import Simplify
from graphopt.rewrite.driver import Rewriter, RuleSet
from graphopt.rewrite.passes import Context
from graphopt.rewrite.pattern import operation, variables
from graphopt.rewrite.rule import AnyRule, Match, Rule, rewrites
from graphopt.rewrite.safety import SAFETIES
from graphopt.trace.jaxpr import trace_function

x, y, z = variables("x y z")
exp, sin, cos, tanh, neg = map(operation, (lax.exp_p, lax.sin_p, lax.cos_p, lax.tanh_p, lax.neg_p))
X = np.ones((2, 3), np.float32)

DOUBLE_NEGATION = Rule("double negation", neg(neg(x)), x)
SUBTRACTION = Rule("subtraction", x + neg(y), x - y)


def rewritten(function: Any, *rules: AnyRule, args: Any = (X, X), **options: Any) -> tuple[Graph, Rewriter, Sources]:
    graph, sources = trace_function(function, *args)
    rewriter = Rewriter(RuleSet(rules), sources, options.pop("admitted", SAFETIES), **options)
    found = rewriter.graph(graph)
    check(found)
    return found, rewriter, sources


def graph_of(function: Any, *args: Any) -> Graph:
    return trace_function(function, *(args or (X, X)))[0]


def test_until_none_applies() -> None:
    found, rewriter, _ = rewritten(lambda a, b: a + -(-(-b)), DOUBLE_NEGATION, SUBTRACTION)
    assert found is graph_of(lambda a, b: a - b)
    assert [firing.rule for firing in rewriter.log.firings] == [DOUBLE_NEGATION, SUBTRACTION]


def test_what_a_rule_makes_is_rewritten_too() -> None:
    unfold = Rule("unfold", sin(x), neg(neg(cos(neg(neg(x))))))
    found, _, _ = rewritten(lambda a, b: jnp.sin(a) * b, unfold, DOUBLE_NEGATION)
    assert found is graph_of(lambda a, b: jnp.cos(a) * b)


def test_no_rule_no_change() -> None:
    graph = graph_of(lambda a, b: a * b)
    assert Rewriter(RuleSet([DOUBLE_NEGATION]), Sources(), SAFETIES).graph(graph) is graph


def test_in_loops_and_branches() -> None:
    def function(a: Any, b: Any) -> Any:
        looped = lax.fori_loop(0, 3, lambda i, c: -(-c) * b, a)
        return lax.cond(a[0, 0] > 0, lambda c: -(-c), lambda c: c + 1.0, looped)

    found, rewriter, _ = rewritten(function, DOUBLE_NEGATION)
    assert len(rewriter.log.firings) == 2
    assert "neg" not in str(found)


def test_a_node_used_twice_is_rewritten_once() -> None:
    def function(a: Any, b: Any) -> Any:
        n = -(-a)
        return n * n + n

    _, rewriter, _ = rewritten(function, DOUBLE_NEGATION)
    assert len(rewriter.log.firings) == 1


def test_conditions_see_values_and_uses() -> None:
    once = Rule(
        "once", exp(x) * y, y * exp(x + 0.0), when=lambda m: m.uses(m.node.inputs[0]) == 1 and m["y"].op.name == "param"
    )
    _found, rewriter, _ = rewritten(lambda a, b: jnp.exp(a) * b + jnp.exp(a), once)
    assert rewriter.log.firings == []
    seen: list[Match] = []
    watching = Rule("watching", exp(x) * y, x, when=lambda m: bool(seen.append(m)))
    rewritten(lambda a, b: jnp.exp(a) * b, watching)
    assert seen[0]["x"].op.name == "param" and seen[0].node.op.name == "mul"


def test_what_is_split_is_read_for_each_part() -> None:
    def gates(a: Any, b: Any) -> Any:
        one, two, three = jnp.split(a @ b.T, 2)[0], *jnp.split(jnp.exp(a @ b.T), 2, 1)
        return one, two, three

    graph, sources = trace_function(gates, X, X)
    found = str(Simplify().run(graph, Context(Options(), sources)))
    assert found.count("dot_general") == 1 and found.count("exp") == 1, found


def test_a_second_sweep_where_a_use_goes_away() -> None:
    drop = Rule("drop", x * 0.0 + y, y, safety="nonfinite")
    once = Rule("once", neg(exp(x)), exp(neg(x)), when=lambda m: m.uses(m.node.inputs[0]) == 1)
    _found, rewriter, _ = rewritten(lambda a, b: (-jnp.exp(a), jnp.exp(a) * 0.0 + b), once, drop)
    assert [firing.rule.name for firing in rewriter.log.firings] == ["drop", "once"]


def test_only_what_is_admitted() -> None:
    factor = Rule("factor", x * y + x * z, x * (y + z), safety={"iu": "exact", "f": "nonfinite"})
    function = lambda a, b: a * b + a * a
    assert rewritten(function, factor, admitted=("exact", "reassociate"))[1].log.firings == []
    assert rewritten(function, factor, admitted=("exact",), also=frozenset({"factor"}))[1].log.firings != []
    whole = np.ones(3, np.int32)
    assert rewritten(function, factor, args=(whole, whole), admitted=("exact",))[1].log.firings != []
    complex_ = np.ones(3, np.complex64)
    assert rewritten(function, factor, args=(complex_, complex_))[1].log.firings == []


def test_a_limit_for_bisection() -> None:
    function = lambda a, b: -(-a) * -(-b)
    assert len(rewritten(function, DOUBLE_NEGATION, limit=1)[1].log.firings) == 1
    assert len(rewritten(function, DOUBLE_NEGATION, limit=0)[1].log.firings) == 0


def test_scalars_are_broadcast_and_weak_types_kept() -> None:
    pick = Rule("pick", x * y, y)
    found, _, _ = rewritten(lambda a, b: a * b, pick, args=(X, np.float32(3)))
    assert found.outputs[0].aval.shape == (2, 3)
    found, _, _ = rewritten(lambda a, b: (a * 1.0) * 2.0, Rule("one", x * 1.0, x), args=(3.0, X))
    assert found.outputs[0].aval is graph_of(lambda a, b: (a * 1.0) * 2.0, 3.0, X).outputs[0].aval


def test_replacements_inherit_lines() -> None:
    def function(a: Any, b: Any) -> Any:
        first = -b
        return a + first

    found, _, sources = rewritten(function, SUBTRACTION)
    assert len(sources.of(found, found.outputs[0])) == 2


@pytest.mark.parametrize(
    "rules",
    [
        (Rule("round", sin(x), cos(x)), Rule("and back", cos(x), sin(x))),
        (Rule("swap", x + y, y + x),),
        (Rule("grow", sin(x), sin(x + 1.0)),),
        (Rule("wrap", sin(x), neg(sin(x))),),
        (Rule("deeper", sin(x), sin(sin(x))),),
    ],
    ids=lambda rules: rules[0].name,
)
def test_rules_without_end_are_switched_off_and_named(rules: tuple[Rule, ...]) -> None:
    found, rewriter, _ = rewritten(lambda a, b: jnp.sin(a) * -(-b) + jnp.cos(a), *rules, DOUBLE_NEGATION)
    assert [set(endless.rules) for endless in rewriter.log.endless] == [set(rules)]
    assert "neg" not in str(found)  # the others went on
    assert {firing.rule for firing in rewriter.log.firings} == {DOUBLE_NEGATION}


def test_what_was_done_in_a_loop_is_told_though_the_sweep_began_anew() -> None:
    def function(a: Any, b: Any) -> Any:
        return jnp.sin(lax.fori_loop(0, 3, lambda i, c: -(-c) * b, a))

    found, rewriter, _ = rewritten(function, Rule("grow", sin(x), sin(x + 1.0)), DOUBLE_NEGATION)
    assert "neg" not in str(found) and len(rewriter.log.endless) == 1
    assert [firing.rule for firing in rewriter.log.firings] == [DOUBLE_NEGATION]


def test_a_hundred_thousand_nodes_without_recursion() -> None:
    node = graph_of(lambda a, b: -a).outputs[0]
    start = node.inputs[0]
    for _ in range(100_000):
        node = make(node.op, node)
    from graphopt.ir.graph import make_graph

    found = Rewriter(RuleSet([DOUBLE_NEGATION]), Sources(), SAFETIES).graph(make_graph([start], [node]))
    assert len(found.nodes) == 2


def test_another_dtype_is_an_error_with_the_rules_place() -> None:
    wrong = Rule("wrong type", exp(x), operation(lax.gt_p)(x, 0.0))
    with pytest.raises(
        RuleError, match=r"the rule 'wrong type' \(.*test_driver.py:\d+\) failed on <exp: f32\[2, 3\]>.*bool"
    ):
        rewritten(lambda a, b: jnp.exp(a), wrong)


def test_another_shape_is_an_error_with_the_rules_place() -> None:
    @rewrites(lax.transpose_p, safety="exact")
    def forget(node: Node) -> Node | None:
        return node.inputs[0]

    with pytest.raises(RuleError, match=r"the rule 'forget' \(.*test_driver.py:\d+\) failed on <transpose"):
        rewritten(lambda a, b: a.T, forget)


@pytest.mark.parametrize(
    ("make_rule", "message"),
    [
        (lambda: Rule("r", x, x), "must be an operation"),
        (lambda: Rule("r", x + y, z), "nothing says what z stands for"),
        (lambda: Rule("r", x + y, x, safety="rough"), "unknown safety 'rough'; known: exact"),
        (lambda: Rule("r", x + y, x, safety={"q": "exact"}), "unknown kind of dtype 'q'"),
        (lambda: Rule("r", x + y, x, safety={"i": "reassociate"}), "on integers and booleans a rule is exact"),
        (lambda: Rule("r", x + y, x, law="gravity"), "unknown law 'gravity'; known: identity"),
    ],
)
def test_a_rule_that_cannot_be(make_rule: Any, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        make_rule()


def test_effects_stay_in_order() -> None:
    def function(a: Any, b: Any) -> Any:
        jax.debug.print("{}", -(-a), ordered=True)
        return -(-b)

    found, _, _ = rewritten(function, DOUBLE_NEGATION)
    assert sum(bool(node.effects) for node in found.nodes) == 1


def test_what_derivatives_need_stays_as_long_as_they_may_be_taken() -> None:
    graph, sources = trace_function(lambda a, b: lax.stop_gradient(a) * -(-b), X, X)
    kept = Simplify().run(graph, Context(Options(), sources, differentiable=True))
    assert [node.op.name for node in kept.nodes[2:]] == ["stop_gradient", "mul"]
    assert [node.op.name for node in Simplify().run(graph, Context(Options(), sources)).nodes[2:]] == ["mul"]


def test_portable_programs_have_rules_between_elementwise_operations_only() -> None:
    graph, sources = trace_function(lambda a, b: (a.T.T, -(-b)), X, X)
    found = Simplify().run(graph, Context(Options(), sources, portable=True))
    assert [node.op.name for node in found.nodes[2:]] == ["transpose", "transpose"]
