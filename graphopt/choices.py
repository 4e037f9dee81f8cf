"""What may be tried to make a program faster: the candidates of `graphopt.tune`, and what each can be changed in."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from jax.extend.core import ClosedJaxpr

from graphopt.backends.xla.compiler_options import CompilerOption, accepted_options
from graphopt.compile import optimize_graph, pipeline_of
from graphopt.config import Options
from graphopt.explain import program_hash, region_of, target_of
from graphopt.ir.graph import Graph, nested_graphs
from graphopt.lock import Decision, hash_of
from graphopt.ops.kernel import KERNEL
from graphopt.passes.chunk import Chunk
from graphopt.passes.fuse import Fuse

LARGEST = 8
"""How many kernels are looked at, the largest first."""

WAYS = 3
"""Other ways to write the loops of a kernel: those that are expected to be fastest."""

GRAINS = (0.25, 4.0)
"""How many times its usual work a thread may take at once."""

BLOCKS = (1 << 20, 2 << 20, 8 << 20, 16 << 20)
"""Bytes of a block."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """What may be run. name: in words. decision: what is done; its times are not known before it is measured."""

    name: str
    decision: Decision


class Regions:
    """What the passes make kernels of in a program. has_blocks: whether large arrays are computed in blocks."""

    def __init__(self, closed: ClosedJaxpr, options: Options, devices: int = 1) -> None:
        """devices: over how many the arguments are spread."""
        self.region, self.sources = region_of(closed)
        self.options = options
        self.target = target_of(self.region, devices)
        self.program = program_hash(self.region, self.sources, options, self.target)
        self.has_blocks = False
        self._known: dict[tuple[str, int | None], dict[str, Graph]] = {}

    def of(self, backend: str, block: int | None = None) -> dict[str, Graph]:
        """By their hashes the bodies of the kernels under a backend, the largest first. block: bytes of a block."""
        if (backend, block) not in self._known:
            passes = pipeline_of(self.options)
            if block is not None:
                passes = tuple(replace(step, block=block) if isinstance(step, Chunk) else step for step in passes)
            options = replace(self.options, backend=backend, passes=passes, tuning=())
            graph, records = optimize_graph(self.region, self.sources, options, self.target)
            self.has_blocks |= any(record.name == Chunk.name and record.firings for record in records)
            # Later passes put kernels side by side in one: what is chosen is what there was before.
            graph = next((record.after for record in records if record.name == Fuse.name), graph)
            nodes = [n for inner in nested_graphs(graph) for n in inner.nodes if n.op is KERNEL]
            found = {n.attrs["body"].graph for n in nodes}
            ordered = sorted(
                found, key=lambda body: (-sum(n.aval.size for n in body.nodes if len(n.avals) == 1), str(body))
            )
            self._known[backend, block] = {hash_of(str(body)): body for body in ordered}
        return self._known[backend, block]


def candidates(regions: Regions) -> Iterator[Candidate]:
    """XLA alone, then what has other kernels than those before it."""
    yield Candidate("XLA alone", Decision(regions.program, "auto", ()))
    seen: set[frozenset[str]] = {frozenset()}
    for backend, name in (("auto", "expected to be fastest"), ("numba", "all that kernels can compute")):
        kernels = tuple(regions.of(backend))
        if frozenset(kernels) not in seen:
            seen.add(frozenset(kernels))
            yield Candidate(f"{name}: {len(kernels)} kernels", Decision(regions.program, backend, kernels))


def _elements(body: Graph) -> int:
    return sum(aval.size for node in body.nodes for aval in node.avals)


class Choices:
    """What may be changed of a candidate, one thing after the other: those first that are expected to matter most.

    best: the candidate that is changed next, for who goes through them to set. left: how many there are still, about.
    Each is its name and the candidates that differ from the best one in it.
    """

    def __init__(self, regions: Regions, best: Candidate) -> None:
        self.regions = regions
        self.best = best
        self.left = 1
        self.exact = regions.options.numerics == "exact"

    def __iter__(self) -> Iterator[tuple[str, list[Candidate]]]:
        # Compiler options may change the order of sums, which exact numerics forbid.
        compiler = () if self.exact else accepted_options()
        names = list(dict.fromkeys(name for name, _ in compiler))
        self.left = 2 + 2 * min(LARGEST, len(self.best.decision.kernels)) + len(names)
        if self.regions.has_blocks:
            yield "sizes of blocks", self.in_other_blocks()
        if len(self.best.decision.kernels) > 1:
            yield "leaving kernels out", self.without_one()
        largest = self.best.decision.kernels[:LARGEST]
        for number, region in enumerate(largest, start=1):
            self.left = 2 * (len(largest) - number + 1) + len(names)
            yield f"loops of kernel {number}", self.in_other_ways(region)
            yield f"grain of kernel {number}", self.with_grains(region)
        for number, name in enumerate(names):
            self.left = len(names) - number
            yield name, self.with_compiler_options([option for option in compiler if option[0] == name])

    def changed(self, name: str, **changes: Any) -> Candidate:
        """The best candidate with something else decided."""
        decision = replace(self.best.decision, ratio=1.0, low=1.0, high=1.0, **changes)
        return Candidate(f"{self.best.name}, {name}", decision)

    def in_other_blocks(self) -> list[Candidate]:
        """Large arrays in blocks of other sizes, which makes other regions of what is in the blocks."""
        decision = self.best.decision
        left_out = set(self.regions.of(decision.base, decision.block)) - set(decision.kernels)
        found = []
        for block in BLOCKS:
            new = tuple(name for name in self.regions.of(decision.base, block) if name not in left_out)
            kernels = new if decision.kernels else ()
            found.append(self.changed(f"blocks of {block >> 20} MiB", block=block, kernels=kernels))
        return found

    def without_one(self) -> list[Candidate]:
        """One kernel less."""
        decision = self.best.decision
        found = []
        for number, left in enumerate(decision.kernels[:LARGEST], start=1):
            rest = tuple(region for region in decision.kernels if region != left)
            found.append(self.changed(f"without kernel {number}", kernels=rest))
        return found

    def in_other_ways(self, region: str) -> list[Candidate]:
        """The loops of a kernel written in the other ways that are expected to be fastest."""
        from graphopt.backends.numba.lowering import ENGINE

        decision = self.best.decision
        body, number = self.regions.of(decision.base, decision.block)[region], decision.kernels.index(region) + 1
        return [
            self.changed(f"kernel {number} by {way}", schedules=_scheduled(decision, region, way=way))
            for way in ENGINE.ways(body, not self.exact)[1 : 1 + WAYS]
        ]

    def with_grains(self, region: str) -> list[Candidate]:
        """The threads of a kernel taking more or less at once."""
        decision = self.best.decision
        number = decision.kernels.index(region) + 1
        return [
            self.changed(
                f"kernel {number} with {grain:g} times the grain", schedules=_scheduled(decision, region, grain=grain)
            )
            for grain in GRAINS
        ]

    def with_compiler_options(self, values: Sequence[CompilerOption]) -> list[Candidate]:
        """One more compiler option."""
        known = self.best.decision.compiler_options
        return [self.changed(f"{name}={value!r}", compiler_options=(*known, (name, value))) for name, value in values]


def _scheduled(
    decision: Decision, region: str, way: str | None = None, grain: float | None = None
) -> tuple[tuple[str, str, float], ...]:
    """How loops are written, with another way for a region, or another grain."""
    known = {name: (before, each) for name, before, each in decision.schedules}
    before, each = known.get(region, ("", 1.0))
    known[region] = (before if way is None else way, each if grain is None else grain)
    return tuple((name, *how) for name, how in known.items())
