"""Rules for reductions, cumulative operations, windows and contractions, from all files of this subject."""

from __future__ import annotations

from graphopt.passes.rules import (
    contraction,
    cumulative,
    distribution,
    indexing,
    masks,
    reductions,
    scaling,
    sorts,
    windows,
)
from graphopt.rewrite.rule import AnyRule

# Indexing comes last: what is chosen by a mask is no longer seen as that where its parts are gathered.
_FILES = (reductions, scaling, cumulative, windows, contraction, distribution, masks, sorts, indexing)

RULES: tuple[AnyRule, ...] = tuple(rule for file in _FILES for rule in file.RULES)

DECLINED: dict[str, str] = {name: why for file in _FILES for name, why in file.DECLINED.items()}
