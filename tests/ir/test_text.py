"""The text of a graph: printed the same everywhere, read back to the same object."""

import gc
import os
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.core import Primitive, primitives

from graphopt.errors import ParseError
from graphopt.ir.attrs import EMPTY, Attrs, SubGraph
from graphopt.ir.aval import DTYPES, array_aval
from graphopt.ir.graph import Graph, make_graph
from graphopt.ir.node import constant, make_node, param
from graphopt.ir.op import op_of
from graphopt.ir.parse import parse
from graphopt.ir.text import objects_of
from graphopt.trace.jaxpr import graph_of, trace_function

from ..primitive_cases.cases import Case, all_cases, sample
from ..trace.outcomes import traced
from ..trace.programs import PROGRAMS, Program

CHECKOUT = Path(__file__).resolve().parents[2]


@pytest.fixture(params=PROGRAMS.values(), ids=PROGRAMS.keys())
def program(request: pytest.FixtureRequest) -> Iterator[Program]:
    chosen: Program = request.param
    with jax.enable_x64(chosen.x64):
        yield chosen


def read_back(graph: Graph) -> None:
    text = str(graph)
    assert parse(text, like=graph) is graph
    assert str(graph) == text


def test_every_kind_of_program_is_read_back(program: Program) -> None:
    graph, _ = graph_of(traced(program))
    read_back(graph)
    spaced = "\n\n" + str(graph).replace(" = ", "   =\n").replace(", ", " ,  ") + "\n"
    assert parse(spaced, like=graph) is graph


def test_text_without_references_needs_no_graph() -> None:
    """What was printed is gone; what is read is a new graph that prints the same."""
    for name in ("arithmetic", "shapes", "reductions", "comparisons", "complex_numbers", "dynamic", "scans"):
        graph, _ = graph_of(traced(PROGRAMS[name]))
        text = str(graph)
        if objects_of(graph):
            continue
        del graph, _
        gc.collect()
        assert str(parse(text)) == text


def by_name(cases: Any) -> list[Any]:
    return [pytest.param(case, id=case.name) for case in cases]


def test_a_sample_of_the_primitive_cases_of_jax_is_read_back() -> None:
    for case in sample(all_cases(), 400, int(os.environ["GRAPHOPT_TEST_SEED"])):
        check_case(case)


@pytest.mark.exhaustive
@pytest.mark.parametrize("part", range(20))
def test_every_primitive_case_of_jax_is_read_back(part: int) -> None:
    for case in all_cases()[part::20]:
        check_case(case)


def check_case(case: Case) -> None:
    with jax.enable_x64(case.x64):
        (arguments,) = case.arguments(1)
        try:
            closed = jax.make_jaxpr(case.function)(*arguments)
        except Exception:  # noqa: BLE001 - some cases are there to show that JAX refuses them
            return
        try:
            read_back(graph_of(closed)[0])
        except Exception as error:
            error.add_note(case.name)
            raise


@pytest.mark.parametrize("name", DTYPES)
def test_every_value_of_every_narrow_type_is_read_back(name: str) -> None:
    """All bit patterns of up to 16 bits, and for wider types those that matter; 16 elements to a constant."""
    dtype = DTYPES[name]
    values = every_bit_pattern(dtype)
    with jax.enable_x64(True):
        for start in range(0, values.size, 16 if values.size <= 256 else 16 * 61):
            piece = values[start : start + 16]
            node = constant(piece, array_aval(piece.shape, dtype))
            graph = make_graph((), (node,))
            assert "<&" not in str(graph)
            read = parse(str(graph)).outputs[0]
            assert read is node
            assert read.value.tobytes() == piece.tobytes()


def every_bit_pattern(dtype: np.dtype[Any]) -> np.ndarray[Any, Any]:
    if dtype == jax.dtypes.float0:
        return np.zeros(3, dtype)
    if dtype == np.bool_:
        return np.array([False, True])
    if jax.dtypes.issubdtype(dtype, np.integer):
        info = jnp.iinfo(dtype)
        low, high = int(info.min), int(info.max)
        wanted = (
            range(low, high + 1) if high - low < 2**16 else [low, low + 1, -(low < 0), 0, 1, high // 3, high - 1, high]
        )
        return np.array(wanted, object).astype(dtype)
    if dtype.kind == "c":
        part = every_bit_pattern(np.dtype(np.float32 if dtype.itemsize == 8 else np.float64))
        return np.stack(np.meshgrid(part, part), -1).reshape(-1, 2).view(dtype)[:, 0]
    if dtype.itemsize <= 2:
        bits = getattr(jnp.finfo(dtype), "bits", 8 * dtype.itemsize)
        return np.arange(2 ** int(bits), dtype=f"u{dtype.itemsize}").view(dtype)
    whole = np.dtype(f"u{dtype.itemsize}")
    edges = np.array(
        [0, 1, -1, 1.5, 1 / 3, 1e-30, 123456789, np.inf, -np.inf, np.nan, -0.0, 5e-324, 1e-45, 2**0.5], dtype
    )
    info = jnp.finfo(dtype)
    more = np.array([info.max, info.min, info.tiny, info.eps], dtype)
    quiet = np.array([np.nan], dtype).view(whole)
    nans = np.concatenate(
        [quiet + whole.type(1), quiet | whole.type(1 << (8 * dtype.itemsize - 1)), quiet - whole.type(1)]
    )
    return np.concatenate([edges, more, nans.view(dtype)])


def test_what_each_construct_looks_like() -> None:
    """The grammar, by example."""
    text = textwrap.dedent(
        """\
        graph @1(%0: f32[], %1: i8[3]) {
          return %1
        }
        graph @main(%0: bf16[2,3], %1: i32[]~, %2: c64[1], %3: f32[0]) {
          %4: bf16[] = constant(0.0)
          %5: bool[2,3] = gt(%0, %4)
          %6: bf16[] = convert_element_type[new_dtype=dtype(bf16), sharding=None, weak_type=False](%1)
          %7: bf16[2,3] = select_n(%5, %6, %0)
          %8: c64[2] = constant(nan + infj, -0.0 + 1.5j)
          %9: i4[1,2] = constant(-1, 2)
          %10: bool[] = constant(true)
          %11: f32[3] = constant(0.1, 0x7fc00001, 1e-45)
          %12: (f32[], f32[4]) = scan[jaxpr=@1, length=4](%3)
          %13: f32[] = project[index=0](%12)
          %14: i8[3] = jit[jaxpr=@1, name='f'](%13)
          %15: i8[3] = while[body_jaxpr=@1:open1](%13, %14)
          %16: i8[3] = 'no identifier'[branches=(@1, @1)](%14, %15)
          return %7, %8, %9, %10, %11, %16, %3
        }"""
    )
    other = Primitive("no identifier")
    op_of(other)
    graph = parse(text)
    assert str(graph) == text
    assert objects_of(graph) == ()
    assert parse(str(graph)) is graph
    body = graph.nodes[14].subgraphs[0].graph
    assert graph.nodes[15].subgraphs == (SubGraph(body, closed=False, constvars=1),)
    assert graph.nodes[16].subgraphs == (SubGraph(body), SubGraph(body))
    assert [graph.nodes[11].value.view(np.uint32).tolist()] == [[0x3DCCCCCD, 0x7FC00001, 1]]


def test_attributes_of_every_kind() -> None:
    x = param(0, array_aval((), np.dtype(np.float32)))
    values = {
        "a": None,
        "b": True,
        "c": -3,
        "d": 2**70,
        "e": -1.5e-300,
        "f": float("inf"),
        "g": float("nan"),
        "h": 'it\'s "quoted" \\ and\nbroken → 0x12',
        "i": (),
        "j": (1,),
        "k": ((1, 2.0), "x", (None,)),
        "l": {"one": 1, "two": (2,)},
        "m": {},
        "n": np.dtype(np.int8),
        "o": jax.lax.Precision.HIGHEST,
        "p": jax.lax.GatherDimensionNumbers((0,), (), (1,)),
        "q": np.int32(3),
        "r": [1, 2],
        "s": np.arange(3),
        "t": len,
        "u": lambda: None,
        "v": frozenset({"y", "x"}),
        "w": -np.float64(np.uint64(0x7FF8000000000001).view(np.float64)),
        "x": {1: 2},
        "y": np.dtype("V5"),
        "z": float(np.uint64(0x7FF8000000000001).view(np.float64)),
    }
    graph = make_graph((x,), (make_node(op_of(primitives.sin_p), (x,), Attrs(values), x.avals),))
    (line,) = (line for line in str(graph).splitlines() if "sin" in line)
    assert line.startswith(
        "  %1: f32[] = sin[a=None, b=True, c=-3, d=1180591620717411303424, e=-1.5e-300, f=inf, g=nan, "
        "h='it\\'s \"quoted\" \\\\ and\\nbroken → 0x12', i=(), j=(1,), k=((1, 2.0), 'x', (None,)), "
        "l={'one': 1, 'two': (2,)}, m={}, n=dtype(i8), o=Precision.HIGHEST, "
        "p=GatherDimensionNumbers(offset_dims=(0,), collapsed_slice_dims=(), start_index_map=(1,), "
    )
    assert (
        "q=<&1 3>, r=<&2 [1, 2]>, s=<&3 [0 1 2]>, t=<&4 function len>, u=<&5 function (lambda)>, v=<&6 {x, y}>" in line
    )
    assert len(objects_of(graph)) == 10
    read_back(graph)


def test_operations_of_one_name_are_told_apart() -> None:
    mine = Primitive("mul")
    mine.def_abstract_eval(lambda x: x)
    dashed = Primitive("my-own op")
    dashed.def_abstract_eval(lambda x: x)
    graph, _ = trace_function(lambda x: x * mine.bind(x) * dashed.bind(x), 2.0)
    assert "= <&1 Op(mul)>(%0)" in str(graph)
    assert "= 'my-own op'(%0)" in str(graph)
    read_back(graph)


def test_the_same_object_has_one_number() -> None:
    def function(x: Any) -> Any:
        return x + large, x * large, x + other

    large, other = np.arange(5000.0, dtype=np.float32), np.arange(5000.0, dtype=np.float32)
    graph, _ = trace_function(function, large)
    assert str(graph).count("constant(<&1 array float32[5000]>)") == 1
    assert str(graph).count("constant(<&2 array float32[5000]>)") == 1
    assert objects_of(graph)[0].array is not objects_of(graph)[1].array


def test_references_are_found_in_the_living_graph_that_prints_the_text() -> None:
    large = np.arange(5000.0, dtype=np.float32)
    graph, _ = trace_function(lambda x: x + large, large)
    text = str(graph)
    assert parse(text) is graph
    twin, _ = trace_function(lambda x: x + large.copy(), large)
    assert str(twin) == text
    with pytest.raises(ParseError, match="2 living graphs print it; pass the graph that it comes from"):
        parse(text)
    assert parse(text, like=graph) is graph
    assert parse(text, like=twin) is twin
    edited = text.replace("add(%0, %1)", "add(%1, %1)")
    with pytest.raises(ParseError, match="no living graph prints it; pass the graph that it comes from"):
        parse(edited)
    assert parse(edited, like=twin).outputs[0].inputs == (twin.outputs[0].inputs[1],) * 2


def test_printing_is_the_same_in_each_process() -> None:
    """Python's hashes differ from process to process: nothing printed may follow their order, or show an address."""
    script = textwrap.dedent(
        """
        import jax
        from tests.trace.programs import PROGRAMS
        from tests.trace.outcomes import traced
        from graphopt.trace.jaxpr import graph_of
        for name, program in PROGRAMS.items():
            with jax.enable_x64(program.x64):
                print(name, graph_of(traced(program))[0])
        """
    )
    texts = [
        subprocess.run(
            [sys.executable, "-c", script],
            cwd=CHECKOUT,
            env=os.environ | {"PYTHONHASHSEED": seed, "PYTHONPATH": str(CHECKOUT)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    ]
    assert "ordered_effects graph @" in texts[0]
    assert texts[0].splitlines() == texts[1].splitlines()


def test_a_graph_without_nodes() -> None:
    graph = make_graph((), ())
    assert str(graph) == "graph @main() {\n  return\n}"
    read_back(graph)
    x = param(0, array_aval((2,), np.dtype(np.int8)))
    assert str(make_graph((x,), (x, x))) == "graph @main(%0: i8[2]) {\n  return %0, %0\n}"
    nothing = make_graph((x,), (make_node(op_of(primitives.sin_p), (x,), EMPTY, ()),))
    assert str(nothing).splitlines()[1] == "  %1: () = sin(%0)"
    read_back(nothing)
