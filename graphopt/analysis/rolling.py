"""What a repeated stretch costs as it is and as a loop: to compile, and to run.

The numbers were measured with XLA: its compilation takes time in proportion to a program's operations and, from some
thousands on, to their square; each kernel of a long program is called once, with its code in no cache.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from jax.extend.core import primitives as p

from graphopt.analysis.growth import source_of
from graphopt.analysis.repetition import Earlier, Same, Stretch, Varying
from graphopt.ir.node import Node
from graphopt.ir.op import CONSTANT, op_of

MATRIX = (op_of(p.dot_general_p), op_of(p.conv_general_dilated_p))

OPERATION, SQUARE = 4.7e-4, 3e-7
"""Seconds of compilation for each operation, and for each pair of them."""

BODY, STACK = 0.006, 0.006
"""Seconds of compilation for each operation of a loop's body, and for each array that it reads or writes a part of."""

LEAST_GAIN, LEAST_SECONDS = 1.5, 0.1
"""How many times sooner, and by how many seconds, a program is to be compiled at least for its loops."""

CALLS = 1000
"""So many times, at least, a program is called for which the shorter compilation of slower loops is no gain."""

BESIDE = 7.0
"""How many times as many operations a fusion of steps does that do not need each other, of those of `Machine.elements`:
81 steps of a bilateral filter, each with an exponential and six operations more, take 9.8 ms for 430k elements on two
cores, and 26 in a loop; 80 steps of x * 0.9 + exp(-x * x) * 0.1 take 39, and 17."""

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

    def gain(self, count: int) -> float:
        """Seconds of compilation, and of CALLS calls, that loops of so many steps save."""
        return self.compiled - self.compiled_rolled - CALLS * count * self.added

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
    kernels: bool = False,
) -> Price:
    """What loops for stretches that read each other's values cost, in a graph of so many nodes.

    written: of each the rows that are read outside of it, together or one by one. apart: the steps of
    which they are read one by one. kernels: whether loops may become kernels, if their steps are element by element.

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
        added += machine.iteration + _between_steps(stretch, machine, kernels)
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


def _between_steps(stretch: Stretch, machine: Machine, kernels: bool) -> float:
    """Seconds to write and read again what goes from step to step, where XLA fuses all steps with each other.

    Operations of such a fusion that need each other from step to step take no less than in a loop, vectors or not; of
    the others some are done at a time. A loop is slower only where memory is slower than arithmetic. Both are taken at
    the rates at which nothing else is done. A loop that becomes a kernel keeps in registers what goes between steps.
    """
    if not _is_one_fusion(stretch):
        return 0.0
    carried = {operand.row for row in stretch.operands for operand in row if isinstance(operand, Earlier)}
    moved = sum(2 * stretch.rows[row][0].aval.nbytes for row in carried)
    computing = [row for row, nodes in enumerate(stretch.rows) if not _only_moves(nodes[0])]
    of_its_own = kernels and all(row[0].op.elementwise for row in stretch.rows)
    rate = (1.5 if of_its_own else BESIDE) * machine.elements
    computed = sum(stretch.rows[row][0].aval.size for row in computing) / rate
    size = max((stretch.rows[row][0].aval.size for row in carried), default=0)
    waited = _chain(stretch, set(computing), carried) * size / (1.5 * machine.elements)
    return max(0.0, moved / (1.4 * machine.bytes) - max(computed, waited))


def _chain(stretch: Stretch, computing: Collection[int], carried: Collection[int]) -> int:
    """How many operations of a step need each other on the longest way from the step before to the step after."""
    lengths: dict[int, int] = {}
    for row, operands in enumerate(stretch.operands):
        before = [0 for operand in operands if isinstance(operand, Earlier)]
        before += [lengths[o.row] for o in operands if isinstance(o, Same) and o.row in lengths]
        if before:
            lengths[row] = max(before) + (row in computing)
    return max((lengths.get(row, 0) for row in carried), default=0)


def _is_one_fusion(stretch: Stretch) -> bool:
    """Whether XLA fuses all steps with each other."""
    return all(row[0].op.elementwise or _only_moves(row[0]) for row in stretch.rows)


def _only_moves(node: Node) -> bool:
    flops = node.op.flops
    return flops is not None and flops(node.attrs, [n.aval for n in node.inputs], node.avals) == 0
