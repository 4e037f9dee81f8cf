"""Products that XLA computes again and again, inside of a reduction of what is made of them: jax 0.10, on CPUs.

XLA's library fusion (`__ynn_fusion`) begins with the reduction and takes in what it is made of, products too. Where
one product is made of another with a result of the same shape, it runs both in one loop over their columns, and
computes the other one for each block of them: a perceptron of three layers of 2048, for a batch of 8, that ends in
softmax takes 40 ms instead of 2. A reduction that a kernel computes takes nothing in. The compiler option
`xla_cpu_experimental_ynn_fusion_type=""` forbids all such fusions, good ones too. Since jax 0.11 it is not so.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

import jax

from graphopt.analysis.access import MOVES
from graphopt.analysis.products import DOT
from graphopt.analysis.reductions import REDUCTIONS
from graphopt.ir.node import Node
from graphopt.ops.make import BROADCAST

SERIES = ("0.10",)
"""The series of JAX whose XLA does this."""

MOST = 1 << 15
"""Elements of a result; where it has more, blocks of rows are computed, and nothing again."""

COLUMNS = 256
"""Where what is reduced has fewer, the library does not reduce it."""

AGAIN = 1e-3
"""Nanoseconds for each element of the second factor and column of the result: measured 1 to 3 thousandths."""


def swallowed_time(nodes: Collection[Node]) -> float:
    """Nanoseconds that XLA takes longer than it need for products that are reduced in `nodes`."""
    if ".".join(jax.__version__.split(".")[:2]) not in SERIES:
        return 0.0
    reduced = [node.inputs[0] for node in nodes if node.op in REDUCTIONS]
    found = {product for node in reduced if _columns(node) >= COLUMNS for product in _swallowed(node)}
    return AGAIN * sum(int(product.inputs[1].aval.size * product.aval.shape[1]) for product in found)


def _swallowed(node: Node) -> Iterator[Node]:
    """The products that a value is made of, of those that are made of another one of their shape."""
    stack, seen = list(_products(node)), set[Node]()
    while stack:
        product = stack.pop()
        if product in seen:
            continue
        seen.add(product)
        before = [n for factor in product.inputs for n in _products(factor)]
        stack += before
        if any(n.aval.shape == product.aval.shape for n in before) and _is_small(product):
            yield product


def _columns(node: Node) -> int:
    return node.aval.shape[-1] if node.aval.shape else 1


def _is_small(product: Node) -> bool:
    shape = product.aval.shape
    return len(shape) == 2 and shape[0] > 1 and shape[1] >= COLUMNS and product.aval.size <= MOST


def _products(node: Node) -> Iterator[Node]:
    """The products that a value is computed from element by element."""
    stack, seen = [node], set[Node]()
    while stack:
        current = stack.pop()
        if current in seen:
            continue
        seen.add(current)
        if current.op is DOT:
            yield current
        elif (current.op.elementwise and current.op not in MOVES) or current.op is BROADCAST:
            stack += current.inputs
