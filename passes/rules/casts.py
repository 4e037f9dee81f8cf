"""Rules for casts: conversions of dtype, of bits and of precision, and copies."""

from __future__ import annotations

from functools import cache
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.extend.core import primitives as p

from graphopt.ir.node import Node
from graphopt.ir.op import CONSTANT
from graphopt.ops.make import CONVERT, make
from graphopt.passes.rules.constants import literal
from graphopt.passes.rules.moving import IOTA, MOVES, applied
from graphopt.rewrite.pattern import splat
from graphopt.rewrite.rule import AnyRule, rewrites
from graphopt.rewrite.safety import kind_of

EXACT = {"biufc": "exact"}


@cache
def keeps_every_value(source: Any, target: Any) -> bool:
    """Whether each value of one dtype is one of another dtype too, signed zeros, infinities and NaN included."""
    kinds = kind_of(source) + kind_of(target)
    if source == target:
        return "o" not in kinds
    if kinds[0] == "b":
        return kinds[1] in "iuf"
    if kinds[0] in "iu" and kinds[1] in "iu":
        return bool(np.can_cast(source, target, "safe"))
    if kinds[0] in "iu" and kinds[1] == "f":
        info = np.iinfo(source)
        # The least value of a signed type is a power of two; all others need one bit less than the type has.
        return info.bits - (info.min < 0) <= jnp.finfo(target).nmant + 1
    if kinds in ("ff", "cc"):
        a, b = jnp.finfo(source), jnp.finfo(target)
        return a.nmant <= b.nmant and a.minexp >= b.minexp and a.maxexp <= b.maxexp
    return False


def _merged(node: Node, inner: Node) -> bool:
    """Whether two conversions, one after the other, are the direct one."""
    source, middle, target = inner.inputs[0].aval.dtype, inner.aval.dtype, node.aval.dtype
    kinds = kind_of(source) + kind_of(middle) + kind_of(target)
    if kinds[0] in "iu" and kinds[1] in "iu" and kinds[2] in "iu":
        # Narrowing twice drops the same upper bits; widening first changes nothing.
        narrowing = middle.itemsize <= source.itemsize and target.itemsize <= middle.itemsize
        return narrowing or keeps_every_value(source, middle)
    if not keeps_every_value(source, middle):
        return False
    if kinds[0] in "biu" and kinds[1] == "f" and kinds[2] in "iu":
        # A float outside the range of an integer type is clamped, an integer is cut off.
        return keeps_every_value(source, target)
    return kinds in ("bib", "bub", "bfb", "ccc") or (kinds[2] != "b" and "c" not in kinds)


@rewrites(p.convert_element_type_p, safety=MOVES, law="identity")
def cast_to_the_same_type(node: Node) -> Node | None:
    """convert(x) → x where x has this type"""
    return node.inputs[0] if node.inputs[0].aval is node.aval else None


@rewrites(p.convert_element_type_p, safety={"biu": "exact"}, law="composition")
def cast_of_integer_cast(node: Node) -> Node | None:
    """convert(convert(x)) → convert(x), or x, where the first loses nothing, or both narrow"""
    return _one_cast(node, "biu")


@rewrites(p.convert_element_type_p, safety={"biuf": "exact"}, law="composition")
def cast_of_lossless_cast(node: Node) -> Node | None:
    """convert(convert(x)) → convert(x), or x, from 16 bits or an integer by way of a float"""
    return None if _is_wide(node.inputs[0]) else _one_cast(node, "f")


@rewrites(p.convert_element_type_p, safety={"f": "reassociate", "c": "nonfinite"}, law="composition")
def cast_of_widened_float(node: Node) -> Node | None:
    """convert(convert(x)) → convert(x), or x, from a float whose denormals the first may have flushed"""
    return _one_cast(node, "fc") if _is_wide(node.inputs[0]) else None


def _is_wide(inner: Node) -> bool:
    if inner.op is not CONVERT:
        return False
    dtype = inner.inputs[0].aval.dtype
    return kind_of(dtype) in "fc" and bool(dtype.itemsize > 2)


def _one_cast(node: Node, middle: str) -> Node | None:
    inner = node.inputs[0]
    if inner.op is not CONVERT or kind_of(inner.aval.dtype) not in middle or not _merged(node, inner):
        return None
    x = inner.inputs[0]
    if x.aval is node.aval:
        return x
    return make(CONVERT, x, new_dtype=node.aval.dtype, weak_type=node.aval.weak_type)


@rewrites(p.convert_element_type_p, safety=EXACT, law="reduction")
def cast_of_constant(node: Node) -> Node | None:
    """convert(constant) → constant, where the new dtype has its value"""
    x = node.inputs[0]
    if x.op is not CONSTANT or x.aval.shape:
        return None
    value, dtype = splat(x), node.aval.dtype
    if value is None or kind_of(dtype) not in "iufc" or value != value:
        return None
    with np.errstate(all="ignore"):
        array = np.asarray(value).astype(dtype)
        back = array.real if array.dtype.kind == "c" and value.dtype.kind != "c" else array
        if back.astype(value.dtype) != value or complex(array) != complex(value):
            return None
    if kind_of(dtype) in "fc" and 0 < abs(complex(value)) < float(jnp.finfo(dtype).tiny):
        return None
    return literal(array[()], node)


@rewrites(p.convert_element_type_p, safety={"iuf": "exact"}, law="reduction")
def cast_of_iota(node: Node) -> Node | None:
    """convert(iota) → iota of the new dtype, where it has all the numbers"""
    inner = node.inputs[0]
    if inner.op is not IOTA or inner.inputs:
        return None
    last, dtype = inner.aval.shape[inner.attrs["dimension"]], node.aval.dtype
    kinds = kind_of(inner.aval.dtype), kind_of(dtype)
    limits = [
        int(np.iinfo(t).max) if kind in "iu" else 2 ** int(jnp.finfo(t).nmant) if kind == "f" else 0
        for t, kind in zip((inner.aval.dtype, dtype), kinds, strict=True)
    ]
    return applied(IOTA, inner.attrs.replace(dtype=dtype)) if last <= min(limits) else None


@rewrites(p.bitcast_convert_type_p, safety=MOVES, law="inverse")
def bitcast_of_bitcast(node: Node) -> Node | None:
    """bitcast(bitcast(x)) → x, or one bitcast; bitcast(x) → x where x has this dtype"""
    x = node.inputs[0]
    if x.aval.dtype == node.aval.dtype:
        return x
    if x.op is not node.op or x.inputs[0].aval.dtype == np.bool_ or node.aval.dtype == np.bool_:
        return None
    source = x.inputs[0]
    if source.aval.dtype == node.aval.dtype:
        return source
    sizes = {n.aval.dtype.itemsize for n in (source, x, node)}
    return make(node.op, source, new_dtype=node.aval.dtype) if len(sizes) == 1 else None


@rewrites(p.copy_p, safety=MOVES, law="identity")
def copy_within_a_program(node: Node) -> Node | None:
    """copy(x) → x: within one program XLA decides what is copied"""
    return node.inputs[0]


@rewrites(p.stop_gradient_p, safety=MOVES, law="identity", keeps_derivatives=False)
def stop_gradient_after_differentiation(node: Node) -> Node | None:
    """stop_gradient(x) → x: no rule of this kind is applied where JAX may still differentiate"""
    return node.inputs[0]


@rewrites(p.reduce_precision_p, safety={"f": "reassociate"}, law="identity")
def reduction_to_its_own_precision(node: Node) -> Node | None:
    """reduce_precision(x) → x where x has no more bits"""
    info = jnp.finfo(node.aval.dtype)
    bits = info.bits - 1 - info.nmant
    enough = node.attrs["exponent_bits"] >= bits and node.attrs["mantissa_bits"] >= info.nmant
    return node.inputs[0] if enough else None


@rewrites(p.reduce_precision_p, safety={"f": "exact"}, law="idempotence")
def reduction_of_precision_twice(node: Node) -> Node | None:
    """reduce_precision(reduce_precision(x)) → reduce_precision(x) of the same precision"""
    inner = node.inputs[0]
    return inner if inner.op is node.op and inner.attrs == node.attrs else None


RULES: tuple[AnyRule, ...] = (
    cast_to_the_same_type,
    cast_of_integer_cast,
    cast_of_lossless_cast,
    cast_of_widened_float,
    cast_of_constant,
    cast_of_iota,
    bitcast_of_bitcast,
    copy_within_a_program,
    stop_gradient_after_differentiation,
    reduction_to_its_own_precision,
    reduction_of_precision_twice,
)

DECLINED: dict[str, str] = {
    "convert_element_type": "convert(convert(x)) stays where the first rounds (float32 to bfloat16 and back) or where "
    "a float out of an integer's range is clamped; convert(f(x)) → f(convert(x)) changes the rounding of f.",
    "bitcast_convert_type": "a bitcast to a dtype of another width adds or drops an axis: "
    "only its exact inverse is undone.",
    "copy": "where the copy decides about buffers (in a program that JAX inlines into another one) no rule "
    "of this kind is applied.",
    "stop_gradient": "where JAX may still differentiate the program it stays: there no rule of this kind is applied.",
    "reduce_precision": "a reduction to fewer bits is a rounding that was asked for.",
}
