"""Narrow products that share an operand: one product, the same numbers; and what stays, with the reason."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import lax

from graphopt.api import jit
from graphopt.backends.agreement import disagreement
from graphopt.config import Options
from graphopt.ir.check import check
from graphopt.ir.graph import Graph, nested_graphs
from graphopt.passes.inline import Inline
from graphopt.passes.join import Join
from graphopt.rewrite.passes import Context
from graphopt.trace.jaxpr import graph_of

ANY = Join(products=2, width=100, shared=0, rows=0, summed=0)
"""Joins whatever can be joined."""

SPECIAL = np.array([np.nan, np.inf, -np.inf, -0.0, 0.0, 1e-40, 1e38], np.float32)


def drawn(*shape: int, seed: int = 0, special: bool = False) -> Any:
    random = np.random.default_rng(seed)
    x = random.normal(size=shape).astype(np.float32)
    if special:
        x = np.where(random.random(shape) < 0.1, random.choice(SPECIAL, shape), x).astype(np.float32)
    return jnp.asarray(x)


X, A = drawn(2048, 256), drawn(256, 8)


def both(
    function: Any, *args: Any, step: Join | None = None, numerics: str = "standard", **known: Any
) -> tuple[Graph, Graph, Context]:
    graph, sources = graph_of(jax.make_jaxpr(function)(*args))
    context = Context(Options(numerics=numerics), sources, **{"platforms": ("cpu",), **known})
    before = Inline().run(graph, context)
    after = (step or Join()).run(before, context)
    check(after)
    return before, after, context


def products(graph: Graph) -> int:
    return sum(node.op.name == "dot_general" for inner in nested_graphs(graph) for node in inner.nodes)


@st.composite
def families(draw: Any) -> tuple[Callable[..., Any], list[Any], int]:
    """Products with one operand in common, their arguments, and how many there are. Axes lie anywhere, as long as those
    in which the others differ are side by side."""
    sizes = st.integers(0, 3)
    batch, summed, free = (draw(st.lists(sizes, max_size=2)) for _ in range(3))
    own = [draw(st.lists(sizes, max_size=2)) for _ in range(draw(st.integers(2, 4)))]
    side, seed, special = draw(st.integers(0, 1)), draw(st.integers(0, 99)), draw(st.booleans())
    labels = [("b", k) for k in range(len(batch))] + [("s", k) for k in range(len(summed))]
    ours = draw(st.permutations([*labels, *[("f", k) for k in range(len(free))]]))
    theirs = draw(st.permutations([*labels, ("o", 0)]))
    given_sizes = {"b": batch, "s": summed, "f": free}

    def axes(order: list[tuple[str, int]], kind: str, before: int) -> tuple[int, ...]:
        """Where the axes of a kind lie; those that the others have of their own take `before` places."""
        at = next((i for i, label in enumerate(order) if label[0] == "o"), len(order))
        count = {"b": len(batch), "s": len(summed)}[kind]
        places = [order.index((kind, k)) for k in range(count)]
        return tuple(p if p < at else p - 1 + before for p in places)

    def shape(order: list[tuple[str, int]], mine: list[int]) -> list[int]:
        return [n for kind, k in order for n in (mine if kind == "o" else [given_sizes[kind][k]])]

    x = drawn(*shape(ours, []), seed=seed, special=special)
    others = [drawn(*shape(theirs, mine), seed=seed + k, special=special) for k, mine in enumerate(own, 1)]

    def function(x: Any, *others: Any) -> Any:
        results = []
        for other, mine in zip(others, own, strict=True):
            numbers = [(axes(ours, kind, 0), axes(theirs, kind, len(mine))) for kind in "sb"]
            pairs = [pair if side == 0 else pair[::-1] for pair in numbers]
            results.append(lax.dot_general(*((x, other) if side == 0 else (other, x)), tuple(pairs)))
        return results

    return function, [x, *others], len(others)


@given(families())
@settings(max_examples=30)
def test_same_numbers_wherever_the_axes_lie(family: tuple[Callable[..., Any], list[Any], int]) -> None:
    function, args, count = family
    before, after, _ = both(function, *args, step=ANY)
    results = jax.eval_shape(function, *args)
    assert products(before) == count
    if all(r.size for r in results) and len({len(r.shape) == len(results[0].shape) for r in results}) == 1:
        assert products(after) == 1  # some with axes of their own and some without may stay apart
    assert disagreement(before, after, args, "reassociate") is None
    assert ANY.run(after, Context(Options(), both(function, *args)[2].sources, platforms=("cpu",))) is after


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("special", [False, True])
@pytest.mark.parametrize(
    ("function", "shapes"),
    [
        (lambda x, *ws: [x @ w for w in ws], [(2053, 257), (257, 1), (257, 7), (257, 8)]),
        (lambda x, *ws: [x @ w for w in ws], [(2048, 256), (256,), (256,), (256,)]),
        (lambda x, *ws: [w @ x for w in ws], [(256, 2048), (1, 256), (5, 256), (256,)]),
        (lambda x, *ws: [jnp.einsum("bij,bjk->bik", x, w) for w in ws], [(2, 1024, 512), *[(2, 512, 3)] * 3]),
        (lambda x, *ws: [jnp.einsum("ij,jkl->ikl", x, w) for w in ws], [(2048, 256), *[(256, 2, 2)] * 4]),
    ],
)
def test_one_product_is_left(function: Any, shapes: list[tuple[int, ...]], dtype: Any, special: bool) -> None:
    with jax.enable_x64(dtype == np.float64):
        args = [drawn(*shape, seed=k, special=special).astype(dtype) for k, shape in enumerate(shapes)]
        before, after, context = both(function, *args)
        assert products(after) == 1 < products(before) == len(args) - 1
        assert len(context.notes) == 1 and "joined" in context.notes[0]
        assert len(context.firings) == 1 and context.firings[0].safety == "reassociate"
        assert Join().run(after, context) is after
        for found, expected in zip(jit(function)(*args), jax.jit(function)(*args), strict=True):
            np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-3)


OTHERS = (A, A + 1, A + 2)
WIDE = drawn(256, 64)
APART = "products that share operands stay apart: "


@pytest.mark.parametrize(
    ("function", "args", "note"),
    [
        (lambda x: [x @ a for a in OTHERS[:2]], (X,), f"2 {APART}they are fewer than 3"),
        (
            lambda x: [x @ (WIDE + k) for k in range(3)],
            (X,),
            f"3 {APART}with more than 8 columns each, one product is not faster than they are",
        ),
        (
            lambda x: [x @ a for a in OTHERS],
            (drawn(1900, 256),),
            f"3 {APART}the operand in common is small, and read again at no cost",
        ),
        (
            lambda x: [x @ (WIDE[:64, :8] * k) for k in range(3)],
            (drawn(16384, 64),),
            f"3 {APART}the operand in common is small, and read again at no cost",
        ),
        (
            lambda x: [x @ a.astype(jnp.bfloat16) for a in OTHERS],
            (X.astype(jnp.bfloat16),),
            f"3 {APART}they are of bfloat16, of which XLA computes no larger product faster",
        ),
        (
            lambda x, w: [x @ (w + k) for k in range(3)],
            (drawn(1, 1024), drawn(1024, 1024)),
            f"3 {APART}with more than 8 columns each, one product is not faster than they are",
        ),
    ],
)
def test_what_stays_has_a_reason(function: Any, args: tuple[Any, ...], note: str) -> None:
    before, after, context = both(function, *args)
    assert after is before
    assert note in context.notes
    assert len(context.notes) == 1


@pytest.mark.parametrize(
    "function",
    [
        lambda x: [x[:128] @ a for a in OTHERS],  # too small to be spoken of
        lambda x: [(x + k) @ a for k, a in enumerate(OTHERS)],
        lambda x: [lax.dot(x, a, precision=p) for a, p in zip(OTHERS, ("default", "high", "highest"), strict=True)],
        lambda x: [x @ a for a in OTHERS[:1]] + [a.T @ x.T for a in OTHERS[1:2]] + [x[:, ::-1] @ OTHERS[2]],
        # What the others differ in lies on both sides of what is summed.
        lambda x: [jnp.einsum("ij,kjl->ikl", x, drawn(2, 256, 2, seed=k)) for k in range(3)],
        lambda x: [lax.dot(x, A), lax.dot(x, A, preferred_element_type=np.float32)],
        # Each needs the one before it.
        lambda x: (lambda y: (lambda z: (y, z, x @ z[:256]))(x @ y[:256]))(x @ A),
    ],
)
def test_what_differs_stays_without_a_word(function: Any) -> None:
    before, after, context = both(function, X)
    assert after is before
    assert context.notes == []


@pytest.mark.parametrize(
    "known",
    [
        {"numerics": "exact"},
        {"platforms": ("cuda",)},
        {"platforms": ("cpu", "tpu")},
        {"platforms": ()},
        {"portable": True},
        {"differentiable": True},
        {"limit": 0},
    ],
)
def test_where_products_stay(known: dict[str, Any]) -> None:
    before, after, _ = both(lambda x: [x @ a for a in OTHERS], X, **known)
    assert after is before
    assert both(lambda x: [x @ a for a in OTHERS], X)[1] is not before


def test_products_that_need_each_other_crosswise_do_not_become_a_cycle() -> None:
    """Two families, and members of each that need members of the other."""

    def function(x: Any, y: Any, a: Any, b: Any) -> Any:
        p, q = x @ a, y @ b
        return p, q, x @ (b + q.sum()), y @ (a + p.sum()), x @ b, y @ a

    args = (drawn(9, 5), drawn(7, 5, seed=1), drawn(5, 2, seed=2), drawn(5, 3, seed=3))
    before, after, _ = both(function, *args, step=ANY)
    assert (products(before), products(after)) == (6, 4)
    assert disagreement(before, after, args, "reassociate") is None


def test_a_product_with_itself() -> None:
    function = lambda x, y: (x @ x, x @ y, y @ x, y @ y)
    args = (drawn(4, 4), drawn(4, 4, seed=1))
    before, after, _ = both(function, *args, step=ANY)
    assert products(after) == 2
    assert disagreement(before, after, args, "reassociate") is None


def test_in_loops_and_branches() -> None:
    def function(x: Any, n: Any) -> Any:
        def body(k: Any, y: Any) -> Any:
            return y + sum(jnp.sin(x @ (a + k)) for a in OTHERS)

        def branch(y: Any) -> Any:
            return y + sum(jnp.cos(x @ a) for a in OTHERS)

        return lax.cond(n > 2, branch, lambda y: y, lax.fori_loop(0, n, body, jnp.zeros((2048, 8))))

    before, after, context = both(function, X, 3)
    assert (products(before), products(after)) == (6, 2)
    assert len(context.firings) == 2
    np.testing.assert_allclose(jit(function)(X, 3), jax.jit(function)(X, 3), rtol=1e-3, atol=1e-3)


def test_the_pass_can_be_told_where_it_pays() -> None:
    before, after, _ = both(lambda x: [x @ a for a in OTHERS[:2]], X, step=replace(Join(), products=2))
    assert products(after) == 1 < products(before)


def test_derivatives_are_those_of_jax() -> None:
    loss = lambda x: sum(jnp.sin(x @ a).sum() for a in OTHERS)
    np.testing.assert_allclose(jax.grad(jit(loss))(X), jax.grad(loss)(X), rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(jit(jax.grad(loss))(X), jax.grad(loss)(X), rtol=1e-3, atol=1e-3)
