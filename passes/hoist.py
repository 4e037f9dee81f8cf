"""Loop-invariant code: what a loop computes anew in each iteration, always with the same result, is computed before it.

Before:
    graph @1(%0: f32[4], %1: f32[4]) {        the body: a constant operand and a carried value
      %2: f32[4] = exp(%0)
      %3: f32[4] = mul(%1, %2)
      return %3
    }
    %2: f32[4] = scan[jaxpr=@1, length=9, ...](%0, %1)
After:
    graph @1(%0: f32[4], %1: f32[4], %2: f32[4]) {
      %3: f32[4] = mul(%2, %1)
      return %3
    }
    %2: f32[4] = exp(%0)
    %3: f32[4] = scan[jaxpr=@1, length=9, ...](%0, %2, %1)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jax.extend.core import primitives

from graphopt.ir.graph import Graph, make_graph, topological
from graphopt.ir.node import Node, param, project
from graphopt.ir.op import CONSTANT, OCCURRENCE, PARAM, PROJECT, STATE, op_of
from graphopt.ir.sources import merge
from graphopt.ops.control import SCAN, WHILE, Scan, While
from graphopt.ops.make import BROADCAST
from graphopt.rewrite.passes import Context, Pass
from graphopt.rewrite.rebuild import rebuild, with_bodies

IOTA = op_of(primitives.iota_p)

SMALL = 4096
"""Bytes of a value that is kept however it is made."""


@dataclass(frozen=True)
class Hoist(Pass):
    """Moves loop-invariant operations out of the bodies of `scan` and `while`, and out of conditions, at every depth.

    max_bytes: what is larger is computed anew in each iteration rather than kept. Broadcasts and the like stay where
    they are: they cost nothing inside of a fused loop, and memory outside of it. Loops that read or write Refs stay.
    """

    max_bytes: int = 1 << 26
    name = "hoist"

    def run(self, graph: Graph, context: Context) -> Graph:
        """The graph with what its loops need computed before them."""
        return _Hoister(self.max_bytes, context).graph(graph)


class _Hoister:
    def __init__(self, max_bytes: int, context: Context) -> None:
        self.max_bytes = max_bytes
        self.context = context
        self.done: dict[Graph, Graph] = {}
        self.infos: dict[Node, tuple[Any, ...]] = {}  # source lines of what has left a loop

    def graph(self, graph: Graph) -> Graph:
        if graph not in self.done:
            sources = self.context.sources
            new = self.done[graph] = rebuild(graph, sources, self.visit)
            if self.infos and new is not graph:
                sources.record(new, {n: self.infos[n] for n in new.nodes if n in self.infos})
        return self.done[graph]

    def visit(self, node: Node, inputs: tuple[Node, ...]) -> Node | None:
        if not node.subgraphs:
            return None
        # From the inside out: what leaves an inner loop may leave the outer one too.
        new = node.with_attrs(with_bodies(node, self.graph)).with_inputs(inputs)
        if any(hasattr(effect, "input") for effect in new.effects):
            return new
        if new.op is SCAN and Scan.of(new).length > 1:
            return self.scan(new)
        return self.loop(new) if new.op is WHILE else new

    def scan(self, node: Node) -> Node:
        """The scan after what leaves its body."""
        scan = Scan.of(node)
        outside = dict(zip(scan.body.params[: scan.consts], node.inputs, strict=False))
        # A carried value that every iteration hands on as it got it is what the loop began with.
        for index, value in enumerate(scan.body.params[scan.consts : scan.consts + scan.carry]):
            if scan.body.outputs[index] is value:
                outside[value] = node.inputs[scan.consts + index]
        leaving = self.leaving(scan.body, outside)
        if not leaving:
            return node
        body = self.with_extra_params(scan.body, leaving, scan.consts)
        self.context.note(f"scan: computed before the loop: {_names(leaving)}")
        return scan.with_consts(node, self.before_the_loop(leaving, outside, scan.body), body)

    def loop(self, node: Node) -> Node:
        """The `while` after what leaves its condition and its body."""
        loop = While.of(node)
        first, consts = loop.cond_consts, loop.cond_consts + loop.body_consts
        in_cond = dict(zip(loop.cond.params[:first], node.inputs, strict=False))
        in_body = dict(zip(loop.body.params[: loop.body_consts], node.inputs[first:], strict=False))
        for index, value in enumerate(loop.body.params[loop.body_consts :]):
            if loop.body.outputs[index] is value:
                in_body[value] = in_cond[loop.cond.params[first + index]] = node.inputs[consts + index]
        from_cond, from_body = self.leaving(loop.cond, in_cond), self.leaving(loop.body, in_body)
        if not from_cond and not from_body:
            return node
        cond = self.with_extra_params(loop.cond, from_cond, first)
        body = self.with_extra_params(loop.body, from_body, loop.body_consts)
        for_cond = self.before_the_loop(from_cond, in_cond, loop.cond)
        for_body = self.before_the_loop(from_body, in_body, loop.body)
        self.context.note(f"while: computed before the loop: {_names([*from_cond, *from_body])}")
        return loop.with_consts(node, for_cond, for_body, cond, body)

    def leaving(self, body: Graph, outside: Mapping[Node, Node]) -> list[Node]:
        """The invariant values of a body that are worth computing before the loop, and that the rest of it needs."""
        invariant: set[Node] = set()
        stored: set[Node] = set()  # of these the elements lie in memory and are not made where they are used
        for node in body.nodes:
            operands = [n for n in node.inputs if n in stored and n.avals[0].nbytes >= node.avals[0].nbytes]
            if node.op is PARAM or (node.avals and not _is_made_anew(node) and (operands or not node.op.elementwise)):
                stored.add(node)
            if node in outside or node.op is CONSTANT or _may_leave(node, invariant):
                invariant.add(node)
        needed = [*body.outputs, *(operand for n in body.nodes if n not in invariant for operand in n.inputs)]
        stack = list(dict.fromkeys(n for n in needed if n in invariant))
        seen, found = set(stack), set()
        while stack:
            node = stack.pop()
            if node in outside or node.op is CONSTANT:
                continue
            if self.is_worth_it(node, stored):
                found.add(node)
                continue
            for operand in node.inputs:
                if operand not in seen:
                    seen.add(operand)
                    stack.append(operand)
        return [n for n in body.nodes if n in found]

    def is_worth_it(self, node: Node, stored: set[Node]) -> bool:
        """Whether a value is kept rather than computed anew: it costs arithmetic, and does not take much memory."""
        if len(node.avals) != 1 or not node.aval.is_array or not node.aval.is_static:
            return False
        source = node.inputs[0] if node.op is PROJECT else node
        count = source.op.flops
        if count is not None and count(source.attrs, [n.aval for n in source.inputs], source.avals) == 0:
            return False
        return node.aval.nbytes <= SMALL or (node in stored and node.aval.nbytes <= self.max_bytes)

    def with_extra_params(self, body: Graph, leaving: Sequence[Node], at: int) -> Graph:
        """`body` with the values in `leaving` as parameters, from number `at` on."""
        if not leaving:
            return body
        mapping = {p: param(i if i < at else i + len(leaving), p.aval) for i, p in enumerate(body.params)}
        extra = {node: param(at + i, node.aval) for i, node in enumerate(leaving)}
        params = sorted([*mapping.values(), *extra.values()], key=lambda p: int(p.attrs["index"]))
        for node in body.nodes:
            if node in extra:
                mapping[node] = extra[node]
            elif node not in mapping:
                mapping[node] = node.with_inputs(tuple([mapping[n] for n in node.inputs]))
        new = make_graph(params, [mapping[n] for n in body.outputs])
        self.context.sources.inherit(body, new, {n: m for n, m in mapping.items() if n not in extra})
        return new

    def before_the_loop(self, leaving: Sequence[Node], outside: dict[Node, Node], body: Graph) -> list[Node]:
        """The values in `leaving`, computed from the loop's operands."""
        infos = self.context.sources.infos.get(body, {})
        for node in topological((), tuple(leaving)):
            if node in outside:
                continue
            inputs = tuple([outside[n] for n in node.inputs])
            new = project(inputs[0], node.attrs["index"]) if node.op is PROJECT else node.with_inputs(inputs)
            outside[node] = new
            if found := infos.get(node):
                self.infos[new] = merge(self.infos.get(new, ()), found)
        return [outside[node] for node in leaving]


def _is_made_anew(node: Node) -> bool:
    """Whether a value's elements are best made where they are used: a broadcast, a sequence of numbers, a constant."""
    return node.op in (BROADCAST, IOTA, CONSTANT)


def _may_leave(node: Node, invariant: set[Node]) -> bool:
    if node.op is PARAM or node.op is STATE or node.effects or node.op.distinct or OCCURRENCE in node.attrs:
        return False
    return node.context is None and all(n in invariant for n in node.inputs)


def _names(nodes: Sequence[Node]) -> str:
    names = list(dict.fromkeys(n.inputs[0].op.name if n.op is PROJECT else n.op.name for n in nodes))
    return ", ".join(names[:6]) + (", …" if len(names) > 6 else "")
