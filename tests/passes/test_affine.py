"""Scales and shifts that move into weights: the same numbers, within what `reassociate` allows."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jax import lax

from graphopt.api import jit, verify
from graphopt.backends.agreement import disagreement
from graphopt.config import Options
from graphopt.ir.check import check
from graphopt.ir.graph import Graph
from graphopt.passes.affine import Affine
from graphopt.passes.inline import Inline
from graphopt.rewrite.passes import Context
from graphopt.trace.jaxpr import graph_of

RANDOM = np.random.default_rng(0)


def drawn(*shape: int, dtype: Any = np.float32) -> Any:
    return jnp.asarray(RANDOM.uniform(0.5, 2, shape) * RANDOM.choice([-1, 1], shape), dtype)


W, X, KERNEL, GROUPED = drawn(4, 3), drawn(5, 4), drawn(3, 2, 3, 3), drawn(6, 2, 3)
CORES: dict[str, tuple[Any, Any, int]] = {
    "product": (lambda x: x @ W, X, 1),
    "product from the left": (lambda x: W.T @ x, drawn(4, 5), 0),
    "transposed": (lambda x: lax.dot_general(W, x, (((0,), (1,)), ((), ()))), X, 0),
    "batch": (lambda x: jnp.einsum("bij,bjk->bik", x, jnp.stack([W, 2 * W])), drawn(2, 3, 4), 2),
    "of each batch": (lambda x: jnp.einsum("bij,bjk->bik", x, jnp.stack([W, 2 * W])), drawn(2, 3, 4), 0),
    "convolution": (lambda x: lax.conv(x, KERNEL, (1, 1), "SAME"), drawn(2, 2, 5, 5), 1),
    "convolution NHWC": (
        lambda x: lax.conv_general_dilated(x, KERNEL, (2, 1), "VALID", dimension_numbers=("NHWC", "OIHW", "NHWC")),
        drawn(2, 5, 5, 2),
        3,
    ),
    "grouped": (lambda x: lax.conv_general_dilated(x, GROUPED, (1,), "SAME", feature_group_count=2), drawn(2, 4, 6), 1),
}
STEPS = ("*", "/", "+", "-", "scalar *", "scalar /", "scalar +", "scalar -", "from the left *", "from the left +")


def chained(core: str, steps: list[str], seed: int) -> tuple[Any, Any]:
    """The function of a core and steps after it, and its argument."""
    f, x, axis = CORES[core]
    random = np.random.default_rng(seed)
    shape = jax.eval_shape(f, x).shape
    vectors = [random.uniform(0.5, 2, shape[axis]).astype(np.float32) for _ in steps]

    def function(x: Any) -> Any:
        y = f(x)
        for step, vector in zip(steps, vectors, strict=True):
            at = [shape[axis] if k == axis else 1 for k in range(len(shape))]
            value = vector[0] if step.startswith("scalar") else jnp.asarray(vector).reshape(at)
            left, right = (value, y) if step.startswith("from") else (y, value)
            y = {"*": jnp.multiply, "/": jnp.divide, "+": jnp.add, "-": jnp.subtract}[step[-1]](left, right)
        return y

    return function, x


def both(function: Any, *args: Any, numerics: str = "standard") -> tuple[Graph, Graph, Context]:
    graph, sources = graph_of(jax.make_jaxpr(function)(*args))
    context = Context(Options(numerics=numerics), sources)
    before = Inline().run(graph, context)
    after = Affine().run(before, context)
    check(after)
    return before, after, context


@given(st.sampled_from(sorted(CORES)), st.lists(st.sampled_from(STEPS), max_size=4), st.integers(0, 9))
def test_same_numbers(core: str, steps: list[str], seed: int) -> None:
    function, x = chained(core, steps, seed)
    before, after, _ = both(function, x)
    assert (after is not before) == any(step[-1] in "*/" for step in steps)
    assert disagreement(before, after, [x], "reassociate") is None


@pytest.mark.parametrize("core", CORES)
def test_one_product_and_one_sum_are_left(core: str) -> None:
    function, x = chained(core, ["-", "/", "*", "+"], 0)
    _, after, context = both(function, x)
    unknown = [n for n in after.nodes if after.params[0] in n.inputs]
    (product,) = [n for n in unknown if n.op.name in ("dot_general", "conv_general_dilated")]
    (last,) = after.outputs
    assert last.op.name == "add" and product in last.inputs
    assert context.notes == ["scales of 1 products or convolutions moved into their constant weights"]


@pytest.mark.parametrize(
    "function",
    [
        lambda x: (x @ W) * X[:, :1],  # along the rows
        lambda x: (x @ W) + W[0],  # a shift alone
        lambda x: W[0] - (x @ W),
        lambda x: (x @ W) * x[:, :1],
        lambda x: (lambda y: (y * 2, y))(x @ W),  # read twice
        lambda x: ((x @ W) * W[0, 0], W.T @ x.T),  # weights that are read twice
        lambda x: (x.astype(np.float16) @ W.astype(np.float16)) * W[0].astype(np.float16),
        lambda x: lax.dot(x.astype(jnp.bfloat16), W.astype(jnp.bfloat16), preferred_element_type=np.float32) * W[0],
    ],
)
def test_what_stays(function: Any) -> None:
    before, after, _ = both(function, X)
    assert after is before


def test_exact_numerics_keep_every_bit() -> None:
    before, after, _ = both(lambda x: (x @ W) * W[0], X, numerics="exact")
    assert after is before


def test_with_large_weights_the_scales_cost_nothing() -> None:
    w, g = drawn(300, 300), drawn(300)
    f = lambda x: jnp.maximum((x @ w + g) * g / 3 - g, 0)
    x = drawn(4, 300)
    report = jit(f).explain(x)
    assert not any(n.op.name in ("mul", "div", "sub") for n in report.graph.nodes if n.aval.shape == (4, 300))
    np.testing.assert_allclose(jit(f)(x), jax.jit(f)(x), rtol=1e-4, atol=1e-3)


def test_checking_knows_how_far_results_may_move() -> None:
    """With small weights, which are constants of the program, the pass is part of it."""
    mean, scale = drawn(3), drawn(3)
    record = verify(lambda x: (x @ W - mean) * scale + mean)(X)
    assert any(done.step == "affine" and done.firings == 1 for done in record.passes)
