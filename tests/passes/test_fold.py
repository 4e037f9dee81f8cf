"""Folding gives the bits that JAX computes op by op; what it cannot promise it leaves alone."""

from collections.abc import Iterator
from itertools import product
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.extend.core import primitives

from graphopt.backends.reference import evaluate
from graphopt.backends.xla.staging import jaxpr_of
from graphopt.config import Options
from graphopt.ir.check import check
from graphopt.ir.graph import Graph, make_graph
from graphopt.ir.node import Node, constant
from graphopt.ir.op import CONSTANT, op_of
from graphopt.ir.sources import Sources
from graphopt.passes.fold import Fold
from graphopt.rewrite.passes import Context
from graphopt.trace.jaxpr import trace_function

NARROW = ("int2", "uint2", "int4", "uint4")
INTEGERS = (*NARROW, "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64")
FLOAT8 = ("float8_e4m3fn", "float8_e5m2")
FLOATS = ("float16", "bfloat16", "float32", "float64", *FLOAT8)
COMPLEX = ("complex64", "complex128")


def special(dtype: str) -> Any:
    """Every kind of element that a dtype has: extremes, both zeros, infinities, NaNs of both signs, denormals."""
    kind = np.dtype(getattr(jnp, "bool_" if dtype == "bool" else dtype))
    if kind == np.bool_:
        return np.array([False, True])
    if dtype in INTEGERS:
        low, high = int(jnp.iinfo(kind).min), int(jnp.iinfo(kind).max)
        return np.array(
            sorted({low, low + 1, max(low, -1), 0, min(2, high), high // 2, high - 1, high}), object
        ).astype(kind)
    values = np.array(
        [0.0, -0.0, 1.0, -1.0, 1.5, np.nan, -np.nan, 2.5, -3.25, *["float8" in dtype or np.inf, -np.inf][:2]]
    )
    if dtype in COMPLEX:
        return np.array([complex(a, b) for a in values[:6] for b in values[3:8]], kind)
    if dtype == "float8_e4m3fn":
        return values[np.isfinite(values)].astype(kind)
    return np.concatenate([values.astype(kind), np.array([jnp.finfo(kind).max, jnp.finfo(kind).tiny], kind)])


def denormal(dtype: str) -> Any:
    return np.array([1, -1], np.float64).astype(dtype) * np.asarray(jnp.finfo(jnp.dtype(dtype)).smallest_subnormal)


def fold(graph: Graph, **options: Any) -> Graph:
    folded = Fold(**options).run(graph, Context(Options(), Sources()))
    check(folded)
    return folded


def on_constants(function: Any, *arrays: Any) -> Graph:
    """The graph of `function` with constants in the place of its parameters."""
    graph, _ = trace_function(function, *arrays)
    mapping: dict[Node, Node] = {p: constant(np.asarray(a), p.aval) for p, a in zip(graph.params, arrays, strict=True)}
    for node in graph.nodes[len(graph.params) :]:
        mapping[node] = node.with_inputs(tuple(mapping[n] for n in node.inputs))
    return make_graph((), [mapping[n] for n in graph.outputs])


def folded_value(function: Any, *arrays: Any) -> Any:
    """The constant that `function` of constants folds to, compared with JAX to the bit; None where it stays as it is."""
    graph = on_constants(function, *arrays)
    assert graph.outputs[0].op.primitive is not None
    after = fold(graph, max_elements=10_000)
    if after is graph:
        return None
    value = after.outputs[0].value
    expected = np.asarray(evaluate(graph)[0])
    assert (value.dtype, value.shape) == (expected.dtype, expected.shape)
    assert value.tobytes() == expected.tobytes()
    return value


@pytest.fixture(autouse=True)
def wide_types() -> Iterator[None]:
    with jax.enable_x64(True):
        yield


UNARY = {"neg": lax.neg, "not": lax.bitwise_not}
BINARY = {
    "add": lax.add,
    "sub": lax.sub,
    "mul": lax.mul,
    "max": lax.max,
    "min": lax.min,
    "and": lax.bitwise_and,
    "or": lax.bitwise_or,
    "xor": lax.bitwise_xor,
}
COMPARISONS = {"eq": lax.eq, "ne": lax.ne, "lt": lax.lt, "le": lax.le, "gt": lax.gt, "ge": lax.ge}


def pairs(x: Any) -> tuple[Any, Any]:
    """Every element with every other."""
    left, right = np.indices((x.size, x.size)).reshape(2, -1)
    return x[left], x[right]


def accepts(function: Any, *arrays: Any) -> bool:
    try:
        jax.eval_shape(function, *arrays)
    except TypeError:
        return False
    return True


@pytest.mark.parametrize("dtype", (*INTEGERS, "bool"))
@pytest.mark.parametrize("name", (*UNARY, *BINARY, *COMPARISONS))
def test_integers_wrap_as_in_xla(name: str, dtype: str) -> None:
    x = special(dtype)
    function, arrays = (UNARY[name], (x,)) if name in UNARY else ({**BINARY, **COMPARISONS}[name], pairs(x))
    if not accepts(function, *arrays):
        pytest.skip(f"JAX has no {name} of {dtype}")
    value = folded_value(function, *arrays)
    if dtype in ("int32", "bool"):
        for part in (np.s_[:0], np.s_[:1], -1):
            assert (folded_value(function, *(a[part] for a in arrays)) is None) == (value is None)
    if dtype not in NARROW:
        assert value is not None


@pytest.mark.parametrize("dtype", (*FLOATS, *COMPLEX))
@pytest.mark.parametrize("name", ("neg", *(n for n in BINARY if n not in ("and", "or", "xor"))))
def test_arithmetic_of_floats_stays(name: str, dtype: str) -> None:
    x = special(dtype)
    function, arrays = (UNARY[name], (x,)) if name in UNARY else (BINARY[name], (x, x[::-1].copy()))
    assert accepts(function, *arrays)
    assert folded_value(function, *arrays) is None


@pytest.mark.parametrize("dtype", (*FLOATS, *COMPLEX))
@pytest.mark.parametrize("name", COMPARISONS)
def test_comparisons_of_floats(name: str, dtype: str) -> None:
    arrays = pairs(special(dtype))
    if not accepts(COMPARISONS[name], *arrays):
        pytest.skip(f"JAX has no {name} of {dtype}")
    value = folded_value(COMPARISONS[name], *arrays)
    if dtype in ("float16", "float32", "float64"):
        assert value is not None
    if dtype in COMPLEX:
        assert value is None


@pytest.mark.parametrize("dtype", FLOATS)
def test_comparisons_of_denormals_stay(dtype: str) -> None:
    for arrays in ((denormal(dtype), special(dtype)[:2]), (special(dtype)[:2], denormal(dtype))):
        for function in COMPARISONS.values():
            assert folded_value(function, *arrays) is None


@pytest.mark.parametrize("source, target", [*product((*INTEGERS, "bool"), repeat=2)])
def test_conversions_between_integers(source: str, target: str) -> None:
    x, dtype = special(source), np.dtype(getattr(jnp, "bool_" if target == "bool" else target))
    if source == target:
        return
    value = folded_value(lambda v: lax.convert_element_type(v, dtype), x)
    assert (value is None) == (source in NARROW or target in NARROW)


@pytest.mark.parametrize("source, target", [(f, t) for f in (*FLOATS, "int32", "bool") for t in (*FLOATS, "int8")])
def test_conversions_of_floats_stay(source: str, target: str) -> None:
    if source == target or (source in ("int32", "bool") and target == "int8"):
        return
    assert folded_value(lambda v: lax.convert_element_type(v, getattr(jnp, target)), special(source)) is None


ALL = (*INTEGERS, "bool", *FLOATS, *COMPLEX)
FOREIGN = ("bfloat16", *FLOAT8)


def movable(dtype: str) -> Any:
    """Special values, without NaN where NumPy lacks the type."""
    x = special(dtype)
    return x[~np.isnan(x)] if dtype in FOREIGN else x


@pytest.mark.parametrize("dtype", FOREIGN)
def test_nan_of_a_type_that_numpy_lacks_stays(dtype: str) -> None:
    x = np.array([1, np.nan]).astype(jnp.dtype(dtype))
    assert folded_value(lax.select_n, np.True_, x, x[::-1].copy()) is None
    assert folded_value(lambda v: lax.rev(v, (0,)), x) is None
    assert folded_value(lambda v: lax.rev(v, (0,)), x[:1].repeat(2)) is not None


@pytest.mark.parametrize("dtype", ALL)
def test_select(dtype: str) -> None:
    x = movable(dtype)
    which = np.resize([True, False, False], x.size)
    assert folded_value(lax.select_n, which, x, x[::-1].copy()) is not None
    assert folded_value(lax.select_n, np.True_, x, x[::-1].copy()) is not None
    assert folded_value(lax.select_n, which[:0], x[:0], x[:0]) is not None
    assert folded_value(lax.select_n, which[0], x[0], x[-1]) is not None
    assert (
        folded_value(lax.select_n, np.arange(x.size, dtype=np.int32) % 3, x, x[::-1].copy(), np.roll(x, 1)) is not None
    )
    assert folded_value(lax.select_n, np.int32(2), x, x[::-1].copy(), np.roll(x, 1)) is not None


def test_a_selector_that_is_out_of_range_stays() -> None:
    x = np.arange(3)
    for which in (np.array([0, 3, -1], np.int32), np.int32(3), np.int32(-1)):
        assert folded_value(lax.select_n, which, x, x + 1, x + 2) is None


MOVES = {
    "broadcast_in_dim": lambda x: lax.broadcast_in_dim(x, (2, *x.shape, 3), range(1, 1 + x.ndim)),
    "broadcast_in_dim of 1": lambda x: lax.broadcast_in_dim(x[None], (4, *x.shape), range(1 + x.ndim)),
    "broadcast_in_dim to none": lambda x: lax.broadcast_in_dim(x, (0, *x.shape), range(1, 1 + x.ndim)),
    "reshape": lambda x: lax.reshape(x, (x.size, 1)),
    "squeeze": lambda x: lax.squeeze(lax.broadcast_in_dim(x, (1, *x.shape, 1), range(1, 1 + x.ndim)), (0, -1)),
    "transpose": lambda x: lax.transpose(
        lax.broadcast_in_dim(x, (2, *x.shape), range(1, 1 + x.ndim)), range(x.ndim, -1, -1)
    ),
    "slice": lambda x: lax.slice(x, (0,) * x.ndim, tuple(min(d, 5) for d in x.shape), (2,) * x.ndim),
    "concatenate": lambda x: lax.concatenate([lax.reshape(x, (x.size,)), lax.reshape(x, (x.size,))], 0),
    "rev": lambda x: lax.rev(x, range(x.ndim)),
}


@pytest.mark.parametrize("dtype", ALL)
@pytest.mark.parametrize("name", MOVES)
def test_moving_data_keeps_every_bit(name: str, dtype: str) -> None:
    x = movable(dtype)
    shapes = (x[:0], x[0], np.resize(x, (2, 3)), np.resize(x, (0, 3)), np.resize(x, (3, 4)).T)
    for array in (x, *(shapes if dtype in ("float32", "bool", "complex64") else ())):
        graph = on_constants(MOVES[name], array)
        if graph.outputs[0].op is CONSTANT:
            continue  # JAX saw that there is nothing to do
        # XLA's CPU compiler aborts the process on some moves of 2 and 4 bits: the same move of 8 bits tells what they do.
        wide = on_constants(MOVES[name], array.astype(np.int8)) if dtype in NARROW else graph
        expected = np.asarray(evaluate(wide)[0]).astype(array.dtype)
        value = fold(graph, max_elements=10_000).outputs[0].value
        assert (value.dtype, value.shape, value.tobytes()) == (expected.dtype, expected.shape, expected.tobytes())


def test_rearranging_while_reshaping_stays() -> None:
    x = np.arange(6).reshape(2, 3)
    assert folded_value(lambda v: lax.reshape(v, (6,), dimensions=(1, 0)), x) is None


def test_every_rule_is_tested() -> None:
    """A rule that is added must be added here too."""
    tested = {*UNARY, *BINARY, *COMPARISONS, *(name.split()[0] for name in MOVES), "select_n", "convert_element_type"}
    public = [v for v in vars(primitives).values() if isinstance(v, jax.extend.core.Primitive)]
    assert {op_of(p).name for p in public if op_of(p).fold is not None} == tested


# ---- what the pass leaves alone, and where it looks -------------------------------------------------------------------


def test_results_that_are_too_large_stay() -> None:
    graph = on_constants(lambda x: lax.broadcast_in_dim(x, (257,), ()), np.int32(1))
    assert fold(graph) is graph
    assert fold(graph, max_elements=257) is not graph


def test_nothing_large_is_made_on_the_way() -> None:
    graph = on_constants(lambda x: lax.broadcast_in_dim(x, (10**12,), ())[:3], np.int32(1))
    assert fold(graph) is graph


def test_chains_fold_in_one_run() -> None:
    graph = on_constants(lambda x: -(x + x) * x < x, np.arange(3))
    assert fold(graph).outputs[0].op is CONSTANT


def test_arrays_of_the_device_stay() -> None:
    x = jnp.arange(3)
    graph, _ = trace_function(lambda y: y + (x + x), jnp.arange(3))
    assert [n.op.name for n in fold(graph).nodes] == [n.op.name for n in graph.nodes]


def test_folds_in_loops_branches_and_calls() -> None:
    @jax.jit
    def seven(x: Any) -> Any:
        return x + lax.bitwise_not(np.int32(-8))

    def function(x: Any) -> Any:
        x = lax.fori_loop(0, x, lambda i, c: c + lax.bitwise_not(np.int32(5)), x)
        x = lax.cond(x > 0, lambda v: seven(v), lambda v: v + lax.bitwise_not(np.int32(4)), x)
        return jax.checkpoint(lambda v: v * lax.bitwise_not(np.int32(3)))(x)

    graph, sources = trace_function(function, np.int32(3))
    assert "not(" in str(graph)
    context = Context(Options(), sources)
    after = Fold().run(graph, context)
    check(after)
    assert "not(" not in str(after)
    for x in map(np.int32, (-3, 0, 5)):
        assert np.array_equal(evaluate(after, x)[0], evaluate(graph, x)[0])


def test_weak_types_stay_weak() -> None:
    graph, _ = trace_function(lambda: lax.neg(3))
    after = fold(graph)
    assert after is not graph and after.outputs[0].op is CONSTANT
    assert after.outputs[0].aval is graph.outputs[0].aval
    assert after.outputs[0].aval.weak_type


NANS = {
    "float16": np.array([0x7E00, 0xFE00, 0x7E12, 0x7D01, 0x8000, 1], np.uint16),
    "float32": np.array([0x7FC00000, 0xFFC00000, 0x7FC12345, 0x7F800001, 0x80000000, 1], np.uint32),
}


@pytest.mark.parametrize("dtype", NANS)
def test_each_nan_both_zeros_and_denormals_keep_their_bits(dtype: str) -> None:
    x = NANS[dtype].view(jnp.dtype(dtype))
    assert folded_value(lambda v: lax.rev(v, (0,)), x).tobytes() == x[::-1].tobytes()
    assert folded_value(lambda v: lax.concatenate([v, v], 0), x).tobytes() == x.tobytes() * 2
    assert folded_value(lax.select_n, np.arange(6) % 2 == 0, x, x[::-1].copy()) is not None


def test_a_loop_over_a_ref_holds_no_folded_array() -> None:
    """JAX cannot compile one that does, and says no more than NotImplementedError."""

    def function(x: Any) -> Any:
        ref = jax.new_ref(x)

        def body(i: Any, c: Any) -> Any:
            ref[...] += lax.broadcast(lax.neg(np.int32(-2)), (3,))
            return c + lax.neg(np.int32(-1))

        return lax.fori_loop(0, x[0], body, 0), ref[...], lax.broadcast(lax.neg(np.int32(3)), (2,))

    x = np.arange(2, 5, dtype=np.int32)
    graph, sources = trace_function(function, x)
    context = Context(Options(), sources)
    after = Fold().run(graph, context)
    check(after)
    assert "neg(" not in str(after) and str(after).count("broadcast_in_dim") == 1
    assert context.notes[:1] == ["in loops, branches and calls of a program with Refs only scalars are folded"]
    found = jax.jit(jax.extend.core.jaxpr_as_fun(jaxpr_of(after, sources)))(x)
    for a, b in zip(found, jax.jit(function)(x), strict=True):
        assert a.dtype == b.dtype and np.array_equal(a, b)
