"""From a kernel's body to its loop program, by access maps.

The body is asked for one element of each output at symbolic indices. What that element needs is asked for in turn, at
the indices that the access maps give, down to loads from the kernel's operands. Each value is computed in the outermost
loop that has all the variables of its indices: what does not depend on an inner loop stands before it, so a row's
maximum is computed once a row. A reduction is an accumulator and loops around its operand's element. Reductions over
the same extents that do not need each other share their loops, and with them the values in them. Loops over a few
elements are written out, so that what is around them can be vectorized.

Body:
    %1: f32[8] = reduce_max[axes=(1,)](%0)
    %2: f32[8,100] = broadcast_in_dim[broadcast_dimensions=(0,), shape=(8, 100)](%1)
    %3: f32[8,100] = sub(%0, %2)
Loop program:
    parallel i1 < 8:
      a2: f32 = -inf
      reduction r3 < 100:
        x4: f32 = in0[100 * i1 + r3]
        a2 max= x4
      serial j5 < 100:
        x6: f32 = in0[100 * i1 + j5]
        v7: f32 = sub(x6, a2)
        out0[100 * i1 + j5] = v7
"""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

import numpy as np
from jax.extend.core import primitives as p

from graphopt.analysis.access import MOVES, Given, Indices, Read, Within, always, elementwise
from graphopt.analysis.folds import Fold, fold_of
from graphopt.analysis.indexed import INDEXED
from graphopt.analysis.kernel_time import GUESSED
from graphopt.analysis.order import sort_by_need
from graphopt.analysis.reductions import MIN, OR, REDUCE, REDUCTIONS, Reduction, accumulated_as, axes_of, is_arg
from graphopt.analysis.windows import SELECTED, WINDOWS, window_fold
from graphopt.ir.attrs import EMPTY
from graphopt.ir.aval import is_floating
from graphopt.ir.graph import Graph, nested_graphs
from graphopt.ir.index import Index, delinear, linear, variable
from graphopt.ir.index import number as number_index
from graphopt.ir.loop import (
    REDUCTION,
    SERIAL,
    Accumulate,
    Apply,
    Block,
    Buffer,
    Expression,
    For,
    If,
    Let,
    Literal,
    Load,
    Local,
    LoopProgram,
    Phase,
    Position,
    Set,
    Statement,
    Store,
    Test,
    Value,
    While,
)
from graphopt.ir.node import Node
from graphopt.ir.op import CONSTANT, PARAM, PROJECT, op_of
from graphopt.ops.make import CONVERT, default_attrs

IOTA = op_of(p.iota_p)
SELECT, EQ, NE, CLAMP = (op_of(primitive) for primitive in (p.select_n_p, p.eq_p, p.ne_p, p.clamp_p))

INT64 = np.dtype(np.int64)

GRAIN = 20_000.0
"""Nanoseconds of work that are worth a thread's while."""

SHARED = 2
"""Cores that there surely are: ways that share their work among threads are compared by it."""

STATEMENTS = 8
"""Values in a loop program for each node: shifts of shifts double them, and compiling one takes a millisecond."""

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

SMALL = 8
"""Elements along an axis up to which a loop is written out."""

WRITTEN_OUT = 16
"""Elements of all axes that are written out in one place."""

Element = Callable[[Indices], Value]
"""Writes the statements for one element at indices, and returns it."""

Found = TypeVar("Found")

Part = tuple[Sequence[int], Element]
"""What a reduction goes over: loops of these extents around an element."""


@dataclass(slots=True)
class _Scope:
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
    nests: list[_Nest] = field(default_factory=list)


@dataclass(eq=False, slots=True)
class _Nest:
    """Loops inside each other in which reductions accumulate. after: those whose results are needed in these."""

    extents: tuple[int, ...]
    indices: Indices
    scopes: list[_Scope]
    after: set[_Nest] = field(default_factory=set)


class TooLargeError(Exception):
    """A body asks for the same elements at so many places that its loop program would be too large."""


class SideBySide(Protocol):
    """How a phase goes about what it needs for many elements side by side."""

    def keeps(self, node: Node, at: Indices) -> bool:
        """Whether elements of a node are kept for the loop over them."""

    def element(self, node: Node, at: Indices) -> Value:
        """One element that is kept, in that loop."""


class Derivation:
    """Writes loop programs for one body.

    work, time: nanoseconds that all phases are expected to take on one core, and on SHARED cores.
    """

    def __init__(self, body: Graph, cost: Callable[[Node], float], small: int = SMALL) -> None:
        """cost: of one element of a node, in nanoseconds. small: the elements of an axis that is written out."""
        self.body = body
        self.cost = cost
        self.small = small
        self.above = _reductions_above(body)
        self.inputs = {q: Buffer(f"in{i}", q.aval.dtype, q.aval.size, "in") for i, q in enumerate(body.params)}
        self.outputs = [Buffer(f"out{i}", n.aval.dtype, n.aval.size, "out") for i, n in enumerate(body.outputs)]
        self.in_place: dict[Node, int] = {}  # operands that a result, by its number, is written over
        self.scratch: list[Buffer] = []
        self.tiles: list[Buffer] = []
        self.combined: dict[Node, Callable[[Indices], Value]] = {}  # how else elements of a node are found
        self.folds: dict[Node, Callable[[Indices], Fold]] = {}  # what is left of a reduction that was done in parts
        self.columns: SideBySide | None = None  # of the phase that is being written
        self.phases: list[Phase] = []
        self._phase, self._extent = "", 0  # the variable of the phase that is being written
        self.work = self.time = 0.0
        self.evaluations: defaultdict[Node, float] = defaultdict(float)  # how often an element of a node is computed
        self._path: list[_Scope] = []
        self._names = 0
        self._operations = sum(len(graph.nodes) for graph in nested_graphs(body))
        # Nanoseconds of what stands before the phase that is being written, and of one of its iterations.
        self._before = self._iteration = 0.0
        self._loaded: set[Any] = set()  # what that phase has loaded, and where but for a number
        self._hosts: dict[tuple[Node, bool], set[_Nest]] = {}  # its loops in which a reduction accumulates, or again
        self._open: list[_Nest] = []  # those that are being written
        self._shared: list[Block] = []  # blocks in it to which was added what stands before loops that were there

    @property
    def program(self) -> LoopProgram:
        """The loop program of all phases so far."""
        buffers = (*self.inputs.values(), *self.outputs, *self.scratch, *self.tiles)
        in_place = tuple((self.inputs[node], self.outputs[number]) for node, number in self.in_place.items())
        return LoopProgram(buffers, tuple(self.phases), in_place)

    # ---- statements

    def add(self, statement: Statement) -> None:
        """A statement at the end of the current block."""
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
                factor *= CACHED if node in self._loaded else 1.0
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

    def bind(self, name: str) -> None:
        """Makes a local value of the current block known as a variable of indices."""
        self._path[-1].bound.add(name)

    def name(self, kind: str) -> str:
        """A name that is not used yet."""
        self._names += 1
        if self._names > STATEMENTS * (self._operations + 10):
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

    def phase(self, extent: int, write: Callable[[Index], None]) -> None:
        """One phase, whose body `write` writes for an index."""
        self._phase = name = self.name("i")
        self._extent = extent
        once = _Scope(Block(), set(), 1.0, name)
        body = _Scope(Block(), {name}, 1.0, name)
        self._path, self._before, self._iteration, self._loaded = [once, body], 0.0, 0.0, set()
        self._hosts, self._open, self._shared = {}, [], []
        write(variable(name, 0, extent - 1) if extent > 1 else Index())
        self.columns = None
        for block in {id(block): block for block in self._shared}.values():
            sort_by_need(block)
        grain = max(1, min(extent, round(max(GRAIN, self._before) / max(self._iteration, 1e-3))))
        self.phases.append(Phase(name, extent, grain, once.block, body.block))
        chunks = -(-extent // grain)
        work = self._iteration * extent + self._before * chunks
        self.work += work
        self.time += work / min(SHARED, chunks)

    def loop(self, extent: int, kind: str, write: Callable[[Index], None]) -> None:
        """One loop, written after all that its body needs from outside; no loop where it would run once or never."""
        if extent == 1:
            return write(Index())
        if extent == 0:
            return None
        name = self.name("j" if kind == SERIAL else "r")
        return self.loop_over(name, extent, kind, lambda: write(variable(name, 0, extent - 1)))

    def loop_over(
        self,
        name: str,
        extent: int,
        kind: str,
        write: Callable[[], None],
        within: Within = (),
        vector: bool = False,
    ) -> None:
        """A loop over a variable within conditions on it. vector: whether it is one over all elements of a tile."""
        inside = tuple([c for c in within if not c[0].coefficient(name)])  # those that no range can say
        if inside:
            body, write = write, lambda: self.condition(inside, body)
        block, outer = Block(), self._path[-1]
        with self._inside(_Scope(block, {name}, outer.times * extent, name, vector=vector)):
            write()
        self.add(For(name, extent, kind, block, tuple([c for c in within if c not in inside])))

    def loops_within(
        self,
        extents: Sequence[int],
        within: Callable[[Indices], Within],
        write: Callable[[Indices, Within], None],
        apart: str = "",
    ) -> None:
        """Loops inside each other, each within the conditions that are about it and no loop inside of it.

        write: what is in the innermost; it gets the conditions on the variable `apart`, which is that of a loop there.
        Small loops that these are about are written out, so that its range is known.
        """
        names = [self.name("r") if extent > 1 else "" for extent in extents]
        at = [variable(name, 0, extent - 1) for name, extent in zip(names, extents, strict=True)]
        first = within(tuple(at))
        conditions = [c for c in first if not always((c,))]
        if 0 in extents or any(always((c,)) is False for c in conditions):
            return
        about = {c: set(c[0].variables()) for c in conditions}
        # From the innermost loop outwards: who is the first with its variable in a condition has it.
        owned: dict[str, Within] = {}
        for name in [apart, *reversed(names)]:
            owned[name] = tuple([c for c in conditions if name in about[c]])
            conditions = [c for c in conditions if c not in owned[name]]
        out = {n for n in names if any(n in about[c] for c in owned[apart]) and not owned[n]}

        def level(number: int) -> None:
            if number == len(extents):
                # Those that were about `apart`; a step that is a number may have taken the variable out of them.
                last = [c for c, was in zip(within(tuple(at)), first, strict=True) if was in owned[apart]]
                last = [c for c in last if not always((c,))]
                if not any(always((c,)) is False for c in last):
                    write(tuple(at), tuple(last))
            elif extents[number] == 1:
                level(number + 1)
            elif names[number] in out and extents[number] <= self.small:
                for step in range(extents[number]):
                    at[number] = number_index(step)
                    level(number + 1)
            else:
                name = names[number]
                self.loop_over(name, extents[number], REDUCTION, lambda: level(number + 1), owned[name])

        self.condition(tuple(conditions), lambda: level(0))

    def loops(self, extents: Sequence[int], write: Callable[[Indices], None], write_out: bool) -> None:
        """Serial loops inside each other. write_out: whether the small ones are innermost, and written out."""
        if 0 in extents:
            return
        large, each = self._written_out(extents, write) if write_out else (tuple(extents), write)

        def inner(done: Indices) -> None:
            if len(done) == len(large):
                each(done)
            else:
                self.loop(large[len(done)], SERIAL, lambda index: inner((*done, index)))

        inner(())

    def _written_out(
        self, extents: Sequence[int], write: Callable[[Indices], None]
    ) -> tuple[tuple[int, ...], Callable[[Indices], None]]:
        """The extents of which there are to be loops, and what is to be written in them."""
        small: set[int] = set()
        for axis in reversed(range(len(extents))):
            if extents[axis] <= self.small and math.prod(extents[k] for k in (*small, axis)) <= WRITTEN_OUT:
                small.add(axis)

        def each(done: Indices) -> None:
            for steps in itertools.product(*(range(extents[axis]) for axis in sorted(small))):
                found, others = iter(steps), iter(done)
                write(tuple(number_index(next(found)) if k in small else next(others) for k in range(len(extents))))

        return tuple(extent for axis, extent in enumerate(extents) if axis not in small), each

    def _nest(self, extents: Sequence[int], write: Callable[[Indices], None], after: set[_Nest]) -> _Nest | None:
        """Loops that accumulate: those that are there with these extents, unless `after` has them, or new ones.

        None where there is no loop.
        """
        large, each = self._written_out(extents, write)
        if 0 in extents:
            return None
        if not large:
            each(())
            return None
        outer = self._path[-1]
        # What is needed in loops that are being written comes before them.
        late = after.union(self._open, *(self._after(nest) for nest in self._open))
        for nest in outer.nests:
            if nest.extents == large and nest not in late:
                self._write(nest, each)
                self._shared += [scope.block for scope in (outer, *nest.scopes)]
                return nest
        names = [self.name("r") for _ in large]
        scopes: list[_Scope] = []
        for name, extent in zip(names, large, strict=True):
            around = scopes[-1] if scopes else outer
            self._spend(LOOP * around.times / outer.times)
            scopes.append(_Scope(Block(), {name}, around.times * extent, name))
        nest = _Nest(large, tuple(variable(n, 0, e - 1) for n, e in zip(names, large, strict=True)), scopes)
        self._write(nest, each)
        outer.nests.append(nest)
        for around, scope, name, extent in reversed(list(zip((outer, *scopes), scopes, names, large, strict=False))):
            around.block.statements.append(For(name, extent, REDUCTION, scope.block))
        return nest

    def _write(self, nest: _Nest, each: Callable[[Indices], None]) -> None:
        path = self._path
        self._path = [*path, *nest.scopes]
        self._open.append(nest)
        each(nest.indices)
        self._open.pop()
        self._path = path

    def _loops_before(self, node: Node, again: bool) -> set[_Nest]:
        """The loops that must be done before those of a reduction, or those that find its place in its operand."""
        needs = {(n, b) for operand in node.inputs for n in self.above[operand] for b in (False, True)}
        hosts = {nest for key in (*needs, *([(node, False)] if again else [])) for nest in self._hosts.get(key, ())}
        return hosts.union(*(nest.after for nest in hosts))

    def _after(self, nest: _Nest) -> set[_Nest]:
        """The loops that need the results of `nest`."""
        return {n for nests in self._hosts.values() for n in nests if nest in n.after}

    def _host(self, node: Node, again: bool, nest: _Nest) -> None:
        """Notes that a reduction accumulates in `nest`, which comes before what is being written."""
        before = self._loops_before(node, again)
        self._hosts.setdefault((node, again), set()).add(nest)
        for later, earlier in ((nest, before), *((outer, {nest}) for outer in self._open)):
            earlier = earlier.union(*(n.after for n in earlier)) - {later}
            for other in (later, *self._after(later)):
                other.after |= earlier

    def condition(self, within: tuple[tuple[Index, int, int], ...], *writers: Callable[[], None]) -> None:
        """What the first writer writes, where `within` holds; else what the second does, if there is one."""
        known = always(within)
        if known is not None:
            for write in writers[:1] if known else writers[1:]:
                write()
            return
        blocks = (Block(), Block())
        for block, write in zip(blocks, writers, strict=False):
            outer = self._path[-1]
            with self._inside(_Scope(block, set(), outer.times, outer.variable, opaque=True)):
                write()
        self.add(If(within, *blocks))

    def repeat(self, test: Callable[[], Value], write: Callable[[], None]) -> None:
        """What `write` writes, again and again as long as the value is true that `test` writes before it."""
        outer, blocks = self._path[-1], (Block(), Block())
        with self._inside(_Scope(blocks[0], set(), outer.times * GUESSED, outer.variable)):
            condition = test()
        with self._inside(_Scope(blocks[1], set(), outer.times * GUESSED, outer.variable)):
            write()
        self.add(While(blocks[0], condition, blocks[1]))

    @contextmanager
    def _inside(self, scope: _Scope) -> Iterator[None]:
        path = self._path
        self._path = [*path, scope]
        try:
            yield
        finally:
            self._path = path

    # ---- values

    def value(self, node: Node, at: Indices) -> Value:
        """One element of a node, computed in the outermost block that it can be computed in."""
        return self._once((node, at), at, lambda: self._compute(node, at))

    def _once(self, key: Any, at: Indices, compute: Callable[[], Found]) -> Found:
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

    def _outermost(self, path: Sequence[_Scope], needed: AbstractSet[str]) -> int:
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

    def _compute(self, node: Node, at: Indices) -> Value:
        kept = self.columns if self._path[-1].vector and node not in self.combined else None
        if kept is not None and kept.keeps(node, at):
            return kept.element(node, at)
        self.evaluated(node)
        if node.op is PARAM:
            return self.let(Load(self.inputs[node], linear(at, node.aval.shape)), node.aval.dtype, node, "x")
        if node.op is CONSTANT:
            return Literal(node.attrs["value"].element)
        if node.op in MOVES:
            return self._moved(node, list(MOVES[node.op](node, at)))
        if node.op in INDEXED:
            self.spend(node)
            return self._moved(node, list(INDEXED[node.op](node, at, self)))
        if node.op is IOTA:
            return self.let(Position(at[node.attrs["dimension"]]), node.aval.dtype, node)
        if node in self.combined:
            return self.combined[node](at)
        if node.op in REDUCTIONS and node not in self.folds:
            return self._reduced(node, at)
        if is_fold(node):
            source, number = kept_by(node)
            found = self._once(("fold", source, at), at, lambda: self.folded(self.fold_for(source, at), source))
            return self.converted(found[number], node.aval.dtype)
        operands = tuple(self.value(node.inputs[read.operand], read.at) for read in elementwise(node, at))
        return self.let(Apply(node.op, node.attrs, operands), node.aval.dtype, node)

    def _moved(self, node: Node, reads: Sequence[Read | Given]) -> Value:
        """What the first read gives whose conditions hold."""
        reads = [r for r in reads if isinstance(r, Given) or always(r.within) is not False]
        first = reads[0]
        if isinstance(first, Given):
            return Literal(first.value)
        if always(first.within):
            return self.value(node.inputs[first.operand], first.at)
        if first.anywhere and isinstance(reads[1], Given):
            found = self.value(node.inputs[first.operand], first.at)
            inside, other = self._inside_of(first.within), Literal(reads[1].value)
            return self.let(Apply(SELECT, EMPTY, (inside, other, found)), node.aval.dtype, node)
        result = self.let(Literal(np.zeros((), node.aval.dtype)[()]), node.aval.dtype, node)
        self._choose(node, reads, result)
        return result

    def _choose(self, node: Node, reads: Sequence[Read | Given], result: Local) -> None:
        first = reads[0]
        if isinstance(first, Given):
            self.add(Set(result, Literal(first.value)))
            return
        if len(reads) == 1 or always(first.within):
            self.add(Set(result, self.value(node.inputs[first.operand], first.at)))
            return
        alone = [Read(first.operand, first.at)]
        self.condition(
            first.within, lambda: self._choose(node, alone, result), lambda: self._choose(node, reads[1:], result)
        )

    def _inside_of(self, within: Within) -> Value:
        """Whether conditions hold."""
        return self._once(within, tuple(at for at, _, _ in within), lambda: self.let(Test(within), np.bool_))

    def index(self, operand: Node, at: Indices, dtype: Any, high: int | None = None) -> Index:
        """One element of a node, of integers, as a variable of indices: converted, and clamped where `high` is."""
        known = ("index", operand, at, np.dtype(dtype), high)
        return self._once(known, at, lambda: self._looked_up(self.value(operand, at), np.dtype(dtype), high))

    def _looked_up(self, value: Value, dtype: np.dtype[Any], high: int | None) -> Index:
        low, most = int(np.iinfo(dtype).min), int(np.iinfo(dtype).max)
        if high is not None:
            low, most = max(low, 0), min(most, high)
        if isinstance(value, Literal):
            given = int(np.asarray(value.value).astype(dtype))
            return number_index(given if high is None else min(max(given, low), most))
        if value.dtype != dtype:
            value = self.converted(value, dtype)
        if high is not None:
            least, greatest = Literal(dtype.type(low)), Literal(dtype.type(most))
            value = self.let(Apply(CLAMP, EMPTY, (least, value, greatest)), dtype)
        if dtype != INT64:
            value = self.converted(value, INT64)
        assert isinstance(value, Local)
        if most > np.iinfo(INT64).max:  # what is too large becomes negative
            low, most = int(np.iinfo(INT64).min), int(np.iinfo(INT64).max)
        self.bind(value.name)
        return variable(value.name, low, most)

    # ---- reductions

    def _reduced(self, node: Node, at: Indices) -> Value:
        axes, shape = axes_of(node), node.inputs[0].aval.shape
        extents = [shape[axis] for axis in axes]
        return self.reduce(node, [(extents, lambda r: merged(at, axes, r))])

    def reduce(self, node: Node, places: Sequence[tuple[Sequence[int], Callable[[Indices], Indices]]]) -> Value:
        """A reduction over all of `places`: loops of these extents, and the operand's indices in them."""
        best = self.best(node, [(extents, self._operand(node, place)) for extents, place in places])
        if not is_arg(node):
            return best
        return self.first(node, [(extents, self.candidate(node, best, place)) for extents, place in places])

    def _operand(self, node: Node, place: Callable[[Indices], Indices]) -> Element:
        return lambda r: self.value(node.inputs[0], place(r))

    def best(self, node: Node, parts: Sequence[Part]) -> Value:
        """The operand's elements in `parts` combined: for argmax the greatest of them."""
        dtype = node.inputs[0].aval.dtype
        return self.converted(self.fold(REDUCTIONS[node.op], dtype, parts, node), dtype)

    def first(self, node: Node, parts: Sequence[Part]) -> Value:
        """The least of `parts`, which are places."""
        last = Reduction(MIN, lambda dtype: self.last(node))
        return self.fold(last, node.attrs["index_dtype"], parts, node, again=True)

    def last(self, node: Node) -> int:
        """The greatest place that an argmax or argmin can give."""
        (axis,) = axes_of(node)
        return max(0, int(node.inputs[0].aval.shape[axis]) - 1)

    def candidate(self, node: Node, best: Value, place: Callable[[Indices], Indices]) -> Element:
        """The place of an element that is `best`, or is no number (`best` is none either then); else the last place."""
        operand, dtype = node.inputs[0], np.dtype(node.attrs["index_dtype"])
        (axis,) = axes_of(node)
        last = Literal(np.asarray(self.last(node)).astype(dtype)[()])

        def element(r: Indices) -> Value:
            at = place(r)
            found = self.value(operand, at)
            same: Value = self.let(Apply(EQ, EMPTY, (found, best)), np.bool_)
            if is_floating(operand.aval.dtype):
                none = self.let(Apply(NE, EMPTY, (found, found)), np.bool_)
                same = self.let(Apply(OR, EMPTY, (same, none)), np.bool_)
            position = self.let(Position(at[axis]), dtype, node)
            return self.let(Apply(SELECT, EMPTY, (same, last, position)), dtype)

        return element

    def fold(self, reduction: Reduction, dtype: Any, parts: Sequence[Part], node: Node, again: bool = False) -> Value:
        """An accumulator, in the dtype that `dtype` is accumulated as, and for each of `parts` loops.

        again: whether an element needs what `node` has been reduced to before.
        """
        wide = accumulated_as(dtype)
        result = self.let(Literal(reduction.start(wide)), wide, None, "a")
        for extents, element in parts:

            def write(r: Indices, element: Element = element) -> None:
                self.add(Accumulate(result, reduction.combine, self.converted(element(r), wide)))
                self.spend(node)

            nest = self._nest(extents, write, self._loops_before(node, again))
            if nest is not None:
                self._host(node, again, nest)
        return result

    def fold_for(self, node: Node, at: Indices) -> Fold:
        """What is left to do for one element of a reduction: all of it, or to combine the parts that there are."""
        if node in self.folds:
            return self.folds[node](at)
        if node.op in WINDOWS:
            return window_fold(node, at)
        axes, shape = axes_of(node), node.inputs[0].aval.shape
        return fold_of(node, [shape[axis] for axis in axes], lambda r: merged(at, axes, r))

    def folded(self, fold: Fold, node: Node) -> list[Local]:
        """What a fold keeps in the end, in local values."""
        starts = fold.starts(self)
        kept = [self.let(start, dtype, None, "a") for start, dtype in zip(starts, fold.dtypes, strict=True)]

        def write(r: Indices, _: Within) -> None:
            new = fold.combine(self, list(kept), fold.elements(self, r))
            for local, value in zip(kept, new, strict=True):
                self.add(Set(local, value))
            self._spend(CHAINED + self.cost(node))

        self.loops_within(fold.extents, fold.within, write)
        return kept


def is_fold(node: Node) -> bool:
    """Whether an element of a node is what a fold keeps in the end."""
    return node.op in REDUCTIONS or kept_by(node)[0].op in (REDUCE, SELECTED, *WINDOWS)


def kept_by(node: Node) -> tuple[Node, int]:
    """The node whose fold keeps the elements of a node, and which of what it keeps they are."""
    return (node.inputs[0], node.attrs["index"]) if node.op is PROJECT else (node, -1)


def _reductions_above(body: Graph) -> dict[Node, frozenset[Node]]:
    """For each node the reductions that it is, or is made of."""
    above: dict[Node, frozenset[Node]] = {}
    for node in body.nodes:
        own = {node} if node.op in REDUCTIONS else set()
        above[node] = frozenset(own).union(*(above[n] for n in node.inputs))
    return above


def merged(kept: Indices, axes: Sequence[int], reduced: Indices) -> Indices:
    """The indices of a reduction's operand: those of its result, with `reduced` at `axes`."""
    of = dict(zip(axes, reduced, strict=True))
    rest = iter(kept)
    return tuple(of[axis] if axis in of else next(rest) for axis in range(len(kept) + len(axes)))


def write_outputs(derivation: Derivation, parallel: int) -> None:
    """One phase over the first `parallel` axes, which all outputs have in common, that computes and stores them all."""
    body = derivation.body
    leading = body.outputs[0].aval.shape[:parallel]

    def write(index: Index) -> None:
        row = delinear(index, leading)
        for rest in sorted({n.aval.shape[parallel:] for n in body.outputs}, key=lambda rest: (len(rest), rest)):

            def store(inner: Indices, rest: tuple[int, ...] = rest) -> None:
                for node, buffer in zip(body.outputs, derivation.outputs, strict=True):
                    if node.aval.shape[parallel:] == rest:
                        at = (*row, *inner)
                        derivation.add(Store(buffer, linear(at, node.aval.shape), derivation.value(node, at)))

            derivation.loops(rest, store, math.prod(leading) > 1)

    derivation.phase(math.prod(leading), write)
