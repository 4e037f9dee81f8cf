"""Graphs back to jaxprs: equations are built directly, so that nothing is traced a second time."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import ClosedJaxpr, DebugInfo, Jaxpr, JaxprEqn, Literal, Var, new_jaxpr_eqn, primitives

from graphopt.ir.attrs import SubGraph, map_subgraphs
from graphopt.ir.graph import Graph
from graphopt.ir.node import Node
from graphopt.ir.op import CONSTANT, OCCURRENCE, PARAM, PROJECT, STATE
from graphopt.ir.sources import Sources

NO_DEBUG_INFO = DebugInfo("graphopt", "graphopt", None, None)


def jaxpr_of(graph: Graph, sources: Sources | None = None) -> ClosedJaxpr:
    """The closed jaxpr of a graph: one equation a node, operands before users, effects as the graph orders them.

    sources: gives equations their source lines, and unchanged sub-graphs the jaxprs that they were read from.
    """
    ambient = new_jaxpr_eqn([], [], primitives.add_p, {}, frozenset()).ctx
    return _Writer(sources or Sources(), ambient).write(SubGraph(graph), inner=False)  # type: ignore[no-any-return]


def equation_of(node: Node, invars: list[Any], sources: Sources | None = None) -> JaxprEqn:
    """One node as an equation on `invars` (its data operands); its results are new variables."""
    ambient = new_jaxpr_eqn([], [], primitives.add_p, {}, frozenset()).ctx
    return _Writer(sources or Sources(), ambient).equation(node, invars, None)


class _Writer:
    """Writes one graph; each sub-graph has a writer of its own."""

    def __init__(self, sources: Sources, ambient: Any) -> None:
        self.sources = sources
        self.ambient = ambient
        self.env: dict[Node, Any] = {}
        self.constvars: list[Var] = []
        self.consts: list[Any] = []

    def write(self, sub: SubGraph, inner: bool = True) -> Any:
        """A ClosedJaxpr, or the open Jaxpr that some primitives of jax 0.10 hold. inner: as an equation's parameter."""
        graph: Graph = sub.graph
        infos = self.sources.infos.get(graph, {})
        eqns = []
        for node in graph.nodes:
            if node.op is PARAM:
                self.env[node] = Var(node.aval.type)
            elif node.op is CONSTANT:
                self.env[node] = self.constant(node, inner)
            elif node.op is PROJECT:
                self.project(node)
            elif node.op is not STATE:
                eqn = self.equation(node, [self.env[n] for n in node.data_inputs], infos.get(node))
                eqns.append(eqn)
                self.env[node] = eqn.outvars[0] if len(node.avals) == 1 and eqn.outvars else eqn.outvars
        invars = [self.env[p] for p in graph.params]
        outvars = [self.env[n] for n in graph.results]
        effects = jaxpr_effects([*self.constvars, *invars], eqns)
        debug = self.sources.debug.get(graph, NO_DEBUG_INFO)
        if debug.arg_names is not None and len(debug.arg_names) != len(invars) - sub.constvars:
            debug = NO_DEBUG_INFO
        if sub.closed:
            jaxpr = Jaxpr(self.constvars, invars, outvars, eqns, effects, debug)
            return ClosedJaxpr(jaxpr, self.consts)
        return Jaxpr(invars[: sub.constvars], invars[sub.constvars :], outvars, eqns, effects, debug)

    def equation(self, node: Node, invars: list[Any], infos: tuple[Any, ...] | None) -> JaxprEqn:
        params = dict(node.attrs)
        if node.subgraphs:
            params = {name: map_subgraphs(value, self.subgraph) for name, value in params.items()}
        params.pop(OCCURRENCE, None)
        outvars = [Var(aval.type) for aval in node.data_avals]
        assert node.op.primitive is not None
        return new_jaxpr_eqn(
            invars,
            outvars,
            node.op.primitive,
            params,
            set(node.effects),
            infos[0] if infos else None,
            self.ambient if node.context is None else node.context,
        )

    def project(self, node: Node) -> None:
        if not node.aval.is_state:
            self.env[node] = self.env[node.inputs[0]][node.attrs["index"]]

    def subgraph(self, sub: SubGraph) -> Any:
        # One jaxpr for one graph: a function that is called twice is then lowered once.
        found = self.sources.jaxprs.get(sub)
        if found is None:
            found = self.sources.jaxprs[sub] = _Writer(self.sources, self.ambient).write(sub)
        return found

    def constant(self, node: Node, inner: bool) -> Any:
        """A constant as a literal or as a constant variable.

        Some primitives (checkpoint is one) hold a jaxpr that may have no constant variables: in a parameter of an
        equation every constant is a literal.
        """
        value = constant_value(node)
        if inner or (isinstance(node.value, np.ndarray) and node.value.ndim == 0):
            return Literal(value, node.aval.type)
        var = Var(node.aval.type)
        self.constvars.append(var)
        self.consts.append(value)
        return var


def constant_value(node: Node) -> Any:
    """The array of a constant node; where JAX's default is 32 bits it would take one of 64 for one of 32."""
    value = node.value
    if not isinstance(value, np.ndarray) or jax.dtypes.canonicalize_dtype(value.dtype) == value.dtype:
        return value
    with jax.ensure_compile_time_eval(), jax.enable_x64(True):
        return jnp.asarray(value)


def jaxpr_effects(invars: list[Any], eqns: list[JaxprEqn]) -> set[Any]:
    """The effects of a jaxpr: those of its equations, without those on Refs that it makes itself."""
    inputs = set(invars)
    return {e for eqn in eqns for e in eqn.effects if not hasattr(e, "input") or e.input in inputs}
