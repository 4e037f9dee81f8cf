"""Single operations at three sizes, and small regions: every described one has a case, or a reason in UNTIMED."""

from __future__ import annotations

from graphopt.bench import regions
from graphopt.bench.elementwise import ELEMENTWISE
from graphopt.bench.programs import Program
from graphopt.bench.structured import STRUCTURED

SIZES = {"1k": 1_000, "100k": 100_000, "10M": 10_000_000}
"""Elements of a case, about: of its first operand or its result, whichever is larger."""

OPERATIONS = (*ELEMENTWISE, *STRUCTURED)

UNTIMED = {
    "threefry": "only a pass makes it, of random bits that are drawn in kernels",
    "stop_gradient": "it computes nothing and moves nothing: XLA returns its operand",
}
"""Described operations without a case, and why."""


def programs() -> list[Program]:
    """Every operation at every size, and the regions that engines are compared on."""
    single = [operation.program(n, label) for operation in OPERATIONS for label, n in SIZES.items()]
    return [*regions.programs(), *single]
