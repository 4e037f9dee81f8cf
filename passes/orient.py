"""Orientation: a product that XLA would lay out large factors anew for is computed the other way round.

XLA on CPUs multiplies matrices as they lie where the summed elements of the first factor are beside each other. Where
they lie across, it writes that factor anew, a nanosecond or two for each element; where those of the second factor are
beside each other besides, both, at eight. `x @ y` is the transpose of `y.T @ x.T`: where that spares large factors, and
the result is small, its transpose costs little. `jax.numpy.einsum` and `jax.nn.dot_product_attention` write such
products. Since XLA takes a transpose back into the product, a fence stands between them.

Before, where %1 has four million elements:
    %2: f32[64,2048] = dot_general[dimension_numbers=(((0,), (1,)), ((), ())), ...](%0, %1)
After:
    %2: f32[2048,64] = dot_general[dimension_numbers=(((1,), (0,)), ((), ())), ...](%1, %0)
    %3: f32[2048,64] = fence(%2)
    %4: f32[64,2048] = transpose[permutation=(1, 0)](%3)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from jax import lax
from jax.extend.core import primitives as p

from graphopt.analysis.products import axes_of, sizes_of
from graphopt.ir.aval import dtype_name, is_floating
from graphopt.ir.graph import Graph, nested_graphs
from graphopt.ir.node import Node
from graphopt.ops.barrier import fence
from graphopt.ops.contract import DOT_GENERAL
from graphopt.passes.fuse import RUNS_ITS_GRAPHS
from graphopt.passes.rules.contraction import REORDERED, exchanged, exchanged_axes
from graphopt.passes.rules.moving import transposed
from graphopt.rewrite.driver import Firing
from graphopt.rewrite.passes import Context, Pass
from graphopt.rewrite.rebuild import rebuild, with_bodies
from graphopt.rewrite.rule import rewrites
from graphopt.rewrite.safety import ADMITTED, kinds_of

SMALL = 1 << 14
"""Elements of the larger factor below which it is not worth a second function."""

SYMMETRIC = (lax.Precision, lax.DotAlgorithmPreset)
"""Precisions that mean the same of both factors."""


@dataclass(frozen=True)
class Orient(Pass):
    """Exchanges the factors of products that XLA computes where their elements lie better for it then.

    For CPUs, and after kernels are made: those read elements as they lie. The safety is `reassociate`: each element is
    the same sum, but another function of XLA's computes it.
    """

    name = "orient"

    def run(self, graph: Graph, context: Context) -> Graph:
        """The graph with products the other way round."""
        if context.platforms != ("cpu",) or context.portable or context.differentiable:
            return graph
        if not any(node.op is DOT_GENERAL for inner in nested_graphs(graph) for node in inner.nodes):
            return graph
        return _Orienter(context).graph(graph)


class _Orienter:
    def __init__(self, context: Context) -> None:
        self.context = context
        self.done: dict[Graph, Graph] = {}

    def graph(self, graph: Graph) -> Graph:
        """`graph` with its products the other way round, and those of what it runs."""
        if graph not in self.done:
            infos = self.context.sources.infos.get(graph, {})

            def visit(node: Node, inputs: tuple[Node, ...]) -> Node | None:
                if node.op in RUNS_ITS_GRAPHS:
                    return node.with_attrs(with_bodies(node, self.graph)).with_inputs(inputs)
                return self.exchanged(node.with_inputs(inputs), infos.get(node, ()))

            self.done[graph] = rebuild(graph, self.context.sources, visit)
        return self.done[graph]

    def exchanged(self, node: Node, lines: Sequence[object]) -> Node | None:
        """What takes the place of a product; None where it stays."""
        context = self.context
        if node.op is not DOT_GENERAL or context.stopped:
            return None
        admitted = frozenset(ADMITTED[context.options.numerics])
        found = factors_exchanged.apply(node, kinds_of(node.inputs), lambda n: 1, admitted)
        if found is None:
            return None
        context.firings.append(Firing(factors_exchanged, node, found.new, found.safety, tuple(lines)))
        of = " and ".join(f"{dtype_name(n.aval.dtype)}{list(n.aval.shape)}" for n in node.inputs)
        context.note(f"factors exchanged: dot_general of {of}")
        return found.new


@rewrites(p.dot_general_p, safety=REORDERED, law="movement")
def factors_exchanged(node: Node) -> Node | None:
    """dot(x, y) → transpose(dot(y, x)) where large factors need not be laid out anew then"""
    if node.context is not None or node.attrs["out_sharding"] is not None or not _is_for_it(node):
        return None
    axes, sizes = axes_of(node), [n.aval.size for n in node.inputs]
    across, below = (_last(node.inputs[side]) for side in (0, 1))
    if across not in axes.free[0] or max(sizes) < SMALL:
        return None
    if below in axes.summed[1]:
        before, after = max(sizes), 0
    elif below in axes.free[1]:
        before, after = sizes
    else:
        return None
    if after + 2 * node.aval.size > before:
        return None
    product = exchanged(node)
    return transposed(fence(product), exchanged_axes(product))


def _is_for_it(node: Node) -> bool:
    """Whether a product is one of floating numbers that means the same with its factors exchanged."""
    if not all(n.aval.is_plain and n.aval.is_static and is_floating(n.aval.dtype) for n in (node, *node.inputs)):
        return False
    precision = node.attrs["precision"]
    if precision is not None and not isinstance(precision, (tuple, *SYMMETRIC)):
        return False
    return min(sizes_of(node)) > 1


def _last(factor: Node) -> int | None:
    """The axis along which elements lie beside each other in memory."""
    return max((k for k, size in enumerate(factor.aval.shape) if size > 1), default=None)
