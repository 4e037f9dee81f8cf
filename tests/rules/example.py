"""A program with the types of its arguments."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Example:
    """function: of arrays. types: shape and dtype of each. special: whether NaN, infinities and the like are drawn too.
    x64: whether it is traced and run with 64-bit types. text: the graph itself, for what JAX never traces."""

    function: Callable[..., Any]
    types: tuple[tuple[tuple[int, ...], str], ...]
    special: bool = True
    x64: bool = False
    text: str = ""
