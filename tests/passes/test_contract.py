"""The order of contractions: the fewest operations, the same values, and what keeps its order."""

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from jax import lax
from jax.experimental.xla_metadata import set_xla_metadata

from graphopt.analysis.contraction import EXACT, Product, best_order, cost_of_order
from graphopt.analysis.cost import cost_of
from graphopt.backends.agreement import disagreement
from graphopt.config import NUMERICS, Options
from graphopt.ir.check import check
from graphopt.ir.graph import Graph
from graphopt.passes.contract import Contract
from graphopt.passes.inline import Inline
from graphopt.passes.simplify import Simplify
from graphopt.rewrite.passes import Context, run_pipeline
from graphopt.trace.jaxpr import trace_function

from ..rules.drawing import values

some = settings(max_examples=60, suppress_health_check=list(HealthCheck))

Network = tuple[list[str], str, dict[str, int]]
"""Labels of the operands, of the result, and sizes."""


def contracted(function: Callable[..., Any], *args: Any, numerics: Any = "standard") -> tuple[Graph, Graph, Context]:
    """A function's graph, simplified, before and after the pass."""
    graph, sources = trace_function(function, *args)
    before, _ = run_pipeline(graph, (Inline(), Simplify()), Context(Options(numerics=numerics), sources))
    context = Context(Options(numerics=numerics), sources)
    after = Contract().run(before, context)
    check(after)
    again = Context(Options(numerics=numerics), sources)
    assert Contract().run(after, again) is after and not again.firings
    return before, after, context


def array(*shape: int, seed: int = 0, dtype: str = "float32") -> Any:
    return values(np.random.default_rng((seed, *shape)), dtype, shape, False)


def flops(graph: Graph) -> int:
    return cost_of(graph).flops


# ---- the optimum -------------------------------------------------------------------------------------------------------


def cheapest(operands: Sequence[frozenset[str]], result: frozenset[str], sizes: dict[str, int]) -> int:
    """The fewest operations of all binary trees, by trying them all."""

    def count(labels: frozenset[str]) -> int:
        return math.prod(sizes[label] for label in labels)

    def search(left: tuple[frozenset[str], ...]) -> int:
        if len(left) == 1:
            return 0
        best = None
        for i, j in itertools.combinations(range(len(left)), 2):
            others = tuple(x for k, x in enumerate(left) if k not in (i, j))
            both = left[i] | left[j]
            kept = both & result.union(*others)
            cost = count(both) * (1 if kept == both else 2) + search((kept, *others))
            best = cost if best is None else min(best, cost)
        assert best is not None
        return best

    total, summed = 0, []
    for i, labels in enumerate(operands):
        kept = labels & result.union(*[x for k, x in enumerate(operands) if k != i])
        total += count(labels) if kept != labels else 0
        summed.append(kept)
    return total + search(tuple(summed))


@st.composite
def networks(draw: st.DrawFn, most: int = 6, smallest: int = 1) -> Network:
    """Two and more operands with up to three axes, of few labels so that they share some, also three and more one."""
    operands = draw(st.lists(st.lists(st.sampled_from("abcdefg"), max_size=3, unique=True), min_size=2, max_size=most))
    known = sorted({label for labels in operands for label in labels})
    result = draw(st.lists(st.sampled_from(known), max_size=3, unique=True)) if known else []
    size = st.integers(smallest, 7)
    return ["".join(labels) for labels in operands], "".join(result), {label: draw(size) for label in known}


def product_of(network: Network) -> Product:
    operands, result, sizes = network
    labels = {label: k for k, label in enumerate(sizes)}

    def mask(axes: str) -> int:
        return sum(1 << labels[label] for label in axes)

    return Product(tuple(map(mask, operands)), mask(result), tuple(sizes.values()))


@some
@given(networks(smallest=2))
def test_the_order_is_the_best_of_all(network: Network) -> None:
    operands, result, sizes = network
    product = product_of(network)
    order = best_order(product)
    assert order is not None and len(order) == len(operands) - 1
    least = cheapest([frozenset(labels) for labels in operands], frozenset(result), sizes)
    assert cost_of_order(product, order)[0] == least
    assert best_order(product, least) is not None


@pytest.mark.parametrize("seed", range(8))
def test_a_chain_of_uneven_matrices_takes_the_fewest_operations(seed: int) -> None:
    dims = [int(n) for n in np.random.default_rng(seed).integers(2, 30, 7)]
    matrices = [array(a, b) for a, b in itertools.pairwise(dims)]

    def chain(*matrices: Any) -> Any:
        product = matrices[0]
        for matrix in matrices[1:]:
            product = product @ matrix
        return product

    before, after, _ = contracted(chain, *matrices)
    # CLRS, section 14.2: m[i, j] is the least over k of m[i, k] + m[k + 1, j] + p[i - 1] p[k] p[j].
    least: dict[tuple[int, int], int] = {(i, i + 1): 0 for i in range(6)}
    for length in range(2, 7):
        for i in range(7 - length):
            j = i + length
            least[i, j] = min(least[i, k] + least[k, j] + 2 * dims[i] * dims[k] * dims[j] for k in range(i + 1, j))
    if flops(before) * 0.95 > least[0, 6]:
        assert flops(after) == least[0, 6]
    else:
        assert after is before


def test_many_arrays_in_a_good_order() -> None:
    sizes = {chr(ord("a") + k): 2 + k * 7 % 5 for k in range(20)}
    names = list(sizes)
    network = ([x + y for x, y in itertools.pairwise(names)], names[0], sizes)
    product = product_of(network)
    assert len(product.arrays) > EXACT
    order = best_order(product)
    in_a_row = tuple((0, 1) if k == 0 else (len(product.arrays) + k - 1, k + 1) for k in range(len(product.arrays) - 1))
    assert order is not None and cost_of_order(product, order)[0] <= cost_of_order(product, in_a_row)[0]


def test_what_stays_the_same_in_a_loop_counts_once() -> None:
    product = Product((0b011, 0b110, 0b100), 0b001, (9, 9, 9), kept=0b011, times=100)
    assert best_order(product) == ((0, 1), (3, 2))
    assert best_order(Product(product.arrays, 0b001, (9, 9, 9))) == ((1, 2), (0, 3))


# ---- the same values ---------------------------------------------------------------------------------------------------


def written_in_any_order(network: Network, order: Sequence[int]) -> Callable[..., Any]:
    """The network as products of two operands at a time, in the order that is drawn; jax.numpy writes each of them."""
    operands, result, _ = network

    def function(*arrays: Any) -> Any:
        left = list(zip(operands, arrays, strict=True))
        if order[0] % 3 == 0 and arrays[0].dtype.kind != "i":
            left[0] = operands[0], arrays[0] / 3
        for step in order:
            if len(left) == 1:
                break
            (x, a), (y, b) = left.pop(step % len(left)), left.pop(step // 7 % (len(left) - 1 or 1))
            others = set(result).union(*[labels for labels, _ in left])
            kept = "".join(label for label in dict.fromkeys(x + y) if label in others)
            left.append((kept, jnp.einsum(f"{x},{y}->{kept}", a, b)))
        [(labels, array)] = left
        return jnp.einsum(f"{labels}->{result}", array)

    return function


DTYPES = ("float32", "int32", "bfloat16", "complex64", "int8", "float16")


@some
@given(networks(most=7, smallest=0), st.lists(st.integers(0, 48), min_size=6, max_size=6), st.sampled_from(DTYPES))
def test_the_same_values(network: Network, order: list[int], dtype: str) -> None:
    operands, _, sizes = network
    args = [array(*[sizes[n] for n in labels], seed=k, dtype=dtype) for k, labels in enumerate(operands)]
    before, after, context = contracted(written_in_any_order(network, order), *args)
    exact = np.dtype(args[0].dtype).kind in "iu"
    assert {firing.safety for firing in context.firings} <= {"exact" if exact else "reassociate"}
    assert dtype != "float16" or after is before  # moderate intermediates overflow
    assert disagreement(before, after, args, "exact" if exact else "reassociate") is None
    assert flops(after) <= flops(before)


@some
@given(networks(most=5, smallest=2), st.lists(st.integers(0, 48), min_size=6, max_size=6))
def test_derivatives_batches_and_loops(network: Network, order: list[int]) -> None:
    operands, _, sizes = network
    args = [array(*[sizes[n] for n in labels], seed=k) for k, labels in enumerate(operands)]
    function = written_in_any_order(network, order)

    def gradient(*args: Any) -> Any:
        return jax.grad(lambda *args: jnp.sum(jnp.sin(function(*args))))(*args)

    def batch(*args: Any) -> Any:
        return jax.vmap(function, in_axes=(0, *[None] * (len(args) - 1)))(jnp.stack([args[0], 2 * args[0]]), *args[1:])

    def loop(*args: Any) -> Any:
        return lax.scan(lambda c, x: (c + jnp.sum(function(x, *args[1:])), None), 0.0, jnp.stack([args[0]] * 3))[0]

    for transformed in (gradient, batch, loop):
        before, after, _ = contracted(transformed, *args)
        assert disagreement(before, after, args, "reassociate") is None


N = 6
A, B, C = array(N, N), array(N, N, seed=1), array(N, N, seed=2)
V, W = array(N, seed=3), array(N, seed=4)

CHEAPER: dict[str, tuple[Callable[..., Any], tuple[Any, ...], int]] = {
    "matrices and vector": (lambda a, b, v: a @ b @ v, (A, B, V), 4 * N * N),
    "trace": (lambda a, b: jnp.trace(a @ b), (A, B), 2 * N * N),
    "trace by einsum": (lambda a, b: jnp.einsum("ii", a @ b), (A, B), 2 * N * N),
    "diagonal": (lambda a, b: jnp.diag(a @ b), (A, B), 2 * N * N),
    "diagonal by indices": (lambda a, b: (a @ b)[jnp.arange(N), jnp.arange(N)], (A, B), 2 * N * N),
    "diagonal by constant indices": (lambda a, b: (a @ b)[np.arange(N), np.arange(N)], (A, B), 2 * N * N),
    "diagonals of batches": (
        lambda a, b: jnp.diagonal(a @ b, axis1=1, axis2=2),
        (array(5, N, N), array(5, N, N, seed=1)),
        10 * N * N,
    ),
    "diagonals for each": (
        lambda a, b: jax.vmap(jnp.diag)(a @ b),
        (array(5, N, N), array(5, N, N, seed=1)),
        10 * N * N,
    ),
    "sum of the diagonal": (lambda a, b: jnp.diagonal(a @ b).sum(), (A, B), 2 * N * N),
    "sum of all": (lambda a, b: jnp.sum(a @ b), (A, B), 2 * N * N + 2 * N),
    "outer product": (lambda u, v, w: jnp.outer(u, v) @ w, (V, W, V), 3 * N),
    "outer product with axes": (lambda u, v, w: (u[:, None] * v[None, :]) @ w, (V, W, V), 3 * N),
    "scalar": (lambda a, v, c: (c * a) @ v, (A, V, np.float32(3)), 2 * N * N + N),
    "scaled columns": (lambda a, d, v: (a * d) @ v, (A, W, V), 2 * N * N + N),
    "scaled rows": (lambda a, d, v: (a * d[:, None]) @ v, (A, W, V), 2 * N * N + N),
    "divided": (lambda a, v, c: ((a.T @ a) / c) @ v, (A, V, np.float32(3)), 4 * N * N + N),
    "divided and multiplied": (lambda a, b, v, c: (3 * (a @ b) / c) @ v, (A, B, V, np.float32(7)), 4 * N * N + N + 1),
    "results of a loop": (lambda a, b, v: a @ b @ lax.scan(lambda c, x: (c * x, c), v, v)[1].T @ v, (A, B, V), 0),
    "batches": (lambda a, b, v: jax.vmap(lambda b, v: a @ (b * 2) @ v)(b, v), (A, array(5, N, N), array(5, N)), 0),
}


@pytest.mark.parametrize("name", CHEAPER)
def test_cheaper(name: str) -> None:
    function, args, count = CHEAPER[name]
    before, after, context = contracted(function, *args)
    assert flops(after) < flops(before) and context.notes
    assert count in (0, flops(after))
    assert disagreement(before, after, args, "reassociate") is None


def with_metadata(a: Any, b: Any, v: Any) -> Any:
    with set_xla_metadata(key="value"):
        product = a @ b
    return product @ v


UNCHANGED: dict[str, tuple[Callable[..., Any], tuple[Any, ...]]] = {
    "no product of matrices": (lambda a, b: jnp.sum(a * b), (A, B)),
    "one product": (lambda a, b: a @ b, (A, B)),
    "good order": (lambda a, b, v: v.T @ (a @ (b @ v)), (A, B, V)),
    "equal but for rounding": (lambda a, v, w: jnp.sum(w * (a @ v)), (A, V, W)),
    "equal orders": (lambda a, b, c: a @ b @ c, (A, B, C)),
    "read twice": (lambda a, b, v: ((a @ b) @ v, a @ b), (A, B, V)),
    "result too": (lambda a, b, v: (lambda m: (m, m @ v))(a @ b), (A, B, V)),
    "between functions": (lambda a, b, v: jnp.tanh(a @ b) @ v, (A, B, V)),
    "wider accumulation": (
        lambda a, b, v: lax.dot(lax.dot(a, b, preferred_element_type=jnp.float32), v),
        (A.astype(jnp.bfloat16), B.astype(jnp.bfloat16), V),
    ),
    "different precisions": (lambda a, b, v: lax.dot(lax.dot(a, b, precision="highest"), v), (A, B, V)),
    "nothing in it": (lambda a, b, v: a @ b @ v, (array(N, 0), array(0, N), V)),
    "truth values": (lambda a, b, v: lax.dot(lax.dot(a, b), v), (A > 0, B > 0, V > 0)),
    "divided by an integer": (lambda a, b, v: ((a @ b) // 3) @ v, (A.astype(int), B.astype(int), V.astype(int))),
    "divided by an array": (lambda a, b, v: ((a @ b) / b) @ v, (A, B, V)),
    "metadata": (with_metadata, (A, B, V)),
    "barrier": (lambda a, b, v: lax.optimization_barrier(a @ b) @ v, (A, B, V)),
}


@pytest.mark.parametrize("name", UNCHANGED)
def test_unchanged(name: str) -> None:
    function, args = UNCHANGED[name]
    before, after, _ = contracted(function, *args)
    assert after is before


@pytest.mark.parametrize("numerics", NUMERICS)
def test_numerics(numerics: Any) -> None:
    """Sums in another order are not exact, on integers they are; zeros of an identity matrix may hide an infinity."""
    before, after, _ = contracted(lambda a, b, v: a @ b @ v, A, B, V, numerics=numerics)
    assert (after is before) == (numerics == "exact")
    before, after, context = contracted(lambda a, d: a @ jnp.diag(d), A, V, numerics=numerics)
    assert (after is before) == (numerics != "fast")
    if numerics == "fast":
        assert flops(after) == N * N and {firing.safety for firing in context.firings} == {"nonfinite"}
        assert disagreement(before, after, (A, V), "nonfinite") is None
    integers = [array(*x.shape, dtype="int32") for x in (A, B, V)]
    before, after, _ = contracted(lambda a, b, v: a @ b @ v, *integers, numerics=numerics)
    assert after is not before and disagreement(before, after, integers, "exact") is None


def test_what_was_declined_is_said() -> None:
    _, _, context = contracted(*[UNCHANGED["different precisions"][0], *UNCHANGED["different precisions"][1]])
    assert any("different precisions" in note for note in context.notes)
    _, _, context = contracted(*[UNCHANGED["wider accumulation"][0], *UNCHANGED["wider accumulation"][1]])
    assert any("accumulates in float32" in note for note in context.notes)
    narrow = [x.astype(np.float16) for x in (A, B, V)]
    before, after, context = contracted(lambda a, b, v: a @ b @ v, *narrow)
    assert after is before and context.notes == ["ij,jk,k->i stays: another order is 'nonfinite' at best"]
    _, after, context = contracted(lambda a, b, v: a @ b @ v, *narrow, numerics="fast")
    assert after is not before and {firing.safety for firing in context.firings} == {"nonfinite"}
    _, _, context = contracted(lambda a, d: a @ jnp.diag(d), A, V)
    assert any("the zeros of a diagonal matrix" in note for note in context.notes)


def test_what_was_done_is_said() -> None:
    _, _, context = contracted(lambda a, b, v, c: (a @ b) * 2 / c @ v, A, B, V, np.float32(3))
    assert context.notes == ["ij,jk,scalar,1/scalar,k->i: 576 → 151 operations"]


def test_unknown_shapes_or_devices() -> None:
    graph, sources = trace_function(lambda a, b, v: a @ b @ v, A, B, V)
    context = Context(Options(), sources, portable=True)
    assert Contract().run(graph, context) is graph
    assert context.notes == ["the order of contractions stays: shapes or the number of devices are not known"]


def test_no_more_firings_than_the_limit() -> None:
    graph, sources = trace_function(lambda a, b, v: (a @ b @ v, b @ a @ v), A, B, V)
    sizes = []
    for limit in (0, 1, 2, None):
        context = Context(Options(), sources, limit=limit)
        sizes.append(flops(Contract().run(graph, context)))
        assert len(context.firings) == (2 if limit is None else limit)
    assert sizes[0] > sizes[1] > sizes[2] == sizes[3]


def test_source_lines_are_inherited() -> None:
    graph, sources = trace_function(lambda a, b, v: a @ b @ v, A, B, V)
    old = {info for node in graph.nodes for info in sources.of(graph, node)}
    after = Contract().run(graph, Context(Options(), sources))
    for node in after.nodes[len(after.params) :]:
        assert old and set(sources.of(after, node)) == old


def test_in_branches_and_loops() -> None:
    """Also in a `while`, of which nobody knows how often it runs: what stays the same leaves it."""

    def function(a: Any, b: Any, v: Any) -> Any:
        chosen = lax.cond(v[0] > 0, lambda: a @ b @ v, lambda: v)
        return lax.while_loop(lambda c: c[0] < 3, lambda c: (c[0] + 1, jnp.tanh(a @ b @ c[1])), (0, chosen))[1]

    before, after, context = contracted(function, A, B, V)
    assert disagreement(before, after, (A, B, V), "reassociate") is None
    assert len(context.firings) == 1  # in the branch


def test_float64() -> None:
    with jax.enable_x64(True):
        args = [array(*x.shape, dtype="float64") for x in (A, B, V)]
        before, after, _ = contracted(lambda a, b, v: (2 * a) @ b @ v, *args)
        assert after.out_avals[0].dtype == np.float64
        assert flops(after) < flops(before) and disagreement(before, after, args, "reassociate") is None


def test_an_order_in_a_scan_that_repeats_often() -> None:
    """What stays the same is multiplied once, before the loop; so it is cheaper than two products in each iteration."""

    def function(times: int) -> Callable[..., Any]:
        return lambda a, b, v: lax.scan(lambda c, _: (jnp.tanh(a @ b @ c), None), v, None, length=times)[0]

    before, after, _ = contracted(function(2), A, B, V)
    assert flops(after) < flops(before)
    before, after, _ = contracted(function(1000), A, B, V)
    assert after is before
