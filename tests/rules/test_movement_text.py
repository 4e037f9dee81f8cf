"""What typical programs of data movement, reductions and products become: their operations before and after."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from graphopt.ir.op import CONSTANT, PARAM
from graphopt.ir.sources import Sources
from graphopt.passes.rules import RULES
from graphopt.rewrite.driver import Rewriter, RuleSet
from graphopt.rewrite.safety import ADMITTED
from graphopt.trace.jaxpr import trace_function

A, B, V = (3, 4), (4, 5), (5,)


def mean_of_rows(x: Any) -> Any:
    return jnp.broadcast_to(jnp.sum(x, 1, keepdims=True), x.shape)


# Name, function, shapes of its arguments, numerics, and the operations that are left.
CASES: tuple[tuple[str, Callable[..., Any], tuple[tuple[int, ...], ...], str, str], ...] = (
    ("double transpose", lambda x: x.T.T, (A,), "exact", ""),
    ("transpose through a function", lambda x: jnp.abs(x.T).T, (A,), "exact", "abs"),
    ("transposes of both operands", lambda x, y: (x.T + y.T).T, (A, A), "exact", "add"),
    ("reshape there and back", lambda x: x.reshape(12).reshape(A), (A,), "exact", ""),
    ("axis added and dropped", lambda x: jnp.squeeze(x[:, None], 1), (V,), "exact", ""),
    ("broadcast of broadcast", lambda x: jnp.broadcast_to(x[None], (2, 5)), (V,), "exact", "broadcast_in_dim"),
    ("function of a broadcast", lambda x: -jnp.broadcast_to(x, (7, 5)), (V,), "exact", "neg broadcast_in_dim"),
    ("slice of slice", lambda x: x[1:][::2][1:], ((9,),), "exact", "slice"),
    ("slice of a concatenation", lambda x, y: lax.concatenate([x, y], 0)[5:], (V, V), "exact", ""),
    ("slices joined", lambda x: lax.concatenate([x[:2], x[2:]], 0), (V,), "exact", ""),
    ("row of a sum", lambda x, y: (x + y)[1], (A, A), "exact", "slice slice add squeeze"),
    (
        "cast there and back",
        lambda x: x.astype(bool).astype("int8").astype(bool),
        (V,),
        "exact",
        "convert_element_type",
    ),
    ("dynamic slice at a constant", lambda x: lax.dynamic_slice(x, (np.int32(9),), (2,)), (V,), "exact", "slice"),
    ("element set", lambda x: x.at[1].set(0), (V,), "exact", "broadcast_in_dim dynamic_update_slice"),
    ("sum of sums", lambda x: x.sum(0).sum(), (A,), "standard", "reduce_sum"),
    ("sum of a broadcast", lambda x: jnp.broadcast_to(x, (8, 5)).sum(0), (V,), "standard", "mul"),
    ("maximum of a transpose", lambda x: x.T.max(), (A,), "standard", "reduce_max"),
    ("sum of multiples", lambda x: (3 * x).sum(), (A,), "fast", "reduce_sum mul"),
    ("last of a cumulative sum", lambda x: lax.cumsum(x)[-1], (V,), "standard", "reduce_sum"),
    ("product of transposes", lambda x, y: x.T @ y.T, ((4, 3), (5, 4)), "standard", "dot_general"),
    ("transpose of a product", lambda x, y: (x @ y).T, (A, B), "standard", "dot_general"),
    ("row of a product", lambda x, y: (x @ y)[0], (A, B), "standard", "slice dot_general squeeze"),
    ("sum of a product", lambda x, y: (x @ y).sum(0), (A, B), "fast", "reduce_sum dot_general"),
    ("shared factor", lambda x, y, z: x @ y + x @ z, (A, B, B), "fast", "add dot_general"),
    ("mean kept for each row", mean_of_rows, (A,), "exact", "reduce_sum broadcast_in_dim"),
)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case[0].replace(" ", "-"))
def test_operations_left(case: Any) -> None:
    _, function, shapes, numerics, left = case
    graph, _ = trace_function(function, *[jax.ShapeDtypeStruct(shape, np.float32) for shape in shapes])
    after = Rewriter(RuleSet(RULES), Sources(), ADMITTED[numerics]).graph(graph)
    found = [node.op.name for node in after.nodes if node.op not in (PARAM, CONSTANT)]
    assert found == left.split(), f"{graph}\n{after}"
