"""Random programs with all passes together, those that make kernels too: before and after them, and compiled.

The programs are those of the other tests here: described operations one after the other, loops that Python unrolls, and
programs with calls, loops and branches. Passes that leave small programs alone are made to take them.
"""

import os
from collections import Counter
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

import graphopt
from graphopt.backends.agreement import disagreement
from graphopt.backends.reference import apply_opened, evaluate
from graphopt.backends.xla.target import Target
from graphopt.compile import optimize_graph
from graphopt.config import NUMERICS, Options
from graphopt.ir.check import check
from graphopt.ir.graph import Graph, make_graph, nested_graphs
from graphopt.ir.node import constant
from graphopt.ops.kernel import KERNEL
from graphopt.passes.chunk import Chunk
from graphopt.passes.pipelines import STANDARD
from graphopt.passes.reroll import Reroll
from graphopt.rewrite.passes import Pass, PassRecord
from graphopt.rewrite.safety import SAFETIES
from graphopt.trace.jaxpr import graph_of

from ..rules.drawing import values
from .loops import loops
from .operations import STEPS, take_step
from .programs import programs

SEED = int(os.environ.get("GRAPHOPT_TEST_SEED", "0"))
EAGER_PASSES: dict[str, Pass] = {
    "reroll": Reroll(least_saved=3, any_cost=True),
    "chunk": Chunk(large=64, block=64, rows=1, gain=0),
}
EAGER = tuple(EAGER_PASSES.get(step.name, step) for step in STANDARD)
"""The standard pipeline without what keeps it from small programs."""

Call = tuple[Callable[..., Any], list[Any]]
"""A function and its arguments."""

SMALL = (
    *(("float32", shape) for shape in ((2, 3), (), (5,), (1, 3), (2, 1), (6, 5), (5, 6), (6, 6))),
    *(("int32", shape) for shape in ((3,), (), (1,), (6,))),
    ("bool", (2, 3)),
)
LARGE = (
    *(("float32", shape) for shape in ((200, 300), (), (300,), (1, 300), (200, 1), (300, 200), (20_000,))),
    *(("int32", shape) for shape in ((200, 300), (300,), (), (1,))),
    ("bool", (200, 300)),
)
# fmt: off
COMMON = [
    "add", "mul", "sub", "neg", "div", "max", "min", "square", "abs", "exp", "tanh", "transpose", "reshape", "slice",
    "broadcast_in_dim", "convert_element_type", "select_n", "concatenate", "reduce_sum", "reduce_max", "cumsum", "and",
    "or", "not", "eq", "pad", "rev", "iota", "dot_general", "dot_general", "gather", "dynamic_slice",
]
# fmt: on
steps = st.lists(
    st.tuples(st.sampled_from([*sorted(STEPS), *COMMON * 4]), st.integers(0, 2**20)), min_size=8, max_size=60
)


def operations(taken: list[tuple[str, int]], number: int, special: bool, large: bool) -> Call:
    """One operation after the other."""
    random = np.random.default_rng(number)
    given = LARGE if large else SMALL

    def function(*known: Any) -> list[Any]:
        found = [jnp.asarray(x) for x in known]
        for name, number in taken:
            value = take_step(name, number, found, 150_000 if large else 200)
            if value is not None:
                found.append(value)
        return found[len(given) :][-4:]

    return function, [values(random, dtype, shape, special) for dtype, shape in given]


def calls(large: bool = False) -> st.SearchStrategy[Call]:
    """Programs of every kind."""
    chain = st.builds(operations, steps, st.integers(0, 2**32 - 1), st.booleans(), st.just(large))
    if large:
        return chain
    unrolled = loops().map(lambda loop: (loop, jax.tree.leaves(loop.arguments())))
    structured = programs(effects=False).map(lambda program: (program, program.values()))
    return st.one_of(chain, chain, unrolled, structured)


def graph_and_sources(call: Call) -> Any:
    function, args = call
    return graph_of(jax.make_jaxpr(function)(*args))


def loosest(records: tuple[PassRecord, ...]) -> str:
    """The safety of the loosest rewrite that was made."""
    return SAFETIES[max((SAFETIES.index(firing.safety) for r in records for firing in r.firings), default=0)]


def passes_agree(call: Call, numerics: str, backend: str, eager: bool) -> Graph:
    """Evaluates a program before and after all passes; returns what they made of it."""
    graph, sources = graph_and_sources(call)
    options = Options(numerics=numerics, backend=backend, passes=EAGER if eager else None)
    after, records = optimize_graph(graph, sources, options, Target(("cpu",)))
    expected = evaluate(graph, *call[1], apply=apply_opened)
    for inner in nested_graphs(after):
        check(inner)
    found = disagreement(graph, after, call[1], loosest(records), expected)
    if found is not None:
        each = (disagreement(graph, r.after, call[1], loosest(records), expected) for r in records)
        wrong = next((record for record, difference in zip(records, each, strict=True) if difference), records[-1])
        raise AssertionError(f"{numerics}, after {wrong.name}: {found}\n{graph}\n{wrong.after}\n{call[1]}")
    return after


def compiled_agrees(call: Call, backend: str, eager: bool) -> Graph:
    """Compares what a compiled program computes with the evaluator; returns the graph that was compiled."""
    function, args = call
    jitted = graphopt.jit(function, backend=backend, passes=EAGER if eager else None)
    graph, _ = graph_and_sources(call)
    found = [constant(np.asarray(value)) for value in jax.tree.leaves(jitted(*args))]
    difference = disagreement(graph, make_graph(graph.params, found), args, "reassociate")
    assert difference is None, f"{backend}: {difference}\n{graph}\n{args}"
    return jitted.explain(*args).graph


def has_kernel(graph: Graph) -> bool:
    return any(node.op is KERNEL for inner in nested_graphs(graph) for node in inner.nodes)


quiet = settings(suppress_health_check=list(HealthCheck), derandomize=False)
numerics = st.sampled_from(NUMERICS)
backends = st.sampled_from(["numba", "auto"])


@seed(SEED)
@settings(quiet, max_examples=15)
@given(calls(), numerics, backends, st.booleans())
def test_all_passes(call: Call, numerics: str, backend: str, eager: bool) -> None:
    passes_agree(call, numerics, backend, eager)


@pytest.mark.exhaustive
@pytest.mark.timeout(0)
@pytest.mark.parametrize("part", range(10))
def test_all_passes_on_ten_thousand_programs(part: int, tally: Callable[[str, str], None]) -> None:
    counts: Counter[bool] = Counter()

    @seed(SEED + part)
    @settings(quiet, max_examples=1000)
    @given(calls(), numerics, backends, st.booleans())
    def test(call: Call, numerics: str, backend: str, eager: bool) -> None:
        counts[has_kernel(passes_agree(call, numerics, backend, eager))] += 1

    test()
    for kernels, count in counts.items():
        for _ in range(count):
            tally("random programs", f"with{'' if kernels else 'out'} kernels")


@seed(SEED)
@settings(quiet, max_examples=3)
@given(calls(), backends, st.booleans())
def test_compiled(call: Call, backend: str, eager: bool) -> None:
    compiled_agrees(call, backend, eager)


@pytest.mark.exhaustive
@pytest.mark.timeout(0)
@pytest.mark.parametrize("large", [False, True], ids=["small", "large"])
@pytest.mark.parametrize("part", range(5))
def test_compiled_of_many(part: int, large: bool, tally: Callable[[str, str], None]) -> None:
    """Large arrays, for which a kernel is expected to be faster."""
    counts: Counter[tuple[str, bool]] = Counter()

    @seed(SEED + part)
    @settings(quiet, max_examples=50)
    @given(calls(large), st.just("auto") if large else backends, st.booleans())
    def test(call: Call, backend: str, eager: bool) -> None:
        counts[backend, has_kernel(compiled_agrees(call, backend, eager))] += 1

    test()
    for (backend, kernels), count in counts.items():
        for _ in range(count):
            tally("compiled random programs", f"{backend} with{'' if kernels else 'out'} kernels")
