"""What running a program does, in a form that can be compared to the bit: results, contents of Refs, effects."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jax.extend.core import ClosedJaxpr, jaxpr_as_fun

from graphopt.backends.reference import evaluate
from graphopt.backends.xla.staging import jaxpr_of
from graphopt.ir.graph import Graph
from graphopt.ir.sources import Sources

from .programs import LOG, Program


@dataclass(frozen=True)
class Outcome:
    """Results and, after the run, the Refs among the arguments, as (dtype, shape, bytes); what the effects wrote."""

    results: list[tuple[str, tuple[int, ...], bytes]]
    references: list[tuple[str, tuple[int, ...], bytes]]
    effects: list[Any]


def outcome(function: Callable[..., Any], arguments: Sequence[Any]) -> Outcome:
    LOG.clear()
    results = jax.tree.leaves(function(*arguments))
    jax.effects_barrier()
    references = [leaf[...] for leaf in jax.tree.leaves(arguments) if is_ref(leaf)]
    return Outcome([bits(x) for x in results], [bits(x) for x in references], list(LOG))


def is_ref(value: Any) -> bool:
    return "Ref" in type(jax.typeof(value)).__name__


def bits(value: Any) -> tuple[str, tuple[int, ...], bytes]:
    dtype = jax.typeof(value).dtype
    if jax.dtypes.issubdtype(dtype, jax.dtypes.prng_key):
        host = np.asarray(jax.random.key_data(value))
    else:
        host = np.asarray(value, dtype)  # what passed through untouched may still be a Python number
    return str(dtype), host.shape, host.tobytes()


def traced(program: Program) -> ClosedJaxpr:
    return jax.make_jaxpr(program.function)(*program.arguments())


def jitted(closed: ClosedJaxpr, arguments: Sequence[Any]) -> Outcome:
    """The program compiled as a whole."""
    return outcome(jax.jit(jaxpr_as_fun(closed)), jax.tree.leaves(arguments))


def compiled(graph: Graph, sources: Sources | None, arguments: Sequence[Any]) -> Outcome:
    """The graph written back to a jaxpr and compiled as a whole."""
    return jitted(jaxpr_of(graph, sources), arguments)


def op_by_op(graph: Graph, arguments: Sequence[Any]) -> Outcome:
    """The graph by the oracle: each operation by itself, through JAX."""
    return outcome(lambda *args: evaluate(graph, *args), jax.tree.leaves(arguments))
