"""The driver: passes that are wrong are caught and named, and the graphs can be written to files."""

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import pytest

import graphopt
from graphopt.compile import with_streams
from graphopt.config import Options
from graphopt.errors import GraphError, PassError
from graphopt.ir.attrs import Attrs
from graphopt.ir.aval import array_aval
from graphopt.ir.graph import Graph, make_graph
from graphopt.ir.node import make_node, param
from graphopt.ir.op import op_named
from graphopt.ir.parse import parse
from graphopt.passes.pipelines import LAST
from graphopt.rewrite.passes import Context, Pass


@dataclass(frozen=True)
class Wrong(Pass):
    """Does what it is told to."""

    what: Any = None
    name = "wrong"

    def run(self, graph: Graph, context: Context) -> Graph:
        return self.what(graph)  # type: ignore[no-any-return]


def fewer_outputs(graph: Graph) -> Graph:
    return make_graph(graph.params, graph.outputs[:-1])


def other_inputs(graph: Graph) -> Graph:
    return make_graph([param(0, array_aval((7,), "float32"))], graph.outputs)


@pytest.mark.parametrize(("what", "part"), [(fewer_outputs, "outputs"), (other_inputs, "inputs")])
def test_a_pass_that_changes_the_interface_is_named(what: Any, part: str) -> None:
    with pytest.raises(PassError, match=f"the pass 'wrong' changed the {part} of the graph"):
        graphopt.jit(lambda x: (x + 1, x * 2), passes=(Wrong(what),))(jnp.ones(3))


def test_an_error_in_a_pass_keeps_its_type_and_says_which_pass_it_was() -> None:
    def fail(graph: Graph) -> Graph:
        raise ZeroDivisionError("in the pass")

    with pytest.raises(ZeroDivisionError) as caught:
        graphopt.jit(lambda x: x + 1, passes=(Wrong(fail),))(jnp.ones(3))
    assert any("the pass 'wrong'" in note for note in getattr(caught.value, "__notes__", ()))


def test_a_graph_with_wrong_types_is_caught_by_the_check_after_the_pass() -> None:
    def ill_typed(graph: Graph) -> Graph:
        sine = op_named("sin")
        assert sine is not None
        small = make_node(sine, graph.params, Attrs({"accuracy": None}), (array_aval((2,), "float32"),))
        reshape = op_named("neg")
        assert reshape is not None
        return make_graph(graph.params, [make_node(reshape, (small,), Attrs({}), graph.outputs[0].avals)])

    graph = graphopt.trace(lambda x: jnp.sin(x))(jnp.ones(3))
    from graphopt.ir.check import check

    with pytest.raises(GraphError, match=r"result 0 is .* by the operation's rule"):
        check(ill_typed(graph))


PROGRAM = """
import jax, jax.numpy as jnp, graphopt
f = graphopt.jit(jax.jit(lambda x: jnp.where(x > 0, x, 0.0)))
print(f(jnp.ones(3)))
"""


def test_the_graphs_are_written_before_the_first_pass_and_after_each(tmp_path: Path) -> None:
    environment = {**os.environ, "GRAPHOPT_DUMP": str(tmp_path), "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, "-c", PROGRAM], env=environment, check=True, capture_output=True)
    (folder,) = tmp_path.iterdir()
    assert folder.name.startswith("001-") and folder.name.endswith("-cpu")
    files = sorted(folder.iterdir())
    steps = [*(step.name for step in with_streams(Options())), *LAST]
    assert steps[-3:] == ["stream", "chunk", "orient"]
    assert [file.name for file in files] == [
        "00-traced.txt",
        *(f"{number:02d}-{name}.txt" for number, name in enumerate(steps, start=1)),
    ]
    assert "jit[" in files[0].read_text() and "jit[" not in files[1].read_text()
    assert parse(files[-1].read_text()).count() == 2
