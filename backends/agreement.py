"""Whether the results of two graphs agree, as far as the safety of a rewrite lets them differ.

How far rounding may move a result depends on the program: a difference of two large sums may lose every digit. It is
measured by Monte Carlo arithmetic (D. S. Parker, "Monte Carlo Arithmetic", UCLA CSD-970002, 1997): the program before
the rewrite is run several times, each operand and each result of each operation moved at random by a few units in the
last place. What these runs do not reach, rounding does not explain. Another order of a sum or product may also decide
whether it overflows on the way; such results are not known. Nor are quotients by what is so large that its reciprocal
is flushed to zero: XLA may multiply by that. Nor are the bits of a NaN, which IEEE 754 leaves open.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from graphopt.backends.reference import apply_divided, apply_opened, apply_whole, evaluate
from graphopt.ir.graph import Graph
from graphopt.ir.node import Node
from graphopt.rewrite.safety import SAFETIES

Array = np.ndarray[Any, Any]

RUNS = 6
MOVED_BY = 2.0
"""Units in the last place by which a value is moved at most."""
SUMS = "reduce_sum", "cumsum", "reduce_window_sum", "scatter-add", "dot_general", "conv_general_dilated"
PRODUCTS = "reduce_prod", "cumprod", "scatter-mul"
MARGIN = 12.0
"""How many times the reach of the runs a difference may be: they try few of the ways in which errors can add up."""


@dataclass(frozen=True, slots=True)
class Difference:
    """Where two results disagree. output: its number. index: of the element. expected, found: its values. bound: by how
    much they might have differed. count: how many elements of the output disagree."""

    output: int
    index: tuple[int, ...]
    expected: Any
    found: Any
    bound: float
    count: int

    def __str__(self) -> str:
        place = f"output {self.output}{list(self.index) if self.index else ''}"
        more = f" ({self.count} elements differ)" if self.count > 1 else ""
        return f"{place} is {self.found!r} and should be {self.expected!r}, give or take {self.bound:.3g}{more}"


def disagreement(
    before: Graph, after: Graph, args: Sequence[Any], safety: str = "exact", expected: Sequence[Any] | None = None
) -> Difference | None:
    """The first difference between the results of two graphs that rewrites of this safety do not explain, or None.

    expected: the results of `before`, where they are known already. `exact`: every bit counts (a NaN is a NaN).
    `reassociate`: within what Monte Carlo arithmetic reaches. `nonfinite`: the same where all values of both graphs,
    moved by rounding too, are finite. `approximate`: only results of a wrong order of magnitude are found, so
    that they should be compared in float64.
    """
    if expected is None:
        expected = evaluate(before, *args, apply=apply_opened)
    found = evaluate(after, *args, apply=apply_opened)
    pairs = [(_host(e), _host(f)) for e, f in zip(expected, found, strict=True)]
    differing = [i for i, (e, f) in enumerate(pairs) if not same_bits(e, f)]
    if not differing:
        return None
    for i in differing:
        e, f = pairs[i]
        if e.dtype != f.dtype or e.shape != f.shape:
            return Difference(i, (), f"{e.dtype}{list(e.shape)}", f"{f.dtype}{list(f.shape)}", 0.0, 1)
    if safety == SAFETIES[0]:
        other = list(map(_host, _with_other_nans(before, args)))
        for i in differing:
            wrong = ~_equal_bits(*pairs[i]) & _equal_bits(pairs[i][0], other[i])
            if wrong.any():
                return _first(i, *pairs[i], wrong, np.zeros(()))
        return None
    moved = [_moved(before, args, seed) for seed in range(RUNS)]
    rewritten = _moved(after, args, 0)
    # A result that only just overflows may not do so once it is moved.
    nonfinite = any(of_run for _, of_run in [*moved, rewritten]) or not all(
        _is_finite(r) for pair in pairs for r in pair
    )
    overflowed = safety != "reassociate" and nonfinite
    for i in differing:
        runs = [_host(results[i]) for results, _ in moved]
        bound, unknown = _reach(pairs[i][0], runs)
        if safety == "approximate":
            bound = bound * 1e6 + 1e-6 * np.abs(np.nan_to_num(_numbers(pairs[i][0])))
        wrong = ~_within(*pairs[i], bound) & ~unknown
        if overflowed:
            wrong &= False
        if wrong.any():
            return _first(i, *pairs[i], wrong, bound)
    return None


def _is_finite(x: Array) -> bool:
    return not jnp.issubdtype(x.dtype, np.inexact) or bool(np.isfinite(_numbers(x)).all())


def _has_denormal(x: Any) -> bool:
    if not jax.dtypes.issubdtype(x.dtype, np.inexact):
        return False
    size = np.abs(_numbers(np.asarray(x)))
    return bool(np.any((size > 0) & (size < float(jnp.finfo(x.dtype).tiny))))


def same_bits(a: Array, b: Array) -> bool:
    """Whether two arrays have one dtype, one shape and the same bits, NaNs of any payload being the same."""
    return a.dtype == b.dtype and a.shape == b.shape and bool(_equal_bits(a, b).all())


def _equal_bits(a: Array, b: Array) -> Array:
    raw = [np.ascontiguousarray(x).reshape(-1).view(np.uint8).reshape(x.size, x.dtype.itemsize) for x in (a, b)]
    equal = (raw[0] == raw[1]).all(axis=1).reshape(a.shape)
    if a.dtype.kind in "fc" or a.dtype == jnp.bfloat16:
        with np.errstate(invalid="ignore"):
            equal |= np.isnan(a) & np.isnan(b)
    result: Array = equal
    return result


def _first(output: int, expected: Array, found: Array, wrong: Array, bound: Array) -> Difference:
    index = tuple(int(i) for i in np.argwhere(wrong)[0])
    reach = float(np.broadcast_to(bound, expected.shape)[index])
    return Difference(output, index, expected[index].item(), found[index].item(), reach, int(wrong.sum()))


def _host(value: Any) -> Array:
    if jax.dtypes.issubdtype(value.dtype, jax.dtypes.extended):
        value = jax.random.key_data(value)
    return np.asarray(value)


def _numbers(x: Array) -> Array:
    """Values as float64 or complex128, in which differences of narrower types neither round nor overflow."""
    return x.astype(np.complex128 if x.dtype.kind == "c" else np.float64)


def _reach(expected: Array, runs: Sequence[Array]) -> tuple[Array, Array]:
    """How far rounding may move each element, and of which elements the runs do not tell (not finite, or discrete).

    The logarithm of a negative denormal is NaN, and -inf once it is flushed: neither is finite, and both are right.
    """
    with np.errstate(all="ignore"):
        if expected.dtype.kind in "biu":
            unstable = np.any([run != expected for run in runs], axis=0)
            return np.zeros(expected.shape), np.asarray(unstable)
        numbers = _numbers(expected)
        info = jnp.finfo(expected.dtype)
        spread = np.max([np.abs(_numbers(run) - numbers) for run in runs], axis=0)
        bound = MARGIN * spread + 4 * float(info.eps) * np.abs(numbers) + 4 * float(info.tiny)
        unstable = np.any([~_same_kind(_numbers(run), numbers) for run in runs], axis=0)
        return bound, np.asarray(unstable)


def _same_kind(a: Array, b: Array) -> Array:
    """Where both are finite, or both the same infinity, or both NaN."""
    same: Array = (np.isfinite(a) & np.isfinite(b)) | (a == b) | (np.isnan(a) & np.isnan(b))
    return same


def _within(expected: Array, found: Array, bound: Array) -> Array:
    with np.errstate(all="ignore"):
        close = np.abs(_numbers(found) - _numbers(expected)) <= bound
        same = (expected == found) | (np.isnan(_numbers(expected)) & np.isnan(_numbers(found)))
        return np.asarray(close | same)


def _overflows(node: Node, operands: list[Any]) -> list[Any]:
    """Where some order of the terms of a sum, or the factors of a product, may overflow on the way to each result."""
    outs = node.avals
    if node.op.name not in (*SUMS, *PRODUCTS) or not jax.dtypes.issubdtype(outs[0].dtype, np.inexact):
        return [np.False_] * len(outs)

    def reach(size: Callable[[Any], Any]) -> list[Any]:
        with np.errstate(all="ignore"):
            sizes = [
                jnp.asarray(size(_size(x)).astype(x.dtype)) if jax.dtypes.issubdtype(x.dtype, np.inexact) else x
                for x in map(np.asarray, operands)
            ]
            return [~np.isfinite(_numbers(np.asarray(result))) for result in apply_whole(node, sizes)]

    if node.op.name in SUMS:
        return reach(lambda x: x)
    large, small = reach(lambda x: np.maximum(x, 1)), reach(lambda x: np.maximum(1 / np.where(x == 0, 1, x), 1))
    return [a | b for a, b in zip(large, small, strict=True)]


def _size(x: Array) -> Array:
    """The absolute values of what is finite, or of complex numbers something larger."""
    numbers = _numbers(x)
    parts = [np.nan_to_num(np.abs(part), nan=0, posinf=0) for part in (numbers.real, numbers.imag)]
    return np.asarray(parts[0] + parts[1])


def _unless(overflow: Any, result: Any, other: float) -> Any:
    return jnp.where(overflow, jnp.asarray(other, result.dtype), result) if np.any(overflow) else result


def _quotient(dividend: Any, divisor: Any, result: Any, flushed: bool) -> Any:
    """A quotient: as it should be, or zero, where the reciprocal of the divisor is a denormal."""
    x, y = (_numbers(np.asarray(value)) for value in (dividend, divisor))
    with np.errstate(all="ignore"):
        large = np.isfinite(y) & (np.abs(y) * float(jnp.finfo(result.dtype).tiny) > 1)
        other = (np.zeros(()) if flushed else x / y).astype(result.dtype)
    return jnp.where(large, jnp.asarray(other), result) if np.any(large) else result


def _with_other_nans(graph: Graph, args: Sequence[Any]) -> list[Any]:
    """The results of `graph` where each NaN whose bits are looked at has others."""
    random = np.random.default_rng(0)

    def apply(node: Node, operands: list[Any]) -> list[Any]:
        return apply_divided(node, _seen(node, operands, random))

    return list(evaluate(graph, *args, apply=lambda node, operands: apply_opened(node, operands, apply)))


def _seen(node: Node, operands: list[Any], random: np.random.Generator) -> list[Any]:
    looks_at_bits = node.op.name == "bitcast_convert_type"
    return [_other_nans(x, random) for x in operands] if looks_at_bits else operands


def _other_nans(x: Any, random: np.random.Generator) -> Any:
    """A floating-point array with each NaN of it replaced by a quiet one of the other sign, with any payload."""
    if not jax.dtypes.issubdtype(x.dtype, np.floating) or x.dtype.itemsize == 1:
        return x  # numbers of eight bits have no payload, and some no sign
    host = np.array(x, order="C")
    bits = host.view(f"u{host.dtype.itemsize}")
    sign, quiet = 1 << (8 * host.dtype.itemsize - 1), 1 << (jnp.finfo(host.dtype).nmant - 1)
    changed = random.integers(0, quiet, bits.shape, dtype=np.uint64) | np.uint64(sign)
    bits[...] = np.where(np.isnan(host), bits ^ changed.astype(bits.dtype), bits)
    return jnp.asarray(host)


def _moved(graph: Graph, args: Sequence[Any], seed: int) -> tuple[list[Any], bool]:
    """The results of `graph` in Monte Carlo arithmetic, and whether a value on the way was not finite."""
    random = np.random.default_rng(seed)
    nonfinite = False

    def move(x: Any, flushed: bool = False) -> Any:
        nonlocal nonfinite
        if not jax.dtypes.issubdtype(x.dtype, np.inexact):
            return x
        host = np.array(x, order="C")
        parts = host.reshape(-1)
        if host.dtype.kind == "c":
            parts = parts.view(host.real.dtype)
        with np.errstate(all="ignore"):
            nonfinite = nonfinite or not np.isfinite(parts).all()
            info = jnp.finfo(parts.dtype)
            factor = 1 + MOVED_BY * float(info.eps) * random.uniform(-1, 1, parts.shape)
            wide = parts.astype(np.float64)
            # Near zero a value is moved across it, and a denormal to what a flush would leave; a zero stays one, unless
            # it may be what a flush has left of a denormal. The largest number is given rather than computed.
            moved = wide * factor + float(info.tiny) * random.uniform(-1, 1, parts.shape)
            kept = ((wide == 0) & ~np.bool_(flushed)) | (np.abs(wide) == float(info.max))
            parts[...] = np.where(kept, parts, moved.astype(parts.dtype))
        return jnp.asarray(host)

    def apply(node: Node, operands: list[Any]) -> list[Any]:
        given = [move(operand) for operand in operands]
        flushed = any(map(_has_denormal, given))
        results = apply_divided(node, _seen(node, given, random))
        if seed % 3:  # in the other runs the result is what this order gives
            other = np.nan if seed % 3 == 1 else 0.0
            results = [_unless(o, r, other) for o, r in zip(_overflows(node, given), results, strict=True)]
            if node.op.name == "div" and jax.dtypes.issubdtype(results[0].dtype, np.inexact):
                results = [_quotient(given[0], given[1], results[0], seed % 3 == 2)]
        return [move(result, flushed) for result in results]

    def run(node: Node, operands: list[Any]) -> list[Any]:
        return apply_opened(node, operands, apply)

    return evaluate(graph, *args, apply=run), nonfinite
