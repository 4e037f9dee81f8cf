"""Writing loop programs: blocks, loops, and the place where a value is computed.

Each value stands in the outermost loop that has all the variables of its indices, so that what does not depend on an
inner loop is computed before it. Reductions that are independent of each other share loops of the same extents; loops
of a few elements are written out.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

import numpy as np

from graphopt.analysis.access import Indices, Within, always
from graphopt.analysis.kernel_time import GUESSED, product_time
from graphopt.analysis.machine import Machine
from graphopt.analysis.order import sort_by_need
from graphopt.analysis.reductions import CUMULATIVE, MAX, MIN, REDUCTIONS
from graphopt.analysis.sorting_time import sorting_time
from graphopt.ir.graph import Graph, nested_graphs
from graphopt.ir.index import Index, variable
from graphopt.ir.loop import (
    SERIAL,
    Apply,
    Block,
    Buffer,
    Expression,
    For,
    If,
    Let,
    Load,
    Local,
    LoopProgram,
    Phase,
    Position,
    Product,
    Smallest,
    Sort,
    SortStep,
    Statement,
    Value,
    When,
    While,
)
from graphopt.ir.node import Node
from graphopt.ops.make import CONVERT, default_attrs

INT64 = np.dtype(np.int64)

GRAIN = 5_000.0
"""Nanoseconds of work that are worth asking another thread for, where it is awake. Elementwise work takes about half
of what is counted here."""

MANY, SPARE = 32, 0.02
"""Chunks that are enough for however many cores there are, and what a way's time counts more that has next to none."""

ALIGNED = 64
"""Iterations of which a multiple is shared where there are more: vectors stay aligned, and no line of memory is written
by two threads."""

SHARED = 2
"""Cores that there surely are: ways that share their work among threads are compared by it."""

STATEMENTS = 8
"""Values in a loop program for each node: shifts of shifts double them, and compiling one takes a millisecond."""

ORDERED = 8
"""As how many nodes one counts there whose numbers are compared as integers."""

CACHED = 0.2
"""What loading an operand takes in a loop after one that has loaded it, of what it took there."""

STRIDED = 8
"""What a load takes where a loop goes through memory in steps, and elements in a step that is one."""

DIVISION = 1.0
"""Nanoseconds of a quotient or remainder in an index; it keeps loops from being vectorized."""

CHAINED = 1.0
"""Nanoseconds of a step that waits for the one before."""

LOOP = 2.0
"""Nanoseconds of a loop inside of another: its start, and its vector's elements combined at the end."""

Element = Callable[[Indices], Value]
"""Writes the statements for one element at indices, and returns it."""

Found = TypeVar("Found")

Part = tuple[Sequence[int], Element]
"""What a reduction goes over: loops of these extents around an element."""


@dataclass(slots=True)
class Scope:
    """One block being written.

    bound: the variables of indices that begin in it. times: how often it runs in one iteration of the phase. variable:
    that of the innermost loop. opaque: nothing inside of it may be computed outside, for it is computed under a
    condition. vector: whether it is a loop over all elements of a tile.
    """

    block: Block
    bound: set[str]
    times: float
    variable: str
    opaque: bool = False
    vector: bool = False
    known: dict[Any, Any] = field(default_factory=dict)
    nests: list[Nest] = field(default_factory=list)


@dataclass(eq=False, slots=True)
class Nest:
    """Loops inside each other in which reductions accumulate. within: conditions on the innermost one's index.
    after: those whose results are needed in these."""

    extents: tuple[int, ...]
    indices: Indices
    scopes: list[Scope]
    within: Callable[[Index], Within] | None = None
    after: set[Nest] = field(default_factory=set)


def _operations(node: Node) -> int:
    reduction = REDUCTIONS.get(node.op, CUMULATIVE.get(node.op))
    return ORDERED if reduction is not None and reduction.combine in (MAX, MIN) else 1


class TooLargeError(Exception):
    """A body asks for the same elements at so many places that its loop program would be too large."""


class SideBySide(Protocol):
    """How a phase goes about what it needs for many elements side by side."""

    def keeps(self, node: Node, at: Indices) -> bool:
        """Whether elements of a node are kept for the loop over them."""

    def element(self, node: Node, at: Indices) -> Value:
        """One element that is kept, in that loop."""


class Writer:
    """Writes loop programs for one body.

    work, time: nanoseconds that all phases are expected to take on one core, and on SHARED cores.
    """

    def __init__(self, body: Graph, cost: Callable[[Node], float]) -> None:
        """cost: of one element of a node, in nanoseconds."""
        self.body = body
        self.cost = cost
        self.inputs = {q: Buffer(f"in{i}", q.aval.dtype, q.aval.size, "in") for i, q in enumerate(body.params)}
        self.outputs = [Buffer(f"out{i}", n.aval.dtype, n.aval.size, "out") for i, n in enumerate(body.outputs)]
        self.grain = 1.0  # of how many times the work a thread is worth its while
        self.in_place: dict[Node, int] = {}  # operands that a result, by its number, is written over
        self.scratch: list[Buffer] = []
        self.tiles: list[Buffer] = []
        self.kept: tuple[str, ...] = ()  # what loops find in tiles, as text
        self.columns: SideBySide | None = None  # of the phase that is being written
        self.phases: list[Phase] = []
        self.works: list[float] = []  # of each phase, nanoseconds on one core
        self._phase, self._extent = "", 0  # the variable of the phase that is being written
        self.work = self.time = 0.0
        self.evaluations: defaultdict[Node, float] = defaultdict(float)  # how often an element of a node is computed
        self.origins: dict[Node, Node] = {}  # of nodes that are not the body's: what they are computed for
        self._path: list[Scope] = []
        self._names = 0
        self.parts = 1  # that are written each as if it were alone
        self._operations = sum(map(_operations, (node for graph in nested_graphs(body) for node in graph.nodes)))
        # Nanoseconds of what stands before the phase that is being written, and of one of its iterations.
        self._before = self._iteration = 0.0
        self._loaded: set[Any] = set()  # what that phase has loaded, and where but for a number
        self._hosts: dict[tuple[Node, bool], set[Nest]] = {}  # its loops in which a reduction accumulates, or again
        self._open: list[Nest] = []  # those that are being written
        self._shared: list[Block] = []  # blocks in it to which was added what stands before loops that were there

    @property
    def program(self) -> LoopProgram:
        """The loop program of all phases so far."""
        buffers = (*self.inputs.values(), *self.outputs, *self.scratch, *self.tiles)
        in_place = tuple((self.inputs[node], self.outputs[number]) for node, number in self.in_place.items())
        return LoopProgram(buffers, tuple(self.phases), in_place)

    def take(self, program: LoopProgram, kept: tuple[str, ...]) -> None:
        """Replaces the phases by those of a program with more tiles. kept: what is in them, as text."""
        self.kept = kept
        self.phases = list(program.phases)
        self.tiles = [buffer for buffer in program.buffers if buffer.role == "tile"]

    # ---- statements

    def add(self, statement: Statement) -> None:
        """A statement at the end of the current block."""
        if isinstance(statement, Sort | SortStep | Smallest):
            self._spend(sorting_time(statement))
        elif isinstance(statement, Product):
            self._spend(product_time(statement, Machine()))
        self._path[-1].block.statements.append(statement)

    def let(self, value: Expression, dtype: Any, node: Node | None = None, kind: str = "v") -> Local:
        """A new local value in the current block."""
        local = Local(self.name(kind), np.dtype(dtype))
        self.add(Let(local, value, node))
        if isinstance(value, Load | Position):
            inside, around = value.at.divisions(self._path[-1].variable), self._path[max(len(self._path) - 2, 0)]
            self._spend(DIVISION * inside)
            # The others are done once, before the innermost loop.
            self._spend(DIVISION * (value.at.divisions() - inside) * around.times / self._path[-1].times)
        if node is not None:
            factor = 1.0
            if isinstance(value, Load):
                # What is written out reads the elements beside each other one after the other.
                beside = (node, value.at.terms)
                factor = 1.0 if beside in self._loaded else self._stride(value.at)
                factor *= CACHED if node in self._loaded and factor < STRIDED else 1.0
                self._loaded |= {node, beside}
            self._spend(self.cost(node) * factor)
        return local

    def converted(self, value: Value, dtype: Any) -> Value:
        """A value in another dtype."""
        if value.dtype == dtype:
            return value
        attrs = default_attrs(CONVERT).replace(new_dtype=np.dtype(dtype))
        return self.let(Apply(CONVERT, attrs, (value,)), dtype)

    def spend(self, node: Node) -> None:
        """Counts the cost of one element of a node, which no local value stands for."""
        self._spend(self.cost(node))

    def evaluated(self, node: Node, times: int = 1) -> None:
        """Counts elements of a node that are computed in the current block."""
        self.evaluations[node] += times * self._path[-1].times * (self._extent if self._in_iteration() else 1)

    def _in_iteration(self) -> bool:
        """Whether the current block is run again with each iteration of the phase."""
        return len(self._path) > 1 and self._phase in self._path[1].bound

    def _spend(self, time: float) -> None:
        """Counts nanoseconds for what is done in the current block."""
        time *= self._path[-1].times
        if self._in_iteration():
            self._iteration += time
        else:
            self._before += time

    def _stride(self, at: Index) -> int:
        """What loading an element takes, of what it takes where the innermost loop finds it beside the one before."""
        return STRIDED if abs(at.coefficient(self._path[-1].variable) or 0) >= STRIDED else 1

    def is_inside(self, variable: Index) -> bool:
        """Whether what is written now is in the loop of a variable, not before it."""
        return any(name in scope.bound for name in variable.variables() for scope in self._path)

    def bind(self, name: str) -> None:
        """Makes a local value of the current block known as a variable of indices."""
        self._path[-1].bound.add(name)

    def name(self, kind: str) -> str:
        """A name that is not used yet."""
        self._names += 1
        if self._names > STATEMENTS * (self._operations + 10 * self.parts):
            raise TooLargeError
        return f"{kind}{self._names}"

    def new_scratch(self, dtype: Any, size: int) -> Buffer:
        """A buffer that later phases read."""
        buffer = Buffer(f"scratch{len(self.scratch)}", np.dtype(dtype), size, "scratch")
        self.scratch.append(buffer)
        return buffer

    def new_tile(self, dtype: Any, size: int) -> Buffer:
        """A buffer that each thread has for itself."""
        buffer = Buffer(f"tile{len(self.tiles)}", np.dtype(dtype), size, "tile")
        self.tiles.append(buffer)
        return buffer

    def phase(self, extent: int, write: Callable[[Index], None], opaque: bool = False) -> None:
        """One phase, whose body `write` writes for an index. opaque: whether nothing of it is computed before it."""
        self._phase = name = self.name("i")
        self._extent = extent
        once = Scope(Block(), set(), 1.0, name)
        body = Scope(Block(), {name}, 1.0, name, opaque)
        self._path, self._before, self._iteration, self._loaded = [once, body], 0.0, 0.0, set()
        self._hosts, self._open, self._shared = {}, [], []
        write(variable(name, 0, extent - 1) if extent > 1 else Index())
        self.columns = None
        for block in {id(block): block for block in self._shared}.values():
            sort_by_need(block)
        least = self.grain * max(GRAIN, self._before)
        grain = max(1, min(extent, round(least / max(self._iteration, 1e-3))))
        if grain > ALIGNED:
            grain = min(extent, -(-grain // ALIGNED) * ALIGNED)
        self.phases.append(Phase(name, extent, grain, once.block, body.block))
        chunks = -(-extent // grain)
        work = self._iteration * extent + self._before * chunks
        self.works.append(work)
        self.work += work
        self.time += work / min(SHARED, chunks) * (1 + SPARE * max(0, MANY - chunks) / MANY)

    def loop(self, extent: int, kind: str, write: Callable[[Index], None], opaque: bool = False) -> None:
        """One loop, written after all that its body needs from outside; no loop where it would run once or never.

        opaque: whether nothing of its body is computed outside, for a step changes what the next one finds.
        """
        if extent == 1:
            return write(Index())
        if extent == 0:
            return None
        name = self.name("j" if kind == SERIAL else "r")
        return self.loop_over(name, extent, kind, lambda: write(variable(name, 0, extent - 1)), opaque=opaque)

    def loop_over(
        self,
        name: str,
        extent: int,
        kind: str,
        write: Callable[[], None],
        within: Within = (),
        vector: bool = False,
        opaque: bool = False,
    ) -> None:
        """A loop over a variable within conditions on it. vector: whether it is one over all elements of a tile.
        opaque: as in `loop`."""
        inside = tuple([c for c in within if not c[0].coefficient(name)])  # those that no range can say
        if inside:
            body, write = write, lambda: self.condition(inside, body)
        block, outer = Block(), self._path[-1]
        with self._inside(Scope(block, {name}, outer.times * extent, name, opaque, vector)):
            write()
        self.add(For(name, extent, kind, block, tuple([c for c in within if c not in inside])))

    def condition(self, within: tuple[tuple[Index, int, int], ...], *writers: Callable[[], None]) -> None:
        """What the first writer writes, where `within` holds; else what the second does, if there is one."""
        known = always(within)
        if known is not None:
            for write in writers[:1] if known else writers[1:]:
                write()
            return
        self._spend(DIVISION * sum(at.divisions() for at, _, _ in within))
        blocks = (Block(), Block())
        for block, write in zip(blocks, writers, strict=False):
            outer = self._path[-1]
            with self._inside(Scope(block, set(), outer.times, outer.variable, opaque=True)):
                write()
        self.add(If(within, *blocks))

    def when(self, condition: Value, write: Callable[[], None]) -> None:
        """What `write` writes, where a boolean is true."""
        block, outer = Block(), self._path[-1]
        with self._inside(Scope(block, set(), outer.times, outer.variable, opaque=True)):
            write()
        self.add(When(condition, block))

    def repeat(self, test: Callable[[], Value], write: Callable[[], None], opaque: bool = False) -> None:
        """What `write` writes, again and again as long as the value is true that `test` writes before it. opaque: as in
        `loop`."""
        outer, blocks = self._path[-1], (Block(), Block())
        with self._inside(Scope(blocks[0], set(), outer.times * GUESSED, outer.variable, opaque)):
            condition = test()
        with self._inside(Scope(blocks[1], set(), outer.times * GUESSED, outer.variable, opaque)):
            write()
        self.add(While(blocks[0], condition, blocks[1]))

    def apart(self) -> None:
        """What is written from here on shares no loops with what is written: stores are between them."""
        self._path[-1].nests.clear()

    def know(self, key: Any, value: Value) -> None:
        """A value is known by a key in the current block."""
        self._path[-1].known[key] = value

    @contextmanager
    def _inside(self, scope: Scope) -> Iterator[None]:
        path = self._path
        self._path = [*path, scope]
        try:
            yield
        finally:
            self._path = path

    def is_known(self, key: Any) -> bool:
        """Whether a value is known by a key in the current block, or one around it."""
        return any(key in scope.known for scope in self._path)

    def once(self, key: Any, at: Indices, compute: Callable[[], Found]) -> Found:
        """What `compute` gives, known by its key; written in the outermost block that has the variables of `at`."""
        path = self._path
        for scope in reversed(path):
            if key in scope.known:
                found: Found = scope.known[key]
                return found
        depth = self._outermost(path, {name for index in at for name in index.variables()})
        self._path = path[: depth + 1]
        found = path[depth].known[key] = compute()
        self._path = path
        return found

    def _outermost(self, path: Sequence[Scope], needed: AbstractSet[str]) -> int:
        """The depth of the outermost block of a path that has these variables and from which nothing is hidden."""
        depth = len(path) - 1
        while depth and not path[depth].opaque and not needed & path[depth].bound:
            depth -= 1
        return depth

    def before_vector(self, key: Any, needed: AbstractSet[str], make: Callable[[], Any]) -> Any:
        """What `make` writes outside of the vector loop that is being written, once for `key`.

        needed: the variables that it is about: it stands in the outermost block that has them.
        """
        path = self._path
        for scope in reversed(path):
            if key in scope.known:
                return scope.known[key]
        depth = self._outermost(path[:-1], needed)
        self._path = path[: depth + 1]
        found = path[depth].known[key] = make()
        self._path = path
        return found

    def repeats(self, needed: AbstractSet[str]) -> int:
        """How often the vector loop that is being written runs for one run of what needs these variables; 0 where it
        alone has one of them."""
        path = self._path
        if needed & path[-1].bound:
            return 0
        depth = self._outermost(path[:-1], needed)
        times = path[-2].times / path[depth].times
        return round(times * self._extent if depth == 0 < len(path) - 2 else times)
