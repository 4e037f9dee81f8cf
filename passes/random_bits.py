"""Random bits as elementwise operations on a key's words and a counter, so that they share a kernel with their users.

Before:
    %1: u32[1000] = random_bits[bit_width=32, shape=(1000,)](%0)      where %0 is a key
After:
    %1: u32[2] = random_unwrap(%0)
    ...
    %8: u32[1000] = threefry[word=0](%3, %5, %6, %7)
    %9: u32[1000] = threefry[word=1](%3, %5, %6, %7)
    %10: u32[1000] = xor(%8, %9)
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.extend.core import primitives

from graphopt.ir.aval import dtype_name
from graphopt.ir.graph import Graph
from graphopt.ir.node import Node
from graphopt.ir.op import CONSTANT, PARAM, op_of
from graphopt.ops.control import COND, SCAN, WHILE
from graphopt.ops.random import threefry_p
from graphopt.rewrite.passes import Context, Pass
from graphopt.rewrite.rebuild import rebuild, with_bodies
from graphopt.trace.jaxpr import trace_function

RANDOM_BITS = op_of(primitives.random_bits_p)

COUNTED = 1 << 32
"""From this many numbers on a counter needs both of its words."""


@dataclass(frozen=True)
class RandomBits(Pass):
    """Opens `random_bits` of Threefry keys, as JAX computes them where `jax_threefry_partitionable` is on, its default.

    Every bit is the same. Keys of other generators, and seeding, splitting and folding in, stay as they are.
    """

    name = "random bits"

    def run(self, graph: Graph, context: Context) -> Graph:
        """The graph with the bits computed from the words of their keys."""
        done: dict[Graph, Graph] = {}
        kinds: Counter[str] = Counter()

        def visit(node: Node, inputs: tuple[Node, ...]) -> Node | None:
            if node.op in (SCAN, WHILE, COND):
                return node.with_attrs(with_bodies(node, opened)).with_inputs(inputs)
            if node.op is not RANDOM_BITS:
                return None
            reason = _declined(node)
            kinds["bits computed from the words of a key" if reason is None else f"left to XLA: {reason}"] += 1
            return _bits(node, inputs[0]) if reason is None else None

        def opened(graph: Graph) -> Graph:
            if graph not in done:
                done[graph] = rebuild(graph, context.sources, visit)
            return done[graph]

        new = opened(graph)
        for text, count in kinds.items():
            context.note(text + (f" ({count} times)" if count > 1 else ""))
        return new


def _declined(node: Node) -> str | None:
    """Why bits are not computed here; None where they are."""
    if not jax.config.jax_threefry_partitionable:  # type: ignore[attr-defined]
        return "bits without jax_threefry_partitionable"
    if not node.aval.is_plain or not 0 < math.prod(node.attrs["shape"]) < COUNTED:
        return f"bits of shape {node.attrs['shape']}"
    kind = dtype_name(node.inputs[0].aval.dtype)
    return None if kind == "key<fry>" else f"bits of {kind}"


def _bits(node: Node, keys: Node) -> Node:
    shape, width = node.attrs["shape"], node.attrs["bit_width"]
    template, _ = trace_function(
        lambda keys: _computed(jax.random.key_data(keys), shape, width),
        jax.ShapeDtypeStruct(keys.aval.shape, keys.aval.dtype),
    )
    mapping: dict[Node, Node] = {template.params[0]: keys}
    for inner in template.nodes:
        if inner.op is not PARAM:
            mapping[inner] = (
                inner if inner.op is CONSTANT else inner.with_inputs(tuple([mapping[n] for n in inner.inputs]))
            )
    return mapping[template.outputs[0]]


def _computed(words: Any, shape: tuple[int, ...], width: int) -> Any:
    """As `_threefry_random_bits_partitionable` in JAX: the counter is an element's place among those of its key."""
    batch = words.shape[:-1]
    full = (*batch, *shape)
    first, second = (
        lax.broadcast_in_dim(lax.index_in_dim(words, i, -1, keepdims=False), full, range(len(batch))) for i in (0, 1)
    )
    places = lax.iota(np.uint32, math.prod(shape)).reshape(shape)
    low = lax.broadcast_in_dim(places, full, range(len(batch), len(full)))
    operands = (first, second, lax.full(full, np.uint32(0)), low)
    one, two = (threefry_p.bind(*operands, word=word) for word in (0, 1))
    dtype = np.dtype(f"u{width // 8}")
    if width == 64:
        return lax.shift_left(one.astype(dtype), jnp.full(full, 32, dtype)) | two.astype(dtype)
    return (one ^ two).astype(dtype)
