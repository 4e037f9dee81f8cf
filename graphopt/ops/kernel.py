"""The kernel: a region of the graph that an engine other than XLA runs. It means its body.

Attributes: `body`, the graph; `key`, by which the engine knows its compiled form; `engine`, whose it is; and where
results are written over operands `in_place`, the numbers of both.
"""

from __future__ import annotations

from typing import Any

from jax.extend.core import ClosedJaxpr, Primitive, jaxpr_as_fun

from graphopt.ir.attrs import Attrs, SubGraph
from graphopt.ir.graph import Graph
from graphopt.ir.node import Node, make_node
from graphopt.ir.op import Op, register

Pairs = tuple[tuple[int, int], ...]

kernel_p = Primitive("kernel")
"""The kernel as an equation; an engine gives it its lowering. By itself it runs its body."""

kernel_p.multiple_results = True


def _run(*operands: Any, body: ClosedJaxpr, key: int, engine: str, in_place: Pairs = ()) -> list[Any]:
    return list(jaxpr_as_fun(body)(*operands))


def _types(*operands: Any, body: ClosedJaxpr, key: int, engine: str, in_place: Pairs = ()) -> list[Any]:
    return list(body.out_avals)


kernel_p.def_impl(_run)
kernel_p.def_abstract_eval(_types)

KERNEL = register(Op("kernel", kernel_p))


def kernel(body: Graph, inputs: tuple[Node, ...], key: int, engine: str, in_place: Pairs = ()) -> Node:
    """A kernel of this body on these operands."""
    attrs: dict[str, Any] = {"body": SubGraph(body), "key": key, "engine": engine}
    if in_place:
        attrs["in_place"] = in_place
    return make_node(KERNEL, inputs, Attrs(attrs), tuple(body.out_avals))
