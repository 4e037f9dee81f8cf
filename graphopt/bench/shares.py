"""How much of programs runs in kernels, of what is not matrix products and convolutions; what kernels take before."""

from __future__ import annotations

import importlib
import statistics
import time
from collections.abc import Sequence

import jax
from jax.extend.core import primitives as p

import graphopt
from graphopt.analysis.cost import node_cost
from graphopt.backends.numba.engine import NumbaEngine
from graphopt.backends.numba.objects import register_handler
from graphopt.bench.programs import Program
from graphopt.ir.graph import Graph, nested_graphs
from graphopt.ir.op import op_of
from graphopt.ops.kernel import KERNEL
from graphopt.passes.choose import runs_of

PRODUCTS = (op_of(p.dot_general_p), op_of(p.conv_general_dilated_p))


def work(graph: Graph) -> tuple[int, int, int, int]:
    """Operations and bytes in kernels, and both of all that is no product, in one run of a graph.

    Bytes are those of operands and results, each operation by itself; loops count by their iterations.
    """
    bodies = {n.attrs["body"].graph for inner in nested_graphs(graph) for n in inner.nodes if n.op is KERNEL}
    totals = [0, 0, 0, 0]
    for inner, runs in runs_of(graph).items():
        for node in inner.nodes:
            if node.subgraphs or node.op in PRODUCTS or node.op.primitive is None:
                continue
            cost = node_cost(node)
            for place, amount in enumerate((cost.flops, cost.bytes)):
                totals[2 + place] += runs * amount
                totals[place] += runs * amount * (inner in bodies)
    return totals[0], totals[1], totals[2], totals[3]


def over(programs: Sequence[Program]) -> str:
    """The shares over programs together, in words."""
    found = [work(graphopt.jit(each.make()).explain(*each.arguments()).graph) for each in programs]
    flops, moved, all_flops, all_moved = map(sum, zip(*found, strict=True))
    return (
        f"Of what is not matrix products and convolutions, {100 * flops / max(all_flops, 1):.0f}% of the operations "
        f"and {100 * moved / max(all_moved, 1):.0f}% of the bytes ran in kernels."
    )


def compiling(seconds: Sequence[float]) -> str:
    """How long kernels took to compile, in words."""
    if not seconds:
        return "No kernel was compiled."
    middle, longest = 1e3 * statistics.median(seconds), 1e3 * max(seconds)
    return f"Compiling a kernel took {middle:.0f} ms (median of {len(seconds)}; the longest {longest:.0f} ms)."


def beginning() -> str:
    """Does what the first kernel of a process begins with, so that no program's first call has it; what it took.

    Modules are imported once a process, as JAX's are before any first call. What XLA calls for each kernel is compiled
    once a machine: later processes find it in the store.
    """
    if jax.default_backend() != "cpu" or NumbaEngine().unavailable() is not None:
        return "There are no kernels here."
    start = time.perf_counter()
    importlib.import_module("graphopt.backends.numba.names")
    importlib.import_module("graphopt.backends.numba.handler")
    imported = time.perf_counter()
    register_handler()
    done = time.perf_counter()
    return (
        f"Before first calls: {1e3 * (imported - start):.0f} ms to import what makes kernels, once a process, and "
        f"{1e3 * (done - imported):.0f} ms to compile what calls them, once a machine."
    )
