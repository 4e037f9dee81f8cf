"""The barrier: a value that is not there before another one is, so that what is computed of it is computed late. The
fence: a value of which XLA does not see what it is made of.

`barrier(x, until)` is `x`. Equal computations of `x` and of a barrier of it stay two, in the graph as in the program
that is lowered, and those of the barrier come after `until` is known: so recomputation stands in the graph, and no
rewrite undoes it. Attribute: `id`, which keeps two barriers apart.

`fence(x)` is `x`, too. XLA does not simplify what reads it together with what it is made of.
"""

from __future__ import annotations

from typing import Any

import jax
from jax.extend.core import Primitive

from graphopt.ir.attrs import EMPTY, Attrs
from graphopt.ir.node import Node, make_node
from graphopt.ir.op import Op, register

barrier_p = Primitive("barrier")
"""The barrier as an equation; `graphopt.backends.xla.barrier` lowers it. Evaluated by itself it is its operand."""


def _run(x: Any, until: Any, *, id: int) -> Any:
    return x


barrier_p.def_impl(_run)
barrier_p.def_abstract_eval(_run)

BARRIER = register(Op("barrier", barrier_p))

fence_p = Primitive("fence")
"""The fence as an equation; `graphopt.backends.xla.barrier` lowers it. Evaluated by itself it is its operand."""

fence_p.def_impl(lambda x: x)
fence_p.def_abstract_eval(lambda x: x)

FENCE = register(Op("fence", fence_p))


def barrier(x: Node, until: Node, id: int) -> Node:
    """`x`, not before `until` is known."""
    return make_node(BARRIER, (x, until), Attrs({"id": id}), x.avals)


def fence(x: Node) -> Node:
    """`x`, as if from nowhere."""
    return make_node(FENCE, (x,), EMPTY, x.avals)


def may_be_waited_for(node: Node) -> bool:
    """Whether a barrier can be until a value: an array of numbers or booleans with elements."""
    dtype = node.aval.dtype
    if not node.aval.is_plain or node.aval.size == 0 or jax.dtypes.issubdtype(dtype, jax.dtypes.extended):
        return False
    return bool(dtype.itemsize >= 1 and dtype.kind in "fiucb") and dtype != jax.dtypes.float0


def may_be_held(node: Node) -> bool:
    """Whether a value can be behind a barrier: an array of any type that XLA can select from."""
    return node.aval.is_plain and not jax.dtypes.issubdtype(node.aval.dtype, jax.dtypes.extended)
