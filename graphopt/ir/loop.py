"""Loop programs: how a kernel computes its results, as loops over elements. No backend is named here.

A program is a sequence of phases. Each phase is one parallel loop whose iterations are independent, so that any split
of its range over threads computes the same; a phase begins when the one before it is done. Inside are serial loops,
local values, conditions, loads and stores; buffers are flat, row by row.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from graphopt.ir.aval import dtype_name
from graphopt.ir.index import Index
from graphopt.ir.op import Op

PARALLEL, SERIAL, REDUCTION, VECTOR = "parallel", "serial", "reduction", "vector"


@dataclass(frozen=True, slots=True)
class Buffer:
    """Memory of `size` elements. role: "in", "out", "scratch", which a kernel has for itself while it runs, or "tile",
    which each thread has for itself: what an iteration of a phase finds there, it has written, or the phase's `before`.
    """

    name: str
    dtype: np.dtype[Any]
    size: int
    role: str

    @property
    def nbytes(self) -> int:
        """Bytes of all elements."""
        return self.size * self.dtype.itemsize

    def __str__(self) -> str:
        return f"{self.role} {self.name}: {dtype_name(self.dtype)}[{self.size}]"


# ---- values


@dataclass(frozen=True, slots=True)
class Local:
    """A value that was computed before, by its name."""

    name: str
    dtype: np.dtype[Any]

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True, slots=True)
class Literal:
    """A constant, as a NumPy scalar."""

    value: Any

    @property
    def dtype(self) -> np.dtype[Any]:
        """The scalar's own dtype."""
        dtype: np.dtype[Any] = np.dtype(self.value.dtype)
        return dtype

    def __str__(self) -> str:
        return f"{self.value!s}"


Value = Local | Literal


@dataclass(frozen=True, slots=True)
class Load:
    """One element of a buffer."""

    buffer: Buffer
    at: Index

    def __str__(self) -> str:
        return f"{self.buffer.name}[{self.at}]"


@dataclass(frozen=True, slots=True)
class Apply:
    """A scalar operation on values. attrs: the operation's parameters; operands: the dtypes are those of the values."""

    op: Op
    attrs: Any
    values: tuple[Value, ...]

    def __str__(self) -> str:
        return f"{self.op.name}({', '.join(map(str, self.values))})"


@dataclass(frozen=True, slots=True)
class Position:
    """An index as a value."""

    at: Index

    def __str__(self) -> str:
        return str(self.at)


@dataclass(frozen=True, slots=True)
class Test:
    """Whether `low <= index < high` for each of these, all of them, as a value."""

    within: tuple[tuple[Index, int, int], ...]

    def __str__(self) -> str:
        return " and ".join(f"{low} <= {at} < {high}" for at, low, high in self.within)


Expression = Load | Apply | Position | Test | Value


# ---- statements


@dataclass(frozen=True, slots=True)
class Let:
    """A new local value. node: what it stands for in the kernel's graph, for source lines."""

    local: Local
    value: Expression
    node: Any = None

    def lines(self) -> Iterator[str]:
        """Text."""
        yield f"{self.local}: {dtype_name(self.local.dtype)} = {self.value}"


@dataclass(frozen=True, slots=True)
class Set:
    """A new value for a local. node: what it is for in the kernel's graph, for source lines."""

    local: Local
    value: Expression
    node: Any = None

    def lines(self) -> Iterator[str]:
        """Text."""
        yield f"{self.local} := {self.value}"


@dataclass(frozen=True, slots=True)
class Accumulate:
    """`local := op(local, value)`, where the operations may be done in any order. node: as in `Let`."""

    local: Local
    op: Op
    value: Value
    node: Any = None

    def lines(self) -> Iterator[str]:
        """Text."""
        yield f"{self.local} {self.op.name}= {self.value}"


@dataclass(frozen=True, slots=True)
class Store:
    """One element written. node: as in `Let`."""

    buffer: Buffer
    at: Index
    value: Value
    node: Any = None

    def lines(self) -> Iterator[str]:
        """Text."""
        yield f"{self.buffer.name}[{self.at}] = {self.value}"


@dataclass(slots=True)
class Block:
    """Statements in order; it grows while a program is derived, and not afterwards."""

    statements: list[Statement] = field(default_factory=list)

    def lines(self) -> Iterator[str]:
        """Text, indented."""
        for statement in self.statements:
            yield from (f"  {line}" for line in statement.lines())


def condition_text(condition: tuple[Index, int, int]) -> str:
    """`low <= index < high`."""
    at, low, high = condition
    return f"{low} <= {at} < {high}"


@dataclass(slots=True)
class For:
    """`for name in 0 .. extent - 1`, where `low <= index < high` for each of `within`, which `name` is in but for its
    quotients and remainders: a range of it, known before the loop begins.

    kind: "serial", "reduction" where it only accumulates, "vector" where its iterations are independent.
    """

    name: str
    extent: int
    kind: str
    body: Block
    within: tuple[tuple[Index, int, int], ...] = ()

    def lines(self) -> Iterator[str]:
        """Text."""
        where = " where " + " and ".join(map(condition_text, self.within)) if self.within else ""
        yield f"{self.kind} {self.name} < {self.extent}{where}:"
        yield from self.body.lines()


@dataclass(slots=True)
class If:
    """One of two blocks. within: the condition, `low <= index < high` for each of these, all of them."""

    within: tuple[tuple[Index, int, int], ...]
    then: Block
    otherwise: Block

    def lines(self) -> Iterator[str]:
        """Text."""
        yield "if " + " and ".join(map(condition_text, self.within)) + ":"
        yield from self.then.lines()
        if self.otherwise.statements:
            yield "else:"
            yield from self.otherwise.lines()


@dataclass(slots=True)
class When:
    """A block that is run where a boolean is true."""

    condition: Value
    then: Block

    def lines(self) -> Iterator[str]:
        """Text."""
        yield f"when {self.condition}:"
        yield from self.then.lines()


@dataclass(slots=True)
class While:
    """`test` and then, where `condition` is true, `body`, again and again. The condition is a value of `test`."""

    test: Block
    condition: Value
    body: Block

    def lines(self) -> Iterator[str]:
        """Text."""
        yield "again:"
        yield from self.test.lines()
        yield f"while {self.condition}:"
        yield from self.body.lines()


@dataclass(frozen=True, slots=True)
class Sort:
    """Elements `at` to `at + count` of `keys`, unsigned integers, in ascending order.

    Those of `places`, int32, go with them, and equal keys keep their order. Without `places` keys are sorted alone.
    lanes: so many rows of `count` elements are sorted side by side, element k of row l at `at + lanes * k + l`, or with
    `by_rows` at `at + count * l + k`.
    """

    keys: Buffer
    places: Buffer | None
    at: Index
    count: int
    lanes: int = 1
    by_rows: bool = False

    def lines(self) -> Iterator[str]:
        """Text."""
        along = f", along with {self.places.name}" if self.places is not None else ""
        beside = f", {self.lanes} {'after each other' if self.by_rows else 'side by side'}" if self.lanes > 1 else ""
        yield f"sort {self.keys.name}[{self.at} ...+ {self.count}]{along}{beside}"


LEADING = 10
"""Bits of the digit by which a row is distributed that threads sort together."""


@dataclass(frozen=True, slots=True)
class SortStep:
    """One share of a step in which threads sort a row of `keys` together, and of `places` with them, stably.

    The steps are SORT_STEPS, each of which begins when the shares of the one before have ended. Before the first share
    `share` of the keys is there, and after the last the sorted keys are in `to_keys`, and the places in `to_places`.
    What all buffers have in between is the backend's business. No share is empty: shares ** 2 <= count.

    row: elements `row * count` to `(row + 1) * count`. table: uint64, `table_size(shares)` for each row.
    """

    step: str
    keys: Buffer
    places: Buffer | None
    to_keys: Buffer
    to_places: Buffer | None
    table: Buffer
    row: Index
    count: int
    share: Index
    shares: int

    def lines(self) -> Iterator[str]:
        """Text."""
        along = f", along with {self.places.name}" if self.places is not None else ""
        where = f"{self.keys.name}[{self.row * self.count} ...+ {self.count}]{along}"
        yield f"{self.step} {where}, to {self.to_keys.name}: share {self.share} of {self.shares}"


SORT_STEPS = ("survey", "tally", "distribute", "sort_buckets")
"""The steps in which threads sort a row together."""


def table_size(shares: int) -> int:
    """Words that they note for a row."""
    return 2 * shares + ((shares + 1) << LEADING)


@dataclass(frozen=True, slots=True)
class Smallest:
    """The places, counted from `at`, of the `k` smallest of elements `at` to `at + count` of `keys`, unsigned integers.

    They go, in ascending order of keys and then of places, to elements `to` to `to + k` of `places`, int32.
    """

    keys: Buffer
    at: Index
    count: int
    places: Buffer
    to: Index
    k: int

    def lines(self) -> Iterator[str]:
        """Text."""
        of = f"{self.keys.name}[{self.at} ...+ {self.count}]"
        yield f"{self.places.name}[{self.to} ...+ {self.k}] = places of the smallest of {of}"


@dataclass(frozen=True, slots=True)
class Fetch:
    """Elements `at` to `at + count` of a buffer are needed soon: a hint, by which nothing is read or written.

    They may lie beyond the end of the buffer.
    """

    buffer: Buffer
    at: Index
    count: int

    def lines(self) -> Iterator[str]:
        """Text."""
        yield f"fetch {self.buffer.name}[{self.at} ...+ {self.count}]"


@dataclass(frozen=True, slots=True)
class Bypass:
    """Elements `at` to `at + count` of a buffer become those of a tile, from its start; they go past the caches.

    Those that would lie beyond the end of the buffer are left out. The kernel does not read them.
    """

    buffer: Buffer
    at: Index
    tile: Buffer
    count: int

    def lines(self) -> Iterator[str]:
        """Text."""
        yield f"{self.buffer.name}[{self.at} ...+ {self.count}] = {self.tile.name}, past the caches"


@dataclass(frozen=True, slots=True)
class Matrix:
    """A matrix in a buffer: element (i, j) is at `at + steps[0] * i + steps[1] * j`."""

    buffer: Buffer
    at: Index
    steps: tuple[int, int]

    def __str__(self) -> str:
        row, column = (f"{step} * {name}" if step != 1 else name for step, name in zip(self.steps, "ij", strict=True))
        return f"{self.buffer.name}[{self.at} ...+ {row} + {column}]"


@dataclass(frozen=True, slots=True)
class Product:
    """`to := left @ right`: `rows` times `length` by `length` times `columns`, summed in any order.

    What lies in one row of `to` and of `right` is beside each other. The three do not overlap. adds: whether the
    product is added to what `to` has. node: as in `Let`.
    """

    to: Matrix
    left: Matrix
    right: Matrix
    rows: int
    columns: int
    length: int
    adds: bool = False
    node: Any = None

    def lines(self) -> Iterator[str]:
        """Text."""
        sizes = f"({self.rows}, {self.length}) @ ({self.length}, {self.columns})"
        yield f"{self.to} {'+' if self.adds else ''}= {self.left} @ {self.right}, {sizes}"


Statement = (
    Let | Set | Accumulate | Store | For | If | When | While | Sort | SortStep | Smallest | Fetch | Bypass | Product
)


@dataclass(frozen=True, slots=True)
class Phase:
    """A parallel loop `for name in 0 .. extent - 1`.

    grain: how many iterations one thread takes at least. before: what each thread computes first, for all of them.
    beside: whether it runs at the same time as the phase before it: neither reads what the other writes.
    """

    name: str
    extent: int
    grain: int
    before: Block
    body: Block
    beside: bool = False

    def lines(self) -> Iterator[str]:
        """Text."""
        if self.beside:
            yield "beside this:"
        for statement in self.before.statements:
            yield from statement.lines()
        yield f"{PARALLEL} {self.name} < {self.extent}, at least {self.grain} at a time:"
        yield from self.body.lines()


@dataclass(frozen=True, slots=True)
class LoopProgram:
    """A kernel: its buffers (inputs, then outputs, then scratch, then tiles) and its phases in order.

    in_place: for each operand that is the same memory as a result, both.
    """

    buffers: tuple[Buffer, ...]
    phases: tuple[Phase, ...]
    in_place: tuple[tuple[Buffer, Buffer], ...] = ()

    @property
    def stages(self) -> tuple[tuple[Phase, ...], ...]:
        """The phases, those together that run at the same time."""
        found: list[list[Phase]] = []
        for phase in self.phases:
            if phase.beside:
                found[-1].append(phase)
            else:
                found.append([phase])
        return tuple(map(tuple, found))

    def __str__(self) -> str:
        same = [f"{result.name} is {operand.name}" for operand, result in self.in_place]
        return "\n".join([*map(str, self.buffers), *same, *(line for phase in self.phases for line in phase.lines())])
