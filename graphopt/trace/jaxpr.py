"""JAX functions to graphs, by way of JAX's own tracing to a jaxpr.

Each equation becomes a node. An effect becomes a value: an effectful node takes the effect's state and returns the next
one, so that order, no merging and no dropping follow from the graph itself. There is one state for each effect of JAX
(the ordered and the unordered alike: an unordered print in a loop must still happen once an iteration) and one for each
Ref.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal, new_jaxpr_eqn, primitives

from graphopt.ir.attrs import EMPTY, Attrs, SubGraph, subgraphs_in
from graphopt.ir.aval import aval_of
from graphopt.ir.graph import Graph, make_graph
from graphopt.ir.node import NO_EFFECTS, Node, constant, effect_state, make_node, param, project, ref_state
from graphopt.ir.op import OCCURRENCE, op_of
from graphopt.ir.sources import Sources, merge


def trace_function(function: Callable[..., Any], *args: Any, **kwargs: Any) -> tuple[Graph, Sources]:
    """The graph of `function` on arguments like these, and where its nodes come from.

    args, kwargs: arrays, or anything with shape and dtype, in pytrees. The graph's parameters are their leaves.
    """
    return graph_of(jax.make_jaxpr(function)(*args, **kwargs))


def graph_of(closed: ClosedJaxpr) -> tuple[Graph, Sources]:
    """The graph of a closed jaxpr, and where its nodes come from. Constants of the jaxpr become constant nodes."""
    sources = Sources()
    ambient = new_jaxpr_eqn([], [], primitives.add_p, {}, frozenset()).ctx
    return _Reader(sources, ambient, {}, set()).read(closed.jaxpr, closed.consts), sources


class _Reader:
    """Reads one jaxpr and, each with a reader of its own, the jaxprs inside it."""

    def __init__(self, sources: Sources, ambient: Any, known: dict[int, SubGraph], distinct: set[SubGraph]) -> None:
        self.sources = sources
        self.known = known  # jaxprs that were read, by identity: the outermost one keeps them alive
        self.distinct = distinct  # what holds a distinct operation: two calls of it are two values too
        self.ambient = ambient
        self.env: dict[Any, Node] = {}
        self.states: dict[Any, Node] = {}
        self.infos: dict[Node, tuple[Any, ...]] = {}
        self.occurrences = 0

    def read(self, jaxpr: Jaxpr, consts: Any) -> Graph:
        """The graph of `jaxpr`. With `consts` None, an open jaxpr: its constvars are the first parameters."""
        invars = [*jaxpr.constvars, *jaxpr.invars] if consts is None else jaxpr.invars
        params = [param(i, aval_of(v.aval)) for i, v in enumerate(invars)]
        self.env.update(zip(invars, params, strict=True))
        for var, value in zip(jaxpr.constvars, consts or (), strict=consts is not None):
            self.env[var] = constant(value, aval_of(var.aval))
        for eqn in jaxpr.eqns:
            self.equation(eqn)
        outputs = [self.atom(v) for v in jaxpr.outvars]
        # In the order in which a node that holds this graph lists them: Refs by position, then effects by name.
        kept = [key for key in self.states if not (isinstance(key, Node) and key.op.distinct)]
        kept.sort(key=lambda key: (0, params.index(key), "") if key in params else (1, 0, effect_name(key)))
        final = [self.states[key] for key in kept]
        graph = make_graph(params, [*outputs, *final])
        self.sources.record(graph, self.infos)
        self.sources.debug.setdefault(graph, jaxpr.debug_info)
        return graph

    def equation(self, eqn: JaxprEqn) -> None:
        op = op_of(eqn.primitive)
        attrs = self.attributes(eqn.params, op.distinct) if eqn.params or op.distinct else EMPTY
        inputs = tuple(self.atom(v) for v in eqn.invars)
        avals = tuple(aval_of(v.aval) for v in eqn.outvars)
        effects, keys = NO_EFFECTS, []
        if eqn.effects:
            effects = frozenset(positional(effect, eqn.invars) for effect in eqn.effects)
            keys = self.state_keys(effects, inputs)
            before = tuple(self.state(key) for key in keys)
            inputs, avals = (*inputs, *before), (*avals, *(s.aval for s in before))
        context = None if eqn.ctx is self.ambient else eqn.ctx
        node = make_node(op, inputs, attrs, avals, context, effects)
        known = self.infos.get(node)
        self.infos[node] = (eqn.source_info,) if known is None else merge(known, (eqn.source_info,))
        if len(avals) == 1 and eqn.outvars:
            self.env[eqn.outvars[0]] = node
            return
        for i, var in enumerate(eqn.outvars):
            self.env[var] = project(node, i)
        for i, key in enumerate(keys, start=len(eqn.outvars)):
            self.states[key] = project(node, i)

    def state_keys(self, effects: frozenset[Any], inputs: tuple[Node, ...]) -> list[Any]:
        """What each state of a node belongs to: an effect, or the node of a Ref; in an order that does not vary."""
        refs = sorted({e.input for e in effects if hasattr(e, "input")})
        others = [e for e in effects if not hasattr(e, "input") and type(e).__name__ not in _WITHOUT_STATE]
        return [*(inputs[i] for i in refs), *sorted(others, key=effect_name)]

    def state(self, key: Any) -> Node:
        found = self.states.get(key)
        if found is None:
            found = ref_state(key) if isinstance(key, Node) else effect_state(key)
        return found

    def atom(self, atom: Any) -> Node:
        if not isinstance(atom, Literal):
            return self.env[atom]
        value, dtype = atom.val, getattr(atom.aval, "dtype", None)
        if isinstance(dtype, np.dtype) and not isinstance(value, jax.Array):
            value = np.asarray(value, dtype)
        return constant(value, aval_of(atom.aval))

    def attributes(self, params: dict[str, Any], distinct: bool) -> Attrs:
        """The parameters of an equation, with each jaxpr among them read to a graph."""
        values = params
        for name, value in params.items():
            if type(value) in _JAXPRS:
                values = {**values, name: self.subgraph(value)}
            elif isinstance(value, tuple) and any(type(v) in _JAXPRS for v in value):
                mapped: list[Any] = [self.subgraph(v) if type(v) in _JAXPRS else v for v in value]
                values = {**values, name: type(value)(*mapped) if hasattr(value, "_fields") else tuple(mapped)}
        if distinct or any(sub in self.distinct for sub in subgraphs_in(values.values())):
            values = {**values, OCCURRENCE: self.occurrences}
            self.occurrences += 1
        return Attrs(values)

    def subgraph(self, jaxpr: Any) -> SubGraph:
        if id(jaxpr) in self.known:
            return self.known[id(jaxpr)]
        closed = hasattr(jaxpr, "consts")
        reader = _Reader(self.sources, self.ambient, self.known, self.distinct)
        graph = reader.read(jaxpr.jaxpr if closed else jaxpr, jaxpr.consts if closed else None)
        found = SubGraph(graph, closed, 0 if closed else len(jaxpr.constvars))
        self.sources.jaxprs.setdefault(found, jaxpr)
        self.known[id(jaxpr)] = found
        if reader.occurrences:
            self.distinct.add(found)
        return found


_JAXPRS = (ClosedJaxpr, Jaxpr)

# A named axis in use and a Ref made inside the jaxpr are facts about an equation, not things that happen in an order.
_WITHOUT_STATE = frozenset({"NamedAxisEffect", "InternalMutableArrayEffect"})


def effect_name(effect: Any) -> str:
    """A name to sort effects by."""
    return f"{type(effect).__name__} {effect}"


def positional(effect: Any, invars: Any) -> Any:
    """An effect on a Ref by the position of the operand instead of the jaxpr's variable."""
    if not hasattr(effect, "input") or isinstance(effect.input, int):
        return effect
    return effect.replace(next(i for i, v in enumerate(invars) if v is effect.input))
