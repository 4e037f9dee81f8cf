"""Constant folding: what depends on constants alone is computed now.

Before:
    %1: i32[2] = constant(1, 2)
    %2: i32[] = constant(3)
    %3: i32[2] = add(%1, %2)
After:
    %3: i32[2] = constant(4, 5)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from graphopt.analysis.refs import uses_refs
from graphopt.ir.graph import Graph, nested_graphs
from graphopt.ir.node import Node, constant
from graphopt.ir.op import CONSTANT
from graphopt.ops import described_ops
from graphopt.rewrite.passes import Context, Pass, counted
from graphopt.rewrite.rebuild import rebuild, with_bodies
from graphopt.rewrite.rule import rewrites
from graphopt.rewrite.safety import KINDS

FOLDED = tuple(op for op in described_ops() if op.fold is not None)


@dataclass(frozen=True)
class Fold(Pass):
    """Folds operations on constants whose value NumPy gives with the same bits as XLA (see `Op.fold`).

    max_elements: larger results are left to be computed where they are used; a large array is never made here.
    """

    max_elements: int = 256
    name = "fold"

    def run(self, graph: Graph, context: Context) -> Graph:
        """The graph with constants folded, in sub-graphs too."""
        done: dict[Graph, Graph] = {}
        folded, large = set[Node](), set[Node]()
        scalars_only = set(nested_graphs(graph)) - {graph} if uses_refs(graph) else set()
        if scalars_only:
            context.note("in loops, branches and calls of a program with Refs only scalars are folded")

        def fold_graph(current: Graph) -> Graph:
            if current not in done:

                def fold_node(node: Node, inputs: tuple[Node, ...]) -> Node | None:
                    return visit(node, inputs, current in scalars_only)

                done[current] = rebuild(current, context.sources, fold_node)
            return done[current]

        def visit(node: Node, inputs: tuple[Node, ...], scalars: bool) -> Node | None:
            if node.op.fold is not None and inputs and all(n.op is CONSTANT for n in inputs):
                if scalars and node.aval.shape:
                    return None
                found = self.value(node, inputs)
                if found is not None:
                    folded.add(node)
                elif node.aval.is_plain and max(n.aval.size for n in inputs) > self.max_elements:
                    large.add(node)  # what is made of a few numbers is computed where it is used, and not worth a note
                return found
            if node.subgraphs:
                return node.with_attrs(with_bodies(node, fold_graph)).with_inputs(inputs)
            return None

        new = fold_graph(graph)
        if folded:
            context.note(f"{counted(len(folded), 'operation')} on constants computed")
        if large:
            operations = counted(len(large), "operation")
            context.note(f"{operations} on constants left for `bind`: of more than {self.max_elements} elements")
        return new

    def value(self, node: Node, inputs: tuple[Node, ...]) -> Node | None:
        """The node's value as a constant; None where it is not known to the bit, or too large."""
        plain = all(n.aval.is_plain and isinstance(n.value, np.ndarray) for n in inputs)
        if not plain or not node.aval.is_plain or node.aval.size > self.max_elements or node.context is not None:
            return None
        if any(_has_foreign_nan(n.value) for n in inputs):
            return None
        assert node.op.fold is not None
        array = node.op.fold(node.attrs, *(n.value for n in inputs))
        if array is NotImplemented:
            return None
        if array.dtype != node.aval.dtype or array.shape != node.aval.shape:
            raise AssertionError(f"fold of {node!r} gave {array.dtype}{array.shape}")
        return constant(np.ascontiguousarray(array).reshape(array.shape), node.aval)


@rewrites(*FOLDED, safety={KINDS: "exact"}, local=True, all_operands=(CONSTANT,))
def known_value(node: Node) -> Node | None:
    """f(constants) → a constant, of a few elements"""
    return Fold().value(node, node.inputs)


@rewrites(*FOLDED, safety={KINDS: "exact"}, local=True, all_operands=(CONSTANT,))
def known_scalar(node: Node) -> Node | None:
    """f(constants) → a constant without dimensions"""
    return None if node.aval.shape else Fold().value(node, node.inputs)


def _has_foreign_nan(array: np.ndarray[Any, Any]) -> bool:
    """Whether there is a NaN of a type that NumPy lacks (bfloat16, 8 bits): XLA moves these by way of float32, which
    gives NaN other bits."""
    foreign = array.dtype.isbuiltin != 1 and jax.dtypes.issubdtype(array.dtype, np.floating)
    return bool(foreign and np.isnan(array).any())
