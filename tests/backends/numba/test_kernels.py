"""Kernels that Numba compiled, against JAX's own compiler and the evaluator: each operation, dtype and size."""

import os
from collections.abc import Callable
from contextlib import nullcontext, suppress
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st
from jax import lax
from jax.extend.core import jaxpr_as_fun

import graphopt
from graphopt.analysis import parts, writing
from graphopt.analysis.reductions import REDUCTIONS
from graphopt.backends.agreement import disagreement
from graphopt.backends.numba.lowering import ENGINE
from graphopt.backends.numba.scalar import DTYPES, FUNCTIONS, SCALARS
from graphopt.backends.xla.staging import jaxpr_of
from graphopt.backends.xla.target import Target
from graphopt.compile import optimize_graph
from graphopt.config import Options
from graphopt.ir.aval import is_floating
from graphopt.ir.graph import Graph, make_graph, nested_graphs
from graphopt.ir.node import constant, results
from graphopt.ops.kernel import KERNEL, kernel
from graphopt.ops.random import threefry_p
from graphopt.trace.jaxpr import graph_of

from ...fuzz.test_rewriting import ARGUMENTS, Steps, programs, run
from ...rules.drawing import values

SEED = int(os.environ.get("GRAPHOPT_TEST_SEED", "0"))
NAMES = [dtype.name for dtype in DTYPES]


def wide(*dtypes: str) -> Any:
    """Where 64 bits are needed, JAX is told so."""
    return jax.enable_x64(True) if any(name.endswith("64") for name in dtypes) else nullcontext()


def kernels(graph: Graph) -> list[Graph]:
    """The bodies of the kernels in a graph, at every depth."""
    nodes = [node for inner in nested_graphs(graph) for node in inner.nodes]
    return [node.attrs["body"].graph for node in nodes if node.op is KERNEL]


def left(graph: Graph) -> list[str]:
    """The operations outside of kernels."""
    return [n.op.name for n in graph.nodes if n.op.primitive is not None and n.op is not KERNEL]


def same(found: Any, expected: Any, within: float = 0.0, what: str = "") -> None:
    """The same bits, NaNs of any payload being the same; within: relative difference allowed."""
    f, e = np.asarray(found), np.asarray(expected)
    assert (f.dtype, f.shape) == (e.dtype, e.shape), what
    if f.dtype == jnp.bfloat16:  # of which NumPy does not know what is a NaN
        f, e = f.astype(np.float32), e.astype(np.float32)
    if is_floating(f.dtype):
        if within:
            with np.errstate(all="ignore"):
                close = np.abs(f - e) <= within * np.abs(e) + np.finfo(f.dtype).tiny
            f = np.where(close, e, f)
        np.testing.assert_array_equal(np.signbit(f) & ~np.isnan(f), np.signbit(e) & ~np.isnan(e), err_msg=what)
    np.testing.assert_array_equal(f, e, err_msg=what)


def in_one_kernel(function: Callable[..., Any], *args: Any) -> tuple[Any, Graph]:
    """A function compiled as one kernel, without passes, and its body; each result in the list has the same shape."""
    body = graphopt.trace(function)(*args)
    declined = [(node, ENGINE.declines(node, exact=False)) for node in body.nodes if node.op.primitive is not None]
    assert all(why is None for _, why in declined), declined
    plan = ENGINE.plan(body, True)
    assert plan is not None
    node = kernel(body, body.params, plan.key, ENGINE.name)
    return jax.jit(jaxpr_as_fun(jaxpr_of(make_graph(body.params, results(node))))), body


# ---- each operation of each dtype

BINARY = {
    **{name: getattr(lax, name) for name in ("add", "sub", "mul", "div", "rem", "max", "min", "nextafter")},
    **{name: getattr(lax, name) for name in ("eq", "ne", "lt", "le", "gt", "ge")},
    **{f"bitwise_{name}": getattr(lax, f"bitwise_{name}") for name in ("and", "or", "xor")},
    **{name: getattr(lax, name) for name in ("shift_left", "shift_right_logical", "shift_right_arithmetic")},
}
UNARY: dict[str, Callable[[Any], Any]] = {
    **{name: getattr(lax, name) for name in ("neg", "abs", "sign", "square", "floor", "ceil", "sqrt", "rsqrt")},
    **{name: getattr(lax, name) for name in ("is_finite", "bitwise_not", "population_count", "clz")},
    "bits": lambda x: lax.bitcast_convert_type(x, np.dtype(f"u{x.dtype.itemsize}")),
    **{
        f"reduce_precision {e} {m}": lambda x, e=e, m=m: lax.reduce_precision(x, e, m)
        for e, m in ((5, 10), (8, 7), (4, 3), (5, 2), (3, 2), (2, 1), (11, 52), (8, 23), (9, 30))
    },
    "threefry": lambda x: threefry_p.bind(*[lax.convert_element_type(x, np.uint32)] * 4, word=1),
    "round, halves to even": lambda x: lax.round(x, lax.RoundingMethod.TO_NEAREST_EVEN),
    "round, halves away from zero": lambda x: lax.round(x, lax.RoundingMethod.AWAY_FROM_ZERO),
    **{f"integer_pow {y}": lambda x, y=y: lax.integer_pow(x, y) for y in (0, 1, 2, 3, 7, 64, -1, -2, -5)},
    **{f"to {name}": lambda x, name=name: lax.convert_element_type(x, np.dtype(name)) for name in NAMES},
}
ROUNDED = {"rsqrt": 4.0, "integer_pow -1": 2.0, "integer_pow -2": 2.0, "integer_pow -5": 2.0}
"""By how many units in the last place an operation may differ; the others by none."""


def steps_on(x: Any, y: Any, which: Any, number: Any, low: Any, high: Any) -> dict[str, Callable[[], Any]]:
    """Each operation, by its name."""
    return {
        **{name: lambda f=f: f(x, y) for name, f in BINARY.items()},
        **{f"{name}, one number": lambda f=BINARY[name]: f(x, low) for name in ("add", "sub", "max", "lt")},
        **{name: lambda f=f: f(x) for name, f in UNARY.items()},
        "select_n of two": lambda: lax.select_n(which, x, y),
        "select_n by a number": lambda: lax.select_n(number, x, y, x),
        "select_n of four": lambda: lax.select_n(number, x, y, y, x),
        "select_n by one of all": lambda: lax.select_n(lax.gt(low, high), x, y),
        "select_n of one": lambda: lax.select_n(which, x),
        "clamp": lambda: lax.clamp(x, y, x),
        "clamp by numbers": lambda: lax.clamp(low, x, high),
        "clamp, the least above the greatest": lambda: lax.clamp(high, y, low),
    }


def possible(*args: Any) -> dict[str, Any]:
    """The results of the operations that JAX has for the dtype of the first argument."""
    found = {}
    for name, step in steps_on(*args).items():
        with suppress(TypeError):
            found[name] = step()
    return dict(sorted(found.items()))


def taken(*args: Any) -> list[str]:
    """Those of them that the engine takes."""
    graph = graphopt.trace(possible)(*args)
    names = list(jax.eval_shape(possible, *args))
    return [
        name
        for name, node in zip(names, graph.outputs, strict=True)
        if node.op.primitive is None or ENGINE.declines(node, exact=False) is None
    ]


@pytest.mark.parametrize("dtype", [name for name in NAMES if not name.startswith("complex")])
def test_each_operation(dtype: str) -> None:
    with wide("int64"):
        args = arguments(dtype, 1009)
        names = taken(*args)
        assert len(names) > 15
        function = lambda *args: [steps_on(*args)[name]() for name in names]
        compiled, _ = in_one_kernel(function, *args)
        reference = jax.jit(function, compiler_options={"xla_backend_optimization_level": 0})  # compiled in less time
        for name, found, expected in zip(names, compiled(*args), reference(*args), strict=True):
            units = ROUNDED.get(name, 0.0) if "float" in dtype else 0.0
            same(found, expected, units * float(jnp.finfo(dtype).eps) if units else 0.0, f"{dtype}: {name}")


def arguments(dtype: str, size: int) -> tuple[Any, ...]:
    random = np.random.default_rng([SEED, NAMES.index(dtype)])
    x, y = values(random, dtype, (size,), True), values(random, dtype, (size,), True)
    if dtype == "bfloat16":  # whose denormals XLA flushes in other operations with each version
        with np.errstate(invalid="ignore"):
            x, y = [np.where(np.abs(a) < jnp.finfo(a.dtype).tiny, a * a.dtype.type(0), a) for a in (x, y)]
    which, number = random.random(size) < 0.5, random.integers(0, 3, size).astype(np.int32)
    return x, y, which, number, np.array(1, dtype), np.array(3, dtype)


def test_every_operation_is_tried() -> None:
    with wide("int64"):
        tried = {
            node.op
            for dtype in ("bool", "int32", "float32")
            for node in graphopt.trace(possible)(*arguments(dtype, 3)).nodes
            if ENGINE.declines(node, exact=False) is None
        }
    assert set(SCALARS) - set(FUNCTIONS) - tried == set()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_functions(dtype: str) -> None:
    """How exact they are is tested by themselves: here, that each is the function of its name, in one kernel."""
    random = np.random.default_rng(SEED)
    with wide(dtype):
        x, y = (random.uniform(0.05, 0.95, 1009).astype(dtype) for _ in range(2))
        names = sorted(op.name for op in FUNCTIONS)
        two = {"pow": lax.pow, "atan2": lax.atan2}
        function = lambda x, y: [two[n](x, y) if n in two else getattr(lax, n)(x) for n in names]
        compiled, body = in_one_kernel(function, x, y)
        assert {node.op for node in body.nodes} >= set(FUNCTIONS)
        for name, found, expected in zip(names, compiled(x, y), jax.jit(function)(x, y), strict=True):
            np.testing.assert_allclose(found, expected, rtol=2e-6 if dtype == "float32" else 1e-12, err_msg=name)


@pytest.mark.parametrize("dtype", [name for name in NAMES if "int" in name])
def test_division_remainder_and_shifts_at_their_edges(dtype: str) -> None:
    """Every pair of what goes wrong first: zero, minus one, the least, and shifts by the width or more."""
    info = np.iinfo(dtype)
    edges = {0, 1, 2, 3, 7, info.bits - 1, info.bits, info.bits + 1, info.max, info.max - 1, info.min, info.min + 1}
    if info.min < 0:
        edges |= {-1, -2, -7}
    edge = np.array(sorted(edges), dtype)
    x, y = (a.reshape(-1) for a in np.meshgrid(edge, edge))
    names = ("div", "rem", "shift_left", "shift_right_logical", "shift_right_arithmetic", "mul", "sub")
    with wide(dtype):
        function = lambda x, y: [BINARY[name](x, y) for name in names]
        compiled, _ = in_one_kernel(function, x, y)
        for name, found, expected in zip(names, compiled(x, y), jax.jit(function)(x, y), strict=True):
            same(found, expected, what=name)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_conversions_saturate(dtype: str) -> None:
    bounds = [float(b) for name in NAMES if "int" in name for b in (np.iinfo(name).min, np.iinfo(name).max)]
    x = np.array([*bounds, np.nan, np.inf, -np.inf, 0.5, -0.5, -0.0, 1e30, -1e30, 254.5, -128.7], dtype)
    x = np.concatenate([x, np.nextafter(x, np.array(np.inf, dtype)), np.nextafter(x, np.array(-np.inf, dtype))])
    with wide("int64"):
        names = [name for name in NAMES if name != dtype]
        function = lambda x: [lax.convert_element_type(x, np.dtype(name)) for name in names]
        compiled, _ = in_one_kernel(function, x)
        for name, found, expected in zip(names, compiled(x), jax.jit(function)(x), strict=True):
            same(found, expected, what=name)
            if "int" in name:
                info = np.iinfo(name)
                assert found[np.isnan(x)].tolist() == [0] * int(np.isnan(x).sum())
                assert set(np.asarray(found)[x > 1e29].tolist()) == {info.max}
                assert set(np.asarray(found)[x < -1e29].tolist()) == {info.min}


@pytest.mark.parametrize("dtype", [name for name in NAMES if "int" in name])
def test_overflow_is_known_to_wrap_around(dtype: str) -> None:
    """Nothing is concluded from a sum, difference or product as if it could not overflow."""
    info = np.iinfo(dtype)
    edge = np.array([info.min, info.min + 1, info.max, info.max - 1, 0, 1, 2, 3, 7], dtype)
    x, y = (a.reshape(-1) for a in np.meshgrid(edge, edge))

    def function(x: Any, y: Any) -> Any:
        less = lax.lt(x - y, x), lax.gt(x + y, x), lax.lt(x, lax.sub(x, x.dtype.type(1)))
        return *less, lax.lt(x * y, x), lax.lt(-x, y), lax.ge(x * x, x - x)

    with wide(dtype):
        x, y = jnp.asarray(x), jnp.asarray(y)
        compiled, _ = in_one_kernel(function, x, y)
        for number, (found, expected) in enumerate(zip(compiled(x, y), jax.jit(function)(x, y), strict=True)):
            same(found, expected, what=str(number))


def test_results_stay_in_their_dtype_between_operations() -> None:
    """Numba computes on small integers in 64 bits, and on a float32 and an integer in float64."""

    def function(x: Any, u: Any, f: Any) -> Any:
        small = lax.div(x + x, np.int8(2)) + lax.shift_right_logical(u * u, np.uint8(1)).astype(np.int8)
        return small, lax.sign(f) / np.float32(3) + f, (f * 3).astype(np.int8) * x, lax.div(-u, np.uint8(3))

    x, u = np.arange(-128, 128, dtype=np.int8), np.arange(256, dtype=np.uint8)
    f = np.linspace(-50, 50, 256, dtype=np.float32)
    compiled, _ = in_one_kernel(function, x, u, f)
    for found, expected in zip(compiled(x, u, f), jax.jit(function)(x, u, f), strict=True):
        same(found, expected, within=2e-7)


# ---- sizes and layouts


def rows(x: Any) -> Any:
    return x * 2 + jnp.max(x), jnp.cumsum(x.astype(jnp.int32)), x > 1


@pytest.mark.parametrize("size", [0, 1, 2, 17, 100_003])
def test_sizes(size: int) -> None:
    x = (np.arange(size) % 1001 - 500).astype(np.float32)
    function = rows if size else lambda x: (x * 2 + 1, x > 1)
    jitted = graphopt.jit(function, backend="numba")
    assert bool(kernels(jitted.explain(x).graph)) == (size > 0)
    for found, expected in zip(jitted(x), jax.jit(function)(x), strict=True):
        same(found, expected)


def all_reductions(x: Any, i: Any) -> Any:
    logic = lax.reduce_and(i | 1, (0,)), lax.reduce_or(i & 6, (0,)), lax.reduce_xor(i, (0,)), lax.reduce_or(x > 2, (0,))
    return *few_reductions(x, i), jnp.sum(i), jnp.prod(i | 1), jnp.max(i), jnp.min(i), jnp.max(x), *logic


def few_reductions(x: Any, i: Any) -> Any:
    return jnp.sum(x), lax.argmax(x, 0, np.int32), lax.argmin(i, 0, np.int32)


@pytest.mark.parametrize(("function", "size"), [(all_reductions, 1), (all_reductions, 1009), (few_reductions, 100_003)])
def test_reductions(function: Any, size: int) -> None:
    """Whole numbers: exact in any order. The longest ones are done in parts."""
    x = (np.arange(size) % 7 - 3).astype(np.float32)
    i = np.arange(size, dtype=np.int32) * 1_000_003
    compiled, body = in_one_kernel(function, x, i)
    assert len({n.op for n in body.nodes} & set(REDUCTIONS)) == (9 if function is all_reductions else 3)
    for found, expected in zip(compiled(x, i), jax.jit(function)(x, i), strict=True):
        same(found, expected)


def test_arrays_that_are_not_contiguous() -> None:
    x = np.arange(2 * 30 * 7, dtype=np.float32).reshape(30, 14)
    function = lambda x, y: x * 2 - y.sum(1, keepdims=True)
    jitted = graphopt.jit(function, backend="numba")
    for view in (x[::2, ::-2], x.T[::2].T[:15], np.asfortranarray(x[:15, :7]), np.broadcast_to(x[:1, :7], (15, 7))):
        same(jitted(view, view + 1), jax.jit(function)(view, view + 1))


def test_special_values_in_reductions() -> None:
    random = np.random.default_rng(SEED)
    x = values(random, "float32", (999, 5), True)
    x = np.where(
        np.abs(x) < np.finfo(x.dtype).tiny, np.copysign(np.float32(0), x), x
    )  # no denormals, which may be zero
    function = lambda x: (
        *(jnp.max(x, 1), jnp.min(x, 1), jnp.argmax(x, 1).astype(np.int32), jnp.argmin(x, 1).astype(np.int32)),
        lax.reduce_or(x > 0, (1,)),
    )
    compiled, _ = in_one_kernel(function, x)
    for found, expected in zip(compiled(x), jax.jit(function)(x), strict=True):
        np.testing.assert_array_equal(found, expected)  # of 0.0 and -0.0 XLA gives the one or the other


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_the_greatest_and_the_least_where_nans_have_signs_and_bits(dtype: str) -> None:
    """A NaN wins, whatever its bits are."""
    kind = np.dtype(jnp.dtype(dtype))
    info, integer = jnp.finfo(kind), np.dtype(f"u{kind.itemsize}")
    infinite = int(np.array(np.inf, kind).view(integer)[()])
    sign, least, most = 1 << (info.bits - 1), infinite + 1, infinite + (1 << info.nmant) - 1
    nans = np.array([least, most, sign + least, sign + most], integer).view(kind)
    numbers = np.array([np.inf, -np.inf, float(info.max), float(info.min), 1, -1], kind)
    random = np.random.default_rng(SEED)
    x = random.choice(numbers, (401, 7))
    x[::3, random.integers(7)] = random.choice(nans, len(x[::3]))
    with jax.enable_x64(True):
        for axis in (0, 1, None):
            for rows in (x, x[1::3]):
                compiled, _ = in_one_kernel(lambda x, axis=axis: (jnp.max(x, axis), jnp.min(x, axis)), rows)
                with np.errstate(invalid="ignore"):  # of NaNs that signal
                    wide = rows.astype(np.float64)
                for found, expected in zip(compiled(rows), (wide.max(axis), wide.min(axis)), strict=True):
                    assert found.dtype == kind
                    np.testing.assert_array_equal(np.asarray(found).astype(np.float64), expected)


# ---- random programs


def agrees(steps: Steps, number: int, special: bool) -> int:
    """One random program as its kernels compute it, against the evaluator; returns how many kernels there were."""
    random = np.random.default_rng(number)
    args = [values(random, dtype, shape, special) for dtype, shape in ARGUMENTS]
    closed = jax.make_jaxpr(lambda *known: run(steps, list(map(jnp.asarray, known)))[-4:])(*args)
    graph, sources = graph_of(closed)
    after, _ = optimize_graph(graph, sources, Options(backend="numba", passes=()), Target(("cpu",)))
    found = jax.jit(jaxpr_as_fun(jaxpr_of(after, sources)))(*args)
    computed = make_graph(graph.params, [constant(np.asarray(value)) for value in found])
    difference = disagreement(graph, computed, args, "reassociate")
    assert difference is None, f"{difference}\n{graph}\n{after}\n{args}"
    return len(kernels(after))


quiet = settings(suppress_health_check=list(HealthCheck), derandomize=False)


@pytest.fixture(params=[False, True], ids=["as it is", "in small parts"])
def small(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Reductions of a few elements are cut, and each thread takes a few iterations."""
    if request.param:
        monkeypatch.setattr(parts, "LONG", 4)
        monkeypatch.setattr(parts, "PARTS", 3)
        monkeypatch.setattr(writing, "GRAIN", 0.5)


def test_random_programs(small: None) -> None:
    counts = []

    @seed(SEED)
    @settings(quiet, max_examples=6)
    @given(programs, st.integers(0, 2**32 - 1), st.booleans())
    def test(steps: Steps, number: int, special: bool) -> None:
        counts.append(agrees(steps, number, special))

    test()
    assert sum(counts) > 3


@pytest.mark.exhaustive
@pytest.mark.timeout(0)
@pytest.mark.parametrize("part", range(10))
def test_many_random_programs(part: int, small: None) -> None:
    @seed(SEED + part)
    @settings(quiet, max_examples=100)
    @given(programs, st.integers(0, 2**32 - 1), st.booleans())
    def test(steps: Steps, number: int, special: bool) -> None:
        agrees(steps, number, special)

    test()
