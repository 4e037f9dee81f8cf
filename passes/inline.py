"""Inlining: a call becomes the body of what it calls.

Before:
    graph @1(%0: f32[3]) {
      %1: f32[3] = sin(%0)
      return %1
    }
    graph @main(%0: f32[3]) {
      %1: f32[3] = jit[jaxpr=@1, name='sin', ...](%0)
      %2: f32[3] = neg(%1)
      return %2
    }
After:
    graph @main(%0: f32[3]) {
      %1: f32[3] = sin(%0)
      %2: f32[3] = neg(%1)
      return %2
    }
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from jax.extend.core import primitives

from graphopt.analysis.refs import uses_refs
from graphopt.ir.graph import Graph, make_graph, nested_graphs
from graphopt.ir.node import Node, first_state, make_node, project, ref_state
from graphopt.ir.op import CONSTANT, OCCURRENCE, PARAM, PROJECT, STATE, op_of
from graphopt.ir.sources import KEPT, merge
from graphopt.ops.control import COND, Cond
from graphopt.rewrite.passes import Context, Pass, counted
from graphopt.rewrite.rebuild import Occurrences, with_bodies

JIT = op_of(primitives.jit_p)
REMAT = op_of(primitives.remat_p)
CUSTOM_DERIVATIVES = (op_of(primitives.custom_jvp_call_p), op_of(primitives.custom_vjp_call_p))
PLATFORM_INDEX = "platform_index"
CALLS = ("closed_call", "core_call", "call", "eval_jaxpr")
OPTIMIZED_CALL = "optimized_call"


@dataclass(frozen=True)
class Inline(Pass):
    """Inlines calls of jitted functions, nested optimized calls of equal options, custom derivatives and checkpoints.
    Of a choice whose index is a constant, or that is between platforms, the one branch that can be taken is inlined.

    shared_nodes: a jitted function of more nodes than this, called from several places, stays one shared sub-graph.
    only: the name of the one operation to inline; None for all of them.

    What stays a call: a jit with shardings, layouts or compiler options of its own; a custom derivative or a checkpoint
    as long as JAX may still differentiate; a checkpoint of a derivative, whose barrier keeps recomputed values apart.
    """

    shared_nodes: int = 64
    only: str | None = None
    name = "inline"

    def run(self, graph: Graph, context: Context) -> Graph:
        """The graph with calls inlined, in sub-graphs too."""
        callers: Counter[Graph] = Counter()
        for current in nested_graphs(graph):
            callers.update(sub.graph for sub in current.subgraphs)
        inliner = _Inliner(self, context, callers, graph)
        new = inliner.graph(graph)
        if inliner.count:
            context.note(f"{counted(inliner.count, 'call')} inlined")
        if inliner.chosen:
            context.note(f"{counted(inliner.chosen, 'choice')} inlined, of whose branches only one can be taken")
        return new

    def declines(self, node: Node, context: Context, callers: Counter[Graph], large: bool) -> str | None:
        """Why a node that holds one sub-graph is not inlined; None if it is; empty if it is no call at all."""
        op, attrs = node.op, node.attrs
        if self.only is not None and op.name != self.only:
            return ""
        if op is JIT:
            if not _is_plain_jit(attrs):
                return f"jit {attrs['name']!r} has shardings, layouts or compiler options of its own"
            if getattr(node.context, "compute_type", None):
                return f"jit {attrs['name']!r} is marked, as a whole, for {node.context.compute_type}"
            times = callers[attrs["jaxpr"].graph]
            return f"jit {attrs['name']!r} is called {times} times and stays shared" if times > 1 and large else None
        if op in CUSTOM_DERIVATIVES:
            return f"{op.name} stays, since JAX may still differentiate" if context.differentiable else None
        if op is REMAT:
            kept = attrs["prevent_cse"] if isinstance(attrs["prevent_cse"], bool) else any(attrs["prevent_cse"])
            if context.differentiable or (attrs["differentiated"] and kept):
                return "a checkpoint keeps its recomputed values apart"
            return None
        if op.name == OPTIMIZED_CALL:
            same = attrs["options"] == context.options
            return None if same else "a nested optimized call has other options and is optimized on its own"
        return None if op.name in CALLS else ""


class _Inliner:
    def __init__(self, inline: Inline, context: Context, callers: Counter[Graph], outermost: Graph) -> None:
        self.inline = inline
        self.context = context
        self.callers = callers
        self.outermost = outermost
        self.count = self.chosen = 0
        self.refs = uses_refs(outermost)
        self.done: dict[Graph, Graph] = {}

    def graph(self, graph: Graph) -> Graph:
        if graph in self.done:
            return self.done[graph]
        new = graph
        if any(node.subgraphs for node in graph.nodes):
            infos = self.context.sources.infos.get(graph, {})
            copy = _Copy(self, Occurrences(graph), {p: p for p in graph.params}, graph is self.outermost)
            copy.nodes(graph, infos, body=False)
            new = make_graph(graph.params, [copy.mapping[n] for n in graph.outputs])
        if new is not graph:
            sources = self.context.sources
            # A graph that only calls another becomes that other one, which has sources already: its own come first.
            inner = sources.infos.pop(new, {}) if graph is self.outermost else {}
            sources.record(new, copy.infos)
            sources.record(new, inner)
            if graph in sources.debug and (graph is self.outermost or new not in sources.debug):
                sources.debug[new] = sources.debug[graph]
        self.done[graph] = new
        return new

    def branch(self, node: Node) -> Graph | None:
        """The branch of a choice that is always taken, the calls in it inlined; None if that is not known."""
        if node.op is not COND or node.effects or self.refs or self.inline.only not in (None, COND.name):
            return None
        branches, index = Cond.of(node).branches, self.known_index(node.inputs[0])
        if index is None:
            return None
        self.chosen += 1
        return self.graph(branches[min(max(index, 0), len(branches) - 1)])

    def known_index(self, index: Node) -> int | None:
        """The number of the branch that is taken: that of a constant, or of the platform that the program is for."""
        if index.op is CONSTANT:
            return int(index.value)
        if index.op.name != PLATFORM_INDEX or len(self.context.platforms) != 1:
            return None
        numbers = {platform: k for k, names in enumerate(index.attrs["platforms"]) for platform in names or (None,)}
        return numbers.get(self.context.platforms[0], numbers.get(None))

    def callee(self, node: Node, outermost: bool) -> Graph | None:
        """What to put in the place of a node, the calls in it inlined; None if the node stays.

        outermost: whether that place is the outermost graph, or else a loop, a branch or a function.
        """
        if len(node.subgraphs) != 1:
            return None
        # What counts is the size with everything inside inlined: functions that call each other twice double each time.
        body = self.graph(node.subgraphs[0].graph)
        large = len(body.nodes) > self.inline.shared_nodes
        reason = self.inline.declines(node, self.context, self.callers, large)
        if (
            reason is None
            and self.refs
            and not outermost
            and any(n.op is CONSTANT and n.aval.shape for n in body.nodes)
        ):
            reason = f"{node.op.name} stays, for JAX compiles no loop with both Refs and arrays in its body"
        if reason:
            self.context.note(reason)
        self.count += reason is None
        return body if reason is None else None


class _Copy:
    """Nodes copied into one graph, calls among them replaced by their bodies."""

    def __init__(self, inliner: _Inliner, occurrences: Occurrences, mapping: dict[Node, Node], outermost: bool) -> None:
        self.inliner = inliner
        self.outermost = outermost
        self.occurrences = occurrences
        self.mapping = mapping
        self.infos: dict[Node, tuple[Any, ...]] = {}

    def nodes(self, graph: Graph, infos: Mapping[Node, tuple[Any, ...]], body: bool) -> None:
        """Copies the nodes of `graph`. body: it takes the place of a call, and what is in it was inlined already."""
        mapping = self.mapping
        for node in graph.nodes:
            if node in mapping:
                continue
            if node.op is PARAM or node.op is CONSTANT or (node.op is STATE and not node.inputs):
                mapping[node] = node
                continue
            inputs = tuple([mapping[n] for n in node.inputs])
            if node.op is PROJECT:
                # A call's results were entered when the call was inlined.
                mapping[node] = project(inputs[0], node.attrs["index"])
                continue
            if not body and (branch := self.inliner.branch(node)) is not None:
                self.splice(node, inputs[1:], branch, infos.get(node, ()))
                continue
            callee = self.inliner.callee(node, self.outermost) if node.op.primitive is not None and not body else None
            if callee is not None:
                self.splice(node, inputs, callee, infos.get(node, ()))
                continue
            attrs = with_bodies(node, self.inliner.graph) if node.subgraphs and not body else node.attrs
            if body and OCCURRENCE in attrs:
                # Each copy of a distinct operation is one of its own.
                attrs = self.occurrences.fresh(attrs)
            new = node.with_inputs(inputs) if attrs is node.attrs else _with(node, inputs, attrs)
            mapping[node] = new
            if found := infos.get(node):
                known = self.infos.get(new)
                self.infos[new] = found if known is None else merge(known, found)

    def splice(self, call: Node, inputs: tuple[Node, ...], body: Graph, call_infos: tuple[Any, ...]) -> None:
        """Enters the results of `call`, computed by a copy of `body`."""
        data = [n for n in inputs if not n.aval.is_state]
        states = [n for n in inputs if n.aval.is_state]
        keys = state_keys(call)
        inner = _Copy(self.inliner, self.occurrences, dict(zip(body.params, data, strict=True)), self.outermost)
        inner.infos = self.infos
        incoming = dict(zip(keys, states, strict=True))
        for node in body.nodes:
            if node.op is STATE:
                key = body.params.index(node.inputs[0]) if node.inputs and node.inputs[0] in body.params else None
                key = node.aval.type.effect if not node.inputs else key
                if key in incoming:
                    inner.mapping[node] = incoming[key]
                elif node.inputs and node.inputs[0] in inner.mapping:
                    inner.mapping[node] = ref_state(inner.mapping[node.inputs[0]])
        own = self.inliner.context.sources.infos.get(body, {})
        inner.nodes(body, nested_infos(call, call_infos, own), body=True)
        outgoing = dict(incoming)
        for output in body.outputs[len(body.results) :]:
            outgoing[final_key(output, body)] = inner.mapping[output]
        results = [inner.mapping[n] for n in body.results] + [outgoing[key] for key in keys]
        if len(call.avals) == 1:
            self.mapping[call] = results[0]
        else:
            self.mapping[call] = call
            self.mapping.update((project(call, i), result) for i, result in enumerate(results))


def _with(node: Node, inputs: tuple[Node, ...], attrs: Any) -> Node:
    return make_node(node.op, inputs, attrs, node.avals, node.context, node.effects)


def _is_plain_jit(attrs: Any) -> bool:
    unspecified = all(type(s).__name__ == "UnspecifiedValue" for s in (*attrs["in_shardings"], *attrs["out_shardings"]))
    layouts = any(layout is not None for layout in (*attrs["in_layouts"], *attrs["out_layouts"]))
    mesh = attrs.get("ctx_mesh")
    automatic = str(getattr(attrs["inline"], "name", "AUTO")) in ("AUTO", "JAX_EARLY", "JAX_LATE")
    return (
        unspecified and not layouts and not attrs["compiler_options_kvs"] and automatic and (mesh is None or mesh.empty)
    )


def state_keys(node: Node) -> list[Any]:
    """What each state operand of a node belongs to: the position of a Ref among the operands, or an effect."""
    refs = sorted({e.input for e in node.effects if hasattr(e, "input")})
    effects = [n.aval.type.effect for n in node.inputs if len(n.avals) == 1 and n.aval.is_state]
    return [*refs, *effects[len(refs) :]]


def final_key(output: Node, body: Graph) -> Any:
    """What a final state of `body` belongs to: the position of a Ref among its parameters, or an effect."""
    if output.aval.type.effect is not None:
        return output.aval.type.effect
    return body.params.index(first_state(output).inputs[0])


def nested_infos(
    call: Node, call_infos: tuple[Any, ...], inner: Mapping[Node, tuple[Any, ...]]
) -> Mapping[Node, tuple[Any, ...]]:
    """Source information of inlined nodes: their own lines, under the call's named scopes, then the call's lines."""
    if not call_infos:
        return inner
    scope = call_infos[0].name_stack
    if call.op is JIT:
        scope = scope.extend(f"jit({call.attrs['name']})")
    return {
        node: (*[info.replace(name_stack=scope + info.name_stack) for info in infos[:KEPT]], *call_infos)[:KEPT]
        for node, infos in inner.items()
    }
