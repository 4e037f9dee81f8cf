"""Graphs before and after each pass, as text in tests/golden; GRAPHOPT_TEST_UPDATE=1 writes the files anew."""

import os
from collections.abc import Collection, Sequence
from inspect import cleandoc
from pathlib import Path

import pytest

from graphopt.analysis.liveness import peak_bytes
from graphopt.analysis.machine import Machine
from graphopt.backends.numba.lowering import ENGINE
from graphopt.bind import compute
from graphopt.config import Options
from graphopt.ir.check import check
from graphopt.ir.graph import Graph
from graphopt.ir.parse import parse
from graphopt.ir.sources import Sources
from graphopt.passes.affine import Affine
from graphopt.passes.bind import Bind
from graphopt.passes.chunk import Chunk
from graphopt.passes.contract import Contract
from graphopt.passes.dead import Dead
from graphopt.passes.fold import Fold
from graphopt.passes.fuse import Fuse
from graphopt.passes.hoist import Hoist
from graphopt.passes.inline import Inline
from graphopt.passes.join import Join
from graphopt.passes.local import Local
from graphopt.passes.orient import Orient
from graphopt.passes.random_bits import RandomBits
from graphopt.passes.rematerialize import Rematerialize
from graphopt.passes.renew import Renew
from graphopt.passes.reroll import Reroll
from graphopt.passes.reuse import Reuse
from graphopt.passes.simplify import Simplify
from graphopt.passes.solve import Solve
from graphopt.passes.stream import Stream
from graphopt.rewrite.passes import Context, Pass, run_pipeline
from graphopt.trace.jaxpr import trace_function

from ..golden.engine_programs import LOCAL, RANDOM_BITS, RENEW, REUSE, STREAM
from ..golden.printing import golden_text
from ..golden.programs import (
    AFFINE,
    BIND,
    CHUNK,
    CONTRACT,
    DEAD,
    FOLD,
    HOIST,
    INLINE,
    JOIN,
    ORIENT,
    REMATERIALIZE,
    REROLL,
    SIMPLIFY,
    SOLVE,
    Case,
)

FOLDER = Path(__file__).parents[1] / "golden"


@pytest.mark.parametrize("name", REMATERIALIZE)
def test_rematerialize(name: str) -> None:
    graph, sources = traced(REMATERIALIZE[name])
    given = sum(aval.nbytes for aval in (*graph.in_avals, *graph.out_avals))
    within = Rematerialize(given + 768, lambda found: given + peak_bytes(found))
    compare("rematerialize", name, graph, sources, [(within, False)])


@pytest.mark.parametrize("name", INLINE)
def test_inline(name: str) -> None:
    graph, sources = traced(INLINE[name])
    compare("inline", name, graph, sources, [(Inline(shared_nodes=3), False), (Inline(shared_nodes=3), True)])


@pytest.mark.parametrize("name", FOLD)
def test_fold(name: str) -> None:
    compare("fold", name, parse(cleandoc(FOLD[name])), Sources(), [(Fold(), False)])


@pytest.mark.parametrize("name", AFFINE)
def test_affine(name: str) -> None:
    compare("affine", name, parse(cleandoc(AFFINE[name])), Sources(), [(Affine(), False)])


@pytest.mark.parametrize("name", BIND)
def test_bind(name: str) -> None:
    compare("bind", name, parse(cleandoc(BIND[name])), Sources(), [(Bind(compute, work=0), False)])


@pytest.mark.parametrize("name", DEAD)
def test_dead(name: str) -> None:
    graph, sources = traced(DEAD[name])
    compare("dead", name, graph, sources, [(Dead(), False)])


@pytest.mark.parametrize("name", HOIST)
def test_hoist(name: str) -> None:
    graph, sources = traced(HOIST[name])
    compare("hoist", name, graph, sources, [(Hoist(), False)])


@pytest.mark.parametrize("name", CONTRACT)
def test_contract(name: str) -> None:
    graph, sources = traced(CONTRACT[name])
    compare("contract", name, graph, sources, [(Contract(), False)])


@pytest.mark.parametrize("name", SOLVE)
def test_solve(name: str) -> None:
    graph, sources = traced(SOLVE[name])
    graph, _ = run_pipeline(graph, (Inline(), Simplify()), Context(Options(), sources))
    compare("solve", name, graph, sources, [(Solve(), False)])


@pytest.mark.parametrize("name", JOIN)
def test_join(name: str) -> None:
    graph, sources = traced(JOIN[name])
    compare("join", name, graph, sources, [(Join(), False)])


@pytest.mark.parametrize("name", CHUNK)
def test_chunk(name: str) -> None:
    graph, sources = traced(CHUNK[name])
    compare("chunk", name, graph, sources, [(Chunk(large=1 << 10, block=1 << 9, rows=2, gain=0), False)])


@pytest.mark.parametrize("name", ORIENT)
def test_orient(name: str) -> None:
    graph, sources = traced(ORIENT[name])
    graph, _ = run_pipeline(graph, (Inline(), Simplify()), Context(Options(), sources))
    compare("orient", name, graph, sources, [(Orient(), False)])


@pytest.mark.parametrize("name", REROLL)
def test_reroll(name: str) -> None:
    graph, sources = traced(REROLL[name])
    compare("reroll", name, graph, sources, [(Reroll(least_saved=4, any_cost=True), False)])


@pytest.mark.parametrize("name", SIMPLIFY)
def test_simplify(name: str) -> None:
    graph, sources = traced(SIMPLIFY[name])
    compare("simplify", name, graph, sources, [(Simplify(), False)])


@pytest.mark.parametrize("name", STREAM)
def test_stream(name: str) -> None:
    graph, sources = traced(STREAM[name])
    memory = Chunk(large=1 << 10, block=1 << 9, rows=2, gain=0).memory
    compare("stream", name, graph, sources, [(Stream(lambda: ENGINE, None, memory), False)])


@pytest.mark.parametrize("name", RANDOM_BITS)
def test_random_bits(name: str) -> None:
    graph, sources = traced(RANDOM_BITS[name])
    graph, _ = run_pipeline(graph, (Inline(),), Context(Options(), sources))
    compare("random bits", name, graph, sources, [(RandomBits(), False)])


@pytest.mark.parametrize("name", LOCAL)
def test_local(name: str) -> None:
    graph, sources = traced(LOCAL[name])
    compare("local", name, graph, sources, [(Local(ENGINE), False)])


@pytest.mark.parametrize("name", RENEW)
def test_renew(name: str) -> None:
    graph, sources = traced(RENEW[name])
    compare("renew", name, graph, sources, [(Renew(ENGINE, Machine()), False)])


@pytest.mark.parametrize("name", REUSE)
def test_reuse(name: str) -> None:
    graph, sources = traced(REUSE[name])
    graph, _ = run_pipeline(graph, (Inline(), Fuse(ENGINE)), Context(Options(), sources, platforms=("cpu",)))
    compare("reuse", name, graph, sources, [(Reuse(ENGINE), False)])


CASES: dict[str, Collection[str]] = {
    "affine": AFFINE,
    "bind": BIND,
    "chunk": CHUNK,
    "contract": CONTRACT,
    "dead": DEAD,
    "fold": FOLD,
    "hoist": HOIST,
    "inline": INLINE,
    "join": JOIN,
    "local": LOCAL,
    "orient": ORIENT,
    "random bits": RANDOM_BITS,
    "rematerialize": REMATERIALIZE,
    "renew": RENEW,
    "reroll": REROLL,
    "reuse": REUSE,
    "simplify": SIMPLIFY,
    "solve": SOLVE,
    "stream": STREAM,
}


def test_no_file_is_left_over() -> None:
    expected = {path(step, name) for step, names in CASES.items() for name in names}
    assert set(FOLDER.glob("*-*.txt")) == expected


def traced(case: Case) -> tuple[Graph, Sources]:
    function, arguments = case
    return trace_function(function, *arguments)


def path(step: str, name: str) -> Path:
    return FOLDER / f"{step} {name}.txt".replace(" ", "-")


def compare(step: str, name: str, graph: Graph, sources: Sources, runs: Sequence[tuple[Pass, bool]]) -> None:
    """The graph, then what each pass makes of it where that differs from what came before."""
    text = f"# {step}: {name}\n\n# before\n{golden_text(graph)}"
    last = graph
    for run, differentiable in runs:
        context = Context(Options(), sources, differentiable=differentiable, platforms=("cpu",))
        after = run.run(graph, context)
        check(after)
        if after is not last or not differentiable:
            title = "after, as long as JAX may differentiate" if differentiable else "after"
            notes = "".join(f"# note: {line}\n" for line in context.notes)
            text += f"\n# {title}{', unchanged' if after is graph else ''}\n{notes}"
            text += golden_text(after) if after is not graph else ""
        last = after
    file = path(step, name)
    if os.environ.get("GRAPHOPT_TEST_UPDATE") == "1":
        file.write_text(text)
    assert file.is_file(), f"{file} is missing; GRAPHOPT_TEST_UPDATE=1 writes it"
    assert text == file.read_text()
