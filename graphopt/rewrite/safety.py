"""How far a rule may move a result, and which of that a program admits.

A rule states one of four, from the strictest to the loosest:

- `exact`: every bit stays (NaN stays NaN, whatever its payload).
- `reassociate`: sums and products are reordered, so that rounding differs: by at most ε·n·(the same graph on absolute
  values). A zero may change its sign, and a denormal may be kept where it was flushed to zero, or the reverse.
- `nonfinite`: as before where all values are finite; where infinities, NaN or overflow appear may change.
- `approximate`: the same in real numbers; digits may cancel or precision be dropped.

On integers and booleans a rule is exact or is not admitted. The numerics of a program admit: "exact" the first one,
"standard" the first two (what XLA itself does within its reductions), "fast" all.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any, Literal, get_args

import jax
import numpy as np

from graphopt.errors import OptionError
from graphopt.ir.node import Node

Safety = Literal["exact", "reassociate", "nonfinite", "approximate"]

SAFETIES: tuple[str, ...] = get_args(Safety)
"""From the strictest to the loosest."""

ADMITTED = {"exact": SAFETIES[:1], "standard": SAFETIES[:2], "fast": SAFETIES}
"""By the numerics of a program, what its rules may do."""

KINDS = "biufc"
"""Kinds of dtypes: boolean, signed, unsigned, floating, complex. All others (keys, floats of 4 and 8 bits) are `o`."""

BFLOAT16 = "h"
"""Stands for bfloat16 where a rule states its safety for it apart from that for other floating numbers."""


@cache
def kind_of(dtype: Any) -> str:
    """The kind of a dtype: one of `KINDS`, or `o`."""
    if not isinstance(dtype, np.dtype) or dtype == jax.dtypes.float0:
        return "o"
    if dtype.kind in "biufc":
        return dtype.kind
    return "f" if dtype == jax.numpy.bfloat16 else "o"


@cache
def stated_kind(dtype: Any) -> str:
    """The kind of a dtype in the table of a rule's safety: its kind, or `BFLOAT16`."""
    return BFLOAT16 if dtype == jax.numpy.bfloat16 else kind_of(dtype)


def by_kind(safety: str | Mapping[str, str]) -> dict[str, str]:
    """The safety for each kind of dtype; kinds that are not in it are not rewritten.

    One word is meant for floating and complex numbers; integers and booleans are then exact. What is said of floating
    numbers (`f`) holds for bfloat16 (`h`) too where nothing else is said of it. Raises OptionError where a
    safety or a kind is not known.
    """
    if isinstance(safety, str):
        safety = {"biu": "exact", "fc": safety}
    table = {kind: word for kinds, word in safety.items() for kind in kinds}
    if "f" in table:
        table.setdefault(BFLOAT16, table["f"])
    for kind, word in table.items():
        if word not in SAFETIES:
            raise OptionError(f"unknown safety {word!r}; known: {', '.join(SAFETIES)}")
        if kind not in KINDS + BFLOAT16 + "o":
            raise OptionError(f"unknown kind of dtype {kind!r}; known: {', '.join(KINDS)}, o")
        if kind in "biu" and word != "exact":
            raise OptionError(f"on integers and booleans a rule is exact or does not hold; not {word!r}")
    return table


def kinds_of(nodes: Iterable[Node]) -> frozenset[str]:
    """The kinds of dtypes of nodes; booleans do not count beside others, for they choose and compare."""
    kinds = frozenset([stated_kind(node.avals[0].dtype) for node in nodes])
    return kinds if len(kinds) == 1 else kinds - {"b"}


def loosest(table: Mapping[str, str], kinds: Iterable[str]) -> str | None:
    """The loosest safety that `table` states for these kinds of dtypes; None where it does not hold for one."""
    words = [table.get(kind) for kind in kinds]
    if None in words or not words:
        return None
    return max((word for word in words if word), key=SAFETIES.index)
