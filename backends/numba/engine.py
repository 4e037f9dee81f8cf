"""The Numba engine: what it takes, what an element costs, and how a kernel's body becomes source."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from jax.extend.core import primitives as p

from graphopt.analysis.access import MOVES
from graphopt.analysis.derive import IOTA, Derivation, write_outputs
from graphopt.analysis.engine import Plan
from graphopt.analysis.parts import accumulate, is_cut, reduce_in_parts
from graphopt.analysis.reductions import CUMULATIVE, REDUCTIONS, axes_of, is_arg
from graphopt.backends.numba.emit import function_of, source_of
from graphopt.backends.numba.objects import Launch, add_kernel, kernel_key, scratch_bytes
from graphopt.backends.numba.scalar import DTYPES, SCALARS, reason
from graphopt.ir.graph import Graph
from graphopt.ir.loop import LoopProgram
from graphopt.ir.node import Node
from graphopt.ir.op import PARAM, op_of

LOAD, ARITHMETIC, DIVISION, FUNCTION = 0.1, 0.05, 0.3, 0.5
"""Nanoseconds for one element."""

SLOW = {op_of(primitive) for primitive in (p.div_p, p.rem_p, p.sqrt_p, p.rsqrt_p)}


@dataclass(slots=True)
class _Planned:
    source: str
    launch: Launch


@dataclass(frozen=True)
class NumbaEngine:
    """Kernels for a CPU, compiled by Numba."""

    name: str = "numba"

    def declines(self, node: Node) -> str | None:
        """Why an operation cannot be part of a kernel; None where it can."""
        if node.effects or node.context is not None or len(node.avals) != 1 or node.subgraphs:
            return f"{node.op.name}"
        avals = (*(n.aval for n in node.inputs), node.aval)
        if not all(aval.is_plain for aval in avals):
            return f"{node.op.name}, of a type that says more than shape and dtype"
        if any(aval.dtype not in DTYPES for aval in avals):
            return f"{node.op.name} of {', '.join(dict.fromkeys(str(a.dtype) for a in avals if a.dtype not in DTYPES))}"
        if any(aval.size == 0 for aval in avals):
            return "what is empty"
        if node.op in MOVES:
            return "a reshape in another order" if node.attrs.get("dimensions") and "new_sizes" in node.attrs else None
        if node.op is IOTA:
            return None
        if node.op in REDUCTIONS:
            return _declined_reduction(node)
        if node.op in CUMULATIVE:
            return f"{node.op.name} of booleans" if node.aval.dtype.kind == "b" else None
        return reason(node) if node.op in SCALARS or node.op.elementwise else node.op.name

    def cost(self, node: Node) -> float:
        """Nanoseconds that one element of a node takes."""
        if node.op is PARAM:
            return LOAD
        if node.op in MOVES:
            return 0.0
        if node.op in SLOW:
            return DIVISION
        return ARITHMETIC if node.op in SCALARS or node.op in REDUCTIONS or node.op is IOTA else FUNCTION

    def plan(self, body: Graph, any_order: bool) -> Plan:
        """The loop program of a body, with its source known by its key."""
        program, work = self.program(body)
        source, launch = source_of(program, any_order), _launch(program)
        key = kernel_key(source, launch)
        _planned.setdefault(key, _Planned(source, launch))
        return Plan(key, program, work)

    def program(self, body: Graph) -> tuple[LoopProgram, float]:
        """The loop program that is expected to take the least, and nanoseconds of it."""
        rank = len(body.outputs[0].aval.shape)
        best = None
        for parallel in dict.fromkeys((rank, max(rank - 1, 0), max(rank - 2, 0))):
            derivation = Derivation(body, self.cost)
            for node in body.nodes:
                if is_cut(node):
                    reduce_in_parts(derivation, node)
            if body.outputs[0].op in CUMULATIVE:
                accumulate(derivation, body.outputs[0])
                return derivation.program, derivation.work
            write_outputs(derivation, parallel)
            # Sums in another order differ by rounding: that must not decide against what more threads can share.
            if best is None or derivation.work < 0.999 * best.work:
                best = derivation
        assert best is not None
        return best.program, best.work


_planned: dict[int, _Planned] = {}


def source_by_key(key: int) -> str:
    """The source of a kernel that was planned."""
    return _planned[key].source


def compile_kernel(key: int) -> None:
    """Compiles a planned kernel, where that has not been done."""
    planned = _planned[key]
    add_kernel(key, function_of(planned.source), planned.launch)


def _launch(program: LoopProgram) -> Launch:
    by_role: dict[str, list[Any]] = {"in": [], "out": [], "scratch": []}
    for buffer in program.buffers:
        by_role[buffer.role].append(buffer)
    return Launch(
        len(by_role["in"]),
        len(by_role["out"]),
        scratch_bytes([buffer.size * buffer.dtype.itemsize for buffer in by_role["scratch"]]),
        tuple((phase.extent, phase.grain) for phase in program.phases),
    )


def _declined_reduction(node: Node) -> str | None:
    shape, axes = node.inputs[0].aval.shape, axes_of(node)
    if is_arg(node) and (node.inputs[0].aval.dtype.kind == "b" or node.attrs["index_dtype"] not in DTYPES):
        return f"{node.op.name} of booleans"
    if node.op in SCALARS or not axes:
        return f"{node.op.name} over no axis"
    trailing = tuple(range(len(shape) - len(axes), len(shape)))
    if tuple(sorted(axes)) != trailing and math.prod(shape[max(axes) + 1 :]) > 1:
        return f"{node.op.name} over other axes than the last ones"
    return None
