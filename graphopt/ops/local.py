"""The same array under another type: what one device has of an array, with and without its place in a mesh."""

from __future__ import annotations

from jax.extend.core import Primitive
from jax.interpreters import mlir

from graphopt.ir.attrs import Attrs
from graphopt.ir.aval import Aval
from graphopt.ir.node import Node, make_node
from graphopt.ir.op import Op, register

retype_p = Primitive("retype")
"""The operand, as an array of JAX's type `type`, which has the same shape and dtype. Nothing is done for it."""

retype_p.def_impl(lambda x, *, type: x)
retype_p.def_abstract_eval(lambda x, *, type: type)
mlir.register_lowering(retype_p, lambda ctx, x, *, type: [x])

RETYPE = register(Op("retype", retype_p))


def retyped(node: Node, aval: Aval) -> Node:
    """A node's value under another type; the node itself where that is its type."""
    while node.op is RETYPE:
        node = node.inputs[0]
    return node if node.aval is aval else make_node(RETYPE, (node,), Attrs({"type": aval.type}), (aval,))


def as_given(node: Node) -> Node:
    """The node whose value this is under another type."""
    while node.op is RETYPE:
        node = node.inputs[0]
    return node
