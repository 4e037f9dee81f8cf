"""Names of passes to passes, and what a run of several records."""

from dataclasses import dataclass
from typing import Any

import pytest
from jax import lax

from graphopt.config import Options
from graphopt.errors import OptionError
from graphopt.ir.graph import Graph
from graphopt.passes.dead import Dead
from graphopt.passes.fold import Fold
from graphopt.passes.inline import Inline
from graphopt.passes.pipelines import STANDARD, resolve
from graphopt.rewrite.passes import Context, Pass, run_pipeline
from graphopt.trace.jaxpr import trace_function


@dataclass(frozen=True)
class Talking(Pass):
    """Changes nothing and says so, twice."""

    name = "talking"

    def run(self, graph: Graph, context: Context) -> Graph:
        context.note("nothing to do")
        context.note("nothing to do")
        return graph


def test_none_is_the_standard_pipeline() -> None:
    assert resolve(None) is None
    assert [step.name for step in STANDARD] == [
        "inline",
        "reroll",
        "fold",
        "simplify",
        "affine",
        "bind",
        "contract",
        "solve",
        "join",
        "hoist",
        "dead",
        "chunk",
    ]


def test_names_and_passes_mix() -> None:
    small = Fold(max_elements=1)
    assert resolve(["inline", small, "dead"]) == (Inline(), small, Dead())
    assert resolve(()) == ()
    assert resolve(name for name in ("dead", "dead")) == (Dead(), Dead())


@pytest.mark.parametrize(
    "passes, message",
    [
        (
            ["inlin"],
            "unknown pass 'inlin'; known: inline, reroll, fold, simplify, affine, bind, contract, solve, join, hoist, dead, "
            "chunk",
        ),
        ("inline", r"not the string 'inline': write \('inline',\)"),
        ([Inline], "a pass is a name or an instance of"),
        ([None], "a pass is a name or an instance of"),
        ([lambda graph, context: graph], "a pass is a name or an instance of"),
    ],
)
def test_what_is_no_pass_is_refused(passes: Any, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        resolve(passes)


def test_a_record_of_each_pass() -> None:
    def function(x: Any) -> Any:
        return lax.neg(x) + x

    graph, sources = trace_function(function, 1.0)
    context = Context(Options(), sources)
    after, records = run_pipeline(graph, (Talking(), Inline(), Talking()), context)
    assert after is graph
    assert [r.name for r in records] == ["talking", "inline", "talking"]
    assert [r.notes for r in records] == [("nothing to do",), (), ("nothing to do",)]
    assert all(r.before is r.after is graph and r.nodes_before == r.nodes_after == 2 for r in records)
    assert all(r.seconds >= 0 for r in records)


def test_no_passes_no_records() -> None:
    graph, sources = trace_function(lax.neg, 1.0)
    assert run_pipeline(graph, (), Context(Options(), sources)) == (graph, ())
