"""Statements of a block in the order in which they need each other."""

from __future__ import annotations

from collections.abc import Iterator

from graphopt.ir.index import Index
from graphopt.ir.loop import (
    Accumulate,
    Apply,
    Block,
    Bypass,
    Expression,
    Fetch,
    For,
    If,
    Let,
    Load,
    Local,
    Position,
    Product,
    Set,
    Smallest,
    Sort,
    SortStep,
    Statement,
    Store,
    Test,
    When,
    While,
)


def sort_by_need(block: Block) -> None:
    """Moves what writes a local value, and what that needs in turn, before the first statement that only reads it.

    All else stays as it stands: what writes a value, or a buffer that others read or write, keeps its order, and so
    does what reads a variable between its first value and the one that it is set to.
    """
    statements = block.statements
    reads, writes = [set(reads_of(s)) for s in statements], [set(writes_of(s)) for s in statements]
    local = {s.local.name: k for k, s in enumerate(statements) if isinstance(s, Let)}
    variables = {s.local.name for s in statements if isinstance(s, Set)}
    readers, writers = _places(reads), _places(writes)
    before = [_before(k, reads[k] | writes[k], readers, writers, local, variables) for k in range(len(statements))]
    order: list[int] = []
    placed: set[int] = set()
    for first in range(len(statements)):
        path = [first]
        while path:
            needed = next((k for k in before[path[-1]] if k not in placed), None)
            if needed is not None:
                assert needed not in path, "\n".join(["statements that need each other:", *block.lines()])
                path.append(needed)
            elif (current := path.pop()) not in placed:
                placed.add(current)
                order.append(current)
    block.statements[:] = [statements[k] for k in order]


def _places(names: list[set[str]]) -> dict[str, list[int]]:
    """By name the statements that have it."""
    found: dict[str, list[int]] = {}
    for k, of in enumerate(names):
        for name in of:
            found.setdefault(name, []).append(k)
    return found


def _before(
    k: int,
    names: set[str],
    readers: dict[str, list[int]],
    writers: dict[str, list[int]],
    local: dict[str, int],
    variables: set[str],
) -> list[int]:
    """The statements that statement `k` comes after.

    local: the first statement of each local value of the block. variables: those that the block itself sets again.
    """
    found: set[int] = set()
    for name in names:
        written, is_writer = writers.get(name, []), k in writers.get(name, [])
        if name in variables and name in local and local[name] < k:
            found |= {e for e in (*written, *(readers.get(name, []) if is_writer else [])) if local[name] <= e < k}
        elif name in local and not is_writer:
            found |= set(written)
        elif name in local and local[name] != k:
            found |= {local[name], *(e for e in written if e < k)}
        elif name not in local:
            found |= {e for e in (*written, *(readers.get(name, []) if is_writer else [])) if e < k}
    return sorted(found - {k})


def reads_of(statement: Statement, inside: bool = True) -> Iterator[str]:
    """The names of locals, variables and buffers that a statement reads. inside: also those in it."""
    if isinstance(statement, Let | Set):
        yield from _of(statement.value)
    elif isinstance(statement, Accumulate):
        yield from (*_of(statement.local), *_of(statement.value))
    elif isinstance(statement, Store):
        yield from (*statement.at.variables(), *_of(statement.value))
    elif isinstance(statement, Sort | Fetch):
        yield from statement.at.variables()
    elif isinstance(statement, Bypass):
        yield from (statement.tile.name, *statement.at.variables())
    elif isinstance(statement, SortStep):
        yield from (*statement.row.variables(), *statement.share.variables())
    elif isinstance(statement, Smallest):
        yield from (statement.keys.name, *statement.at.variables(), *statement.to.variables())
    elif isinstance(statement, Product):
        yield from (statement.left.buffer.name, statement.right.buffer.name)
        yield from (statement.to.buffer.name,) if statement.adds else ()
        for matrix in (statement.to, statement.left, statement.right):
            yield from matrix.at.variables()
    elif isinstance(statement, If | For):
        yield from (name for at, _, _ in statement.within for name in at.variables())
    elif isinstance(statement, When | While):
        yield from _of(statement.condition)
    for block in blocks_of(statement) if inside else ():
        for inner in block.statements:
            yield from reads_of(inner)


def _of(value: Expression) -> Iterator[str]:
    if isinstance(value, Load):
        yield value.buffer.name
    if isinstance(value, Load | Position):
        yield from value.at.variables()
    if isinstance(value, Test):
        yield from (name for at, _, _ in value.within for name in at.variables())
    values = value.values if isinstance(value, Apply) else (value,)
    yield from (v.name for v in values if isinstance(v, Local))


def writes_of(statement: Statement) -> Iterator[str]:
    """The names of locals and buffers that a statement writes, or those in it."""
    if isinstance(statement, Let | Set | Accumulate):
        yield statement.local.name
    elif isinstance(statement, Store | Bypass):
        yield statement.buffer.name
    elif isinstance(statement, Smallest):
        yield statement.places.name
    elif isinstance(statement, Product):
        yield statement.to.buffer.name
    elif isinstance(statement, Sort):
        yield from (buffer.name for buffer in (statement.keys, statement.places) if buffer is not None)
    elif isinstance(statement, SortStep):
        pairs = (statement.keys, statement.places, statement.to_keys, statement.to_places)
        yield from (buffer.name for buffer in (*pairs, statement.table) if buffer is not None)
    for block in blocks_of(statement):
        for inner in block.statements:
            yield from writes_of(inner)


def blocks_of(statement: Statement) -> tuple[Block, ...]:
    """The blocks in a statement, in the order of the text."""
    if isinstance(statement, For):
        return (statement.body,)
    if isinstance(statement, If):
        return statement.then, statement.otherwise
    if isinstance(statement, While):
        return statement.test, statement.body
    return (statement.then,) if isinstance(statement, When) else ()


def indices_of(block: Block) -> Iterator[Index]:
    """The indices in the statements of a block, and in those inside of them."""
    for statement in block.statements:
        if isinstance(statement, Let | Set):
            value = statement.value
            if isinstance(value, Load | Position):
                yield value.at
            yield from (at for at, _, _ in value.within) if isinstance(value, Test) else ()
        elif isinstance(statement, If | For):
            yield from (at for at, _, _ in statement.within)
        elif isinstance(statement, Store | Sort | Fetch | Bypass | Smallest):
            yield statement.at
            yield from (statement.to,) if isinstance(statement, Smallest) else ()
        elif isinstance(statement, SortStep):
            yield from (statement.row, statement.share)
        elif isinstance(statement, Product):
            yield from (matrix.at for matrix in (statement.to, statement.left, statement.right))
        for inner in blocks_of(statement):
            yield from indices_of(inner)
