"""Statements of a loop program with other indices: of another row, or counted from another place."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from graphopt.analysis.access import Within
from graphopt.ir.index import Index
from graphopt.ir.loop import (
    Block,
    Bypass,
    Expression,
    Fetch,
    For,
    If,
    Let,
    Load,
    Matrix,
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

Change = Callable[[Index], Index]


def block_with(block: Block, change: Change) -> Block:
    """A block with every index changed, in what is inside of it too."""
    return Block([statement_with(statement, change) for statement in block.statements])


def statement_with(statement: Statement, change: Change) -> Statement:
    """A statement with every index changed, in what is inside of it too."""
    if isinstance(statement, Let | Set):
        return replace(statement, value=expression_with(statement.value, change))
    if isinstance(statement, Store | Sort | Fetch | Bypass):
        return replace(statement, at=change(statement.at))
    if isinstance(statement, SortStep):
        return replace(statement, row=change(statement.row), share=change(statement.share))
    if isinstance(statement, Smallest):
        return replace(statement, at=change(statement.at), to=change(statement.to))
    if isinstance(statement, Product):
        to, left, right = (_matrix(matrix, change) for matrix in (statement.to, statement.left, statement.right))
        return replace(statement, to=to, left=left, right=right)
    inside = with_blocks(statement, lambda block: block_with(block, change))
    return replace(inside, within=_within(inside.within, change)) if isinstance(inside, For | If) else inside


def with_blocks(statement: Statement, of: Callable[[Block], Block]) -> Statement:
    """A statement with other blocks in it. of: gives what takes the place of a block."""
    if isinstance(statement, For):
        return replace(statement, body=of(statement.body))
    if isinstance(statement, If):
        return replace(statement, then=of(statement.then), otherwise=of(statement.otherwise))
    if isinstance(statement, While):
        return replace(statement, test=of(statement.test), body=of(statement.body))
    return replace(statement, then=of(statement.then)) if isinstance(statement, When) else statement


def expression_with(value: Expression, change: Change) -> Expression:
    """An expression with every index changed."""
    if isinstance(value, Load | Position):
        return replace(value, at=change(value.at))
    return Test(_within(value.within, change)) if isinstance(value, Test) else value


def _matrix(matrix: Matrix, change: Change) -> Matrix:
    return replace(matrix, at=change(matrix.at))


def _within(within: Within, change: Change) -> Within:
    return tuple((change(at), low, high) for at, low, high in within)
