"""Inverses: a product with the inverse of a matrix is computed by solving, not by inverting.

Before:
    %4: f32[9,9] = custom_linear_solve[...](%0, ..., %3)          %3: the identity
    %5: f32[9] = dot_general[dimension_numbers=(((0,), (0,)), ((), ())), ...](%4, %1)
After:
    %4: f32[9,1] = gather[...](%1, %3)                            %2, %3: the factors and the permutation of lu(%0)
    %5: f32[9,1] = triangular_solve[..., left_side=True, lower=True, ..., unit_diagonal=True](%2, %4)
    %6: f32[9,1] = triangular_solve[..., left_side=True, lower=False, ..., unit_diagonal=False](%2, %5)
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from jax.extend.core import primitives as p
from jax.lax import GatherDimensionNumbers, GatherScatterMode

from graphopt.analysis.diagonals import identity_axes
from graphopt.analysis.network import TRANSPOSE
from graphopt.ir.attrs import Attrs
from graphopt.ir.graph import Graph, nested_graphs
from graphopt.ir.node import Node, project
from graphopt.ir.op import PROJECT, op_of
from graphopt.ops.contract import DOT_GENERAL
from graphopt.ops.make import BROADCAST, CONVERT, fit, make
from graphopt.passes.rules.contraction import axes_of
from graphopt.passes.rules.moving import IOTA, applied, broadcast, reshaped, transposed
from graphopt.rewrite.driver import Firing
from graphopt.rewrite.passes import Context, Pass
from graphopt.rewrite.rebuild import rebuild, with_bodies
from graphopt.rewrite.rule import rewrites
from graphopt.rewrite.safety import ADMITTED, kind_of

LINEAR_SOLVE, LU, TRIANGULAR_SOLVE = map(op_of, (p.linear_solve_p, p.lu_p, p.triangular_solve_p))
GATHER, SORT = op_of(p.gather_p), op_of(p.sort_p)

SAFETY = "reassociate"
"""See `Solve`."""


@dataclass(frozen=True)
class Solve(Pass):
    """Solves for what is multiplied with the inverse of a matrix, where nothing but products reads the inverse.

    `jnp.linalg.inv` factors the matrix by LU and solves for the columns of the identity. The factors stay; the identity
    gives way to the other operands of the products, from the left or the right, of the transposed inverse too, one for
    each matrix of a batch. It pays while these have together at most half as many columns again as the identity: the
    products are saved too.

    The safety is `reassociate`. Both programs are backward stable in the same sense: the solution is exact for a matrix
    off by a few ε·|L||U|, as each column of the inverse is, and its error is the smaller one of the two (N. J. Higham,
    "Accuracy and Stability of Numerical Algorithms", 2002, sections 9.3 and 14.1). They differ by what rounding the
    matrix once moves the result of the program as it was written. Of a singular matrix other elements may be infinite.
    """

    name = "solve"

    def run(self, graph: Graph, context: Context) -> Graph:
        """The graph with solutions in the place of products with inverses."""
        if not any(node.op is LINEAR_SOLVE for inner in nested_graphs(graph) for node in inner.nodes):
            return graph
        if context.portable or context.differentiable:
            context.note("inverses stay: " + ("the shapes are not known" if context.portable else "JAX differentiates"))
            return graph
        if SAFETY not in ADMITTED[context.options.numerics]:
            context.note(f"inverses stay: solving is {SAFETY!r}")
            return graph
        return _Solver(context).graph(graph)


@dataclass(frozen=True, slots=True)
class Inverse:
    """The inverse of a matrix, or of each of a batch, as JAX computes it: from the factors of an LU decomposition.

    node: the inverse; its first `batch` axes are those of the batch. factors, permutation: which operands hold them.
    across: its axis along which it is multiplied to solve A x = b; the one along which to solve the transposed system
    is the other one. size: of the matrix.
    """

    node: Node
    factors: int
    permutation: int
    batch: int
    across: int
    size: int


def inverse_of(node: Node) -> Inverse | None:
    """The inverse that a node is; None where it is none, or another method computes it."""
    if node.op is not LINEAR_SOLVE or len(node.avals) != 1 or node.context is not None:
        return None
    lengths, bodies = node.attrs["const_lengths"], node.attrs["jaxprs"]
    first = lengths.matvec + lengths.vecmat
    if lengths.matvec != 1 or lengths.solve != 2 or len(node.inputs) != sum(lengths) + 1:
        return None
    matrix, (factors, permutation) = node.inputs[0], node.inputs[first : first + 2]
    if any(n.op is not PROJECT or n.inputs[0].op is not LU for n in (factors, permutation)):
        return None
    lu = factors.inputs[0]
    if (factors.attrs["index"], permutation.attrs["index"]) != (0, 2) or permutation.inputs[0] is not lu:
        return None
    identity = _identity(node.inputs[-1])
    body = bodies.matvec.graph
    if lu.inputs[0] is not matrix or identity is None or len(body.params) != 2:
        return None
    return _read(node, first, body.params, body.outputs[0], identity)


def _read(node: Node, first: int, params: tuple[Node, ...], product: Node, identity: tuple[int, int]) -> Inverse | None:
    """The inverse, from the product that it solves: of a matrix (the first parameter) and what is looked for."""
    order = list(range(len(node.aval.shape)))
    while product.op is TRANSPOSE:
        order, product = [product.attrs["permutation"][k] for k in order], product.inputs[0]
    if product.op is not DOT_GENERAL or set(product.inputs) != set(params):
        return None
    mine = product.inputs.index(params[0])  # on which side the matrix is
    summed, batch, free = axes_of(product)
    rank, depth = len(node.aval.shape), len(batch[0])
    if rank != depth + 2 or len(summed[0]) != 1 or len(free[0]) != 1 or len(free[1]) != 1:
        return None
    if any(list(axes) != list(range(depth)) for axes in batch) or order[:depth] != list(range(depth)):
        return None
    # Of the product's two last axes one is the matrix's, and the other one what has a column for each right-hand side.
    matrix_axis = order.index(depth + mine)
    columns = order.index(depth + 1 - mine)
    if {matrix_axis, columns} != set(identity):
        return None
    column_axis = free[1 - mine][0]
    straight = summed[mine][0] == rank - 1  # A x = b, and not the transposed system
    across = column_axis if straight else summed[1 - mine][0]
    return Inverse(node, first, first + 1, depth, across, node.aval.shape[-1])


def _identity(x: Node) -> tuple[int, int] | None:
    """The two axes along which an array, or each of a batch, is the identity matrix."""
    places = list(range(len(x.aval.shape)))
    while x.op is not CONVERT:
        if x.op is TRANSPOSE:
            permutation = x.attrs["permutation"]
            places = [places[permutation.index(k)] for k in range(len(permutation))]
        elif x.op is BROADCAST and len(x.inputs) == 1:
            dimensions = x.attrs["broadcast_dimensions"]
            if any(x.inputs[0].aval.shape[a] != x.aval.shape[d] for a, d in enumerate(dimensions)):
                return None
            places = [places[d] for d in dimensions]
        else:
            return None
        x = x.inputs[0]
    axes = identity_axes(x.inputs[0]) if kind_of(x.inputs[0].aval.dtype) == "b" else None
    return None if axes is None else (places[axes[0]], places[axes[1]])


@dataclass(frozen=True, slots=True)
class _Product:
    """A product with an inverse. side: on which side the inverse is. transposed: whether the transposed system is
    solved. columns: right-hand sides. for_all: whether these are the same for each matrix of a batch."""

    inverse: Inverse
    side: int
    transposed: bool
    columns: int
    for_all: bool = False


class _Solver:
    def __init__(self, context: Context) -> None:
        self.context = context
        self.done: dict[Graph, Graph] = {}

    def graph(self, graph: Graph) -> Graph:
        """`graph` after the pass, its sub-graphs included."""
        if graph not in self.done:
            self.done[graph] = self.rewritten(graph)
        return self.done[graph]

    def rewritten(self, graph: Graph) -> Graph:
        plans = self.plans(graph)
        infos = self.context.sources.infos.get(graph, {})

        def visit(node: Node, inputs: tuple[Node, ...]) -> Node | None:
            new = node.with_inputs(inputs)
            if node.subgraphs and node.op is not LINEAR_SOLVE:
                new = new.with_attrs(with_bodies(node, self.graph))
            plan = plans.get(node)
            if plan is not None and not self.context.stopped:
                new = solved(new, plan)
                self.context.firings.append(Firing(product_with_an_inverse, node, new, SAFETY, infos.get(node, ())))
            return new

        return rebuild(graph, self.context.sources, visit)

    def plans(self, graph: Graph) -> Mapping[Node, _Product]:
        """The products that are solved for, of the inverses that nothing else needs."""
        inverses = {node: inverse for node in graph.nodes if (inverse := inverse_of(node)) is not None}
        readers: dict[Node, list[Node]] = {node: [] for node in inverses}
        for node in graph.nodes:
            for operand in dict.fromkeys(node.inputs):
                if operand in readers:
                    readers[operand].append(node)
        plans: dict[Node, _Product] = {}
        for node, inverse in inverses.items():
            text = f"the inverse of {inverse.size}×{inverse.size}"
            found = {reader: product_of(reader, inverse) for reader in readers[node]}
            products = {reader: product for reader, product in found.items() if product is not None}
            columns = sum(product.columns for product in products.values())
            if node in graph.outputs or len(products) < len(found) or any(reader in plans for reader in found):
                self.context.note(f"{text} stays: not only products with it are read")
            elif 2 * columns > 3 * inverse.size:
                self.context.note(f"{text} stays: it is multiplied with {columns} columns")
            else:
                plans |= products
                self.context.note(f"{text} is not computed: solved for {columns} columns")
        return plans


def product_of(node: Node, inverse: Inverse) -> _Product | None:
    """How a node multiplies an inverse with something else; None where it does anything else."""
    if node.op is not DOT_GENERAL or node.context is not None or node.inputs[0] is node.inputs[1]:
        return None
    if len({n.aval.dtype for n in (*node.inputs, node)}) > 1 or not node.aval.is_plain:
        return None
    side = node.inputs.index(inverse.node)
    summed, batch, free = axes_of(node)
    other = node.inputs[1 - side]
    of_batch = list(range(inverse.batch))
    for_all = bool(of_batch) and not batch[side] and free[side][:-1] == of_batch
    if len(summed[side]) != 1 or not (for_all or (len(free[side]) == 1 and list(batch[side]) == of_batch)):
        return None
    columns = math.prod(other.aval.shape[axis] for axis in free[1 - side])
    turned = summed[side][0] != inverse.across
    return _Product(inverse, side, turned, columns, for_all) if node.aval.size else None


@rewrites(p.dot_general_p, safety=SAFETY, law="composition", keeps_derivatives=False)
def product_with_an_inverse(node: Node) -> Node | None:
    """dot(inverse(A), x) → the solution of A y = x"""
    for operand in node.inputs:
        inverse = inverse_of(operand)
        plan = None if inverse is None else product_of(node, inverse)
        if plan is not None:
            return solved(node, plan)
    return None


def solved(node: Node, plan: _Product) -> Node:
    """The value of a product with an inverse, by solving. node: the product, maybe on new operands."""
    inverse, side = plan.inverse, plan.side
    solve, other = node.inputs[side], node.inputs[1 - side]
    factors, permutation = solve.inputs[inverse.factors], solve.inputs[inverse.permutation]
    summed, batch, free = axes_of(node)
    mine = 1 - side
    first, left = solve.aval.shape[: inverse.batch], [other.aval.shape[axis] for axis in free[mine]]
    columns = transposed(other, [*batch[mine], *summed[mine], *free[mine]])
    of_each = (*(() if plan.for_all else first), inverse.size, plan.columns)
    columns = reshaped(columns, of_each)
    if plan.for_all:
        columns = broadcast(columns, (*first, *of_each), (len(first), len(first) + 1))
    found = _substituted(factors, permutation, columns, plan.transposed)
    found = reshaped(found, (*first, inverse.size, *left))
    if side == 1:
        depth, rank = len(first), len(found.aval.shape)
        of_matrices, columns_first = list(range(depth)), list(range(depth + 1, rank))
        order = [*columns_first, *of_matrices, depth] if plan.for_all else [*of_matrices, *columns_first, depth]
        found = transposed(found, order)
    return fit(found, node.aval)


def _substituted(factors: Node, permutation: Node, columns: Node, back: bool) -> Node:
    """The solution for each column, from the factors of P A = L U; with `back` of the transposed system."""
    if back:
        found = _triangular(factors, columns, lower=False, back=True)
        found = _triangular(factors, found, lower=True, back=True)
        return _permuted(found, _inverse_permutation(permutation))
    found = _triangular(factors, _permuted(columns, permutation), lower=True, back=False)
    return _triangular(factors, found, lower=False, back=False)


def _triangular(factors: Node, columns: Node, lower: bool, back: bool) -> Node:
    attrs = {
        "left_side": True,
        "lower": lower,
        "transpose_a": back,
        "conjugate_a": False,
        "unit_diagonal": lower,
    }
    return applied(TRIANGULAR_SOLVE, Attrs(attrs), factors, columns)


def _permuted(columns: Node, permutation: Node) -> Node:
    """The rows of each matrix at the places that `permutation` says."""
    *batch, _, count = columns.aval.shape
    depth = len(batch)
    numbers = GatherDimensionNumbers(
        offset_dims=(depth + 1,),
        collapsed_slice_dims=(depth,),
        start_index_map=(depth,),
        operand_batching_dims=tuple(range(depth)),
        start_indices_batching_dims=tuple(range(depth)),
    )
    attrs = {
        "dimension_numbers": numbers,
        "slice_sizes": (*[1] * depth, 1, count),
        "indices_are_sorted": False,
        "unique_indices": True,
        "mode": GatherScatterMode.PROMISE_IN_BOUNDS,
        "fill_value": None,
    }
    return applied(GATHER, Attrs(attrs), columns, reshaped(permutation, (*permutation.aval.shape, 1)))


def _inverse_permutation(permutation: Node) -> Node:
    aval = permutation.aval
    axis = len(aval.shape) - 1
    places = make(IOTA, dtype=aval.dtype, shape=aval.shape, dimension=axis)
    return project(make(SORT, permutation, places, dimension=axis, is_stable=True, num_keys=1), 1)
