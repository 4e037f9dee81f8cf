"""Along an axis that `along` gives, blocks of a result are the results of blocks; sums of blocks are the sum."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from graphopt.analysis.axes import along, partial
from graphopt.analysis.blocks import block_of, combined, read_block
from graphopt.analysis.chunking import Region
from graphopt.backends.reference import evaluate
from graphopt.config import Options
from graphopt.errors import GraphError
from graphopt.ir.graph import make_graph
from graphopt.ir.node import Node, constant, param
from graphopt.ir.sources import Sources
from graphopt.ops.make import scalar
from graphopt.passes.inline import Inline
from graphopt.rewrite.passes import Context
from graphopt.trace.jaxpr import trace_function

A, B = np.random.default_rng(0).normal(size=(2, 5, 6, 4)).astype(np.float32)
PLACES = np.array([[3, 1, 0], [0, 5, 9], [1, 1, 1], [2, -9, 4], [9, 0, 0]], np.int32)


def along_rows(x: Any, i: Any) -> Any:
    return jnp.take_along_axis(x, i, 1)


# For each: the operation, its operands, along which axes of its result it can be cut.
CUT = {
    "elementwise": (lax.add, (A, B), (0, 1, 2)),
    "select": (lambda x, y: lax.select_n(x > 0, x, y), (A, B), (0, 1, 2)),
    "broadcast": (lambda x: lax.broadcast_in_dim(x, (7, 6, 4), (1, 2)), (A[0],), (0, 1, 2)),
    "transpose": (lambda x: lax.transpose(x, (2, 0, 1)), (A,), (0, 1, 2)),
    "reshape that keeps an axis": (lambda x: lax.reshape(x, (5, 24)), (A,), (0,)),
    "slice": (lambda x: lax.slice(x, (1, 0, 2), (4, 6, 4)), (A,), (1,)),
    "pad": (lambda x: lax.pad(x, np.float32(7), ((0, 0, 0), (1, 2, 0), (0, 0, 3))), (A,), (0,)),
    "rev": (lambda x: lax.rev(x, (1,)), (A,), (0, 2)),
    "concatenate": (lambda x, y: lax.concatenate([x, y], 1), (A, B), (0, 2)),
    "iota": (lambda: lax.broadcasted_iota(np.int32, (5, 6), 0), (), (0, 1)),
    "sum": (lambda x: x.sum(1), (A,), (0, 1)),
    "argmax": (lambda x: lax.argmax(x, 1, np.int32), (A,), (0, 1)),
    "cumsum": (lambda x: lax.cumsum(x, 1), (A,), (0, 2)),
    "sort": (lambda x: lax.sort(x, dimension=1), (A,), (0, 2)),
    "product": (lambda x, y: lax.dot_general(x, y, (((2,), (2,)), ((0,), (0,)))), (A, B), (0, 1, 2)),
    "product with several axes": (lambda x, y: lax.dot_general(x, y, (((1,), (1,)), ((), ()))), (A, B), (0, 1, 2, 3)),
    "convolution": (lambda x, y: lax.conv(x[:, None], y[:2, None, :3, :2], (1, 1), "SAME"), (A, B), (0,)),
    "gather": (along_rows, (A[..., 0], PLACES), (0, 1)),
}  # fmt: skip


@pytest.mark.parametrize("name", CUT)
def test_blocks_of_the_result_are_results_of_blocks(name: str) -> None:
    function, arguments, axes = CUT[name]
    graph, _ = trace_function(function, *arguments)
    inner, values = _last(graph, arguments)
    (node,) = inner.outputs
    known = [k for k in range(len(node.aval.shape)) if along(node, k) is not None]
    assert tuple(known) == axes
    (expected,) = evaluate(inner, *values)
    for axis in known:
        region = Region(node.aval.shape[axis], {node: axis})
        for start, count in ((0, 2), (1, node.aval.shape[axis] - 1)):
            block = _block(region, inner.params, node, values, start, count)
            whole = np.take(np.asarray(expected), range(start, start + count), axis)
            rounded = "product" in name or name == "convolution"
            np.testing.assert_allclose(block, whole, rtol=0, atol=1e-5 if rounded else 0)


SUMS = {
    "sum": (lambda x: x.sum((0, 2)), (A,), 2),
    "maximum": (lambda x: x.max((1,)), (A,), 1),
    "minimum": (lambda x: x.min((0, 1)), (A,), 0),
    "exclusive or": (lambda x: lax.reduce_xor((x * 9).astype(np.int32), (1,)), (A,), 1),
    "product": (lambda x, y: lax.dot_general(x, y, (((2,), (2,)), ((0,), (0,)))), (A, B), 2),
    "product over two axes": (lambda x, y: lax.dot_general(x, y, (((0, 1), (0, 1)), ((), ()))), (A, B), 1),
}


@pytest.mark.parametrize("name", SUMS)
def test_sums_of_blocks_are_the_sum(name: str) -> None:
    function, arguments, axis = SUMS[name]
    graph, _ = trace_function(function, *arguments)
    inner, values = _last(graph, arguments)
    (node,) = inner.outputs
    found = partial(node, 0, axis)
    assert found is not None
    extent = node.inputs[0].aval.shape[axis]
    region = Region(extent, {}, {node: found})
    (expected,) = evaluate(inner, *values)
    parts = [_block(region, inner.params, node, values, *part) for part in ((0, 2), (2, extent - 2))]
    total = combined(region, node, *(constant(np.asarray(part)) for part in parts))
    np.testing.assert_allclose(evaluate(make_graph((), [total]))[0], expected, rtol=1e-5, atol=1e-6)


def test_an_iota_that_may_round_otherwise_is_not_cut() -> None:
    graph, _ = trace_function(lambda: lax.broadcasted_iota(np.float32, (5, 6), 0))
    (node,) = graph.outputs
    with pytest.raises(GraphError, match="may round otherwise"):
        block_of(Region(5, {node: 0}), graph.nodes, 2, scalar(1, np.int32), lambda n, axis: n)


def _last(graph: Any, arguments: Any) -> tuple[Any, list[Any]]:
    """The last operation alone, and the values of its operands."""
    graph = Inline().run(graph, Context(Options(), Sources()))
    (last,) = graph.outputs
    values = [evaluate(make_graph(graph.params, [n]), *arguments)[0] for n in last.inputs]
    params = [param(i, n.aval) for i, n in enumerate(last.inputs)]
    return make_graph(params, [last.with_inputs(tuple(params))]), values


def _block(region: Region, params: Any, node: Node, values: Any, start: int, count: int) -> Any:
    first = scalar(start, np.int32)

    def outside(operand: Node, axis: int | None) -> Node:
        return operand if axis is None else read_block(operand, axis, first, count)

    made = block_of(region, (*params, node), count, first, outside)[node]
    return np.asarray(jax.device_get(evaluate(make_graph(params, [made]), *values)[0]))
