"""Small programs for the passes that make kernels of a graph or prepare it for them: see `programs` for the others."""

from typing import Any

import jax
import numpy as np
from jax import lax
from jax.sharding import PartitionSpec as P

from ..prescribed import prescribed
from .programs import CHUNK, SQUARE, Case, large_result

# ---- stream ------------------------------------------------------------------------------------------------------------

Q = np.ones((2, 21, 4), np.float32)


def scores_are_read_elsewhere(q: Any, k: Any, v: Any) -> Any:
    scores = lax.tanh(lax.dot_general(q, k, (((2,), (2,)), ((0,), (0,)))))
    return lax.dot_general(scores, v, (((2,), (1,)), ((0,), (0,)))), lax.sort(scores)


STREAM: dict[str, Case] = {
    "attention": CHUNK["attention"],
    "one product stays": (large_result, (Q, Q)),
    "read by what is no kernel stays": (scores_are_read_elsewhere, (Q, Q, Q)),
}


# ---- random bits -------------------------------------------------------------------------------------------------------


def bits(words: Any) -> Any:
    return jax.random.bits(jax.random.wrap_key_data(words, impl="threefry2x32"), (5,), "uint32")


def bits_in_a_loop(words: Any) -> Any:
    def step(count: Any, _: Any) -> Any:
        key = jax.random.wrap_key_data(words, impl="threefry2x32")
        return count + jax.random.bits(key, (), "uint16"), None

    return lax.scan(step, np.uint16(0), None, length=3)[0]


def bits_of_another_generator(words: Any) -> Any:
    return jax.random.bits(jax.random.wrap_key_data(words, impl="rbg"), (5,), "uint32")


RANDOM_BITS: dict[str, Case] = {
    "a key": (bits, (np.ones(2, np.uint32),)),
    "in a loop": (bits_in_a_loop, (np.ones(2, np.uint32),)),
    "another generator stays": (bits_of_another_generator, (np.ones(4, np.uint32),)),
}


# ---- local -------------------------------------------------------------------------------------------------------------


def on_each(function: Any) -> Any:
    mesh = jax.make_mesh((1,), ("i",), axis_types=(jax.sharding.AxisType.Auto,))
    return jax.shard_map(function, mesh=mesh, in_specs=P("i"), out_specs=P())


LOCAL: dict[str, Case] = {
    "elementwise and a sum over devices": (on_each(lambda x: lax.psum(lax.sin(x) * x, "i")), (SQUARE,)),
    "nothing local": (lax.sin, (SQUARE,)),
}


# ---- renew -------------------------------------------------------------------------------------------------------------

WIDE = jax.ShapeDtypeStruct((3000, 3000), np.float32)


def row_written_over(x: Any, row: Any) -> Any:
    return lax.dynamic_update_slice(x, row, (7, 0))


RENEW: dict[str, Case] = {
    "a row written over": (row_written_over, (WIDE, jax.ShapeDtypeStruct((1, 3000), np.float32))),
    "another shape": (lambda x: lax.reshape(x, (9_000_000,)), (WIDE,)),
    "small stays": (row_written_over, (SQUARE, SQUARE[:1])),
}


# ---- reuse -------------------------------------------------------------------------------------------------------------


def carried(x: Any) -> Any:
    return lax.fori_loop(0, 5, lambda _, c: prescribed(c, c) * np.float32(0.5) + c, x)


MATRIX = np.ones((100, 100), np.float32)

REUSE: dict[str, Case] = {
    "a product": (lambda x: lax.tanh(prescribed(x, x)), (MATRIX,)),
    "carried by a loop": (carried, (MATRIX,)),
    "read again stays": (lambda x: (lambda y: (lax.tanh(y), lax.digamma(y)))(prescribed(x, x)), (MATRIX,)),
    "an argument stays": (lax.tanh, (SQUARE,)),
}
"""Kernels are made of them before the pass."""
