"""What a repeated stretch costs as it is and as a loop: to compile, and to run.

The numbers were measured with XLA: its compilation takes time in proportion to a program's operations and, from some
thousands on, to their square; each kernel of a long program is called once, with its code in no cache.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from jax.extend.core import primitives as p

from graphopt.analysis.growth import source_of
from graphopt.analysis.repetition import Earlier, Stretch, Varying
from graphopt.ir.node import Node
from graphopt.ir.op import CONSTANT, op_of

MATRIX = (op_of(p.dot_general_p), op_of(p.conv_general_dilated_p))

OPERATION, SQUARE = 4.7e-4, 3e-7
"""Seconds of compilation for each operation, and for each pair of them."""

BODY, STACK = 0.006, 0.006
"""Seconds of compilation for each operation of a loop's body, and for each array that it reads or writes a part of."""

LEAST_GAIN, LEAST_SECONDS = 1.5, 0.1
"""How many times sooner, and by how many seconds, a program is to be compiled at least for its loops."""

TOLERATED = 0.05
"""What a loop may take besides, of the time of its steps."""

COLD, COLD_OPERATION = 2.5e-6, 5e-10
"""Seconds that an operation takes longer whose code is in no cache, at most, and for each one of the program."""


@dataclass(frozen=True, slots=True)
class Machine:
    """Roughly: operations of matrix products and other ones a second, bytes read or written a second, seconds for each
    kernel and for each iteration of a loop. chooses: whether one of many arrays is chosen in a loop without ado."""

    products: float
    elements: float
    bytes: float
    kernel: float
    iteration: float
    chooses: bool


CPU = Machine(1.5e11, 4e9, 1.4e10, 3e-7, 3e-7, True)
ACCELERATOR = Machine(2e13, 2e12, 1e12, 3e-6, 5e-6, False)


def machine_of(platforms: Collection[str]) -> Machine:
    """The machine for these platforms, by JAX's names."""
    return CPU if set(platforms) <= {"cpu"} else ACCELERATOR


@dataclass(frozen=True, slots=True)
class Price:
    """Seconds of compilation with and without loops; of one step of each loop, together, and what loops add to them."""

    compiled: float
    compiled_rolled: float
    steps: float
    added: float
    copied: int

    @property
    def declined(self) -> str | None:
        """Why the loops are not worth it; None if they are."""
        if self.compiled - self.compiled_rolled < LEAST_SECONDS or self.compiled < LEAST_GAIN * self.compiled_rolled:
            return f"compiling takes about {self.compiled:.2g} s as it is and {self.compiled_rolled:.2g} s with loops"
        if self.added > 0:
            return (
                f"a step of {self.steps * 1e6:.3g} µs would take {self.added * 1e6:.2g} µs more than is made up for"
                f"{f', for it copies {self.copied} bytes of operands' if self.copied else ''}"
            )
        return None


def compile_seconds(nodes: int) -> float:
    """Seconds that XLA takes to compile a program of so many operations."""
    return OPERATION * nodes + SQUARE * nodes**2


def price(
    nodes: int,
    group: Sequence[Stretch],
    written: Mapping[Stretch, Sequence[int]],
    apart: Mapping[Stretch, Mapping[int, Collection[int]]],
    machine: Machine,
) -> Price:
    """What loops for stretches that read each other's values cost, in a graph of so many nodes.

    written: of each the rows that are read outside of it, together or one by one. apart: the steps of
    which they are read one by one.

    Operands of the program are copied in each step, and results that are read one by one are copied twice, into an
    array and out of it. What one loop keeps for another is in memory without loops as well, where XLA does not fuse
    steps with each other. (Measured on transformers' gradients, widths 64 to 256: within 0.4 ms of 2 to 8 a step.)
    """
    rows = sum(len(stretch.rows) for stretch in group)
    rolled = nodes - sum((stretch.count - 1) * len(stretch.columns) // stretch.count for stretch in group)
    stacks, added, steps, copied = 0, 0.0, 0.0, 0
    cold = min(COLD, COLD_OPERATION * nodes)
    for stretch in group:
        steps += sum(seconds(row[0], machine) for row in stretch.rows)
        added += machine.iteration + _between_steps(stretch, machine)
        is_fused = _is_one_fusion(stretch)
        parts, moved = 0, 0.0
        for row in written[stretch]:
            parts += 1
            share = len(apart[stretch].get(row, ())) / stretch.count
            moved += stretch.rows[row][0].aval.nbytes * max(2 * share, is_fused)
        for operand in {o for row in stretch.operands for o in row if isinstance(o, Varying)}:
            size = operand.nodes[0].aval.nbytes
            if all(node.op is CONSTANT for node in operand.nodes) and size <= 64:
                continue
            if source_of(operand.nodes, group) is None:
                copied += size
                added += 2e-6 if machine.chooses else 2 * size / machine.bytes
                moved += 2 * size
            else:
                moved += is_fused * size
            parts += 1
        stacks += parts
        added += parts * machine.kernel + moved / machine.bytes
        added -= sum(row[0].op not in MATRIX for row in stretch.rows) * cold
    after = compile_seconds(rolled) + BODY * rows + STACK * stacks
    return Price(compile_seconds(nodes), after, steps, added - TOLERATED * steps, copied)


def seconds(node: Node, machine: Machine) -> float:
    """Seconds that a node takes by itself."""
    sizes = [aval.size for aval in node.avals]
    if node.op in MATRIX and node.op.flops is not None:
        return machine.kernel + node.op.flops(node.attrs, [n.aval for n in node.inputs], node.avals) / machine.products
    if node.op.flops is not None:
        read = [n.aval for n in node.inputs]
        return machine.kernel + node.op.flops(node.attrs, read, node.avals) / machine.elements
    return machine.kernel + sum(sizes) / machine.elements


def _between_steps(stretch: Stretch, machine: Machine) -> float:
    """Seconds to write and read again what goes from step to step, where XLA fuses all steps with each other.

    It computes such a fusion of many steps no faster than one step at a time, vectors or not: a loop is slower only
    where memory is slower than arithmetic. Both are taken at the rates at which nothing else is done.
    """
    if not _is_one_fusion(stretch):
        return 0.0
    carried = {operand.row for row in stretch.operands for operand in row if isinstance(operand, Earlier)}
    moved = sum(2 * stretch.rows[row][0].aval.nbytes for row in carried)
    computed = sum(row[0].aval.size for row in stretch.rows if not _only_moves(row[0]))
    return max(0.0, moved / (1.4 * machine.bytes) - computed / (1.5 * machine.elements))


def _is_one_fusion(stretch: Stretch) -> bool:
    """Whether XLA fuses all steps with each other."""
    return all(row[0].op.elementwise or _only_moves(row[0]) for row in stretch.rows)


def _only_moves(node: Node) -> bool:
    flops = node.op.flops
    return flops is not None and flops(node.attrs, [n.aval for n in node.inputs], node.avals) == 0
