"""How much memory a program takes, as XLA's buffer assignment has it: the program is compiled to know."""

from __future__ import annotations

import jax
from jax.extend.core import jaxpr_as_fun

from graphopt.backends.xla import barrier
from graphopt.backends.xla.staging import jaxpr_of
from graphopt.errors import OptionError
from graphopt.ir.graph import Graph

__all__ = ["barrier", "needed_bytes"]


def needed_bytes(graph: Graph) -> int:
    """Bytes of arguments, results and intermediate values of a graph, compiled for the default device; none donated.

    Raises OptionError where XLA does not say.
    """
    lowered = jax.jit(jaxpr_as_fun(jaxpr_of(graph))).lower(*[aval.type for aval in graph.in_avals])
    stats = lowered.compile().memory_analysis()
    if stats is None:
        raise OptionError(f"memory_limit cannot be met: XLA does not say what memory takes on {jax.default_backend()}")
    total = stats.argument_size_in_bytes + stats.output_size_in_bytes + stats.temp_size_in_bytes
    return int(total - stats.alias_size_in_bytes)
