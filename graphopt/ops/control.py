"""Control flow: how the operands and results of loops and branches relate to the graphs that they hold.

JAX's parameters for `scan` differ between versions: counts on 0.10, flat trees from 0.11 on; nothing else needs to
know.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import compress
from typing import Any

import jax
import numpy as np
from jax.extend.core import primitives

from graphopt.ir.attrs import Attrs, SubGraph
from graphopt.ir.aval import array_aval
from graphopt.ir.graph import Graph
from graphopt.ir.node import Node, make_node
from graphopt.ir.op import op_of

SCAN = op_of(primitives.scan_p)
WHILE = op_of(primitives.while_p)
COND = op_of(primitives.cond_p)


@dataclass(frozen=True, slots=True)
class Scan:
    """`scan`: operands and the body's parameters are (consts, carry, xs); results are (carry, ys).

    consts, carry, xs: how many there are of each. body: its graph. length: number of iterations.
    """

    consts: int
    carry: int
    xs: int
    body: Graph
    length: int

    @staticmethod
    def of(node: Node) -> Scan:
        """The view of a scan node."""
        attrs = node.attrs
        if "ft_in" in attrs:
            consts, carry, xs = map(len, attrs["ft_in"].unpack())
        else:
            consts, carry = attrs["num_consts"], attrs["num_carry"]
            xs = len(node.data_inputs) - consts - carry
        return Scan(consts, carry, xs, attrs["jaxpr"].graph, attrs["length"])

    def prune(
        self, node: Node, inputs: tuple[Node, ...], keep_in: Sequence[bool], keep_out: Sequence[bool], body: Graph
    ) -> Node:
        """The scan with only the kept operands and results, and `body` for its body."""
        attrs = dict(node.attrs, jaxpr=SubGraph(body))
        if "ft_in" in attrs:
            attrs["ft_in"] = attrs["ft_in"].filter_with_mask(list(keep_in))
            attrs["ft_out"] = attrs["ft_out"].filter_with_mask(list(keep_out))
        else:
            attrs["num_consts"] = sum(keep_in[: self.consts])
            attrs["num_carry"] = sum(keep_in[self.consts : self.consts + self.carry])
        return _pruned(node, inputs, keep_in, keep_out, attrs)

    def with_consts(self, node: Node, extra: Sequence[Node], body: Graph) -> Node:
        """The scan with more constant operands after those it has, and `body`, whose parameters are in that order."""
        attrs = dict(node.attrs, jaxpr=SubGraph(body))
        if "ft_in" in attrs:
            attrs["ft_in"] = _counted("ft_in", self.consts + len(extra), self.carry, self.xs)
        else:
            attrs["num_consts"] = self.consts + len(extra)
        inputs = (*node.inputs[: self.consts], *extra, *node.inputs[self.consts :])
        return make_node(node.op, inputs, type(node.attrs)(attrs), node.avals, node.context, node.effects)


@cache
def _example() -> Any:
    """The parameters with which JAX binds a scan: from 0.11 on trees that hold the kinds of operands and results, here
    of one constant, one carried value and one stacked result."""
    x = jax.ShapeDtypeStruct((1,), np.float32)
    jaxpr = jax.make_jaxpr(lambda x, y: jax.lax.scan(lambda c, _: (c + x, c), y, None, length=1))(x, x)
    return jaxpr.eqns[0].params


def _counted(name: str, *counts: int) -> Any:
    """JAX's tree of so many constants, carried values and stacked ones ("ft_in"), or of results ("ft_out").

    Whether a tree is made of tuples or, as where a gradient needs some operands only, filtered, is all the same to JAX.
    """
    tree = _example()[name]
    parts = zip(tree.elts, counts, strict=True)
    return type(tree)(*(type(part)(*[(part.elts or tree.elts[0].elts)[0]] * count) for part, count in parts))


def make_scan(
    body: Graph,
    length: int,
    consts: Sequence[Node],
    carry: Sequence[Node],
    xs: Sequence[Node] = (),
    reverse: bool = False,
) -> Node:
    """A scan: `body` is run `length` times, on `consts`, what it carries from one time to the next, and rows of `xs`.

    body: its parameters are (consts, carry, a row of each of xs), its outputs (carry, a row of each of ys).
    reverse: whether the rows are read and written from the last one to the first. Results are (carry, ys).
    """
    example = dict(_example(), jaxpr=SubGraph(body, closed=hasattr(_example()["jaxpr"], "consts")))
    attrs = dict(example, length=length, reverse=reverse)
    rows = body.outputs[len(carry) :]
    if "ft_in" in attrs:
        attrs["ft_in"] = _counted("ft_in", len(consts), len(carry), len(xs))
        attrs["ft_out"] = _counted("ft_out", len(carry), len(rows))
    else:
        attrs.update(num_consts=len(consts), num_carry=len(carry))
    stacked = [array_aval((length, *n.aval.shape), n.aval.dtype, n.aval.weak_type) for n in rows]
    return make_node(SCAN, (*consts, *carry, *xs), Attrs(attrs), (*(n.aval for n in carry), *stacked))


@dataclass(frozen=True, slots=True)
class While:
    """`while`: operands are (condition's consts, body's consts, carry); results are the carry.

    The condition's parameters are (its consts, carry), the body's (its consts, carry).
    """

    cond_consts: int
    body_consts: int
    cond: Graph
    body: Graph

    @staticmethod
    def of(node: Node) -> While:
        """The view of a while node."""
        attrs = node.attrs
        return While(attrs["cond_nconsts"], attrs["body_nconsts"], attrs["cond_jaxpr"].graph, attrs["body_jaxpr"].graph)

    def with_consts(
        self, node: Node, extra_cond: Sequence[Node], extra_body: Sequence[Node], cond: Graph, body: Graph
    ) -> Node:
        """The loop with more constant operands for its condition and its body, after those that each of them has."""
        attrs = dict(
            node.attrs,
            cond_nconsts=self.cond_consts + len(extra_cond),
            body_nconsts=self.body_consts + len(extra_body),
            cond_jaxpr=SubGraph(cond),
            body_jaxpr=SubGraph(body),
        )
        consts = self.cond_consts + self.body_consts
        inputs = (
            *node.inputs[: self.cond_consts],
            *extra_cond,
            *node.inputs[self.cond_consts : consts],
            *extra_body,
            *node.inputs[consts:],
        )
        return make_node(node.op, inputs, type(node.attrs)(attrs), node.avals, node.context, node.effects)

    def prune(
        self,
        node: Node,
        inputs: tuple[Node, ...],
        keep_in: Sequence[bool],
        keep_carry: Sequence[bool],
        cond: Graph,
        body: Graph,
    ) -> Node:
        """The loop with only the kept operands and carried values."""
        consts = self.cond_consts + self.body_consts
        attrs = dict(
            node.attrs,
            cond_nconsts=sum(keep_in[: self.cond_consts]),
            body_nconsts=sum(keep_in[self.cond_consts : consts]),
            cond_jaxpr=SubGraph(cond),
            body_jaxpr=SubGraph(body),
        )
        return _pruned(node, inputs, keep_in, keep_carry, attrs)


@dataclass(frozen=True, slots=True)
class Cond:
    """`cond`: operands are (index of the branch, the branches' parameters); results are the branches' results."""

    branches: tuple[Graph, ...]

    @staticmethod
    def of(node: Node) -> Cond:
        """The view of a cond node."""
        return Cond(tuple(b.graph for b in node.attrs["branches"]))

    @staticmethod
    def make(index: Node, operands: Sequence[Node], branches: Sequence[Graph]) -> Node:
        """The results of the branch of this number (an i32 scalar, in range) on the operands."""
        attrs = Attrs({"branches": tuple(map(SubGraph, branches))})
        return make_node(COND, (index, *operands), attrs, tuple(n.aval for n in branches[0].outputs))

    def prune(
        self,
        node: Node,
        inputs: tuple[Node, ...],
        keep_in: Sequence[bool],
        keep_out: Sequence[bool],
        branches: Sequence[Graph],
    ) -> Node:
        """The choice with only the kept operands (the index not counted) and results."""
        attrs = dict(node.attrs, branches=tuple(SubGraph(b) for b in branches))
        return _pruned(node, inputs, [True, *keep_in], keep_out, attrs)


def _pruned(
    node: Node, inputs: tuple[Node, ...], keep_in: Sequence[bool], keep_out: Sequence[bool], attrs: dict[str, object]
) -> Node:
    return make_node(
        node.op,
        tuple(compress(inputs, keep_in)),
        type(node.attrs)(attrs),
        tuple(compress(node.avals, keep_out)),
        node.context,
        node.effects,
    )
