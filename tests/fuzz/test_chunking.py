"""Random graphs around matrix products, with every array of more than a few elements computed in blocks."""

import os
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from graphopt.backends.agreement import disagreement
from graphopt.backends.reference import apply_opened, evaluate
from graphopt.config import Options
from graphopt.ir.check import check
from graphopt.ir.graph import nested_graphs
from graphopt.passes.chunk import Chunk
from graphopt.passes.pipelines import STANDARD
from graphopt.rewrite.passes import Context, run_pipeline
from graphopt.trace.jaxpr import graph_of

from ..rules.drawing import values
from .operations import STEPS, take_step

SEED = int(os.environ.get("GRAPHOPT_TEST_SEED", "0"))
ARGUMENTS = (("float32", (6, 5)), ("float32", (5, 6)), ("float32", (6, 6)), ("float32", (2, 6, 5)), ("int32", (6,)))
PASSES = (*STANDARD[:-1], Chunk(large=64, block=64, rows=1, gain=0))

# fmt: off
COMMON = [
    "dot_general", "dot_general", "dot_general", "add", "mul", "sub", "exp", "tanh", "max", "min", "abs", "select_n", "transpose",
    "broadcast_in_dim", "reduce_sum", "reduce_max", "reduce_min", "reshape", "slice", "pad", "concatenate", "cumsum", "iota",
]
# fmt: on

programs = st.lists(
    st.tuples(st.sampled_from([*sorted(STEPS), *COMMON * 12]), st.integers(0, 2**20)), min_size=4, max_size=30
)


def program(steps: list[tuple[str, int]], *known: Any) -> list[Any]:
    """Four results of random steps that begin with a matrix product."""
    found = [*map(jnp.asarray, known), jnp.tanh(known[0] @ known[1])]
    for name, number in steps:
        value = take_step(name, number, found)
        if value is not None and value.size < 4000:
            found.append(value)
    return found[-4:]


def blocks_agree(steps: list[tuple[str, int]], number: int, special: bool) -> bool:
    random = np.random.default_rng(number)
    args = [values(random, dtype, shape, special) for dtype, shape in ARGUMENTS]
    graph, sources = graph_of(jax.make_jaxpr(lambda *known: program(steps, *known))(*args))
    context = Context(Options(), sources, platforms=("cpu",))
    _, records = run_pipeline(graph, PASSES, context)
    before, after = records[-1].before, records[-1].after
    if after is before:
        return False
    for inner in nested_graphs(after):
        check(inner)
    expected = evaluate(before, *args, apply=apply_opened)
    found = disagreement(before, after, args, "reassociate", expected)
    assert found is None, f"{found}\n{before}\n{after}\n{args}"
    return True


quiet = settings(suppress_health_check=list(HealthCheck), derandomize=False, deadline=None)


@seed(SEED)
@settings(quiet, max_examples=25)
@given(programs, st.integers(0, 2**32 - 1), st.booleans())
def test_random_graphs_in_blocks(steps: list[tuple[str, int]], number: int, special: bool) -> None:
    blocks_agree(steps, number, special)


@pytest.mark.exhaustive
@pytest.mark.timeout(0)
def test_many_random_graphs_in_blocks() -> None:
    cut = []

    @seed(SEED)
    @settings(quiet, max_examples=2000)
    @given(programs, st.integers(0, 2**32 - 1), st.booleans())
    def test(steps: list[tuple[str, int]], number: int, special: bool) -> None:
        cut.append(blocks_agree(steps, number, special))

    test()
    print(f"{sum(cut)} of {len(cut)} graphs were cut")
    assert any(cut)
