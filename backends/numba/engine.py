"""The Numba engine: what it takes, what an element costs, and how a kernel's body becomes source."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import jax.numpy as jnp
import numpy as np
from jax.extend.core import primitives as p

from graphopt.analysis.access import MOVES
from graphopt.analysis.beside import parts_apart, write_beside
from graphopt.analysis.between import between
from graphopt.analysis.derive import IOTA, Derivation
from graphopt.analysis.engine import PREDICTED, Pairs, Plan, Schedule
from graphopt.analysis.factors import blocked
from graphopt.analysis.in_place import is_right
from graphopt.analysis.indexed import INDEXED
from graphopt.analysis.indexed import declined as declined_indexed
from graphopt.analysis.kernel_time import Work, core_times, kernel_time, phase_threads, work_of
from graphopt.analysis.loops import LOOPS, declined_loop, iterations
from graphopt.analysis.machine import Machine, this_machine, waking
from graphopt.analysis.nests import SMALL
from graphopt.analysis.products import DOT, expanded
from graphopt.analysis.products import declined as declined_product
from graphopt.analysis.reductions import CUMLOGSUMEXP, CUMULATIVE, REDUCE, REDUCTIONS, axes_of, is_arg
from graphopt.analysis.scattering import SCATTERS
from graphopt.analysis.scattering import declined as declined_scatter
from graphopt.analysis.small_solves import SOLVES
from graphopt.analysis.small_solves import declined as declined_solve
from graphopt.analysis.sorting import SORT, declined_sort
from graphopt.analysis.top_k import TOP_K
from graphopt.analysis.top_k import declined as declined_top_k
from graphopt.analysis.ways import ways
from graphopt.analysis.windows import GATHER, SELECTED, WINDOW, WINDOWS
from graphopt.analysis.writing import CHAINED, TooLargeError
from graphopt.backends.numba.costs import scalar_cost
from graphopt.backends.numba.emit import source_of
from graphopt.backends.numba.frame import check_version
from graphopt.backends.numba.objects import Launch, add_kernel, kernel_key
from graphopt.backends.numba.records import LARGE
from graphopt.backends.numba.scalar import DTYPES, FUNCTIONS, SCALARS, expression, reason
from graphopt.errors import EngineError
from graphopt.ir.attrs import EMPTY
from graphopt.ir.aval import is_floating
from graphopt.ir.graph import Graph, make_graph
from graphopt.ir.loop import LoopProgram
from graphopt.ir.node import Node
from graphopt.ir.op import CONSTANT, PARAM, op_of, ops_of
from graphopt.passes.bypass import BypassCaches
from graphopt.passes.cascade import Cascade
from graphopt.passes.fetch import FetchAhead
from graphopt.passes.jam import Jam
from graphopt.passes.peel import Peel
from graphopt.passes.reciprocal import Reciprocal
from graphopt.passes.register_block import RegisterBlock
from graphopt.passes.split import Split
from graphopt.passes.terms import Terms
from graphopt.passes.tile import Tile, Tiled

# fmt: off
_SAME_BITS = [
    "add", "sub", "mul", "neg", "max", "min", "abs", "sign", "square", "floor", "ceil", "round",
    "select_n", "clamp", "convert_element_type", "bitcast_convert_type", "reduce_max", "reduce_min", "cummax", "cummin",
    "reduce_window_max", "reduce_window_min", "select_and_gather_add",
    "eq", "ne", "lt", "le", "gt", "ge", "is_finite", "nextafter", "reduce_precision", "real", "imag", "complex", "conj",
]
# fmt: on

LOAD, ARITHMETIC, DIVISION, FUNCTION, LOOKUP = 0.1, 0.05, 0.2, 0.25, 0.4
"""Nanoseconds for one element."""

NEW = 0.6
"""Nanoseconds for one element that is written to new memory, and read from there."""

CALL = 5_000.0
"""Nanoseconds of one more kernel: its call, and threads that begin and end together."""

SAME_BITS = {
    *MOVES,
    *INDEXED,
    *SCATTERS,
    IOTA,
    SORT,
    TOP_K,
    *ops_of(_SAME_BITS).values(),
}
"""Operations that IEEE 754 rounds in one way, or not at all. XLA divides and takes roots in its own ways."""

COMPLEX_ROUNDED = {op_of(primitive) for primitive in (p.mul_p, p.square_p, p.abs_p, p.sign_p, p.scatter_mul_p)}
"""Those of them that on complex numbers are several, which XLA may round once."""

_SUMS = (p.reduce_sum_p, p.reduce_prod_p, p.cumsum_p, p.cumprod_p, p.reduce_window_sum_p)
SUMS = set(map(op_of, _SUMS))
"""The reductions of complex numbers."""

COMBINES = (REDUCE, WINDOW)
"""Operations that combine by a graph of their own."""

DIVISIONS = {op_of(primitive) for primitive in (p.div_p, p.rem_p, p.sqrt_p)}


@dataclass(frozen=True, slots=True)
class Planned:
    """A kernel that may be compiled. any_order: whether its sums and products may be reordered. origins: of nodes in
    its statements that are not of its body those that they are computed for."""

    program: LoopProgram
    any_order: bool
    source: str
    launch: Launch
    origins: Mapping[Node, Node] = field(default_factory=dict, compare=False, repr=False)

    @property
    def work(self) -> Work:
        """What one run does."""
        return work_of(self.program, scalar_cost, Machine())

    @property
    def seconds(self) -> float:
        """How long one run is expected to take, with all threads."""
        return self.nanoseconds(this_machine()) / 1e9

    def nanoseconds(self, machine: Machine) -> float:
        """How long one run is expected to take on a machine."""
        return kernel_time(self.program, scalar_cost, machine)

    def threads(self, machine: Machine) -> tuple[float, ...]:
        """How many threads are expected to share each phase."""
        return phase_threads(self.program, scalar_cost, machine)


@dataclass(frozen=True)
class NumbaEngine:
    """Kernels for a CPU, compiled by Numba. without: names of the passes over loops that are left out."""

    name: str = "numba"
    tile: Tile = field(default=Tile(scalar_cost), repr=False)
    split: Split = field(default=Split(scalar_cost), repr=False)
    peel: Peel = field(default=Peel(), repr=False)
    jam: Jam = field(default=Jam(), repr=False)
    bypass: BypassCaches = field(default=BypassCaches(), repr=False)
    registers: RegisterBlock = field(default=RegisterBlock(scalar_cost), repr=False)
    fetch: FetchAhead = field(default=FetchAhead(), repr=False)
    terms: Terms = field(default=Terms(), repr=False)
    cascade: Cascade = field(default=Cascade(), repr=False)
    reciprocal: Reciprocal = field(default=Reciprocal(), repr=False)
    without: frozenset[str] = frozenset()

    def unavailable(self) -> str | None:
        """Why the engine cannot be used here at all; None where it can."""
        try:
            check_version()
        except EngineError as error:
            return str(error)
        return None

    def declines(self, node: Node, exact: bool) -> str | None:
        """Why an operation cannot be part of a kernel; None where it can.

        exact: whether the result must have the bits of XLA's, which a sum or a function of ours need not have.
        """
        subgraphs = node.subgraphs and node.op not in (*SCATTERS, *COMBINES, *LOOPS)
        several = len(node.avals) != 1 and node.op not in (SORT, TOP_K, REDUCE, WINDOW, *LOOPS)
        if node.effects or node.context is not None or subgraphs or several or not node.avals:
            return f"{node.op.name}"
        avals = (*(n.aval for n in node.inputs), *node.avals)
        if not all(aval.is_plain for aval in avals):
            return f"{node.op.name}, of a type that says more than shape and dtype"
        if any(aval.dtype not in DTYPES for aval in avals):
            return f"{node.op.name} of {', '.join(dict.fromkeys(str(a.dtype) for a in avals if a.dtype not in DTYPES))}"
        if any(aval.size == 0 for aval in avals):
            return "what is empty"
        if node.op in LOOPS:
            return declined_loop(node, lambda inner: self.declines_inside(inner, exact))
        inexact = any(jnp.issubdtype(aval.dtype, np.inexact) for aval in avals)
        complexes = any(aval.dtype.kind == "c" for aval in avals)
        if exact and inexact and (node.op not in SAME_BITS or (complexes and node.op in COMPLEX_ROUNDED)):
            return f'{node.op.name}, of which numerics="exact" asks for the bits of XLA'
        if node.op in MOVES:
            return "a reshape in another order" if node.attrs.get("dimensions") and "new_sizes" in node.attrs else None
        if node.op in INDEXED:
            return declined_indexed(node)
        if node.op in SCATTERS:
            return _declined_combination(node) or declined_scatter(node)
        if node.op is TOP_K:
            return declined_top_k(node)
        if node.op is SORT:
            return declined_sort(node)
        if node.op is IOTA:
            return None
        if node.op is DOT:
            return None if blocked(node) is not None else declined_product(node)
        if node.op in REDUCTIONS:
            return _declined_reduction(node)
        if node.op in (SELECTED, REDUCE, *WINDOWS):
            return _declined_fold(node)
        if node.op is CUMLOGSUMEXP:
            return f"{node.op.name} of {node.aval.dtype}" if not is_floating(node.aval.dtype) else None
        if node.op in CUMULATIVE:
            return f"{node.op.name} of complex numbers" if complexes and node.op not in SUMS else None
        return reason(node) if node.op in SCALARS or node.op.elementwise else node.op.name

    def declines_inside(self, node: Node, exact: bool) -> str | None:
        """Why an operation cannot be in the body of a loop that is a kernel; None where it can. exact: as above."""
        if node.op is DOT:
            return self.declines(node, exact) or declined_product(node)
        if node.op not in SOLVES:
            return self.declines(node, exact)
        return f'{node.op.name}, of which numerics="exact" asks for the bits of XLA' if exact else declined_solve(node)

    def cost(self, node: Node) -> float:
        """Nanoseconds that one element of a node takes."""
        if node.op is PARAM:
            return LOAD
        if node.op in MOVES:
            return 0.0
        if node.op in LOOPS:
            return iterations(node) * sum(self.cost(n) for sub in node.subgraphs for n in sub.graph.nodes)
        if node.op in INDEXED or node.op in SCATTERS:
            return LOOKUP
        if node.op in CUMULATIVE:
            return CHAINED
        if node.op is CUMLOGSUMEXP:
            return 4 * CHAINED
        if node.op in FUNCTIONS:
            return FUNCTION
        return DIVISION if node.op in DIVISIONS else ARITHMETIC

    def spill(self, node: Node) -> float:
        """Nanoseconds that computing a node in a kernel of its own costs: its call, and memory for its result.

        Other kernels read the operands of a reduction again, or what its own would have had to store of them.
        """
        aval = max((n.avals[0] for n in (node, *node.inputs)), key=lambda aval: aval.nbytes)
        return CALL + (NEW if aval.nbytes >= LARGE else 2 * LOAD) * aval.size

    def plan(self, body: Graph, any_order: bool, in_place: Pairs = (), schedule: Schedule = PREDICTED) -> Plan | None:
        """The loop program of a body, with its source known by its key; None where it would be too large.

        in_place: operands and the results that are to be written over them; None where that would not be right.
        schedule: how its loops are to be written.
        """
        try:
            best = self.derivation(body, any_order, in_place, schedule)
        except TooLargeError:
            return None
        program = best.program
        if not all(is_right(program, operand, result) for operand, result in program.in_place):
            return None
        # As the same on all machines: a kernel's key is in programs that several processes must compile alike.
        cores = core_times(program, scalar_cost, Machine())
        source, launch = source_of(program, any_order), _launch(program, cores)
        key = kernel_key(source, launch)
        _planned.setdefault(key, Planned(program, any_order, source, launch, best.origins))
        return Plan(key, best.work, best.evaluations, best.kept)

    def time(self, key: int, machine: Machine) -> float:
        """Nanoseconds that a run of what was planned is expected to take on a machine."""
        return plan_by_key(key).nanoseconds(machine)

    def program(self, body: Graph, any_order: bool = True) -> tuple[LoopProgram, float]:
        """The loop program that is expected to take the least, and nanoseconds of it."""
        best = self.derivation(body, any_order)
        return best.program, best.work

    def ways(self, body: Graph, any_order: bool) -> tuple[str, ...]:
        """The ways in which the loops of a body can be written, the one first that is expected to be fastest.

        Empty where it has parts that do not need each other: each of them has its own.
        """
        found: dict[str, float] = {}
        summed, _ = _written_out(body)
        for name, _ in ways(summed, any_order, True) if len(parts_apart(body)) == 1 else ():
            try:
                found[name] = self.derivation(body, any_order, (), Schedule(name)).time
            except TooLargeError:
                continue
        return tuple(sorted(found, key=lambda name: found[name]))

    def derivation(
        self, body: Graph, any_order: bool = True, in_place: Pairs = (), schedule: Schedule = PREDICTED
    ) -> Derivation:
        """How the loop program is written that is expected to take the least. Raises TooLargeError."""
        try:
            return self._derivation(body, any_order, SMALL, in_place, schedule)
        except TooLargeError:
            return self._derivation(body, any_order, 1, in_place, schedule)

    def _derivation(self, body: Graph, any_order: bool, small: int, in_place: Pairs, schedule: Schedule) -> Derivation:
        # Before products are written out: two of one operand are apart, though both broadcast it.
        apart = [(_written_out(part), numbers) for part, numbers in parts_apart(body)]
        parts = [(part, numbers) for (part, _), numbers in apart]
        mapping = {old: new for (_, of), _ in apart for old, new in of.items()}
        results = {
            number: result for part, numbers in parts for number, result in zip(numbers, part.outputs, strict=True)
        }
        summed = make_graph(body.params, [results[number] for number in range(len(results))])
        if len(parts) == 1:
            best, _ = self._best(summed, any_order, small, in_place, schedule)
        elif in_place:
            raise TooLargeError  # one part could read what another writes over
        else:
            written = [(part, self._best(part[0], any_order, small)[1]) for part in parts]
            best = Derivation(summed, self.cost, small)
            write_beside(best, written)
        tiled = Tiled(best.program) if self.tile.name in self.without else self.tile.run(best.program)
        program, said = tiled.program, {self.tile.name: tiled.kept}
        rounding = (self.terms, self.cascade, self.reciprocal) if any_order else ()
        for step in (self.split, self.peel, self.jam, self.bypass, self.registers, self.fetch, *rounding):
            if step.name not in self.without:
                program, said[step.name] = step.run(program)
        best.take(program, tuple(f"{name}: {what}" for name, every in said.items() for what in every))
        for node, times in tiled.saved.items():
            best.evaluations[node] -= times
            best.work -= self.cost(node) * times
        best.evaluations |= {old: best.evaluations[new] for old, new in mapping.items() if old is not new}
        best.origins |= {new: old for old, new in mapping.items() if old is not new}
        return best

    def _best(
        self, body: Graph, any_order: bool, small: int, in_place: Pairs = (), schedule: Schedule = PREDICTED
    ) -> tuple[Derivation, Callable[[Derivation], None]]:
        """The way of writing a body that is expected to take the least, and what it gives. Raises TooLargeError."""
        best = None
        asked = [write for name, write in ways(body, any_order, True) if name == schedule.way]
        for write in asked or [write for _, write in ways(body, any_order)]:
            derivation = Derivation(body, self.cost, small)
            derivation.grain = schedule.grain
            derivation.in_place = {body.params[operand]: result for operand, result in in_place}
            try:
                write(derivation)
            except (
                TooLargeError,
                RecursionError,
            ):  # moves of what is moved, again and again, are as deep as they are many
                continue
            # Sums in another order differ by rounding: that must not decide against what more threads can share.
            if best is None or derivation.time < 0.999 * best[0].time:
                best = derivation, write
        if best is None:
            raise TooLargeError
        return best


_planned: dict[int, Planned] = {}


def _written_out(body: Graph) -> tuple[Graph, dict[Node, Node]]:
    """A body without its small products, and what became of its nodes; with them where they are beside large ones."""
    summed, mapping = expanded(body)
    if any(node.op is DOT for node in summed.nodes) and between(summed) is None:
        return body, {}
    return summed, mapping


def plan_by_key(key: int) -> Planned:
    """A kernel that was planned in this process."""
    return _planned[key]


def source_with_lines(key: int, place: Callable[[Node], str]) -> str:
    """The source of a planned kernel, with what `place` says of a node beside the statement that comes from it."""
    planned = _planned[key]
    return source_of(planned.program, planned.any_order, lambda node: place(planned.origins.get(node, node)))


def compile_kernel(key: int) -> None:
    """Has a planned kernel compiled, where that has not been done (`graphopt.backends.numba.objects`)."""
    planned = _planned[key]

    def compile() -> tuple[str, bytes]:
        from graphopt.backends.numba.compiling import KERNEL_SIGNATURE, object_of
        from graphopt.backends.numba.names import function_of

        return object_of(function_of(planned.source), KERNEL_SIGNATURE)

    add_kernel(key, compile, planned.launch)


def _launch(program: LoopProgram, cores: Sequence[float]) -> Launch:
    """How a kernel is called. cores: nanoseconds of each phase on one core."""
    sizes: dict[str, list[int]] = {"in": [], "out": [], "scratch": [], "tile": []}
    for buffer in program.buffers:
        sizes[buffer.role].append(buffer.nbytes)
    core = dict(zip(map(id, program.phases), cores, strict=True))
    phases = tuple(
        (phase.extent, phase.grain, phase.beside, waking(sum(core[id(each)] for each in stage)))
        for stage in program.stages
        for phase in stage
    )
    return Launch(len(sizes["in"]), tuple(sizes["out"]), tuple(sizes["scratch"]), phases)


def _declined_combination(node: Node) -> str | None:
    combine, dtype = SCATTERS[node.op], node.aval.dtype
    known = combine is None or expression(combine, EMPTY, [dtype, dtype], dtype, ["x", "y"]) is not None
    return None if known else f"{node.op.name} of {dtype}"


def _declined_fold(node: Node) -> str | None:
    if node.op in (SELECTED, GATHER) and any(n.aval.dtype.kind == "c" for n in node.inputs):
        return f"{node.op.name} of complex numbers"
    if node.op not in COMBINES:
        return f"{node.op.name} of complex numbers" if node.aval.dtype.kind == "c" and node.op not in SUMS else None
    if node.op is REDUCE and not axes_of(node):
        return f"{node.op.name} over no axis"
    if node.attrs.get("consts"):
        return f"{node.op.name} with constants"
    for inner in node.attrs["jaxpr"].graph.nodes:
        if inner.op is PARAM or inner.op is CONSTANT:
            if inner.aval.shape:
                return f"{node.op.name} by a function of arrays"
        elif (why := reason(inner)) is not None:
            return f"{node.op.name} by {why}"
    return None


def _declined_reduction(node: Node) -> str | None:
    if is_arg(node) and node.attrs["index_dtype"] not in DTYPES:
        return f"{node.op.name} with places of {node.attrs['index_dtype']}"
    if node.inputs[0].aval.dtype.kind == "c" and node.op not in SUMS:
        return f"{node.op.name} of complex numbers"
    if node.op in SCALARS or not axes_of(node):
        return f"{node.op.name} over no axis"
    return None
