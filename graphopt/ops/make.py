"""Making nodes: an operation applied to operands, its other parameters and its result types found by JAX itself."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import cache, lru_cache
from typing import Any

import jax
import numpy as np
from jax import lax
from jax.extend.core import primitives as p

from graphopt.errors import GraphError
from graphopt.ir.attrs import EMPTY, Attrs
from graphopt.ir.aval import Aval, aval_of
from graphopt.ir.node import Node, constant, make_node
from graphopt.ir.op import Op, op_of

CONVERT = op_of(p.convert_element_type_p)
BROADCAST = op_of(p.broadcast_in_dim_p)


def make(op: Op, *inputs: Node, **attrs: Any) -> Node:
    """`op` applied to `inputs`, with the parameters `attrs`; JAX's defaults for those not given.

    Raises GraphError where JAX rejects the types or parameters.
    """
    defaults = default_attrs(op)
    full = defaults.replace(**attrs) if attrs else defaults
    return with_parameters(op, inputs, full)


def with_parameters(op: Op, inputs: tuple[Node, ...], attrs: Attrs) -> Node:
    """`op` applied to `inputs`, with exactly these parameters. Raises GraphError where JAX rejects them."""
    try:
        avals = _result_avals(op, tuple([n.aval for n in inputs]), attrs, bool(jax.config.jax_enable_x64))  # type: ignore[attr-defined]
    except (TypeError, ValueError, LookupError, ArithmeticError, AssertionError) as error:
        operands = ", ".join(map(repr, inputs))
        raise GraphError(f"{op.name} of ({operands}) with {dict(attrs)}: {error}") from error
    return make_node(op, inputs, attrs, avals)


@lru_cache(maxsize=4096)
def _result_avals(op: Op, avals: tuple[Aval, ...], attrs: Attrs, x64: bool) -> tuple[Aval, ...]:
    assert op.primitive is not None
    types, _ = op.primitive.abstract_eval(*[aval.type for aval in avals], **attrs)
    return tuple(map(aval_of, types)) if op.primitive.multiple_results else (aval_of(types),)


def scalar(value: complex | bool, dtype: Any) -> Node:
    """A constant without dimensions. Raises GraphError where `value` is not a value of `dtype`."""
    with np.errstate(all="ignore"):
        try:
            array = np.asarray(value).astype(dtype)
        except (TypeError, ValueError) as error:
            raise GraphError(f"{value!r} is not a value of {dtype}") from error
    if not np.isnan(array) and complex(array) != complex(value):
        raise GraphError(f"{value!r} is not a value of {dtype}: it would become {array}")
    return constant(array)


def full(value: complex | bool, aval: Aval) -> Node:
    """An array of the type `aval` whose elements are all `value`."""
    return fit(scalar(value, aval.dtype), aval)


def fit(node: Node, aval: Aval) -> Node:
    """`node` as a value of the type `aval`: broadcast if it has no dimensions, or some of size one, as operands of
    elementwise operations are, and with the weak type that `aval` has.

    Raises GraphError where dtype or shape differ otherwise.
    """
    if node.aval is aval:
        return node
    shape = node.aval.shape
    spreads = len(shape) == len(aval.shape) and all(a in (1, b) for a, b in zip(shape, aval.shape, strict=True))
    if node.aval.dtype != aval.dtype or not (spreads or shape == ()):
        raise GraphError(f"a value of the type {node.aval.type} cannot stand for one of the type {aval.type}")
    if node.aval.weak_type != aval.weak_type:
        node = make(CONVERT, node, new_dtype=aval.dtype, weak_type=aval.weak_type)
    if node.aval.shape != aval.shape:
        node = make(BROADCAST, node, shape=aval.shape, broadcast_dimensions=tuple(range(len(shape))))
    if node.aval is not aval:
        raise GraphError(f"a value of the type {node.aval.type} cannot stand for one of the type {aval.type}")
    return node


@cache
def default_attrs(op: Op) -> Attrs:
    """The parameters with which JAX's own function of the operation binds it, on plain operands.

    Some differ between versions of JAX: those that are not known here are read from a program that JAX traces, which
    takes some milliseconds. Raises GraphError for an operation of which no such program is known.
    """
    assert op.primitive is not None
    if op.primitive.name in KNOWN_DEFAULTS:
        return KNOWN_DEFAULTS[op.primitive.name]
    return traced_defaults(op)


def traced_defaults(op: Op) -> Attrs:
    """What `default_attrs` gives, read from a program that JAX traces."""
    assert op.primitive is not None
    example = _EXAMPLES.get(op.primitive.name, getattr(lax, op.primitive.name, None))
    if example is None:
        raise GraphError(f"graphopt does not know by which function of JAX's the operation {op.name} is made")
    signature = inspect.signature(example)
    for types in _OPERANDS:
        try:
            signature.bind(*types)  # JAX takes ten milliseconds to say that it is not so
            eqns = jax.make_jaxpr(example)(*types).eqns
        except (TypeError, ValueError):
            continue
        found = [eqn for eqn in eqns if eqn.primitive is op.primitive]
        if found:
            return Attrs(found[0].params) if found[0].params else EMPTY
    raise GraphError(f"graphopt does not know how JAX makes the operation {op.name}")


_FLOAT = jax.ShapeDtypeStruct((2, 2), np.float32)
_OTHER = (jax.ShapeDtypeStruct((2, 2), np.int32), jax.ShapeDtypeStruct((2, 2), np.complex64))
_OPERANDS = [(kind,) * count for kind in (_FLOAT, *_OTHER) for count in (1, 2, 3)]

# fmt: off
_WITHOUT_PARAMETERS = (
    "abs", "add", "and", "atan2", "clamp", "copy", "div", "eq", "ge", "gt", "le", "lt", "max", "min", "ne", "neg",
    "not", "or", "pow", "rem", "select_n", "sign", "square", "sub", "xor",
)
_WITH_ACCURACY = ("cos", "exp", "expm1", "log", "log1p", "logistic", "rsqrt", "sin", "sqrt", "tanh")
# fmt: on

KNOWN_DEFAULTS: dict[str, Attrs] = {
    **dict.fromkeys(_WITHOUT_PARAMETERS, EMPTY),
    **dict.fromkeys(_WITH_ACCURACY, Attrs({"accuracy": None})),
    "mul": Attrs({"out_dtype": None}),
    "integer_pow": Attrs({"y": 2}),
    "transpose": Attrs({"permutation": (1, 0)}),
    "slice": Attrs({"limit_indices": (1, 2), "start_indices": (0, 0), "strides": None}),
    "reshape": Attrs({"dimensions": None, "new_sizes": (4,), "sharding": None}),
    "dynamic_slice": Attrs({"slice_sizes": (1, 1)}),
    "dynamic_update_slice": EMPTY,
    "concatenate": Attrs({"dimension": 0}),
    "reduce_sum": Attrs({"axes": (0,), "out_sharding": None}),
    "broadcast_in_dim": Attrs({"broadcast_dimensions": (1, 2), "shape": (2, 2, 2), "sharding": None}),
    "convert_element_type": Attrs({"new_dtype": np.dtype(np.int8), "sharding": None, "weak_type": False}),
}
"""What every supported JAX has in common, so that the common operations are made without tracing anything."""

_EXAMPLES: dict[str, Callable[..., Any]] = {
    "and": lambda x, y: lax.bitwise_and(x, y),
    "or": lambda x, y: lax.bitwise_or(x, y),
    "xor": lambda x, y: lax.bitwise_xor(x, y),
    "not": lambda x: lax.bitwise_not(x),
    "select_n": lambda x, y: lax.select_n(x > y, x, y),
    "integer_pow": lambda x: lax.integer_pow(x, 2),
    "convert_element_type": lambda x: lax.convert_element_type(x, np.int8),
    "reduce_precision": lambda x: lax.reduce_precision(x, 5, 10),
    "bitcast_convert_type": lambda x: lax.bitcast_convert_type(x, np.uint32),
    "broadcast_in_dim": lambda x: lax.broadcast_in_dim(x, (2, 2, 2), (1, 2)),
    "reshape": lambda x: lax.reshape(x, (4,)),
    "transpose": lambda x: lax.transpose(x, (1, 0)),
    "squeeze": lambda x: lax.squeeze(lax.slice(x, (0, 0), (1, 2)), (0,)),
    "slice": lambda x: lax.slice(x, (0, 0), (1, 2)),
    "pad": lambda x: lax.pad(x, 0 * lax.reduce_max(x, (0, 1)), ((0, 0, 0), (0, 0, 0))),
    "rev": lambda x: lax.rev(x, (0,)),
    "concatenate": lambda x, y: lax.concatenate([x, y], 0),
    "iota": lambda x: x + lax.iota(np.float32, 2),
    "copy": lambda x: lax.copy_p.bind(x),
    "dynamic_slice": lambda x: lax.dynamic_slice(x, (0 * lax.reduce_max(x, (0, 1)),) * 2, (1, 1)),
    "dynamic_update_slice": lambda x, y: lax.dynamic_update_slice(x, y, (0 * lax.reduce_max(x, (0, 1)),) * 2),
    "reduce_sum": lambda x: lax.reduce_sum(x, (0,)),
    "reduce_prod": lambda x: lax.reduce_prod(x, (0,)),
    "reduce_max": lambda x: lax.reduce_max(x, (0,)),
    "reduce_min": lambda x: lax.reduce_min(x, (0,)),
    "reduce_and": lambda x: lax.reduce_and(x, (0,)),
    "reduce_or": lambda x: lax.reduce_or(x, (0,)),
    "reduce_xor": lambda x: lax.reduce_xor(x, (0,)),
    "top_k": lambda x: lax.top_k(x, 1),
    "argmax": lambda x: lax.argmax(x, 0, np.int32),
    "argmin": lambda x: lax.argmin(x, 0, np.int32),
    "dot_general": lambda x, y: lax.dot_general(x, y, (((1,), (0,)), ((), ()))),
}
