"""What the lowering of one region knows of the machine it is for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from jax.extend.core import ClosedJaxpr

from graphopt.config import Options


@dataclass(frozen=True, slots=True)
class Target:
    """Where and how the code being lowered will run.

    platforms: names as JAX writes them ("cpu", "cuda", "rocm", "tpu"); more than one only when exporting.
    num_devices: how many devices the partitioner may spread the region over; 1 inside a fully manual region.
    for_export: the program will be serialized and may be loaded by a process without graphopt.
    symbolic: some dimension may be a symbol rather than a number.
    alone: the region is all of its program, and no argument's memory is given away.
    transformable: JAX may still differentiate or batch the rewritten program, so custom derivatives must stay in it.
    """

    platforms: tuple[str, ...]
    num_devices: int = 1
    for_export: bool = False
    symbolic: bool = False
    alone: bool = False
    transformable: bool = False


Rewrite = Callable[[ClosedJaxpr, Options, Target], ClosedJaxpr]
"""The passes, as the lowering sees them: a closed jaxpr to one of the same inputs, outputs and effects."""
