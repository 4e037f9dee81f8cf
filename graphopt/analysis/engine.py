"""What a pass must know of an engine: what it can take, and what it would make of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from graphopt.analysis.machine import Machine
from graphopt.ir.graph import Graph
from graphopt.ir.node import Node


@dataclass(frozen=True, slots=True)
class Plan:
    """What an engine would run for a body.

    key: by which the engine knows it. work: nanoseconds that one run is expected to take on a core, as plans of one
    graph are compared; `Engine.time` says what it takes on a machine, as engines are compared. evaluations: how often
    an element of a node of the body is computed. kept: what loops find in tiles, as text.
    """

    key: int
    work: float
    evaluations: Mapping[Node, float] = field(default_factory=dict, compare=False)
    kept: tuple[str, ...] = ()


Pairs = tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class Schedule:
    """How a kernel's loops are written, where that was measured and is not to be predicted.

    way: one of those that the engine names for a body, with its tiles; empty for the one that is expected to be
    fastest. grain: how many times the work that is expected to be worth it a thread takes at once.
    """

    way: str = ""
    grain: float = 1.0

    def __str__(self) -> str:
        return ", ".join([self.way or "as predicted", *([f"grain {self.grain:g}"] if self.grain != 1 else [])])


PREDICTED = Schedule()


class Engine(Protocol):
    """An engine other than XLA."""

    @property
    def name(self) -> str:
        """What options and reports call it."""

    def unavailable(self) -> str | None:
        """Why the engine cannot be used here at all; None where it can."""

    def declines(self, node: Node, exact: bool) -> str | None:
        """Why an operation cannot be part of a kernel; None where it can.

        exact: whether the result must have the bits of XLA's.
        """

    def cost(self, node: Node) -> float:
        """Nanoseconds that one element of a node takes."""

    def spill(self, node: Node) -> float:
        """Nanoseconds that computing a node in a kernel of its own costs: its call, and memory for its result."""

    def plan(self, body: Graph, any_order: bool, in_place: Pairs = (), schedule: Schedule = PREDICTED) -> Plan | None:
        """How a body of operations that it does not decline would be run; None where that takes too many statements.

        any_order: whether the sums and products of reductions may be reordered. in_place: operands, by their numbers,
        and the results that are to be written over them; None where that would not be right. schedule: how its loops
        are to be written; a way that it has not for this body is taken for the empty one.
        """

    def time(self, key: int, machine: Machine) -> float:
        """Nanoseconds that a run of what was planned is expected to take on a machine."""

    def ways(self, body: Graph, any_order: bool) -> tuple[str, ...]:
        """The ways in which the loops of a body can be written, the one first that is expected to be fastest."""
