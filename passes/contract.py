"""Contraction order: products of several arrays are multiplied out in the cheapest order.

Before:
    %3: f32[9,9] = dot_general[dimension_numbers=(((1,), (0,)), ((), ())), ...](%0, %1)
    %4: f32[9] = dot_general[dimension_numbers=(((1,), (0,)), ((), ())), ...](%3, %2)
After:
    %3: f32[9] = dot_general[dimension_numbers=(((1,), (0,)), ((), ())), ...](%1, %2)
    %4: f32[9] = dot_general[dimension_numbers=(((1,), (0,)), ((), ())), ...](%0, %3)
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from itertools import chain
from typing import Any

import numpy as np
from jax.extend.core import primitives as p

from graphopt.analysis.contraction import Order, Product, best_order, cost_of_order, remaining_labels
from graphopt.analysis.cost import Cost
from graphopt.analysis.diagonals import diagonal_of
from graphopt.analysis.network import (
    DIV,
    MOVES,
    MUL,
    ROOTS,
    SUM,
    UNIT,
    Factor,
    Labels,
    Network,
    read_network,
)
from graphopt.ir.graph import Graph, nested_graphs, topological
from graphopt.ir.node import Node, project
from graphopt.ir.op import CONSTANT, PARAM, PROJECT
from graphopt.ir.sources import merge
from graphopt.ops.contract import DOT_GENERAL
from graphopt.ops.control import SCAN, WHILE, Scan, While
from graphopt.ops.make import CONVERT, fit, make
from graphopt.passes.rules.moving import Uses, applied, broadcast, reshaped, transposed
from graphopt.rewrite.driver import Firing
from graphopt.rewrite.passes import Context, Pass
from graphopt.rewrite.rebuild import rebuild, with_bodies
from graphopt.rewrite.rule import rewrites
from graphopt.rewrite.safety import ADMITTED, kind_of, kinds_of, loosest

REORDERED = {"iu": "exact", "fc": "reassociate"}
"""Integers wrap around, and are the same in every order."""

GAIN = 0.95
"""A new order takes at most so much of the operations of the old one, or as many and moves so much less memory: what is
in good order stays as it is, bit for bit."""

FLOPS_PER_BYTE = 4
"""Operations in the time in which a byte is read or written: a new order that saves operations and pays for them with
more memory traffic than this is not taken. A matrix product of large matrices is bound by the former, a matrix-vector
product by the latter."""

MANY = 100
"""How often a `while` is taken to run: nobody knows, but what its iterations have in common leaves it."""


@dataclass(frozen=True)
class Contract(Pass):
    """Chooses the order in which trees of matrix products, products and sums over them are multiplied out.

    A tree is read as a tensor network (`graphopt.analysis.network`), and the order with the fewest operations is found
    (`graphopt.analysis.contraction`); `trace(A @ B)` and `A @ diag(d)` are networks too. What is read more than once is
    computed once, as before. In a loop, what is made of loop-invariant values counts once, for it leaves the loop.

    The safety is `reassociate`: sums and products are reordered. Intermediates differ, so that one may overflow where
    none did, or none where one did, and infinities among the operands may appear elsewhere; where an identity matrix is
    a factor, whose zeros meet what is not finite, the safety is `nonfinite`. So it is for float16, in which moderate
    intermediates overflow. Integers stay the same to the bit.
    """

    name = "contract"

    def run(self, graph: Graph, context: Context) -> Graph:
        """The graph with its contractions in the cheapest order."""
        if not any(node.op is DOT_GENERAL for inner in nested_graphs(graph) for node in inner.nodes):
            return graph
        if context.portable:
            context.note("the order of contractions stays: shapes or the number of devices are not known")
            return graph
        return _Contractor(context).graph(graph, frozenset(), 1)


@dataclass(frozen=True, slots=True)
class _Plan:
    """A network, and the order in which it will be computed."""

    network: Network
    order: Order
    safety: str
    old: Cost
    new: Cost


class _Contractor:
    def __init__(self, context: Context) -> None:
        self.context = context
        self.admitted = ADMITTED[context.options.numerics]
        self.done: dict[tuple[Graph, frozenset[Node], int], Graph] = {}

    def graph(self, graph: Graph, kept: frozenset[Node], times: int) -> Graph:
        """`graph` after the pass. kept: parameters that are the same each of the `times` times that it is run."""
        key = (graph, kept, times)
        if key not in self.done:
            self.done[key] = self.rewritten(graph, kept, times)
        return self.done[key]

    def rewritten(self, graph: Graph, kept: frozenset[Node], times: int) -> Graph:
        sources = self.context.sources
        plans = self.plans(graph, invariant(graph, kept) if times > 1 else frozenset(), times)
        infos = sources.infos.get(graph, {})
        mapping: dict[Node, Node] = {}
        lines: dict[Node, tuple[Any, ...]] = {}

        def visit(node: Node, inputs: tuple[Node, ...]) -> Node | None:
            new = self.with_bodies(node).with_inputs(inputs) if node.subgraphs else node.with_inputs(inputs)
            plan = plans.get(node)
            if plan is not None and not self.context.stopped:
                factors = [replace(factor, node=_new(factor.node, mapping)) for factor in plan.network.factors]
                new = build(plan.network, factors, plan.order)
                found = reduce(merge, [infos.get(n, ()) for n in plan.network.inner])
                lines.update((n, merge(lines.get(n, ()), found)) for n in _between(new, factors))
                self.context.firings.append(Firing(contraction_order, node, new, plan.safety, found))
            mapping[node] = new
            return new

        new = rebuild(graph, sources, visit)
        if new is not graph:
            sources.record(new, {n: lines[n] for n in new.nodes if n in lines})
        return new

    def with_bodies(self, node: Node) -> Node:
        """A loop, a branch or a call, after the pass in what it holds."""
        if node.op is SCAN:
            scan = Scan.of(node)
            kept = frozenset(scan.body.params[: scan.consts])
            attrs = with_bodies(node, lambda body: self.graph(body, kept, max(scan.length, 1)))
        elif node.op is WHILE:
            loop = While.of(node)
            consts = {loop.cond: loop.cond_consts, loop.body: loop.body_consts}
            attrs = with_bodies(node, lambda body: self.graph(body, frozenset(body.params[: consts[body]]), MANY))
        else:
            attrs = with_bodies(node, lambda body: self.graph(body, frozenset(), 1))
        return node if attrs is node.attrs else node.with_attrs(attrs)

    def plans(self, graph: Graph, kept: Collection[Node], times: int) -> dict[Node, _Plan]:
        """For the root of each network that is reordered how it is."""
        roots = [node for node in reversed(graph.nodes) if self.may_be_root(node)]
        if not any(node.op is DOT_GENERAL for node in roots):
            return {}
        uses = Counter(chain(graph.outputs, chain.from_iterable(node.inputs for node in graph.nodes)))
        covered: dict[bool, set[Node]] = {True: set(), False: set()}  # what stays covers nothing of what may not
        plans: dict[Node, _Plan] = {}
        for node in roots:
            admitted = self.is_admitted(node)
            if node in covered[admitted]:
                continue
            found = read_network(node, uses.__getitem__, "nonfinite" in self.admitted)
            covered[admitted].update(found.inner)
            plan = plan_of(found, kept, times) if isinstance(found, Network) else None
            if plan is not None and plan.safety in self.admitted:
                plans[node] = plan
                self.context.note(_described(plan))
            elif plan is not None:
                self.context.note(f"{_formula(plan.network)} stays: another order is {plan.safety!r} at best")
            if found.declined and admitted:
                self.context.note(f"not all of a product of matrices was reordered: {found.declined}")
        return plans

    def may_be_root(self, node: Node) -> bool:
        """Whether a node may be the result of a network, with elements that may be summed in another order; for a
        report, also if they may not."""
        if node.op not in ROOTS and diagonal_of(node) is None:
            return False
        return self.context.timed or self.is_admitted(node)

    def is_admitted(self, node: Node) -> bool:
        """Whether the elements of a result may be summed in another order."""
        safety = loosest(contraction_order.table, kinds_of((node,)))
        return safety is not None and safety in self.admitted


@rewrites(p.dot_general_p, p.mul_p, p.div_p, p.reduce_sum_p, safety=REORDERED, law="composition")
def contraction_order(node: Node, uses: Uses) -> Node | None:
    """a product of several arrays → the same product, multiplied out in the cheapest order"""
    found = read_network(node, uses, False)
    plan = plan_of(found, (), 1) if isinstance(found, Network) else None
    return None if plan is None else build(plan.network, plan.network.factors, plan.order)


def plan_of(network: Network, kept: Collection[Node], times: int) -> _Plan | None:
    """The cheapest order of a network, if it is cheaper than the one in which the network was written.

    kept, times: what else there is runs `times` times for one time that what is made of the nodes in `kept` alone does.
    """
    if 0 in network.sizes or sum(node.op not in MOVES for node in network.inner) < 2:
        return None  # nothing to compute, or one product of two arrays, which has one order
    safety = loosest(contraction_order.table, kinds_of((network.root,)))
    if network.finite_only or network.root.aval.dtype == np.float16:
        safety = "nonfinite"
    if safety is None:
        return None
    old = cost_of_nodes(network.inner[::-1], kept, times)
    product = _product(network, kept, times)
    order = best_order(product, old.flops)
    if order is None:
        return None
    flops, moved = cost_of_order(product, order)
    new = Cost(flops, moved * network.root.aval.dtype.itemsize)
    if not is_worth_it(old, new) or build(network, network.factors, order) is network.root:
        return None
    return _Plan(network, order, safety, old, new)


def _product(network: Network, kept: Collection[Node] = (), times: int = 1) -> Product:
    same = sum(1 << index for index, f in enumerate(network.factors) if f.node in kept or f.node.op is CONSTANT)
    arrays = tuple(_mask(factor.labels) for factor in network.factors)
    return Product(arrays, _mask(network.output), network.sizes, same, times)


def _mask(labels: Labels) -> int:
    return sum(1 << label for label in labels if label != UNIT)


def invariant(graph: Graph, kept: Collection[Node]) -> frozenset[Node]:
    """The nodes of a loop's body that are the same in each iteration, for the parameters in `kept` are."""
    found = set(kept)
    for node in graph.nodes:
        if node.op is CONSTANT or (node.inputs and not node.effects and all(n in found for n in node.inputs)):
            found.add(node)
    return frozenset(found)


def cost_of_nodes(nodes: Sequence[Node], kept: Collection[Node], times: int) -> Cost:
    """What nodes take, operands before users: their operations, and the memory that matrix products read and write
    (XLA fuses all others with each other).

    Those that depend on the nodes in `kept` and on constants alone run once, all others `times` times.
    """
    total, same = Cost(), set(kept)
    for node in nodes:
        if node.inputs and all(n in same or n.op is CONSTANT for n in node.inputs):
            same.add(node)
        flops = 0 if node.op.flops is None else node.op.flops(node.attrs, [n.aval for n in node.inputs], node.avals)
        moved = sum(n.aval.nbytes for n in (*node.inputs, node)) if node.op is DOT_GENERAL else 0
        total += Cost(flops, moved) * (1 if node in same else times)
    return total


def is_worth_it(old: Cost, new: Cost) -> bool:
    """Whether an order of the cost `new` is worth another rounding than that of the order of the cost `old`."""
    if new.flops > GAIN * old.flops:
        return new.flops <= old.flops and new.bytes < GAIN * old.bytes
    return new.flops + FLOPS_PER_BYTE * new.bytes < old.flops + FLOPS_PER_BYTE * old.bytes


def build(network: Network, factors: Sequence[Factor], order: Order) -> Node:
    """The value of a network, multiplied out in this order. factors: what takes the places of its own."""
    remaining = remaining_labels(_product(network), order)
    arrays = [_prepared(f, network.sizes, keep) for f, keep in zip(factors, remaining, strict=False)]
    output = tuple(label for label in network.output if label != UNIT)
    for (first, second), keep in zip(order, remaining[len(factors) :], strict=True):
        a, b = arrays[first], arrays[second]
        if not _in_order(_result_labels(a, b, keep), output) and _in_order(_result_labels(b, a, keep), output):
            a, b = b, a  # then no transpose follows
        arrays.append(_multiplied(a, b, keep, network))
    node, labels = arrays[-1].node, arrays[-1].labels
    present = [label for label in output if label in labels]
    node = transposed(node, [labels.index(label) for label in present])
    if len(present) == len(output):
        node = reshaped(node, network.root.aval.shape)
    else:
        node = broadcast(node, network.root.aval.shape, [network.output.index(label) for label in present])
    return fit(node, network.root.aval)


def _in_order(labels: Labels, output: Labels) -> bool:
    places = [output.index(label) for label in labels if label in output]
    return places == sorted(places)


def _prepared(factor: Factor, sizes: Sequence[int], keep: int) -> Factor:
    """A factor without axes of size one, summed over the labels that no other array has."""
    labels = tuple(label for label in factor.labels if label != UNIT)
    node = reshaped(factor.node, [sizes[label] for label in labels])
    gone = tuple(axis for axis, label in enumerate(labels) if not keep >> label & 1)
    if gone:
        node = _summed(node, gone)
    return Factor(node, tuple(label for label in labels if keep >> label & 1), factor.divides)


def _summed(node: Node, axes: Sequence[int]) -> Node:
    dtype = node.aval.dtype
    if kind_of(dtype) == "f" and dtype.itemsize < 4:
        # As a matrix product does, which rounds once, at the end.
        wide = make(CONVERT, node, new_dtype=np.dtype(np.float32), weak_type=False)
        return make(CONVERT, make(SUM, wide, axes=tuple(axes)), new_dtype=dtype, weak_type=False)
    return make(SUM, node, axes=tuple(axes))


def _multiplied(a: Factor, b: Factor, keep: int, network: Network) -> Factor:
    """The product of two arrays, summed over the labels that are not in `keep`."""
    labels = _result_labels(a, b, keep)
    if a.divides != b.divides:
        above, below = (b, a) if a.divides else (a, b)
        return Factor(make(DIV, above.node, below.node), labels)
    if all(keep >> label & 1 for label in (*a.labels, *b.labels)):
        x, y = (_aligned(factor, labels, network.sizes) for factor in (a, b))
        return Factor(make(MUL, x, y), labels, a.divides)
    common = [label for label in a.labels if label in b.labels]
    batch = [label for label in common if keep >> label & 1]
    summed = [label for label in common if not keep >> label & 1]
    numbers = tuple(
        tuple(tuple(factor.labels.index(label) for label in group) for factor in (a, b)) for group in (summed, batch)
    )
    attrs = network.dot.attrs.replace(dimension_numbers=numbers)
    return Factor(applied(DOT_GENERAL, attrs, a.node, b.node), labels)


def _result_labels(a: Factor, b: Factor, keep: int) -> Labels:
    """The axes of a product: of a matrix product the batch axes, then those of `a`, then those of `b`."""
    if all(keep >> label & 1 for label in (*a.labels, *b.labels)):
        first, second = (a, b) if len(a.labels) >= len(b.labels) else (b, a)
        return (*first.labels, *[label for label in second.labels if label not in first.labels])
    batch = [label for label in a.labels if label in b.labels and keep >> label & 1]
    return (*batch, *[n for x, y in ((a, b), (b, a)) for n in x.labels if n not in y.labels])


def _aligned(factor: Factor, labels: Labels, sizes: Sequence[int]) -> Node:
    """An operand of an elementwise product with these axes: its own in their order, the others of size one."""
    if not factor.labels:
        return factor.node
    order = [label for label in labels if label in factor.labels]
    node = transposed(factor.node, [factor.labels.index(label) for label in order])
    return reshaped(node, [sizes[label] if label in factor.labels else 1 for label in labels])


def _between(root: Node, factors: Iterable[Factor]) -> list[Node]:
    """The nodes that compute `root` from the factors, operands before users."""
    leaves = {factor.node for factor in factors}
    return [node for node in topological((), (root,), leaves) if node not in leaves]


def _new(node: Node, mapping: Mapping[Node, Node]) -> Node:
    if node.op is PROJECT:
        return project(_new(node.inputs[0], mapping), node.attrs["index"])
    return node if node.op is PARAM or node.op is CONSTANT else mapping[node]


def _described(plan: _Plan) -> str:
    return f"{_formula(plan.network)}: {_count(plan.old.flops)} → {_count(plan.new.flops)} operations"


def _formula(network: Network) -> str:
    """A network in the notation of einsum, `ij,jk,k->i`, with words for scalars."""
    letters = "ijklmnopqrstuvwxyzabcdefghIJKLMNOPQRSTUVWXYZABCDEFGH"
    order = dict.fromkeys(label for factor in network.factors for label in factor.labels if label != UNIT)
    if len(order) > len(letters):
        return f"a product of {len(network.factors)} arrays"
    names = dict(zip(order, letters, strict=False))
    texts = ["".join(names.get(n, "") for n in factor.labels) or "scalar" for factor in network.factors]
    texts = [f"1/{text}" if factor.divides else text for text, factor in zip(texts, network.factors, strict=True)]
    return f"{','.join(texts)}->{''.join(names.get(n, '') for n in network.output)}"


def _count(flops: int) -> str:
    for power, prefix in ((12, "T"), (9, "G"), (6, "M"), (3, "k")):
        if flops >= 10**power:
            return f"{flops / 10**power:.3g} {prefix}"
    return str(flops)
