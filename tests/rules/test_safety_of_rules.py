"""Each rule's two sides, on values that go wrong first: the results agree as far as the rule's safety says."""

import os
import zlib
from typing import Any

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graphopt.backends.agreement import disagreement
from graphopt.config import NUMERICS, Options
from graphopt.ir.check import check
from graphopt.ir.parse import parse
from graphopt.passes.rules import RULES
from graphopt.passes.simplify import Simplify
from graphopt.rewrite.passes import Context
from graphopt.rewrite.rule import AnyRule, ProceduralRule, Rule
from graphopt.trace.jaxpr import trace_function

from . import drawing
from .examples import DECLINING, EXAMPLES, Example
from .instances import instance, loosest, rewritten

PATTERNS = [rule for rule in RULES if isinstance(rule, Rule)]
PROCEDURES = [rule for rule in RULES if isinstance(rule, ProceduralRule)]
CASES = [(rule, kind) for rule in PATTERNS for kind in drawing.DTYPES if kind in rule.table]


def case_name(case: Any) -> str:
    return f"{case[0].name}, {case[1]}".replace(" ", "-")


def agree(rule: AnyRule, graph: Any, args: list[Any]) -> bool:
    """Rewrites the graph by the rule and compares; returns whether it fired."""
    after, firings = rewritten(rule, graph)
    if not firings:
        return False
    check(after)
    safety = loosest(firings)
    found = disagreement(graph, after, args, safety)
    assert found is None, f"{rule.name} ({rule.file}:{rule.line}): {found}\n{graph}\n{after}\n{args}"
    return True


def check_pattern(rule: Rule, kind: str, examples: int, dtypes: tuple[str, ...]) -> None:
    @settings(max_examples=examples)
    @given(seed=st.integers(0, 2**32 - 1), dtype=st.sampled_from(dtypes), special=st.booleans())
    def try_it(seed: int, dtype: str, special: bool) -> None:
        if rule.table.get(kind) == "approximate":  # the same in real numbers: seen where rounding is far away
            dtype, special = "float64" if kind == "f" else "complex128", False
        random = np.random.default_rng(seed)
        with jax.enable_x64(dtype[-2:] in ("64", "28")):
            found = instance(rule, dtype, random, special)
            if found is not None:
                agree(rule, found.graph, found.args)

    try_it()


@pytest.mark.parametrize("case", CASES, ids=case_name)
def test_pattern(case: tuple[Rule, str]) -> None:
    rule, kind = case
    check_pattern(rule, kind, 6, drawing.DTYPES[kind][:1])


@pytest.mark.exhaustive
@pytest.mark.parametrize("case", CASES, ids=case_name)
def test_pattern_in_all_dtypes(case: tuple[Rule, str]) -> None:
    rule, kind = case
    check_pattern(rule, kind, 150, drawing.DTYPES[kind])


@pytest.mark.parametrize("rule", PATTERNS, ids=lambda rule: rule.name.replace(" ", "-"))
def test_each_pattern_fires(rule: Rule) -> None:
    """Some drawn program has the left side, in some dtype for which the rule is stated."""
    random = np.random.default_rng(zlib.crc32(rule.name.encode()))
    for _ in range(200):
        for kind in drawing.DTYPES:
            if kind in rule.table:
                found = instance(rule, drawing.DTYPES[kind][0], random, special=False)
                if found is not None and rewritten(rule, found.graph)[1]:
                    return
    raise AssertionError(f"{rule.name} ({rule.file}:{rule.line}) never fired")


def traced(example: Example) -> Any:
    if example.text:
        return parse(example.text)
    with jax.enable_x64(example.x64):
        graph, _ = trace_function(example.function, *[jax.ShapeDtypeStruct(s, d) for s, d in example.types])
    return graph


@pytest.mark.parametrize("rule", PROCEDURES, ids=lambda rule: rule.name.replace(" ", "-"))
def test_procedure(rule: ProceduralRule) -> None:
    examples = EXAMPLES.get(rule.name, ())
    assert examples, f"{rule.name} ({rule.file}:{rule.line}) has no example in tests/rules/examples.py"
    seed = int(os.environ["GRAPHOPT_TEST_SEED"])
    for example in examples:
        graph = traced(example)
        for number in range(6):
            random = np.random.default_rng([seed, number])
            with jax.enable_x64(example.x64):
                args = [
                    drawing.values(random, d, s, special=number % 2 == 0 and example.special) for s, d in example.types
                ]
                assert agree(rule, graph, args), f"{rule.name} did not fire on\n{graph}"


@pytest.mark.parametrize("name", DECLINING)
def test_declines(name: str) -> None:
    rule = next(rule for rule in RULES if rule.name == name)
    for example in DECLINING[name]:
        graph = traced(example)
        assert rewritten(rule, graph)[0] is graph, f"{name} fired on\n{graph}"


def test_names_are_unique() -> None:
    names = [rule.name for rule in RULES]
    assert len(names) == len(set(names))


def test_each_rule_states_its_law() -> None:
    assert [rule.name for rule in RULES if not rule.law] == []


@pytest.mark.parametrize("shape", [(), (1,), (1, 1), (3,), (0,)])
@pytest.mark.parametrize("numerics", NUMERICS)
def test_quotients_and_reciprocals_do_not_turn_into_each_other(shape: tuple[int, ...], numerics: str) -> None:
    types = jax.ShapeDtypeStruct(shape, np.float32), jax.ShapeDtypeStruct((), np.float32)
    graph, sources = trace_function(lambda x, y: (x / y, x * (1 / y), y / x, (x / y) * x), *types)
    context = Context(Options(numerics=numerics), sources)
    after = Simplify().run(graph, context)
    assert not context.endless
    assert Simplify().run(after, context) is after
