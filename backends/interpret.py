"""An interpreter of loop programs on NumPy arrays, statement by statement: what a loop program means.

It is slow, and made for finding faults: it takes the parallel iterations from the last to the first, in chunks of
`grain`, phases beside each other too, forgets each local at the end of its block, and refuses what a backend would get
wrong without a word.
"""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.extend.core import primitives as p

from graphopt.analysis.access import Within
from graphopt.errors import EngineError
from graphopt.ir.index import Index
from graphopt.ir.loop import (
    SORT_STEPS,
    Accumulate,
    Apply,
    Block,
    Buffer,
    Bypass,
    Expression,
    For,
    If,
    Let,
    Literal,
    Load,
    LoopProgram,
    Matrix,
    Phase,
    Position,
    Product,
    Set,
    Smallest,
    Sort,
    SortStep,
    Store,
    Test,
    Value,
    When,
    While,
)
from graphopt.ir.op import Op, op_of

Array = np.ndarray[Any, Any]


def interpret(program: LoopProgram, *args: Any, grain: int | None = None) -> list[Array]:
    """The results of a loop program on arrays, flat as its buffers are.

    grain: iterations in one chunk, in place of what each phase says. Raises EngineError where the program reads or
    writes out of a buffer's bounds, reads what was not written or what another iteration of the phase writes, writes
    an element in two iterations of a phase, or leaves an element of a result out.
    """
    inputs = [b for b in program.buffers if b.role == "in"]
    if len(inputs) != len(args):
        raise EngineError(f"the loop program has {len(inputs)} inputs; interpret got {len(args)}")
    run = _Run(program)
    for buffer, value in zip(inputs, args, strict=True):
        array = np.asarray(value)
        if array.dtype != buffer.dtype or array.size != buffer.size:
            raise EngineError(f"{array.dtype}[{array.size}] was given for the buffer {buffer}")
        run.memory[buffer] = array.reshape(-1)
    for operand, result in program.in_place:
        run.memory[operand] = run.memory[result] = run.memory[operand].copy()
        run.writer[result][:] = BEFORE
    for stage in program.stages:
        for phase in reversed(stage):
            run.phase(phase, phase.grain if grain is None else grain)
    results = [b for b in program.buffers if b.role == "out"]
    for buffer in results:
        if (run.writer[buffer] == NOBODY).any():
            raise EngineError(f"element {int(np.argmin(run.writer[buffer]))} of {buffer} was not written")
    return [run.memory[buffer] for buffer in results]


NOBODY, BEFORE = -1, -2
BEFORE = -2  # what stands before the iterations of a chunk


class _Run:
    """Memory, and which iteration has written each element: its number, counted over all phases."""

    def __init__(self, program: LoopProgram) -> None:
        own = [b for b in program.buffers if b.role != "in"]
        self.memory: dict[Buffer, Array] = {b: np.zeros(b.size, b.dtype) for b in own}
        self.writer = {b: np.full(b.size, NOBODY) for b in own}
        self.first = self.now = 0  # the numbers of the phase's first iteration and of the current one
        self.variables: dict[str, int] = {}
        self.locals: dict[str, Any] = {}

    def phase(self, phase: Phase, grain: int) -> None:
        self.first = 1 + max([NOBODY, *(int(w.max(initial=NOBODY)) for w in self.writer.values())])
        for start in reversed(range(0, phase.extent, grain)):
            before = set(self.locals)
            self.clear_tiles(lambda writer: True)
            self.now = BEFORE
            self.statements(phase.before)
            for i in reversed(range(start, min(start + grain, phase.extent))):
                self.now = self.first + i
                self.clear_tiles(lambda writer: writer != BEFORE)
                self.variables[phase.name] = i
                self.block(phase.body)
            self.variables.pop(phase.name, None)
            self.forget(before)

    def clear_tiles(self, lost: Callable[[Array], Any]) -> None:
        """Forgets what others have written to a thread's own memory."""
        for buffer, writer in self.writer.items():
            if buffer.role == "tile":
                writer[lost(writer)] = NOBODY

    def block(self, block: Block) -> None:
        before = set(self.locals)
        self.statements(block)
        self.forget(before)

    def forget(self, before: set[str]) -> None:
        for name in self.locals.keys() - before:
            del self.locals[name]

    def statements(self, block: Block) -> None:
        for statement in block.statements:
            if isinstance(statement, Let):
                self.locals[statement.local.name] = self.typed(statement.value, statement.local.dtype)
            elif isinstance(statement, Set):
                self.value(statement.local)
                self.locals[statement.local.name] = self.typed(statement.value, statement.local.dtype)
            elif isinstance(statement, Accumulate):
                combined = apply(statement.op, {}, self.value(statement.local), self.value(statement.value))
                self.locals[statement.local.name] = self.checked(combined, statement.local.dtype, statement)
            elif isinstance(statement, Store):
                self.store(statement)
            elif isinstance(statement, While):
                self.repeat(statement)
            elif isinstance(statement, For):
                for i in range(statement.extent):
                    self.variables[statement.name] = i
                    if self.holds(statement.within):
                        self.block(statement.body)
                self.variables.pop(statement.name, None)
            elif isinstance(statement, When):
                if self.value(statement.condition):
                    self.block(statement.then)
            elif isinstance(statement, Sort):
                self.sort(statement)
            elif isinstance(statement, SortStep):
                self.sort_step(statement)
            elif isinstance(statement, Smallest):
                keys = self.row(statement.keys, statement.at, statement.count)
                least = np.argsort(keys, kind="stable")[: statement.k]
                self.set_row(statement.places, statement.to, least.astype(np.int32))
            elif isinstance(statement, Product):
                self.multiply(statement)
            elif isinstance(statement, Bypass):
                count = min(statement.count, statement.buffer.size - self.index(statement.at))
                self.set_row(statement.buffer, statement.at, self.row(statement.tile, Index((), 0), count))
            elif isinstance(statement, If):
                self.block(statement.then if self.holds(statement.within) else statement.otherwise)

    def repeat(self, loop: While) -> None:
        before = set(self.locals)
        while True:
            self.statements(loop.test)
            if not self.value(loop.condition):
                break
            self.statements(loop.body)
            self.forget(before)
        self.forget(before)

    def typed(self, value: Expression, dtype: np.dtype[Any]) -> Any:
        if isinstance(value, Load):
            found = self.load(value)
        elif isinstance(value, Apply):
            attrs = {"new_dtype": dtype, **value.attrs} if value.op in CONVERSIONS else value.attrs
            found = apply(value.op, attrs, *map(self.value, value.values))
        elif isinstance(value, Position):
            found = np.asarray(self.index(value.at)).astype(dtype)
        elif isinstance(value, Test):
            found = np.asarray(self.holds(value.within))
        else:
            found = self.value(value)
        return self.checked(found, dtype, value)

    def holds(self, within: Within) -> bool:
        return all(low <= self.index(at) < high for at, low, high in within)

    @staticmethod
    def checked(found: Any, dtype: np.dtype[Any], what: object) -> Any:
        if np.dtype(found.dtype) != dtype or np.shape(found) != ():
            raise EngineError(f"{what} is {found.dtype}{list(np.shape(found))} and not {dtype}")
        return found

    def value(self, value: Value) -> Any:
        if isinstance(value, Literal):
            return np.asarray(value.value)
        if value.name not in self.locals:
            raise EngineError(f"{value} is used outside of the block that it is in")
        return self.locals[value.name]

    def index(self, at: Index) -> int:
        try:
            found = int(at.value(ChainMap(self.variables, self.locals)))
        except KeyError as error:
            raise EngineError(f"{at} is used outside of the loop over {error}") from None
        if not at.low <= found <= at.high:
            raise EngineError(f"{at} is {found} and not within its bounds {at.low} and {at.high}")
        return found

    def place(self, buffer: Buffer, at: Index) -> int:
        found = self.index(at)
        if not 0 <= found < buffer.size:
            raise EngineError(f"{buffer.name}[{at}] is element {found} of {buffer}")
        return found

    def load(self, load: Load) -> Any:
        place = self.place(load.buffer, load.at)
        if load.buffer.role != "in":
            writer = int(self.writer[load.buffer][place])
            if writer == NOBODY or (load.buffer.role != "tile" and self.first <= writer != self.now):
                raise EngineError(f"{load} is read, element {place}, that no phase before has written")
        return self.memory[load.buffer][place]

    def sort(self, sort: Sort) -> None:
        if sort.lanes > 1:
            rows = self.row(sort.keys, sort.at, sort.lanes * sort.count)
            shape, axis = ((sort.lanes, sort.count), 1) if sort.by_rows else ((sort.count, sort.lanes), 0)
            self.set_row(sort.keys, sort.at, np.sort(rows.reshape(shape), axis=axis).ravel())
            return
        keys = self.row(sort.keys, sort.at, sort.count)
        order = np.argsort(keys, kind="stable")
        if sort.places is not None:
            self.set_row(sort.places, sort.at, self.row(sort.places, sort.at, sort.count)[order])
        self.set_row(sort.keys, sort.at, keys[order])

    def sort_step(self, step: SortStep) -> None:
        """All is done in the first share of the last step."""
        if step.step != SORT_STEPS[-1] or self.index(step.share) != 0:
            return
        keys = self.row(step.keys, step.row * step.count, step.count)
        order = np.argsort(keys, kind="stable")
        self.set_row(step.to_keys, step.row * step.count, keys[order])
        if step.places is not None and step.to_places is not None:
            places = self.row(step.places, step.row * step.count, step.count)
            self.set_row(step.to_places, step.row * step.count, places[order])

    def multiply(self, product: Product) -> None:
        rows, columns, length = product.rows, product.columns, product.length
        left, right = self.matrix(product.left, rows, length), self.matrix(product.right, length, columns)
        with np.errstate(invalid="ignore", over="ignore"):
            found = left @ right
            if product.adds:
                found = self.matrix(product.to, rows, columns) + found
        for i, row in enumerate(found):
            self.set_row(product.to.buffer, product.to.at + product.to.steps[0] * i, row)

    def matrix(self, matrix: Matrix, rows: int, columns: int) -> Array:
        """The elements of a matrix."""
        buffer, (row, column) = matrix.buffer, matrix.steps
        places = self.index(matrix.at) + row * np.arange(rows)[:, None] + column * np.arange(columns)
        if places.size and not 0 <= places.min() <= places.max() < buffer.size:
            raise EngineError(f"{matrix} has elements {places.min()} to {places.max()} of {buffer}")
        if buffer.role != "in":
            for writer in np.unique(self.writer[buffer][places]):
                if writer == NOBODY or (buffer.role != "tile" and self.first <= writer != self.now):
                    raise EngineError(f"{matrix} is read, of which an element was written by no phase before")
        found: Array = self.memory[buffer][places]
        return found

    def row(self, buffer: Buffer, at: Index, count: int) -> Array:
        """Elements of a buffer that are there one after the other."""
        return np.array([self.load(Load(buffer, at + i)) for i in range(count)], buffer.dtype)

    def set_row(self, buffer: Buffer, at: Index, row: Array) -> None:
        for i, value in enumerate(row):
            self.store(Store(buffer, at + i, Literal(value)))

    def store(self, store: Store) -> None:
        place = self.place(store.buffer, store.at)
        if store.buffer.role == "in":
            raise EngineError(f"{store.buffer} is written to")
        writer = int(self.writer[store.buffer][place])
        if store.buffer.role != "tile" and self.first <= writer != self.now:
            raise EngineError(f"element {place} of {store.buffer} is written by two iterations")
        value = self.value(store.value)
        self.memory[store.buffer][place] = self.checked(value, store.buffer.dtype, store)
        self.writer[store.buffer][place] = self.now


def apply(op: Op, attrs: Mapping[str, Any], *values: Any) -> Any:
    """A scalar operation: by NumPy where its bits are those of XLA, else by JAX."""
    operands = [np.asarray(value) for value in values]
    if op.fold is not None:
        found = op.fold(attrs, *operands)
        if found is not NotImplemented:
            return found
    assert op.primitive is not None
    if op in CONVERSIONS and len(attrs) == 1:
        return np.asarray(CONVERSIONS[op](operands[0], attrs["new_dtype"]))
    if not attrs and op.name in _NAMED:
        return np.asarray(_NAMED[op.name](*map(jnp.asarray, operands)))
    return np.asarray(op.primitive.bind(*map(jnp.asarray, operands), **attrs))


CONVERSIONS: Mapping[Op, Callable[[Array, np.dtype[Any]], Any]] = {
    op_of(p.convert_element_type_p): lax.convert_element_type,
    op_of(p.bitcast_convert_type_p): lambda x, dtype: x.view(dtype),
}
"""Operations that a loop program may have without parameters: the result's dtype is the local's."""

_NAMED: Mapping[str, Callable[..., Any]] = {
    "add": lax.add,
    "mul": lax.mul,
    "max": lax.max,
    "min": lax.min,
    "exp": lax.exp,
    "log": lax.log,
}
"""What reductions combine with, whose parameters differ between versions of JAX and are not in a loop program."""


def shaped(results: Sequence[Array], avals: Sequence[Any]) -> list[Array]:
    """Flat results in the shapes of these types."""
    return [result.reshape(aval.shape) for result, aval in zip(results, avals, strict=True)]
