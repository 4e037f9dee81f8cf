"""Affine folding: what scales and shifts the features of a product or a convolution moves into constant weights.

Before:
    %3: f32[8,10] = dot_general[dimension_numbers=(((1,), (0,)), ((), ())), ...](%0, %1)      where %1 is a constant
    %4: f32[8,10] = sub(%3, %mean)
    %5: f32[8,10] = mul(%4, %scale)                             where %mean and %scale repeat constants of ten elements
After:
    %2: f32[4,10] = mul(%1, %scales)
    %3: f32[8,10] = dot_general[dimension_numbers=(((1,), (0,)), ((), ())), ...](%0, %2)
    %4: f32[8,10] = add(%3, %shifts)
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from itertools import chain

from jax.extend.core import primitives as p

from graphopt.analysis.known import known_nodes
from graphopt.ir.graph import Graph
from graphopt.ir.node import Node
from graphopt.ir.op import Op, op_of
from graphopt.ops.contract import CONVOLUTION, DOT_GENERAL
from graphopt.ops.make import BROADCAST, full, make
from graphopt.passes.rules.contraction import axes_of
from graphopt.passes.rules.moving import broadcast, reshaped
from graphopt.rewrite.driver import Firing
from graphopt.rewrite.passes import Context, Pass
from graphopt.rewrite.rebuild import rebuild
from graphopt.rewrite.rule import rewrites
from graphopt.rewrite.safety import ADMITTED, kind_of

ADD, SUB, MUL, DIV, NEG = map(op_of, (p.add_p, p.sub_p, p.mul_p, p.div_p, p.neg_p))


@dataclass(frozen=True)
class Affine(Pass):
    """Folds constant scales and shifts of features, as batch norm has them at inference, into constant weights.

    `((x @ W - mean) * scale + shift)` becomes `x @ (W * scale) + (shift - mean * scale)`; so do convolutions. All that
    is new depends on constants alone, so that `bind` computes it once. Shifts alone stay as they are.

    The safety is `reassociate`: the weights are rounded once more, and sums come after the products. For float16 it is
    `nonfinite`, for scaled weights may overflow there.
    """

    name = "affine"

    def run(self, graph: Graph, context: Context) -> Graph:
        """The graph with the scales in the weights."""
        declined = "reassociate" not in ADMITTED[context.options.numerics]
        if context.portable or context.differentiable or (declined and not context.timed):
            return graph
        if not any(node.op in (DOT_GENERAL, CONVOLUTION) for node in graph.nodes):
            return graph
        chains = affine_chains(graph, context)
        if not chains:
            return graph
        if declined:
            context.note(
                f"scales of {len(chains)} products or convolutions stay: moved into the weights they are 'reassociate'"
                ": needs numerics='standard'"
            )
            return graph

        cores: dict[Node, Node] = {}
        infos = context.sources.infos.get(graph, {})

        def visit(node: Node, inputs: tuple[Node, ...]) -> Node | None:
            if node.op in (DOT_GENERAL, CONVOLUTION):
                cores[node] = node.with_inputs(inputs)
            found = chains.get(node)
            if found is None or context.stopped:
                return None
            new, lines = folded(found, cores[found.core]), infos.get(node, ())
            safety = "reassociate" if node.aval.dtype.itemsize >= 4 else "nonfinite"
            context.firings.append(Firing(scale_of_features, node, new, safety, lines))
            return new

        context.note(f"scales of {len(chains)} products or convolutions moved into their constant weights")
        return rebuild(graph, context.sources, visit)


@dataclass(frozen=True, slots=True)
class Chain:
    """What is made of a product: `core * scale + shift`, both for each feature, or one for all; None for one and zero.

    side: which operand of the core is constant. axis: of the core's result, along which features lie; of_weights: the
    axis of the constant operand that it comes from. Both None as long as one number is for all.
    """

    core: Node
    side: int
    axis: int | None = None
    of_weights: int | None = None
    scale: Node | None = None
    shift: Node | None = None


@rewrites(p.mul_p, p.div_p, p.add_p, p.sub_p, safety={"f": "reassociate", "h": "nonfinite"}, law="distribution")
def scale_of_features(node: Node) -> Node | None:
    """dot(x, w) * s + b → dot(x, w * s) + b, where w, s and b are constants; found in graphs, not node by node"""
    return None


def affine_chains(graph: Graph, context: Context) -> dict[Node, Chain]:
    """The last node of each chain with a scale, and the chain."""
    known = known_nodes(graph)
    uses = Counter(chain(graph.outputs, chain.from_iterable([node.inputs for node in graph.nodes])))
    found: dict[Node, Chain] = {}
    ends: dict[Node, Chain] = {}
    for node in graph.nodes:
        if node in known or node.effects or node.context is not None or len(node.avals) != 1:
            continue
        if node.op in (DOT_GENERAL, CONVOLUTION):
            if (start := _start(node, known, context)) is not None:
                found[node] = start
            continue
        link = _operands(node, known)
        before = None if link is None else found.get(link[0])
        if link is None or before is None or uses[link[0]] > 1 or link[0].aval.type != node.aval.type:
            continue
        after = _extended(before, node.op, link[1])
        if after is not None:
            found[node] = after
            ends.pop(link[0], None)
            if after.scale is not None and uses[after.core.inputs[after.side]] > 1:
                context.note(
                    "scales stay where the weights are read a second time: a scaled copy would take their memory"
                )
            elif after.scale is not None:
                ends[node] = after
    return ends


def _start(node: Node, known: set[Node], context: Context) -> Chain | None:
    side = 1 if node.inputs[1] in known else 0 if node.inputs[0] in known and node.op is DOT_GENERAL else None
    dtype = node.aval.dtype
    if side is None or node.inputs[1 - side] in known or kind_of(dtype) not in "fh":
        return None
    if any(n.aval.dtype != dtype for n in node.inputs):
        context.note(
            f"scales after a {node.op.name} of several dtypes stay: its weights would be rounded to fewer digits"
        )
        return None
    if dtype.itemsize < 4 and "nonfinite" not in ADMITTED[context.options.numerics]:
        context.note(f"scales after a {node.op.name} in {dtype} stay: the weights have few digits, or may overflow")
        return None
    return Chain(node, side)


def _operands(node: Node, known: set[Node]) -> tuple[Node, Node] | None:
    """The operand of an affine operation that is not known, and the one that is."""
    if node.op not in (ADD, SUB, MUL, DIV):
        return None
    x, y = node.inputs
    if y in known and x not in known:
        return x, y
    return (y, x) if x in known and y not in known and node.op in (ADD, MUL) else None


def _extended(before: Chain, op: Op, operand: Node) -> Chain | None:
    """The chain with one more operation; None where the operand varies along something else than its features."""
    vector, axis = _along(operand)
    if vector is None or (axis is not None and before.axis not in (None, axis)):
        return None
    if axis is not None and before.axis is None:
        of_weights = _axis_of_weights(before.core, before.side, axis)
        if of_weights is None:
            return None
        before = replace(before, axis=axis, of_weights=of_weights)
    if op in (MUL, DIV):
        scale = vector if before.scale is None and op is MUL else _applied(op, before.scale, vector)
        shift = None if before.shift is None else _applied(op, before.shift, vector)
        return replace(before, scale=scale, shift=shift)
    if before.shift is None:
        return replace(before, shift=vector if op is ADD else make(NEG, vector))
    return replace(before, shift=_applied(op, before.shift, vector))


def _applied(op: Op, x: Node | None, y: Node) -> Node:
    """`op` of numbers or vectors; None stands for one."""
    if x is None:
        return make(op, full(1, y.aval), y)
    size = max([x, y], key=lambda n: len(n.aval.shape)).aval.shape
    return make(op, *[broadcast(n, size, ()) if n.aval.shape != size else n for n in (x, y)])


def _along(operand: Node) -> tuple[Node | None, int | None]:
    """What a value repeats: a number, or a vector and the axis along which it lies; None where it is neither."""
    shape = operand.aval.shape
    inner, dimensions = operand, list(range(len(shape)))
    if operand.op is BROADCAST and len(operand.inputs) == 1:
        inner, dimensions = operand.inputs[0], list(operand.attrs["broadcast_dimensions"])
    varying = [(k, d) for k, d in enumerate(dimensions) if inner.aval.shape[k] > 1]
    if not varying:
        return (reshaped(inner, ()), None) if inner.aval.size == 1 else (None, None)
    if len(varying) > 1:
        return None, None
    return reshaped(inner, (inner.aval.size,)), varying[0][1]


def _axis_of_weights(core: Node, side: int, axis: int) -> int | None:
    """The axis of the constant operand that an axis of the result comes from."""
    if core.op is CONVOLUTION:
        numbers = core.attrs["dimension_numbers"]
        return int(numbers.rhs_spec[0]) if axis == numbers.out_spec[1] else None
    _, batch, free = axes_of(core)
    first = len(batch[0]) + (len(free[0]) if side else 0)
    places = dict(zip(range(len(batch[side])), batch[side], strict=True))
    places |= {first + k: a for k, a in enumerate(free[side])}
    return places.get(axis)


def folded(found: Chain, core: Node) -> Node:
    """The chain with its scale in the weights of `core`."""
    assert found.scale is not None
    weights = core.inputs[found.side]
    scaled = make(MUL, weights, _repeated(found.scale, weights, found.of_weights))
    inputs = tuple(scaled if k == found.side else n for k, n in enumerate(core.inputs))
    new = core.with_inputs(inputs)
    return new if found.shift is None else make(ADD, new, _repeated(found.shift, core, found.axis))


def _repeated(vector: Node, like: Node, axis: int | None) -> Node:
    return broadcast(vector, like.aval.shape, () if not vector.aval.shape or axis is None else (axis,))
