"""Operations that JAX has for several others: written out, every other rule and kernel knows them."""

from __future__ import annotations

from functools import reduce
from itertools import chain

from jax import lax
from jax.extend.core import primitives as p

from graphopt.ir.node import Node, result_of
from graphopt.ir.op import PROJECT, op_of
from graphopt.ops.make import fit, full, make
from graphopt.passes.rules.moving import MOVES, broadcast, concatenated, reshaped, sliced
from graphopt.rewrite.rule import AnyRule, rewrites

ADD, SUB, MUL = (op_of(primitive) for primitive in (p.add_p, p.sub_p, p.mul_p))
SPLIT, UNSTACK, STACK, TILE = map(op_of, (lax.split_p, lax.unstack_p, lax.stack_p, lax.tile_p))
DEVICE_PUT = op_of(p.device_put_p)

UNROLLED = 8
"""Coefficients up to which JAX writes a polynomial out where it is not told; longer ones begin with 0 times x."""


@rewrites(SPLIT, UNSTACK, PROJECT, safety=MOVES, law="reduction")
def part_of_an_array(node: Node) -> Node | None:
    """split(x), unstack(x) → slice(x), with which each of their results is made"""
    whole, number = result_of(node)
    if (whole.op is not SPLIT and whole.op is not UNSTACK) or len(node.avals) != 1:
        return None
    x, axis = whole.inputs[0], int(whole.attrs["axis"])
    sizes = list(map(int, whole.attrs["sizes"])) if whole.op is SPLIT else [1] * len(whole.avals)
    starts, counts = [0] * len(x.aval.shape), list(x.aval.shape)
    starts[axis], counts[axis] = sum(sizes[:number]), sizes[number]
    return reshaped(sliced(x, starts, counts, [1] * len(counts)), node.aval.shape)


@rewrites(STACK, safety=MOVES, law="reduction")
def stack_of_arrays(node: Node) -> Node | None:
    """stack(x, y) → concatenate(x, y), each with one more axis of size one"""
    axis, shape = int(node.attrs["axis"]), list(node.aval.shape)
    shape[axis] = 1
    others = [k for k in range(len(shape)) if k != axis]
    return concatenated([broadcast(x, shape, others) for x in node.inputs], axis)


@rewrites(TILE, safety=MOVES, law="reduction")
def tiles(node: Node) -> Node | None:
    """tile(x) → reshape(broadcast(x))"""
    x = node.inputs[0]
    sizes = [*chain.from_iterable(zip(map(int, node.attrs["reps"]), x.aval.shape, strict=True))]
    return reshaped(broadcast(x, sizes, range(1, len(sizes), 2)), node.aval.shape)


@rewrites(DEVICE_PUT, PROJECT, safety=MOVES, law="identity")
def array_put_anywhere(node: Node) -> Node | None:
    """device_put(x) → x where no device is named"""
    put, number = result_of(node)
    if put.op is not DEVICE_PUT or len(node.avals) != 1:
        return None
    if any(put.attrs[name][number] is not None for name in ("devices", "srcs")):
        return None
    # A copy that was asked for stays one.
    return put.inputs[number] if put.attrs["copy_semantics"][number].name == "REUSE_INPUT" else None


RULES: tuple[AnyRule, ...] = (part_of_an_array, stack_of_arrays, tiles, array_put_anywhere)

if hasattr(p, "one_minus_square_p"):

    @rewrites(p.one_minus_square_p, safety={"iufc": "exact"}, law="reduction", keeps_derivatives=False)
    def one_minus_a_square(node: Node) -> Node | None:
        """one_minus_square(x), with which tanh is differentiated, → (1 + x) * (1 - x)"""
        x = node.inputs[0]
        one = full(1, x.aval)
        return make(MUL, make(ADD, one, x), make(SUB, one, x))

    RULES = (*RULES, one_minus_a_square)

if hasattr(p, "polynomial_p"):

    @rewrites(p.polynomial_p, safety={"iu": "exact", "fc": "reassociate"}, law="reduction", keeps_derivatives=False)
    def polynomial_by_horner(node: Node) -> Node | None:
        """polynomial(x, a, b, c) → (c * x + b) * x + a; XLA may fuse its products and sums otherwise"""
        x, *coefficients = node.inputs
        if len(coefficients) > node.attrs.get("unroll", UNROLLED):
            return None
        x, *coefficients = (fit(operand, node.aval) for operand in node.inputs)
        first, *others = reversed(coefficients)
        return reduce(lambda total, c: make(ADD, make(MUL, total, x), c), others, first)

    RULES = (*RULES, polynomial_by_horner)
