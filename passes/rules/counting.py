"""Rules that are functions and ask how many nodes read an operand, so that nothing is computed twice."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from jax.extend.core import Primitive

from graphopt.ir.node import Node
from graphopt.ir.op import Op
from graphopt.rewrite.rule import rewrites

Uses = Callable[[Node], int]
Counted = Callable[[Node, Uses], Node | None]


def rewrites_counting(
    *ops: Op | Primitive,
    safety: str | Mapping[str, str],
    law: str,
    name: str | None = None,
    of: Iterable[Op] | None = None,
) -> Any:
    """`rewrites` for a function of a node and of the number of uses."""
    return rewrites(*ops, safety=safety, law=law, name=name, an_operand=of)
